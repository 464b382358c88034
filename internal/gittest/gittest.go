// Package gittest serves git repositories as others do, for tests: by git's own
// programs over HTTP, and behind OpenSSH's real server. All on 127.0.0.1.
package gittest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Git runs git in dir, without anybody's configuration, and returns what it prints.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), environment("/nonexistent")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func program(t testing.TB) string {
	t.Helper()
	p, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed, which serves the repository")
	}
	return p
}

func environment(home string) []string {
	return []string{"GIT_CONFIG_NOSYSTEM=1", "HOME=" + home, "GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=http.receivepack", "GIT_CONFIG_VALUE_1=true"}
}

// Bare makes an empty bare repository, called name.git.
func Bare(t testing.TB, name string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), name+".git")
	Git(t, filepath.Dir(dir), "init", "-q", "--bare", dir)
	return dir
}

// HTTP is git's smart HTTP server for the repositories beside dir.
func HTTP(t testing.TB, dir string) http.Handler {
	return &cgi.Handler{Path: program(t), Args: []string{"http-backend"},
		Env: append(environment(t.TempDir()), "GIT_PROJECT_ROOT="+filepath.Dir(dir), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=somebody")}
}

// SSH is a server with its own host key, that takes one key.
type SSH struct {
	Port  int
	Key   string // file of the private key that it takes
	Known string // its line in a known_hosts file
}

// NeedSSH skips a test where OpenSSH's server can't be started.
func NeedSSH(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: sshd is started as root")
	}
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("skipped: OpenSSH's server is not installed (apt-get install openssh-server)")
	}
}

// ServeSSH starts one. It runs git's programs, on any repository of this machine.
func ServeSSH(t testing.TB) *SSH {
	t.Helper()
	NeedSSH(t)
	program(t)
	dir := t.TempDir()
	key := func(name string) string {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		fatal(t, err)
		block, err := ssh.MarshalPrivateKey(private, "")
		fatal(t, err)
		fatal(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
		p, err := ssh.NewPublicKey(public)
		fatal(t, err)
		return string(ssh.MarshalAuthorizedKey(p))
	}
	host := key("hostkey")
	fatal(t, os.WriteFile(filepath.Join(dir, "authorized_keys"), []byte(key("id")), 0o600))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	s := &SSH{Port: l.Addr().(*net.TCPAddr).Port, Key: filepath.Join(dir, "id")}
	l.Close()
	s.Known = fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, host)
	env := "SetEnv"
	for _, one := range environment(dir) {
		env += " " + one
	}
	config := []string{env, fmt.Sprint("Port ", s.Port), "ListenAddress 127.0.0.1", "HostKey " + dir + "/hostkey", "PidFile none",
		"AuthorizedKeysFile " + dir + "/authorized_keys", "StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"UsePAM no", "UseDNS no", "PermitRootLogin prohibit-password", "MaxStartups 100"}
	fatal(t, os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(strings.Join(config, "\n")+"\n"), 0o600))
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-f", dir+"/sshd_config", "-E", dir+"/log")
	fatal(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(dir + "/log")
			t.Logf("sshd:\n%s", log)
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", s.Address())
		if err == nil {
			c.Close()
			return s
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(dir + "/log")
			t.Fatalf("sshd serves nobody: %v\n%s", err, log)
		}
	}
}

// Address is where it listens.
func (s *SSH) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// URL is a repository's.
func (s *SSH) URL(dir string) string { return fmt.Sprintf("ssh://root@%s%s", s.Address(), dir) }

// Home makes a home directory for t with known_hosts, and the key where that is looked for
// without an agent; "": neither.
func Home(t *testing.T, known, key string) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("SSH_KNOWN_HOSTS", "")
	dir := filepath.Join(home, ".ssh")
	fatal(t, os.Mkdir(dir, 0o700))
	fatal(t, os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(known), 0o600))
	if key != "" {
		text, err := os.ReadFile(key)
		fatal(t, err)
		fatal(t, os.WriteFile(filepath.Join(dir, "id_ed25519"), text, 0o600))
	}
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
