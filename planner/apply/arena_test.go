package apply_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
	"github.com/clusterplan/clusterplan/runtime/sim"

	rt "github.com/clusterplan/clusterplan/runtime/confdb"
)

// arena is a world whose nodes are the runtime's own cores: providers local and
// far over simulated machines, confdb over their database. What a change takes
// is planned by the real providers; their calls are done as the agents' API does
// them. It lives in a synctest bubble: the bubble's clock is the simulation's.
type arena struct {
	mu       sync.Mutex
	sim      *sim.Driven
	began    time.Time
	places   map[string]*providers.Nodes // by provider: what they plan
	database *confdb.Provider
	program  string // file
	version  string // what is in it

	machines map[string]*machine    // by node id
	settings *providers.Object      // the cluster
	groups   map[string]*kept       // by id
	after    func(string, spanned)  // called at the end of each phase of a node
	before   func(id, phase string) // and at its beginning
	commands int
	voters   []uint64 // of the newest configuration
	applied  uint64   // up to where whoever knew it had applied the log

	machinery *plannertest.World // what the provider hypervisor has made
	under     func(text string)  // called where it takes a machine from under a running agent
}

// machine is a node's host, as its provider knows it.
type machine struct {
	addr   addr.Address
	value  cty.Value
	digest string
	lost   bool // its host can't be reached

}

// kept is a group as it was put.
type kept struct {
	value     cty.Value
	resources []providers.Resource
}

// spanned is a phase that was done.
type spanned struct {
	addr  addr.Address
	phase string
	err   error
}

func newArena(t testing.TB, seed uint64, model spec.QuorumModel) *arena {
	a := &arena{
		sim: sim.NewDriven(seed, model, false), began: time.Now(), places: map[string]*providers.Nodes{}, database: confdb.New(),
		machinery: plannertest.New(), under: func(string) {},
		program: filepath.Join(t.TempDir(), "clusterplan"), machines: map[string]*machine{}, groups: map[string]*kept{},
	}
	a.upgrade("1")
	return a
}

// upgrade puts another program in place of the one that nodes are to run.
func (a *arena) upgrade(version string) {
	a.version = version
	if err := os.WriteFile(a.program, []byte(version), 0o600); err != nil {
		panic(err)
	}
	for _, name := range []string{"local", "far"} {
		p := providers.NewNodes(providers.NodesConfig{
			Name: name, Config: spec.Schema{Name: name}, FirstPort: 7400, LastPort: 7999,
			SameHost: func(_, _ spec.Node) bool { return name == "local" },
			Open:     func(cty.Value, providers.Env) (providers.Hosts, error) { return providers.Hosts{}, nil },
		})
		if err := p.Configure(cty.EmptyObjectVal, providers.Env{Program: a.program}); err != nil {
			panic(err)
		}
		a.places[name] = p
	}
}

func (a *arena) registry() *providers.Registry {
	return providers.NewRegistry(map[string]providers.Provider{
		"local": &arenaHosts{a, "local"}, "far": &arenaHosts{a, "far"}, "confdb": (*arenaDB)(a), "hypervisor": &arenaMachines{a.machinery.Registry(), a},
	})
}

// do is one look or one order at the bubble's present moment.
func (a *arena) do(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sim.Advance(time.Since(a.began))
	f()
}

// poll is how long a wait sleeps between two looks.
const poll = 10 * time.Millisecond

var errLate = errors.New("it takes too long")

// wait looks until done says so. It lets others go on meanwhile.
func (a *arena) wait(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	for end := time.Now().Add(limit); ; time.Sleep(poll) {
		var ok bool
		var err error
		a.do(func() { ok, err = done() })
		switch {
		case ok || err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return errLate
		}
	}
}

