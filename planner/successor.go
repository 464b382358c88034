package planner

import (
	"fmt"
	"maps"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// A node that is made anew joins before the one whose place it takes leaves. From
// there on the two are two objects: the new one has the address, the old one is
// deposed, as Terraform has it, and has an address of its own until it is gone.
// The state learns of that before anything is done, so that an apply that is cut
// off anywhere leaves a node to be finished and a node to be deleted.

// depose splits the nodes that are made anew, and finds for each node whose
// places it takes.
func (b *builder) depose() {
	if b.destroy {
		return
	}
	if len(b.swapped) == 0 {
		b.atOnePlace()
	}
	for _, m := range b.swapped {
		if it := b.at.At(m.To); it != nil && m.To.Deposed() != "" {
			it.change.Why = []string{fmt.Sprintf("an apply that was cut off was to put it in the place of %s, which has the address and port again that it has still, and stays", m.To.Current())}
		}
	}
	for _, it := range slices.Clone(b.items) {
		if it.addr().Type != addr.TypeNode || it.left || it.change.Action() != "replace" {
			continue
		}
		why, both := b.bothUp(it)
		if both && b.comesBack(it) { // the new one has its place only after that
			why, both = "", false
		}
		if both {
			b.split(it)
		} else if why != "" {
			it.change.Why = append(it.change.Why, why)
		}
	}
	for _, it := range b.items {
		if it.addr().Deposed() == "" || it.left || it.change.Action() != "delete" {
			continue
		}
		if next := b.at.At(it.addr().Current()); next != nil && next.want != nil && !next.left {
			b.deposed[next] = append(b.deposed[next], it)
		}
	}
}

// atOnePlace: a definition that was put back, after an apply that was cut off, has a
// node listen where one does that another was begun to take the place of. That one
// stays then, and has its address again; the other one leaves in its stead.
func (b *builder) atOnePlace() {
	for _, gone := range b.items {
		next := b.at.At(gone.addr().Current())
		if gone.addr().Deposed() == "" || gone.left || gone.change.Action() != "delete" || gone.prior == nil || b.member(gone.id) == nil && b.down(gone) ||
			next == nil || next.want == nil || next.left || next.change.Action() != "create" && next.change.Action() != "replace" {
			continue
		}
		was, is := unmark(attribute(gone.prior.Value, "endpoint")), unmark(attribute(next.change.After, "endpoint"))
		if isAbsent(was) || isAbsent(is) || !was.IsKnown() || !is.IsKnown() || !was.RawEquals(is) {
			continue
		}
		b.back = append(b.back, statefile.Move{From: gone.addr(), To: next.addr()})
		if next.id != "" {
			b.back = append(b.back, statefile.Move{From: next.addr(), To: next.addr().Depose(next.id)})
		}
	}
}

// putBack is the input once the moves are done.
func (in Input) putBack(moves []statefile.Move) Input {
	in.State, in.Pending = statefile.Relabel(in.State, in.Pending, moves)
	objects := maps.Clone(in.World.Objects)
	for _, m := range moves {
		delete(objects, m.From)
	}
	for _, m := range moves {
		if seen, looked := in.World.Objects[m.From]; looked {
			objects[m.To] = seen
		}
	}
	in.World.Objects = objects
	return in
}

// bothUp tells whether a node's successor can be up while the node is; else why
// not, where a person would ask.
func (b *builder) bothUp(it *item) (string, bool) {
	live := b.in.World.Live
	if b.fresh || live == nil || it.old == nil || it.prior == nil || b.after.Cluster.Quorum.Model == spec.SingleNode || b.member(it.id) == nil {
		return "", false // it has no place that somebody could take beside it
	}
	was, is := unmark(attribute(it.prior.Value, "endpoint")), unmark(attribute(it.change.After, "endpoint"))
	if !isAbsent(was) && !isAbsent(is) && was.IsKnown() && is.IsKnown() && was.RawEquals(is) {
		return fmt.Sprintf("it leaves before the new one joins: both would listen on %s", was.AsString()), false
	}
	return "", true
}

// member is what the cluster knows of a node; nil: it is no member.
func (b *builder) member(id string) *providers.LiveMember {
	live := b.in.World.Live
	if live == nil || id == "" {
		return nil
	}
	i := slices.IndexFunc(live.Members, func(m providers.LiveMember) bool { return m.Spec.ID == id })
	if i < 0 {
		return nil
	}
	return &live.Members[i]
}

// split makes two items of a node that is made anew. The plan tells of both as one
// change.
func (b *builder) split(it *item) {
	a := it.addr().Depose(it.id)
	old := *it.old
	old.Addr = a
	gone := *it
	gone.old, gone.want, gone.phases, gone.moves, gone.instead = &old, nil, nil, false, true
	c := it.change
	gone.change = &Change{Address: a, Type: c.Type, Actions: ActionDelete, Reason: c.Reason, Before: c.Before, Phases: it.remove, Why: c.Why}
	b.items = append(b.items, &gone)
	b.at.Put(&gone)
	if p := b.pending[it.addr()]; p != nil {
		b.pending[a] = p
		delete(b.pending, it.addr())
	}
	b.deposes = append(b.deposes, statefile.Move{From: it.addr(), To: a})
	it.old, it.prior, it.id, it.remove, it.applied, it.knownAs = nil, nil, "", nil, cty.NilVal, nil
	it.silent, it.partial, it.moves, it.instead = false, false, false, true
	c.Actions = ActionCreateThenDelete
}

// succeeds adds to the units of a node that takes another one's place the last
// one: it gets its name, which the cluster knows only one node by, once the other
// one has left.
func (o *orderer) succeeds(it *item) {
	if len(o.deposed[it]) == 0 || it.want == nil {
		return
	}
	for _, stage := range []Stage{StageUp, StageJoin, StageRoll} {
		if u := o.units[Key{it.addr(), stage}]; u != nil {
			u.Last, u.Beside = false, true
		}
	}
	u := o.add(it, StageName)
	u.Phases, u.Remove = []string{providers.PhaseUpdate}, nil
	if u.Action == "replace" { // the unit before it took the old one away, and made this one
		u.anew()
	}
	o.names = append(o.names, u)
	if it.instead {
		it.change.Phases = slices.Concat(it.phases, o.deposed[it][0].remove, u.Phases)
	}
}

// rollDeposed has nodes whose places others take leave among the rolling changes,
// one batch after the other and before any group changes. It tells whether there
// are any.
func (o *orderer) rollDeposed() bool {
	n := len(o.leaves)
	o.leaves = slices.DeleteFunc(o.leaves, func(u *Unit) bool {
		if o.nameAfter(u) == nil {
			return false
		}
		o.rolls = append(o.rolls, u)
		return true
	})
	return len(o.leaves) < n
}

// nameAfter is the unit that gives a leaving node's name to its successor; nil:
// it has none.
func (o *orderer) nameAfter(leave *Unit) *Unit {
	if leave.Key.Addr.Deposed() == "" || leave.Action != "delete" {
		return nil
	}
	return o.units[Key{leave.Key.Addr.Current(), StageName}]
}

// nameTurns says when a node gets the name of those whose place it takes: once all
// of them have left, and where it is rolled itself, after that too.
func (o *orderer) nameTurns(batches [][]*Unit) {
	o.named = make([][]*Unit, len(batches)+1)
	for _, n := range o.names {
		turn := 0
		for i, batch := range batches {
			if slices.ContainsFunc(batch, func(u *Unit) bool { return u.Key.Addr.Current() == n.Key.Addr }) {
				turn = i + 1
			}
		}
		o.named[turn] = append(o.named[turn], n)
	}
}

// nameEdges: a node leaves once its successor has joined, and that gets its name
// once it has left, and whoever was taken out with it is back: so the plan has it.
func (o *orderer) nameEdges(batches [][]*Unit) {
	for i, batch := range batches {
		for _, n := range o.named[i+1] {
			for _, u := range batch {
				if u.Key != n.Key {
					o.g.AddEdge(n.Key, u.Key, graph.Soft)
				}
			}
		}
	}
	for _, u := range o.names {
		o.needQuorum(u.Key)
		for _, stage := range []Stage{StageUp, StageJoin, StageRoll} {
			own := o.units[Key{u.Key.Addr, stage}]
			if own == nil {
				continue
			}
			o.g.AddEdge(u.Key, own.Key, graph.Hard)
			for _, d := range o.deposed[o.at.At(u.Key.Addr)] {
				if leave := o.units[Key{d.addr(), StageLeave}]; leave != nil && stage != StageRoll {
					o.g.AddEdge(leave.Key, own.Key, graph.Hard)
				}
			}
		}
		for _, d := range o.deposed[o.at.At(u.Key.Addr)] {
			if leave := o.units[Key{d.addr(), StageLeave}]; leave != nil {
				o.g.AddEdge(u.Key, leave.Key, graph.Hard)
			}
		}
		o.mark(markRolled)
		o.g.AddEdge(markRolled, u.Key, graph.Soft)
	}
}

// succession is a node's place in the failover of groups while another one takes it.
type succession struct {
	leaves     addr.Address
	name, next string // of the node, and of its successor until it has left
	to         *spec.Node
}

// successions are those of a plan, by the address under which a node leaves.
func (b *builder) successions() map[addr.Address]succession {
	out := map[addr.Address]succession{}
	for _, it := range b.items {
		for _, d := range b.deposed[it] {
			m := b.member(d.id)
			i := slices.IndexFunc(b.after.Nodes, func(n spec.Node) bool { return n.Addr == it.addr() })
			if m == nil || i < 0 {
				continue
			}
			s := succession{leaves: d.addr(), name: m.Spec.Name, to: &b.after.Nodes[i]}
			s.next = providers.SuccessorName(s.to.Name, it.id)
			if next := b.member(it.id); next != nil {
				s.next = next.Spec.Name
			}
			out[d.addr()] = s
		}
	}
	return out
}

// nameOf is what the cluster calls a unit's node.
func (v *voyage) nameOf(u *Unit) string {
	if s, ok := v.heirs[u.Key.Addr]; ok {
		return s.name
	}
	for _, s := range v.heirs {
		if u.Beside && s.to.Addr == u.Key.Addr {
			return s.next
		}
	}
	return nameOf(u)
}

// passed has the nodes whose places others take be gone with their units, and
// those others go on under their names once it is their turn.
func (v *voyage) passed(units, rolls []*Unit) {
	for _, u := range units {
		v.done[u.Key.Addr] = true
		if s, ok := v.heirs[u.Key.Addr]; ok {
			v.part(s)
		}
	}
	for _, s := range v.heirs {
		waits := slices.ContainsFunc(rolls, func(u *Unit) bool { return u.Key.Addr == s.to.Addr && !v.done[u.Key.Addr] })
		for leaves, other := range v.heirs {
			waits = waits || other.to == s.to && !v.done[leaves]
		}
		if !waits {
			v.succeed(s)
		}
	}
}

// part has a node that has left be gone.
func (v *voyage) part(s succession) {
	def := &v.scene.def
	def.Nodes = slices.DeleteFunc(slices.Clone(def.Nodes), func(n spec.Node) bool { return n.Name == s.name })
	for name, owner := range v.scene.owner {
		if owner == s.name { // freed as the node left
			delete(v.scene.owner, name)
		}
	}
	maps.DeleteFunc(v.scene.home, func(_, home string) bool { return home == s.name })
	for _, state := range []map[string]bool{v.scene.up, v.scene.paused, v.scene.drain} {
		delete(state, s.name)
	}
}

// succeed has a node that took another one's place go on under its name.
func (v *voyage) succeed(s succession) {
	def := &v.scene.def
	for name, owner := range v.scene.owner {
		if owner == s.next {
			v.scene.owner[name] = s.to.Name
		}
	}
	for name, home := range v.scene.home {
		if home == s.next {
			v.scene.home[name] = s.to.Name
		}
	}
	for i := range def.Nodes {
		if def.Nodes[i].Name == s.next {
			def.Nodes[i] = *s.to
		}
	}
	for _, state := range []map[string]bool{v.scene.up, v.scene.paused, v.scene.drain} {
		if is, ok := state[s.next]; ok {
			delete(state, s.next)
			state[s.to.Name] = is
		}
	}
	for _, t := range v.trips {
		for _, name := range []*string{&t.from, &t.to} {
			if *name == s.next {
				*name = s.to.Name
			}
		}
	}
}
