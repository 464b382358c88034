package lang

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// moduleInstances are those of one module block.
type moduleInstances struct {
	list    []*evaluation
	byKey   map[addr.Key]*evaluation
	unknown bool                 // for_each failed, or the module could not be read
	views   map[string]cty.Value // all instances with some outputs, by the outputs' names
}

// newEvaluation makes the evaluation of one module, all else empty.
func newEvaluation(w *world, at *site) *evaluation {
	c := at.c
	ev := &evaluation{
		world:      w,
		c:          c,
		memo:       make([]memo, c.exprs),
		vars:       map[*variable]cty.Value{},
		locals:     make(map[*local]cty.Value, len(c.locals)),
		outputs:    map[*output]cty.Value{},
		blocks:     map[*block]*instances{},
		modules:    map[*moduleCall]*moduleInstances{},
		broken:     map[vertex]bool{},
		varDeps:    map[*variable][]Edge{},
		localDeps:  map[*local][]Edge{},
		outputDeps: map[*output][]Edge{},
		shares:     map[*body]*shared{},
		sealed:     map[*body]cty.Value{},
		spares:     map[*attributeShape][]map[string]cty.Value{},
		seen:       map[vertex]map[string]cty.Value{},
		root: &hcl.EvalContext{
			Functions: c.functions,
			Variables: map[string]cty.Value{
				rootPath: cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(c.dir), "root": cty.StringVal(".")}),
			},
		},
	}
	for _, p := range c.root.cyclic {
		if p.at != at && p.at != nil {
			continue
		}
		ev.broken[p.v] = true
		if a, ok := p.v.(argument); ok {
			ev.broken[a.variable] = true
		}
	}
	w.all = append(w.all, ev)
	w.at[at] = append(w.at[at], ev)
	return ev
}

// module finds the instances of a module block.
func (ev *evaluation) module(call *moduleCall, inner *site) {
	mi := &moduleInstances{}
	ev.modules[call] = mi
	if inner == nil {
		mi.unknown = true
		return
	}
	if call.block.repeated() {
		mi.byKey = map[addr.Key]*evaluation{}
	}
	mi.unknown = !ev.repeat(call.block, nil, func(key addr.Key, vars map[string]cty.Value) {
		m := newEvaluation(ev.world, inner)
		m.outer, m.call = ev, call
		m.inst = &instance{ev: ev, block: call.block, addr: addr.Address{Type: rootModule, Name: call.block.name, Key: key}, vars: vars}
		m.path = addr.JoinModules(ev.path, addr.ModuleStep{Name: call.block.name, Key: key}.String())
		mi.list = append(mi.list, m)
		if mi.byKey != nil {
			mi.byKey[key] = m
		}
	})
}

// variable is the value of a variable; unknown after an error.
func (ev *evaluation) variable(v *variable) cty.Value {
	if ev.outer == nil {
		return v.value
	}
	val, ok := ev.vars[v]
	if ok && (!ev.again || val.IsWhollyKnown()) {
		return val
	}
	if !ok && ev.again {
		return cty.DynamicVal // stands in a cycle
	}
	ev.vars[v] = cty.DynamicVal // a cycle ends here
	val = ev.argument(v)
	if v.sensitive {
		val = val.Mark(schema.Sensitive)
	}
	ev.vars[v] = val
	return val
}

// argument is the value that a module's caller gives to a variable, or its default.
func (ev *evaluation) argument(v *variable) cty.Value {
	e := ev.call.args[v.name]
	if e == nil {
		if v.deflt == cty.NilVal || !v.deflt.IsWhollyKnown() { // told
			ev.broken[v] = true
			return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep())
		}
		return v.deflt
	}
	if ev.again {
		ev.outer.freshen(ev.inst)
	}
	val, bad := ev.outer.eval(e, ev.inst)
	if bad {
		ev.broken[v] = true
		return cty.UnknownVal(v.typ.WithoutOptionalAttributesDeep())
	}
	if val.IsNull() && !v.nullable && v.deflt != cty.NilVal {
		return v.deflt
	}
	val, diags := v.convert(val, e.Range(), "The argument")
	if len(diags) > 0 {
		ev.add(diags...)
		ev.broken[v] = true
	}
	return val
}

