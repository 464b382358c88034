package planner

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// wanted is one object of the definition.
type wanted struct {
	*lang.Object
	config cty.Value      // its value, with the attributes that stay as they are
	needs  []addr.Address // as hard has it, once it was asked for: of most objects nobody asks
}

// item is one object on the way from what is to what is to be.
type item struct {
	want    *wanted
	old     *statefile.Object // nil: the state has none
	id      string            // "": not given yet
	prior   *providers.Object // what is there, or is taken to be there
	applied cty.Value         // what the last apply left
	knownAs *addr.Address     // its address in the cluster's database, where that is another one
	change  *Change           // in plan.Changes, with its address
	remove  []string          // phases that take the old object away
	phases  []string          // phases that bring the new one about
	partial bool              // a create or delete that was cut off
	silent  bool              // could not be read
	same    bool              // it was seen to be just as it is wanted
	moves   bool              // the database has to learn of its address, if of nothing else
	left    bool              // the plan is of a part, and this stays as it is
	instead bool              // of a node that is made anew, join before leave: the new one and the old one
}

func (it *item) addr() addr.Address { return it.change.Address }

func (it *item) acts() bool { return !it.left && (it.moves || it.change.Action() != "no-op") }

type builder struct {
	in      Input
	plan    *Plan
	diags   hcl.Diagnostics
	wanted  []wanted // in address order
	shapes  map[string]shape
	made    map[string]*shape // the same, of what is to be made
	types   map[string]cty.Type
	differ  differ
	state   *addr.Index[statefile.Object]
	pending map[addr.Address]*statefile.Pending
	items   []*item // in address order
	at      *addr.Index[item]
	parts   map[addr.Address][]*item      // a group's resources
	trigger map[*item]string              // what has it made anew, by replace_triggered_by
	under   map[*item]string              // why it is made anew with what it stands on
	deposed map[*item][]*item             // of a node: whose place it takes, and who have not left yet
	former  map[addr.Address]addr.Address // by address: the one before the moved blocks
	// importing are what comes into the state with this plan; dropped is what an
	// import had begun and nobody goes on with.
	importing map[addr.Address]*Import
	dropped   []addr.Address
	after     spec.Definition
	before    spec.Definition
	called    map[string]string // what the cluster calls its nodes now, by id
	destroy   bool
	rereads   bool             // refresh-only
	deposes   []statefile.Move // nodes that are made anew, with the addresses under which they leave
	back      []statefile.Move // nodes that are to have a place again that others were to take
	swapped   []statefile.Move // the same, of which the input knows already
	// remember: the state has to learn of a prevent_destroy, or of what is sensitive,
	// though nothing else changes.
	remember bool
	// unmade: as far as the state knows there is no cluster yet. fresh: nor is there
	// one that a first apply formed before it was cut off, so no quorum to keep.
	unmade, fresh bool
	nowhere       bool // no node is there that could have a database
}

// Build works out the plan. Diagnostics with an error come with a plan that
// shows what could be worked out and is not applyable.
func Build(in Input) (*Plan, hcl.Diagnostics) {
	b := build(in, nil)
	if len(b.back) > 0 {
		b = build(in.putBack(b.back), b.back)
	}
	return b.plan, b.diags
}

