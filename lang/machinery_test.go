package lang

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// hypervisor has machines, networks and volumes; bare has networks alone.
var hypervisor = map[string]map[string]spec.Schema{
	"hypervisor": {
		"network": spec.Schema{Name: "network", Attributes: []spec.Attribute{
			{Name: "subnet", Type: spec.TypeString, Impact: spec.ImpactReplace},
			{Name: "bridge", Type: spec.TypeString, Computed: true},
		}}.WithIdentity(),
		"volume": spec.Schema{Name: "volume", Attributes: []spec.Attribute{{Name: "size", Type: spec.TypeSize, Required: true}}}.WithIdentity(),
		"machine": spec.Schema{Name: "machine", Attributes: []spec.Attribute{
			{Name: "memory", Type: spec.TypeSize, Default: "256MiB", Impact: spec.ImpactReboot},
			{Name: "network", Type: spec.TypeNetworkRef, Required: true, Impact: spec.ImpactReplace},
			{Name: "disks", Type: spec.TypeVolumeRefs, Impact: spec.ImpactReplace},
			{Name: "address", Type: spec.TypeString, Computed: true},
		}, Blocks: []spec.Block{{Name: "nic", Repeated: true, Attributes: []spec.Attribute{{Name: "network", Type: spec.TypeNetworkRef, Required: true}}}}}.WithIdentity(),
	},
	"bare": {"network": spec.Schema{Name: "network"}.WithIdentity()},
}

func loadMachinery(t *testing.T, files map[string]string) (*Config, hcl.Diagnostics) {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return Load(Options{
		FS: fsys, Machinery: hypervisor, Version: "0.1.0",
		Providers: map[string]spec.Schema{"local": {Name: "local"}, "hypervisor": {Name: "hypervisor"}, "bare": {Name: "bare"}},
		Modules: func(source, _ string) (Module, error) {
			sub := fstest.MapFS{}
			for name, f := range fsys {
				if rest, ok := strings.CutPrefix("./"+name, source+"/"); ok {
					sub[rest] = f
				}
			}
			return Module{FS: sub, Dir: strings.TrimPrefix(source, "./")}, nil
		},
	})
}

const machineryCluster = "cluster \"c\" {\n  quorum { model = \"majority_node_set\" }\n}\n"

const machineryRoot = machineryCluster + `
network "lab" {
  provider = hypervisor
  subnet   = "10.0.0.0/24"
}
volume "data" {
  provider = hypervisor
  size     = "1024MiB"
}
machine "n" {
  provider   = hypervisor
  for_each   = toset(["a", "b"])
  network    = network.lab
  disks      = each.key == "a" ? [volume.data] : []
  depends_on = [module.m]
  nic { network = network.lab }
}
node "n" {
  provider = local
  for_each = machine.n
  address  = each.value.address
}
node "last" {
  provider = local
  address  = machine.n["b"].address
  port     = 7400
  depends_on = [volume.data]
}
module "m" {
  source = "./m"
  nets   = { one = network.lab }
}
output "addresses" { value = [for m in values(machine.n) : m.address] }
output "bridge" { value = network.lab.bridge }
output "inner" { value = module.m.net.subnet }
`

const machineryModule = `
variable "nets" { type = map(network) }
machine "inner" {
  provider = hypervisor
  network  = var.nets["one"]
}
output "net" { value = var.nets["one"] }
`

