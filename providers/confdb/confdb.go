// Package confdb brings about what lives in the cluster's own database: the
// cluster, and each group with its resources, through the agents' API. It is
// also what the node lifecycle asks of the cluster (providers.Cluster) and how
// a plan sees the cluster's own life (providers.LiveReader).
//
// Whom to call stands in providers.Directory: any node that answers will do.
// The database is read once a run and kept (indexed by id) until this provider
// writes. Without quorum the newest copy that can be reached is read, and
// marked as such. Start reading at Provider.database.
package confdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Name is the provider's name in plans and states. Definitions don't name it.
const Name = "confdb"

// patience is how long a write waits for a quorum or a leader: long enough for
// an election, and for agents that were started a moment ago.
const patience = 20 * time.Second

// Provider is the cluster's database as a provider. It is safe for concurrent
// use after Configure.
type Provider struct {
	env providers.Env

	mu     sync.Mutex
	client *client.Client
	asked  []string       // endpoints of client
	minted time.Time      // client's certificate
	of     string         // client's cluster, by its id
	rank   map[string]int // by node id: 0 has quorum, 1 answers, 2 is silent, as last asked
	cached *database
	stale  bool            // something was written since
	older  map[string]bool // by node id: its agent, when it answered last, did not know the change lease
	able   bool            // no agent is such an older one
	under  string          // the change lease that is held

	holding  sync.Mutex // guards what follows; before mu
	claim    *Claim
	held     *client.Hold
	watching sync.WaitGroup
	closed   chan struct{}

	leaveWait time.Duration // of a drain

	reading  sync.Mutex // one reading at a time: who waits gets what the first one read
	unreadBy time.Time  // until when members that have not read their database are waited for
}

// database is one reading of the cluster's database.
type database struct {
	client.Config
	none    bool   // no node holds a cluster yet, for sure
	leader  string // node name, as a node with quorum says
	members map[string]*client.ConfigMember
	groups  map[string]*client.ConfigGroup
	fences  map[string]*client.ConfigFence
}

var (
	_ providers.Provider   = (*Provider)(nil)
	_ providers.Cluster    = (*Provider)(nil)
	_ providers.LiveReader = (*Provider)(nil)
)

// New is the provider; it needs Configure before use.
func New() *Provider { return &Provider{closed: make(chan struct{}), leaveWait: leaveWait} }

// Schema is of cluster, group and the resource types.
func (p *Provider) Schema() providers.Schema {
	return providers.Schema{
		Config: spec.Schema{Name: Name},
		Objects: map[string]spec.Schema{
			addr.TypeCluster: spec.ClusterSchema(),
			addr.TypeFence:   spec.FenceSchema(),
			addr.TypeGroup:   spec.GroupSchema(),
		},
		Resources: spec.ResourceTypes(),
	}
}

// Configure takes the run's environment; there is nothing to configure.
func (p *Provider) Configure(_ cty.Value, env providers.Env) error {
	if env.Nodes == nil {
		env.Nodes = new(providers.Directory)
	}
	p.env = env
	return nil
}

// Close lets connections go.
func (p *Provider) Close() error {
	p.holding.Lock()
	if p.held != nil {
		p.held.Close()
		p.held = nil
	}
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	p.holding.Unlock()
	p.watching.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		p.client.Close()
		p.client = nil
	}
	return nil
}

