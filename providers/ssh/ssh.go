// Package ssh puts nodes on hosts that are reached over SSH: the program is
// uploaded, keys and configuration are written, and the agent is started by
// systemd, or, where there is none, by a supervisor script of its own.
//
// The node lifecycle is package providers'; this is its Host. What goes over the
// connection (internal/sshconn) are short scripts for a POSIX shell, on the standard
// input of one `sh` for each host (shell.go), so that no secret stands in a command
// line; one
// script reads all that a look at a node needs (look.go), and one does a change
// (files.go, service.go). A Host is for one look or one phase and remembers what
// its script read until it changes something itself.
//
// Nothing is taken for gone that can't be seen: a host that doesn't answer is
// providers.ErrUnreachable, one with another host key is an error of its own.
package ssh

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/sshconn"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Name is the provider's name in definitions.
const Name = "ssh"

// DefaultDirectory is where everything lies on a host.
const DefaultDirectory = "/var/lib/clusterplan"

// Port is the agents' where a definition gives none.
const Port = 7400

// Ways to the agents' API.
const (
	apiAuto   = "auto"
	apiDirect = "direct"
	apiSSH    = "ssh"
)

// startWait is how long an agent that runs may take to answer: a machine that has
// just booted, under emulation, needs half a minute.
const startWait = time.Minute

// Options of the provider, which are the command's and not a definition's.
type Options struct {
	// Passphrase asks a person for that of a key file; nil: nobody is there.
	Passphrase func(ctx context.Context, keyFile string) ([]byte, error)
	Log        *slog.Logger
}

// Provider is the node provider over SSH.
type Provider struct {
	*providers.Nodes
	pool *sshconn.Pool

	mu       sync.Mutex
	machines map[*sshconn.Conn]*machine
}

