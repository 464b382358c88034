// Package plannertest is a world to plan and apply in: hosts with agents, a
// cluster with members and groups, in memory, behind the Provider interface.
// It does what providers/local and providers/confdb promise, fails where it is
// told to, and keeps a list of what must never happen (Violations).
package plannertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// World is the hosts and the cluster. Its fields may be changed between runs.
type World struct {
	Hosts   map[string]*Host // by node id
	Program string           // digest of the program that nodes are to run
	// The cluster; Formed once it is bootstrapped.
	Formed   bool
	ID       string
	Settings cty.Value
	Members  map[string]*Member // by node id
	Groups   map[string]*Group  // by group id
	Fences   map[string]cty.Value
	Revision uint64
	Leader   string // node id

	// Machinery is what the provider hypervisor has made, by id; Diskless machines
	// forget what is on them when they reboot.
	Machinery map[string]*Machinery
	Diskless  bool
	leases    int               // addresses that were given out
	at        map[string]string // address -> machine id, also of those that are gone

	// LateUp is how many looks at the cluster still find a node down that was just
	// started.
	LateUp int
	// Fail is asked before each call: an error fails it.
	Fail func(Call) error
	// Hidden is why machines, networks and volumes can't be read; nil: they can.
	Hidden error
	// FailAfter is asked after each call has had its effect.
	FailAfter func(Call) error
	Calls     []Call
	// Endpoint is where a node that is made is planned to listen; nil: unknown until
	// it is installed.
	Endpoint  func(config cty.Value) string
	Looks     int           // at the cluster
	LookTakes time.Duration // each of them
	// Ending: the cluster may end (destroy); no step counts as a violation.
	Ending bool

	mu         sync.Mutex
	made       map[string]int // creations by id
	violations []string
}

// Call is one call of Apply.
type Call struct {
	Addr  addr.Address
	ID    string
	Phase string // "delete" of a group that goes
}

func (c Call) String() string { return c.Addr.String() + " " + c.Phase }

// Host is a node's host.
type Host struct {
	Value   cty.Value
	Program string // installed
	Running bool
	Hung    bool // it runs, and answers nobody
	Emptied bool // its data directory was removed: it starts as another server
	Lost    bool // it can't be reached from here; the cluster may see it all the same
	Server  int64
	late    int // looks at the cluster that don't find it up yet
}

// endpoint is where a node of these settings listens.
func (w *World) endpoint(v cty.Value) string {
	if w.Endpoint != nil {
		return w.Endpoint(v)
	}
	if a := v.GetAttr("address"); !a.IsNull() {
		return a.AsString() + ":1"
	}
	return "127.0.0.1:1"
}

func (h *Host) up() bool { return h.Running && !h.Hung }

// Member is a node in the database.
type Member struct {
	Spec   spec.Node
	Server int64
	Voter  bool
	Paused *providers.Order
	Drain  bool
}

// Group is a group in the database.
type Group struct {
	Addr      addr.Address
	Value     cty.Value
	Resources []providers.Resource
	Owner     string // node id
	ManagedBy string
	WantBy    *providers.Order
	Want      string
}

// New is an empty world.
func New() *World {
	return &World{Hosts: map[string]*Host{}, Members: map[string]*Member{}, Groups: map[string]*Group{}, Fences: map[string]cty.Value{}, Machinery: map[string]*Machinery{}, at: map[string]string{}, made: map[string]int{}, Program: "p1"}
}

// Registry are the providers local, confdb and hypervisor of the world.
func (w *World) Registry() *providers.Registry {
	return providers.NewRegistry(map[string]providers.Provider{"local": (*hosts)(w), "confdb": (*database)(w), "hypervisor": (*hypervisor)(w)})
}

// Violations are what must never happen: an object made twice, a step below
// quorum, a group that was started before what it depends on.
func (w *World) Violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

func (w *World) violate(format string, args ...any) {
	w.violations = append(w.violations, fmt.Sprintf(format, args...))
}

func (w *World) begin(c Call) error {
	w.Calls = append(w.Calls, c)
	if w.Fail != nil {
		return w.Fail(c)
	}
	return nil
}

func (w *World) end(c Call) error {
	if w.FailAfter != nil {
		return w.FailAfter(c)
	}
	return nil
}

// serves tells whether a member's agent answers, with the data directory that joined.
func (w *World) serves(id string) bool {
	m, h := w.Members[id], w.Hosts[id]
	return m != nil && h != nil && h.up() && m.Server == h.Server
}

// votes counts the cluster's votes, and those that are up.
func (w *World) votes() (all, up int) {
	for id, m := range w.Members {
		if m.Voter {
			all++
			if w.serves(id) {
				up++
			}
		}
	}
	return all, up
}

