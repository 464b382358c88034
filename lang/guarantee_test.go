package lang

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

const guaranteed = `
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  zone     = each.key
}
group "web" {
  for_each = toset(["eu", "us"])
  resource "generic_application" "app" {
    command = ["true"]
  }
}
group "sql" {
  name = "database"
  resource "generic_application" "app" {
    command = ["true"]
  }
}
`

// Guarantees name groups as lists of groups do, are repeated as objects are, and
// are none.
func TestGuarantees(t *testing.T) {
	d := evaluate(t, guaranteed+`
locals {
  most = "1500ms"
}
guarantee "every" {
  groups       = concat(values(group.web), [group.sql])
  survives     = { nodes = 1, zones = 1 }
  max_downtime = local.most
}
guarantee "each" {
  for_each     = group.web
  groups       = [each.value]
  max_downtime = "60s"
}
guarantee "by" {
  count    = 2
  groups   = [group.sql]
  survives = { nodes = count.index }
}
`)
	at := func(name string, key addr.Key) addr.Address {
		return addr.Address{Type: addr.TypeGuarantee, Name: name, Key: key}
	}
	same := cmp.Comparer(func(a, b addr.Address) bool { return a == b })
	minute := spec.Duration(time.Minute)
	want := []spec.Guarantee{
		{Addr: at("by", addr.IntKey(0)), Name: "by-0", Groups: []string{"database"}, Survives: map[string]int64{"nodes": 0}},
		{Addr: at("by", addr.IntKey(1)), Name: "by-1", Groups: []string{"database"}, Survives: map[string]int64{"nodes": 1}},
		{Addr: at("each", addr.StringKey("eu")), Name: "each-eu", Groups: []string{"web-eu"}, MaxDowntime: minute},
		{Addr: at("each", addr.StringKey("us")), Name: "each-us", Groups: []string{"web-us"}, MaxDowntime: minute},
		{Addr: at("every", addr.NoKey), Name: "every", Groups: []string{"web-eu", "web-us", "database"},
			Survives: map[string]int64{"nodes": 1, "zones": 1}, MaxDowntime: spec.Duration(1500 * time.Millisecond)},
	}
	if diff := cmp.Diff(want, d.Spec().Guarantees, same); diff != "" {
		t.Error(diff)
	}
	for _, o := range d.Objects {
		if o.Addr.Type == addr.TypeGuarantee {
			t.Errorf("%s is an object", o.Addr)
		}
	}
	if got := d.Diagnostic(spec.Problem{Addr: at("each", addr.StringKey("us")), Attribute: "groups"}).Subject; got == nil || got.Start.Line != 35 {
		t.Errorf("where it stands: %v", got)
	}
	c, diags := load(t, map[string]string{"main.cluster.hcl": guaranteed, "g.cluster.json": `{
  "guarantee": {"every": {"groups": ["group.web[\"eu\"]", "group.sql"], "survives": {"nodes": 1}, "max_downtime": "2s"}}}`})
	mustHaveNone(t, c, diags)
	d, diags = c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	if diff := cmp.Diff([]spec.Guarantee{{Addr: at("every", addr.NoKey), Name: "every", Groups: []string{"web-eu", "database"},
		Survives: map[string]int64{"nodes": 1}, MaxDowntime: spec.Duration(2 * time.Second)}}, d.Spec().Guarantees, same); diff != "" {
		t.Error(diff)
	}
}
