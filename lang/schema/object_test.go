package schema

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// What ObjectOf makes is what cty.ObjectVal makes.
func TestObjectOf(t *testing.T) {
	if !plain {
		t.Error("cty's values look otherwise than they did: plans of many objects take longer")
	}
	for _, attrs := range []map[string]cty.Value{
		{},
		{"name": cty.StringVal("a"), "n": cty.NumberIntVal(3), "none": cty.NullVal(cty.String), "on": cty.True},
		{"secret": cty.StringVal("x").Mark(Sensitive), "later": cty.UnknownVal(cty.List(cty.String)), "list": cty.ListVal([]cty.Value{cty.StringVal("y").Mark(Sensitive)})},
		{"block": cty.ObjectVal(map[string]cty.Value{"map": cty.MapVal(map[string]cty.Value{"k": cty.Zero}), "empty": cty.MapValEmpty(cty.Number)})},
	} {
		want := cty.ObjectVal(attrs)
		got, ok := ObjectOf(cty.ObjectVal(attrs).Type(), attrs)
		if !ok || !got.RawEquals(want) || got.GoString() != want.GoString() {
			t.Errorf("%#v, %v, want %#v", got, ok, want)
		}
		if len(attrs) == 0 {
			continue
		}
		// What it was made of may be used again, as in cty.
		for name := range attrs {
			attrs[name] = cty.StringVal("of the next")
		}
		if !got.RawEquals(want) {
			t.Errorf("%#v changes with the map that it was made of", got)
		}
		if v, ok := ObjectOf(want.Type(), map[string]cty.Value{}); ok {
			t.Errorf("%#v has attributes", v)
		}
	}
	text, number := cty.Object(map[string]cty.Type{"a": cty.String}), map[string]cty.Value{"a": cty.Zero}
	if v, ok := ObjectOf(text, number); ok {
		t.Errorf("%#v is of another type", v)
	}
	if v, ok := ObjectOf(text, map[string]cty.Value{"b": cty.StringVal("")}); ok {
		t.Errorf("%#v has another attribute", v)
	}
}

