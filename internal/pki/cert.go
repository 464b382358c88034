package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// oidName is X.520's name: where a node's certificate keeps its name, for
// people. It proves nothing; names change.
var oidName = asn1.ObjectIdentifier{2, 5, 4, 41}

// Cert is a signed certificate with its key.
type Cert struct {
	Cert      []byte // PEM
	Key       []byte // PEM, PKCS 8; keep it 0600
	NotBefore time.Time
	NotAfter  time.Time
}

// TLS is the certificate as crypto/tls takes it.
func (c *Cert) TLS() (tls.Certificate, error) { return tls.X509KeyPair(c.Cert, c.Key) }

// ServerName is the DNS name in a node's certificate.
func ServerName(nodeID string) string { return nodeID + ".node.clusterplan" }

// NodeCert signs a node's certificate, for both ends of a connection. A
// negative life gives one that has expired.
func (i *Identity) NodeCert(nodeID, name string, life time.Duration) (*Cert, error) {
	if nodeID == "" {
		return nil, errors.New("sign a node's certificate: the node has no id")
	}
	return i.sign(&x509.Certificate{
		Subject: pkix.Name{
			CommonName: nodeID, OrganizationalUnit: []string{RoleNode},
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidName, Value: name}},
		},
		DNSNames:    []string{ServerName(nodeID)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, life)
}

// ClientCert signs a certificate for a program or a person (cn) in a role:
// reader, operator or admin.
func (i *Identity) ClientCert(cn, role string, life time.Duration) (*Cert, error) {
	if role == RoleNode || role == "" || cn == "" {
		return nil, fmt.Errorf("sign a client's certificate: %q can't have the role %q", cn, role)
	}
	return i.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: cn, OrganizationalUnit: []string{role}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, life)
}

func (i *Identity) sign(tmpl *x509.Certificate, life time.Duration) (*Cert, error) {
	ca, signer, err := i.authority()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	now := time.Now()
	tmpl.SerialNumber = serial()
	tmpl.Subject.Organization = []string{i.ID}
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-skew), now.Add(life)
	if tmpl.NotBefore.Before(ca.NotBefore) {
		tmpl.NotBefore = ca.NotBefore
	}
	if tmpl.NotAfter.After(ca.NotAfter) { // nobody would take it any longer
		tmpl.NotAfter = ca.NotAfter
	}
	if life > 0 && !now.Before(ca.NotAfter) {
		return nil, fmt.Errorf("sign a certificate: the cluster's authority has expired at %s (or this host's clock is wrong); "+
			"what runs goes on, but only a new cluster has a new authority: destroy, then apply", ca.NotAfter.UTC().Format(time.RFC3339))
	}
	if life > 0 && !tmpl.NotAfter.After(tmpl.NotBefore) {
		return nil, fmt.Errorf("sign a certificate: by this host's clock it is %s, and the cluster's authority was made after %s: set the clock that is wrong",
			now.UTC().Format(time.RFC3339), ca.NotBefore.UTC().Format(time.RFC3339))
	}
	if life < 0 {
		tmpl.NotBefore = tmpl.NotAfter.Add(-time.Hour)
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	c := &Cert{Cert: encode("CERTIFICATE", der), NotBefore: tmpl.NotBefore, NotAfter: tmpl.NotAfter}
	c.Key, err = encodeKey(key)
	return c, err
}

// RenewNeeded tells whether less than a third of a certificate's life is left.
func RenewNeeded(notBefore, notAfter, now time.Time) bool {
	return notAfter.Sub(now) < notAfter.Sub(notBefore)/3
}

// Peer is who a certificate belongs to.
type Peer struct {
	ClusterID string
	Role      string // reader | operator | admin | node
	ID        string // of a node its id, else the program's or person's name
	Name      string // of a node when it was signed, for people; else ID
	NotBefore time.Time
	NotAfter  time.Time
}

// PeerOf reads a certificate. It verifies nothing: the handshake has.
func PeerOf(c *x509.Certificate) Peer {
	p := Peer{ID: c.Subject.CommonName, Name: c.Subject.CommonName, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	if len(c.Subject.Organization) == 1 {
		p.ClusterID = c.Subject.Organization[0]
	}
	if len(c.Subject.OrganizationalUnit) == 1 {
		p.Role = c.Subject.OrganizationalUnit[0]
	}
	for _, n := range c.Subject.Names {
		if s, ok := n.Value.(string); ok && s != "" && n.Type.Equal(oidName) {
			p.Name = s
		}
	}
	return p
}

// ParseCert reads a PEM certificate and says whose it is.
func ParseCert(pem []byte) (Peer, error) {
	c, err := parseCert(pem)
	if err != nil {
		return Peer{}, fmt.Errorf("read a certificate: %w", err)
	}
	return PeerOf(c), nil
}
