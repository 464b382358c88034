package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// Lab is the cluster of a definition in virtual time, to which someone does
// things one after the other: faults (lab_faults.go), orders, waits. Nothing else
// goes wrong, and the invariants of Run are watched all the while. The same
// definition, seed and calls give the same answers.
//
// A Lab is not safe for concurrent use.
type Lab struct {
	w      *world
	def    spec.Definition
	clock  time.Time // the time of day at true time 0
	groups map[string]*labGroup
	names  []string        // of the groups, in the definition's order
	loose  map[string]bool // ids of groups that nothing holds whole: two nodes may run them for a while
	origin int64           // true time at which it was formed and at rest
	busyAt int64           // when something changed last
	newest uint64          // revision of the newest state seen
}

// labGroup is what a client sees of a group.
type labGroup struct {
	spec  *spec.Group
	on    *host // runs all of it; nil: nobody does
	since int64 // when on became what it is
	down  int64 // how long nobody ran all of it since the mark, but for the present time
	mark  int64
}

// LabConfig is what a Lab is made from. The zero value of a field means the default.
type LabConfig struct {
	Seed uint64
	// Clock is the time of day at which the cluster has come to rest; zero: noon
	// UTC of the first day of 2026, a few seconds more or less.
	Clock time.Time
}

// quietLimit bounds how long a Lab waits for its cluster to come to rest.
const quietLimit = 5 * time.Minute

// formed is how long a cluster is left alone once it has formed.
const formed = 500 * time.Millisecond

// formLead is how long before its Clock a lab begins to form.
const formLead = time.Minute

// NewLab forms the definition's cluster, puts its groups, all at once, and waits
// until it is at rest.
func NewLab(def spec.Definition, cfg LabConfig) (*Lab, error) {
	l := &Lab{def: def, groups: map[string]*labGroup{}, loose: map[string]bool{}, clock: cfg.Clock.Add(-formLead)}
	if cfg.Clock.IsZero() {
		l.clock = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	}
	l.identify()
	first := slices.IndexFunc(l.def.Nodes, func(n spec.Node) bool { return n.Votes > 0 && !n.Witness() })
	if first < 0 {
		first = slices.IndexFunc(l.def.Nodes, func(n spec.Node) bool { return n.Votes > 0 })
	}
	if first < 0 {
		return nil, fmt.Errorf("no node has a vote, so that no cluster can form")
	}
	// Crashes: no stop hangs by itself.
	l.w = newWorldOf(Config{Seed: cfg.Seed, Nodes: len(l.def.Nodes), Groups: max(len(l.def.Groups), 1), Model: l.def.Cluster.Quorum.Model, Crashes: true}, l)
	if what := l.form(l.w.hosts[first]); what != "" {
		if err := l.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the simulated cluster did not form: %s", what)
	}
	l.Advance(formed)
	if at := l.clock.Add(formLead); !cfg.Clock.IsZero() && l.wall().Before(at) {
		l.Advance(at.Sub(l.wall()))
	}
	l.origin = l.w.now
	l.Mark()
	return l, l.Err()
}

// identify gives ids to what has none yet.
func (l *Lab) identify() {
	id := func(id *string, name string) {
		if *id == "" {
			*id = name
		}
	}
	d := &l.def
	id(&d.Cluster.ID, "sim")
	d.Nodes, d.Groups, d.Fences = slices.Clone(d.Nodes), slices.Clone(d.Groups), slices.Clone(d.Fences)
	for i := range d.Nodes {
		id(&d.Nodes[i].ID, d.Nodes[i].Name)
	}
	for i := range d.Fences {
		id(&d.Fences[i].ID, d.Fences[i].Name)
	}
	for i := range d.Groups {
		g := &d.Groups[i]
		id(&g.ID, g.Name)
		g.Resources = slices.Clone(g.Resources)
		for j := range g.Resources {
			id(&g.Resources[j].ID, g.Name+"."+g.Resources[j].Name)
		}
		l.groups[g.ID] = &labGroup{spec: g}
		l.names = append(l.names, g.ID)
		l.loose[g.ID] = len(g.NotHeld()) > 0
	}
}

// form returns what it could not do, or "".
func (l *Lab) form(first *host) string {
	w := l.w
	if !w.until(func() bool { return w.leader() != nil }, func() {
		if first.agent.m.Status().Driver.Role == confdb.Outside {
			w.ops.membership(first, member.Membership{Op: "bootstrap"}, func(confdb.Result) {})
		}
	}) {
		return "the first node does not lead"
	}
	if !w.put("cluster", confdb.Command{PutCluster: &l.def.Cluster}) || !w.put("node "+first.name, confdb.Command{PutNode: first.node()}) {
		return "the settings are refused"
	}
	for _, h := range w.hosts {
		if h == first {
			continue
		}
		if !w.put("node "+h.name, confdb.Command{PutNode: h.node()}) || !w.join(h) {
			return "node " + h.name + " does not join"
		}
	}
	for i := range l.def.Fences {
		if f := &l.def.Fences[i]; !w.put("fence "+f.Name, confdb.Command{PutFence: f}) {
			return "fence " + f.Name + " is refused"
		}
	}
	if !w.until(l.allUp, func() {}) {
		return "not all nodes come up"
	}
	return l.putGroups()
}

