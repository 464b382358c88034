package lang

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// dynamic is a dynamic block: as many blocks of one type as its for_each has
// elements. It is compiled as any block, and unfolded for each instance of the
// object that it stands in, since for_each may be another one there.
type dynamic struct {
	rng      hcl.Range
	forEach  attribute
	label    *attribute // of a block with a label
	iterator string
	content  *body
}

// What for_each and labels of a dynamic block are, where an attribute is asked for.
var (
	dynamicForEach = &attributeShape{Attribute: spec.Attribute{Name: "for_each"}, typ: cty.DynamicPseudoType}
	dynamicLabel   = &attributeShape{Attribute: spec.Attribute{Name: "labels"}, typ: cty.String}
)

// iterators are the names that the content of dynamic blocks sees, by what is
// being compiled.
type iterators []string

// take drops references to iterators, which are no part of the definition, and
// notes that the value is another one for each block.
func (its iterators) take(e *expr) hcl.Diagnostics {
	if len(its) == 0 {
		return nil
	}
	var diags hcl.Diagnostics
	rest := e.refs[:0:0]
	for _, r := range e.refs {
		if slices.Contains(its, r.root) {
			e.iterated, e.perInstance = true, true
			if r.name != "key" && r.name != "value" {
				diags = append(diags, errorAt(r.rng, "Unknown reference", fmt.Sprintf("In the content of this dynamic block there are %s.key and %s.value.", r.root, r.root)))
			}
			continue
		}
		if r.keyExpr != nil {
			for _, t := range r.keyExpr.Variables() {
				r.iterated = r.iterated || slices.Contains(its, t.RootName())
			}
		}
		rest = append(rest, r)
	}
	e.refs = rest
	e.bad = e.bad || diags.HasErrors()
	return diags
}

// dynamicBlock reads a dynamic block in a block called name.
func (c *Config) dynamicBlock(name string, out *body, src *hcl.Block) hcl.Diagnostics {
	typ := src.Labels[0]
	at := slices.IndexFunc(out.blocks, func(n nested) bool { return n.Name == typ })
	switch {
	case typ == rootResource:
		return hcl.Diagnostics{errorAt(src.DefRange, "Dynamic resource", `A resource has an address, so that it can't be dynamic. Write resource "TYPE" "NAME" { for_each = ... }, which repeats it.`)}
	case neverDynamic(name, typ):
		return hcl.Diagnostics{errorAt(src.DefRange, "Dynamic "+typ, fmt.Sprintf("There is one %s block, and no plan without it being known. Write the block itself; its attributes can be expressions.", typ))}
	case at < 0:
		var known []string
		for _, n := range out.blocks {
			known = append(known, n.Name)
		}
		has := "It has no blocks inside."
		if len(known) > 0 {
			has = "It has: " + strings.Join(known, ", ") + "."
		}
		return hcl.Diagnostics{errorAt(src.LabelRanges[0], "Unknown block", fmt.Sprintf("A %s block has no block %q inside.%s %s", name, typ, didYouMean("", typ, known), has))}
	}
	n := &out.blocks[at]
	content, diags := contentIn(src, dynamicBody)
	if diags.HasErrors() {
		return diags
	}
	d := &dynamic{rng: src.DefRange, iterator: typ, forEach: attribute{attributeShape: dynamicForEach}}
	if a, ok := content.Attributes["iterator"]; ok {
		if d.iterator = hcl.ExprAsKeyword(a.Expr); d.iterator == "" || slices.Contains(roots, d.iterator) || d.iterator == rootSelf {
			return append(diags, errorAt(a.Expr.Range(), "Invalid iterator", fmt.Sprintf("iterator is the bare name by which the content calls an element, as in iterator = it. It is none of: %s.", strings.Join(roots, ", "))))
		}
	}
	over, ok := content.Attributes["for_each"]
	if !ok {
		return append(diags, errorAt(src.DefRange, "Missing for_each", fmt.Sprintf("A dynamic block says with for_each how many %s blocks there are: a list, a set or a map.", typ)))
	}
	e, more := c.compileOver(over.Expr)
	diags = append(diags, more...)
	d.forEach.expr = e
	c.iterators = append(c.iterators, d.iterator)
	defer func() { c.iterators = c.iterators[:len(c.iterators)-1] }()
	if diags = append(diags, c.dynamicLabels(d, n, src, content.Attributes["labels"])...); diags.HasErrors() {
		return diags
	}
	if len(content.Blocks) != 1 {
		return append(diags, errorAt(src.DefRange, "One content", fmt.Sprintf("A dynamic block has one block content { ... }, with what stands in each %s; this one has %d.", typ, len(content.Blocks))))
	}
	d.content, _, more = c.compileBody(typ, content.Blocks[0].Body, unlabelled(n.Block), n.Blocks, &hcl.BodySchema{})
	diags = append(diags, more...)
	n.given().all = append(n.all, labelled{body: d.content, rng: src.DefRange, dynamic: d})
	return diags
}

