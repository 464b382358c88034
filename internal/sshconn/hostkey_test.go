package sshconn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

func TestHostKeys(t *testing.T) {
	s := startSSHD(t)
	other := writeKey(t, s.dir+"/other", "").PublicKey()
	ca := writeKey(t, s.dir+"/ca", "")
	name := fmt.Sprintf("[127.0.0.1]:%d", s.port)
	entry := func(name string, key ssh.PublicKey) string { return name + " " + string(ssh.MarshalAuthorizedKey(key)) }
	known := s.dir + "/known_hosts"

	for _, test := range []struct {
		name  string
		known string // known_hosts
		set   func(*Config)
		wants []string // of the error; nil: it connects
	}{
		{name: "known", known: entry(name, s.key)},
		{name: "hashed", known: entry(xknownhosts.HashHostname(name), s.key)},
		{name: "pattern", known: entry("127.0.*", s.key)},
		{name: "beside a line that can't be read", known: "127.0.0.9 ssh-new AAAA\n" + entry(name, s.key)},
		{name: "unknown", known: entry("127.0.0.1", s.key), // of port 22
			wants: []string{"the host is unknown: ssh-ed25519 " + ssh.FingerprintSHA256(s.key), "host_key = ", "accept_new_host_keys"}},
		{name: "changed", known: "# old\n" + entry(name, other),
			wants: []string{"the host key has changed: the host shows ssh-ed25519 " + ssh.FingerprintSHA256(s.key), known + ":2 ", ssh.FingerprintSHA256(other), "ssh-keygen -f " + known + " -R '" + name + "'"}},
		{name: "changed, hashed, beside a line that can't be read", known: "x\n" + entry(xknownhosts.HashHostname(name), other), wants: []string{"has changed", known + ":2 "}},
		{name: "changed, and new ones are accepted", known: entry(name, other), set: func(c *Config) { c.AcceptNew = true }, wants: []string{"has changed"}},
		{name: "another kind of key", known: entry(name, ecdsaKey(t)), wants: []string{"no key of the known kind (ecdsa-sha2-nistp256)"}},
		{name: "revoked", known: entry(name, s.key) + "@revoked * " + string(ssh.MarshalAuthorizedKey(s.key)), wants: []string{"revoked by " + known + ":2"}},
		{name: "a marker that is not understood", known: "@revoke * x\n" + entry(name, s.key), wants: []string{" " + known + ":1"}},
		{name: "another authority", known: "@cert-authority * " + string(ssh.MarshalAuthorizedKey(ca.PublicKey())), set: func(c *Config) { c.AcceptNew = true }, wants: []string{"no key of the known kind"}},
		{name: "host_key", known: entry(name, other), set: func(c *Config) { c.HostKey = string(ssh.MarshalAuthorizedKey(s.key)) }},
		{name: "fingerprint", known: entry(name, other), set: func(c *Config) { c.HostKey = ssh.FingerprintSHA256(s.key) }},
		{name: "another host_key", known: entry(name, s.key), set: func(c *Config) { c.HostKey = string(ssh.MarshalAuthorizedKey(other)); c.AcceptNew = true },
			wants: []string{"another key (ssh-ed25519 " + ssh.FingerprintSHA256(s.key), "host_key"}},
		{name: "another fingerprint", known: entry(name, s.key), set: func(c *Config) { c.HostKey = ssh.FingerprintSHA256(other) }, wants: []string{ssh.FingerprintSHA256(s.key)}},
		{name: "the client's configuration weakens nothing", set: func(c *Config) {
			c.SSHConfigFile, c.KnownHostsFile = s.dir+"/config", ""
			write(t, c.SSHConfigFile, "StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nGlobalKnownHostsFile /dev/null\n")
		}, wants: []string{"the host is unknown"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, known, test.known)
			cfg := s.config()
			cfg.HostKey = ""
			if test.set != nil {
				test.set(&cfg)
			}
			err := connect(t, cfg).Connect(context.Background())
			if test.wants == nil {
				must(t, err)
			} else {
				wants(t, err, ErrHostKey, append(test.wants, s.addr())...)
			}
			if text, _ := os.ReadFile(known); string(text) != test.known {
				t.Errorf("known_hosts is now %q", text)
			}
		})
	}
}

