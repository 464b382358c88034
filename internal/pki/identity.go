// Package pki is the cluster's own small public key infrastructure: one
// certificate authority a cluster, made at the first apply, and the
// certificates that it signs for nodes and for people's programs.
//
// A certificate says who it belongs to in its subject: O is the cluster's id,
// so that two clusters never mix even under one authority; OU is the role
// (reader, operator, admin, node); CN is a node's id, or a program's or
// person's name. A node's certificate also has the DNS name
// `<node id>.node.clusterplan`. Addresses are never part of it: a node keeps
// its certificate when it moves.
//
// Start with NewIdentity; ServerConfig and ClientConfig are the two ends of a
// call of the API, NodesServerConfig and NodesClientConfig those of what nodes
// have among themselves; PeerOf says who is at the other end; Explain puts a failed
// handshake in words.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Lives of certificates. The authority's is that of the cluster. A node's is
// long, since only an apply renews it, and RenewNeeded leaves four months for one.
const (
	CALife     = 10 * 365 * 24 * time.Hour
	NodeLife   = 365 * 24 * time.Hour
	ClientLife = time.Hour
)

// RoleNode is the OU of nodes' certificates. The others are api/client's.
const RoleNode = "node"

// skew is how far a certificate's begin lies in the past, for hosts whose
// clock is behind.
const skew = 5 * time.Minute

// Identity is what makes a cluster this one: its id, its certificate authority
// and the key that seals its frames.
type Identity struct {
	ID     string
	Name   string
	CACert []byte // PEM
	CAKey  []byte // PEM, PKCS 8
	Key    []byte // 32 bytes
}

// NewID is 16 random hexadecimal digits: the id of a cluster, node, group or
// resource.
func NewID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// NewIdentity makes the identity of a new cluster: an id, an ECDSA P-256
// authority valid for ten years, and a key.
func NewIdentity(name string) (*Identity, error) {
	id := &Identity{ID: NewID(), Name: name, Key: make([]byte, 32)}
	rand.Read(id.Key)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's authority: %w", err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{id.ID}, CommonName: "clusterplan " + name},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(CALife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the cluster's authority: %w", err)
	}
	id.CACert = encode("CERTIFICATE", der)
	if id.CAKey, err = encodeKey(key); err != nil {
		return nil, err
	}
	return id, nil
}

// ParseIdentity puts together what state keeps of a cluster: the authority's
// certificate and key as PEM, the frames' key as base64.
func ParseIdentity(id, name, caCert, caKey, key string) (*Identity, error) {
	k, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(k) != 32 {
		return nil, errors.New("the cluster's key in the state is not the base64 of 32 bytes")
	}
	i := &Identity{ID: id, Name: name, CACert: []byte(caCert), CAKey: []byte(caKey), Key: k}
	ca, signer, err := i.authority()
	if err != nil {
		return nil, err
	}
	if pub, ok := ca.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(signer.Public()) {
		return nil, errors.New("the cluster's authority and its key in the state don't belong together")
	}
	return i, nil
}

// KeyText is Key as ParseIdentity reads it.
func (i *Identity) KeyText() string { return base64.StdEncoding.EncodeToString(i.Key) }

func (i *Identity) authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	ca, err := parseCert(i.CACert)
	if err != nil {
		return nil, nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	block, _ := pem.Decode(i.CAKey)
	if block == nil {
		return nil, nil, errors.New("read the cluster's authority: its key is no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("read the cluster's authority: its key is %T, not ECDSA", key)
	}
	return ca, signer, nil
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n.Add(n, big.NewInt(1))
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return encode("PRIVATE KEY", der), nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("this is no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
