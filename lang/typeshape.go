package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// typeShape is the type of a variable that takes nodes, groups, machines, networks
// or volumes themselves:
// alone, or in a list, set, map, tuple or object. Its values are what the
// expression language makes of such blocks, tuples and objects, so that
// who they are stays with them; a cty collection would want all alike.
type typeShape struct {
	kind     string // node, group, machine, network, volume; list, set, map, tuple, object; "": plain
	plain    cty.Type
	elem     *typeShape
	elems    []*typeShape
	attrs    map[string]*typeShape
	optional map[string]bool
}

// refers tells whether there are nodes or groups in it.
func (t *typeShape) refers() bool { return t != nil && t.kind != "" }

// readShape reads a type expression in which node or group stands.
func readShape(e hcl.Expression) (*typeShape, hcl.Diagnostics) {
	wrong := func(rng hcl.Range, detail string) (*typeShape, hcl.Diagnostics) {
		return nil, hcl.Diagnostics{errorAt(rng, "Invalid type", detail)}
	}
	mentions := false
	for _, t := range e.Variables() {
		mentions = mentions || isObject(t.RootName())
	}
	if !mentions {
		typ, defaults, diags := typeexpr.TypeConstraintWithDefaults(e)
		if diags.HasErrors() {
			return nil, diags
		}
		if defaults != nil && len(defaults.DefaultValues)+len(defaults.Children) > 0 {
			return wrong(e.Range(), "Beside nodes, groups and the like, optional(...) takes no default here. Use coalesce() where the value is used.")
		}
		return &typeShape{plain: typ}, nil
	}
	if name := hcl.ExprAsKeyword(e); isObject(name) {
		return &typeShape{kind: name}, nil
	}
	call, diags := hcl.ExprCall(e)
	if diags.HasErrors() {
		return wrong(e.Range(), "A node, group, network, machine or volume stands alone as a type, or in list(), set(), map(), tuple([]) and object({}), as map(node).")
	}
	if len(call.Arguments) != 1 {
		return wrong(e.Range(), call.Name+"() takes one type.")
	}
	arg := call.Arguments[0]
	switch call.Name {
	case "list", "set", "map":
		elem, diags := readShape(arg)
		return &typeShape{kind: call.Name, elem: elem}, diags
	case "tuple":
		list, diags := hcl.ExprList(arg)
		if diags.HasErrors() {
			return nil, diags
		}
		out := &typeShape{kind: "tuple"}
		for _, one := range list {
			elem, more := readShape(one)
			diags = append(diags, more...)
			out.elems = append(out.elems, elem)
		}
		return out, diags
	case "object":
		pairs, diags := hcl.ExprMap(arg)
		if diags.HasErrors() {
			return nil, diags
		}
		out := &typeShape{kind: "object", attrs: map[string]*typeShape{}, optional: map[string]bool{}}
		for _, pair := range pairs {
			name := hcl.ExprAsKeyword(pair.Key)
			if name == "" {
				diags = append(diags, errorAt(pair.Key.Range(), "Invalid type", "An attribute of object({}) is a name, without quotes."))
				continue
			}
			value := pair.Value
			if inner, bad := hcl.ExprCall(value); !bad.HasErrors() && inner.Name == "optional" {
				if len(inner.Arguments) != 1 {
					diags = append(diags, errorAt(value.Range(), "Invalid type", "Beside nodes, groups and the like, optional(...) takes no default here. Use coalesce() where the value is used."))
					continue
				}
				out.optional[name], value = true, inner.Arguments[0]
			}
			attr, more := readShape(value)
			diags = append(diags, more...)
			out.attrs[name] = attr
		}
		return out, diags
	}
	return wrong(call.NameRange, fmt.Sprintf("There is no type %s(). A node, group, network, machine or volume stands in list(), set(), map(), tuple([]) and object({}).", call.Name))
}

// String is the type as the definition has it.
func (t *typeShape) String() string {
	switch t.kind {
	case "":
		return typeexpr.TypeString(t.plain)
	case "list", "set", "map":
		return fmt.Sprintf("%s(%s)", t.kind, t.elem)
	case "tuple":
		texts := make([]string, len(t.elems))
		for i, e := range t.elems {
			texts[i] = e.String()
		}
		return "tuple([" + strings.Join(texts, ", ") + "])"
	case "object":
		var texts []string
		for _, name := range sortedKeys(t.attrs) {
			text := t.attrs[name].String()
			if t.optional[name] {
				text = "optional(" + text + ")"
			}
			texts = append(texts, name+" = "+text)
		}
		return "object({ " + strings.Join(texts, ", ") + " })"
	}
	return t.kind
}

// fit brings a value to the type.
func (t *typeShape) fit(v cty.Value) (cty.Value, error) { return t.fitAt(v, nil) }

