package planner

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

var diffSchema = spec.Schema{
	Attributes: []spec.Attribute{
		{Name: "a", Type: spec.TypeString, Impact: spec.ImpactRestartResource},
		{Name: "l", Type: spec.TypeStrings},
		{Name: "m", Type: spec.TypeStringMap, Impact: spec.ImpactReplace},
		{Name: "s", Type: spec.TypeString, Sensitive: true},
		{Name: "c", Type: spec.TypeString, Computed: true},
	},
	Blocks: []spec.Block{{Name: "b", Attributes: []spec.Attribute{{Name: "x", Type: spec.TypeNumber}}}},
}

func value(t interface{ Fatal(...any) }, text string) cty.Value {
	if text == "" {
		return cty.NilVal
	}
	v, err := schema.FromJSON([]byte(text), schema.Type(diffSchema))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ name, before, after, applied, want string }{
		{"nothing", `{"a":"1"}`, `{"a":"1"}`, `{}`, ""},
		{"absent in two ways", `{"a":"","l":[]}`, `{}`, ``, ""},
		{"definition", `{"a":"1"}`, `{"a":"2"}`, `{"a":"1"}`, "a definition restart_resource"},
		{"drift", `{"a":"1"}`, `{"a":"2"}`, `{"a":"2"}`, "a drift restart_resource"},
		{"both", `{"a":"1","b":{"x":1}}`, `{"a":"2","b":{"x":2}}`, `{"a":"2","b":{"x":1}}`, "a drift restart_resource, b.x definition none"},
		{"element", `{"l":["x","y"]}`, `{"l":["x","z"]}`, ``, "l[1] definition none"},
		{"length", `{"l":["x"]}`, `{"l":["x","z"]}`, ``, "l definition none"},
		{"key", `{"m":{"k":"1","j":"1"}}`, `{"m":{"k":"2","i":"1"}}`, `{"m":{"i":"1"}}`, `m["i"] drift replace, m["j"] drift replace, m["k"] definition replace`},
		{"sensitive", `{"s":"x"}`, `{"s":"y"}`, ``, "s definition none sensitive"},
		{"computed", `{"c":"x"}`, `{"c":"y"}`, ``, "c drift none"},
		{"all is new", ``, `{"a":"1","b":{"x":1}}`, ``, "a definition restart_resource, b.x definition none"},
	} {
		var got []string
		for _, a := range new(differ).diff(shapeOf(diffSchema), value(t, c.before), value(t, c.after), value(t, c.applied)) {
			one := a.Path + " " + a.Cause + " " + string(a.Impact)
			if a.Sensitive {
				one += " sensitive"
				if text, err := json.Marshal(a); err != nil || strings.Contains(string(text), `"x"`) || strings.Contains(string(text), `"y"`) {
					t.Errorf("%s: %s %v", c.name, text, err)
				}
			}
			got = append(got, one)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// A diff is empty exactly where the values say the same.
func TestDiffFindsEveryDifference(t *testing.T) {
	text := func(t *rapid.T) string {
		v := map[string]any{}
		if rapid.Bool().Draw(t, "a") {
			v["a"] = rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "text")
		}
		v["l"] = rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y"}), 0, 3).Draw(t, "l")
		v["m"] = rapid.MapOfN(rapid.SampledFrom([]string{"i", "j"}), rapid.SampledFrom([]string{"1", "2"}), 0, 2).Draw(t, "m")
		v["b"] = map[string]any{"x": rapid.IntRange(0, 2).Draw(t, "x")}
		out, _ := json.Marshal(v)
		return string(out)
	}
	rapid.Check(t, func(t *rapid.T) {
		before, after := value(t, text(t)), value(t, text(t))
		one, _ := schema.ToJSON(before)
		two, _ := schema.ToJSON(after)
		if got := new(differ).diff(shapeOf(diffSchema), before, after, cty.NilVal); (len(got) == 0) != (string(one) == string(two)) {
			t.Fatalf("%s\n%s\n%v", one, two, got)
		}
	})
}
