package lang

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// context is what an expression sees. False: a key was wrong, which was told.
func (ev *evaluation) context(e *expr, in *instance) (*hcl.EvalContext, bool) {
	if len(e.refs) == 0 && !e.iterated {
		return ev.root, true
	}
	m := ev.memo[e.id].links()
	if !m.haveVars || ev.again {
		vars, ok := ev.shared(e)
		if !ok {
			return nil, false
		}
		m.vars, m.haveVars = vars, true
	}
	if in == nil || !e.perInstance && !e.resources {
		if len(m.vars) == 0 {
			return ev.root, true
		}
		ctx := ev.root.NewChild()
		ctx.Variables = m.vars
		return ctx, true
	}
	if in.ctx == nil {
		in.ctx = ev.root.NewChild()
		in.ctx.Variables = in.vars
	}
	ctx := in.ctx
	if len(m.vars) > 0 {
		ctx = ctx.NewChild()
		ctx.Variables = m.vars
	}
	own, ok := ev.own(e, in, ctx)
	if !ok {
		return nil, false
	}
	if len(own) > 0 {
		ctx = ctx.NewChild()
		ctx.Variables = own
	}
	return ctx, true
}

// keyedPerInstance tells whether a reference's key differs by instance.
func keyedPerInstance(r *ref) bool {
	if r.keyExpr == nil {
		return false
	}
	if r.iterated {
		return true
	}
	for _, t := range r.keyExpr.Variables() {
		switch t.RootName() {
		case rootEach, rootGroupEach, rootCount, rootResource:
			return true
		}
	}
	return false
}

// shared are the references that mean the same in every instance.
func (ev *evaluation) shared(e *expr) (map[string]cty.Value, bool) {
	if vars := ev.ofOne(e); vars != nil {
		return vars, true
	}
	var vars, locals map[string]cty.Value
	put := func(m *map[string]cty.Value, name string, v cty.Value) {
		if *m == nil {
			*m = map[string]cty.Value{}
		}
		(*m)[name] = v
	}
	out := map[string]cty.Value{}
	var byInstance map[string]bool // a root whose keys differ by instance is seen through own
	for i := range e.refs {
		r := &e.refs[i]
		switch {
		case r.root == rootLocal:
			put(&locals, r.name, ev.local(ev.c.locals[r.name]))
		case r.root == rootVar && ev.outer != nil: // the root's are in every context
			put(&vars, r.name, ev.variable(ev.c.vars[r.name]))
		}
		if keyedPerInstance(r) {
			if byInstance == nil {
				byInstance = map[string]bool{}
			}
			byInstance[r.root] = true
		}
	}
	if locals != nil {
		out[rootLocal] = cty.ObjectVal(locals)
	}
	if vars != nil {
		out[rootVar] = cty.ObjectVal(vars)
	}
	if modules := ev.moduleVars(e); modules != nil {
		out[rootModule] = cty.ObjectVal(modules)
	}
	ctx := ev.root.NewChild()
	ctx.Variables = out
	for _, root := range objectRoots {
		if byInstance[root] {
			continue
		}
		vals, ok := ev.blockVars(e, root, ctx, nil)
		if !ok {
			return nil, false
		}
		if vals != nil {
			out[root] = cty.ObjectVal(vals)
		}
	}
	return out, true
}

// ofOne is shared of an expression that refers to one variable of a module, or
// one local value, and to nothing else, as most do: they all see the same map,
// once the value is known. nil: this is none of them.
func (ev *evaluation) ofOne(e *expr) map[string]cty.Value {
	if len(e.refs) == 0 {
		return nil
	}
	first := &e.refs[0]
	for i := range e.refs {
		if r := &e.refs[i]; r.root != first.root || r.name != first.name || r.keyExpr != nil {
			return nil
		}
	}
	var of vertex
	switch {
	case first.root == rootVar && ev.outer != nil:
		of = ev.c.vars[first.name]
	case first.root == rootLocal:
		of = ev.c.locals[first.name]
	default:
		return nil
	}
	vars, ok := ev.seen[of]
	if ok {
		return vars
	}
	var v cty.Value
	switch of := of.(type) {
	case *variable:
		v = ev.variable(of)
	case *local:
		v = ev.local(of)
	}
	if schema.Plain(v) {
		vars = map[string]cty.Value{first.root: cty.ObjectVal(map[string]cty.Value{first.name: v})}
	}
	ev.seen[of] = vars // nil: looking at it again is not worth the time
	return vars
}

// own are the references that mean something else in each instance.
func (ev *evaluation) own(e *expr, in *instance, ctx *hcl.EvalContext) (map[string]cty.Value, bool) {
	var out map[string]cty.Value
	for i := range e.refs {
		r := &e.refs[i]
		if _, have := out[r.root]; have || r.root == rootModule || r.root != rootResource && !keyedPerInstance(r) {
			continue
		}
		vals, ok := ev.blockVars(e, r.root, ctx, in)
		if !ok {
			return nil, false
		}
		if out == nil {
			out = map[string]cty.Value{}
		}
		out[r.root] = cty.ObjectVal(vals)
	}
	return out, true
}