// allUp tells whether every node is a member, in the view, and takes groups.
func (l *Lab) allUp() bool {
	lead := l.w.leader()
	if lead == nil {
		return false
	}
	s := lead.agent.m.State()
	for _, n := range s.Nodes {
		if !n.Joined {
			return false
		}
	}
	for _, h := range l.w.hosts {
		if !h.agent.m.Status().MonitorUp || !h.leased() {
			return false
		}
	}
	return len(s.Nodes) == len(l.w.hosts) && len(s.View.Up) == len(l.w.hosts)
}

// putGroups puts the groups where placement has them start first, all of them at
// once. An apply puts one after the other, and a group that says nothing of its
// owners goes where there is most room at that moment; so each is held to its
// node until all are there.
func (l *Lab) putGroups() string {
	in := placement.Input{}
	for _, n := range l.def.Nodes {
		in.Nodes = append(in.Nodes, placement.Node{Spec: n, Up: true})
	}
	for _, g := range l.def.Groups {
		in.Groups = append(in.Groups, placement.Group{Spec: g})
	}
	var held []spec.Group
	for i, o := range placement.Settle(in) {
		if o.To != "" {
			g := l.def.Groups[i]
			g.PreferredOwners, g.PossibleOwners = nil, []string{o.To}
			held = append(held, g)
		}
	}
	if refused := l.putAll("first", held); refused != "" {
		return refused
	}
	if !l.w.until(func() bool {
		for i := range held {
			if g := l.w.leader(); g == nil || g.agent.m.State().Groups[held[i].ID].State != spec.StateOnline {
				return false
			}
		}
		return true
	}, func() {}) {
		return "not all groups come online"
	}
	return l.putAll("then", l.def.Groups)
}

func (l *Lab) putAll(pass string, groups []spec.Group) string {
	w, n, refused := l.w, 0, ""
	left := map[string]bool{}
	for i := range groups {
		left[groups[i].ID] = true
	}
	ok := w.until(func() bool { return len(left) == 0 || refused != "" }, func() {
		n++
		lead := w.leader()
		if lead == nil || n%20 != 1 {
			return
		}
		for i := range groups {
			g := groups[i]
			if !left[g.ID] {
				continue
			}
			w.ops.submit(lead, confdb.Command{ID: fmt.Sprintf("form group %s %s %d", g.ID, pass, n), PutGroup: &g}, func(r confdb.Result) {
				if r.Code == "" {
					delete(left, g.ID)
				} else {
					refused = fmt.Sprintf("group %s is refused: %s", g.Name, r.Detail)
				}
			})
		}
	})
	if refused == "" && !ok {
		refused = "the groups are not taken"
	}
	return refused
}

// Err is an invariant that was broken: a fault of the runtime's, never of the
// definition's. The Lab stands still then.
func (l *Lab) Err() error {
	if len(l.w.rep.Violations) == 0 {
		return nil
	}
	return fmt.Errorf("the simulation found what must never happen: %s", strings.Join(l.w.rep.Violations, "; "))
}

// Now is how much virtual time has passed since the cluster was at rest first.
func (l *Lab) Now() time.Duration { return time.Duration(l.w.now - l.origin) }

// Advance lets virtual time pass.
func (l *Lab) Advance(d time.Duration) { l.w.runUntil(l.w.now + int64(d)) }

// Quiet is how long nothing may have changed for the cluster to be at rest:
// longer than anything that it may be waiting for after a fault.
func (l *Lab) Quiet() time.Duration {
	t := l.def.Cluster.Timings()
	longest := t.TakeoverWait(t.StopWithin)
	for i := range l.def.Groups {
		g := &l.def.Groups[i]
		for j := range l.def.Nodes {
			longest = max(longest, t.TakeoverWaitWith(g.StopWithin, g.WatchdogOn(&l.def.Nodes[j])))
		}
	}
	return longest + t.DeviceDelay() + t.Suspicion.D() + t.Lease.D() + 300*time.Millisecond
}

// Rest lets time pass until nothing has changed for Quiet: no group, no node, no
// leader. False: it took more than five minutes.
func (l *Lab) Rest() bool {
	quiet := int64(l.Quiet())
	l.busyAt = l.w.now
	for end := l.w.now + int64(quietLimit) + quiet; l.w.now < end && l.Err() == nil; {
		if l.busyAt+quiet <= l.w.now {
			return true
		}
		l.w.runUntil(l.busyAt + quiet)
	}
	return false
}

// Mark begins to count downtimes anew.
func (l *Lab) Mark() {
	for _, g := range l.groups {
		g.mark, g.down = l.w.now, 0
	}
}

// LabGroup is a group as it is now.
type LabGroup struct {
	Name  string
	Owner string        // the node that runs it, in truth; "": nobody
	State string        // spec.State*: online where all of it runs
	Down  time.Duration // how long nobody ran all of it, since Mark
}

