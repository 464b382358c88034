package schema

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

var sameAddr = cmp.Comparer(func(a, b addr.Address) bool { return a == b })

// Every schema's names are JSON tags of its spec type: a full value decodes
// into the type and comes back as the same value.
func TestSchemasMatchTypes(t *testing.T) {
	for _, tc := range []struct {
		s    spec.Schema
		into any
	}{
		{spec.ClusterSchema(), new(spec.Cluster)},
		{spec.GroupSchema(), new(spec.Group)},
	} {
		v := fullValue(Type(tc.s))
		if err := Decode(v, tc.into); err != nil {
			t.Fatalf("%s: %v", tc.s.Name, err)
		}
		back, err := Encode(tc.into, Type(tc.s))
		if err != nil {
			t.Fatalf("%s: %v", tc.s.Name, err)
		}
		if !back.RawEquals(v) {
			t.Errorf("%s: there and back:\n%#v\n%#v", tc.s.Name, v, back)
		}
	}
	// A node has attributes that only its provider needs.
	var n spec.Node
	if err := Decode(fullValue(Type(spec.NodeSchema())), &n); err != nil {
		t.Fatal(err)
	}
	want := spec.Node{Name: "1h", Provider: "1h", Address: "1h", Zone: "1h", Capacity: map[string]int64{"k": 7},
		Spare: true, Votes: 7, Role: "1h", Labels: map[string]string{"k": "1h"}, Watchdog: "1h", WatchdogTimeout: spec.Duration(time.Hour), Reset: "1h",
		SSH: spec.SSH{Host: "1h", Port: 7, User: "1h", HostKey: "1h", PrivateKeyFile: "1h", Sudo: true}}
	if diff := cmp.Diff(want, n, sameAddr); diff != "" {
		t.Error(diff)
	}
	for name, typ := range spec.ResourceTypes() {
		v := fullValue(ResourceType(typ))
		var r spec.Resource
		if err := DecodeResource(v, typ, &r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := EncodeResource(r, ResourceType(typ))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !back.RawEquals(v) {
			t.Errorf("%s: there and back:\n%#v\n%#v", name, v, back)
		}
	}
}

// fullValue has something in every attribute; "1h" is a string and a duration.
func fullValue(ty cty.Type) cty.Value {
	switch {
	case ty == cty.String:
		return cty.StringVal("1h")
	case ty == cty.Number:
		return cty.NumberIntVal(7)
	case ty == cty.Bool:
		return cty.True
	case ty.IsListType():
		return cty.ListVal([]cty.Value{fullValue(ty.ElementType())})
	case ty.IsMapType():
		return cty.MapVal(map[string]cty.Value{"k": fullValue(ty.ElementType())})
	}
	attrs := map[string]cty.Value{}
	for name, t := range ty.AttributeTypes() {
		attrs[name] = fullValue(t)
	}
	return cty.ObjectVal(attrs)
}

func TestDefaultsDecode(t *testing.T) {
	var poll spec.Poll
	var restart spec.Restart
	for _, b := range spec.ResourceCommon().Blocks {
		var into any = &poll
		if b.Name == "restart" {
			into = &restart
		}
		if err := Decode(BlockDefault(b), into); err != nil {
			t.Fatalf("%s: %v", b.Name, err)
		}
	}
	if diff := cmp.Diff(spec.Poll{Interval: spec.Duration(time.Minute), Timeout: spec.Duration(10 * time.Second)}, poll); diff != "" {
		t.Error(diff) // is_alive comes last
	}
	if diff := cmp.Diff(spec.Restart{Action: "restart", Threshold: 3, Period: spec.Duration(15 * time.Minute), AffectGroup: true}, restart); diff != "" {
		t.Error(diff)
	}
}

// Defaults of durations and sizes are canonical: what a reader of the
// database writes back is no change.
func TestDefaultsAreCanonical(t *testing.T) {
	var check func(where string, attrs []spec.Attribute, blocks []spec.Block)
	check = func(where string, attrs []spec.Attribute, blocks []spec.Block) {
		for _, a := range attrs {
			text, ok := a.Default.(string)
			if !ok {
				continue
			}
			switch a.Type {
			case spec.TypeDuration:
				if d, err := spec.ParseDuration(text); err != nil || d.String() != text {
					t.Errorf("%s.%s: default %q, canonical %q, %v", where, a.Name, text, d, err)
				}
			case spec.TypeSize:
				if n, err := spec.ParseSize(text); err != nil || spec.FormatSize(n) != text {
					t.Errorf("%s.%s: default %q, %v", where, a.Name, text, err)
				}
			}
		}
		for _, b := range blocks {
			check(where+"."+b.Name, b.Attributes, b.Blocks)
		}
	}
	schemas := []spec.Schema{spec.ClusterSchema(), spec.NodeSchema(), spec.GroupSchema(), spec.ResourceCommon()}
	for _, s := range spec.ResourceTypes() {
		schemas = append(schemas, s)
	}
	for _, s := range schemas {
		check(s.Name, s.Attributes, s.Blocks)
	}
}

func TestJSON(t *testing.T) {
	ty := cty.Object(map[string]cty.Type{
		"s": cty.String, "n": cty.Number, "l": cty.List(cty.String), "m": cty.Map(cty.Number),
		"b": cty.Object(map[string]cty.Type{"on": cty.Bool}),
	})
	for _, tc := range []struct{ in, out, err string }{
		{in: `{}`, out: `{}`},
		{in: `{"s":"","l":[],"m":{},"b":null,"new":1}`, out: `{}`},
		{in: `{"s":"a<b>\u00e9\"","n":12345678901234567890,"l":["",null],"m":{"z":1,"a":0.5},"b":{"on":false}}`,
			out: `{"b":{"on":false},"l":["",null],"m":{"a":0.5,"z":1},"n":12345678901234567890,"s":"a<b>é\""}`},
		{in: `{"b":{"on":1}}`, err: "b.on: expected bool, found a number"},
		{in: `{"l":[{}]}`, err: "l[0]: expected string, found an object"},
		{in: `{"m":{"k":"v"}}`, err: `m["k"]: expected number, found a string`},
		{in: `[]`, err: "the value: expected object, found a list"},
		{in: `{`, err: "unexpected EOF"},
	} {
		v, err := FromJSON([]byte(tc.in), ty)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: error %v, want %q", tc.in, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.in, err)
			continue
		}
		if out, err := ToJSON(v); err != nil || string(out) != tc.out {
			t.Errorf("%s: wrote %s, %v, want %s", tc.in, out, err, tc.out)
		}
	}
}

