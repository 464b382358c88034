// Package sshconn is the connection to a host over SSH: host keys that are
// always checked, logins by key, certificate and agent, jump hosts, one
// multiplexed connection per host, commands, files, and forwarded connections.
//
// Start reading at Pool and Conn. A Pool lives as long as a run of the program
// and holds one connection per host, shared by all who ask; a Conn is a host's
// name in it, and dials when something is asked of it. What it promises:
//
//   - No host is talked to whose key isn't known: from Config.HostKey, from
//     known_hosts, or, where Config.AcceptNew says so, from the first time that
//     it was seen. Nothing in ~/.ssh/config weakens that.
//   - A command isn't run twice: where the connection is lost while one runs,
//     the caller is told. Files are put, read and removed again by themselves.
//   - A file is replaced in one step, with its digest checked before, or it is
//     as it was.
//   - Secrets (passphrases, sudo's password) are in no command line, no error
//     and no log.
//
// It knows nothing of clusters and providers.
package sshconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

var (
	// ErrUnreachable is what errors.Is finds when the host, or a jump host before
	// it, couldn't be talked to or was lost: it may work later.
	ErrUnreachable = errors.New("host unreachable")
	// ErrHostKey: the host's key is not the known one, or is not known.
	ErrHostKey = errors.New("host key not trusted")
	// ErrAuth: the host let nobody in with what there was to show.
	ErrAuth = errors.New("login refused")
	// ErrSudo: sudo didn't let the user be root; the command has not been run.
	ErrSudo = errors.New("sudo refused")
	// ErrForwarding: the host doesn't forward connections.
	ErrForwarding = errors.New("forwarding refused")
)

// Config says which host, who logs in, and how. Only Host is needed; what is
// left out comes from the configuration of OpenSSH's client, then from OpenSSH's
// defaults.
type Config struct {
	Host string // a name or an address, or a Host of ~/.ssh/config
	Port int    // 0: from ~/.ssh/config, or 22
	User string // "": from ~/.ssh/config, or this user's name

	// HostKey is the host's public key ("ssh-ed25519 AAAA...") or its fingerprint
	// ("SHA256:..."). When it is set, known_hosts isn't asked.
	HostKey string
	// KnownHostsFile goes before the known_hosts files of OpenSSH.
	KnownHostsFile string
	// AcceptNew trusts a host that no known_hosts file has, and writes its key
	// there. A key that has changed is never accepted.
	AcceptNew bool

	// PrivateKeyFile goes before the IdentityFiles of ~/.ssh/config.
	PrivateKeyFile string
	// PrivateKey is the text of a key without passphrase: it alone logs in, no file
	// and no agent's key does.
	PrivateKey string
	// CertificateFile belongs to PrivateKeyFile; PrivateKeyFile-cert.pub is found
	// by itself.
	CertificateFile string
	// AgentSocket is the agent's; "": IdentityAgent or SSH_AUTH_SOCK, "none": no agent.
	AgentSocket string

	// Jumps are hosts to go through, in this order; nil: ProxyJump of
	// ~/.ssh/config; empty but not nil: none.
	Jumps []Jump

	// SSHConfigFile is read in place of ~/.ssh/config and /etc/ssh/ssh_config;
	// "none": none is.
	SSHConfigFile string

	Sudo Sudo

	// ConnectTimeout bounds one attempt, from dialling to login (10 s).
	ConnectTimeout time.Duration
	// RetryFor is how long a host is tried again that can't be reached (5 s);
	// negative: one attempt.
	RetryFor time.Duration
	// KeepAlive is the time between questions to the host whether it is there
	// (5 s); after three without an answer, or anything else that comes, the
	// connection is given up.
	KeepAlive time.Duration
}

// Jump is a host on the way.
type Jump struct {
	Host    string // as Config.Host
	Port    int
	User    string
	HostKey string
}

// Sudo says whether commands and files are root's.
type Sudo struct {
	Enabled bool
	// Password is sudo's; "": sudo must not ask for one.
	Password string
}

// Options are a pool's, the same for all of its hosts.
type Options struct {
	// Passphrase asks a person for a key file's passphrase; nil: nobody can be
	// asked, and such keys work only through an agent. It is called for one key at
	// a time and once for each.
	Passphrase func(ctx context.Context, keyFile string) ([]byte, error)
	Log        *slog.Logger // nil: none
}