// leading calls ask on the leader until one of its answers is not to try again.
func (a *arena) leading(ctx context.Context, what string, ask func(leader string, then func(rt.Result))) error {
	var asked time.Time
	var got *rt.Result
	last := ""
	err := a.wait(ctx, 20*time.Second, func() (bool, error) {
		if got != nil {
			switch r := *got; r.Code {
			case "":
				return true, nil
			case rt.CodeConflict, rt.CodeNotFound, rt.CodeInvalid:
				return false, fmt.Errorf("%s: %s %s", what, r.Code, r.Detail)
			default:
				last = r.Code + " " + r.Detail
				got, asked = nil, time.Now().Add(-time.Second) // again
			}
		}
		if l := a.sim.Leader(); l != "" && time.Since(asked) > 500*time.Millisecond {
			asked = time.Now()
			ask(l, func(r rt.Result) { got = &r })
		}
		return false, nil
	})
	if errors.Is(err, errLate) {
		return fmt.Errorf("%w: %s: no answer: %s", providers.ErrNoQuorum, what, last)
	}
	return err
}

func (a *arena) submit(ctx context.Context, c rt.Command) error {
	a.mu.Lock()
	a.commands++
	c.ID = fmt.Sprint("apply-", a.commands)
	a.mu.Unlock()
	return a.leading(ctx, "a command", func(l string, then func(rt.Result)) { a.sim.Submit(l, c, then) })
}

func (a *arena) membership(ctx context.Context, m member.Membership) error {
	return a.leading(ctx, m.Op, func(l string, then func(rt.Result)) { a.sim.Membership(l, m, then) })
}

// view is the leader's copy and what it knows of the agreement; nil: there is no
// leader.
func (a *arena) view() (*rt.State, member.Status) {
	l := a.sim.Leader()
	if l == "" {
		return nil, member.Status{}
	}
	st, _ := a.sim.Status(l)
	return a.sim.State(l), st
}

// votes are the voters now, and how many of their agents run, by the newest
// configuration that any agent has ever known: one that starts has applied less
// than it had, and than its log holds.
func (a *arena) votes() (all, up int) {
	running := map[uint64]bool{}
	for id := range a.machines {
		st, ok := a.sim.Status(id)
		if !ok {
			continue
		}
		running[a.sim.Server(id)] = true
		if len(st.Driver.Voters) > 0 && st.Driver.Applied >= a.applied {
			a.voters, a.applied = slices.Clone(st.Driver.Voters), st.Driver.Applied
		}
	}
	for _, v := range a.voters {
		all++
		if running[v] {
			up++
		}
	}
	return all, up
}

// arenaHosts is a provider of nodes.
type arenaHosts struct {
	a    *arena
	name string
}

func (p *arenaHosts) Schema() providers.Schema                 { return p.a.places[p.name].Schema() }
func (p *arenaHosts) Configure(cty.Value, providers.Env) error { return nil }
func (p *arenaHosts) Close() error                             { return nil }
func (p *arenaHosts) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	return p.a.places[p.name].Plan(req)
}

func (p *arenaHosts) Import(context.Context, providers.ImportRequest) (providers.ImportResponse, error) {
	return providers.ImportResponse{}, errors.New("nothing is imported here")
}

func (a *arena) lost(id string) error {
	if m := a.machines[id]; m != nil && m.lost {
		return fmt.Errorf("%w: no route to host", providers.ErrUnreachable)
	}
	return nil
}

func (p *arenaHosts) Read(_ context.Context, req providers.ReadRequest) (resp providers.ReadResponse, err error) {
	a := p.a
	a.do(func() {
		if err = a.lost(req.ID); err == nil {
			resp.Object = a.read(req.ID)
		}
	})
	return resp, err
}

