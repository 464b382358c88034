package libvirtconn

import (
	"errors"
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
			dir := lab.TLS(t)
			if err := ask("test+tls://127.0.0.1/default?pkipath=" + dir); err != nil {
				t.Fatal(err)
			}
			texts := Config{URI: "test+tls://127.0.0.1/default", PrivateKey: text(t, dir, "clientkey.pem"), Certificate: text(t, dir, "clientcert.pem"), CA: text(t, dir, "cacert.pem")}
			if err := with(texts); err != nil {
				t.Fatal(err)
			}
			stranger := libvirtlab.Authority(t, t.TempDir())
			texts.PrivateKey, texts.Certificate = text(t, stranger, "clientkey.pem"), text(t, stranger, "clientcert.pem")
			if err := with(texts); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("a client of another authority gives %v", err)
			}
			if err := ask("test+tls://127.0.0.1/default?pkipath=" + libvirtlab.Authority(t, t.TempDir())); err == nil || !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "certificate") {
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
