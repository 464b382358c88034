package planner

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Rename gives a state's objects, and what is pending, the addresses that the
// definition's moved blocks give them. It comes before everything else: what
// is read, planned and applied goes by the new addresses. The moves, of
// resources too, go into Input; without any the state is s itself.
func Rename(moves *lang.Moves, s statefile.State, pending []statefile.Pending) (statefile.State, []statefile.Pending, []statefile.Move, hcl.Diagnostics) {
	if moves.None() {
		return s, pending, nil, nil
	}
	var out []statefile.Move
	var diags hcl.Diagnostics
	held := make(map[addr.Address]addr.Address, len(s.Objects)) // who is there in the end
	full := map[addr.Address]bool{}                             // groups that two would be
	place := func(a addr.Address) {
		to, by := moves.Final(a.Current())
		if id := a.Deposed(); id != "" {
			to = to.Depose(id) // with the one that takes its place
		}
		first, taken := held[to]
		if !taken {
			held[to] = a
			if by != nil {
				out = append(out, statefile.Move{From: a, To: to})
			}
			return
		}
		if full[to.Owner()] {
			return
		}
		full[to.Owner()] = true
		if by == nil {
			_, by = moves.Final(first)
		}
		d := problem(hcl.DiagError, fmt.Sprintf("%s and %s are both there", first, a),
			fmt.Sprintf("The state has both, and by the moved block both would be %s. Remove the block, so that the one that the definition doesn't have is deleted; or have the block move it to where nothing is.", to))
		d.Subject = &by.Range
		diags = append(diags, d)
	}
	for i := range s.Objects {
		place(s.Objects[i].Addr)
	}
	for i := range pending {
		if p := &pending[i]; p.Object != nil && s.Find(p.Addr) == nil {
			place(p.Addr)
		}
	}
	if diags.HasErrors() || len(out) == 0 {
		return s, pending, nil, diags
	}
	s, pending = statefile.Relabel(s, pending, out)
	return s, pending, out, nil
}

// relabel has the running cluster's own life speak of nodes, groups and
// resources as the state and the definition do: by today's addresses and names,
// for the cluster learns of them only with this plan's apply. Where its
// database has another address, the item keeps that in mind.
func (b *builder) relabel() {
	b.former = make(map[addr.Address]addr.Address, len(b.in.Renames))
	for _, m := range b.in.Renames {
		b.former[m.To] = m.From
	}
	live := b.in.World.Live
	if live == nil {
		return
	}
	b.called = make(map[string]string, len(live.Members))
	for _, m := range live.Members {
		b.called[m.Spec.ID] = m.Spec.Name
	}
	if !b.calledOtherwise(live) {
		return
	}
	byID := make(map[string]*item, len(b.items))
	for _, it := range b.items {
		if it.old != nil {
			byID[it.old.ID] = it
		}
	}
	address := func(id string, a *addr.Address) *item {
		it := byID[id]
		if it != nil && *a != it.addr() {
			was := *a
			it.knownAs, *a = &was, it.addr()
		}
		return it
	}
	next := *live
	nodes, groups := map[string]string{}, map[string]string{} // names, before and after
	next.Members = slices.Clone(live.Members)
	for i := range next.Members {
		m := &next.Members[i]
		if it := address(m.Spec.ID, &m.Spec.Addr); it != nil {
			if !b.beside(live, it) {
				rename(it, &m.Spec.Name, nodes)
			}
		}
	}
	next.Groups = slices.Clone(live.Groups)
	for i := range next.Groups {
		g := &next.Groups[i].Spec
		it := address(g.ID, &g.Addr)
		if it == nil {
			continue
		}
		rename(it, &g.Name, groups)
		g.Resources = slices.Clone(g.Resources)
		for k := range g.Resources {
			r := &g.Resources[k]
			address(r.ID, &r.Addr)
		}
	}
	for i := range next.Groups {
		g := &next.Groups[i].Spec
		for _, list := range []*[]string{&g.PreferredOwners, &g.PossibleOwners} {
			*list = renamed(*list, nodes)
		}
		for _, list := range []*[]string{&g.DependsOn, &g.KeepApart, &g.KeepApartSoft} {
			*list = renamed(*list, groups)
		}
	}
	b.in.World.Live = &next
}