func TestUnknownAndSensitive(t *testing.T) {
	v := cty.ObjectVal(map[string]cty.Value{
		"name": cty.StringVal("g").Mark(Sensitive),
		"failover": cty.ObjectVal(map[string]cty.Value{
			"mode": cty.UnknownVal(cty.String), "threshold": cty.NumberIntVal(4),
		}),
	})
	if !IsSensitive(v) || IsSensitive(v.GetAttr("failover")) {
		t.Error("the mark is not where it was put")
	}
	if _, err := ToJSON(v); err == nil || !strings.Contains(err.Error(), "failover.mode is not known yet") {
		t.Errorf("ToJSON of an unknown: %v", err)
	}
	var g spec.Group
	if err := Decode(v, &g); err == nil || !strings.Contains(err.Error(), "failover.mode is not known yet") {
		t.Errorf("Decode of an unknown: %v", err)
	}
	if err := DecodeKnown(v, &g); err != nil || g.Name != "g" || g.Failover.Threshold != 4 || g.Failover.Mode != "" {
		t.Errorf("DecodeKnown: %v, %+v", err, g)
	}
	bad := cty.ObjectVal(map[string]cty.Value{"priority": cty.NumberFloatVal(1.5)})
	if err := Decode(bad, &g); err == nil || !strings.Contains(err.Error(), "priority must be a whole number") {
		t.Errorf("Decode of half a priority: %v", err)
	}
}

// Any JSON that encoding/json makes of a resource reads back as the same value.
func TestResourceRoundTrip(t *testing.T) {
	typ := spec.ResourceTypes()["generic_application"]
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringMatching(`[ -~éø]{1,8}`)
		dur := rapid.Custom(func(t *rapid.T) spec.Duration {
			return spec.Duration(rapid.Int64Range(1, 1<<50).Draw(t, "d"))
		})
		cmdline := rapid.SliceOfN(text, 1, 3).Draw(rt, "command")
		raw := make([]any, len(cmdline))
		for i, s := range cmdline {
			raw[i] = s
		}
		r := spec.Resource{
			Type:           typ.Name,
			Attributes:     map[string]any{"command": raw, "log_keep": float64(rapid.IntRange(0, 99).Draw(rt, "keep"))},
			DependsOn:      rapid.SliceOfN(text, 1, 2).Draw(rt, "deps"),
			PendingTimeout: dur.Draw(rt, "pending"),
			LooksAlive:     spec.Poll{Interval: dur.Draw(rt, "looks"), TCP: text.Draw(rt, "tcp")},
			Restart:        spec.Restart{Action: "none", Threshold: rapid.IntRange(0, 9).Draw(rt, "n"), Delay: dur.Draw(rt, "delay")},
		}
		v, err := EncodeResource(r, ResourceType(typ))
		if err != nil {
			rt.Fatal(err)
		}
		b, err := ToJSON(v)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := FromJSON(b, v.Type())
		if err != nil || !again.RawEquals(v) {
			rt.Fatalf("JSON there and back: %v\n%s", err, b)
		}
		var back spec.Resource
		if err := DecodeResource(again, typ, &back); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(r, back, sameAddr); diff != "" {
			rt.Fatal(diff)
		}
	})
}

func FuzzFromJSON(f *testing.F) {
	ty := ResourceType(spec.ResourceTypes()["generic_application"])
	for _, s := range []string{`{"command":["a"],"restart":{"threshold":3}}`, `{"command":"a"}`, `{"log_keep":1e999}`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := FromJSON(b, ty)
		if err != nil || v.IsNull() {
			return
		}
		out, err := ToJSON(v)
		if err != nil {
			t.Fatalf("a value that was read can't be written: %v", err)
		}
		again, err := FromJSON(out, ty)
		if err != nil || !again.RawEquals(v) {
			t.Fatalf("there and back: %v\n%s", err, out)
		}
	})
}

func BenchmarkGroup(b *testing.B) {
	v, err := Encode(spec.Group{Name: "g", PreferredOwners: []string{"a", "b", "c"}, Failover: spec.Failover{Mode: "automatic"}}, Type(spec.GroupSchema()))
	if err != nil {
		b.Fatal(err)
	}
	raw, _ := ToJSON(v)
	for name, f := range map[string]func(){
		"ToJSON":   func() { ToJSON(v) },
		"FromJSON": func() { FromJSON(raw, v.Type()) },
		"Decode":   func() { Decode(v, new(spec.Group)) },
		"stdlib":   func() { json.Unmarshal(raw, new(spec.Group)) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
		})
	}
}