// Pool holds one connection for each host.
type Pool struct {
	o      Options
	keys   *keyring
	config *configFiles
	hosts  *knownHosts

	mu     sync.Mutex
	conns  map[target]*Conn
	closed bool
}

// New returns an empty pool.
func New(o Options) *Pool {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{o: o, keys: newKeyring(o.Passphrase), config: &configFiles{}, hosts: &knownHosts{}, conns: map[target]*Conn{}}
}

// Conn returns the connection to a host. It reads ~/.ssh/config and dials
// nothing. Equal settings give the same Conn.
func (p *Pool) Conn(cfg Config) (*Conn, error) {
	t, err := p.resolve(cfg, 0)
	if err != nil {
		return nil, err
	}
	return p.conn(t)
}

func (p *Pool) conn(t *target) (*Conn, error) {
	var via *Conn
	if t.via != nil {
		var err error
		if via, err = p.conn(t.via); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("the pool of SSH connections is closed")
	}
	key := *t
	key.via = nil
	if via != nil { // the same way is the same Conn before it
		key.via = via.t
	}
	if c := p.conns[key]; c != nil {
		return c, nil
	}
	t.via = key.via
	c := &Conn{pool: p, t: t, via: via, dialling: make(chan struct{}, 1), freed: make(chan struct{}, 1)}
	p.conns[key] = c
	return c, nil
}

// Close closes all connections and returns when none is left.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	conns := make([]*Conn, 0, len(p.conns))
	for _, c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.close()
	}
	p.keys.close()
	return nil
}

// Conn is a host. Its methods dial where there is no live connection, may be
// called by many at once, and name the host in their errors.
type Conn struct {
	pool *Pool
	t    *target
	via  *Conn

	dialling chan struct{} // holds one who dials; the others wait for it
	freed    chan struct{} // told when a session has ended

	mu       sync.Mutex
	live     *live
	sessions int
	root     rootState
	closed   bool
}

// String is host:port, and through which hosts it is reached.
func (c *Conn) String() string { return c.t.String() }

// User is who logs in.
func (c *Conn) User() string { return c.t.user }

// Connect dials, unless the host is connected already.
func (c *Conn) Connect(ctx context.Context) error {
	_, err := c.connect(ctx)
	return err
}

// hostError is an error of a host: what, where, what to do.
type hostError struct {
	kind  error // one of the sentinels, or nil
	at    string
	what  string
	todo  string
	cause error
}

func (e *hostError) Error() string {
	s := e.at + ": " + e.what
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	if e.todo != "" {
		s = strings.TrimSuffix(s, ".") + ". " + e.todo
	}
	return s
}

func (e *hostError) Unwrap() []error {
	var all []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

func (c *Conn) fail(kind error, cause error, todo, what string, args ...any) error {
	return &hostError{kind: kind, at: c.String(), what: fmt.Sprintf(what, args...), todo: todo, cause: cause}
}

// target is a host with all settings worked out; it is comparable, and equal
// targets share a connection.
type target struct {
	alias string // as the caller named it
	host  string // what is dialled
	port  int
	user  string
	via   *target

	hostKey      string
	hostKeyAlias string
	userKnown    string // files, one a line
	globalKnown  string
	acceptNew    bool
	hashNew      bool

	key            string // text of the only one
	keyFile        string // named by the caller: must be there
	certFile       string
	identities     string // of ~/.ssh/config, one a line
	certificates   string
	identitiesOnly bool
	agent          string // "": none

	sudo           Sudo
	connectTimeout time.Duration
	retryFor       time.Duration
	keepAlive      time.Duration
}

func (t *target) addr() string { return net.JoinHostPort(t.host, strconv.Itoa(t.port)) }

func (t *target) String() string {
	var way []string
	for v := t.via; v != nil; v = v.via {
		way = append([]string{v.addr()}, way...)
	}
	if way == nil {
		return t.addr()
	}
	return t.addr() + " (through " + strings.Join(way, ", ") + ")"
}

// live is one established connection.
type live struct {
	client *ssh.Client
	dead   chan struct{} // closed when it is over
	heard  atomic.Int64  // bytes that have come
}

func (l *live) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}
