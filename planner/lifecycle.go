package planner

import (
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// ignore has what is there stand for what the definition says, in the
// attributes that only count at create.
func (b *builder) ignore(it *item) {
	if len(it.want.Ignore) > 0 && it.prior.Value != cty.NilVal {
		it.want.config = keep(it.want.Value, it.veil(it.prior.Value), it.want.Ignore)
	}
}

// keeper is ignore for what only an apply knows.
func (it *item) keeper() func(cty.Value) cty.Value {
	if it.want == nil || len(it.want.Ignore) == 0 || it.prior == nil || it.prior.Value == cty.NilVal {
		return nil
	}
	prior, paths := it.veil(it.prior.Value), it.want.Ignore
	return func(v cty.Value) cty.Value { return keep(v, prior, paths) }
}

// keep is v with prior's values at the paths.
func keep(v, prior cty.Value, paths []cty.Path) cty.Value {
	for _, p := range paths {
		v = keepAt(v, prior, p)
	}
	return v
}

func keepAt(v, prior cty.Value, path cty.Path) cty.Value {
	if len(path) == 0 {
		hidden := v.ContainsMarked() || prior.ContainsMarked()
		if prior, _ = prior.UnmarkDeep(); hidden { // sensitive it stays
			prior = prior.Mark(schema.Sensitive)
		}
		return prior
	}
	u, marks := v.Unmark()
	w, hidden := prior.Unmark()
	if !u.IsKnown() || !w.IsKnown() {
		return v
	}
	switch step := path[0].(type) {
	case cty.GetAttrStep:
		if u.IsNull() || w.IsNull() || !u.Type().IsObjectType() || !w.Type().IsObjectType() || !u.Type().HasAttribute(step.Name) || !w.Type().HasAttribute(step.Name) {
			return v
		}
		attrs := u.AsValueMap()
		attrs[step.Name] = keepAt(attrs[step.Name], w.GetAttr(step.Name).WithMarks(hidden), path[1:])
		return cty.ObjectVal(attrs).WithMarks(marks)
	case cty.IndexStep:
		if !u.Type().IsMapType() || !w.Type().IsMapType() {
			return v
		}
		was, is := elements(w), elements(u)
		key := step.Key.AsString()
		e, had := was[key]
		if _, has := is[key]; !had && !has {
			return v
		}
		if delete(is, key); had {
			is[key] = e.WithMarks(hidden)
		}
		if len(is) == 0 {
			return schema.Absent(u.Type()).WithMarks(marks)
		}
		return cty.MapVal(is).WithMarks(marks)
	}
	return v
}

func elements(v cty.Value) map[string]cty.Value {
	out := map[string]cty.Value{}
	if !v.IsNull() {
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			out[k.AsString()] = e
		}
	}
	return out
}

// stays has the cluster after the apply keep what the definition doesn't
// change any more: the failure matrix and the times are worked out from it.
func (b *builder) stays() {
	cloned := false
	for _, it := range b.items {
		if it.want == nil || len(it.want.Ignore) == 0 || it.want.config.RawEquals(it.want.Value) {
			continue
		}
		if !cloned { // the definition's own is not to be written
			cloned = true
			b.after.Nodes, b.after.Groups, b.after.Fences = slices.Clone(b.after.Nodes), slices.Clone(b.after.Groups), slices.Clone(b.after.Fences)
		}
		b.stay(it)
	}
}

func (b *builder) stay(it *item) {
	var names []string
	for _, p := range it.want.Ignore {
		name := p[0].(cty.GetAttrStep).Name
		if name != "address" && name != "port" { // which stand together there
			names = append(names, name)
		}
	}
	config := it.want.config
	switch owner := it.addr().Owner(); {
	case it.addr().Type == addr.TypeCluster:
		_ = schema.DecodeSome(config, &b.after.Cluster, names)
	case it.addr().Type == addr.TypeNode:
		if i := slices.IndexFunc(b.after.Nodes, func(n spec.Node) bool { return n.Addr == it.addr() }); i >= 0 {
			_ = schema.DecodeSome(config, &b.after.Nodes[i], names)
		}
	case it.addr().Type == addr.TypeFence:
		if i := slices.IndexFunc(b.after.Fences, func(f spec.Fence) bool { return f.Addr == it.addr() }); i >= 0 {
			_ = schema.DecodeSome(config, &b.after.Fences[i], names)
		}
	default:
		i := slices.IndexFunc(b.after.Groups, func(g spec.Group) bool { return g.Addr == owner })
		if i < 0 {
			return
		}
		g := &b.after.Groups[i]
		if !it.addr().IsResource() {
			_ = schema.DecodeSome(config, g, names)
			return
		}
		g.Resources = slices.Clone(g.Resources)
		for k := range g.Resources {
			if g.Resources[k].Addr == it.addr() {
				_ = schema.DecodeSomeResource(config, spec.ResourceTypes()[it.want.Type], &g.Resources[k], names)
			}
		}
	}
}

// triggers has objects made anew whose replace_triggered_by names something
// that changes, or that stand on something that is made anew; and so on, for what
// names those and stands on them.
func (b *builder) triggers() {
	var waiting []*item
	for _, it := range b.items {
		if it.want != nil && len(it.want.ReplaceBy)+len(it.want.on()) > 0 && it.prior != nil && !it.left {
			waiting = append(waiting, it)
		}
	}
	for more := len(waiting) > 0; more; {
		more = false
		for _, it := range waiting {
			if c := it.change; b.under[it] == "" && c.Action() == "replace" {
				if b.under[it] = b.underneath(it); b.under[it] != "" { // from which the rest follows
					c.Reason, c.Why = ReasonStandsOn, append([]string{b.under[it]}, c.Why...)
				}
			}
			if action := it.change.Action(); b.trigger[it]+b.under[it] != "" || action != "no-op" && action != "update" {
				continue
			}
			for _, tr := range it.want.ReplaceBy {
				if b.trigger[it] = b.fired(tr, it); b.trigger[it] != "" {
					break
				}
			}
			if b.trigger[it] == "" {
				b.under[it] = b.underneath(it)
			}
			if b.trigger[it]+b.under[it] == "" {
				continue
			}
			more = true
			b.plan.Drift = slices.DeleteFunc(b.plan.Drift, func(d Drift) bool { return d.Address == it.addr() })
			*it.change, it.remove, it.phases, it.moves = Change{Address: it.addr()}, nil, nil, false
			b.change(it)
		}
	}
}

// fired is the object that a trigger names and that is updated or made anew;
// "": none is.
func (b *builder) fired(tr lang.Trigger, self *item) string {
	for _, it := range b.named(tr.Addr) {
		c := it.change
		switch {
		case it == self:
		case c.Action() == "replace":
			return it.addr().String()
		case c.Action() != "update":
		case tr.Attribute == "":
			return it.addr().String()
		case slices.ContainsFunc(c.Attributes, func(a AttributeChange) bool {
			rest, ok := strings.CutPrefix(a.Path, tr.Attribute)
			return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
		}):
			return it.addr().String() + "." + tr.Attribute
		}
	}
	return ""
}

// named are the items at an address: the one, or all instances of the block.
func (b *builder) named(a addr.Address) []*item {
	if it := b.at.At(a); it != nil {
		return []*item{it}
	}
	var out []*item
	for _, it := range b.items {
		block := it.addr().WithoutKey()
		if a.IsResource() && a.Key.IsNone() {
			block.Key = addr.NoKey
		}
		if block == a {
			out = append(out, it)
		}
	}
	return out
}
