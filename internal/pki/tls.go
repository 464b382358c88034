package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Errors of a handshake, wrapped with the words.
var (
	ErrNoCertificate = errors.New("no certificate")
	ErrForeign       = errors.New("certificate of another cluster")
	ErrExpired       = errors.New("certificate expired")
	ErrWrongNode     = errors.New("another node answers")
)

// ServerConfig is a node's side: TLS 1.3, a certificate of this cluster asked
// of every client. protos are the ALPN protocols.
func ServerConfig(caPEM []byte, clusterID string, cert tls.Certificate, protos ...string) (*tls.Config, error) {
	roots, err := pool(caPEM)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   protos,
		ClientCAs:    roots,
		// crypto/tls verifies the chain first, so that the client is sent an alert
		// that says what is wrong (Explain reads it).
		ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := verify(cs.PeerCertificates, roots, clusterID, x509.ExtKeyUsageClientAuth, time.Now())
			return err
		},
	}, nil
}

// ClientConfig is the calling side. It takes a node of this cluster only:
// nodeID, or with "" any (its endpoint is all that the caller knows).
func ClientConfig(caPEM []byte, clusterID string, cert tls.Certificate, nodeID string, protos ...string) (*tls.Config, error) {
	roots, err := pool(caPEM)
	if err != nil {
		return nil, err
	}
	name := ServerName("any")
	if nodeID != "" {
		name = ServerName(nodeID)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   protos,
		RootCAs:      roots,
		ServerName:   name,
		// Only crypto/tls's own check is off, which would want an address or a
		// name known beforehand; VerifyConnection does all of it.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			p, err := verify(cs.PeerCertificates, roots, clusterID, x509.ExtKeyUsageServerAuth, time.Now())
			if err != nil {
				return err
			}
			if p.Role != RoleNode {
				return fmt.Errorf("%w: its certificate has the role %q, not node", ErrWrongNode, p.Role)
			}
			if nodeID == "" {
				return nil
			}
			if err := cs.PeerCertificates[0].VerifyHostname(ServerName(nodeID)); err != nil || p.ID != nodeID {
				return fmt.Errorf("%w: node %s (%s), wanted %s", ErrWrongNode, p.ID, p.Name, nodeID)
			}
			return nil
		},
	}, nil
}

// NodesServerConfig and NodesClientConfig are the two ends of what nodes have
// among themselves. Both are nodes of this cluster, and the dates of their
// certificates don't count: neither an expired certificate nor a clock that is
// wrong parts the nodes of a cluster.
func NodesServerConfig(caPEM []byte, clusterID string, cert tls.Certificate, protos ...string) (*tls.Config, error) {
	conf, err := ServerConfig(caPEM, clusterID, cert, protos...)
	if err != nil {
		return nil, err
	}
	conf.ClientAuth = tls.RequireAnyClientCert // crypto/tls's own check would look at the dates
	conf.VerifyConnection = verifyNode(conf.ClientCAs, clusterID, x509.ExtKeyUsageClientAuth)
	return conf, nil
}

// NodesClientConfig is the calling side of NodesServerConfig.
func NodesClientConfig(caPEM []byte, clusterID string, cert tls.Certificate, protos ...string) (*tls.Config, error) {
	conf, err := ClientConfig(caPEM, clusterID, cert, "", protos...)
	if err != nil {
		return nil, err
	}
	conf.VerifyConnection = verifyNode(conf.RootCAs, clusterID, x509.ExtKeyUsageServerAuth)
	return conf, nil
}

// verifyNode takes any node of the cluster, at a time at which its certificate
// was valid.
func verifyNode(roots *x509.CertPool, clusterID string, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		now := time.Now()
		if len(cs.PeerCertificates) > 0 {
			if c := cs.PeerCertificates[0]; now.After(c.NotAfter) {
				now = c.NotAfter
			} else if now.Before(c.NotBefore) {
				now = c.NotBefore
			}
		}
		p, err := verify(cs.PeerCertificates, roots, clusterID, usage, now)
		if err == nil && p.Role != RoleNode {
			err = fmt.Errorf("%w: the certificate of %s has the role %q, not node", ErrWrongNode, p.Name, p.Role)
		}
		return err
	}
}

func pool(caPEM []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, errors.New("the cluster's authority is no PEM certificate")
	}
	return roots, nil
}

// verify checks a peer's chain against the cluster's authority and says in
// words what is wrong.
func verify(chain []*x509.Certificate, roots *x509.CertPool, clusterID string, usage x509.ExtKeyUsage, now time.Time) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, fmt.Errorf("%w: a certificate of this cluster is needed", ErrNoCertificate)
	}
	c := chain[0]
	p := PeerOf(c)
	inter := x509.NewCertPool()
	for _, x := range chain[1:] {
		inter.AddCert(x)
	}
	_, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(c.NotBefore):
		return p, fmt.Errorf("the certificate of %s is valid from %s on: check the clocks of both hosts: %w",
			p.Name, c.NotBefore.UTC().Format(time.RFC3339), err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return p, fmt.Errorf("%w: that of %s ended at %s; apply renews nodes' certificates",
			ErrExpired, p.Name, c.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		return p, fmt.Errorf("%w: that of %s is signed by an authority that this cluster (%s) doesn't know", ErrForeign, p.Name, clusterID)
	case err != nil:
		return p, fmt.Errorf("the certificate of %s: %w", p.Name, err)
	case p.ClusterID != clusterID:
		return p, fmt.Errorf("%w: that of %s is for cluster %s, this is %s", ErrForeign, p.Name, p.ClusterID, clusterID)
	}
	return p, nil
}

// PeerOfConn says who is at the other end of an established connection.
func PeerOfConn(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, ErrNoCertificate
	}
	return PeerOf(cs.PeerCertificates[0]), nil
}

// Explain puts what the other end said of our certificate in words, wrapping
// ErrNoCertificate, ErrForeign or ErrExpired; any other error it returns as it is.
func Explain(err error) error {
	// crypto/tls has no type of its own for alerts over TCP, only texts.
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" || remote.Err == nil {
		return err
	}
	switch strings.TrimPrefix(remote.Err.Error(), "tls: ") {
	case "certificate required":
		return fmt.Errorf("%w: the node asks for a certificate of its cluster (%w)", ErrNoCertificate, err)
	case "expired certificate":
		return fmt.Errorf("%w: the node refuses this certificate; mint a new one, and compare the clocks of both hosts (%w)", ErrExpired, err)
	case "bad certificate", "unknown certificate", "unknown certificate authority":
		return fmt.Errorf("%w, or a damaged one: the node refuses this certificate; is this the state of the cluster that listens there? (%w)", ErrForeign, err)
	}
	return err
}
