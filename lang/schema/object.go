package schema

import (
	"math/big"
	"reflect"
	"unsafe"

	"github.com/zclconf/go-cty/cty"
)

// ObjectOf is cty.ObjectVal(attrs), whose type is known beforehand: ty. False: it
// would be of another type.
//
// cty.ObjectVal makes a type, two maps of all attributes, for every object, which
// of thousands of objects costs more than what they hold. cty has no other way to
// make one, so that this looks into its values. Where they don't look as expected,
// it leaves the work to cty. What is null is not held at all: to cty an attribute
// that is not there is null, and a map of fewer names takes less memory.
func ObjectOf(ty cty.Type, attrs map[string]cty.Value) (cty.Value, bool) {
	if !plain {
		v := cty.ObjectVal(attrs)
		return v, v.Type().Equals(ty)
	}
	want := ty.AttributeTypes()
	if len(want) != len(attrs) {
		return cty.NilVal, false
	}
	there := 0
	for name, v := range attrs {
		t, ok := want[name]
		if !ok || !equal(t, v.Type()) {
			return cty.NilVal, false
		}
		if (*value)(unsafe.Pointer(&v)).v != nil {
			there++
		}
	}
	raw := make(map[string]any, there)
	for name, v := range attrs {
		if held := (*value)(unsafe.Pointer(&v)).v; held != nil {
			raw[name] = held
		}
	}
	out := value{ty, raw}
	return *(*cty.Value)(unsafe.Pointer(&out)), true
}

// Plain tells whether v is known and without marks in all its parts, without an
// iterator and a key for each of them. False: it may be so all the same.
func Plain(v cty.Value) bool {
	return plain && plainRaw((*value)(unsafe.Pointer(&v)).v)
}

func plainRaw(v any) bool {
	switch v := v.(type) {
	case nil, string, bool, *big.Float:
		return true
	case []any:
		for _, e := range v {
			if !plainRaw(e) {
				return false
			}
		}
		return true
	case map[string]any:
		for _, e := range v {
			if !plainRaw(e) {
				return false
			}
		}
		return true
	}
	return false
}

// Attribute is the attribute of an object. False: it has none of that name, or v
// is no object that is known, unmarked and not null.
func Attribute(v cty.Value, name string) (cty.Value, bool) {
	if !v.Type().IsObjectType() {
		return cty.NilVal, false
	}
	ty, ok := v.Type().AttributeTypes()[name]
	if !ok {
		return cty.NilVal, false
	}
	if !plain {
		if v.IsMarked() || !v.IsKnown() || v.IsNull() {
			return cty.NilVal, false
		}
		return v.GetAttr(name), true
	}
	raw, ok := (*value)(unsafe.Pointer(&v)).v.(map[string]any)
	if !ok {
		return cty.NilVal, false
	}
	out := value{ty, raw[name]}
	return *(*cty.Value)(unsafe.Pointer(&out)), true
}

// Elements are those of a list or a tuple that are texts, known, not null and not
// marked, without a number made for each of them. False: it is something else. Not
// to be written.
func Elements(v cty.Value) ([]any, bool) {
	if !plain {
		return nil, false
	}
	raw, ok := (*value)(unsafe.Pointer(&v)).v.([]any)
	if !ok {
		return nil, false
	}
	for _, e := range raw {
		if _, ok := e.(string); !ok {
			return nil, false
		}
	}
	return raw, true
}

// Texts is a list or a tuple of texts, all of them known, as a list of strings,
// which is what convert.Convert makes of it. False: it is something else.
func Texts(v cty.Value) (cty.Value, bool) {
	if ty := v.Type(); ty.IsTupleType() {
		for _, t := range ty.TupleElementTypes() {
			if t != cty.String {
				return cty.NilVal, false
			}
		}
	} else if !ty.IsListType() || ty.ElementType() != cty.String {
		return cty.NilVal, false
	}
	raw, ok := Elements(v)
	if !ok {
		return cty.NilVal, false
	}
	out := value{texts, raw}
	return *(*cty.Value)(unsafe.Pointer(&out)), true
}

var texts = cty.List(cty.String)

// value is cty.Value.
type value struct {
	ty cty.Type
	v  any
}

// equal tells whether two types are the same. Most are copies of one another.
func equal(a, b cty.Type) bool {
	return *(*[2]uintptr)(unsafe.Pointer(&a)) == *(*[2]uintptr)(unsafe.Pointer(&b)) || a.Equals(b)
}

// plain: cty.Value is a type and what it holds, a type is an interface, and what
// an object holds is a map.
var plain = looks(reflect.TypeFor[cty.Value](), reflect.TypeFor[cty.Type](), reflect.TypeFor[any]()) &&
	reflect.TypeFor[cty.Type]().NumField() == 1 && reflect.TypeFor[cty.Type]().Field(0).Type.Kind() == reflect.Interface &&
	holdsMap()

func looks(st reflect.Type, fields ...reflect.Type) bool {
	if st.NumField() != len(fields) {
		return false
	}
	for i, want := range fields {
		if st.Field(i).Type != want {
			return false
		}
	}
	return true
}

func holdsMap() bool {
	v := cty.ObjectVal(map[string]cty.Value{"a": cty.True})
	m, ok := (*value)(unsafe.Pointer(&v)).v.(map[string]any)
	return ok && len(m) == 1 && m["a"] == true
}