// beside tells whether a node whose place it takes is in the cluster still, so
// that it goes by another name there.
func (b *builder) beside(live *providers.Live, it *item) bool {
	return slices.ContainsFunc(live.Members, func(m providers.LiveMember) bool {
		o := b.at.At(it.addr().Depose(m.Spec.ID))
		return m.Spec.ID != it.id && o != nil && o.addr() != it.addr()
	})
}

// calledOtherwise tells whether the cluster knows anything of ours by another
// address or name.
func (b *builder) calledOtherwise(live *providers.Live) bool {
	other := func(id string, a addr.Address, name string) bool {
		it := b.at.At(a)
		if it == nil || it.old == nil || it.old.ID != id {
			return true
		}
		wanted := it.wantedName()
		return name != "" && wanted != "" && name != wanted
	}
	for i := range live.Members {
		if m := &live.Members[i].Spec; other(m.ID, m.Addr, m.Name) {
			return true
		}
	}
	for i := range live.Groups {
		g := &live.Groups[i].Spec
		if g.ManagedBy != spec.ManagedBy && len(b.importing) == 0 || b.in.World.Objects[g.Addr].Same {
			continue
		}
		if other(g.ID, g.Addr, g.Name) {
			return true
		}
		for k := range g.Resources {
			if other(g.Resources[k].ID, g.Resources[k].Addr, "") {
				return true
			}
		}
	}
	return false
}

// wantedName is the name attribute in the definition, "" where there is none.
func (it *item) wantedName() string {
	if it.want == nil {
		return ""
	}
	v := unmark(attribute(it.want.config, "name"))
	if isAbsent(v) || !v.IsKnown() {
		return ""
	}
	return v.AsString()
}

func rename(it *item, name *string, names map[string]string) {
	if to := it.wantedName(); to != "" && to != *name {
		names[*name], *name = to, to
	}
}

// renamed is a list of names with today's in the place of the old ones.
func renamed(list []string, names map[string]string) []string {
	if len(names) == 0 {
		return list
	}
	out := slices.Clone(list)
	for i, name := range out {
		if to, ok := names[name]; ok {
			out[i] = to
		}
	}
	return out
}

// moved tells of an object that has another address than before, and has the
// cluster's database learn of it, also where nothing else changes.
func (b *builder) moved(it *item) {
	c := it.change
	from, moves := b.former[it.addr()]
	if moves {
		was := from // alone: of most objects there is none to keep
		c.PreviousAddress = &was
	}
	it.tellName()
	if !moves && it.knownAs == nil || it.want == nil || it.prior == nil {
		return
	}
	switch action := c.Action(); {
	case action != "no-op" && action != "update":
		return // it is written anew with that
	case it.addr().IsResource() && it.runsAs(from) != it.addr().DefaultName():
		// What runs of it goes by its name: under another it stops and starts again.
		c.Impact = stronger(c.Impact, spec.ImpactRestartResource)
		c.Why = append(c.Why, "it runs under its name: it stops, and starts again under the new one")
	case it.addr().Type == addr.TypeNode && !b.tellMember(it):
		return // nobody keeps its address, or it is told with its join
	}
	it.moves = true
	if moves {
		return
	}
	word := "known to the cluster as " + it.knownAs.String()
	if b.comes(it.addr()) && c.Action() == "no-op" {
		c.Why = append(c.Why, word)
	} else if c.Action() == "no-op" {
		c.Actions, c.Reason = ActionUpdate, ReasonDrifted
		c.Why = append(c.Why, "drifted: "+word)
		b.drift(it, false, []string{word}, nil)
	}
}

// tellName says what a new name means for what runs under the old one.
func (it *item) tellName() {
	c := it.change
	if c.Action() != "update" || !slices.ContainsFunc(c.Attributes, func(a AttributeChange) bool { return a.Path == "name" }) {
		return
	}
	switch it.addr().Type {
	case addr.TypeNode:
		if !slices.Contains(it.phases, providers.PhaseStart) {
			c.Why = append(c.Why, "nothing stops for the new name; the running agent logs under the old one until it starts again")
		}
	case addr.TypeGroup:
		if it.addr().IsResource() {
			return
		}
		c.Why = append(c.Why, "nothing stops for the new name; what runs keeps the old one, in its environment and for its log file, until it starts again")
	}
}