// build is Build of an input in which moves have given nodes their places back.
func build(in Input, moves []statefile.Move) *builder {
	if in.Mode == "" {
		in.Mode = ModeNormal
	}
	b := &builder{
		in: in, swapped: moves, shapes: map[string]shape{}, made: map[string]*shape{}, types: map[string]cty.Type{},
		state: addr.NewIndex(func(o *statefile.Object) *addr.Address { return &o.Addr }, len(in.State.Objects)), pending: map[addr.Address]*statefile.Pending{},
		parts: map[addr.Address][]*item{}, trigger: map[*item]string{}, under: map[*item]string{}, deposed: map[*item][]*item{}, destroy: in.Mode == ModeDestroy, rereads: in.Mode == ModeRefreshOnly,
		plan: &Plan{
			FormatVersion: FormatVersion, Mode: in.Mode, Complete: true, Serial: in.State.Serial, Definition: in.Version,
			Drift: []Drift{}, Operator: []Operator{}, Unreachable: []Unreachable{}, Unmanaged: []Unmanaged{},
			OutputChanges: map[string]OutputChange{}, Checks: []Check{}, Steps: []Step{}, Availability: []Availability{},
			FailoverTimes: []FailoverTime{}, FailureMatrix: FailureMatrix{Regressions: []string{}}, Guarantees: []Guarantee{},
		},
	}
	b.learn()
	b.imports()
	b.collect()
	b.relabel()
	b.choose()
	b.refuseImports()
	b.changes()
	b.suggest()
	b.settings()
	b.goesOn()
	b.stays()
	b.refuseSwaps()
	b.world()
	if in.Foreseen != nil {
		in.Foreseen()
	}
	if b.rereads {
		b.rereadWork()
	} else {
		b.order()
	}
	if !b.partly() && !b.rereads {
		b.outputs()
	}
	b.conditions()
	b.finish()
	return b
}

// learn reads the providers' schemas.
func (b *builder) learn() {
	schemas := b.in.Providers.Schemas()
	for _, name := range b.in.Providers.Names() {
		s := schemas[name]
		for typ, object := range s.Objects {
			if _, known := b.types[typ]; !known {
				b.shapes[typ], b.types[typ] = shapeOf(object), schema.Type(object)
			}
		}
		for typ, resource := range s.Resources {
			whole := resource.WithCommon()
			b.shapes[typ], b.types[typ] = shapeOf(whole), schema.Type(whole)
		}
	}
}

// shapeFor is the shape of a type, one for all of its objects.
func (b *builder) shapeFor(typ string) *shape {
	s := b.made[typ]
	if s == nil {
		one := b.shapes[typ]
		s = &one
		b.made[typ] = s
	}
	return s
}

// collect brings definition, state and what was seen together, by address.
func (b *builder) collect() {
	for i := range b.in.State.Objects {
		b.state.Put(&b.in.State.Objects[i])
	}
	if b.in.Definition != nil {
		b.readDefinition()
	}
	if b.destroy {
		b.wanted = nil
	}
	want := addr.NewIndex(func(w *wanted) *addr.Address { return &w.Addr }, len(b.wanted))
	addrs := make([]*addr.Address, 0, len(b.wanted)+8) // an address is large
	for i := range b.wanted {
		want.Put(&b.wanted[i])
		addrs = append(addrs, &b.wanted[i].Addr)
	}
	b.cutOff(want)
	for i := range b.in.State.Objects {
		if a := &b.in.State.Objects[i].Addr; want.At(*a) == nil {
			addrs = append(addrs, a)
		}
	}
	for a, p := range b.pending {
		// A create that was cut off before its first result, of something that
		// the definition does not have any more.
		if want.At(a) == nil && b.state.At(a) == nil && p.Object != nil {
			addrs = append(addrs, &a)
		}
	}
	var ids map[string]bool // of the state, made when first asked for: most groups are not read one by one
	for a, seen := range b.in.World.Objects {
		if ids == nil && len(seen.Resources) > 0 {
			ids = make(map[string]bool, b.state.Len())
			for o := range b.state.All() {
				ids[o.ID] = true
			}
		}
		for i := range seen.Resources {
			r := &seen.Resources[i]
			// In one of our groups, and nobody knows of it: made by hand, or by an
			// apply that was cut off.
			if r.Addr.IsResource() && r.Addr.Owner() == a && want.At(r.Addr) == nil && b.state.At(r.Addr) == nil && !ids[r.ID] {
				addrs = append(addrs, &r.Addr)
			}
		}
	}
	slices.SortFunc(addrs, func(x, y *addr.Address) int { return addr.Compare(*x, *y) })
	addrs = slices.CompactFunc(addrs, func(x, y *addr.Address) bool { return *x == *y })
	b.items = make([]*item, len(addrs))
	b.at = addr.NewIndex(func(it *item) *addr.Address { return &it.change.Address }, len(addrs))
	b.plan.Changes = make([]Change, len(addrs))
	all := make([]item, len(addrs))
	parts := make([]*item, 0, len(addrs)) // a group's stand beside each other
	for i, at := range addrs {
		a, it := *at, &all[i]
		*it = item{want: want.At(a), old: b.state.At(a), change: &b.plan.Changes[i]}
		it.change.Address = a
		b.items[i] = it
		b.at.Put(it)
		if a.IsResource() {
			parts = append(parts, it)
			owner := a.Owner()
			b.parts[owner] = parts[len(parts)-1-len(b.parts[owner]) : len(parts) : len(parts)]
		}
	}
}

