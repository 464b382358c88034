package view

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/statefile"
)

const standing = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
network "lab" {
  provider = hypervisor
  subnet   = "10.0.0.0/24"
}
machine "n" {
  provider = hypervisor
  for_each = toset(["a", "b", "c"])
  image    = each.key == "a" ? "tiny-1" : "tiny-0"
  memory   = each.key == "b" ? "256MiB" : "128MiB"
  network  = network.lab
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  address  = machine.n[each.key].address
}
group "web" {
  resource "generic_application" "app" { command = ["serve", machine.n["b"].address] }
}
output "addresses" { value = [for m in values(machine.n) : m.address] }
`

type forgetful struct{}

func (forgetful) Append(...statefile.Entry) error { return nil }

// What people read of a plan whose addresses only its apply will know, and of one
// that makes a machine anew and reboots another under their nodes.
func TestPlanOfMachines(t *testing.T) {
	world := plannertest.New()
	registry := world.Registry()
	state := statefile.State{Lineage: "L"}
	plan := func(src string) (*planner.Plan, *lang.Definition) {
		conf, diags := lang.Load(lang.Options{
			FS:        fstest.MapFS{"main.cluster.hcl": &fstest.MapFile{Data: []byte(src)}},
			Providers: map[string]spec.Schema{"local": {Name: "local"}, "hypervisor": {Name: "hypervisor"}}, Machinery: registry.Machinery(),
		})
		known := func(a addr.Address) (cty.Value, bool) {
			o := state.Find(a)
			if o == nil || a.Type != addr.TypeNode && !addr.Machinery(a.Type) {
				return cty.NilVal, false
			}
			v, err := schema.FromJSON(o.Attributes, schema.Type(registry.Schemas()[o.Provider].Objects[o.Type]))
			return v, err == nil
		}
		seen, err := refresh.Run(context.Background(), refresh.Config{State: state, Providers: registry})
		if err != nil || diags.HasErrors() {
			t.Fatal(err, diags)
		}
		for next := lang.Known(known); ; {
			def, diags := conf.Evaluate(next)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			p, _ := planner.Build(planner.Input{Definition: def, State: state, World: seen, Providers: registry})
			later := p.Known(def, next)
			if later == nil {
				return p, def
			}
			next = later
		}
	}
	show := func(p *planner.Plan) string {
		var b bytes.Buffer
		if err := (Style{}).Plan(&b, p); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	p, def := plan(standing)
	text := show(p)
	if !strings.Contains(text, "(known after apply)") {
		t.Error("the plan tells no unknown address")
	}
	id := 0
	newID := func() string { id++; return fmt.Sprintf("%016x", id) }
	res, err := apply.Run(context.Background(), apply.Config{
		Plan: p, Definition: def, State: state, Providers: registry, Journal: forgetful{}, Parallelism: 1, Poll: time.Millisecond, NewID: newID,
		NewIdentity: func(name string) (*pki.Identity, error) {
			return &pki.Identity{ID: newID(), Name: name, Key: make([]byte, 32)}, nil
		},
	})
	if err != nil || len(res.Failed) > 0 {
		t.Fatal(err, res.Failed)
	}
	state = res.State
	for mid, m := range world.Members {
		if m.Spec.Name == "n-c" {
			world.Leader = mid
		}
	}
	p, _ = plan(strings.NewReplacer("tiny-1", "tiny-2", `"256MiB"`, `"512MiB"`).Replace(standing))
	golden(t, "machines.txt", text+"\n----\n\n"+show(p))
}
