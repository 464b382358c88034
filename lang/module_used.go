package lang

import "github.com/clusterplan/clusterplan/lang/addr"

// usedOutputs finds the modules' outputs with preconditions that something
// hangs on, also through other modules.
type usedOutputs struct {
	seen map[any]bool
	list []usedOutput
}

type usedOutput struct {
	ev *evaluation
	o  *output
}

func (u *usedOutputs) expr(ev *evaluation, e *expr) {
	if e == nil || e.bad {
		return
	}
	type key struct {
		ev *evaluation
		v  vertex
	}
	first := func(ev *evaluation, v vertex) bool {
		was := u.seen[key{ev, v}]
		u.seen[key{ev, v}] = true
		return !was
	}
	for i := range e.refs {
		switch r := &e.refs[i]; r.root {
		case rootLocal:
			if l := ev.c.locals[r.name]; first(ev, l) {
				u.expr(ev, l.expr)
			}
		case rootVar:
			if v := ev.c.vars[r.name]; ev.outer != nil && first(ev, v) {
				u.expr(ev.outer, ev.call.args[v.name])
			}
		case rootModule:
			mi := ev.modules[ev.c.modules[r.name]]
			if mi == nil {
				continue
			}
			for _, m := range mi.list {
				for _, o := range m.c.outputsOf(r) {
					if !first(m, o) {
						continue
					}
					u.expr(m, o.expr)
					if len(o.preconditions) > 0 {
						u.list = append(u.list, usedOutput{m, o})
					}
				}
			}
		}
	}
}

// look looks at their preconditions.
func (u *usedOutputs) look() []Condition {
	var out []Condition
	for _, used := range u.list {
		out = append(out, used.ev.lookAll(used.o.preconditions, addr.JoinModules(used.ev.path, "output."+used.o.name))...)
	}
	return out
}

// outputsUsed looks at the preconditions of the modules' outputs that an
// object hangs on: without them it isn't made.
func (in *instance) outputsUsed() []Condition {
	if len(in.ev.all) == 1 {
		return nil
	}
	u := usedOutputs{seen: map[any]bool{}}
	b := in.block
	u.expr(in.ev, b.forEach)
	u.expr(in.ev, b.count)
	b.body.each(func(a *attribute) { u.expr(in.ev, a.expr) })
	b.eachCondition(func(c *condition) {
		u.expr(in.ev, c.condition)
		u.expr(in.ev, c.text)
	})
	return u.look()
}