// output is the value of a module's output, which keeps who nodes and groups are.
func (ev *evaluation) output(o *output) cty.Value {
	val, ok := ev.outputs[o]
	if ok && (!ev.again || val.IsWhollyKnown()) {
		return val
	}
	if !ok && ev.again && !o.runtime || o.expr == nil {
		return cty.DynamicVal // stands in a cycle, or was told
	}
	if !o.runtime {
		ev.outputs[o] = cty.DynamicVal // a cycle ends here
	}
	val, bad := ev.outputSeen(o)
	if bad {
		ev.broken[o] = true
	}
	if o.sensitive {
		val = val.Mark(schema.Sensitive)
	}
	if !o.runtime {
		ev.outputs[o] = val
	}
	return val
}

// moduleVars are the modules that an expression refers to, each with the
// outputs that it asks for.
func (ev *evaluation) moduleVars(e *expr) map[string]cty.Value {
	var out map[string]cty.Value
	for i := range e.refs {
		r := &e.refs[i]
		if r.root != rootModule || out[r.name] != cty.NilVal {
			continue
		}
		if out == nil {
			out = map[string]cty.Value{}
		}
		call := ev.c.modules[r.name]
		if call == nil || call.module == nil {
			out[r.name] = cty.DynamicVal
			continue
		}
		// Of all references to it together.
		var want []*output
		for k := range e.refs {
			if other := &e.refs[k]; other.root == rootModule && other.name == r.name {
				for _, o := range call.module.outputsOf(other) {
					if !slices.Contains(want, o) {
						want = append(want, o)
					}
				}
			}
		}
		out[r.name] = ev.moduleView(call, want)
	}
	return out
}

// moduleView is a module with some of its outputs: of its instance, or an
// object (for_each) or a tuple (count) of its instances.
func (ev *evaluation) moduleView(call *moduleCall, want []*output) cty.Value {
	mi := ev.modules[call]
	if mi == nil || mi.unknown {
		return cty.DynamicVal
	}
	names, keep := make([]string, len(want)), true
	for i, o := range want {
		names[i], keep = o.name, keep && !o.runtime
	}
	key := strings.Join(names, ",")
	if v, ok := mi.views[key]; ok && (!ev.again || v.IsWhollyKnown()) {
		return v
	}
	one := func(m *evaluation) cty.Value {
		if call.module.unparsedOwn { // what it seems to lack may stand where it can't be read
			return cty.DynamicVal
		}
		attrs := make(map[string]cty.Value, len(want))
		for _, o := range want {
			attrs[o.name] = m.output(o)
		}
		return cty.ObjectVal(attrs)
	}
	var v cty.Value
	switch {
	case call.block.forEach != nil:
		attrs := make(map[string]cty.Value, len(mi.list))
		for _, m := range mi.list {
			attrs[m.inst.addr.Key.Plain()] = one(m)
		}
		v = cty.ObjectVal(attrs)
	case call.block.count != nil:
		elems := make([]cty.Value, len(mi.list))
		for i, m := range mi.list {
			elems[i] = one(m)
		}
		v = cty.TupleVal(elems)
	default:
		v = one(mi.list[0])
	}
	if keep {
		if mi.views == nil {
			mi.views = map[string]cty.Value{}
		}
		mi.views[key] = v
	}
	return v
}

// moduleBroken tells whether a reference to a module is to something that had
// an error.
func (ev *evaluation) moduleBroken(r *ref) bool {
	call := ev.c.modules[r.name]
	if call == nil || call.module == nil || ev.broken[call] {
		return true
	}
	mi := ev.modules[call]
	if mi == nil || mi.unknown {
		return true
	}
	for _, m := range mi.list {
		if len(m.broken) == 0 {
			continue
		}
		for _, o := range call.module.outputsOf(r) {
			if m.broken[o] {
				return true
			}
		}
	}
	return false
}

// moduleEdges are the objects that a reference to a module asks for: what its
// outputs need, and nothing else of the module.
func (ev *evaluation) moduleEdges(out []Edge, r *ref, in *instance) []Edge {
	call := ev.c.modules[r.name]
	mi := ev.modules[call]
	if mi == nil || mi.unknown {
		return out
	}
	list := mi.list
	if call.block.repeated() && (r.key != cty.NilVal || r.keyExpr != nil) {
		if m := ev.keyedModule(r, call.block, mi, in); m != nil {
			list = []*evaluation{m}
		}
	}
	for _, m := range list {
		for _, o := range call.module.outputsOf(r) {
			out = append(out, m.outputEdges(o)...)
		}
	}
	return out
}