// New is the provider; it needs Configure before use.
func New(o Options) *Provider {
	p := &Provider{pool: sshconn.New(sshconn.Options{Passphrase: o.Passphrase, Log: o.Log}), machines: map[*sshconn.Conn]*machine{}}
	p.Nodes = providers.NewNodes(providers.NodesConfig{
		Name: Name,
		Config: spec.Schema{
			Name: Name,
			Doc:  "Nodes on hosts that are reached over SSH. What is left out is as OpenSSH's client has it in ~/.ssh/config.",
			Attributes: []spec.Attribute{
				{Name: "user", Type: spec.TypeString, KnownAtPlan: true, Doc: "Who logs in; default: as ~/.ssh/config says, or this user's name."},
				{Name: "port", Type: spec.TypeNumber, KnownAtPlan: true, Doc: "Of the SSH servers; default: as ~/.ssh/config says, or 22."},
				{Name: "private_key_file", Type: spec.TypeString, KnownAtPlan: true, Doc: "The key to log in with, before those of ~/.ssh/config and the agent. One with a passphrase is asked for on a terminal, or comes from the agent."},
				{Name: "certificate_file", Type: spec.TypeString, KnownAtPlan: true, Doc: "The certificate of private_key_file; default: the file beside it that ends in -cert.pub."},
				{Name: "known_hosts_file", Type: spec.TypeString, KnownAtPlan: true, Doc: "Host keys, before OpenSSH's own files."},
				{Name: "accept_new_host_keys", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Doc: "Trusts a host that no known_hosts file has, and writes its key there. A changed key is never accepted."},
				{Name: "ssh_config_file", Type: spec.TypeString, KnownAtPlan: true, Doc: "In place of ~/.ssh/config and /etc/ssh/ssh_config; \"none\": neither is read."},
				{Name: "jump_hosts", Type: spec.TypeStrings, KnownAtPlan: true, Doc: "Hosts to go through, in this order, each as USER@HOST:PORT; default: ProxyJump of ~/.ssh/config."},
				{Name: "sudo", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Doc: "The user becomes root by sudo."},
				{Name: "sudo_password", Type: spec.TypeString, KnownAtPlan: true, Sensitive: true, Doc: "What sudo asks for; default: it must not ask."},
				{Name: "directory", Type: spec.TypeString, Default: DefaultDirectory, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Where everything lies on the hosts, absolute. Another one makes the nodes anew."},
				{Name: "programs", Type: spec.TypeStringMap, KnownAtPlan: true, Doc: "This program for hosts of other architectures, by architecture: { arm64 = \"build/clusterplan-arm64\" }."},
				{Name: "api", Type: spec.TypeString, Default: apiAuto, Values: []string{apiAuto, apiDirect, apiSSH}, KnownAtPlan: true,
					Doc: "How the agents' API is reached from here: direct, ssh (through the SSH connection), or auto: directly where that works, else through SSH."},
				{Name: "connect_timeout", Type: spec.TypeDuration, Default: "10s", KnownAtPlan: true, Doc: "For one attempt, from the connection to the login."},
			},
		},
		Open:      p.open,
		SameHost:  sameHost,
		StartWait: startWait,
		FirstPort: Port,
		LastPort:  Port,
	})
	return p
}

// sameHost: one address, or one name for SSH, means one computer.
func sameHost(a, b spec.Node) bool {
	return hostOf(a.Address) != "" && hostOf(a.Address) == hostOf(b.Address) || target(a) != "" && target(a) == target(b)
}

// target is what SSH connects to.
func target(n spec.Node) string { return cmp.Or(n.SSH.Host, hostOf(n.Address)) }

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// block is the provider's block as Go.
type block struct {
	v cty.Value
}

func (b block) get(name string) cty.Value {
	if b.v == cty.NilVal || b.v.IsNull() || !b.v.Type().HasAttribute(name) {
		return cty.NilVal
	}
	if v := b.v.GetAttr(name); v.IsWhollyKnown() && !v.IsNull() {
		return v
	}
	return cty.NilVal
}

func (b block) text(name string) string {
	if v := b.get(name); v != cty.NilVal {
		return v.AsString()
	}
	return ""
}

func (b block) yes(name string) bool {
	v := b.get(name)
	return v != cty.NilVal && v.True()
}

func (b block) number(name string) int {
	if v := b.get(name); v != cty.NilVal {
		n, _ := v.AsBigFloat().Int64()
		return int(n)
	}
	return 0
}

func (p *Provider) open(config cty.Value, env providers.Env) (providers.Hosts, error) {
	if config != cty.NilVal {
		config, _ = config.UnmarkDeep()
	}
	b := block{config}
	fail := func(name, format string, args ...any) (providers.Hosts, error) {
		return providers.Hosts{}, cty.GetAttrPath(name).NewErrorf(format, args...)
	}
	root := cmp.Or(b.text("directory"), DefaultDirectory)
	if !path.IsAbs(root) || path.Clean(root) != root || root == "/" || strings.ContainsFunc(root, strange) {
		return fail("directory", "%q is no directory for nodes; write an absolute path of letters, digits and any of /._-+, as %s", root, DefaultDirectory)
	}
	beside := func(name string) string { return file(env.DataDir, name) }
	base := sshconn.Config{
		Port: b.number("port"), User: b.text("user"),
		KnownHostsFile: beside(b.text("known_hosts_file")), AcceptNew: b.yes("accept_new_host_keys"),
		PrivateKeyFile: beside(b.text("private_key_file")), CertificateFile: beside(b.text("certificate_file")),
		SSHConfigFile: beside(b.text("ssh_config_file")),
		Sudo:          sshconn.Sudo{Enabled: b.yes("sudo"), Password: b.text("sudo_password")},
	}
	if base.Port < 0 || base.Port > 65535 {
		return fail("port", "%d is no port", base.Port)
	}
	if base.Sudo.Password != "" && !base.Sudo.Enabled {
		return fail("sudo_password", "there is a password for sudo, and sudo isn't asked to make the user root; write sudo = true as well")
	}
	if text := b.text("connect_timeout"); text != "" {
		d, err := spec.ParseDuration(text)
		if err != nil || d <= 0 {
			return fail("connect_timeout", "%q is no time to wait; write it as 10s", text)
		}
		base.ConnectTimeout = time.Duration(d)
	}
	if v := b.get("jump_hosts"); v != cty.NilVal {
		for _, e := range v.AsValueSlice() {
			j, err := jump(e.AsString())
			if err != nil {
				return fail("jump_hosts", "%w", err)
			}
			base.Jumps = append(base.Jumps, j)
		}
	}
	hosts := providers.Hosts{Place: map[string]string{"directory": root}, KeepProgram: true, Close: p.close}
	if v := b.get("programs"); v != cty.NilVal && v.LengthInt() > 0 {
		hosts.Programs = map[string]string{}
		for arch, f := range v.AsValueMap() {
			hosts.Programs[arch] = beside(f.AsString())
		}
	}
	hosts.Examine = func(_ context.Context, nodes []providers.Examinee) []providers.Finding {
		return examineKeys(env, base.PrivateKeyFile, nodes)
	}
	hosts.Check = func(name, address string) error {
		if address == "" {
			return cty.GetAttrPath("address").NewErrorf("node %s needs an address: where its agent listens, and the other nodes find it; SSH goes there too, unless ssh { host = ... } says otherwise", name)
		}
		return nil
	}
	api := cmp.Or(b.text("api"), apiAuto)
	hosts.Host = func(n spec.Node) (providers.Host, error) {
		n.SSH.PrivateKeyFile = beside(n.SSH.PrivateKeyFile)
		m, err := p.machine(base, n, root, api)
		if err != nil {
			return nil, err
		}
		return &host{machine: m}, nil
	}
	return hosts, nil
}

// strange are characters that mean something to systemd or a shell.
func strange(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+", r)
}

// file is a file of this machine that a definition names: relative to it.
func file(dataDir, name string) string {
	if name == "" || name == "none" || name == "~" || strings.HasPrefix(name, "~/") || strings.HasPrefix(name, "%d/") || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(dataDir), name)
}

