package sshconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/clusterplan/clusterplan/internal/shell"
)

// keyring holds what logs in: key files read once, and connections to agents.
type keyring struct {
	passphrase func(context.Context, string) ([]byte, error)

	mu     sync.Mutex
	files  map[string]*keyFile
	agents map[string]agent.ExtendedAgent
	conns  []net.Conn
}

func newKeyring(passphrase func(context.Context, string) ([]byte, error)) *keyring {
	return &keyring{passphrase: passphrase, files: map[string]*keyFile{}, agents: map[string]agent.ExtendedAgent{}}
}

func (k *keyring) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		c.Close()
	}
	k.conns = nil
}

func (k *keyring) agent(socket string) (agent.ExtendedAgent, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.agents[socket]; a != nil {
		return a, nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	k.conns = append(k.conns, conn)
	a := agent.NewClient(conn)
	k.agents[socket] = a
	return a, nil
}

func (k *keyring) forget(socket string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.agents, socket)
}

// asked is an agent's key: the agent may ask a person before it signs.
type asked struct {
	ssh.Signer
	pause func() (resume func())
}

func (a *asked) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return a.SignWithAlgorithm(rand, data, "")
}

func (a *asked) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	defer a.pause()()
	return signWith(a.Signer, rand, data, algorithm)
}

func signWith(s ssh.Signer, rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if as, ok := s.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return as.SignWithAlgorithm(rand, data, algorithm)
	}
	return s.Sign(rand, data)
}

// keyFile is a private key file, opened when its key is needed to sign.
type keyFile struct {
	path      string
	encrypted []byte // its text, while it wants a passphrase
	public    ssh.PublicKey
	once      chan struct{} // held by who asks for the passphrase

	signer ssh.Signer
	failed error // the person was asked, and that didn't help
}

// file reads a key file. An encrypted one isn't opened; its public key may be
// unknown then (nil): old formats don't tell.
func (k *keyring) file(path string) (*keyFile, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.files[path]; f != nil {
		return f, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &keyFile{path: path, once: make(chan struct{}, 1)}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		f.signer, f.public = signer, signer.PublicKey()
	case errors.As(err, &locked):
		f.encrypted, f.public = text, locked.PublicKey
		if f.public == nil {
			if text, err := os.ReadFile(path + ".pub"); err == nil {
				f.public, _, _, _, _ = ssh.ParseAuthorizedKey(text)
			}
		}
	default:
		if pub, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil { // IdentityFile may name the public half of an agent's key
			f.public = pub
			break
		}
		return nil, fmt.Errorf("%s is no private key that can be read: %w", path, err)
	}
	k.files[path] = f
	return f, nil
}

// CheckKeyFile tells whether a file is a key to log in with, as Config.PrivateKeyFile
// names it, without asking for its passphrase. open: others than its owner may
// read it.
func CheckKeyFile(name string) (open bool, err error) {
	home, err := homeDir()
	if err != nil {
		return false, err
	}
	name = expandHome(name, home)
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return false, nil // a pipe's key can be read once: by who logs in
	}
	f, err := newKeyring(nil).file(name)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().Perm()&0o077 != 0 && (f.signer != nil || f.encrypted != nil), err
}

var errNoPassphrase = errors.New("it has a passphrase and there is nobody to ask")

// open gives the file's signer, after asking for the passphrase at most once.
func (k *keyring) open(ctx context.Context, f *keyFile) (ssh.Signer, error) {
	select {
	case f.once <- struct{}{}:
		defer func() { <-f.once }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case f.signer != nil:
		return f.signer, nil
	case f.failed != nil:
		return nil, f.failed
	case f.encrypted == nil:
		return nil, fmt.Errorf("%s is a public key, and no agent has its private one", f.path)
	case k.passphrase == nil:
		return nil, fmt.Errorf("the key %s can't be used: %w. Run `ssh-add %s` so that an SSH agent has it", f.path, errNoPassphrase, shell.Quote(f.path))
	}
	secret, err := k.passphrase(ctx, f.path)
	if err != nil {
		if ctx.Err() == nil {
			f.failed = fmt.Errorf("the passphrase of the key %s was not given: %w. Run `ssh-add %s` so that an SSH agent has it", f.path, err, shell.Quote(f.path))
			err = f.failed
		}
		return nil, err
	}
	signer, err := ssh.ParsePrivateKeyWithPassphrase(f.encrypted, secret)
	clear(secret)
	if err != nil {
		f.failed = fmt.Errorf("the key %s does not open with that passphrase. Try again, or run `ssh-add %s` so that an SSH agent has it", f.path, shell.Quote(f.path))
		return nil, f.failed
	}
	f.signer, f.public, f.encrypted = signer, signer.PublicKey(), nil
	return signer, nil
}

