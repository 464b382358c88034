package sshconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/clusterplan/clusterplan/internal/shell"
)

const (
	sudoPassword = `pass word'"`
	// openssl passwd -6 -salt test
	sudoHash = "$6$test$2WAfkTFk0M6epM4QRvjVECwHUzaiZUPDdA7BA.ILWnYlmqluDJ5LuO6YWTYKiUh7Fi1cg7PzK7yFUJumrK0N/0"
)

// startSudo starts sshd in a mount namespace of its own, with users and sudo's
// rules that are there only: the real sudo, and PAM's real check of a password.
func startSudo(t *testing.T) *sshd {
	t.Helper()
	needSSHD(t)
	for _, path := range []string{"/usr/bin/sudo", "/usr/bin/unshare"} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("skipped: %s is not installed (apt-get install sudo util-linux)", path)
		}
	}
	s := &sshd{t: t, dir: t.TempDir()}
	must(t, os.Chmod(filepath.Dir(s.dir), 0o755)) // the users have to get at their keys
	s.key = writeKey(t, s.dir+"/hostkey", "").PublicKey()
	s.authorize(writeKey(t, s.dir+"/id", "").PublicKey())
	s.port = freePort(t)

	etc := map[string]string{"passwd": "", "shadow": "", "group": "",
		"sudoers": "Defaults lecture=always\nDefaults:notty requiretty\naskme ALL=(ALL) ALL\nletin,notty,shell ALL=(ALL) NOPASSWD: ALL\n"}
	for i, user := range []string{"askme", "letin", "keepout", "notty"} {
		etc["passwd"] += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, 60100+i, 60100+i, s.dir)
		etc["shadow"] += fmt.Sprintf("%s:%s:20000:0:99999:7:::\n", user, sudoHash)
		etc["group"] += fmt.Sprintf("%s:x:%d:\n", user, 60100+i)
	}
	etc["passwd"] += "shut:x:60199:60100::" + s.dir + ":/usr/sbin/nologin\n"
	etc["shadow"] += "shut:" + sudoHash + ":20000:0:99999:7:::\n"
	etc["passwd"] += "shell:x:60198:60100::" + s.dir + "/home:" + s.dir + "/shell\n" // TestLoginShells has it lead to each
	etc["shadow"] += "shell:" + sudoHash + ":20000:0:99999:7:::\n"
	var mounts strings.Builder
	mode := map[string]os.FileMode{"passwd": 0o644, "group": 0o644, "shadow": 0o600, "sudoers": 0o440}
	for name, more := range etc {
		have, err := os.ReadFile("/etc/" + name)
		must(t, err)
		if name == "sudoers" {
			have = []byte("root ALL=(ALL) ALL\n")
		}
		must(t, os.WriteFile(s.dir+"/"+name, append(have, more...), mode[name]))
		fmt.Fprintf(&mounts, "mount --bind %s/%s /etc/%s\n", s.dir, name, name)
	}
	write(t, s.dir+"/pam", "auth required pam_unix.so nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n")
	fmt.Fprintf(&mounts, "mount --bind %s/pam /etc/pam.d/sudo\nmount -t tmpfs none /run/sudo\n", s.dir)
	must(t, os.MkdirAll("/run/sudo", 0o711))
	s.wrap = []string{"unshare", "--mount", "sh", "-ec", mounts.String() + `exec "$@"`, "sh"}
	s.start()
	return s
}

