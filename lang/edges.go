package lang

import (
	"sort"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// attrEdges appends what an attribute refers to. A reference is hard if the
// value hangs on what only an apply will know: without it there is no value.
// It is soft if the value is known whatever becomes of the object. Owners are
// soft as well: they order, and never skip. References between resources of a
// group are hard; they live and die together. So are those to machines, networks
// and volumes: without them there is nothing to make anything on.
func (ev *evaluation) attrEdges(out []Edge, a *attribute, in *instance, unknown bool, ids []addr.Address) []Edge {
	switch kind, _ := a.Type.Refers(); {
	case a.Type == spec.TypeNodeRefs:
		for _, id := range ids {
			out = append(out, Edge{To: id})
		}
		return out
	case addr.Machinery(kind):
		for _, id := range ids {
			out = append(out, Edge{To: id, Hard: true, On: true})
		}
		return out
	}
	if a.expr.bad || len(a.expr.refs) == 0 {
		return out
	}
	edges := ev.exprEdges(a.expr, in)
	if len(edges) == 0 {
		return out
	}
	for _, e := range edges {
		e.Hard = e.Hard && unknown || e.To.IsResource() || addr.Machinery(e.To.Type)
		out = append(out, e)
	}
	return out
}

// constantEdges are the edges of what is the same in every instance of a body.
func (ev *evaluation) constantEdges(b *body) []Edge {
	var out []Edge
	b.each(func(a *attribute) {
		if !a.identity && !a.expr.perInstance {
			m := &ev.memo[a.expr.id]
			out = ev.attrEdges(out, a, nil, m.unknown, m.ids())
		}
	})
	return compact(out)
}

// exprEdges are the objects that an expression refers to, also through local
// values and each.value.
func (ev *evaluation) exprEdges(e *expr, in *instance) []Edge {
	if len(e.refs) == 0 {
		return nil
	}
	m := ev.memo[e.id].links()
	if !m.haveDeps {
		m.haveDeps = true
		for i := range e.refs {
			r := &e.refs[i]
			switch r.root {
			case rootLocal:
				m.edges = append(m.edges, ev.localEdges(ev.c.locals[r.name])...)
			case rootVar:
				m.edges = append(m.edges, ev.variableEdges(ev.c.vars[r.name])...)
			case rootModule:
				if !keyedPerInstance(r) {
					m.edges = ev.moduleEdges(m.edges, r, nil)
				}
			case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
				if !keyedPerInstance(r) {
					m.edges = ev.refEdges(m.edges, r, nil)
				}
			}
		}
		m.edges = compact(m.edges)
	}
	if in == nil || !e.perInstance {
		return m.edges
	}
	out := append([]Edge(nil), m.edges...)
	for i := range e.refs {
		r := &e.refs[i]
		switch r.root {
		case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
			if keyedPerInstance(r) {
				out = ev.refEdges(out, r, in)
			}
		case rootModule:
			if keyedPerInstance(r) {
				out = ev.moduleEdges(out, r, in)
			}
		case rootResource:
			out = ev.refEdges(out, r, in)
		case rootEach:
			if r.name == "value" {
				out = append(out, ev.eachEdges(in)...)
			}
		case rootGroupEach:
			if r.name == "value" && in.parent != nil {
				out = append(out, ev.eachEdges(in.parent)...)
			}
		}
	}
	return out
}

// localEdges are the objects that a local value refers to.
func (ev *evaluation) localEdges(l *local) []Edge {
	edges, ok := ev.localDeps[l]
	if !ok {
		ev.localDeps[l] = nil // a cycle ends here
		if l.expr != nil && !l.expr.bad {
			edges = ev.exprEdges(l.expr, nil)
		}
		ev.localDeps[l] = edges
	}
	return edges
}

// eachEdges are the objects in an instance's each.value.
func (ev *evaluation) eachEdges(in *instance) []Edge {
	if in.haveEach {
		return in.eachDeps
	}
	in.haveEach = true
	each, ok := in.vars[rootEach]
	if !ok {
		return nil
	}
	value := each.GetAttr("value")
	for _, a := range identitiesIn(value, nil) {
		in.eachDeps = append(in.eachDeps, Edge{To: a, Hard: true})
	}
	if len(in.eachDeps) == 0 && !value.IsWhollyKnown() && in.block.forEach != nil {
		in.eachDeps = ev.exprEdges(in.block.forEach, ev.asker(in.block, in.parent))
	}
	return in.eachDeps
}

func (ev *evaluation) refEdges(out []Edge, r *ref, in *instance) []Edge {
	b, is := ev.target(r, in)
	if is == nil {
		return out
	}
	hard := true
	if r.attr != "" {
		if a, ok := b.schema.Attribute(r.attr); ok && a.KnownAtPlan && r.root != rootResource {
			hard = false
		}
		for _, name := range runtimeAttributes[r.root] {
			hard = hard && name != r.attr
		}
	}
	if b.repeated() && (r.key != cty.NilVal || r.keyExpr != nil) {
		ctx := ev.root
		if r.keyExpr != nil {
			var ok bool
			if ctx, ok = ev.keyContext(r, in); !ok {
				return out
			}
		}
		ev.quiet = true
		target, state := ev.keyed(r, b, is, ctx)
		ev.quiet = false
		if state == keyFound {
			return append(out, Edge{To: target.addr, Hard: hard})
		}
		if state == keyWrong {
			return out
		}
	}
	for _, t := range is.list {
		out = append(out, Edge{To: t.addr, Hard: hard})
	}
	return out
}

// keyContext is what the key of a reference sees.
func (ev *evaluation) keyContext(r *ref, in *instance) (*hcl.EvalContext, bool) {
	key := &expr{Expression: r.keyExpr, refs: findRefs(r.keyExpr)}
	vars, ok := ev.shared(key)
	if !ok {
		return nil, false
	}
	ctx := ev.root.NewChild()
	ctx.Variables = vars
	if in != nil && len(in.vars) > 0 {
		ctx = ctx.NewChild()
		ctx.Variables = in.vars
	}
	return ctx, true
}

// compact puts edges into address order, each object once, hard if any is, and
// standing on it likewise.
func compact(edges []Edge) []Edge {
	if len(edges) < 2 {
		return edges
	}
	sort.Slice(edges, func(i, j int) bool {
		if c := addr.Compare(edges[i].To, edges[j].To); c != 0 {
			return c < 0
		}
		return edges[i].Hard && !edges[j].Hard
	})
	out := edges[:1]
	for _, e := range edges[1:] {
		if last := &out[len(out)-1]; e.To != last.To {
			out = append(out, e)
		} else {
			last.On = last.On || e.On
			last.waits = last.waits && e.waits
		}
	}
	return out
}
