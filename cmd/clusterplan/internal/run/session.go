// Package run is the way from a definition to what a command wants: open the
// state, load the definition, configure the providers, look at the world, plan,
// apply. Commands call it, package view shows what it returns. It prints nothing
// and asks nobody.
//
// Start reading at Open (session.go); plan.go and apply.go go on from there.
package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/gitmodule"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/confdb"
	"github.com/clusterplan/clusterplan/providers/libvirt"
	"github.com/clusterplan/clusterplan/providers/local"
	"github.com/clusterplan/clusterplan/providers/ssh"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// Errors that have an exit code of their own.
var (
	ErrInterrupted = errors.New("interrupted")
	ErrLocked      = statefile.ErrLocked
	ErrChanging    = client.ErrChanging
	ErrQuorum      = errors.New("the plan would leave the cluster without quorum")
	ErrStale       = errors.New("the plan is stale")
	ErrGuarantee   = errors.New("the plan would break a guarantee")
	ErrNoCluster   = errors.New("there is no cluster yet")
)

// Options of a session.
type Options struct {
	Version string
	Vars    []lang.VarInput
	Log     *slog.Logger
	// Passphrase asks a person for that of a private key; nil: nobody is there.
	Passphrase func(ctx context.Context, keyFile string) ([]byte, error)
	// Tell is told what a command waits for, in a sentence. nil: nobody.
	Tell func(string)
	// Stop, once closed, ends the working out of a definition: nothing comes of it.
	Stop <-chan struct{}
	// Record keeps what is read of the definition's directory, for Save.
	Record bool
	// Decrypt has an encrypted state written in plain from now on (Init).
	Decrypt bool
	// Init sets the backend up. Migrate brings the state to the one that the
	// definition has; Reconfigure uses what is there. BackendConfig are settings of
	// it that the definition leaves out.
	Init, Migrate, Reconfigure bool
	BackendConfig              map[string]string
	// Ref is a revision of git: the definition is read as of it. Where the state
	// lies is what the directory itself says. "": the directory's files.
	Ref string
	// Back is the run of the state's history that a rollback goes back to: objects
	// get the addresses again that they had with it. "": none.
	Back string
}

// Session is one command's view of one definition's directory.
type Session struct {
	Dir    string       // as it was given
	Config *lang.Config // never nil; may be broken (Diags)
	Diags  hcl.Diagnostics
	Store  statefile.Store
	Snap   *statefile.Snapshot

	opts     Options
	abs      string
	registry *providers.Registry
	confdb   *confdb.Provider
	ssh      *ssh.Provider
	nodes    *providers.Directory
	keys     *seal.Keys
	reads    *planfile.Recorder                               // nil: not recorded
	tree     *tree                                            // nil: the definition is a plan file's
	place    place                                            // in git
	used     *used                                            // backend that Store is of; nil: of none that is known
	fetch    func(gitmodule.Source) (gitmodule.Locked, error) // init's; nil: modules from git are in the cache, or it is an error

	// look is called before the world is looked at, once providers are configured.
	look func(context.Context) error

	mu       sync.Mutex
	identity *pki.Identity

	configuring sync.Mutex
	configured  bool
}

// Open reads the definition in dir and the state that belongs to it. Errors in
// the definition are left in Diags: a command that only needs the state goes on.
func Open(dir string, o Options) (*Session, error) {
	s, err := at(dir, o)
	if err != nil {
		return nil, err
	}
	return s, s.read()
}

// at is a session in dir that has read nothing yet.
func at(dir string, o Options) (*Session, error) {
	s := newSession(o)
	s.Dir = dir
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &view.Hint{Err: fmt.Errorf("there is no directory %s", dir), Hint: "Name the directory that holds the definition (*.cluster.hcl), or change into it."}
	}
	if err != nil {
		return nil, fmt.Errorf("open definition: %w", err)
	}
	if !fi.IsDir() {
		return nil, &view.Hint{Err: fmt.Errorf("%s is not a directory", dir), Hint: "Name the directory that holds the definition (*.cluster.hcl)."}
	}
	s.abs, err = filepath.Abs(dir)
	return s, err
}

// read reads the definition's directory.
func (s *Session) read() error {
	fsys, err := s.files()
	if err != nil {
		return err
	}
	if s.opts.Record {
		s.reads = planfile.Record(fsys)
		fsys = s.reads
	}
	return s.load(fsys, s.Dir, os.Environ())
}

func newSession(o Options) *Session {
	s := &Session{opts: o, nodes: new(providers.Directory), confdb: confdb.New(), ssh: ssh.New(ssh.Options{Passphrase: o.Passphrase, Log: o.Log})}
	s.registry = providers.NewRegistry(map[string]providers.Provider{local.Name: local.New(), ssh.Name: s.ssh, libvirt.Name: libvirt.New(), confdb.Name: s.confdb})
	if s.opts.Tell == nil {
		s.opts.Tell = func(string) {}
	}
	if s.opts.Log == nil {
		s.opts.Log = slog.New(slog.DiscardHandler)
	}
	return s
}