func jump(text string) (sshconn.Jump, error) {
	j := sshconn.Jump{Host: text}
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		j.User, j.Host = text[:i], text[i+1:]
	}
	if host, port, err := net.SplitHostPort(j.Host); err == nil {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			return j, fmt.Errorf("%q has no port after the colon; write USER@HOST:PORT", text)
		}
		j.Host, j.Port = host, n
	}
	if j.Host == "" {
		return j, fmt.Errorf("%q is no host; write USER@HOST:PORT", text)
	}
	return j, nil
}

// machine is the computer of a node; the same for all nodes that are on it.
func (p *Provider) machine(cfg sshconn.Config, n spec.Node, root, api string) (*machine, error) {
	cfg.Host = target(n)
	if cfg.Host == "" {
		return nil, errors.New("nothing says where the host is: the node has no address, and no ssh { host = ... }")
	}
	cfg.Port = cmp.Or(n.SSH.Port, cfg.Port)
	cfg.User = cmp.Or(n.SSH.User, cfg.User)
	cfg.HostKey = n.SSH.HostKey
	cfg.PrivateKeyFile = cmp.Or(n.SSH.PrivateKeyFile, cfg.PrivateKeyFile)
	if n.SSH.PrivateKeyFile != "" {
		cfg.CertificateFile = ""
	}
	cfg.Sudo.Enabled = cfg.Sudo.Enabled || n.SSH.Sudo
	conn, err := p.pool.Conn(cfg)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[conn]
	if m == nil || m.root != root || m.api != api {
		m = &machine{conn: conn, shell: newShell(conn), root: root, api: api, through: map[string]bool{}}
		p.machines[conn] = m
	}
	return m, nil
}

// close ends the shells, then the connections.
func (p *Provider) close() error {
	p.mu.Lock()
	var wait sync.WaitGroup
	for _, m := range p.machines {
		wait.Go(m.shell.close)
	}
	p.mu.Unlock()
	wait.Wait()
	return p.pool.Close()
}

