package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// vertex is what is evaluated in one go: a *local, a *block that is no
// resource, a *providerDecl, an *output, a variable's validations (*variable),
// the instances of a module (*moduleCall), the value of a module's variable
// (argument). Nothing is worked out of contents, all blocks of a module.
type vertex interface{}

type (
	argument struct{ *variable }
	contents struct{}
)

// placed is a vertex of one module of the tree.
type placed struct {
	at *site
	v  vertex
}

// sortVertices finds the order of evaluation of the whole tree, and cycles.
func (c *Config) sortVertices() hcl.Diagnostics {
	var diags hcl.Diagnostics
	s := sorter[placed]{
		needs: c.needs,
		state: map[placed]int{},
		cycle: func(path []step[placed]) { diags = append(diags, c.cycleDiagnostic(path)) },
	}
	c.top.each(func(at *site) {
		m := at.c
		visit := func(v vertex) { s.visit(placed{at, v}) }
		for _, name := range sortedKeys(m.modules) {
			visit(m.modules[name])
		}
		for _, name := range sortedKeys(m.vars) {
			if at.call != nil {
				visit(argument{m.vars[name]})
			}
			visit(m.vars[name])
		}
		for _, name := range sortedKeys(m.locals) {
			visit(m.locals[name])
		}
		for _, name := range sortedKeys(m.providers) {
			visit(m.providers[name])
		}
		m.eachBlock(func(b *block) {
			if b.kind != rootResource {
				visit(b)
			}
		})
		for _, name := range sortedKeys(m.outputs) {
			visit(m.outputs[name])
		}
	})
	c.order = s.order
	for _, m := range c.parts {
		diags = append(diags, m.sortResources()...)
	}
	return diags
}

// sortResources finds the order of the resources in each group.
func (c *Config) sortResources() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, name := range sortedKeys(c.groups) {
		g := c.groups[name]
		rs := sorter[*block]{
			needs: func(b *block) []step[*block] { return resourceNeeds(g, b) },
			state: map[*block]int{},
			cycle: func(path []step[*block]) {
				steps := make([]step[placed], len(path))
				for i, p := range path {
					steps[i] = step[placed]{placed{v: p.to}, p.at}
				}
				diags = append(diags, c.cycleDiagnostic(steps))
			},
		}
		for _, r := range g.resources {
			rs.visit(r)
		}
		g.order = rs.order
	}
	return diags
}

// step is a need of one vertex for another, with the place that says so.
type step[V any] struct {
	to V
	at hcl.Range
}

// sorter orders vertices depth first, needs before what needs them. On a
// cycle it calls cycle with the steps around it and goes on as if the last
// step were not there, so that all cycles are found.
type sorter[V comparable] struct {
	needs func(V) []step[V]
	cycle func([]step[V])
	state map[V]int // 1: on the path, 2: done
	order []V
}

func (s *sorter[V]) visit(start V) {
	if s.state[start] != 0 {
		return
	}
	type frame struct {
		v    V
		at   hcl.Range // how we came here
		rest []step[V]
	}
	s.state[start] = 1
	stack := []frame{{v: start, rest: s.needs(start)}} // no recursion: chains may be long
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if len(top.rest) == 0 {
			s.state[top.v] = 2
			s.order = append(s.order, top.v)
			stack = stack[:len(stack)-1]
			continue
		}
		next := top.rest[0]
		top.rest = top.rest[1:]
		switch s.state[next.to] {
		case 0:
			s.state[next.to] = 1
			stack = append(stack, frame{v: next.to, at: next.at, rest: s.needs(next.to)})
		case 1:
			var path []step[V]
			for i := range stack {
				if len(path) > 0 {
					path = append(path, step[V]{stack[i].v, stack[i].at})
				} else if stack[i].v == next.to {
					path = append(path, step[V]{to: next.to})
				}
			}
			path[0].at = next.at
			s.cycle(path)
		}
	}
}

func (at *site) refNeeds(e *expr, identity bool, out []step[placed]) []step[placed] {
	if e == nil || e.bad {
		return out
	}
	add := func(at *site, v vertex, r *ref) { out = append(out, step[placed]{placed{at, v}, r.rng}) }
	c := at.c
	for i := range e.refs {
		switch r := &e.refs[i]; r.root {
		case rootVar:
			if at.call != nil {
				add(at, argument{c.vars[r.name]}, r)
			}
		case rootLocal:
			add(at, c.locals[r.name], r)
		case rootNode, rootMachine, rootNetwork, rootVolume:
			add(at, c.objects(r.root)[r.name], r)
		case rootGroup:
			if !identity {
				add(at, c.groups[r.name], r)
			}
		case rootModule:
			inner := at.inner[r.name]
			if inner == nil {
				continue // it could not be read
			}
			add(at, inner.call, r)
			for _, o := range inner.c.outputsOf(r) {
				add(inner, o, r)
			}
		}
	}
	return out
}