// Quorum tells whether the cluster can commit.
func (w *World) Quorum() bool {
	all, up := w.votes()
	return w.Formed && all > 0 && up >= all/2+1
}

func (w *World) commit() error {
	if !w.Formed {
		return fmt.Errorf("%w: no cluster", providers.ErrUnreachable)
	}
	if !w.Quorum() {
		return fmt.Errorf("%w: too few votes", providers.ErrNoQuorum)
	}
	w.Revision++
	return nil
}

// answers tells whether any member's agent runs.
func (w *World) answers() bool {
	for id := range w.Members {
		if w.serves(id) {
			return true
		}
	}
	return false
}

// takeVote checks that quorum was not lost by what has just been done.
func (w *World) takeVote(had bool, what string) {
	if had && !w.Quorum() && !w.Ending {
		w.violate("%s took the quorum away", what)
	}
}

// place gives groups without an owner one, and moves those whose node is drained.
func (w *World) place() {
	if !w.Quorum() {
		return
	}
	for _, g := range w.Groups {
		if m := w.Members[g.Owner]; w.serves(g.Owner) && !m.Drain && m.Paused == nil && w.mayOwn(g, g.Owner) {
			continue
		}
		g.Owner = ""
		for _, id := range sorted(w.Members) {
			if m := w.Members[id]; w.serves(id) && !m.Drain && m.Paused == nil && w.mayOwn(g, id) {
				g.Owner = id
				break
			}
		}
	}
}

func (w *World) mayOwn(g *Group, id string) bool {
	v := g.Value.GetAttr("possible_owners")
	if v.LengthInt() == 0 {
		return true
	}
	for it := v.ElementIterator(); it.Next(); {
		if _, e := it.Element(); e.AsString() == w.Members[id].Spec.Name {
			return true
		}
	}
	return false
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// hosts is the provider local.
type hosts World

func (p *hosts) Schema() providers.Schema {
	return providers.Schema{Config: spec.Schema{Name: "local", Attributes: []spec.Attribute{{Name: "mode", Type: spec.TypeString, Default: "process"}}},
		Objects: map[string]spec.Schema{addr.TypeNode: spec.NodeSchema()}}
}
func (p *hosts) Configure(cty.Value, providers.Env) error { return nil }
func (p *hosts) Close() error                             { return nil }

func (p *hosts) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	if req.Config == cty.NilVal {
		return providers.PlanResponse{Phases: []string{providers.PhaseDrain, providers.PhaseLeave, providers.PhaseStop, providers.PhaseRemove}}, nil
	}
	attrs := req.Config.AsValueMap()
	attrs["endpoint"], attrs["server_id"] = cty.UnknownVal(cty.String), cty.UnknownVal(cty.Number)
	attrs["program"] = cty.StringVal(p.Program)
	if req.Prior == nil || req.Prior.Value == cty.NilVal {
		if p.Endpoint != nil {
			attrs["endpoint"] = cty.StringVal(p.Endpoint(req.Config))
		}
		return providers.PlanResponse{Planned: cty.ObjectVal(attrs), Phases: []string{providers.PhaseInstall, providers.PhaseStart, providers.PhaseJoin, providers.PhasePromote}}, nil
	}
	old := req.Prior.Value.AsValueMap()
	attrs["endpoint"], attrs["server_id"] = old["endpoint"], old["server_id"]
	resp := providers.PlanResponse{Planned: cty.ObjectVal(attrs), Drift: req.Prior.Health, Impact: spec.ImpactNone}
	if !old["address"].RawEquals(attrs["address"]) {
		resp.Replace, resp.Impact = []cty.Path{cty.GetAttrPath("address")}, spec.ImpactReplace
		return resp, nil
	}
	has := func(h string) bool { return slices.Contains(req.Prior.Health, h) }
	upgrade, emptied := !old["program"].RawEquals(attrs["program"]), has(providers.HealthNoData)
	restart, rejoin := upgrade || emptied, emptied || has(providers.HealthNotMember) || has(providers.HealthServer)
	down, hung := has(providers.HealthNotRunning), has(providers.HealthNoAnswer)
	settings, votes := false, !old["votes"].RawEquals(attrs["votes"])
	for _, name := range []string{"name", "zone", "labels", "spare", "role"} {
		settings = settings || !old[name].RawEquals(attrs[name])
	}
	add := func(when bool, phases ...string) {
		if when {
			resp.Phases = append(resp.Phases, phases...)
		}
	}
	less := votes && attrs["votes"].RawEquals(cty.Zero)
	add(restart && !down && !hung, providers.PhaseDrain)
	add(less, providers.PhaseDemote)
	add(restart && !down || hung, providers.PhaseStop)
	add(upgrade, providers.PhaseInstall)
	add(restart || down || hung, providers.PhaseStart)
	add(rejoin, providers.PhaseJoin)
	add((settings || has(providers.HealthSettings)) && !rejoin, providers.PhaseUpdate)
	add(rejoin || votes && !less || has(providers.HealthNotCaught), providers.PhasePromote)
	add(restart && !down && !hung || has(providers.HealthDrained), providers.PhaseResume)
	return resp, nil
}

