package planner

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// settings works out the cluster before and after as spec's types.
func (b *builder) settings() {
	live := b.in.World.Live
	b.unmade = b.in.State.Cluster == nil || b.at.At(addr.Cluster()) == nil || b.at.At(addr.Cluster()).change.Action() == "create"
	formed := live != nil && slices.ContainsFunc(live.Members, func(m providers.LiveMember) bool { return m.State == "voter" })
	b.fresh = b.unmade && !formed
	switch {
	case live != nil:
		b.before.Cluster = live.Cluster
		for _, m := range live.Members {
			b.before.Nodes = append(b.before.Nodes, m.Spec)
		}
		b.before.Groups = make([]spec.Group, len(live.Groups))
		for i := range live.Groups {
			b.before.Groups[i] = live.Groups[i].Spec
		}
	case !b.fresh:
		b.before = b.fromState()
	}
	b.leftAsFound()
	b.plan.Cluster = b.after.Cluster.Name
	if b.plan.Cluster == "" && b.in.State.Cluster != nil {
		b.plan.Cluster = b.in.State.Cluster.Name
	}
}

// fromState is the cluster as the state has it, for when nobody answers.
func (b *builder) fromState() spec.Definition {
	var def spec.Definition
	groups := map[addr.Address]int{}
	for _, it := range b.items {
		if it.old == nil {
			continue
		}
		v := b.attributes(it)
		if v == cty.NilVal {
			continue
		}
		switch {
		case it.addr().IsResource():
			if i, ok := groups[it.addr().Owner()]; ok {
				def.Groups[i].Resources = append(def.Groups[i].Resources, spec.Resource{ID: it.old.ID, Addr: it.addr(), Type: it.old.Type})
			}
		case it.addr().Type == addr.TypeCluster:
			_ = schema.DecodeKnown(v, &def.Cluster)
		case it.addr().Type == addr.TypeNode:
			n := spec.Node{ID: it.old.ID, Addr: it.addr(), Provider: it.old.Provider}
			if schema.DecodeKnown(v, &n) == nil {
				def.Nodes = append(def.Nodes, n)
			}
		case it.addr().Type == addr.TypeFence:
			f := spec.Fence{ID: it.old.ID, Addr: it.addr()}
			if schema.DecodeKnown(v, &f) == nil {
				def.Fences = append(def.Fences, f)
			}
		case it.addr().Type == addr.TypeGroup:
			g := spec.Group{ID: it.old.ID, Addr: it.addr()}
			if schema.DecodeKnown(v, &g) == nil {
				groups[it.addr()] = len(def.Groups)
				def.Groups = append(def.Groups, g)
			}
		}
	}
	return def
}

// world tells what the cluster is doing by itself, and what faults do to it.
func (b *builder) world() {
	p, live := b.plan, b.in.World.Live
	if live == nil {
		if b.in.World.LiveErr != "" && !b.fresh {
			p.Complete = false
			p.AsOf = &AsOf{Text: "no agent can tell; what the last apply left is taken for the cluster's configuration"}
			if !b.destroy {
				b.diags = append(b.diags, problem(hcl.DiagWarning, "The cluster can't be seen", Sentence(b.in.World.LiveErr)))
			}
		}
	} else {
		p.ConfigRevision = live.ConfigRevision
		if !live.Quorum {
			p.Complete = false
			p.AsOf = &AsOf{Revision: live.Revision, Text: fmt.Sprintf("as of revision %d, no quorum", live.Revision)}
		}
		b.operators(live)
		b.strangers(live)
		b.namesTaken(live)
	}
	if b.destroy {
		return
	}
	b.leftBehind()
	p.FailoverTimes = failoverTimes(b.after)
	after := b.sceneOf(b.after, true).board()
	p.FailureMatrix.After = after.matrix(b.in.Pairs)
	b.guarantees(after)
	switch {
	case b.fresh:
	case !p.Summary.Any():
		p.FailureMatrix.Before = p.FailureMatrix.After
		sinceBefore(p.FailoverTimes, p.FailoverTimes)
	default:
		sinceBefore(p.FailoverTimes, failoverTimes(b.before))
		p.FailureMatrix.Before = b.sceneOf(b.before, false).board().matrix(b.in.Pairs)
	}
	p.FailureMatrix.Regressions = regressions(p.FailureMatrix.Before, p.FailureMatrix.After)
}

// sceneOf is def with the owners and operators' orders of now. Once the apply
// is done every node is up; before, only those that are.
func (b *builder) sceneOf(def spec.Definition, done bool) *scene {
	s := &scene{def: def, owner: map[string]string{}, paused: map[string]bool{}, drain: map[string]bool{}, want: map[string]string{}}
	live := b.in.World.Live
	if live == nil {
		return s
	}
	if !done {
		s.up = map[string]bool{}
	}
	names := make(map[string]string, len(live.Members))
	now := make(map[addr.Address]string, len(def.Nodes)) // today's name may be another one
	for _, n := range def.Nodes {
		now[n.Addr] = n.Name
	}
	for _, m := range live.Members {
		if done && m.Spec.Addr.Deposed() != "" {
			continue // another node has its place and its name by then
		}
		name := m.Spec.Name
		if n, ok := now[m.Spec.Addr]; ok {
			name = n
		}
		names[m.Spec.ID] = name
		s.paused[name] = m.Paused != nil
		s.drain[name] = m.Drained
		if !done {
			s.up[name] = m.Node == spec.NodeUp || m.Node == spec.NodePaused
		}
	}
	groups := make(map[addr.Address]string, len(def.Groups))
	for _, g := range def.Groups {
		groups[g.Addr] = g.Name
	}
	for _, g := range live.Groups {
		name, ok := groups[g.Spec.Addr]
		if !ok {
			continue
		}
		if owner := names[g.Owner]; owner != "" {
			s.owner[name] = owner
		}
		if g.WantBy != nil {
			s.want[name] = g.Want
		}
	}
	return s
}

