package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// canonical brings a value to its attribute's type and form: time spans and
// sizes in their one text, quantities as whole numbers, objects as names. ids
// are the objects that a list names, in its order.
func (ev *evaluation) canonical(a *attribute, v cty.Value, in *instance) (cty.Value, []addr.Address, *hcl.Diagnostic) {
	rng := a.expr.Range()
	top, marks := v.Unmark()
	if top.IsNull() {
		if a.Required {
			return cty.NilVal, nil, errorAt(rng, "Missing "+a.Name, fmt.Sprintf("%s is null, and a value is required. %s", a.Name, a.Doc))
		}
		return a.deflt, nil, nil
	}
	want := a.Type
	if a.identity && want == spec.TypeStrings {
		want = "list(resource)"
	}
	switch want {
	case spec.TypeNodeRefs, spec.TypeGroupRefs, spec.TypeNetworkRefs, spec.TypeVolumeRefs, "list(resource)":
		return ev.names(a, top, in, referred(string(want)))
	case spec.TypeNetworkRef, spec.TypeVolumeRef:
		return ev.oneName(a, top, in, string(want))
	case spec.TypeQuantities:
		out, d := quantities(a, v, rng)
		return out, nil, d
	}
	if !top.IsKnown() && top.Type() == cty.DynamicPseudoType {
		return cty.UnknownVal(a.typ).WithMarks(marks), nil, nil
	}
	if hasIdentity(top.Type()) {
		return cty.NilVal, nil, errorAt(rng, "Wrong type for "+a.Name, fmt.Sprintf("%s is %s, and this refers to a whole object. Ask for one of its attributes.", a.Name, typeText(a.Type)))
	}
	if a.Type == spec.TypeStrings {
		if list, ok := schema.Texts(v); ok && (list.LengthInt() > 0 || !a.Required) {
			return list, nil, nil
		}
	}
	v, err := convert.Convert(v, a.typ)
	if err != nil {
		return cty.NilVal, nil, errorAt(rng, "Wrong type for "+a.Name, fmt.Sprintf("%s is %s: %s.", a.Name, typeText(a.Type), pathError(err)))
	}
	top, marks = v.Unmark()
	if !top.IsKnown() {
		return v, nil, nil
	}
	if top.IsNull() {
		return a.deflt, nil, nil
	}
	switch a.Type {
	case spec.TypeString:
		text := top.AsString()
		if text == "" && a.Default == nil {
			if a.Required {
				return cty.NilVal, nil, errorAt(rng, "Missing "+a.Name, fmt.Sprintf("%s is empty, and a value is required. %s", a.Name, a.Doc))
			}
			return a.deflt, nil, nil
		}
		if len(a.Values) > 0 && !contains(a.Values, text) {
			shown := fmt.Sprintf("%q", text)
			if len(marks) > 0 {
				shown = "This (a sensitive value)"
			}
			return cty.NilVal, nil, errorAt(rng, "Invalid value for "+a.Name, fmt.Sprintf("%s is none of the values of %s.%s It is one of: %s.", shown, a.Name, didYouMean("", text, a.Values), strings.Join(a.Values, ", ")))
		}
	case spec.TypeDuration:
		d, err := spec.ParseDuration(top.AsString())
		if err != nil {
			return cty.NilVal, nil, errorAt(rng, "Invalid time span for "+a.Name, told(err, marks))
		}
		v = cty.StringVal(d.String()).WithMarks(marks)
	case spec.TypeSize:
		n, err := spec.ParseSize(top.AsString())
		if err != nil {
			return cty.NilVal, nil, errorAt(rng, "Invalid size for "+a.Name, told(err, marks))
		}
		v = cty.StringVal(spec.FormatSize(n)).WithMarks(marks)
	case spec.TypeNumber:
		if n, acc := top.AsBigFloat().Int64(); acc != 0 || n < 0 {
			return cty.NilVal, nil, errorAt(rng, "Invalid value for "+a.Name, a.Name+" is a whole number from 0.")
		}
	case spec.TypeCounts:
		for it := top.ElementIterator(); it.Next(); {
			name, n := it.Element()
			n, _ = n.Unmark()
			if !n.IsKnown() {
				continue
			}
			if n.IsNull() {
				return cty.NilVal, nil, errorAt(rng, "Invalid value for "+a.Name, fmt.Sprintf("%s is null. Leave it out, or give a number.", name.AsString()))
			}
			if i, acc := n.AsBigFloat().Int64(); acc != 0 || i < 0 {
				return cty.NilVal, nil, errorAt(rng, "Invalid value for "+a.Name, name.AsString()+" is a whole number from 0.")
			}
		}
	case spec.TypeStrings, spec.TypeStringMap:
		if !nullFree(top) {
			return cty.NilVal, nil, errorAt(rng, "Invalid value for "+a.Name, "An element is null. Leave it out, or use an empty string.")
		}
		if top.LengthInt() == 0 && a.Required {
			return cty.NilVal, nil, errorAt(rng, "Missing "+a.Name, fmt.Sprintf("%s is empty, and a value is required. %s", a.Name, a.Doc))
		}
	}
	return v, nil, nil
}