// dynamicLabels reads the labels of a dynamic block: one, or none.
func (c *Config) dynamicLabels(d *dynamic, n *nested, src *hcl.Block, a *hcl.Attribute) hcl.Diagnostics {
	switch {
	case a == nil && n.Label != "":
		return hcl.Diagnostics{errorAt(src.DefRange, "Missing labels", fmt.Sprintf("A %s block has a label. Add labels = [%s.key], or another list of one string.", n.Name, d.iterator))}
	case a == nil:
		return nil
	case n.Label == "":
		return hcl.Diagnostics{errorAt(a.NameRange, "No labels here", fmt.Sprintf("A %s block has no label. Remove this line.", n.Name))}
	}
	elems, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() || len(elems) != 1 {
		return hcl.Diagnostics{errorAt(a.Expr.Range(), "One label", fmt.Sprintf("A %s block has one label: write labels = [%s.key], or another list of one string.", n.Name, d.iterator))}
	}
	e, diags := c.compile(elems[0], false)
	d.label = &attribute{attributeShape: dynamicLabel, expr: e}
	return diags
}

// each visits the expressions beside the content.
func (d *dynamic) each(f func(*attribute)) {
	f(&d.forEach)
	if d.label != nil {
		f(d.label)
	}
}

// unfolded is the value of a block that is repeated, or dynamic.
func (ev *evaluation) unfolded(n *nested, in *instance) cty.Value {
	var list []cty.Value
	labels, ok := map[string]bool{}, true
	if n.body != nil {
		list = append(list, cty.ObjectVal(ev.bodyValues(n.body, in, cty.NilVal)))
	}
	put := func(b *body, in *instance, label string, rng hcl.Range) {
		if !n.Repeated && len(list) > 0 {
			ev.add(errorAt(rng, "Duplicate "+n.Name+" block", fmt.Sprintf("There is one %s block at most, and this makes another one. Give for_each one element, or none: for_each = CONDITION ? [1] : [].", n.Name)))
			ok = false
			return
		}
		if n.Label != "" && labels[label] {
			ev.add(errorAt(rng, "Duplicate "+n.Name+" block", fmt.Sprintf("%s %q is there twice. Give each another label.", n.Name, label)))
			ok = false
			return
		}
		labels[label] = true
		attrs := ev.bodyValues(b, in, cty.NilVal)
		if n.Label != "" {
			attrs[n.Label] = cty.StringVal(label)
		}
		list = append(list, cty.ObjectVal(attrs))
	}
	for _, l := range n.all {
		if l.dynamic == nil {
			put(l.body, in, l.label, l.rng)
			continue
		}
		keys, values, good := ev.elements(l.dynamic, in)
		ok = ok && good
		unknown := false
		for i := range keys {
			// The content sees what its object sees, and the element.
			sub := *in
			sub.vars, sub.ctx = maps.Clone(in.vars), nil
			if sub.vars == nil {
				sub.vars = map[string]cty.Value{}
			}
			sub.vars[l.dynamic.iterator] = cty.ObjectVal(map[string]cty.Value{"key": keys[i], "value": values[i]})
			label, good := "", true
			if l.dynamic.label != nil {
				label, good = ev.labelOf(l.dynamic, &sub)
				sub.deps = ev.attrEdges(sub.deps, l.dynamic.label, &sub, false, nil)
			}
			sub.unknown = false
			if ok = ok && good; good {
				put(l.body, &sub, label, l.rng)
			}
			in.deps, in.broken, unknown = sub.deps, in.broken || sub.broken, unknown || sub.unknown
		}
		in.unknown = in.unknown || unknown
		if !ev.again { // what the content knows of an element, it has from what for_each refers to
			m := &ev.memo[l.dynamic.forEach.expr.id]
			m.unknown = m.unknown || unknown
			in.deps = ev.attrEdges(in.deps, &l.dynamic.forEach, in, unknown, nil)
		}
	}
	switch {
	case !ok:
		in.broken = true
		return cty.UnknownVal(n.deflt.Type())
	case len(list) == 0:
		return n.deflt
	case n.Repeated:
		return cty.ListVal(list)
	}
	in.stands(n.Name)
	return list[0]
}

