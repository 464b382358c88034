package pki

// Identity is what makes a cluster this one: its id, its certificate authority
// and the key that seals its frames.
type Identity struct {
	ID     string
	Name   string
	CACert []byte // PEM
	CAKey  []byte // PEM, PKCS 8
	Key    []byte // 32 bytes
}