func TestSudo(t *testing.T) {
	s := startSudo(t)
	ctx := context.Background()
	pool := newPool(t, Options{})
	as := func(user, password string) *Conn {
		cfg := s.config()
		cfg.User, cfg.Sudo = user, Sudo{Enabled: true, Password: password}
		return open(t, pool, cfg)
	}
	// Who logs in where, and with what, is the client's configuration to say.
	write(t, s.dir+"/config", fmt.Sprintf("Host there\n  HostName 127.0.0.1\n  Port %d\n  User askme\n  IdentityFile %s/id\nHost *\n  User nobody\n", s.port, s.dir))
	if user := sh(t, open(t, pool, Config{Host: "there", SSHConfigFile: s.dir + "/config", AgentSocket: "none", HostKey: ssh.FingerprintSHA256(s.key)}), "id -un"); user != "askme" {
		t.Errorf("by ~/.ssh/config %s has logged in", user)
	}

	dir := t.TempDir() // root's alone
	must(t, os.Chmod(dir, 0o700))
	data := bytes.Repeat([]byte("secret"), 128<<10)
	for _, c := range []*Conn{as("letin", ""), as("letin", sudoPassword), as("askme", sudoPassword)} {
		r, err := c.Run(ctx, Command{Argv: []string{"sh", "-c", `id -u; cat; echo "$X" >&2; exit 7`}, Stdin: strings.NewReader("first\nsecond"), Env: map[string]string{"X": "it's"}})
		must(t, err)
		if r.Code != 7 || string(r.Stdout) != "0\nfirst\nsecond" || string(r.Stderr) != "it's\n" {
			t.Errorf("%s: %+v %q %q", c.User(), r.Code, r.Stdout, r.Stderr)
		}
		if out, err := c.Output(ctx, Command{Argv: []string{"id", "-un"}, Login: true}); err != nil || strings.TrimSpace(string(out)) != c.User() {
			t.Errorf("login as %q: %v", out, err)
		}
		must(t, c.Put(ctx, dir+"/x/y", bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o600, Parents: true}))
		if got, err := c.ReadFile(ctx, dir+"/x/y"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", len(got), err)
		}
		if info, err := c.Stat(ctx, dir+"/x/y"); err != nil || info.UID != 0 || info.Mode != 0o600 {
			t.Errorf("%+v: %v", info, err)
		}
		must(t, c.Remove(ctx, dir+"/x"))
	}

	_, err := as("askme", "").Run(ctx, Command{Argv: []string{"true"}})
	wants(t, err, ErrSudo, s.addr(), "sudo does not let askme be root", "password is required", "/etc/sudoers.d")
	_, err = as("askme", "wrong").Run(ctx, Command{Argv: []string{"touch", dir + "/no"}})
	wants(t, err, ErrSudo, "the password is wrong")
	_, err = as("keepout", sudoPassword).Run(ctx, Command{Argv: []string{"touch", dir + "/no"}})
	wants(t, err, ErrSudo, "keepout is not in the sudoers file")
	if strings.Contains(err.Error(), sudoPassword) || strings.Contains(err.Error(), "clusterplan-") {
		t.Errorf("the error tells too much: %v", err)
	}
	if _, err := os.Stat(dir + "/no"); err == nil {
		t.Error("ran without being let in")
	}
	_, err = as("notty", "").Run(ctx, Command{Argv: []string{"true"}})
	wants(t, err, ErrSudo, "you must have a tty", "a line `Defaults:notty !requiretty` in /etc/sudoers.d")
	cfg := s.config()
	cfg.User = "shut"
	_, err = open(t, pool, cfg).Run(ctx, Command{Argv: []string{"true"}})
	wants(t, err, nil, "does not run commands for shut: This account is currently not available")

	// Without sudo, what is root's can't be seen: that is not the same as not there.
	cfg.User = "askme"
	login := open(t, pool, cfg)
	_, err = login.ReadFile(ctx, dir+"/x")
	wants(t, err, os.ErrPermission, s.addr())
	_, err = login.ReadFile(ctx, s.dir+"/none/x")
	wants(t, err, os.ErrNotExist, s.addr())
	must(t, os.Chmod(s.dir, 0o777))
	must(t, login.Put(ctx, s.dir+"/put", bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o644}))
	err = login.Put(ctx, "/put", bytes.NewReader(data), int64(len(data)), PutOptions{Mode: 0o644})
	wants(t, err, os.ErrPermission, s.addr(), "put /put")

	// What sudo runs ends as well when the caller leaves.
	cancelled, cancel := context.WithCancel(ctx)
	out := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	_, err = as("askme", sudoPassword).Run(cancelled, Command{Argv: []string{"sh", "-c", "trap '' TERM; echo $$ > " + dir + "/pid; echo; while :; do sleep 0.1; done"}, Stdout: out})
	wants(t, err, context.Canceled)
	text, err := os.ReadFile(dir + "/pid")
	must(t, err)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	eventually(t, "the command is gone", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })

	// The password is nowhere to be seen.
	if out, err := exec.Command("grep", "-rF", sudoPassword, s.dir+"/log").CombinedOutput(); err == nil {
		t.Errorf("the password is in sshd's log: %s", out)
	}
}