// What is null takes no place in what an object holds, and cty finds it there all
// the same: most of what many objects could say is null.
func TestObjectOfNulls(t *testing.T) {
	attrs := map[string]cty.Value{"a": cty.StringVal("a"), "none": cty.NullVal(cty.String), "list": cty.NullVal(cty.List(cty.Number)), "empty": cty.MapValEmpty(cty.String)}
	want := cty.ObjectVal(attrs)
	got, ok := ObjectOf(want.Type(), attrs)
	if !ok {
		t.Fatal("no object")
	}
	if n := len((*value)(unsafe.Pointer(&got)).v.(map[string]any)); n != 2 {
		t.Errorf("it holds %d attributes, want 2", n)
	}
	marked := func(v cty.Value) cty.Value {
		v, err := cty.Transform(v, func(_ cty.Path, e cty.Value) (cty.Value, error) { return e.Mark(Sensitive), nil })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	other := cty.Object(map[string]cty.Type{"a": cty.String, "none": cty.Number, "list": cty.Set(cty.Number), "empty": cty.Map(cty.String)})
	for name, of := range map[string]func(cty.Value) any{
		"shown":     func(v cty.Value) any { return v.GoString() },
		"attribute": func(v cty.Value) any { return v.GetAttr("list").GoString() },
		"equal":     func(v cty.Value) any { return v.Equals(want).GoString() + want.Equals(v).GoString() },
		"the same":  func(v cty.Value) any { return v.RawEquals(want) && want.RawEquals(v) },
		"hash":      func(v cty.Value) any { return v.Hash() },
		"attributes": func(v cty.Value) any {
			return fmt.Sprint(v.LengthInt(), len(v.AsValueMap()), cty.ObjectVal(v.AsValueMap()).RawEquals(want))
		},
		"known":         func(v cty.Value) any { return v.IsWhollyKnown() },
		"marks":         func(v cty.Value) any { return marked(v).GoString() },
		"without marks": func(v cty.Value) any { v, _ = marked(v).UnmarkDeep(); return v.GoString() },
		"in a set":      func(v cty.Value) any { return cty.SetVal([]cty.Value{v, want}).LengthInt() },
		"JSON": func(v cty.Value) any {
			text, err := ctyjson.Marshal(v, v.Type())
			return fmt.Sprint(string(text), err)
		},
		"converted": func(v cty.Value) any {
			v, err := convert.Convert(v, other)
			return fmt.Sprint(v.GoString(), err)
		},
		"a map": func(v cty.Value) any {
			v, err := convert.Convert(v, cty.Map(cty.DynamicPseudoType))
			return fmt.Sprint(v.GoString(), err != nil)
		},
	} {
		if is, was := of(got), of(want); is != was {
			t.Errorf("%s: %v, want %v", name, is, was)
		}
	}
}

// Plain is what is wholly known and not marked, and Attribute is GetAttr.
func TestPlainAttribute(t *testing.T) {
	set := cty.SetVal([]cty.Value{cty.StringVal("a")})
	for _, v := range []cty.Value{
		cty.StringVal("a"), cty.Zero, cty.False, cty.NullVal(cty.List(cty.String)), cty.UnknownVal(cty.Bool), cty.DynamicVal, set, cty.True.Mark(Sensitive),
		cty.ListVal([]cty.Value{cty.Zero}), cty.ListVal([]cty.Value{cty.Zero.Mark(Sensitive)}), cty.TupleVal([]cty.Value{cty.Zero, cty.UnknownVal(cty.String)}),
		cty.MapVal(map[string]cty.Value{"k": cty.UnknownVal(cty.Number)}), cty.EmptyObjectVal, cty.EmptyTupleVal,
		cty.UnknownVal(cty.Object(map[string]cty.Type{"in": cty.String})), cty.NullVal(cty.Object(map[string]cty.Type{"in": cty.String})),
	} {
		if got, want := Plain(v), v.IsWhollyKnown() && !v.ContainsMarked() && v.Type() != set.Type(); got != want {
			t.Errorf("%#v: %v, want %v", v, got, want)
		}
		o := cty.ObjectVal(map[string]cty.Value{"in": v, "other": cty.Zero})
		if got, want := Plain(o), Plain(v); got != want {
			t.Errorf("%#v: %v, want %v", o, got, want)
		}
		if got, ok := Attribute(o, "in"); !ok || got.GoString() != v.GoString() {
			t.Errorf("%#v, %v, want %#v", got, ok, v)
		}
		if got, ok := Attribute(o.Mark(Sensitive), "in"); ok {
			t.Errorf("%#v of a marked one", got)
		}
		if got, ok := Attribute(v, "in"); ok {
			t.Errorf("%#v of %#v", got, v)
		}
		if got, ok := Attribute(o, "none"); ok {
			t.Errorf("%#v of no name", got)
		}
	}
}

// Texts is what a conversion makes of the same.
func TestTexts(t *testing.T) {
	a, b := cty.StringVal("a"), cty.StringVal("b")
	for _, v := range []cty.Value{
		cty.TupleVal([]cty.Value{a, b}), cty.ListVal([]cty.Value{a, b}), cty.EmptyTupleVal, cty.ListValEmpty(cty.String), cty.SetVal([]cty.Value{a, b}),
		cty.TupleVal([]cty.Value{a, cty.Zero}), cty.TupleVal([]cty.Value{a, cty.NullVal(cty.String)}), cty.TupleVal([]cty.Value{a.Mark(Sensitive)}), cty.TupleVal([]cty.Value{a}).Mark(Sensitive),
		cty.TupleVal([]cty.Value{cty.UnknownVal(cty.String)}), cty.TupleVal([]cty.Value{cty.DynamicVal}), cty.NullVal(cty.List(cty.String)), cty.UnknownVal(cty.List(cty.String)), cty.ListVal([]cty.Value{cty.Zero}), a, cty.DynamicVal,
		cty.TupleVal([]cty.Value{cty.NullVal(cty.DynamicPseudoType)}),
	} {
		got, ok := Texts(v)
		if !ok {
			if v.Type().Equals(texts) && Plain(v) && !v.IsNull() {
				t.Errorf("%#v is one", v)
			}
			continue
		}
		if want, err := convert.Convert(v, texts); err != nil || !got.RawEquals(want) || got.GoString() != want.GoString() {
			t.Errorf("%#v: %#v, want %#v, %v", v, got, want, err)
		}
	}
}

// An object without anything sensitive, as most are, is known for that without a
// look by cty's iterators, which took a fifth of a plan's time.
func TestSensitiveNamesOfPlainObject(t *testing.T) {
	attrs := map[string]cty.Value{"a": cty.StringVal("x"), "list": cty.ListVal([]cty.Value{cty.StringVal("y")})}
	v := cty.ObjectVal(attrs)
	if n := testing.AllocsPerRun(10, func() { SensitiveNames(v) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	attrs["list"] = cty.ListVal([]cty.Value{cty.StringVal("y").Mark(Sensitive)})
	if got := SensitiveNames(cty.ObjectVal(attrs)); len(got) != 1 || got[0] != "list" {
		t.Errorf("%q", got)
	}
}
