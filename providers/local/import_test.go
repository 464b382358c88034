package local

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// A node that no state knows is found by all that people call it by; what it is
// like comes from the cluster, where it listens is written as the definition
// does. Nodes of others are never taken.
func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	a := newNode(t, p, "a", map[string]cty.Value{"zone": cty.StringVal("east"), "capacity": cty.MapVal(map[string]cty.Value{"cpu": cty.NumberIntVal(2000)})})
	a.phases(create...)
	port := freePort(t)
	b := newNode(t, p, "b", map[string]cty.Value{"address": cty.StringVal("127.0.0.1:" + port)})
	b.phases(create...)
	w.nodes.Remove(a.id)
	w.nodes.Remove(b.id)
	endpoint := a.prior.Value.GetAttr("endpoint").AsString()
	for _, id := range []string{a.id, "a", filepath.Join(resolve(w.dir), "nodes", "a"), endpoint} {
		res, err := p.Import(t.Context(), providers.ImportRequest{Addr: a.addr(), Type: addr.TypeNode, ID: id})
		if err != nil {
			t.Fatalf("by %s: %v", id, err)
		}
		if o := res.Object; o.ID != a.id || len(o.Health) > 0 || !o.Value.RawEquals(a.prior.Value) {
			t.Errorf("by %s: %s %v\n%#v\nwant\n%#v", id, o.ID, o.Health, o.Value, a.prior.Value)
		}
	}
	if got := w.nodes.All(); len(got) != 1 || got[0].NodeID != a.id {
		t.Errorf("the directory knows %v, and only a was imported", got)
	}
	// b may be written as host:port, as both apart, or not at all: nothing changes.
	for _, c := range []struct{ address, port cty.Value }{
		{cty.StringVal("127.0.0.1:" + port), cty.NullVal(cty.Number)},
		{cty.StringVal("127.0.0.1"), cty.MustParseNumberVal(port)},
		{cty.NullVal(cty.String), cty.MustParseNumberVal(port)},
	} {
		config := nodeValue("b", map[string]cty.Value{"address": c.address, "port": c.port})
		res, err := p.Import(t.Context(), providers.ImportRequest{Addr: b.addr(), Type: addr.TypeNode, ID: "b", Config: config})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := p.Plan(providers.PlanRequest{Addr: b.addr(), Type: addr.TypeNode, Prior: res.Object, Config: config})
		if err != nil || len(plan.Phases) > 0 || !plan.Planned.RawEquals(res.Object.Value) {
			t.Errorf("%#v: %v %v\n%#v\n%#v", c, plan.Phases, err, plan.Planned, res.Object.Value)
		}
	}
	refused := func(id, words string) {
		t.Helper()
		if _, err := p.Import(t.Context(), providers.ImportRequest{Addr: a.addr(), Type: addr.TypeNode, ID: id}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("by %s: %v", id, err)
		}
	}
	refused("127.0.0.1", "is 2 nodes of this cluster")
	refused("c", "there are a, b")
	file := filepath.Join(w.dir, "nodes", "b", providers.AgentConfigFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf providers.AgentConfig
	if err := json.Unmarshal(data, &conf); err != nil {
		t.Fatal(err)
	}
	conf.ClusterID = "another"
	if data, err = json.Marshal(conf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("b", "a node of another cluster is never taken")
	refused(b.id, "a node of another cluster is never taken")
}
