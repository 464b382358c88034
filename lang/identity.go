package lang

import (
	"bytes"
	"maps"
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A node, group or resource in an expression is an object of its attributes
// and of one that no expression can name: its identity. Whatever is done with
// such objects (lists, maps, for, conditionals), who they are stays with them,
// so that a list of owners is a list of nodes and never of look-alikes.

const identityAttr = " identity"

// What counts or lists the attributes of one such object passes its identity
// over: keys(), values(), length(), and for, whose collection is an argument of
// this function, which no expression can call by itself.
const ownAttributes = " the attributes of an object"

var ownAttributesFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "collection", Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: true, AllowDynamicType: true, AllowMarked: true}},
	Type:   function.StaticReturnType(cty.DynamicPseudoType),
	Impl:   func(args []cty.Value, _ cty.Type) (cty.Value, error) { return ownAttributesOf(args[0]), nil },
})

// withOwnAttributes adds that function to those that a definition can call.
func withOwnAttributes(m map[string]function.Function) map[string]function.Function {
	m[ownAttributes] = ownAttributesFunc
	return m
}

// ownAttributesOf is a node, group or resource without its identity, and
// anything else as it is.
func ownAttributesOf(v cty.Value) cty.Value {
	t := v.Type()
	if !t.IsObjectType() || !t.HasAttribute(identityAttr) {
		return v
	}
	types := maps.Clone(t.AttributeTypes())
	delete(types, identityAttr)
	v, marks := v.Unmark()
	switch {
	case v.IsNull():
		v = cty.NullVal(cty.Object(types))
	case !v.IsKnown():
		v = cty.UnknownVal(cty.Object(types))
	default:
		attrs := v.AsValueMap()
		delete(attrs, identityAttr)
		v = cty.ObjectVal(attrs)
	}
	return v.WithMarks(marks)
}

// ofOwnAttributes is a function of one collection that passes an identity over.
func ofOwnAttributes(f function.Function) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(),
		Type: func(args []cty.Value) (cty.Type, error) {
			return f.ReturnTypeForValues([]cty.Value{ownAttributesOf(args[0])})
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			return f.Call([]cty.Value{ownAttributesOf(args[0])})
		},
	})
}

// loops has the for expressions of a tree that was just parsed pass identities
// over. In files of values and of scenarios nothing can be called.
func loops(n hclsyntax.Node, src []byte, name string) {
	if strings.HasSuffix(name, varsSuffix) || strings.HasSuffix(name, scenarioSuffix) || !bytes.Contains(src, []byte("for ")) && !bytes.Contains(src, []byte("for\t")) && !bytes.Contains(src, []byte("for\n")) {
		return
	}
	_ = hclsyntax.VisitAll(n, func(n hclsyntax.Node) hcl.Diagnostics {
		if e, ok := n.(*hclsyntax.ForExpr); ok {
			switch e.CollExpr.(type) {
			case *hclsyntax.TupleConsExpr, *hclsyntax.ForExpr: // have none
			default:
				if rng := e.CollExpr.Range(); len(e.CollExpr.Variables()) > 0 {
					e.CollExpr = &hclsyntax.FunctionCallExpr{Name: ownAttributes, Args: []hclsyntax.Expression{e.CollExpr}, NameRange: rng, OpenParenRange: rng, CloseParenRange: rng}
				}
			}
		}
		return nil
	})
}

var identityType = cty.CapsuleWithOps("identity", reflect.TypeFor[addr.Address](), &cty.CapsuleOps{
	GoString:     func(v any) string { return v.(*addr.Address).String() },
	TypeGoString: func(reflect.Type) string { return "identity" },
	RawEquals:    func(a, b any) bool { return *a.(*addr.Address) == *b.(*addr.Address) },
	HashKey:      func(v any) string { return v.(*addr.Address).String() },
})

func identityVal(a *addr.Address) cty.Value { return cty.CapsuleVal(identityType, a) }

// identityOf is the address of the object that v is.
func identityOf(v cty.Value) (addr.Address, bool) {
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() || !v.Type().IsObjectType() || !v.Type().HasAttribute(identityAttr) {
		return addr.Address{}, false
	}
	id, _ := v.GetAttr(identityAttr).Unmark()
	if !id.IsKnown() || id.IsNull() || !id.Type().Equals(identityType) {
		return addr.Address{}, false
	}
	return *id.EncapsulatedValue().(*addr.Address), true
}