// Groups are all groups, in the definition's order.
func (l *Lab) Groups() []LabGroup {
	s := l.state()
	out := make([]LabGroup, 0, len(l.names))
	for _, id := range l.names {
		g := l.groups[id]
		one := LabGroup{Name: g.spec.Name, State: spec.StateOffline, Down: time.Duration(g.down)}
		switch {
		case g.on != nil:
			one.Owner, one.State = g.on.name, spec.StateOnline
		default:
			one.Down += time.Duration(l.w.now - max(g.since, g.mark))
			for _, h := range l.w.hosts {
				if h.serves(id) {
					one.Owner = h.name
				}
			}
			if s != nil && s.Groups[id] != nil && s.Groups[id].State != spec.StateOnline {
				one.State = s.Groups[id].State
			}
		}
		out = append(out, one)
	}
	return out
}

// state is what a node with quorum knows; nil: there is none.
func (l *Lab) state() *confdb.State {
	var newest *confdb.State
	for _, h := range l.w.hosts {
		if h.agent == nil || h.suspended || !h.agent.m.Status().Quorum {
			continue
		}
		if s := h.agent.m.State(); newest == nil || s.Revision > newest.Revision {
			newest = s
		}
	}
	return newest
}

// Quorum tells whether some nodes may run the cluster.
func (l *Lab) Quorum() bool { return l.state() != nil }

// Order gives an operator's order, and waits for its answer: refused is why it
// was not taken. Without an answer within ten seconds it is refused as well.
func (l *Lab) Order(c confdb.Command) (refused string) {
	w := l.w
	c.Author = "scenario"
	h := w.leader()
	for _, o := range w.hosts {
		if h == nil && o.agent != nil && !o.suspended {
			h = o
		}
	}
	if h == nil {
		return "no node runs that could take the order"
	}
	answered := false
	w.ops.submit(h, c, func(r confdb.Result) {
		answered = true
		if r.Code != "" {
			if refused = r.Detail; refused == "" {
				refused = r.Code
			}
		}
	})
	for end := w.now + int64(10*time.Second); !answered && w.now < end && l.Err() == nil; {
		w.runUntil(w.now + int64(time.Millisecond))
	}
	if !answered {
		return "nobody answers: there is no quorum"
	}
	return refused
}

// Term is the newest one that a leader was elected in: how much it grows is how
// many elections there were, those that nobody won among them.
func (l *Lab) Term() uint64 { return l.w.check.topTerm }

// timings, wall and location are what an agent is told at its start; of no lab,
// nothing.
func (l *Lab) timings() spec.Timings {
	if l == nil {
		return spec.Timings{}
	}
	return l.def.Cluster.Timings()
}

func (l *Lab) wall() time.Time {
	if l == nil || l.w == nil {
		return time.Time{}
	}
	return l.clock.Add(time.Duration(l.w.now))
}

func (l *Lab) location() func(string) (*time.Location, error) {
	if l == nil {
		return nil
	}
	return time.LoadLocation
}

// open tells whether two nodes may run a group for a while, which the plan says
// of it as well.
func (l *Lab) open(group string) bool { return l != nil && l.loose[group] }

// look notes who runs all of a group now.
func (l *Lab) look(id string) {
	if l == nil || l.groups[id] == nil {
		return
	}
	g := l.groups[id]
	if len(g.spec.Resources) == 0 {
		return // noted
	}
	l.busyAt = l.w.now
	var on *host
	for _, h := range l.w.hosts {
		if !h.suspended && l.whole(h, g.spec) {
			on = h
		}
	}
	l.serves(g, on)
}

func (l *Lab) lookAll() {
	if l != nil {
		for _, id := range l.names {
			l.look(id)
		}
	}
}

func (l *Lab) whole(h *host, g *spec.Group) bool {
	for i := range g.Resources {
		if t, ok := h.kernel.running[g.ID][g.Resources[i].Name]; !ok || !t.up {
			return false
		}
	}
	return true
}

func (l *Lab) serves(g *labGroup, on *host) {
	if on == g.on {
		return
	}
	if g.on == nil {
		g.down += l.w.now - max(g.since, g.mark)
	}
	g.on, g.since = on, l.w.now
}

// noted is a state of the database that some node sees.
func (l *Lab) noted(s *confdb.State) {
	if l == nil || s.Revision <= l.newest {
		return
	}
	l.newest, l.busyAt = s.Revision, l.w.now
	for _, id := range l.names {
		g, at := l.groups[id], s.Groups[id]
		if len(g.spec.Resources) > 0 || at == nil {
			continue // what runs of it is seen
		}
		var on *host
		if at.State == spec.StateOnline {
			on = l.w.hostOf(at.Owner.Node)
		}
		l.serves(g, on)
	}
}

// started notes that a resource's start is over.
func (h *host) started(group, resource string) {
	t, ok := h.kernel.running[group][resource]
	if h.w.lab == nil || !ok {
		return
	}
	t.up = true
	h.kernel.running[group][resource] = t
	h.w.lab.look(group)
}

// Story is what happened lately, for a person who looks for a fault of the runtime's.
func (l *Lab) Story() []string { return l.w.story.render(l.w) }