func (p *hosts) Read(_ context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.Hosts[req.ID]
	if req.Prior != nil && req.Prior.Value != cty.NilVal {
		if err := w.reach(req.Prior.Value); err != nil {
			return providers.ReadResponse{}, err
		}
	}
	if h == nil {
		return providers.ReadResponse{}, nil
	}
	if h.Lost {
		return providers.ReadResponse{}, fmt.Errorf("%w: %s: no route to host", providers.ErrUnreachable, req.Addr)
	}
	v := h.Value
	attrs := v.AsValueMap()
	attrs["program"] = cty.StringVal(h.Program)
	attrs["server_id"] = cty.NumberIntVal(h.Server)
	attrs["endpoint"] = cty.StringVal(w.endpoint(h.Value))
	o := &providers.Object{ID: req.ID, Value: cty.ObjectVal(attrs)}
	if !h.Running {
		o.Health = append(o.Health, providers.HealthNotRunning)
	} else if h.Hung {
		o.Health = append(o.Health, providers.HealthNoAnswer)
	}
	if h.Emptied {
		o.Health = append(o.Health, providers.HealthNoData)
	}
	if w.Formed && w.answers() {
		m := w.Members[req.ID]
		if m == nil {
			o.Health = append(o.Health, providers.HealthNotMember)
		} else if m.Server != h.Server {
			o.Health = append(o.Health, providers.HealthServer)
		} else if !m.Voter && m.Spec.Votes > 0 {
			o.Health = append(o.Health, providers.HealthNotCaught)
		}
		if m != nil && m.Spec.Name != h.Value.GetAttr("name").AsString() {
			o.Health = append(o.Health, providers.HealthSettings)
		}
		if m != nil && m.Drain && m.Paused == nil {
			o.Health = append(o.Health, providers.HealthDrained)
		}
	}
	return providers.ReadResponse{Object: o}, nil
}

func (p *hosts) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	call := Call{req.Addr, req.ID, req.Phase}
	if err := w.begin(call); err != nil {
		return providers.ApplyResponse{}, err
	}
	if err := ctx.Err(); err != nil {
		return providers.ApplyResponse{}, err
	}
	if err := w.phase(req); err != nil {
		return providers.ApplyResponse{}, err
	}
	w.place()
	if err := w.end(call); err != nil {
		return providers.ApplyResponse{}, err
	}
	h := w.Hosts[req.ID]
	if h == nil {
		return providers.ApplyResponse{}, nil
	}
	attrs := h.Value.AsValueMap()
	attrs["program"] = cty.StringVal(h.Program)
	attrs["server_id"] = cty.NumberIntVal(h.Server)
	attrs["endpoint"] = cty.StringVal(w.endpoint(h.Value))
	return providers.ApplyResponse{Object: &providers.Object{ID: req.ID, Value: cty.ObjectVal(attrs)}}, nil
}