// read is what is there of a node, as providers.Nodes.Read tells it.
func (a *arena) read(id string) *providers.Object {
	m := a.machines[id]
	if m == nil {
		return nil
	}
	attrs := m.value.AsValueMap()
	host := "127.0.0.1"
	if v := attrs["address"]; v.IsKnown() && !v.IsNull() {
		host = v.AsString()
	}
	attrs["endpoint"] = cty.StringVal(host + ":7400")
	attrs["server_id"] = cty.NumberUIntVal(a.sim.Server(id))
	attrs["program"] = cty.StringVal(m.digest)
	o := &providers.Object{ID: id, Value: cty.ObjectVal(attrs)}
	add := func(when bool, word string) {
		if when {
			o.Health = append(o.Health, word)
		}
	}
	add(!a.sim.Runs(id), providers.HealthNotRunning)
	if state, st := a.view(); state != nil && state.Cluster.ID != "" {
		n := state.Nodes[id]
		switch {
		case n == nil:
			add(true, providers.HealthNotMember)
		default:
			votes := slices.Contains(st.Driver.Voters, n.ServerID)
			add(!n.Joined || !votes && n.Spec.Votes > 0, providers.HealthNotCaught)
			add(n.Spec.Name != m.value.GetAttr("name").AsString(), providers.HealthSettings)
			add(n.Drained && n.Paused != nil && strings.HasPrefix(n.Paused.Reason, "apply: "), providers.HealthDrained)
		}
	}
	return o
}

func (p *arenaHosts) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	a := p.a
	// Calls of one moment begin one after the other, in an order that does not
	// depend on the scheduler's.
	h := fnv.New32a()
	h.Write([]byte(req.Addr.String() + req.Phase))
	time.Sleep(time.Duration(h.Sum32()%5_000_000) + 1)
	if a.before != nil {
		a.do(func() { a.before(req.ID, req.Phase) })
	}
	var err error
	a.do(func() {
		if err = a.lost(req.ID); err != nil && slices.Contains([]string{providers.PhaseDrain, providers.PhaseDemote, providers.PhaseLeave, providers.PhaseUpdate}, req.Phase) {
			err = nil // these ask the cluster alone
		}
		a.sim.Tell(fmt.Sprintf("apply: %s %s", req.Addr, req.Phase))
	})
	if err == nil {
		err = a.phase(ctx, req)
	}
	if a.after != nil {
		a.do(func() { a.after(req.ID, spanned{req.Addr, req.Phase, err}) })
	}
	if err != nil {
		return providers.ApplyResponse{}, fmt.Errorf("%s %s: %w", req.Phase, req.Addr, err)
	}
	var o *providers.Object
	a.do(func() { o = a.read(req.ID) })
	return providers.ApplyResponse{Object: o}, nil
}

// node is what the cluster is to know of a node.
func (a *arena) node(req providers.ApplyRequest) spec.Node {
	v := req.Planned
	if v == cty.NilVal {
		v = req.Prior.Value
	}
	n := spec.Node{ID: req.ID, Addr: req.Addr}
	if err := schema.DecodeKnown(v, &n); err != nil {
		panic(err)
	}
	n.Address = a.sim.Endpoint(req.ID)
	if req.Beside {
		n.Name = providers.SuccessorName(n.Name, req.ID)
	}
	return n
}

func (a *arena) phase(ctx context.Context, req providers.ApplyRequest) error {
	id := req.ID
	switch req.Phase {
	case providers.PhaseInstall:
		a.do(func() {
			m := a.machines[id]
			if m == nil {
				m = &machine{addr: req.Addr}
				a.machines[id] = m
				var n spec.Node
				if err := schema.DecodeKnown(req.Planned, &n); err != nil {
					panic(err)
				}
				a.sim.Put(id, n.Name)
			}
			m.value, m.digest = req.Planned, req.Planned.GetAttr("program").AsString()
		})
	case providers.PhaseStart:
		a.do(func() { a.sim.Start(id) })
	case providers.PhaseStop:
		err := a.wait(ctx, 35*time.Second, func() (bool, error) {
			a.sim.Stop(id)
			return !a.sim.Runs(id), nil
		})
		if errors.Is(err, errLate) {
			a.do(func() { a.sim.Crash(id) })
			err = nil
		}
		return err
	case providers.PhaseRemove:
		a.do(func() {
			a.sim.Discard(id)
			delete(a.machines, id)
		})
	case providers.PhaseJoin:
		return a.join(ctx, req)
	case providers.PhasePromote:
		return a.promote(ctx, id)
	case providers.PhaseUpdate, providers.PhaseDemote:
		return a.update(ctx, req)
	case providers.PhaseDrain:
		return a.drain(ctx, id)
	case providers.PhaseResume:
		if err := a.wait(ctx, 20*time.Second, func() (bool, error) {
			st, ok := a.sim.Status(id)
			return ok && st.Quorum, nil
		}); err != nil {
			return err
		}
		return a.submit(ctx, rt.Command{ResumeNode: &rt.NodeRef{Node: id}})
	case providers.PhaseLeave:
		return a.leave(ctx, id)
	}
	return nil
}