// api is a client for the nodes that are known now.
func (p *Provider) api() (*client.Client, error) {
	var identity *pki.Identity
	if p.env.Identity != nil {
		identity = p.env.Identity()
	}
	if identity == nil {
		return nil, fmt.Errorf("%w: there is no cluster yet: the state does not hold its identity", providers.ErrUnreachable)
	}
	nodes := p.env.Nodes.All()
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: the state knows no node with an endpoint", providers.ErrUnreachable)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Whoever is likely to answer is asked first: a silent one costs seconds.
	slices.SortStableFunc(nodes, func(a, b providers.Entry) int { return cmp.Compare(p.rankOf(a), p.rankOf(b)) })
	var endpoints []string
	for _, e := range nodes {
		endpoints = append(endpoints, e.Endpoint)
	}
	// Another cluster's client has its keys and connections, and none of this one's.
	if p.client != nil && p.of == identity.ID && time.Since(p.minted) < pki.ClientLife/2 {
		if !slices.Equal(p.asked, endpoints) {
			p.client = p.client.With(endpoints, p.under)
			p.asked = endpoints
		}
		return p.client, nil
	}
	cert, err := identity.ClientCert("clusterplan", client.RoleAdmin, pki.ClientLife)
	if err != nil {
		return nil, err
	}
	pair, err := cert.TLS()
	if err != nil {
		return nil, err
	}
	conf, err := pki.ClientConfig(identity.CACert, identity.ID, pair, "")
	if err != nil {
		return nil, err
	}
	// An older client goes on for the calls that use it; its idle connections
	// close by themselves.
	p.client = client.New(client.Options{Endpoints: endpoints, TLS: conf, Dial: p.env.Nodes.Dial, Author: author(), Patience: patience, Change: p.under})
	p.asked, p.minted, p.of = endpoints, time.Now(), identity.ID
	return p.client, nil
}

func (p *Provider) rankOf(e providers.Entry) int {
	rank, ok := p.rank[e.NodeID]
	if !ok && e.ServerID == 0 {
		return 2
	}
	return rank
}

// author is who applies, for the event log.
func author() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// forget has the database read again: it has changed.
func (p *Provider) forget() {
	p.mu.Lock()
	p.stale = true
	p.mu.Unlock()
}

// Forget lets go of what was read of the database.
func (p *Provider) Forget() {
	p.mu.Lock()
	p.cached = nil
	p.mu.Unlock()
}

// recent is what was read last in this run, whatever was written since.
func (p *Provider) recent(ctx context.Context) (*database, error) {
	p.mu.Lock()
	db := p.cached
	p.mu.Unlock()
	if db != nil {
		return db, nil
	}
	return p.database(ctx)
}

// wrap puts the client's errors in the providers' terms.
func wrap(err error) error {
	var e *client.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrUnreachable):
		return fmt.Errorf("%w: %w", providers.ErrUnreachable, err)
	case errors.As(err, &e):
		switch e.Code {
		case "no_quorum", "not_leader", "waiting", "unread":
			return fmt.Errorf("%w: %w", providers.ErrNoQuorum, err)
		case "busy", "unknown_outcome", "precondition":
			return fmt.Errorf("%w: %w", providers.ErrRetry, err)
		}
	}
	return err
}