// stands notes that a dynamic block of this type is there.
func (in *instance) stands(name string) {
	if !slices.Contains(in.dynamics, name) {
		in.dynamics = append(slices.Clip(in.dynamics), name)
	}
}

// elements are those of a dynamic block's for_each, in its order.
func (ev *evaluation) elements(d *dynamic, in *instance) (keys, values []cty.Value, ok bool) {
	e := d.forEach.expr
	v, bad := ev.once(e, in)
	if bad {
		return nil, nil, false
	}
	wrong := func(summary, detail string) ([]cty.Value, []cty.Value, bool) {
		ev.add(errorAt(e.Range(), summary, detail))
		return nil, nil, false
	}
	if v.HasMark(schema.Sensitive) {
		return wrong("Sensitive for_each", "How many blocks there are is shown. Use nonsensitive() if it may be.")
	}
	v, _ = v.Unmark()
	t := v.Type()
	id, one := identityOf(v)
	switch {
	case v.IsNull():
		return wrong("Invalid for_each", "for_each is null. Use [] for no block.")
	case !v.IsKnown():
		return wrong("Unknown for_each", "How many blocks there are must be known when planning. "+whatToTarget(e))
	case one:
		return wrong("Invalid for_each", fmt.Sprintf("%s is one object and no collection. Use [%s].", id, id))
	case !v.CanIterateElements():
		return wrong("Invalid for_each", fmt.Sprintf("for_each of a dynamic block is a list, a set or a map, and this is of type %s.", t.FriendlyNameForConstraint()))
	}
	for it := v.ElementIterator(); it.Next(); {
		k, elem := it.Element()
		if t.IsSetType() {
			if !elem.IsWhollyKnown() {
				return wrong("Unknown for_each", "The elements of a set must be known when planning. "+whatToTarget(e))
			}
			k = elem
		}
		keys, values = append(keys, k), append(values, elem)
	}
	return keys, values, true
}

// labelOf is the label of one of the blocks.
func (ev *evaluation) labelOf(d *dynamic, in *instance) (string, bool) {
	v, bad := ev.eval(d.label.expr, in)
	if bad {
		return "", false
	}
	rng := d.label.expr.Range()
	if schema.IsSensitive(v) {
		ev.add(errorAt(rng, "Sensitive label", "Labels are shown. Use nonsensitive(), or another label."))
		return "", false
	}
	v, err := convert.Convert(v, cty.String)
	if err != nil || !v.IsKnown() || v.IsNull() || v.AsString() == "" {
		ev.add(errorAt(rng, "Invalid label", "A label is a string that is not empty and known when planning."))
		return "", false
	}
	return v.AsString(), true
}
