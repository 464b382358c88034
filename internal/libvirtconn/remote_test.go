package libvirtconn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/clusterplan/clusterplan/internal/libvirtlab"
	"github.com/clusterplan/clusterplan/internal/sshconn"
)

// TestRemote asks the same libvirtd over SSH, by OpenSSH's server, and over TLS;
// hosts that aren't known are refused.
func TestRemote(t *testing.T) {
	libvirtlab.Run(t, func(t *testing.T, lab *libvirtlab.Lab) {
		with := func(cfg Config) error {
			cfg.ConnectTimeout = 20 * time.Second
			c, err := New(cfg)
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Do(t.Context(), "ask", func(l *libvirt.Libvirt) error {
				_, err := l.ConnectGetHostname()
				return err
			})
		}
		ask := func(uri string) error { return with(Config{URI: uri}) }
		text := func(t *testing.T, dir, name string) string {
			t.Helper()
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		t.Run("tls", func(t *testing.T) {
			dir := authority(t, lab.Dir)
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
			f.Close()
			lab.StartDaemon("-l")
			if err := ask("test+tls://127.0.0.1/default?pkipath=" + dir); err != nil {
				t.Fatal(err)
			}
			texts := Config{URI: "test+tls://127.0.0.1/default", PrivateKey: text(t, dir, "clientkey.pem"), Certificate: text(t, dir, "clientcert.pem"), CA: text(t, dir, "cacert.pem")}
			if err := with(texts); err != nil {
				t.Fatal(err)
			}
			stranger := authority(t, t.TempDir())
			texts.PrivateKey, texts.Certificate = text(t, stranger, "clientkey.pem"), text(t, stranger, "clientcert.pem")
			if err := with(texts); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("a client of another authority gives %v", err)
			}
			if err := ask("test+tls://127.0.0.1/default?pkipath=" + authority(t, t.TempDir())); err == nil || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
				t.Fatalf("a server of another authority gives %v", err)
			}
		})
		t.Run("ssh", func(t *testing.T) {
			const sshd = "/usr/sbin/sshd"
			if _, err := os.Stat(sshd); err != nil {
				t.Skip("sshd is missing (Debian: openssh-server)")
			}
			dir := lab.Dir
			for _, key := range []string{"host", "user"} {
				if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
			if err != nil {
				t.Fatal(err)
			}
			known := filepath.Join(dir, "known_hosts")
			if err := os.WriteFile(known, []byte("[127.0.0.1]:2222 "+string(host)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.MkdirAll("/run/sshd", 0o755), os.Chmod(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(sshd, "-D", "-e", "-f", "/dev/null", "-p", "2222", "-o", "ListenAddress=127.0.0.1", "-o", "HostKey="+filepath.Join(dir, "host"),
				"-o", "AuthorizedKeysFile="+filepath.Join(dir, "user.pub"), "-o", "StrictModes=no", "-o", "UsePAM=no", "-o", "PidFile=none")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				if conn, err := net.Dial("tcp", "127.0.0.1:2222"); err == nil {
					conn.Close()
					break
				} else if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			uri := "test+ssh://root@127.0.0.1:2222/default?keyfile=" + filepath.Join(dir, "user")
			if err := ask(uri + "&known_hosts=" + known); err != nil {
				t.Fatal(err)
			}
			texts := Config{URI: "test+ssh://root@127.0.0.1:2222/default", PrivateKey: text(t, dir, "user"), HostKey: string(host)}
			if err := with(texts); err != nil {
				t.Fatal(err)
			}
			texts.PrivateKey = text(t, dir, "host")
			if err := with(texts); !errors.Is(err, sshconn.ErrAuth) {
				t.Fatalf("a key that nobody knows gives %v", err)
			}
			if err := ask(uri); !errors.Is(err, sshconn.ErrHostKey) {
				t.Fatalf("a host that isn't known gives %v", err)
			}
			if err := ask(uri + "&known_hosts=" + known + "&socket=/run/none"); err == nil || !strings.Contains(err.Error(), "look whether libvirtd runs") {
				t.Fatalf("a host without libvirtd gives %v", err)
			}
		})
	})
}

// authority makes the certificates of a libvirtd at 127.0.0.1 and of its client,
// under the names that libvirt looks for.
func authority(t *testing.T, dir string) string {
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