func TestHostKeysOfNewHosts(t *testing.T) {
	s := startSSHD(t)
	write(t, s.dir+"/known_hosts", "# no line's end")
	write(t, s.dir+"/config", "HashKnownHosts yes\n")
	cfg := s.config()
	cfg.HostKey, cfg.SSHConfigFile, cfg.AcceptNew = "", s.dir+"/config", true
	must(t, connect(t, cfg).Connect(context.Background()))
	text, err := os.ReadFile(s.dir + "/known_hosts")
	must(t, err)
	if !strings.HasPrefix(string(text), "# no line's end\n|1|") || strings.Contains(string(text), "127.0.0.1") || strings.Count(string(text), "\n") != 2 {
		t.Errorf("known_hosts is now %q", text)
	}
	cfg.AcceptNew = false
	must(t, connect(t, cfg).Connect(context.Background()))

	// An authority's certificate for the host, and OpenSSH reads what was written.
	ca := writeKey(t, s.dir+"/ca", "")
	cert := &ssh.Certificate{Key: s.key, CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity}
	must(t, cert.SignCert(rand.Reader, ca))
	write(t, s.dir+"/hostkey-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	again := &sshd{t: t, dir: s.dir, port: freePort(t)}
	again.start("HostCertificate " + s.dir + "/hostkey-cert.pub")
	write(t, s.dir+"/known_hosts", fmt.Sprintf("@cert-authority [127.0.0.1]:%d %s", again.port, ssh.MarshalAuthorizedKey(ca.PublicKey())))
	cfg.Port = again.port
	must(t, connect(t, cfg).Connect(context.Background()))
	cfg.Port = s.port
	wants(t, connect(t, cfg).Connect(context.Background()), ErrHostKey, "the host is unknown")

	// A host with a certificate of an authority that nobody knows is a new host.
	write(t, s.dir+"/known_hosts", "")
	cfg.Port, cfg.AcceptNew = again.port, true
	must(t, connect(t, cfg).Connect(context.Background()))
	text, _ = os.ReadFile(s.dir + "/known_hosts")
	if !strings.Contains(string(text), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.key)))) {
		t.Errorf("known_hosts is now %q", text)
	}
}

// Two connections to a new host at once: what the first has kept counts for the
// second.
func TestNewHostOfTwoAtOnce(t *testing.T) {
	dir := t.TempDir()
	c := connect(t, Config{Host: "127.0.0.1", User: "root", AcceptNew: true, KnownHostsFile: dir + "/known_hosts", SSHConfigFile: "none"})
	first, err := c.hostKeyCheck()
	must(t, err)
	second, err := c.hostKeyCheck()
	must(t, err)
	key := ecdsaKey(t)
	must(t, first.check("", nil, key))
	wants(t, second.check("", nil, ecdsaKey(t)), ErrHostKey, "the host key has changed")
	must(t, second.check("", nil, key))
	text, err := os.ReadFile(dir + "/known_hosts")
	must(t, err)
	if strings.Count(string(text), "\n") != 1 {
		t.Errorf("known_hosts is now %q", text)
	}
}

func ecdsaKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	public, err := ssh.NewPublicKey(key.Public())
	must(t, err)
	return public
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestHostKeyOfFingerprint(t *testing.T) { // one of several keys, and not the one that is preferred
	s := startSSHD(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	write(t, s.dir+"/hostkey2", string(pem.EncodeToMemory(block)))
	second, err := ssh.NewPublicKey(key.Public())
	must(t, err)
	both := &sshd{t: t, dir: s.dir, port: freePort(t)}
	both.start("HostKey " + s.dir + "/hostkey2")
	cfg := s.config()
	cfg.Port, cfg.HostKey = both.port, ssh.FingerprintSHA256(second)
	must(t, connect(t, cfg).Connect(context.Background()))
}
