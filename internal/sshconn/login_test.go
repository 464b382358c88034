package sshconn

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestLogin(t *testing.T) {
	ctx := context.Background()
	userCA := t.TempDir() + "/ca"
	ca := writeKey(t, userCA, "")
	write(t, userCA+".pub", string(ssh.MarshalAuthorizedKey(ca.PublicKey())))
	s := startSSHD(t, "TrustedUserCAKeys "+userCA+".pub")
	id := s.dir + "/id"

	t.Run("refused", func(t *testing.T) {
		cfg := s.config()
		cfg.PrivateKeyFile = s.dir + "/stranger"
		writeKey(t, cfg.PrivateKeyFile, "")
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, s.addr(), "does not let root in: tried "+cfg.PrivateKeyFile, "authorized_keys", "private_key_file")
		cfg.PrivateKeyFile = s.dir + "/nothing"
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "read the private key", "nothing: no such file")
		cfg.PrivateKeyFile = s.dir + "/sshd_config"
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "sshd_config is no private key")
	})
	t.Run("certificate", func(t *testing.T) {
		cfg := s.config()
		cfg.PrivateKeyFile = s.dir + "/certified"
		key := writeKey(t, cfg.PrivateKeyFile, "")
		cert := func(path, principal string, before time.Time) {
			c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{principal}, ValidBefore: uint64(before.Unix())}
			must(t, c.SignCert(rand.Reader, ca))
			write(t, path, string(ssh.MarshalAuthorizedKey(c)))
		}
		cert(cfg.PrivateKeyFile+"-cert.pub", "root", time.Now().Add(time.Hour)) // found beside the key
		must(t, connect(t, cfg).Connect(ctx))
		cert(cfg.PrivateKeyFile+"-cert.pub", "root", time.Now().Add(-time.Hour))
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "certified-cert.pub is valid only from", "tried certificate "+cfg.PrivateKeyFile+"-cert.pub")
		cert(cfg.PrivateKeyFile+"-cert.pub", "nobody", time.Now().Add(time.Hour))
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "certified-cert.pub is for nobody")
		cfg.CertificateFile = s.dir + "/elsewhere.pub"
		cert(cfg.CertificateFile, "root", time.Now().Add(time.Hour))
		must(t, connect(t, cfg).Connect(ctx))
	})
	t.Run("passphrase", func(t *testing.T) {
		cfg := s.config()
		cfg.PrivateKeyFile = s.dir + "/locked"
		key := writeKey(t, cfg.PrivateKeyFile, "open sesame")
		s.authorize(readKey(t, id).PublicKey(), key.PublicKey())
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "locked can't be used", "has a passphrase", "ssh-add "+cfg.PrivateKeyFile)

		var asked atomic.Int32
		pool := newPool(t, Options{Passphrase: func(_ context.Context, file string) ([]byte, error) {
			asked.Add(1)
			if file != cfg.PrivateKeyFile {
				t.Errorf("asked for %s", file)
			}
			return []byte("open sesame"), nil
		}})
		cfg.ConnectTimeout = 10 * time.Second
		must(t, open(t, pool, cfg).Connect(ctx))
		cfg.ConnectTimeout++ // another connection, and the same key
		must(t, open(t, pool, cfg).Connect(ctx))
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		wrong := newPool(t, Options{Passphrase: func(context.Context, string) ([]byte, error) { asked.Add(1); return []byte("x"), nil }})
		wants(t, open(t, wrong, cfg).Connect(ctx), ErrAuth, "does not open with that passphrase")

		// The agent has it: nobody is asked.
		cfg.AgentSocket = startAgent(t, key)
		must(t, connect(t, cfg).Connect(ctx))
		// The agent alone, as by default.
		cfg.PrivateKeyFile = ""
		must(t, connect(t, cfg).Connect(ctx))
		cfg.AgentSocket = s.dir + "/no.sock"
		cfg.PrivateKeyFile = s.dir + "/stranger"
		wants(t, connect(t, cfg).Connect(ctx), ErrAuth, "the agent at "+cfg.AgentSocket+" does not answer")
	})
	t.Run("not asked in vain", func(t *testing.T) {
		cfg := s.config()
		cfg.PrivateKeyFile = s.dir + "/unknown"
		writeKey(t, cfg.PrivateKeyFile, "secret")
		pool := newPool(t, Options{Passphrase: func(context.Context, string) ([]byte, error) {
			t.Error("asked for the passphrase of a key that the host does not know")
			return nil, nil
		}})
		wants(t, open(t, pool, cfg).Connect(ctx), ErrAuth, "tried "+cfg.PrivateKeyFile)
	})
}

func TestTooManyKeys(t *testing.T) {
	s := startSSHD(t, "MaxAuthTries 3")
	var keys []ssh.Signer
	for i := range 8 {
		keys = append(keys, writeKey(t, fmt.Sprintf("%s/k%d", s.dir, i), ""))
	}
	cfg := s.config()
	cfg.AgentSocket, cfg.PrivateKeyFile, cfg.SSHConfigFile = startAgent(t, keys...), "", s.dir+"/config"
	write(t, s.dir+"/config", "IdentityFile none\n")
	wants(t, connect(t, cfg).Connect(context.Background()), ErrAuth, "MaxAuthTries", "IdentitiesOnly")
	cfg.PrivateKeyFile = s.dir + "/id" // goes first
	must(t, connect(t, cfg).Connect(context.Background()))
}