// undivided counts what acts and is no part of a group: a unit each, or nearly.
func (b *builder) undivided() int {
	n := 0
	for _, it := range b.items {
		if !it.addr().IsResource() && it.acts() {
			n++
		}
	}
	return n
}

// changes works out every object's change; a group before its resources, for
// what was read of a group holds them.
func (b *builder) changes() {
	b.nowhere = b.emptyWorld()
	for _, it := range b.items {
		b.see(it)
	}
	for _, it := range b.items {
		b.change(it)
	}
	b.triggers()
	b.rebootNodes()
	b.groundRules()
	for _, it := range b.items {
		c := it.change
		if c.PreviousAddress != nil {
			b.plan.Summary.Move++
		}
		if c.Importing != nil {
			b.plan.Summary.Import++
		}
		switch c.Action() {
		case "no-op":
			if c.PreviousAddress == nil && c.Importing == nil {
				b.plan.Summary.NoOp++
			}
		case "create":
			b.plan.Summary.Create++
		case "update":
			b.plan.Summary.Update++
		case "replace":
			b.plan.Summary.Replace++
		case "delete":
			b.plan.Summary.Delete++
		case "forget":
			b.plan.Summary.Forget++
		}
	}
}

// see finds out what is there of an object.
func (b *builder) see(it *item) {
	if it.old != nil {
		it.id = it.old.ID
	} else if p := b.pending[it.addr()]; p != nil && p.Object != nil {
		it.id, it.partial = p.Object.ID, true
	}
	if it.addr().IsResource() {
		b.seePart(it)
		return
	}
	if b.in.World.Objects == nil {
		it.prior = b.stored(it)
		return
	}
	seen, looked := b.in.World.Objects[it.addr()]
	if b.nowhere && begun(it) && (it.addr().Type == addr.TypeCluster || oneCall(it.addr())) {
		seen, looked = Seen{}, true
	}
	switch {
	case !looked && it.old == nil:
	case !looked || seen.Err != "":
		it.silent = true
		it.prior = b.stored(it)
		if it.old != nil && len(it.old.Phases) > 0 {
			if it.partial = true; it.addr().Type != addr.TypeNode && (it.want != nil || !addr.Machinery(it.addr().Type)) {
				it.prior = nil // begun, and nobody knows better: it is begun again; what is to go is no less there
			}
		}
		if it.prior != nil || seen.Err != "" {
			reason := seen.Err
			if !looked {
				reason = "it was not read"
			}
			b.plan.Unreachable = append(b.plan.Unreachable, Unreachable{Address: it.addr(), Reason: reason})
			b.plan.Complete = false
		}
	case seen.Same:
		it.beSame()
	default:
		it.prior = seen.Object
		if it.old != nil && len(it.old.Phases) > 0 {
			it.partial = true
		}
	}
}

// beSame takes what is wanted for what is there. Where nothing is wanted any
// more (destroy), what the state has is what is there.
func (it *item) beSame() {
	it.same = true
	it.prior = &providers.Object{ID: it.id}
	if it.want != nil {
		it.prior.Value = it.want.config
	}
}

