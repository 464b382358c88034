package lang

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// dump writes a definition for people: objects with what is not a default
// group value, their edges, outputs.
func dump(d *Definition) string {
	var b strings.Builder
	for _, o := range d.Objects {
		fmt.Fprintf(&b, "%s (%s, %s)", o.Addr, o.Type, o.Provider)
		if o.PreventDestroy {
			b.WriteString(" prevent_destroy")
		}
		if o.Unknown == o.Value.IsWhollyKnown() {
			fmt.Fprintf(&b, " Unknown is %v, wrongly", o.Unknown)
		}
		b.WriteString("\n")
		dumpValue(&b, "  ", o.Value)
		for _, e := range o.DependsOn {
			kind := "soft"
			if e.Hard {
				kind = "hard"
			}
			fmt.Fprintf(&b, "  -> %s %s\n", e.To, kind)
		}
	}
	for _, p := range d.Providers {
		fmt.Fprintf(&b, "provider %s %s\n", p.Name, text(p.Config))
	}
	for _, o := range d.Outputs {
		fmt.Fprintf(&b, "output %s = %s sensitive=%v runtime=%v\n", o.Name, text(o.Value), o.Sensitive, o.Runtime)
	}
	return b.String()
}

func dumpValue(b *strings.Builder, indent string, v cty.Value) {
	m := v.AsValueMap()
	for _, name := range sortedKeys(m) {
		v := m[name]
		if v.IsKnown() && !v.IsMarked() && (v.IsNull() || v.CanIterateElements() && v.LengthInt() == 0) {
			continue
		}
		fmt.Fprintf(b, "%s%s = %s\n", indent, name, text(v))
	}
}