// Two jump hosts, all from the client's configuration, each with its own host
// key, user, and port.
func TestJumps(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	writeKey(t, dir+"/id", "")
	var config, known strings.Builder
	var hosts []*sshd
	for i, name := range []string{"outer", "inner", "target"} {
		s := startSSHD(t)
		s.authorize(readKey(t, dir+"/id").PublicKey())
		hosts = append(hosts, s)
		fmt.Fprintf(&config, "Host %s\n  HostName 127.0.0.1\n  Port %d\n", name, s.port)
		if i > 0 {
			fmt.Fprintf(&config, "  ProxyJump %s\n", []string{"", "outer", "root@inner"}[i])
		}
		fmt.Fprintf(&known, "[127.0.0.1]:%d %s", s.port, ssh.MarshalAuthorizedKey(s.key))
	}
	fmt.Fprintf(&config, "Host *\n  User root\n  IdentityFile %s/%%%%d/../id\n  UserKnownHostsFile %s/known\n  IdentitiesOnly yes\n", dir, dir)
	must(t, os.MkdirAll(dir+"/%d", 0o700))
	write(t, dir+"/config", config.String())
	write(t, dir+"/known", known.String())
	cfg := Config{Host: "target", SSHConfigFile: dir + "/config", AgentSocket: "none"}
	pool := newPool(t, Options{})
	c := open(t, pool, cfg)
	way := fmt.Sprintf("%s (through %s, %s)", hosts[2].addr(), hosts[0].addr(), hosts[1].addr())
	if c.String() != way {
		t.Errorf("the host is %s, want %s", c, way)
	}
	if port := sh(t, c, "echo ${SSH_CONNECTION##* }"); port != fmt.Sprint(hosts[2].port) {
		t.Errorf("ran at port %s", port)
	}
	// The same way is the same connection.
	inner := open(t, pool, Config{Host: "inner", SSHConfigFile: cfg.SSHConfigFile, AgentSocket: "none"})
	must(t, inner.Connect(ctx))
	if inner != c.via {
		t.Error("the jump host has a second connection")
	}

	// A jump host's key is checked as any other.
	write(t, dir+"/known", strings.Join(strings.SplitAfter(known.String(), "\n")[1:], ""))
	wants(t, connect(t, cfg).Connect(ctx), ErrHostKey, way, "can't connect through the jump host", hosts[0].addr()+": the host is unknown")
	write(t, dir+"/known", known.String())
	cfg.Jumps = []Jump{{Host: "outer", HostKey: ssh.FingerprintSHA256(hosts[1].key)}}
	wants(t, connect(t, cfg).Connect(ctx), ErrHostKey, hosts[0].addr(), "host_key")

	// One that doesn't forward, one in a circle, a host that isn't there.
	closed := startSSHD(t, "AllowTcpForwarding no")
	closed.authorize(readKey(t, dir+"/id").PublicKey())
	cfg.Jumps = []Jump{{Host: "127.0.0.1", Port: closed.port, HostKey: ssh.FingerprintSHA256(closed.key)}}
	wants(t, connect(t, cfg).Connect(ctx), ErrForwarding, closed.addr(), "AllowTcpForwarding")
	cfg.Jumps, cfg.Port, cfg.RetryFor = nil, freePort(t), -1
	wants(t, connect(t, cfg).Connect(ctx), ErrUnreachable, "can't be reached", "refused")
	write(t, dir+"/circle", "Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
	_, err := pool.Conn(Config{Host: "a", SSHConfigFile: dir + "/circle"})
	wants(t, err, nil, "circle")
	write(t, dir+"/command", "ProxyCommand nc %h %p\n")
	_, err = pool.Conn(Config{Host: "a", SSHConfigFile: dir + "/command"})
	wants(t, err, nil, "ProxyCommand", "ProxyJump")
	write(t, dir+"/broken", "Match exec true\n Port 1\n")
	_, err = pool.Conn(Config{Host: "a", SSHConfigFile: dir + "/broken"})
	wants(t, err, nil, dir+"/broken can't be understood")
}

func readKey(t *testing.T, path string) ssh.Signer {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	s, err := ssh.ParsePrivateKey(text)
	must(t, err)
	return s
}

// startAgent serves keys as ssh-agent does; the signers are of x/crypto's own
// kind, whose private keys an agent takes only as such: it signs through them.
func startAgent(t *testing.T, keys ...ssh.Signer) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/s")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(signers{agent.NewKeyring(), keys}, conn)
		}
	}()
	return dir + "/s"
}

type signers struct {
	agent.Agent
	keys []ssh.Signer
}

func (s signers) List() ([]*agent.Key, error) {
	var all []*agent.Key
	for _, k := range s.keys {
		all = append(all, &agent.Key{Format: k.PublicKey().Type(), Blob: k.PublicKey().Marshal()})
	}
	return all, nil
}

func (s signers) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	for _, k := range s.keys {
		if string(k.PublicKey().Marshal()) == string(key.Marshal()) {
			return k.Sign(rand.Reader, data)
		}
	}
	return nil, fmt.Errorf("no such key")
}
