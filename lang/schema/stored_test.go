package schema

import (
	"runtime"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Whatever may be an output is read back from the state.
func TestStoredAsDeepAsItGoes(t *testing.T) {
	for name, around := range map[string]func(cty.Value) cty.Value{
		"object": func(v cty.Value) cty.Value { return cty.ObjectVal(map[string]cty.Value{"a": v}) },
		"tuple":  func(v cty.Value) cty.Value { return cty.TupleVal([]cty.Value{v}) },
		"map":    func(v cty.Value) cty.Value { return cty.MapVal(map[string]cty.Value{"a": v}) },
	} {
		v := cty.True
		for depth := 1; depth <= MaxDepth+1; depth++ {
			v = around(v)
			typ, err := ctyjson.MarshalType(v.Type())
			value, err2 := ctyjson.Marshal(v, v.Type())
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if got, err := Stored(typ, value); TooDeep(v.Type()) != (depth > MaxDepth) || (err != nil) != (depth > MaxDepth) || err == nil && !got.RawEquals(v) {
				t.Errorf("%s, %d levels: too deep %v, %v", name, depth, TooDeep(v.Type()), err)
			}
		}
	}
}

// What stands in a file is read, or is an error, within a bound of its bytes.
func TestStored(t *testing.T) {
	deep := func(open, inner, end string) string {
		return strings.Repeat(open, 9000) + inner + strings.Repeat(end, 9000)
	}
	for _, c := range []struct{ typ, value, err string }{
		{`"string"`, `"a"`, ""},
		{`["list","number"]`, `[1,2.5,12345678901234567890]`, ""},
		{`["list","string"]`, `[1`, "EOF"},
		{`"strong"`, `1`, "its type"},
		{`["object",{},["x"]]`, `{}`, "x"}, // cty panics
		{`"number"`, `1e1000000000`, "has an exponent"},
		{`["tuple",["number"]]`, `[-1E9]`, "has an exponent"},
		{deep(`["list",`, `"string"`, "]"), `[]`, "nested deeper than 64"},
		{`"dynamic"`, deep("[", "", "]"), "nested deeper than 64"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v, err := Stored([]byte(c.typ), []byte(c.value))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(64<<10+100*(len(c.typ)+len(c.value))) {
			t.Errorf("%.40s: %d bytes of memory", c.value, took)
		}
		if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || v != cty.NilVal) {
			t.Errorf("%.40s of %.40s: %#v, %v", c.value, c.typ, v, err)
		}
	}
}
