package lang

import (
	"slices"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Definition is a definition with its values. It is safe for concurrent use.
type Definition struct {
	Objects   []Object   // cluster, nodes, groups and resources, in address order
	Outputs   []Output   // by name
	Providers []Provider // by name: those with a block, and those that nodes ask for
	Variables []Variable // by name
	// Guarantees in address order: what is checked, and no object of an apply.
	// Their values are in Spec.
	Guarantees []Object
	// Imports in address order: also those that were done long ago, for only the
	// state tells.
	Imports []Import

	index *addr.Index[Object]
	spec  *spec.Definition

	mu sync.Mutex
	ev *evaluation
}

// Evaluate works everything out. Attributes that only an apply knows come
// from known (nil: nothing is known yet). The Definition is complete if there
// are no errors among the diagnostics, and nil if it can't even be listed.
func (c *Config) Evaluate(known Known) (*Definition, hcl.Diagnostics) {
	var d *Definition
	var diags hcl.Diagnostics
	if !until(c.opts.Stop, func() { d, diags = c.evaluate(known) }) {
		return nil, interrupted()
	}
	return d, diags
}

func (c *Config) evaluate(known Known) (*Definition, hcl.Diagnostics) {
	ev := newEvaluation(&world{
		known:   known,
		byAddr:  addr.NewIndex(func(in *instance) *addr.Address { return &in.addr }, 0),
		at:      map[*site][]*evaluation{},
		types:   map[likeness]cty.Type{},
		scratch: map[string]cty.Value{},
		timings: spec.Timings{}.WithDefaults(),
	}, c.top)
	ev.root.Variables[rootVar] = c.varsValue
	for _, name := range sortedKeys(c.vars) {
		if v := c.vars[name]; !v.value.IsWhollyKnown() {
			ev.broken[v] = true // values of variables are known, or an error was told
		}
	}
	ev.run()
	for _, m := range ev.all {
		m.depends()
		m.checkConditions()
	}
	d := &Definition{ev: ev, Variables: c.Variables()}
	d.providers()
	d.fenceMachines()
	d.list()
	d.outputs()
	d.imports()
	// What is of no more use goes before the typed definition is made, which is as large.
	ev.types = nil
	for _, m := range ev.all {
		m.shares, m.sealed, m.spares = nil, nil, nil
		for i := range m.memo {
			m.memo[i].names(nil)
		}
	}
	if !c.conditions && !hcl.Diagnostics(ev.diags).HasErrors() { // which look at an instance once more
		for _, m := range ev.all {
			m.shed()
		}
	}
	d.spec = d.typed()
	d.spec.Guarantees = d.guarantees()
	ev.diags = append(ev.diags, d.check()...)
	ev.diags = append(ev.diags, d.checkMoved()...)
	ev.diags = append(ev.diags, d.checkRemoved()...)
	ev.diags = append(ev.diags, d.checkTriggers()...)
	diags := tidy(ev.diags)
	ev.diags = nil
	return d, diags
}

// shed lets go of what instances saw of their for_each or count, where nothing of
// them will be worked out again.
func (ev *evaluation) shed() {
	for b, is := range ev.blocks {
		if b.forEach != nil {
			m := &ev.memo[b.forEach.id]
			m.value, m.have = cty.NilVal, false
		}
		for _, in := range is.list {
			again := in.unknown
			for _, parts := range in.resources {
				for _, r := range parts.list {
					if again = again || r.unknown; !r.unknown {
						r.vars, r.ctx = nil, nil
					}
				}
			}
			if !again {
				in.vars, in.ctx, in.inner = nil, nil, nil
			}
		}
	}
}

// Settle lets go of how the objects were worked out, which takes as much memory as
// what they hold: of one that only a plan is made of. Resolve then finds no object
// any more, and ResolveOutputs, Ask, ValueOf, Generate and Blocks are not to be called.
// A definition with conditions keeps it all: a plan works them out.
func (d *Definition) Settle() {
	if !d.ev.c.conditions {
		d.ev = &evaluation{world: &world{}, c: d.ev.c}
	}
}

// list makes the objects from the instances.
func (d *Definition) list() {
	ev := d.ev
	all := make([]*instance, 0, ev.byAddr.Len())
	for in := range ev.byAddr.All() {
		if in.value != cty.NilVal {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return addr.Compare(a.addr, b.addr) })
	d.Objects = make([]Object, 0, len(all))
	d.index = addr.NewIndex(func(o *Object) *addr.Address { return &o.Addr }, len(all))
	for _, in := range all {
		o := Object{
			Addr: in.addr, Type: in.block.kind, Provider: "confdb", Value: in.value, DependsOn: compact(in.deps), Unknown: in.unknown,
			PreventDestroy: in.block.preventDestroy, Ignore: in.block.ignore, block: in.block,
		}
		in.deps = nil
		in.block.eachCondition(func(c *condition) { o.Checked = o.Checked || c.kind == Postcondition })
		for _, tr := range in.block.triggers {
			tr.Addr = tr.Addr.In(in.addr.Module)
			o.ReplaceBy = append(o.ReplaceBy, tr.Trigger)
		}
		switch in.block.kind {
		case addr.TypeGuarantee:
			d.Guarantees = append(d.Guarantees, o)
			continue
		case addr.TypeNode, addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
			o.Provider = in.block.provider
			for i := range o.DependsOn { // a node stands on the machine that it refers to
				if e := &o.DependsOn[i]; in.block.kind == addr.TypeNode && e.To.Type == addr.TypeMachine && !e.waits {
					e.On = true
				}
			}
		case rootResource:
			o.Type = in.block.typ
		}
		d.Objects = append(d.Objects, o)
		d.index.Put(&d.Objects[len(d.Objects)-1]) // there is room for all
	}
}

// Blocks is how many blocks the objects come from, those of a module once for each of
// its instances.
func (d *Definition) Blocks() int {
	n := 0
	for _, m := range d.ev.all {
		for b := range m.blocks {
			n += 1 + len(b.order)
		}
	}
	return n
}

// Object finds an object by address.
func (d *Definition) Object(a addr.Address) (*Object, bool) {
	o := d.index.At(a)
	return o, o != nil
}

// Range is the block's header.
func (o *Object) Range() hcl.Range { return o.block.rng }

// Computed are the attributes of the object that its provider works out.
func (o *Object) Computed() []string {
	var out []string
	for _, a := range o.block.schema.Attributes {
		if a.Computed {
			out = append(out, a.Name)
		}
	}
	return out
}

func (d *Definition) providers() {
	ev := d.ev
	used := map[string]bool{}
	for name := range ev.c.providers {
		used[name] = true
	}
	for _, m := range ev.c.parts {
		m.eachBlock(func(b *block) {
			if b.provider != "" {
				used[b.provider] = true
			}
		})
	}
	for _, name := range sortedKeys(used) {
		p := Provider{Name: name}
		var b *body
		if decl := ev.c.providers[name]; decl != nil {
			b, p.Range = decl.body, decl.rng
		} else {
			s := ev.c.opts.Providers[name]
			b, _, _ = ev.c.compileBody("provider", hcl.EmptyBody(), s.Attributes, s.Blocks, &hcl.BodySchema{})
		}
		in := &instance{ev: ev, block: &block{kind: "provider", body: b}}
		p.Config = cty.ObjectVal(ev.bodyValues(b, in, cty.NilVal))
		d.Providers = append(d.Providers, p)
	}
}

// withRuntime gives the objects of a root their runtime attributes.
func withRuntime(v cty.Value, root string, names []string, live Live) cty.Value {
	t := v.Type()
	if !v.IsKnown() || v.IsNull() || v.IsMarked() {
		return v
	}
	if a, ok := identityOf(v); ok && a.Type == root && !a.IsResource() {
		m := v.AsValueMap()
		for _, name := range names {
			m[name] = cty.UnknownVal(cty.String)
			if live == nil {
				continue
			}
			if text, ok := live(a, name); ok {
				m[name] = cty.StringVal(text)
			}
		}
		return cty.ObjectVal(m)
	}
	switch {
	case t.IsObjectType():
		m := v.AsValueMap()
		for k, e := range m {
			m[k] = withRuntime(e, root, names, live)
		}
		return cty.ObjectVal(m)
	case t.IsTupleType():
		l := v.AsValueSlice()
		for i, e := range l {
			l[i] = withRuntime(e, root, names, live)
		}
		return cty.TupleVal(l)
	}
	return v
}

// Resolve works out the object a once more, with what is known by now of the
// objects that it depends on. known may only grow from call to call. Its cost
// is that of the attributes that were unknown.
func (d *Definition) Resolve(a addr.Address, known Known) (cty.Value, hcl.Diagnostics) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.ev.byAddr.At(a)
	if in == nil || in.value == cty.NilVal {
		return cty.NilVal, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "No such object", Detail: "The definition has no " + a.String() + "."}}
	}
	if !in.value.IsWhollyKnown() {
		d.ev.known = known
		d.ev.again, d.ev.diags = true, nil
		in.ev.refresh(in)
	}
	diags := d.ev.diags
	d.ev.diags = nil
	return in.value, tidy(diags)
}

