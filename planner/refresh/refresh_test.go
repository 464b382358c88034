package refresh

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

type shaped struct{ providers.Provider }

func (shaped) Schema() providers.Schema {
	return providers.Schema{Objects: map[string]spec.Schema{addr.TypeMachine: {Name: addr.TypeMachine,
		Blocks: []spec.Block{{Name: "cloud_init", Attributes: []spec.Attribute{{Name: "user_data", Type: spec.TypeString}}}}}}}
}

// What the state has a digest of is known by the definition's value, also where that
// is no secret there any more: else a machine would be made anew for it.
func TestSecretsByTheDefinition(t *testing.T) {
	a := addr.Address{Type: addr.TypeMachine, Name: "m"}
	st := statefile.State{Lineage: "l", Objects: []statefile.Object{{Addr: a, Type: a.Type, Provider: "p", ID: "1", Sensitive: []string{"cloud_init"},
		Attributes: json.RawMessage(`{"cloud_init":{"user_data":"hush"}}`)}}}
	text, err := statefile.Marshal(&st)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := statefile.Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		defined cty.Value
		same    bool
	}{
		{cty.StringVal("hush").Mark(schema.Sensitive), true},
		{cty.StringVal("hush"), true},
		{cty.StringVal("other"), false},
	} {
		def := &lang.Definition{Objects: []lang.Object{{Addr: a, Type: a.Type, Provider: "p",
			Value: cty.ObjectVal(map[string]cty.Value{"cloud_init": cty.ObjectVal(map[string]cty.Value{"user_data": c.defined})})}}}
		found, err := collect(Config{State: *kept, Definition: def, Providers: providers.NewRegistry(map[string]providers.Provider{"p": shaped{}})}, planner.World{})
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		was := found[0].prior.Value.GetAttr("cloud_init").GetAttr("user_data")
		if _, digest := spec.IsDigest(was.AsString()); digest == c.same || c.same != (was.AsString() == "hush") {
			t.Errorf("%#v: it was %#v", c.defined, was)
		}
	}
}

// onMachines tells that a machine is off, and fails the test where its node is asked.
type onMachines struct {
	shaped
	t   *testing.T
	off string
}

func (p onMachines) Read(_ context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	o := &providers.Object{ID: req.ID}
	switch {
	case req.Addr.Type == addr.TypeMachine && req.Addr.Name == p.off:
		o.Health = []string{providers.HealthMachineOff}
	case req.Addr.Type == addr.TypeNode && req.Addr.Name == p.off:
		p.t.Errorf("%s is asked, whose machine is off", req.Addr)
	}
	return providers.ReadResponse{Object: o}, nil
}

func TestNodesOfMachinesThatAreOff(t *testing.T) {
	var st statefile.State
	def := &lang.Definition{}
	for _, name := range []string{"a", "b"} {
		m, n := addr.Address{Type: addr.TypeMachine, Name: name}, addr.Node(name, addr.NoKey)
		st.Objects = append(st.Objects, statefile.Object{Addr: n, Type: n.Type, Provider: "p", ID: "n" + name}, statefile.Object{Addr: m, Type: m.Type, Provider: "p", ID: "m" + name})
		def.Objects = append(def.Objects, lang.Object{Addr: n, Type: n.Type, DependsOn: []lang.Edge{{To: m, Hard: true, On: true}}}, lang.Object{Addr: m, Type: m.Type})
	}
	world, err := Run(t.Context(), Config{State: st, Definition: def, Providers: providers.NewRegistry(map[string]providers.Provider{"p": onMachines{t: t, off: "b"}})})
	if err != nil {
		t.Fatal(err)
	}
	if seen := world.Objects[addr.Node("a", addr.NoKey)]; seen.Object == nil || seen.Err != "" {
		t.Errorf("a: %+v", seen)
	}
	if seen := world.Objects[addr.Node("b", addr.NoKey)]; seen.Object != nil || seen.Err != "machine.b is off" {
		t.Errorf("b: %+v", seen)
	}
}
