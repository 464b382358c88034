package sshconn

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshd is OpenSSH's real server on a loopback port, with its own host key.
type sshd struct {
	t    *testing.T
	dir  string
	port int
	cmd  *exec.Cmd
	wrap []string      // what sshd is run by
	key  ssh.PublicKey // the host's
}

func needSSHD(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: sshd is started as root")
	}
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("skipped: OpenSSH's server is not installed (apt-get install openssh-server)")
	}
	os.MkdirAll("/run/sshd", 0o755)
}

// startSSHD starts one; more are lines of sshd_config that go before the others.
func startSSHD(t *testing.T, more ...string) *sshd {
	t.Helper()
	needSSHD(t)
	s := &sshd{t: t, dir: t.TempDir()}
	s.key = writeKey(t, filepath.Join(s.dir, "hostkey"), "").PublicKey()
	s.authorize(writeKey(t, filepath.Join(s.dir, "id"), "").PublicKey())
	s.port = freePort(t)
	s.start(more...)
	return s
}

func (s *sshd) start(more ...string) {
	s.t.Helper()
	home := "SetEnv HOME=" + s.dir // not this machine's ~/.bashrc, which bash reads for SSH's commands, too
	for i, line := range more {
		if strings.HasPrefix(line, "SetEnv ") { // sshd takes the first such line only
			home, more[i] = home+strings.TrimPrefix(line, "SetEnv"), "# "+line
		}
	}
	config := strings.Join(append(more,
		fmt.Sprintf("Port %d", s.port), "ListenAddress 127.0.0.1", "HostKey "+s.dir+"/hostkey", "PidFile none",
		"AuthorizedKeysFile "+s.dir+"/authorized_keys", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		home, "UsePAM no", "UseDNS no", "PermitRootLogin prohibit-password"), "\n")
	must(s.t, os.WriteFile(s.dir+"/sshd_config", []byte(config+"\n"), 0o600))
	argv := append(slices.Clone(s.wrap), "/usr/sbin/sshd", "-D", "-f", s.dir+"/sshd_config", "-E", s.dir+"/log")
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Stderr = os.Stderr
	must(s.t, s.cmd.Start())
	cmd := s.cmd
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(s.t, "sshd listens", func() bool {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	s.t.Cleanup(func() {
		if s.t.Failed() {
			log, _ := os.ReadFile(s.dir + "/log")
			s.t.Logf("sshd at %s:\n%s", s.addr(), log)
		}
	})
}

func (s *sshd) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *sshd) authorize(keys ...ssh.PublicKey) {
	var text []byte
	for _, k := range keys {
		text = append(text, ssh.MarshalAuthorizedKey(k)...)
	}
	must(s.t, os.WriteFile(s.dir+"/authorized_keys", text, 0o644))
}

// config logs in as root with the key that the server knows, and knows its host key.
func (s *sshd) config() Config {
	return Config{Host: "127.0.0.1", Port: s.port, User: "root", PrivateKeyFile: s.dir + "/id", HostKey: string(ssh.MarshalAuthorizedKey(s.key)),
		SSHConfigFile: "none", AgentSocket: "none", KnownHostsFile: s.dir + "/known_hosts"}
}

func newPool(t *testing.T, o Options) *Pool {
	p := New(o)
	t.Cleanup(func() { p.Close() })
	return p
}

func open(t *testing.T, p *Pool, cfg Config) *Conn {
	t.Helper()
	c, err := p.Conn(cfg)
	must(t, err)
	return c
}

func connect(t *testing.T, cfg Config) *Conn {
	t.Helper()
	return open(t, newPool(t, Options{}), cfg)
}

func sh(t *testing.T, c *Conn, line string) string {
	t.Helper()
	out, err := c.Output(context.Background(), Command{Argv: []string{"sh", "-c", line}})
	must(t, err)
	return strings.TrimSpace(string(out))
}

// writeKey makes a key pair; the signer is the unlocked one.
func writeKey(t *testing.T, path, passphrase string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	must(t, err)
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// wants checks an error's sentinel and that each text is in it.
func wants(t *testing.T, err, sentinel error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if sentinel != nil && !isError(err, sentinel) {
		t.Errorf("error is no %q: %v", sentinel, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error has no %q: %v", text, err)
		}
	}
	t.Log(err)
}