// load reads the definition in fsys, which is called dir in messages, and
// finds the state's place.
func (s *Session) load(fsys fs.FS, dir string, env []string) error {
	s.nodes.Via(local.Name, local.Dialer(s.dataDir()))
	s.nodes.Via(ssh.Name, func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.ssh.Dial(ctx, network, address, s.reach)
	})
	s.Config, s.Diags = lang.Load(lang.Options{
		FS: fsys, Dir: dir, Modules: modules(fsys, s.fetch), Env: env, Vars: s.opts.Vars, Stop: s.opts.Stop, Version: s.opts.Version,
		Providers: s.places(), Machinery: s.registry.Machinery(),
	})
	if lang.Interrupted(s.Diags) {
		return ErrInterrupted
	}
	s.setKeys()
	return s.openStore()
}

// dataDir is where nodes lie that are on this machine.
func (s *Session) dataDir() string { return filepath.Join(s.abs, ".clusterplan") }

// places are the providers that a definition can name, with their blocks.
func (s *Session) places() map[string]spec.Schema {
	all := map[string]spec.Schema{}
	for name, schema := range s.registry.Schemas() {
		if name != confdb.Name {
			all[name] = schema.Config
		}
	}
	return all
}

// Check is the definition's errors as an error.
func (s *Session) Check() error {
	if s.Diags.HasErrors() {
		return &view.DiagnosticsError{Diags: s.Diags, Files: s.Config.Files()}
	}
	return nil
}

// ReadState reads the state, and from it the cluster's identity and its nodes.
func (s *Session) ReadState(ctx context.Context) error {
	snap, err := s.Store.Read(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	if err := s.expected(snap.State.Lineage); err != nil {
		return err
	}
	s.remember(snap.State.Lineage)
	s.Snap = snap
	if c := snap.State.Cluster; c != nil {
		id, err := pki.ParseIdentity(c.ID, c.Name, c.CACert, c.CAKey, c.Key)
		if err != nil {
			return fmt.Errorf("state %s: %w", s.Store.Path(), err)
		}
		s.setIdentity(id)
	}
	for _, o := range snap.State.Objects {
		if o.Addr.Type == addr.TypeNode {
			if err := s.nodes.AddStored(o.ID, o.Attributes); err != nil {
				return fmt.Errorf("state %s: %w", s.Store.Path(), err)
			}
		}
	}
	return nil
}

func (s *Session) setIdentity(id *pki.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = id
}

// Identity is the cluster's; nil before its first apply.
func (s *Session) Identity() *pki.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// Close lets the providers' connections go.
func (s *Session) Close() error {
	err := s.registry.Close()
	if s.tree != nil {
		err = errors.Join(err, s.tree.Close())
	}
	return err
}

// Client speaks to the cluster's nodes, with a certificate that it mints itself
// for an hour. ErrNoCluster: the state knows none.
func (s *Session) Client() (*client.Client, error) { return s.clientUnder("") }

// clientUnder is Client, whose writes are done under a change lease.
func (s *Session) clientUnder(change string) (*client.Client, error) {
	id, nodes := s.Identity(), s.nodes.All()
	if id == nil || len(nodes) == 0 {
		return nil, &view.Hint{Err: fmt.Errorf("%w: the state %s knows no node", ErrNoCluster, s.Store.Path()),
			Hint: "clusterplan apply brings it up."}
	}
	cert, err := id.ClientCert(Who(), client.RoleAdmin, pki.ClientLife)
	if err != nil {
		return nil, err
	}
	pair, err := cert.TLS()
	if err != nil {
		return nil, err
	}
	conf, err := pki.ClientConfig(id.CACert, id.ID, pair, "")
	if err != nil {
		return nil, err
	}
	endpoints := make([]string, len(nodes))
	for i, n := range nodes {
		endpoints[i] = n.Endpoint
	}
	return client.New(client.Options{Endpoints: endpoints, TLS: conf, Dial: s.nodes.Dial, Author: Who(), Change: change}), nil
}

// Nodes are the cluster's nodes as the state knows them, by name.
func (s *Session) Nodes() []providers.Entry { return s.nodes.All() }

// Who is the person at the keyboard: user@host.
func Who() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && name == "" {
		name = u.Username
	}
	if name == "" {
		name = "uid-" + strconv.Itoa(os.Geteuid())
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}

// interrupted turns a cancelled context's error into ErrInterrupted.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ErrInterrupted
	}
	return err
}