func (c *Config) needs(p placed) []step[placed] {
	var out []step[placed]
	at := p.at
	if at.call != nil { // its instances, first of all
		out = append(out, step[placed]{placed{at.outer, at.call}, at.call.block.rng})
	}
	switch v := p.v.(type) {
	case *variable:
		for _, check := range v.validations {
			out = at.refNeeds(check.message, false, at.refNeeds(check.condition, false, out))
		}
	case argument:
		out = at.outer.refNeeds(at.call.args[v.name], false, out)
	case *moduleCall:
		out = at.refNeeds(v.block.count, false, at.refNeeds(v.block.forEach, false, out))
	case *local:
		out = at.refNeeds(v.expr, false, out)
	case *providerDecl:
		v.body.each(func(a *attribute) { out = at.refNeeds(a.expr, false, out) })
	case *output:
		out = at.refNeeds(v.expr, false, out)
		for _, dep := range v.dependsOn {
			out = at.dependNeeds(dep, out)
		}
	case contents:
		at.c.eachBlock(func(b *block) {
			if b.kind != rootResource {
				out = append(out, step[placed]{placed{at, b}, b.rng})
			}
		})
		for _, name := range sortedKeys(at.inner) {
			out = append(out, step[placed]{placed{at.inner[name], contents{}}, at.inner[name].call.block.rng})
		}
	case *block:
		if v.kind == addr.TypeGroup && c.cluster != nil {
			out = append(out, step[placed]{placed{c.top, c.cluster}, v.rng}) // its timings are a group's defaults
		}
		for m := at; m.call != nil; m = m.outer {
			for _, dep := range m.call.dependsOn {
				out = m.outer.dependNeeds(dep, out)
			}
		}
		for _, dep := range v.dependsOn {
			out = at.dependNeeds(dep, out)
		}
		out = at.refNeeds(v.count, false, at.refNeeds(v.forEach, false, out))
		each := func(a *attribute) { out = at.refNeeds(a.expr, a.identity, out) }
		v.body.each(each)
		condition := func(cond *condition) { out = at.refNeeds(cond.text, false, at.refNeeds(cond.condition, false, out)) }
		v.eachCondition(condition)
		for _, r := range v.resources {
			out = at.refNeeds(r.count, false, at.refNeeds(r.forEach, false, out))
			r.body.each(each)
			r.eachCondition(condition)
		}
	}
	return out
}

// dependNeeds are the blocks that a depends_on names.
func (at *site) dependNeeds(dep trigger, out []step[placed]) []step[placed] {
	if dep.Addr.Type == "" {
		if inner := at.inner[addr.ModuleSteps(dep.Addr.Module)[0].Name]; inner != nil {
			out = append(out, step[placed]{placed{inner, contents{}}, dep.rng})
		}
	} else if b := at.c.blockAt(dep.Addr.Owner()); b != nil {
		out = append(out, step[placed]{placed{at, b}, dep.rng})
	}
	return out
}

// resourceNeeds are the resources whose attributes r asks for.
func resourceNeeds(g, r *block) []step[*block] {
	var out []step[*block]
	add := func(e *expr) {
		if e == nil || e.bad {
			return
		}
		for _, ref := range e.refs {
			if to := g.byName[ref.name]; ref.root == rootResource && to != nil && to.body != nil {
				out = append(out, step[*block]{to, ref.rng})
			}
		}
	}
	add(r.forEach)
	add(r.count)
	r.body.each(func(a *attribute) {
		if !a.identity {
			add(a.expr)
		}
	})
	return out
}

func (c *Config) cycleDiagnostic(path []step[placed]) *hcl.Diagnostic {
	for _, p := range path {
		c.cyclic = append(c.cyclic, p.to)
	}
	var b strings.Builder
	if len(path) == 1 {
		fmt.Fprintf(&b, "%s refers to itself, at %s. Take the reference out.", path[0].to, path[0].at)
	} else {
		b.WriteString("Each of these needs the next one first:\n")
		for i := range path {
			next := path[(i+1)%len(path)]
			fmt.Fprintf(&b, "  %s needs %s, at %s\n", path[i].to, next.to, next.at)
		}
		b.WriteString("Take one of these references out.")
	}
	return errorAt(path[0].at, "Dependency cycle", b.String())
}

// String is what people call it.
func (p placed) String() string {
	in := ""
	if p.at != nil && p.at.path != "" {
		in = p.at.path + "."
	}
	switch v := p.v.(type) {
	case *variable:
		return in + "var." + v.name
	case argument:
		return in + "var." + v.name
	case *local:
		return in + "local." + v.name
	case *providerDecl:
		return "provider." + v.name
	case *output:
		return in + "output." + v.name
	case *block:
		return in + v.ref()
	case *moduleCall:
		return in + v.block.ref()
	case contents:
		return p.at.path
	}
	return "?"
}