func (a *arena) join(ctx context.Context, req providers.ApplyRequest) error {
	id := req.ID
	var server uint64
	var n spec.Node
	a.do(func() { server, n, a.machines[id].value = a.sim.Server(id), a.node(req), req.Planned })
	if err := a.submit(ctx, rt.Command{PutNode: &rt.PutNode{Spec: n, ServerID: server, Endpoint: n.Address, Version: "sim"}}); err != nil {
		return err
	}
	member_ := func() bool {
		_, st := a.view()
		return slices.Contains(st.Driver.Voters, server) || slices.Contains(st.Driver.Learners, server)
	}
	known := false
	a.do(func() { known = member_() })
	if known {
		return nil
	}
	if err := a.membership(ctx, member.Membership{Op: "add_learner", Server: server, Endpoint: n.Address}); err != nil {
		return err
	}
	return a.wait(ctx, 10*time.Second, func() (bool, error) { return member_(), nil })
}

// promote waits until the node has caught up and has its vote, if it is to have one.
func (a *arena) promote(ctx context.Context, id string) error {
	var server uint64
	var votes, voter, joined bool
	err := a.wait(ctx, 20*time.Second, func() (bool, error) {
		state, st := a.view()
		if state == nil || state.Nodes[id] == nil {
			return false, nil
		}
		n := state.Nodes[id]
		server, joined = n.ServerID, n.Joined
		votes = n.Spec.Votes > 0 || state.Cluster.Quorum.Model == spec.SingleQuorum
		voter = slices.Contains(st.Driver.Voters, server)
		return voter || st.CaughtUp[server], nil
	})
	if err != nil {
		return err
	}
	if votes && !voter {
		if err := a.membership(ctx, member.Membership{Op: "promote", Server: server}); err != nil {
			return err
		}
	}
	if joined {
		return nil
	}
	return a.submit(ctx, rt.Command{NodeJoined: &rt.NodeRef{Node: id}})
}

// handOver has somebody else lead where id does.
func (a *arena) handOver(ctx context.Context, id string) error {
	return a.wait(ctx, 20*time.Second, func() (bool, error) {
		l := a.sim.Leader()
		if l != id {
			return l != "", nil
		}
		st, _ := a.sim.Status(l)
		for _, v := range st.Driver.Voters {
			if v != a.sim.Server(id) && st.CaughtUp[v] {
				a.sim.Membership(l, member.Membership{Op: "transfer", Server: v}, func(rt.Result) {})
				break
			}
		}
		return false, nil
	})
}

