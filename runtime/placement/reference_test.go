package placement

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// reference is Settle in plain words, without anything prepared or remembered:
// names and maps, and every question asked anew.
type reference struct {
	nodes  []Node
	groups []Group
	at     map[string]string // group -> node
	done   map[string]bool
	out    map[string]*Outcome
}

func (r *reference) node(name string) *Node {
	for i := range r.nodes {
		if r.nodes[i].Spec.Name == name {
			return &r.nodes[i]
		}
	}
	return nil
}

func (r *reference) group(name string) *Group {
	for i := range r.groups {
		if r.groups[i].Spec.Name == name {
			return &r.groups[i]
		}
	}
	return nil
}

func settleReference(in Input) []Outcome {
	r := &reference{nodes: slices.Clone(in.Nodes), groups: in.Groups, at: map[string]string{}, done: map[string]bool{}, out: map[string]*Outcome{}}
	slices.SortFunc(r.nodes, func(a, b Node) int { return addr.Compare(a.Spec.Addr, b.Spec.Addr) })
	for i := range r.groups {
		g := &r.groups[i]
		r.out[g.Spec.Name] = &Outcome{Group: g.Spec.Name, From: g.Owner}
		if n := r.node(g.Owner); n != nil && n.Up && wantedOnline(g) {
			r.at[g.Spec.Name] = g.Owner
		}
	}
	order := slices.Clone(r.groups)
	slices.SortStableFunc(order, func(a, b Group) int {
		return cmp.Or(cmp.Compare(r.rank(&b), r.rank(&a)), cmp.Compare(r.depth(&a), r.depth(&b)),
			cmp.Compare(b.Spec.Priority, a.Spec.Priority), addr.Compare(a.Spec.Addr, b.Spec.Addr))
	})
	for moved := true; moved; {
		moved = false
		for i := range order {
			if g := &order[i]; !r.done[g.Spec.Name] && r.settle(g) {
				moved = true
			}
		}
	}
	var out []Outcome
	for _, g := range in.Groups {
		o := r.out[g.Spec.Name]
		o.To = r.at[g.Spec.Name]
		out = append(out, *o)
	}
	return out
}

func wantedOnline(g *Group) bool {
	return g.Want == spec.WantOnline || g.Want == "" && g.Spec.PersistentState != spec.WantOffline
}

// rank is the highest priority of a group and those that depend on it.
func (r *reference) rank(g *Group) int {
	rank := g.Spec.Priority
	for i := range r.groups {
		if d := &r.groups[i]; slices.Contains(d.Spec.DependsOn, g.Spec.Name) {
			rank = max(rank, r.rank(d))
		}
	}
	return rank
}

func (r *reference) depth(g *Group) int {
	depth := 0
	for _, name := range g.Spec.DependsOn {
		depth = max(depth, r.depth(r.group(name))+1)
	}
	return depth
}

func (r *reference) used(node, what string) (sum int64) {
	for name, at := range r.at {
		if at == node {
			sum += r.group(name).Spec.Demand[what]
		}
	}
	return sum
}

func (r *reference) hasRoom(g *Group, n *Node) bool {
	for what, d := range g.Spec.Demand {
		if c, stated := n.Spec.Capacity[what]; d > 0 && stated && r.used(n.Spec.Name, what)+d > c {
			return false
		}
	}
	return true
}

func (r *reference) meets(g *Group, n *Node, soft bool) bool {
	for i := range r.groups {
		o := &r.groups[i]
		mine, theirs := g.Spec.KeepApart, o.Spec.KeepApart
		if soft {
			mine, theirs = g.Spec.KeepApartSoft, o.Spec.KeepApartSoft
		}
		if o.Spec.Name != g.Spec.Name && r.at[o.Spec.Name] == n.Spec.Name && (slices.Contains(mine, o.Spec.Name) || slices.Contains(theirs, g.Spec.Name)) {
			return true
		}
	}
	return false
}

func (r *reference) fits(g *Group, n *Node) (int, string) {
	switch {
	case !n.Up || n.Paused || n.Quarantined || n.Drained || !g.Spec.MayOwn(n.Spec):
		return 0, WhyNoNode
	case !r.hasRoom(g, n):
		return 0, WhyNoRoom
	case r.meets(g, n, false):
		return 0, WhyApart
	}
	return r.tier(g, n), ""
}

func (r *reference) tier(g *Group, n *Node) int {
	tier := 0
	if n.Spec.Spare {
		tier = 2
	}
	if r.meets(g, n, true) {
		tier++
	}
	return tier
}