// identity is something to log in with, and its name for people.
type identity struct {
	signer ssh.Signer
	name   string
}

// lazy is a signer whose file is opened when the host has said that it knows
// the key: nobody is asked for a passphrase in vain.
type lazy struct {
	ctx    context.Context
	ring   *keyring
	file   *keyFile
	public ssh.PublicKey
	pause  func() (resume func()) // while a person types, no time-out runs
	failed *error
}

func (l *lazy) PublicKey() ssh.PublicKey { return l.public }

func (l *lazy) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return l.SignWithAlgorithm(rand, data, "")
}

func (l *lazy) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	resume := l.pause()
	signer, err := l.ring.open(l.ctx, l.file)
	resume()
	if err != nil {
		*l.failed = err
		return nil, err
	}
	return signWith(signer, rand, data, algorithm)
}

// login gathers what a host is shown, and remembers what came of it.
type login struct {
	identities []identity
	notes      []string // what could not be used, for the error
	failed     error    // what stopped a key that the host knows
	offered    bool
}

func (c *Conn) login(ctx context.Context, pause func() func()) (*login, error) {
	l := &login{}
	k := c.pool.keys
	var agentKeys []ssh.Signer
	if c.t.agent != "" {
		a, err := k.agent(c.t.agent)
		if err == nil {
			if agentKeys, err = a.Signers(); err != nil {
				k.forget(c.t.agent) // it may have been started anew
			}
		}
		for i, s := range agentKeys {
			agentKeys[i] = &asked{s, pause}
		}
		if err != nil {
			l.notes = append(l.notes, fmt.Sprintf("the agent at %s does not answer: %v", c.t.agent, err))
		}
	}
	fromAgent := map[int]bool{}
	certs := map[string][]identity{} // certificates by the key that they are of
	addCert := func(path string, mustBe bool) error {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && !mustBe {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the certificate: %w", err)
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
		cert, ok := pub.(*ssh.Certificate)
		if err != nil || !ok || cert.CertType != ssh.UserCert {
			return fmt.Errorf("%s is no user's certificate", path)
		}
		if now := uint64(time.Now().Unix()); now < cert.ValidAfter || now >= cert.ValidBefore {
			l.notes = append(l.notes, fmt.Sprintf("the certificate %s is valid only from %s to %s", path, when(cert.ValidAfter), when(cert.ValidBefore)))
		}
		if len(cert.ValidPrincipals) > 0 && !contains(cert.ValidPrincipals, c.t.user) {
			l.notes = append(l.notes, fmt.Sprintf("the certificate %s is for %s", path, strings.Join(cert.ValidPrincipals, ", ")))
		}
		certs[string(cert.Key.Marshal())] = append(certs[string(cert.Key.Marshal())], identity{name: "certificate " + path, signer: publicOnly{cert}})
		return nil
	}
	add := func(signer ssh.Signer, name string) {
		for _, cert := range certs[string(signer.PublicKey().Marshal())] {
			if s, err := ssh.NewCertSigner(cert.signer.PublicKey().(*ssh.Certificate), signer); err == nil {
				l.identities = append(l.identities, identity{s, cert.name})
			}
		}
		l.identities = append(l.identities, identity{signer, name})
	}
	addFile := func(path string, mustBe bool) error {
		f, err := k.file(path)
		if errors.Is(err, fs.ErrNotExist) && !mustBe {
			return nil
		}
		if err != nil {
			if mustBe {
				return fmt.Errorf("read the private key: %w", err)
			}
			l.notes = append(l.notes, err.Error())
			return nil
		}
		if err := addCert(strings.TrimSuffix(path, ".pub")+"-cert.pub", false); err != nil {
			l.notes = append(l.notes, err.Error())
		}
		if f.public == nil { // nothing to show before it is opened
			resume := pause()
			signer, err := k.open(ctx, f)
			resume()
			if err != nil {
				if mustBe {
					return err
				}
				l.notes = append(l.notes, err.Error())
				return nil
			}
			add(signer, path)
			return nil
		}
		for i, s := range agentKeys {
			if bytes.Equal(s.PublicKey().Marshal(), f.public.Marshal()) {
				fromAgent[i] = true
				add(s, path+" (agent)")
				return nil
			}
		}
		add(&lazy{ctx: ctx, ring: k, file: f, public: f.public, pause: pause, failed: &l.failed}, path)
		return nil
	}
	if c.t.certFile != "" {
		if err := addCert(c.t.certFile, true); err != nil {
			return nil, c.fail(ErrAuth, err, "", "log in as %s", c.t.user)
		}
	}
	for _, path := range lines(c.t.certificates) {
		if err := addCert(path, false); err != nil {
			l.notes = append(l.notes, err.Error())
		}
	}
	if c.t.key != "" {
		signer, err := ssh.ParsePrivateKey([]byte(c.t.key))
		if err != nil {
			return nil, c.fail(ErrAuth, fmt.Errorf("read the private key that was given: %w", err), "Give the text of an OpenSSH key without passphrase", "log in as %s", c.t.user)
		}
		add(signer, "the private key that was given")
	}
	if c.t.keyFile != "" {
		if err := addFile(c.t.keyFile, true); err != nil {
			return nil, c.fail(ErrAuth, err, "", "log in as %s", c.t.user)
		}
	}
	for _, path := range lines(c.t.identities) {
		if err := addFile(path, false); err != nil {
			return nil, err
		}
	}
	if !c.t.identitiesOnly {
		for i, s := range agentKeys {
			if !fromAgent[i] {
				add(s, "agent's "+ssh.FingerprintSHA256(s.PublicKey()))
			}
		}
	}
	return l, nil
}

// method offers the identities in their order, and notes that they were.
func (l *login) method() ssh.AuthMethod {
	return ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		l.offered = true
		var all []ssh.Signer
		for _, id := range l.identities {
			all = append(all, id.signer)
		}
		return all, nil
	})
}