func code(err error) string {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// database reads the cluster's database, or returns what was read before.
func (p *Provider) database(ctx context.Context) (*database, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.mu.Lock()
	db := p.cached
	if p.stale {
		db = nil
	}
	p.stale = false // what is written from here on is not in what is read
	p.mu.Unlock()
	if db != nil {
		return db, nil
	}
	db, err := p.read(ctx)
	for code(err) == "unread" && p.untilRead(ctx) {
		db, err = p.read(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.stale = true
		return nil, err
	}
	p.cached = db
	return db, nil
}

// Nodes that have all just started own a quorum device, and know what is on it, within
// unread (5.2 s by default), unless it is lost. They have it once in a run.
const (
	unread      = 8 * time.Second
	unreadAgain = 200 * time.Millisecond
)

// untilRead waits a moment, and tells whether to ask members again that have not read
// their database.
func (p *Provider) untilRead(ctx context.Context) bool {
	if p.unreadBy.IsZero() {
		p.unreadBy = time.Now().Add(unread)
	}
	if time.Now().After(p.unreadBy) {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(unreadAgain):
		return true
	}
}

func (p *Provider) read(ctx context.Context) (*database, error) {
	c, err := p.api()
	if err != nil {
		return nil, err
	}
	answers := p.hear(ctx, c, true)
	if c, err = p.api(); err != nil { // those with quorum first
		return nil, err
	}
	var conf client.Config
	if i := slices.IndexFunc(answers, func(a answer) bool { return a.err == nil && a.self.Quorum }); i >= 0 {
		// A copy with quorum may be a moment behind its leader; a barrier makes
		// sure of what is committed.
		if conf, err = c.Config(ctx, true); err == nil {
			db := index(conf)
			db.leader = answers[i].self.Leader
			return db, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	// The others have just had their time to answer.
	var heard []string
	var silent client.Unreachable
	for _, a := range answers {
		var refused *client.Error
		if a.err == nil || errors.As(a.err, &refused) {
			heard = append(heard, a.Endpoint)
		} else {
			silent.Tries = append(silent.Tries, client.Try{Endpoint: a.Endpoint, Err: a.err})
		}
	}
	if len(heard) == 0 {
		return nil, wrap(&silent)
	}
	if conf, err = c.NewestConfig(ctx, heard); code(err) == "waiting" {
		return nobody(answers)
	}
	if err != nil {
		return nil, wrap(err)
	}
	conf.Quorum = false // nobody could confirm it
	return index(conf), nil
}

func index(conf client.Config) *database {
	db := &database{Config: conf, members: make(map[string]*client.ConfigMember, len(conf.Members)), groups: make(map[string]*client.ConfigGroup, len(conf.Groups))}
	for i := range conf.Members {
		db.members[conf.Members[i].Spec.ID] = &conf.Members[i]
	}
	db.fences = make(map[string]*client.ConfigFence, len(conf.Fences))
	for i := range conf.Fences {
		db.fences[conf.Fences[i].Spec.ID] = &conf.Fences[i]
	}
	for i := range conf.Groups {
		db.groups[conf.Groups[i].Spec.ID] = &conf.Groups[i]
	}
	return db
}

// nobody makes sure that no node holds the cluster: each answers that it
// waits, or never ran at all.
func nobody(answers []answer) (*database, error) {
	var silent []string
	for _, n := range answers {
		switch {
		case n.err != nil && n.ServerID != 0:
			silent = append(silent, n.Name)
		case n.err == nil && n.self.Membership == "unread": // an older agent, which says so of itself alone
			return nil, wrap(&client.Error{Code: "unread", Message: fmt.Sprintf("the node %s is a member and has not read the cluster's database yet", n.Name),
				Hint: "it does by itself, once it sees its quorum device"})
		}
	}
	if len(silent) > 0 {
		return nil, fmt.Errorf("%w: the nodes that answer are no members, and %s may hold the cluster's database but does not answer",
			providers.ErrUnreachable, strings.Join(silent, ", "))
	}
	return &database{none: true}, nil
}

// Live is the cluster's own life, for a plan; always what is there now. Nil
// where no node holds a cluster for sure.
func (p *Provider) Live(ctx context.Context) (*providers.Live, error) {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return nil, err
	}
	if db.none {
		return nil, nil
	}
	l := &providers.Live{Revision: db.Revision, ConfigRevision: db.ConfigRevision, Quorum: db.Quorum, Cluster: db.Cluster}
	l.Groups = slices.Grow(l.Groups, len(db.Groups))
	names := map[string]string{}
	for i := range db.Members {
		m := &db.Members[i]
		names[m.Spec.Name] = m.Spec.ID
		l.Members = append(l.Members, providers.LiveMember{Spec: m.Spec, State: m.State, Node: m.Node, Paused: order(m.Paused), Drained: m.Drained})
	}
	for i := range db.Groups {
		g := &db.Groups[i]
		l.Groups = append(l.Groups, providers.LiveGroup{Spec: g.Spec, Owner: names[g.Owner], Home: names[g.Home], State: g.State, Want: g.Want, WantBy: order(g.WantBy), Move: order(g.Move)})
	}
	for i := range db.Fences {
		l.Fences = append(l.Fences, db.Fences[i].Spec.Shown())
	}
	l.Leader = names[db.leader]
	return l, nil
}

func order(i *client.Intent) *providers.Order {
	if i == nil {
		return nil
	}
	return &providers.Order{Author: i.Author, Reason: i.Reason, Time: i.Time, To: i.To}
}