func (t *typeShape) fitAt(v cty.Value, at cty.Path) (cty.Value, error) {
	if t.kind == "" {
		out, err := convert.Convert(v, t.plain)
		if err != nil {
			return cty.DynamicVal, at.NewError(err)
		}
		return out, nil
	}
	v, marks := v.Unmark()
	if !v.IsKnown() || v.IsNull() {
		if isObject(t.kind) || v.Type() == cty.DynamicPseudoType {
			return v.WithMarks(marks), nil
		}
	}
	typ := v.Type()
	wrong := func(format string, args ...any) (cty.Value, error) {
		return cty.DynamicVal, at.NewErrorf(format, args...)
	}
	who, is := identityOf(v)
	switch t.kind {
	case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
		switch {
		case !is && typ == cty.String:
			return wrong("a %s itself is wanted, as %s.NAME, and this is a text", t.kind, t.kind)
		case !is:
			return wrong("a %s itself is wanted, as %s.NAME, and this is none", t.kind, t.kind)
		case who.Type != t.kind || who.IsResource():
			return wrong("a %s is wanted, and %s is none", t.kind, who)
		}
		return v.WithMarks(marks), nil
	case "list", "set":
		if is || !typ.IsTupleType() && !typ.IsListType() && !typ.IsSetType() {
			if typ.IsObjectType() || typ.IsMapType() {
				return wrong("a %s is wanted, and this is a map; write values(...) around it", t.kind)
			}
			return wrong("a %s is wanted", t.kind)
		}
		var elems []cty.Value
		seen := map[addr.Address]bool{}
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			e, err := t.elem.fitAt(e, append(at[:len(at):len(at)], cty.IndexStep{Key: cty.NumberIntVal(int64(len(elems)))}))
			if err != nil {
				return e, err
			}
			if a, ok := identityOf(e); ok && t.kind == "set" {
				if seen[a] {
					continue
				}
				seen[a] = true
			}
			elems = append(elems, e)
		}
		return cty.TupleVal(elems).WithMarks(marks), nil
	case "tuple":
		if !typ.IsTupleType() || typ.Length() != len(t.elems) {
			return wrong("a list of %d elements is wanted", len(t.elems))
		}
		elems := v.AsValueSlice()
		for i, e := range elems {
			var err error
			if elems[i], err = t.elems[i].fitAt(e, append(at[:len(at):len(at)], cty.IndexStep{Key: cty.NumberIntVal(int64(i))})); err != nil {
				return elems[i], err
			}
		}
		return cty.TupleVal(elems).WithMarks(marks), nil
	}
	if is || !typ.IsObjectType() && !typ.IsMapType() {
		if is {
			return wrong("a map of %ss is wanted, and this is one; write { KEY = %s }", who.Type, who)
		}
		return wrong("a map is wanted")
	}
	attrs := v.AsValueMap()
	out := map[string]cty.Value{}
	if t.kind == "map" {
		for name, e := range attrs {
			var err error
			if out[name], err = t.elem.fitAt(e, append(at[:len(at):len(at)], cty.IndexStep{Key: cty.StringVal(name)})); err != nil {
				return out[name], err
			}
		}
		return cty.ObjectVal(out).WithMarks(marks), nil
	}
	for name, want := range t.attrs {
		e, ok := attrs[name]
		switch {
		case !ok && t.optional[name]:
			e = cty.NullVal(cty.DynamicPseudoType)
		case !ok:
			return wrong("attribute %q is missing", name)
		}
		var err error
		if out[name], err = want.fitAt(e, append(at[:len(at):len(at)], cty.GetAttrStep{Name: name})); err != nil {
			return out[name], err
		}
	}
	return cty.ObjectVal(out).WithMarks(marks), nil
}

// losesIdentity finds a node, group or resource in v that a conversion to a
// plain type would make a look-alike of: its address, and the type that the
// variable should have.
func losesIdentity(v cty.Value, to cty.Type, wrap func(string) string) (who, should string) {
	if !hasIdentity(v.Type()) || to == cty.DynamicPseudoType {
		return "", ""
	}
	if wrap == nil {
		wrap = func(s string) string { return s }
	}
	v, _ = v.Unmark()
	if a, ok := identityOf(v); ok {
		kind := a.Type
		if a.IsResource() {
			kind = rootResource
		}
		return a.String(), wrap(kind)
	}
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return "", ""
	}
	for it := v.ElementIterator(); it.Next(); {
		key, e := it.Element()
		var inner cty.Type
		var outer string
		switch {
		case to.IsMapType():
			inner, outer = to.ElementType(), "map(%s)"
		case to.IsListType():
			inner, outer = to.ElementType(), "list(%s)"
		case to.IsSetType():
			inner, outer = to.ElementType(), "set(%s)"
		case to.IsObjectType() && key.Type() == cty.String && to.HasAttribute(key.AsString()):
			inner, outer = to.AttributeType(key.AsString()), "object({ "+key.AsString()+" = %s })"
		default:
			inner, outer = to, "%s"
		}
		if inner == cty.DynamicPseudoType {
			continue
		}
		if who, should := losesIdentity(e, inner, func(s string) string { return wrap(fmt.Sprintf(outer, s)) }); who != "" {
			return who, should
		}
	}
	return "", ""
}