// identitiesIn lists the objects that v holds, however deep.
func identitiesIn(v cty.Value, out []addr.Address) []addr.Address {
	if !hasIdentity(v.Type()) && v.Type() != cty.DynamicPseudoType {
		return out
	}
	v, _ = v.Unmark()
	if a, ok := identityOf(v); ok {
		return append(out, a)
	}
	if v.IsKnown() && !v.IsNull() && v.CanIterateElements() {
		for it := v.ElementIterator(); it.Next(); {
			_, elem := it.Element()
			out = identitiesIn(elem, out)
		}
	}
	return out
}

func hasIdentity(t cty.Type) bool {
	switch {
	case t.IsObjectType():
		for name, attr := range t.AttributeTypes() {
			if name == identityAttr || hasIdentity(attr) {
				return true
			}
		}
	case t.IsTupleType():
		for _, elem := range t.TupleElementTypes() {
			if hasIdentity(elem) {
				return true
			}
		}
	case t.IsCollectionType():
		return hasIdentity(t.ElementType())
	}
	return t.Equals(identityType)
}

// withoutIdentity makes plain objects of nodes, groups and resources.
// An identity by itself, which for, values() and lookup() find in such an
// object, becomes its address.
func withoutIdentity(v cty.Value) cty.Value {
	t := v.Type()
	if !hasIdentity(t) {
		return v
	}
	v, marks := v.Unmark()
	plain := plainType(t)
	switch {
	case t.Equals(identityType) && v.IsKnown() && !v.IsNull():
		return cty.StringVal(v.EncapsulatedValue().(*addr.Address).String()).WithMarks(marks)
	case !v.IsKnown():
		return cty.UnknownVal(plain).WithMarks(marks)
	case v.IsNull():
		return cty.NullVal(plain).WithMarks(marks)
	case t.IsObjectType():
		attrs := make(map[string]cty.Value, len(t.AttributeTypes()))
		for name := range t.AttributeTypes() {
			if name != identityAttr {
				attrs[name] = withoutIdentity(v.GetAttr(name))
			}
		}
		return cty.ObjectVal(attrs).WithMarks(marks)
	case t.IsMapType():
		elems := make(map[string]cty.Value, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			key, elem := it.Element()
			elems[key.AsString()] = withoutIdentity(elem)
		}
		if len(elems) == 0 {
			return cty.MapValEmpty(plain.ElementType()).WithMarks(marks)
		}
		return cty.MapVal(elems).WithMarks(marks)
	}
	elems := make([]cty.Value, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, elem := it.Element()
		elems = append(elems, withoutIdentity(elem))
	}
	var out cty.Value
	switch {
	case t.IsTupleType():
		out = cty.TupleVal(elems)
	case t.IsListType() && len(elems) == 0:
		out = cty.ListValEmpty(plain.ElementType())
	case t.IsListType():
		out = cty.ListVal(elems)
	case len(elems) == 0:
		out = cty.SetValEmpty(plain.ElementType())
	default:
		out = cty.SetVal(elems)
	}
	return out.WithMarks(marks)
}

func plainType(t cty.Type) cty.Type {
	switch {
	case t.IsObjectType():
		attrs := make(map[string]cty.Type, len(t.AttributeTypes()))
		for name, attr := range t.AttributeTypes() {
			if name != identityAttr {
				attrs[name] = plainType(attr)
			}
		}
		return cty.Object(attrs)
	case t.IsTupleType():
		elems := make([]cty.Type, len(t.TupleElementTypes()))
		for i, elem := range t.TupleElementTypes() {
			elems[i] = plainType(elem)
		}
		return cty.Tuple(elems)
	case t.IsListType():
		return cty.List(plainType(t.ElementType()))
	case t.IsMapType():
		return cty.Map(plainType(t.ElementType()))
	case t.IsSetType():
		return cty.Set(plainType(t.ElementType()))
	case t.Equals(identityType):
		return cty.String
	}
	return t
}

// constant is the value of an expression that may name nothing.
func constant(e hcl.Expression) (cty.Value, hcl.Diagnostics) {
	v, diags := e.Value(nil)
	var out hcl.Diagnostics
	for _, d := range diags {
		if call, ok := d.Expression.(*hclsyntax.FunctionCallExpr); ok && call.Name == ownAttributes { // which nobody has written
			_, inner := call.Args[0].Value(nil)
			out = append(out, inner...)
			continue
		}
		out = append(out, d)
	}
	return v, out
}
