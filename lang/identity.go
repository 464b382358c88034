package lang

import (
	"reflect"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A node, group or resource in an expression is an object of its attributes
// and of one that no expression can name: its identity. Whatever is done with
// such objects (lists, maps, for, conditionals), who they are stays with them,
// so that a list of owners is a list of nodes and never of look-alikes.

const identityAttr = " identity"

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