func (w *World) phase(req providers.ApplyRequest) error {
	h, m := w.Hosts[req.ID], w.Members[req.ID]
	had := w.Quorum()
	switch where := req.Planned; req.Phase {
	case providers.PhaseInstall, providers.PhaseStart, providers.PhaseStop, providers.PhaseRemove:
		if where == cty.NilVal && req.Prior != nil {
			where = req.Prior.Value
		}
		if err := w.reach(where); err != nil {
			return err
		}
		if h != nil && h.Lost {
			return fmt.Errorf("%w: %s: no route to host", providers.ErrUnreachable, req.Addr)
		}
	}
	switch req.Phase {
	case providers.PhaseInstall:
		if h == nil {
			w.made[req.ID]++
			for id, other := range w.Hosts { // a member may give its name up before this one joins
				if !req.Beside && w.Members[id] == nil && other.Value.GetAttr("name").RawEquals(req.Planned.GetAttr("name")) {
					w.violate("%s was made twice: %s and %s", req.Addr, id, req.ID)
				}
			}
			h = &Host{Server: int64(len(w.made) + len(w.Calls))}
			w.Hosts[req.ID] = h
		}
		h.Program, h.Value = w.Program, req.Planned
		return nil
	case providers.PhaseStart:
		if h == nil {
			return fmt.Errorf("%s is not installed", req.Addr)
		}
		if h.Running && h.Hung {
			return fmt.Errorf("%s does not answer", req.Addr)
		}
		h.Running, h.late = true, w.LateUp
		if h.Emptied {
			h.Emptied, h.Server = false, h.Server+1000
		}
		return nil
	case providers.PhaseStop:
		if h != nil && h.Running && h.Emptied && req.ComesBack {
			return fmt.Errorf("the data directory of %s is gone, which the plan did not know", req.Addr)
		}
		if h != nil {
			h.Running, h.Hung = false, false
			w.takeVote(had, req.Addr.String()+" stop")
		}
		return nil
	case providers.PhaseRemove:
		delete(w.Hosts, req.ID)
		if len(w.Hosts) == 0 {
			w.Formed, w.Members, w.Groups = false, map[string]*Member{}, map[string]*Group{}
		}
		return nil
	case providers.PhaseLeave:
		if m == nil {
			return nil
		}
	}
	if err := w.commit(); err != nil {
		return err
	}
	switch req.Phase {
	case providers.PhaseJoin:
		if h == nil || !h.up() {
			return fmt.Errorf("%w: %s does not answer", providers.ErrUnreachable, req.Addr)
		}
		n := w.node(req)
		w.unique(n)
		h.Value = req.Planned
		if m == nil && len(w.Members) > 0 && w.model() == spec.SingleNode {
			w.violate("%s joins a single node's database", req.Addr)
		}
		switch {
		case m == nil:
			w.Members[req.ID] = &Member{Spec: n, Server: h.Server}
		case m.Server != h.Server: // another server, which is no voter before it is promoted
			m.Spec, m.Server, m.Voter = n, h.Server, false
		default:
			m.Spec = n
		}
	case providers.PhasePromote:
		if m == nil {
			return fmt.Errorf("%s is no member", req.Addr)
		}
		m.Voter = w.node(req).Votes > 0
	case providers.PhaseDemote:
		if m == nil {
			return fmt.Errorf("%s is no member", req.Addr)
		}
		m.Spec = w.node(req)
		m.Voter = false
		h.Value = req.Planned
		w.takeVote(had, req.Addr.String()+" demote")
	case providers.PhaseUpdate:
		if m == nil {
			return fmt.Errorf("%s is no member", req.Addr)
		}
		old := m.Spec.Name
		w.unique(w.node(req))
		m.Spec, h.Value = w.node(req), req.Planned
		w.renamed(old, m.Spec.Name, "preferred_owners", "possible_owners")
	case providers.PhaseDrain:
		if m != nil {
			m.Drain = true
		}
	case providers.PhaseResume:
		if m == nil {
			return fmt.Errorf("%s is no member", req.Addr)
		}
		m.Drain = false
	case providers.PhaseLeave:
		delete(w.Members, req.ID)
		w.takeVote(had, req.Addr.String()+" leave")
	}
	return nil
}

// renamed has the groups' lists go with the name of what they name, as the
// database does.
func (w *World) renamed(old, name string, lists ...string) {
	if old == name {
		return
	}
	for _, g := range w.Groups {
		if g.Value == cty.NilVal {
			continue // being born
		}
		attrs := g.Value.AsValueMap()
		for _, list := range lists {
			elems := attrs[list].AsValueSlice()
			for i, e := range elems {
				if e.AsString() == old {
					elems[i] = cty.StringVal(name)
				}
			}
			if len(elems) > 0 {
				attrs[list] = cty.ListVal(elems)
			}
		}
		g.Value = cty.ObjectVal(attrs)
	}
}

// model is the quorum model in the database.
func (w *World) model() spec.QuorumModel {
	var c spec.Cluster
	_ = schema.DecodeKnown(w.Settings, &c)
	return c.Quorum.Model
}

func (w *World) node(req providers.ApplyRequest) spec.Node {
	n := spec.Node{ID: req.ID, Addr: req.Addr, Provider: "local"}
	if err := schema.DecodeKnown(req.Planned, &n); err != nil {
		w.violate("%s: %v", req.Addr, err)
	}
	if req.Beside {
		n.Name = providers.SuccessorName(n.Name, req.ID)
	}
	return n
}

// unique: the database refuses a second node of a name.
func (w *World) unique(n spec.Node) {
	for id, m := range w.Members {
		if id != n.ID && m.Spec.Name == n.Name {
			w.violate("two members are called %s", n.Name)
		}
	}
}