// machine is one computer.
type machine struct {
	conn  *sshconn.Conn
	shell *shell
	root  string
	api   string

	install sync.Mutex // host.Mutex

	mu      sync.Mutex
	through map[string]bool // addresses that answer through SSH only
	facts   *facts          // nil: not asked yet
}

// facts are what doesn't change on a computer while a command runs.
type facts struct {
	arch    string
	systemd bool
	root    bool // who works there is root
}

// unreachable is an error of a host that can't be seen.
type unreachable struct{ error }

func (u unreachable) Unwrap() []error { return []error{u.error, providers.ErrUnreachable} }

func explained(err error) error {
	if errors.Is(err, sshconn.ErrUnreachable) {
		return unreachable{err}
	}
	return err
}

// readLimit is how much one script may print.
const readLimit = 16 << 20

// run runs a script there and gives its output. Commands in it have no input.
func (m *machine) run(ctx context.Context, script string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := m.shell.run(ctx, script)
	if failed := new(scriptError); errors.As(err, &failed) {
		m.mu.Lock()
		user := m.facts != nil && !m.facts.root
		m.mu.Unlock()
		if user && strings.Contains(strings.ToLower(failed.text), "permission denied") {
			return nil, fmt.Errorf("%s: %w; %s isn't root there: write user = \"root\", or sudo = true", m.conn, err, m.conn.User())
		}
		return nil, advised(fmt.Errorf("%s: %w", m.conn, err))
	}
	return out, explained(err)
}

// advised says what to do about a file system that takes nothing.
func advised(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "No space left on device"):
		return fmt.Errorf("%w; make room there, or free inodes (df -k and df -i tell which)", err)
	case strings.Contains(text, "Read-only file system"):
		return fmt.Errorf("%w; see in the kernel's log there (dmesg) whether the disk has failed, and mount it to be written", err)
	}
	return err
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// suffix tells units of one directory from those of another.
func suffix(root string) string {
	if root == DefaultDirectory {
		return ""
	}
	sum := sha256.Sum256([]byte(root))
	return "-" + hex.EncodeToString(sum[:4])
}

// directWait is how long a connection may take before the way through SSH is
// tried beside it.
const directWait = 300 * time.Millisecond

// Dial connects to a node's endpoint directly, or through the node's host.
// ready is called before that: it has the provider configured.
func (p *Provider) Dial(ctx context.Context, network, address string, ready func() error) (net.Conn, error) {
	direct := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	}
	if err := ready(); err != nil {
		return direct(ctx)
	}
	h, err := p.HostAt(address)
	if err != nil || h == nil {
		return direct(ctx)
	}
	return h.Dial(ctx, network, address)
}

// dial connects by the way that api says.
func (m *machine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	through := func(ctx context.Context) (net.Conn, error) {
		c, err := m.conn.Dial(ctx, network, address)
		return c, explained(err)
	}
	direct := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	}
	m.mu.Lock()
	known := m.through[address]
	m.mu.Unlock()
	switch {
	case m.api == apiDirect:
		return direct(ctx)
	case m.api == apiSSH || known:
		return through(ctx)
	}
	type answer struct {
		c   net.Conn
		err error
	}
	own, cancel := context.WithCancel(ctx)
	first := make(chan answer, 1)
	go func() {
		c, err := direct(own)
		first <- answer{c, err}
	}()
	drop := func() {
		cancel()
		if a := <-first; a.c != nil {
			a.c.Close()
		}
	}
	wait := time.NewTimer(directWait)
	defer wait.Stop()
	var refused error
	select {
	case a := <-first:
		if a.err == nil {
			cancel()
			return a.c, nil
		}
		refused = a.err
		first <- a
	case <-wait.C:
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
	c, err := through(ctx)
	if err == nil {
		go drop()
		m.mu.Lock()
		m.through[address] = true
		m.mu.Unlock()
		return c, nil
	}
	select {
	case a := <-first:
		cancel()
		if a.err == nil {
			return a.c, nil
		}
		refused = a.err
	default:
		go drop()
	}
	if refused != nil {
		return nil, fmt.Errorf("%w; directly: %w", err, refused)
	}
	return nil, err
}