func (a *arena) update(ctx context.Context, req providers.ApplyRequest) error {
	id := req.ID
	var n spec.Node
	var server uint64
	var endpoint string
	var voter, learner, joined bool
	a.do(func() {
		n = a.node(req)
		if m := a.machines[id]; m != nil {
			m.value = req.Planned
		}
	})
	if err := a.wait(ctx, 20*time.Second, func() (bool, error) {
		state, st := a.view()
		if state == nil {
			return false, nil
		}
		if state.Nodes[id] == nil {
			return false, fmt.Errorf("%s is no member", id)
		}
		server, endpoint, joined = state.Nodes[id].ServerID, state.Nodes[id].Endpoint, state.Nodes[id].Joined
		voter, learner = slices.Contains(st.Driver.Voters, server), slices.Contains(st.Driver.Learners, server)
		return true, nil
	}); err != nil {
		return err
	}
	if voter && n.Votes == 0 {
		if err := a.handOver(ctx, id); err != nil {
			return err
		}
	}
	if err := a.submit(ctx, rt.Command{PutNode: &rt.PutNode{Spec: n, Endpoint: endpoint, Version: "sim"}}); err != nil {
		return err
	}
	switch {
	case learner && joined && n.Votes > 0:
		return a.promote(ctx, id)
	case voter && n.Votes == 0:
		if err := a.membership(ctx, member.Membership{Op: "add_learner", Server: server, Endpoint: endpoint}); err != nil {
			return err
		}
		return a.wait(ctx, 10*time.Second, func() (bool, error) {
			state, st := a.view()
			return state != nil && !slices.Contains(st.Driver.Voters, server), nil
		})
	}
	return nil
}

// drain waits until the node owns no group, or nothing has changed for a while.
func (a *arena) drain(ctx context.Context, id string) error {
	known := false
	if err := a.wait(ctx, 20*time.Second, func() (bool, error) {
		state, _ := a.view()
		known = state != nil && state.Nodes[id] != nil
		return state != nil, nil
	}); err != nil || !known {
		return err
	}
	if err := a.submit(ctx, rt.Command{PauseNode: &rt.PauseNode{Node: id, Drain: true}, Reason: "apply: works on it"}); err != nil {
		return err
	}
	// As long as the real one waits: a node that was started anew can take no group
	// before its former life's lease is over for sure, some 4 s with a quorum device.
	err := a.wait(ctx, 15*time.Second, func() (bool, error) {
		state, _ := a.view()
		return state != nil && !owns(state, id), nil
	})
	if errors.Is(err, errLate) {
		err = nil // no other node may own them: they stop with it
	}
	return err
}

func owns(state *rt.State, id string) bool {
	for _, g := range state.Groups {
		if g.Owner.Node == id {
			return true
		}
	}
	return false
}

func (a *arena) leave(ctx context.Context, id string) error {
	var server uint64
	var voter, learner, known bool
	look := func() (bool, error) {
		state, st := a.view()
		if state == nil {
			return false, nil
		}
		known = state.Nodes[id] != nil
		if !known {
			return true, nil
		}
		server = state.Nodes[id].ServerID
		voter, learner = slices.Contains(st.Driver.Voters, server), slices.Contains(st.Driver.Learners, server)
		switch {
		case voter && len(st.Driver.Voters) == 1:
			return false, errors.New("it is the last voter")
		case owns(state, id):
			return false, nil
		}
		return true, nil
	}
	err := a.wait(ctx, 5*time.Second, look)
	down := false
	a.do(func() {
		state, _ := a.view()
		down = state != nil && !slices.Contains(state.View.Up, id)
	})
	if errors.Is(err, errLate) && down { // as an evict: what it owned is freed once nothing of it can run
		if err = a.submit(ctx, rt.Command{EvictNode: &rt.NodeRef{Node: id}, Reason: "apply: it leaves"}); err == nil {
			err = a.wait(ctx, 20*time.Second, look)
		}
	}
	if err != nil || !known {
		return err
	}
	if err := a.handOver(ctx, id); err != nil {
		return err
	}
	if voter || learner {
		if err := a.membership(ctx, member.Membership{Op: "remove", Server: server}); err != nil {
			return err
		}
		if err := a.wait(ctx, 10*time.Second, func() (bool, error) {
			state, st := a.view()
			return state != nil && !slices.Contains(st.Driver.Voters, server) && !slices.Contains(st.Driver.Learners, server), nil
		}); err != nil {
			return err
		}
	}
	return a.submit(ctx, rt.Command{DeleteNode: &rt.NodeRef{Node: id}})
}