// runsAs is the name that a resource has in the cluster.
func (it *item) runsAs(from addr.Address) string {
	if it.knownAs != nil {
		return it.knownAs.DefaultName()
	}
	if from == (addr.Address{}) {
		from = it.addr()
	}
	return from.DefaultName()
}

// tellMember adds the phase that tells the cluster of a node's address, where
// it is a member and no other phase does. Only a host that can be seen has it.
func (b *builder) tellMember(it *item) bool {
	live := b.in.World.Live
	if it.silent || live == nil || !slices.ContainsFunc(live.Members, func(m providers.LiveMember) bool { return m.Spec.ID == it.id }) {
		return false
	}
	if slices.Contains(it.phases, providers.PhaseJoin) || slices.Contains(it.phases, providers.PhaseUpdate) {
		return true
	}
	it.phases = append(slices.Clone(it.phases), providers.PhaseUpdate)
	slices.SortStableFunc(it.phases, func(a, b string) int { return slices.Index(sequence, a) - slices.Index(sequence, b) })
	it.change.Phases = it.phases
	return true
}

// SuggestedMove is a moved block that would spare a deletion and a creation:
// the two differ in nothing but the address.
type SuggestedMove struct {
	From addr.Address `json:"from"`
	To   addr.Address `json:"to"`
}

// suggest finds what is deleted and created again though it is the same.
func (b *builder) suggest() {
	gone, made := map[string][]*item{}, map[string][]*item{}
	sort := func(reason string, into map[string][]*item) {
		for _, it := range b.items {
			if it.change.Reason != reason || it.addr().IsResource() || it.addr().Type == addr.TypeCluster {
				continue
			}
			if text, ok := b.content(it); ok {
				into[text] = append(into[text], it)
			}
		}
	}
	if sort(ReasonNotInDefinition, gone); len(gone) == 0 {
		return
	}
	sort(ReasonNotInState, made)
	pairs := map[addr.Address]addr.Address{}
	for text, from := range gone {
		for _, f := range from {
			if t := partner(f, from, made[text]); t != nil {
				pairs[f.addr()] = t.addr()
			}
		}
	}
	b.plan.SuggestedMoves = b.whole(pairs)
}

// partner is the one that f can only have become: the one with f's key, or the
// only one there is.
func partner(f *item, from, to []*item) *item {
	sameKey := func(list []*item) (found []*item) {
		for _, it := range list {
			if it.addr().Key == f.addr().Key {
				found = append(found, it)
			}
		}
		return found
	}
	if !f.addr().Key.IsNone() {
		if a, b := sameKey(from), sameKey(to); len(a) == 1 && len(b) == 1 {
			return b[0]
		}
	}
	if len(from) == 1 && len(to) == 1 {
		return to[0]
	}
	return nil
}

// whole makes one move of those of all instances of a block.
func (b *builder) whole(pairs map[addr.Address]addr.Address) []SuggestedMove {
	has := map[addr.Address]int{} // instances by block: in the state, or wanted
	for _, it := range b.items {
		if !it.addr().IsResource() {
			has[it.addr().WithoutKey()]++
		}
	}
	count := map[SuggestedMove]int{}
	for f, t := range pairs {
		if f.Key == t.Key && !f.Key.IsNone() {
			count[SuggestedMove{f.WithoutKey(), t.WithoutKey()}]++
		}
	}
	out := map[SuggestedMove]bool{}
	for f, t := range pairs {
		m := SuggestedMove{f.WithoutKey(), t.WithoutKey()}
		if f.Key != t.Key || count[m] < 2 || count[m] != has[m.From] {
			m = SuggestedMove{f, t}
		}
		out[m] = true
	}
	return slices.SortedFunc(maps.Keys(out), func(x, y SuggestedMove) int { return addr.Compare(x.From, y.From) })
}