// What stands on what, and what is known when: addresses are unknown until the
// machines are there, also through for_each over them, modules and outputs.
func TestMachinery(t *testing.T) {
	c, diags := loadMachinery(t, map[string]string{"main.cluster.hcl": machineryRoot, "m/m.cluster.hcl": machineryModule})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d, diags := c.Evaluate(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	got := dump(d)
	for i := range d.Objects {
		for _, e := range d.Objects[i].DependsOn {
			if e.On {
				got += d.Objects[i].Addr.String() + " stands on " + e.To.String() + "\n"
			}
		}
	}
	file := filepath.Join("testdata", "evaluate", "machinery.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Of unknown addresses no rule is broken.
	for _, n := range d.Spec().Nodes {
		if n.Address != "" {
			t.Errorf("%s has address %q", n.Name, n.Address)
		}
	}
	// An apply learns of one machine after the other.
	there := map[string]string{"a": "10.0.0.11"}
	known := func(a addr.Address) (cty.Value, bool) {
		text, ok := there[a.Key.Plain()]
		if a.Type != addr.TypeMachine || !ok {
			return cty.NilVal, false
		}
		v, _ := d.Object(a)
		m := v.Value.AsValueMap()
		m["address"] = cty.StringVal(text)
		return cty.ObjectVal(m), true
	}
	address := func(a addr.Address) string {
		v, diags := d.Resolve(a, known)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return text(v.GetAttr("address"))
	}
	a, last := addr.Node("n", addr.StringKey("a")), addr.Node("last", addr.NoKey)
	if got := address(a) + " " + address(last); got != `"10.0.0.11" ?` {
		t.Errorf("with a alone: %s", got)
	}
	there["b"] = "10.0.0.12"
	if got := address(last) + " " + address(addr.Node("n", addr.StringKey("b"))); got != `"10.0.0.12" "10.0.0.12"` {
		t.Errorf("with both: %s", got)
	}
	for _, o := range d.ResolveOutputs(known, nil) {
		if o.Name == "addresses" && text(o.Value) != `["10.0.0.11" "10.0.0.12"]` {
			t.Errorf("output: %s", text(o.Value))
		}
	}
	// All known beforehand, two nodes at one address break the rule.
	if _, diags = c.Evaluate(func(a addr.Address) (cty.Value, bool) {
		if a.Type != addr.TypeMachine {
			return cty.NilVal, false
		}
		s := hypervisor["hypervisor"]["machine"]
		m := schema.BlockDefault(spec.Block{Attributes: s.Attributes, Blocks: s.Blocks}).AsValueMap()
		m["address"] = cty.StringVal("10.0.0.9:7400")
		return cty.ObjectVal(m), true
	}); !strings.Contains(diags.Error(), "one address") {
		t.Errorf("two nodes with one address, known: %v", diags)
	}
}

func TestMachineryDiagnostics(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"text for a reference", `machine "m" {
  provider = hypervisor
  network  = "lab"
}`, "Did you mean network.lab, without quotes?"},
		{"another kind", `volume "v" {
  provider = hypervisor
  size = "1GiB"
}
machine "m" {
  provider = hypervisor
  network  = volume.v
}`, "network is a network, and volume.v is none"},
		{"a whole block", `network "n" {
  provider = hypervisor
  for_each = toset(["x"])
}
machine "m" {
  provider = hypervisor
  network  = network.n
}`, "with its key"},
		{"another provider's", `network "n" { provider = bare }
machine "m" {
  provider = hypervisor
  network  = network.n
}`, "network.n is made by provider bare"},
		{"no such provider", `machine "m" { provider = nobody }
node "n" {
  provider = local
  address = machine.m.address
}`, "There is no provider \"nobody\""},
		{"a provider without", `machine "m" { provider = bare }`, "Provider bare has no machines. Use hypervisor."},
		{"none", `volume "v" { size = "1GiB" }`, "Missing provider"},
		{"computed", `network "n" {
  provider = hypervisor
  bridge = "br0"
}`, "bridge is worked out by an apply"},
		{"one name twice", `network "a" { provider = hypervisor }
network "b" {
  provider = hypervisor
  name = "a"
}`, "both named \"a\""},
		{"unknown name", `network "lab" { provider = hypervisor }
machine "m" {
  provider = hypervisor
  network = network.lbb
}`, "Did you mean network.lab?"},
		{"unknown attribute", `network "lab" { provider = hypervisor }
output "o" { value = network.lab.subnt }`, "has no attribute \"subnt\""},
		{"count over what is unknown", `network "lab" { provider = hypervisor }
node "n" {
  provider = local
  for_each = toset([network.lab.bridge])
}`, "--target network.lab"},
		{"known at plan", `network "lab" { provider = hypervisor }
node "n" {
  provider = local
  zone = network.lab.bridge
}`, "hangs on something that only an apply will know (network.lab's bridge)"},
		{"a cycle", `machine "m" {
  provider = hypervisor
  network = network.lab
}
network "lab" {
  provider = hypervisor
  subnet = machine.m.address
}`, "Dependency cycle"},
		{"look-alike", `network "lab" { provider = hypervisor }
module "m" {
  source = "./m"
  x = network.lab
}`, "Declare the variable with type = network"},
		{"a node for a network", `module "m" {
  source = "./n"
  net = node.z
}`, "a network is wanted, and node.z is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{
				"main.cluster.hcl": machineryCluster + "node \"z\" { provider = local }\n" + tc.text,
				"m/m.cluster.hcl":  "variable \"x\" { type = object({ subnet = string }) }\n",
				"n/n.cluster.hcl":  "variable \"net\" { type = network }\n",
			}
			c, diags := loadMachinery(t, files)
			_, more := c.Evaluate(nil)
			diags = append(diags, more...)
			var errs []string
			for _, d := range diags {
				if d.Severity == hcl.DiagError {
					errs = append(errs, d.Summary+": "+d.Detail)
				}
			}
			if all := strings.Join(errs, "\n"); !strings.Contains(all, tc.want) {
				t.Errorf("want %q in\n%s", tc.want, all)
			}
			if tc.name == "no such provider" && len(errs) != 1 {
				t.Errorf("what follows from it is told as well:\n%s", strings.Join(errs, "\n"))
			}
		})
	}
}

// In JSON plain strings are references where they are wanted, and both syntaxes
// mean the same.
func TestMachineryJSON(t *testing.T) {
	c, diags := loadMachinery(t, map[string]string{"main.cluster.json": `{
  "cluster": {"c": {"quorum": {"model": "majority_node_set"}}},
  "network": {"lab": {"provider": "hypervisor"}},
  "machine": {"m": {"provider": "hypervisor", "network": "network.lab", "nic": [{"network": "network.lab"}], "depends_on": ["network.lab"]}},
  "node": {"n": {"provider": "local", "address": "${machine.m.address}"}}
}`})
	d, more := c.Evaluate(nil)
	if diags = append(diags, more...); diags.HasErrors() {
		t.Fatal(diags)
	}
	m, _ := d.Object(addr.Address{Type: addr.TypeMachine, Name: "m"})
	if got := text(m.Value.GetAttr("network")) + text(m.Value.GetAttr("nic")); got != `"lab"[{network:"lab"}]` {
		t.Errorf("%s", got)
	}
	var names []string
	for _, b := range Language(Options{Machinery: hypervisor}) {
		names = append(names, b.Name)
	}
	if all := strings.Join(names, " "); !strings.Contains(all, "machine network volume") {
		t.Errorf("the language has %s", all)
	}
}