func (b *builder) seePart(it *item) {
	group := b.at.At(it.addr().Owner())
	seen, looked := b.in.World.Objects[it.addr().Owner()]
	if b.in.World.Objects == nil || group == nil || group.silent || !looked {
		if it.old != nil {
			it.prior = b.stored(it)
			it.silent = group != nil && group.silent
		}
		return
	}
	if seen.Same && it.old != nil && (it.want != nil || b.destroy) {
		it.beSame()
		return
	}
	if seen.Object == nil {
		return
	}
	for i := range seen.Resources {
		r := &seen.Resources[i]
		if r.Addr == it.addr() || it.id != "" && r.ID == it.id {
			it.prior, it.change.Type = &providers.Object{ID: r.ID, Value: r.Value}, r.Type
			if it.id == "" {
				it.id = r.ID
			}
			it.partial = it.old == nil // made by an apply that was cut off: the state has to learn of it
			return
		}
	}
}

// stored is what the state has of an object.
func (b *builder) stored(it *item) *providers.Object {
	if it.old == nil {
		return nil
	}
	return &providers.Object{ID: it.old.ID, Value: b.attributes(it), Private: it.old.Private}
}

// attributes is the value that the last apply left.
func (b *builder) attributes(it *item) cty.Value {
	if it.applied != cty.NilVal || it.old == nil {
		return it.applied
	}
	ty, ok := b.types[it.old.Type]
	if !ok || len(it.old.Attributes) == 0 {
		return cty.NilVal
	}
	var like []cty.Value // what it may have been
	if it.want != nil {
		like = append(like, it.want.Value, it.want.config)
	}
	if it.prior != nil && it.prior.Value != cty.NilVal {
		like = append(like, it.prior.Value)
	}
	v, err := schema.FromJSON(b.in.State.Known(it.old, like...), ty)
	if err != nil {
		b.diags = append(b.diags, problem(hcl.DiagWarning, "State of "+it.addr().String()+" doesn't fit its type",
			fmt.Sprintf("What the state holds of it could not be read (%s). It is taken for changed, and written anew by the next apply.", err)))
		return cty.NilVal
	}
	if it.prior != nil || len(it.old.Sensitive) == 0 { // else more may be known of it later
		it.applied = v
	}
	return v
}

// change decides what happens to one object.
func (b *builder) change(it *item) {
	c := it.change
	switch {
	case it.want != nil:
		c.Type = it.want.Type
	case it.old != nil:
		c.Type = it.old.Type
	case it.addr().IsResource(): // as it was seen
	default:
		c.Type = b.pending[it.addr()].Object.Type
	}
	if b.rereads {
		b.reread(it)
		return
	}
	if it.left {
		c.Actions = ActionNoOp
		return
	}
	there := it.prior != nil
	switch {
	case it.want == nil && !there && b.joined(it) && !b.destroy && !b.forgets(it):
		if it.old == nil { // as an apply would keep it that is about something else
			o := *b.pending[it.addr()].Object
			o.Phases = []string{PhaseBegun}
			it.old = &o
		}
		it.prior = b.stored(it)
		b.takeAway(it, ActionDelete, ReasonCutOff)
		c.Why = []string{"an apply that was cut off had begun to make it; nothing of it is on its host, but the cluster has it as a member: it leaves"}
	case it.want == nil && !there && b.neverMade(it):
		b.takeAway(it, ActionForget, ReasonCutOff)
		c.Why = []string{"an apply that was cut off had begun to make it, and nothing of it is there"}
	case it.want == nil && !there && it.old != nil && (!addr.Machinery(it.addr().Type) || it.old.PreventDestroy):
		b.takeAway(it, ActionForget, ReasonGone)
		c.Why = []string{"it is gone already"}
		b.drift(it, true, nil, nil)
	case it.want == nil && !there && it.old != nil && !b.forgets(it):
		// What was made for it and is not it (an image, a storage pool) may be there
		// still, where a delete was cut off or somebody else has done it by half: nobody
		// else knows of that.
		it.prior = b.stored(it)
		b.takeAway(it, ActionDelete, ReasonGone)
		c.Why = []string{"it is gone already; what may be left of it goes"}
		b.drift(it, true, nil, nil)
	case it.want == nil && b.forgets(it):
		b.forget(it)
	case it.want == nil:
		reason := ReasonNotInDefinition
		if b.destroy {
			reason = ReasonDestroy
		}
		b.takeAway(it, ActionDelete, reason)
		c.Why = []string{"not in the definition"}
		if b.destroy {
			c.Why = []string{"destroy"}
		}
		if it.partial && it.old == nil && !there {
			c.Why = append(c.Why, "an apply that was cut off had begun to make it; whether anything of it is there can't be seen now")
		}
	case !there:
		b.bringAbout(it)
	default:
		b.ignore(it)
		b.compare(it)
	}
	b.moved(it)
	b.imported(it)
	if it.want != nil && it.acts() {
		c.DependsOn = it.want.hard()
	}
	b.protect(it)
}