// refused says what was shown.
func (l *login) refused(c *Conn, cause error) error {
	if l.failed != nil {
		return c.fail(ErrAuth, l.failed, "", "log in as %s", c.t.user)
	}
	todo := fmt.Sprintf("Add one of the keys to ~%s/.ssh/authorized_keys on the host, or name another with private_key_file or user", c.t.user)
	tried := make([]string, 0, len(l.identities))
	for _, id := range l.identities {
		tried = append(tried, id.name)
	}
	what := "tried " + strings.Join(tried, ", ")
	switch {
	case len(tried) == 0:
		what = "there is no key to log in with"
		todo = "Name one with private_key_file, or load one into an SSH agent with ssh-add"
	case !l.offered:
		what = "the host takes no keys (" + cause.Error() + ")"
		todo = "Allow PubkeyAuthentication in its sshd_config"
	case strings.Contains(cause.Error(), "Too many authentication failures"):
		what += ", until the host would take no more (MaxAuthTries)"
		todo = "Name the right one with private_key_file and set IdentitiesOnly yes in ~/.ssh/config, or remove keys from the agent"
	}
	if len(l.notes) > 0 {
		what += "; " + strings.Join(l.notes, "; ")
	}
	return c.fail(ErrAuth, nil, todo, "the host does not let %s in: %s", c.t.user, what)
}

// publicOnly carries a certificate until its key is there.
type publicOnly struct{ key ssh.PublicKey }

func (p publicOnly) PublicKey() ssh.PublicKey { return p.key }
func (p publicOnly) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("a certificate alone can't sign")
}

func when(t uint64) string {
	if t == ssh.CertTimeInfinity {
		return "ever after"
	}
	return time.Unix(int64(t), 0).UTC().Format(time.RFC3339)
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}