// Whatever the login shell is, and whatever its start files print, or where there is
// no home directory for them, commands get their words, and begin.
func TestLoginShells(t *testing.T) {
	s := startSudo(t)
	ctx := context.Background()
	words := []string{"printf", "%s|", "", "a b", "it's", `back\slash\\`, `\'`, "$HOME `id` \"x\"", "new\nline\n", "*", "ü\xff", "-n", "!x ^y ~ {a,b} (c) %1 # end", strings.Repeat("long ! ", 1000)}
	must(t, os.Chmod(s.dir, 0o777))
	ran := 0
	for _, shell := range []string{"/bin/sh", "/bin/bash", "/bin/tcsh", "/bin/bsd-csh", "/usr/bin/fish", "/bin/mksh"} {
		if _, err := os.Stat(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		ran++
		os.Remove(s.dir + "/shell")
		must(t, os.Symlink(shell, s.dir+"/shell"))
		for _, talks := range []bool{false, true} {
			os.RemoveAll(s.dir + "/home")
			if talks {
				must(t, os.MkdirAll(s.dir+"/home/.config/fish", 0o755))
				for _, name := range []string{".bashrc", ".cshrc", ".config/fish/config.fish"} {
					write(t, s.dir+"/home/"+name, "echo Welcome to this host\n")
				}
			}
			for _, sudo := range []bool{false, true} {
				cfg := s.config()
				cfg.User, cfg.Sudo.Enabled = "shell", sudo
				c := connect(t, cfg)
				out, err := c.Output(ctx, Command{Argv: words})
				if want := strings.Join(words[2:], "|") + "|"; err != nil || string(out) != want {
					t.Errorf("%s, talks %v, sudo %v: %q, %v", shell, talks, sudo, out, err)
					continue
				}
				name := s.dir + "/it's ! a file"
				must(t, c.Put(ctx, name, strings.NewReader("data"), 4, PutOptions{Mode: 0o600}))
				if data, err := c.ReadFile(ctx, name); err != nil || string(data) != "data" {
					t.Errorf("%s: %q, %v", shell, data, err)
				}
				must(t, c.Remove(ctx, name))
			}
		}
	}
	if ran < 3 {
		t.Skip("neither csh nor fish is installed (apt-get install tcsh)")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What sudo's standard error means does not hang on how it is cut into pieces.
func FuzzGate(f *testing.F) {
	f.Add([]byte("lecture\n=?="), []byte("out?="), uint8(3), uint8(1))
	f.Add([]byte{}, []byte{}, uint8(1), uint8(0))
	f.Fuzz(func(t *testing.T, before, after []byte, piece, asks uint8) {
		var sent, rest bytes.Buffer
		g := newGate(true, "secret", &rest)
		g.stdin = &sent
		stream := bytes.Clone(before)
		for range asks % 4 {
			stream = append(stream, g.mark+"?"...)
		}
		stream = append(stream, g.mark+"=4711\n"...)
		stream = append(stream, after...)
		for len(stream) > 0 {
			n := min(len(stream), int(piece)+1)
			g.Write(stream[:n])
			stream = stream[n:]
		}
		want := ""
		if asks%4 > 0 {
			want = "secret\n"
		}
		if !g.opened() || g.pid != 4711 || sent.String() != want || !bytes.Equal(rest.Bytes(), after) || strings.Contains(g.said(), "secret") {
			t.Errorf("pid %d, sent %q, passed on %q", g.pid, sent.String(), rest.Bytes())
		}
	})
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"user@[::1]:22", "ssh://a:1", "host", "a@b@c:70000", "%h%%%x%", "41ed 4096 0 0 1700000000", "SHA256:x", "it's \\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if j, err := ParseJump(s); err == nil && (j.Host == "" || j.Port < 0 || j.Port > 65535 || strings.ContainsAny(j.Host, " /[]@")) {
			t.Errorf("%q is %+v", s, j)
		}
		expand(s, map[byte]string{'h': "host"})
		parseHostKey(s)
		parseStat(s)
		for _, c := range anyShell(s) {
			if c < ' ' || c > '~' || c == '!' {
				t.Errorf("%q is %q", s, anyShell(s))
			}
		}
		// A quoted word has no quote open at its end and nothing special outside.
		open := false
		q := shell.Quote(s)
		for i := 0; i < len(q); i++ {
			switch {
			case q[i] == '\'':
				open = !open
			case !open && q[i] == '\\':
				i++
			case !open && strings.ContainsRune(" \t\n$`\"&|;<>()*?[#~=%!{}", rune(q[i])):
				t.Errorf("%q is quoted as %q", s, q)
			}
		}
		if open || q == "" {
			t.Errorf("%q is quoted as %q", s, q)
		}
	})
}