// begun tells whether no more is known of an object than that an apply was about to
// make it.
func begun(it *item) bool {
	return it.old == nil || slices.Equal(it.old.Phases, []string{PhaseBegun})
}

// neverMade tells whether nothing is there of what an apply had begun, and came to
// no first result of.
func (b *builder) neverMade(it *item) bool {
	_, looked := b.in.World.Objects[it.addr()]
	looked = looked || b.nowhere && (it.addr().Type == addr.TypeCluster || oneCall(it.addr()))
	return begun(it) && looked && !it.silent && it.prior == nil && !addr.Machinery(it.addr().Type) // some of that may be there without it
}

// joined tells whether the cluster has a node as a member that is nowhere, and that no
// apply has made whole: its vote counts until it leaves.
func (b *builder) joined(it *item) bool {
	return it.addr().Type == addr.TypeNode && !it.silent && (it.old == nil || len(it.old.Phases) > 0) && b.member(it.id) != nil
}

// emptyWorld tells whether there is no node for sure that could have a cluster's
// database: not that it does not answer.
func (b *builder) emptyWorld() bool {
	if b.in.World.Objects == nil || b.in.World.Live != nil {
		return false
	}
	for a, seen := range b.in.World.Objects {
		if a.Type == addr.TypeNode && (seen.Object != nil || seen.Err != "") {
			return false
		}
	}
	return !slices.ContainsFunc(b.in.State.Objects, func(o statefile.Object) bool {
		_, looked := b.in.World.Objects[o.Addr]
		return o.Addr.Type == addr.TypeNode && !looked
	})
}

func (b *builder) takeAway(it *item, actions []string, reason string) {
	c := it.change
	c.Actions, c.Reason = actions, reason
	if it.prior != nil && it.prior.Value != cty.NilVal {
		c.Before = it.veil(b.shapes[c.Type].guard(it.prior.Value))
	} else {
		c.Before = it.veil(b.shapes[c.Type].guard(b.attributes(it)))
	}
	if it.addr().IsResource() || oneCall(it.addr()) {
		return
	}
	resp, ok := b.ask(it, it.prior, cty.NilVal)
	if ok {
		it.remove = resp.Phases
		c.Phases = resp.Phases
	}
	if !b.destroy || addr.Machinery(it.addr().Type) {
		return
	}
	// The cluster ends as a whole: no one drains to no one.
	it.remove = slices.DeleteFunc(slices.Clone(it.remove), func(p string) bool { return p != providers.PhaseStop && p != providers.PhaseRemove })
	c.Phases = it.remove
}

func (b *builder) bringAbout(it *item) {
	c := it.change
	c.Actions, c.Reason = ActionCreate, ReasonNotInState
	c.Why = []string{"not in state"}
	if it.old != nil {
		c.Reason = ReasonGone
		c.Why = []string{"it is gone"}
		if !b.neverMade(it) {
			b.drift(it, true, nil, nil)
		}
	}
	if it.partial {
		c.Reason = ReasonCutOff
		c.Why = []string{"an apply that was cut off had begun to make it"}
	}
	planned := it.want.config
	if !it.addr().IsResource() {
		resp, ok := b.ask(it, nil, it.want.config)
		if ok {
			planned, it.phases = likeMarks(resp.Planned, it.want.config), resp.Phases
		}
	}
	c.Phases = it.phases
	c.After = b.shapes[c.Type].guard(planned)
	c.made = b.shapeFor(c.Type)
}
