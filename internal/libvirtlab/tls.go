package libvirtlab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TLS has libvirtd listen at 127.0.0.1 by TLS as well: the directory of the
// certificates.
func (lab *Lab) TLS(t *testing.T) (dir string) {
	t.Helper()
	dir = Authority(t, lab.Dir)
	lab.StopDaemon()
	conf := fmt.Sprintf("listen_tls = 1\nlisten_tcp = 0\ntls_port = \"16514\"\nkey_file = %q\ncert_file = %q\nca_file = %q\n",
		filepath.Join(dir, "serverkey.pem"), filepath.Join(dir, "servercert.pem"), filepath.Join(dir, "cacert.pem"))
	f, err := os.OpenFile("/etc/libvirt/libvirtd.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(conf); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	lab.StartDaemon("-l")
	return dir
}

// Authority makes the certificates of a libvirtd at 127.0.0.1 and of its client,
// under the names that libvirt looks for.
func Authority(t *testing.T, dir string) string {
	t.Helper()
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, typ string, der []byte) {
		check(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600))
	}
	issue := func(name string, ca *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		if ca == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage, c.IPAddresses = true, true, x509.KeyUsageCertSign, nil, nil
			ca, by = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), by)
		check(err)
		if ca == c {
			write("cacert.pem", "CERTIFICATE", der)
		} else {
			write(name+"cert.pem", "CERTIFICATE", der)
			secret, err := x509.MarshalPKCS8PrivateKey(key)
			check(err)
			write(name+"key.pem", "PRIVATE KEY", secret)
		}
		made, err := x509.ParseCertificate(der)
		check(err)
		return made, key
	}
	ca, key := issue("authority", nil, nil)
	issue("server", ca, key)
	issue("client", ca, key)
	return dir
}