// keyedModule is the instance that a reference with a key means, nil where
// that isn't known.
func (ev *evaluation) keyedModule(r *ref, b *block, mi *moduleInstances, in *instance) *evaluation {
	key := r.key
	if r.keyExpr != nil {
		ctx, ok := ev.keyContext(r, in)
		if !ok {
			return nil
		}
		var diags hcl.Diagnostics
		if key, diags = r.keyExpr.Value(ctx); diags.HasErrors() {
			return nil
		}
	}
	k, ok := keyOf(b, key)
	if !ok {
		return nil
	}
	return mi.byKey[k]
}

// outputEdges are the objects that an output needs.
func (ev *evaluation) outputEdges(o *output) []Edge {
	edges, ok := ev.outputDeps[o]
	if !ok && o.expr != nil {
		ev.outputDeps[o] = nil // a cycle ends here
		if !o.expr.bad {
			edges = slices.Clone(ev.exprEdges(o.expr, nil))
		}
		for _, dep := range o.dependsOn {
			edges = ev.dependEdges(edges, dep.Addr)
		}
		edges = compact(edges)
		ev.outputDeps[o] = edges
	}
	return edges
}

// variableEdges are the objects that the value of a module's variable needs.
func (ev *evaluation) variableEdges(v *variable) []Edge {
	if ev.outer == nil {
		return nil
	}
	edges, ok := ev.varDeps[v]
	if !ok {
		ev.varDeps[v] = nil // a cycle ends here
		if e := ev.call.args[v.name]; e != nil && !e.bad {
			edges = ev.outer.exprEdges(e, ev.inst)
		}
		ev.varDeps[v] = edges
	}
	return edges
}

// dependEdges are the objects that a depends_on names.
func (ev *evaluation) dependEdges(out []Edge, a addr.Address) []Edge {
	if a.IsModule() {
		step := addr.ModuleSteps(a.Module)[0]
		call := ev.c.modules[step.Name]
		if mi := ev.modules[call]; call != nil && mi != nil {
			for _, m := range mi.list {
				if step.Key.IsNone() || step.Key == m.inst.addr.Key {
					out = m.everything(out)
				}
			}
		}
		return out
	}
	if is := ev.blocks[ev.c.blockAt(a.Owner())]; is != nil {
		for _, in := range is.list {
			if a.Key.IsNone() || a.Key == in.addr.Key {
				out = append(out, dependEdge(in))
			}
		}
	}
	return out
}

// dependEdge: a node that fails takes no group with it.
func dependEdge(in *instance) Edge {
	return Edge{To: in.addr, Hard: in.block.kind != addr.TypeNode, waits: true}
}

// everything is all objects of a module and of those within.
func (ev *evaluation) everything(out []Edge) []Edge {
	ev.c.eachBlock(func(b *block) {
		if is := ev.blocks[b]; is != nil && b.kind != addr.TypeGuarantee {
			for _, in := range is.list {
				out = append(out, dependEdge(in))
			}
		}
	})
	for _, name := range sortedKeys(ev.c.modules) {
		if mi := ev.modules[ev.c.modules[name]]; mi != nil {
			for _, m := range mi.list {
				out = m.everything(out)
			}
		}
	}
	return out
}

// depends adds to a module's objects what their own depends_on names, the
// module's, and those of the modules around it.
func (ev *evaluation) depends() {
	var edges []Edge
	for m := ev; m.outer != nil; m = m.outer {
		for _, dep := range m.call.dependsOn {
			edges = m.outer.dependEdges(edges, dep.Addr)
		}
	}
	edges = compact(edges)
	ev.c.eachBlock(func(b *block) {
		own := edges
		for _, dep := range b.dependsOn {
			own = ev.dependEdges(slices.Clip(own), dep.Addr)
		}
		if is := ev.blocks[b]; is != nil && b.kind != addr.TypeGuarantee && len(own) > 0 {
			for _, in := range is.list {
				in.deps = append(in.deps, own...)
			}
		}
	})
}