// operators lists the orders that hold. They are kept.
func (b *builder) operators(live *providers.Live) {
	out := []Operator{}
	add := func(a addr.Address, order string, o *providers.Order) {
		out = append(out, Operator{Address: a, Order: order, To: o.To, Author: o.Author, Reason: o.Reason, Time: o.Time})
	}
	for _, m := range live.Members {
		if m.Paused != nil {
			order := "pause"
			if m.Drained {
				order = "drain"
			}
			add(m.Spec.Addr, order, m.Paused)
		}
	}
	for _, g := range live.Groups {
		if g.WantBy != nil {
			add(g.Spec.Addr, g.Want, g.WantBy)
		}
		if g.Move != nil {
			add(g.Spec.Addr, "move", g.Move)
		}
	}
	slices.SortStableFunc(out, func(x, y Operator) int { return addr.Compare(x.Address, y.Address) })
	b.plan.Operator = out
}

// strangers lists what others made in the database, or what this state has
// forgotten; it is left alone.
func (b *builder) strangers(live *providers.Live) {
	known := make(map[string]bool, len(b.items))
	for _, it := range b.items {
		known[it.id] = !it.left || !b.comes(it.addr())
	}
	for i := range live.Members {
		// Nobody else makes nodes, so that this state had it once.
		if m := &live.Members[i].Spec; !known[m.ID] {
			b.plan.Unmanaged = append(b.plan.Unmanaged, Unmanaged{Type: addr.TypeNode, Name: m.Name, ID: m.ID, ManagedBy: spec.ManagedBy})
		}
	}
	for i := range live.Fences {
		if f := &live.Fences[i]; !known[f.ID] {
			b.plan.Unmanaged = append(b.plan.Unmanaged, Unmanaged{Type: addr.TypeFence, Name: f.Name, ID: f.ID, ManagedBy: f.ManagedBy})
		}
	}
	for _, g := range live.Groups {
		if !known[g.Spec.ID] {
			b.plan.Unmanaged = append(b.plan.Unmanaged, Unmanaged{Type: "group", Name: g.Spec.Name, ID: g.Spec.ID, ManagedBy: g.Spec.ManagedBy})
		}
	}
	slices.SortFunc(b.plan.Unmanaged, func(x, y Unmanaged) int {
		return cmp.Or(strings.Compare(x.Type, y.Type), strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
}

// namesTaken refuses what would get the name of something that is left alone:
// names are unique in a cluster, so that the apply could only fail.
func (b *builder) namesTaken(live *providers.Live) {
	if b.destroy || b.rereads || !live.Quorum { // an old copy may have what is long gone
		return
	}
	begun := map[string]bool{} // by id: an earlier apply is not done with it
	for _, p := range b.in.Pending {
		if p.Object != nil {
			begun[p.Object.ID] = true
		}
	}
	type key struct{ typ, name string }
	strangers := map[key]*Unmanaged{}
	for i := range b.plan.Unmanaged {
		if u := &b.plan.Unmanaged[i]; !begun[u.ID] {
			strangers[key{u.Type, u.Name}] = u
		}
	}
	refuse := func(a addr.Address, name string) {
		it, u := b.at.At(a), strangers[key{a.Type, name}]
		if u == nil || it == nil || it.left || it.id == u.ID || !it.acts() ||
			slices.ContainsFunc(b.in.Imports, func(one Import) bool { return one.To == a && one.Err != "" }) {
			return
		}
		detail := fmt.Sprintf("It is managed by %s, and not in this state. ", cmp.Or(u.ManagedBy, "nobody"))
		b.fail(it, fmt.Sprintf("The cluster has a %s called %s already", u.Type, name), detail+b.wayOut(it, u, name))
	}
	for i := range b.after.Nodes {
		refuse(b.after.Nodes[i].Addr, b.after.Nodes[i].Name)
	}
	for i := range b.after.Fences {
		refuse(b.after.Fences[i].Addr, b.after.Fences[i].Name)
	}
	for i := range b.after.Groups {
		refuse(b.after.Groups[i].Addr, b.after.Groups[i].Name)
	}
}

// wayOut is what can be done about something that has an object's name in the
// cluster: commands that work as things are.
func (b *builder) wayOut(it *item, u *Unmanaged, name string) string {
	arg, text, word := it.addr().Arg(), "", "To take it into the state: "
	if m := b.member(u.ID); u.Type == addr.TypeNode && m != nil && m.Node == spec.NodeDown {
		text = fmt.Sprintf("It is down. Where its host, or its directory there, is lost for good: clusterplan evict %s takes it out of the cluster, and an apply makes %s anew. ", name, it.addr())
		word = "Where that is there still: "
	}
	if it.old != nil {
		word = fmt.Sprintf("This state has another %s. To take the cluster's into the state in place of that: clusterplan state rm %s, and then ", it.addr(), arg)
	}
	return text + word + fmt.Sprintf("clusterplan import %s %s, or an import block. Or give %s another name.", arg, name, it.addr())
}