// candidates are the preferred owners in order and the others by node order;
// but for a first start and a move from behind the present owner on, round and
// round.
func (r *reference) candidates(g *Group, reason string) []string {
	var ring []string
	add := func(name string) {
		if n := r.node(name); n != nil && g.Spec.MayOwn(n.Spec) && !slices.Contains(ring, name) {
			ring = append(ring, name)
		}
	}
	for _, name := range g.Spec.PreferredOwners {
		add(name)
	}
	for i := range r.nodes {
		add(r.nodes[i].Spec.Name)
	}
	if reason == WhyFirstStart {
		return ring
	}
	present := cmp.Or(g.Owner, g.Last)
	i := slices.Index(ring, present)
	if i < 0 {
		return ring
	}
	if reason == WhyMove && g.Owner != "" {
		return slices.Concat(ring[:i], ring[i+1:])
	}
	next := slices.Concat(ring[i+1:], ring[:i])
	if g.Owner == "" || reason == WhyShed {
		next = append(next, present)
	}
	return next
}

func (r *reference) choose(g *Group, reason string) (string, string) {
	here := r.at[g.Spec.Name]
	delete(r.at, g.Spec.Name)
	defer func() {
		if here != "" {
			r.at[g.Spec.Name] = here
		}
	}()
	obstacles := []string{WhyNoNode, WhyNoRoom, WhyApart}
	why := 0
	type place struct {
		node string
		tier int
	}
	var places []place
	list := r.candidates(g, reason)
	if reason == WhyFailback {
		list = slices.DeleteFunc(slices.Clone(g.Spec.PreferredOwners), func(n string) bool { return r.node(n) == nil || !g.Spec.MayOwn(r.node(n).Spec) })
		if len(list) == 0 && g.Home != "" && r.node(g.Home) != nil && g.Spec.MayOwn(r.node(g.Home).Spec) {
			list = []string{g.Home}
		}
		if i := slices.Index(list, here); i >= 0 {
			list = list[:i]
		}
	}
	for _, name := range list {
		tier, not := r.fits(g, r.node(name))
		if not != "" {
			why = max(why, slices.Index(obstacles, not))
		} else if reason == WhyFailback {
			if tier <= r.tier(g, r.node(here)) {
				return name, WhyFailback
			}
		} else {
			places = append(places, place{name, tier})
		}
	}
	if len(places) == 0 {
		return "", obstacles[why]
	}
	free := len(g.Spec.PreferredOwners) == 0 || !slices.ContainsFunc(g.Spec.PreferredOwners, func(n string) bool { return r.node(n) != nil && g.Spec.MayOwn(r.node(n).Spec) })
	slices.SortStableFunc(places, func(a, b place) int {
		if a.tier != b.tier || !free {
			return cmp.Compare(a.tier, b.tier)
		}
		return cmp.Or(cmp.Compare(r.room(g, b.node), r.room(g, a.node)), cmp.Compare(r.count(a.node), r.count(b.node)), cmp.Compare(a.node, b.node))
	})
	return places[0].node, reason
}

// room in millionths, rounded down.
func (r *reference) room(g *Group, node string) int64 {
	n, least := r.node(node), int64(1_000_000)
	for what, d := range g.Spec.Demand {
		if c, stated := n.Spec.Capacity[what]; stated && d > 0 && c > 0 {
			least = min(least, max(c-r.used(node, what)-d, 0)*1_000_000/c)
		}
	}
	return least
}

func (r *reference) count(node string) (n int) {
	for _, at := range r.at {
		if at == node {
			n++
		}
	}
	return n
}

func (r *reference) dependenciesOnline(g *Group) bool {
	for _, name := range g.Spec.DependsOn {
		if r.at[name] == "" || r.out[name].State != spec.StateOnline {
			return false
		}
	}
	return true
}

func (r *reference) settle(g *Group) bool {
	name, o := g.Spec.Name, r.out[g.Spec.Name]
	rest := func(state, why string) bool {
		r.done[name], o.State, o.Why = true, state, why
		return false
	}
	here, mode := r.at[name], g.Spec.Failover.Mode
	if !wantedOnline(g) {
		return rest(spec.StateOffline, WhyOffline)
	}
	if g.LeftFailed {
		return rest(spec.StateFailed, WhyLeftFailed)
	}
	if o.Why == WhyShed {
		return r.start(g, WhyShed)
	}
	if here != "" && !g.Failed {
		return r.leave(g)
	}
	if here != "" && mode == spec.FailoverNone {
		return rest(spec.StateFailed, WhyNoFailover)
	}
	if here != "" && mode == spec.FailoverManual {
		return rest(spec.StateFailed, WhyManual)
	}
	if here == "" && g.Owner != "" && mode == spec.FailoverNone {
		return rest(spec.StateOffline, WhyNoFailover)
	}
	if here == "" && g.Owner != "" && mode == spec.FailoverManual && !g.Move {
		return rest(spec.StateOffline, WhyManual)
	}
	if g.Owner == "" && g.Spec.Priority == 0 && !g.Asked {
		return rest(spec.StateOffline, WhyPriorityZero)
	}
	if g.Owner == "" && g.Last == "" {
		return r.start(g, WhyFirstStart)
	}
	return r.start(g, WhyFailover)
}