// Live tells a runtime attribute (state, owner) of a node or group of the
// running cluster; false: it is not known.
type Live func(a addr.Address, attribute string) (string, bool)

// ResolveOutputs works out the outputs once more. live may be nil: then what
// only the running cluster knows stays unknown.
func (d *Definition) ResolveOutputs(known Known, live Live) []Output {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ev.known, d.ev.again, d.ev.quiet, d.ev.live = known, true, true, live
	defer func() { d.ev.quiet, d.ev.live = false, nil }()
	out := slices.Clone(d.Outputs)
	for i := range out {
		o := d.ev.c.outputs[out[i].Name]
		if o.expr != nil && !out[i].Value.IsWhollyKnown() {
			v, _ := d.ev.outputValue(o)
			out[i].Value, _ = v.UnmarkDeep()
		}
	}
	return out
}

// Spec is the definition as the semantic rules, the planner and the failure
// matrix see it. What is unknown is the zero value. Not to be written.
func (d *Definition) Spec() *spec.Definition { return d.spec }

func (d *Definition) typed() *spec.Definition {
	out := &spec.Definition{}
	count := map[string]int{}
	for i := range d.Objects {
		if a := &d.Objects[i].Addr; !a.IsResource() {
			count[a.Type]++
		}
	}
	out.Nodes = make([]spec.Node, 0, count[addr.TypeNode])
	out.Groups = make([]spec.Group, 0, count[addr.TypeGroup])
	// Of the instances of one block, the first is decoded; of the others, a
	// copy of it takes what differs. A resource's first one differs from the
	// defaults of its type.
	type key struct { // each module instance has others
		ev *evaluation
		b  *block
	}
	groups, resources := map[key]*spec.Group{}, map[key]*spec.Resource{}
	defaults := map[string]*spec.Resource{}
	var group *spec.Group
	for i := range d.Objects {
		o := &d.Objects[i]
		in := d.ev.byAddr.At(o.Addr)
		b, of := in.block, key{in.ev, in.block}
		switch {
		case o.Addr.IsResource():
			if group == nil || group.Addr != o.Addr.Owner() {
				continue
			}
			typ := d.ev.c.opts.ResourceTypes[o.Type]
			if group.Resources == nil {
				group.Resources = make([]spec.Resource, 0, len(b.parent.resources))
			}
			group.Resources = append(group.Resources, spec.Resource{})
			r := &group.Resources[len(group.Resources)-1]
			if first := resources[of]; first != nil {
				*r = *first
				names := b.body.varying()
				if b.body.varyLists {
					names = append(names, "depends_on", "depends_on_any")
				}
				d.decoded(schema.DecodeSomeResource(o.Value, typ, r, names))
			} else {
				base := defaults[o.Type]
				if base == nil {
					base = &spec.Resource{}
					d.decoded(schema.DecodeKnownResource(b.body.defaults(), typ, base))
					defaults[o.Type] = base
				}
				*r = *base
				d.decoded(schema.DecodeSomeResource(o.Value, typ, r, b.body.given()))
				if b.repeated() || b.parent.repeated() {
					first := *r
					resources[of] = &first
				}
			}
			r.Addr, r.Name = o.Addr, in.name
		case o.Type == addr.TypeCluster:
			d.decoded(schema.DecodeKnown(o.Value, &out.Cluster))
		case o.Type == addr.TypeNode:
			n := spec.Node{}
			d.decoded(schema.DecodeKnown(o.Value, &n))
			n.Addr, n.Address = o.Addr, endpointOf(o.Value)
			out.Nodes = append(out.Nodes, n)
		case o.Type == addr.TypeFence:
			f := spec.Fence{}
			d.decoded(schema.DecodeKnown(o.Value, &f))
			f.Addr = o.Addr
			out.Fences = append(out.Fences, f)
		case o.Type == addr.TypeGroup:
			out.Groups = append(out.Groups, spec.Group{})
			group = &out.Groups[len(out.Groups)-1]
			if first := groups[of]; first != nil {
				*group = *first
				stated := group.Failover.Stated
				d.decoded(schema.DecodeSome(o.Value, group, append(b.body.varying(), "name", "depends_on", "keep_apart", "keep_apart_soft")))
				group.Failover.Stated = stated // which is in no value
			} else {
				d.decoded(schema.DecodeKnown(o.Value, group))
				for i := range b.body.blocks {
					n := &b.body.blocks[i]
					group.Failover.Stated = group.Failover.Stated || n.Name == "failover" && n.body != nil
				}
				if b.repeated() {
					first := *group
					groups[of] = &first
				}
			}
			group.Failover.Stated = group.Failover.Stated || slices.Contains(in.dynamics, "failover")
			group.Addr = o.Addr
		}
	}
	return out
}

func (d *Definition) decoded(err error) {
	if err != nil {
		d.ev.diags = append(d.ev.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Value out of range", Detail: upperFirst(err.Error()) + "."})
	}
}