// told is an error's text, unless it would show what isn't to be shown.
func told(err error, marks cty.ValueMarks) string {
	if len(marks) > 0 {
		return "The value doesn't fit; it is sensitive, so it isn't shown."
	}
	return upperFirst(err.Error()) + "."
}

func nullFree(v cty.Value) bool {
	for it := v.ElementIterator(); it.Next(); {
		_, elem := it.Element()
		if elem, _ = elem.Unmark(); elem.IsNull() {
			return false
		}
	}
	return true
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func typeText(t spec.ValueType) string {
	switch t {
	case spec.TypeString:
		return "a string"
	case spec.TypeNumber:
		return "a number"
	case spec.TypeBool:
		return "true or false"
	case spec.TypeDuration:
		return `a time span, as "30s"`
	case spec.TypeSize:
		return `a size, as "10MiB"`
	case spec.TypeStrings:
		return "a list of strings"
	case spec.TypeStringMap:
		return "a map of strings"
	case spec.TypeCounts:
		return "a map of whole numbers"
	}
	return string(t)
}

// quantities reads a capacity or a demand: numbers and sizes by name.
func quantities(a *attribute, v cty.Value, rng hcl.Range) (cty.Value, *hcl.Diagnostic) {
	v, marks := v.Unmark()
	wrong := func(why string) (cty.Value, *hcl.Diagnostic) {
		return cty.NilVal, errorAt(rng, "Invalid value for "+a.Name, why+fmt.Sprintf(` Write %s = { cpu = 2, memory = "4GiB" }.`, a.Name))
	}
	if !v.IsKnown() {
		return cty.UnknownVal(a.typ).WithMarks(marks), nil
	}
	if t := v.Type(); !t.IsMapType() && !t.IsObjectType() || hasIdentity(t) {
		return wrong(a.Name + " is a map of quantities.")
	}
	out := map[string]cty.Value{}
	for name, q := range v.AsValueMap() {
		q, m := q.Unmark()
		if !q.IsKnown() {
			out[name] = cty.UnknownVal(cty.Number).WithMarks(m)
			continue
		}
		text, err := convert.Convert(q, cty.String)
		if err != nil || text.IsNull() {
			return wrong(name + " is no quantity.")
		}
		n, err := spec.ParseQuantity(name, text.AsString())
		if err != nil {
			return wrong(fmt.Sprintf("%s: %s", name, told(err, m)))
		}
		out[name] = cty.NumberIntVal(n).WithMarks(m)
	}
	if len(out) == 0 {
		return a.deflt, nil
	}
	return cty.MapVal(out).WithMarks(marks), nil
}

// names reads a list of nodes, groups or resources.
func (ev *evaluation) names(a *attribute, v cty.Value, in *instance, kind string) (cty.Value, []addr.Address, *hcl.Diagnostic) {
	rng := a.expr.Range()
	example := fmt.Sprintf("[%s.NAME, ...]", kind)
	if id, ok := identityOf(v); ok {
		return cty.NilVal, nil, errorAt(rng, "Wrong type for "+a.Name, fmt.Sprintf("%s is a list. Write [%s].", a.Name, id))
	}
	if !v.IsKnown() {
		return cty.UnknownVal(a.typ), nil, nil
	}
	t := v.Type()
	if t.IsObjectType() || t.IsMapType() {
		return cty.NilVal, nil, errorAt(rng, "Wrong type for "+a.Name, fmt.Sprintf("%s is a list, and this is a map. Write values(...) around it.", a.Name))
	}
	if !t.IsListType() && !t.IsTupleType() && !t.IsSetType() {
		return cty.NilVal, nil, errorAt(rng, "Wrong type for "+a.Name, fmt.Sprintf("%s is a list of %ss, as %s.", a.Name, kind, example))
	}
	var ids []addr.Address
	var names []cty.Value
	seen := map[addr.Address]bool{}
	for it := v.ElementIterator(); it.Next(); {
		_, elem := it.Element()
		elem, _ = elem.Unmark()
		if !elem.IsKnown() {
			return cty.UnknownVal(a.typ), nil, nil
		}
		id, ok := identityOf(elem)
		if !ok {
			detail := fmt.Sprintf("%s is a list of %ss themselves, as %s.", a.Name, kind, example)
			if elem.Type() == cty.String && !elem.IsNull() {
				detail += fmt.Sprintf(" Did you mean %s.%s, without quotes?", kind, strings.TrimPrefix(elem.AsString(), kind+"."))
			}
			return cty.NilVal, nil, errorAt(rng, "Not a "+kind, detail)
		}
		have := id.Type
		if id.IsResource() {
			have = rootResource
		}
		if have != kind {
			return cty.NilVal, nil, errorAt(rng, "Not a "+kind, fmt.Sprintf("%s is a list of %ss, and %s is none.", a.Name, kind, id))
		}
		if seen[id] {
			return cty.NilVal, nil, errorAt(rng, "Named twice", fmt.Sprintf("%s has %s twice. Remove one.", a.Name, id))
		}
		if d := ev.sameProvider(a, id, in); d != nil {
			return cty.NilVal, nil, d
		}
		seen[id] = true
		ids = append(ids, id)
		names = append(names, cty.StringVal(ev.nameOf(id)))
	}
	if len(names) == 0 {
		return schema.Absent(a.typ), nil, nil
	}
	return cty.ListVal(names), ids, nil
}

// oneName reads an attribute that names one network or volume.
func (ev *evaluation) oneName(a *attribute, v cty.Value, in *instance, kind string) (cty.Value, []addr.Address, *hcl.Diagnostic) {
	rng := a.expr.Range()
	id, ok := identityOf(v)
	switch {
	case !ok && !v.IsKnown():
		return cty.UnknownVal(a.typ), nil, nil
	case !ok && v.Type() == cty.String:
		return cty.NilVal, nil, errorAt(rng, "Not a "+kind, fmt.Sprintf("%s is a %s itself. Did you mean %s.%s, without quotes?", a.Name, kind, kind, strings.TrimPrefix(v.AsString(), kind+".")))
	case !ok:
		return cty.NilVal, nil, errorAt(rng, "Not a "+kind, fmt.Sprintf("%s is a %s itself, as %s.NAME; of a block with for_each or count, with its key.", a.Name, kind, kind))
	case id.Type != kind:
		return cty.NilVal, nil, errorAt(rng, "Not a "+kind, fmt.Sprintf("%s is a %s, and %s is none.", a.Name, kind, id))
	}
	if d := ev.sameProvider(a, id, in); d != nil {
		return cty.NilVal, nil, d
	}
	return cty.StringVal(ev.nameOf(id)), []addr.Address{id}, nil
}

// nameOf is an object's name.
func (ev *evaluation) nameOf(id addr.Address) string {
	if target := ev.byAddr.At(id); target != nil {
		return target.name
	}
	return id.DefaultName()
}

// sameProvider: by a name, a provider finds only what it has made itself.
func (ev *evaluation) sameProvider(a *attribute, id addr.Address, in *instance) *hcl.Diagnostic {
	target := ev.byAddr.At(id)
	if !addr.Machinery(id.Type) || in == nil || target == nil || target.block.provider == in.block.provider {
		return nil
	}
	return errorAt(a.expr.Range(), "Of another provider", fmt.Sprintf("%s is made by provider %s, and %s by %s. Use one of the same.", id, target.block.provider, in.addr, in.block.provider))
}

// referred is what a list of references is to name: node, group or resource.
func referred(want string) string {
	return strings.TrimSuffix(strings.TrimPrefix(want, "list("), ")")
}

// named is names of a list as nearly all are, [node.a, node.b]: who is meant is
// known without making a value of each. False: it is another list, or something
// may be wrong with it.
func (ev *evaluation) named(a *attribute, in *instance) (cty.Value, []addr.Address, bool) {
	kind := referred(string(a.Type))
	if a.identity && a.Type == spec.TypeStrings {
		kind = rootResource
	}
	if _, ok := a.expr.Expression.(*nameList); !ok && !isNameList(a.expr.Expression, a.expr.refs) || a.expr.bad || ev.again || len(ev.broken) > 0 {
		return cty.NilVal, nil, false
	}
	ids, names := make([]addr.Address, len(a.expr.refs)), make([]cty.Value, len(a.expr.refs))
	for i := range a.expr.refs {
		r := &a.expr.refs[i]
		if r.root != kind {
			return cty.NilVal, nil, false
		}
		b, is := ev.target(r, in)
		if is == nil || is.unknown || b.repeated() || len(is.list) != 1 {
			return cty.NilVal, nil, false
		}
		target := is.list[0]
		if target.attrs == nil && target.value == cty.NilVal || target.broken || slices.Contains(ids[:i], target.addr) {
			return cty.NilVal, nil, false
		}
		ids[i], names[i] = target.addr, cty.StringVal(target.name)
	}
	return cty.ListVal(names), ids, true
}