func (r *reference) leave(g *Group) bool {
	name := g.Spec.Name
	here, o := r.at[name], r.out[name]
	o.State, o.Why = spec.StateOnline, WhyStays
	var reason string
	switch {
	case !g.Spec.MayOwn(r.node(here).Spec):
		reason = WhyNotPossible
	case g.Move:
		reason = WhyMove
	case r.node(here).Drained && g.Spec.Failover.Mode != spec.FailoverNone:
		reason = WhyDrain
	case g.Failback:
		reason = WhyFailback
	default:
		return false
	}
	if !r.dependenciesOnline(g) {
		return false
	}
	to := ""
	if reason == WhyMove && g.MoveTo != "" {
		to = r.asOrdered(g)
	} else {
		to, _ = r.choose(g, reason)
	}
	if to == "" && g.Move && reason == WhyMove && r.node(here).Drained && g.Spec.Failover.Mode != spec.FailoverNone {
		reason = WhyDrain
		to, _ = r.choose(g, reason)
	}
	if to == "" && (reason == WhyDrain || reason == WhyNotPossible) {
		to = r.shed(g, reason)
	}
	if to == "" {
		return false
	}
	r.at[name], r.done[name], o.Why = to, true, reason
	return true
}

// asOrdered is where an operator wants it, if that is possible.
func (r *reference) asOrdered(g *Group) string {
	n, here := r.node(g.MoveTo), r.at[g.Spec.Name]
	if n == nil || here == g.MoveTo {
		return ""
	}
	if _, not := r.fits(g, n); not != "" {
		return ""
	}
	return g.MoveTo
}

func (r *reference) start(g *Group, reason string) bool {
	name := g.Spec.Name
	o := r.out[name]
	o.State = spec.StateOffline
	if r.at[name] != "" {
		o.State = spec.StateFailed
	}
	why := reason
	if !r.dependenciesOnline(g) {
		if reason != WhyShed {
			o.Why = WhyDependency
		}
		return false
	}
	to := ""
	if g.Move && g.MoveTo != "" {
		to = r.asOrdered(g)
	}
	if to == "" {
		to, why = r.choose(g, reason)
	}
	if to == "" {
		if to = r.shed(g, reason); to != "" {
			why = reason
		}
	}
	if reason != WhyShed {
		o.Why = why
	}
	if to == "" {
		return false
	}
	r.at[name], r.done[name], o.State = to, true, spec.StateOnline
	return true
}

func (r *reference) shed(g *Group, reason string) string {
	for _, name := range r.candidates(g, reason) {
		n := r.node(name)
		if _, not := r.fits(g, n); not != WhyNoRoom || r.meets(g, n, false) {
			continue
		}
		var lower []*Group
		for i := range r.groups {
			if o := &r.groups[i]; r.at[o.Spec.Name] == name && r.rank(o) < r.rank(g) && o.Spec.Name != g.Spec.Name {
				lower = append(lower, o)
			}
		}
		slices.SortFunc(lower, func(a, b *Group) int {
			return cmp.Or(cmp.Compare(r.rank(a), r.rank(b)), cmp.Compare(a.Spec.Name, b.Spec.Name))
		})
		var lifted []*Group
		for _, o := range lower {
			if r.hasRoom(g, n) {
				break
			}
			delete(r.at, o.Spec.Name)
			lifted = append(lifted, o)
		}
		enough := r.hasRoom(g, n)
		for _, o := range lifted {
			r.at[o.Spec.Name] = name
			if enough && !r.hasRoom(g, n) {
				delete(r.at, o.Spec.Name)
				r.done[o.Spec.Name] = false
				r.out[o.Spec.Name].State, r.out[o.Spec.Name].Why = spec.StateOffline, WhyShed
			}
		}
		if enough {
			return name
		}
	}
	return ""
}

// What is prepared and remembered (rings, ranks, who is where) changes no
// answer, nor does it when a board is asked again about a changed cluster.
func TestSettleIsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		board := Compile(Input{Nodes: in.Nodes, Groups: slices.Clone(in.Groups)})
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			got, want := board.Settle(), settleReference(in)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("got  %s\nwant %s\nof %+v", text(got), text(want), in)
			}
			nodes, groups := slices.Clone(in.Nodes), slices.Clone(in.Groups)
			in = Input{Nodes: nodes, Groups: groups}
			for i := range nodes {
				if rapid.Bool().Draw(t, "turn") {
					nodes[i].Up = !nodes[i].Up
				}
				*board.Node(i) = nodes[i]
			}
			for i, o := range got {
				groups[i].Owner, groups[i].Failed = o.To, rapid.IntRange(0, 4).Draw(t, "fails") == 0
				*board.Group(i) = groups[i]
			}
		}
	})
}