// text is JSON, with unknown parts as ? and sensitive ones as *.
func text(v cty.Value) string {
	if v.HasMark(schema.Sensitive) {
		return "*"
	}
	if !v.IsKnown() {
		return "?"
	}
	if v.IsNull() {
		return "null"
	}
	switch t := v.Type(); {
	case t.IsObjectType() || t.IsMapType():
		m := v.AsValueMap()
		var parts []string
		for _, k := range sortedKeys(m) {
			if t.IsMapType() || !m[k].IsKnown() || m[k].IsMarked() || !m[k].IsNull() {
				parts = append(parts, k+":"+text(m[k]))
			}
		}
		return "{" + strings.Join(parts, " ") + "}"
	case t.IsListType() || t.IsTupleType() || t.IsSetType():
		var parts []string
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			parts = append(parts, text(e))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	j, err := schema.ToJSON(v)
	if err != nil {
		return err.Error()
	}
	return string(j)
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestEvaluate(t *testing.T) {
	src, err := os.ReadFile("testdata/evaluate/features.hcl")
	if err != nil {
		t.Fatal(err)
	}
	c, diags := load(t, map[string]string{"main.cluster.hcl": string(src)})
	d, more := c.Evaluate(nil)
	diags = append(diags, more...)
	if diags.HasErrors() {
		t.Fatal(render(diags))
	}
	golden(t, "testdata/evaluate/features.golden", render(diags)+dump(d))
	if c.Backend == nil || c.Backend.Settings["path"] != "features.state.json" || c.RequiredVersion != "~> 0.1" || c.ClusterName() != "features" {
		t.Errorf("settings: %+v %q %q", c.Backend, c.RequiredVersion, c.ClusterName())
	}
	if !sort.SliceIsSorted(d.Objects, func(i, j int) bool { return addr.Compare(d.Objects[i].Addr, d.Objects[j].Addr) < 0 }) {
		t.Error("objects are not in address order")
	}
	typed, err := json.MarshalIndent(d.Spec(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/evaluate/features.spec.golden", string(typed)+"\n")

	// Twice the same.
	again, _ := c.Evaluate(nil)
	if diff := cmp.Diff(dump(d), dump(again)); diff != "" {
		t.Errorf("a second evaluation differs:\n%s", diff)
	}

	// With everything known, resolving one by one gives what evaluating gives.
	full, more := c.Evaluate(allKnown)
	if more.HasErrors() {
		t.Fatal(render(more))
	}
	for _, o := range full.Objects {
		v, more := d.Resolve(o.Addr, allKnown)
		if more.HasErrors() {
			t.Errorf("%s: %s", o.Addr, render(more))
		}
		if !v.RawEquals(o.Value) {
			t.Errorf("%s resolved to\n%s\nevaluated to\n%s", o.Addr, text(v), text(o.Value))
		}
	}
	for i, o := range d.ResolveOutputs(allKnown, nil) {
		if !o.Value.RawEquals(full.Outputs[i].Value) {
			t.Errorf("output %s resolved to %s, evaluated to %s", o.Name, text(o.Value), text(full.Outputs[i].Value))
		}
	}
	if _, more := d.Resolve(addr.Group("nobody", addr.NoKey), allKnown); !more.HasErrors() {
		t.Error("an object that isn't there was resolved")
	}
	if o, ok := d.Object(addr.Cluster()); !ok || o.Addr != addr.Cluster() {
		t.Error("the cluster wasn't found by its address")
	}
}

// Instances of which all is known keep nothing of what they saw of their for_each or
// count; of the others all that is unknown is worked out with it.
func TestResolveInstances(t *testing.T) {
	const src = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
group "known" {
  for_each    = { x = "one", y = "two" }
  description = each.value
  resource "generic_application" "app" {
    command = ["app", group_each.key]
  }
}
group "parts" {
  for_each    = { x = "a", y = "b" }
  description = each.value
  resource "generic_application" "app" {
    command = ["app", group_each.value]
  }
  resource "generic_application" "web" {
    for_each = { p = node.n[group_each.value].endpoint, q = "z" }
    command  = ["web", each.value, each.key, group_each.key]
  }
}
group "counted" {
  count       = 2
  description = "${count.index} ${node.n["c"].endpoint}"
  resource "generic_application" "app" {
    command = ["app", group_each.value]
  }
}
`
	d := evaluate(t, src)
	full, diags := d.ev.c.Evaluate(allKnown)
	if diags.HasErrors() {
		t.Fatal(render(diags))
	}
	for in := range d.ev.byAddr.All() {
		keeps := in.vars != nil
		if want := in.unknown || in.addr.Name == "parts" && !in.addr.IsResource(); in.addr.Type == addr.TypeGroup && keeps != want {
			t.Errorf("%s keeps what it saw: %v, want %v", in.addr, keeps, want)
		}
	}
	web, _ := d.Object(addr.Group("parts", addr.StringKey("y")).WithResource("web", addr.StringKey("p")))
	if want := (Edge{To: addr.Node("n", addr.StringKey("b")), Hard: true}); !slices.Contains(web.DependsOn, want) || len(web.DependsOn) != 1 {
		t.Errorf("%s depends on %v, want %v", web.Addr, web.DependsOn, want)
	}
	for _, o := range full.Objects {
		v, diags := d.Resolve(o.Addr, allKnown)
		if diags.HasErrors() || !v.RawEquals(o.Value) {
			t.Errorf("%s resolved to\n%s\nevaluated to\n%s\n%s", o.Addr, text(v), text(o.Value), render(diags))
		}
	}
}

// What only a plan is made of says the same once it is settled, and holds none of
// the instances any more, unless conditions are still to be worked out.
func TestSettle(t *testing.T) {
	const src = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  %s
}
group "g" {
  for_each    = toset(["x", "y"])
  description = node.n["a"].endpoint
  resource "generic_application" "app" {
    command = ["app", group_each.key]
  }
}
output "all" { value = keys(group.g) }
moved {
  from = node.old
  to   = node.n
}
`
	for conditions, more := range map[bool]string{false: "", true: `lifecycle {
    precondition {
      condition     = length(each.key) > 0
      error_message = "No votes."
    }
  }`} {
		d := evaluate(t, fmt.Sprintf(src, more))
		said := func() string {
			return dump(d) + fmt.Sprint(d.Spec(), d.Moves().None(), d.HasConditions(), len(d.Conditions(addr.Node("n", addr.StringKey("a")), Precondition, View{})))
		}
		before := said()
		d.Settle()
		if after := said(); after != before {
			t.Errorf("settled:\n%s\nbefore:\n%s", after, before)
		}
		if n := d.ev.byAddr.Len(); n > 0 != conditions {
			t.Errorf("with conditions %v, it holds %d instances", conditions, n)
		}
		if _, diags := d.Resolve(addr.Group("g", addr.StringKey("x")), allKnown); diags.HasErrors() == conditions {
			t.Errorf("with conditions %v: %s", conditions, render(diags))
		}
	}
}

// What an apply learns can be wrong for the attribute that takes it.
func TestResolveReportsErrors(t *testing.T) {
	d := evaluate(t, `
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
group "g" {
  resource "generic_application" "app" {
    command      = ["x"]
    log_max_size = node.n["a"].endpoint
  }
}
`)
	a := addr.Group("g", addr.NoKey).WithResource("app", addr.NoKey)
	if _, diags := d.Resolve(a, func(addr.Address) (cty.Value, bool) { return cty.NilVal, false }); diags.HasErrors() {
		t.Fatalf("nothing new is known: %s", render(diags))
	}
	_, diags := d.Resolve(a, allKnown)
	if got := render(diags); !strings.Contains(got, "Invalid size for log_max_size") {
		t.Errorf("diagnostics: %q", got)
	}
}

// The same definition in JSON syntax is the same definition.
func TestJSONSyntax(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"main.cluster.hcl", "main.cluster.json"} {
		src, err := os.ReadFile(filepath.Join("testdata/json", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(src)
	}
	var dumps []string
	for name, src := range files {
		c, diags := load(t, map[string]string{name: src})
		mustHaveNone(t, c, diags)
		d, diags := c.Evaluate(nil)
		mustHaveNone(t, c, diags)
		dumps = append(dumps, dump(d))
	}
	if diff := cmp.Diff(dumps[0], dumps[1]); diff != "" {
		t.Error(diff)
	}
	// What is wrong in JSON is told with its place as well.
	c, diags := load(t, map[string]string{"main.cluster.json": `{
  "cluster": {"c": {"quorum": {"model": "majority_node_set"}}},
  "node": {"n": {"provider": "local", "zone": "${var.zne}", "colour": 1}},
  "group": {"g": {"preferred_owners": ["node.m", "plain text"], "resource": {"generic_application": {"a": {"command": ["a"], "depends_on": "resource.b"}}}}}
}`})
	_, more := c.Evaluate(nil)
	golden(t, "testdata/json/errors.golden", render(append(diags, more...)))
}
