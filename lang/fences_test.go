package lang

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

const machineFenceRoot = `
network "lab" {
  provider = hypervisor
}
machine "n" {
  provider = hypervisor
  for_each = toset(["n1", "n2", "n3"])
  name     = "vm-${each.key}"
  network  = network.lab
}
node "n" {
  provider = local
  for_each = machine.n
  name     = each.key
  address  = each.value.address
}
node "w" {
  votes      = 0
  provider   = local
  labels     = { twin = machine.n["n1"].name }
  depends_on = [machine.n]
}
`

// Nodes on machines that no fence covers have one by their provider's own connection,
// unless the agents couldn't use it: then it is said why.
func TestFenceOfMachines(t *testing.T) {
	attr := func(name string) spec.Attribute {
		return spec.Attribute{Name: name, Type: spec.TypeString, KnownAtPlan: true}
	}
	provider := spec.Schema{Name: "hypervisor", Attributes: []spec.Attribute{{Name: "uri", Type: spec.TypeString, Default: "qemu:///system", KnownAtPlan: true}},
		Blocks: []spec.Block{{Name: "fence", Attributes: []spec.Attribute{{Name: "enabled", Type: spec.TypeBool, Default: true, KnownAtPlan: true},
			attr("uri"), attr("private_key"), attr("host_key"), attr("certificate"), attr("ca_certificate"),
			{Name: "when", Type: spec.TypeString, Default: spec.FenceNeeded, KnownAtPlan: true}, {Name: "delay", Type: spec.TypeDuration, Default: "5s", KnownAtPlan: true}, {Name: "action", Type: spec.TypeString, Default: spec.FenceOff, KnownAtPlan: true}}}}}
	load := func(t *testing.T, text string) (*Definition, hcl.Diagnostics) {
		t.Helper()
		if !strings.Contains(text, "cluster ") {
			text += machineryCluster
		}
		c, diags := Load(Options{FS: fstest.MapFS{"main.cluster.hcl": &fstest.MapFile{Data: []byte(text + machineFenceRoot)}}, Machinery: hypervisor,
			Providers: map[string]spec.Schema{"local": {Name: "local"}, "hypervisor": provider}})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		return c.Evaluate(nil)
	}
	const ssh = `provider "hypervisor" {
  fence {
    uri         = "qemu+ssh://root@10.0.0.1/system"
    private_key = "sesame"
    host_key    = "SHA256:x"
  }
}
`
	t.Run("default", func(t *testing.T) {
		d, diags := load(t, ssh+`
fence "ipmi" {
  agent = "fence_ipmilan"
  nodes = [node.n["n2"]]
}
`)
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		o, ok := d.Object(addr.Address{Type: addr.TypeFence, Name: "machines"})
		if !ok || len(o.DependsOn) != 2 || o.DependsOn[0].To.String() != `node.n["n1"]` || o.DependsOn[0].Hard {
			t.Fatalf("the fence is %+v", o)
		}
		key := o.Value.GetAttr("parameters").Index(cty.StringVal("private_key"))
		if !schema.IsSensitive(key) {
			t.Error("the key is not sensitive")
		}
		f := d.Spec().Fences[1]
		want := map[string]string{"n1": "vm-n1", "n3": "vm-n3"}
		if f.Agent != spec.FenceLibvirt || f.Name != "machines" || strings.Join(f.Nodes, " ") != "n1 n3" || !maps.Equal(f.Plugs, want) || f.Parameters["private_key"] != "sesame" || f.When != spec.FenceNeeded || f.Delay.String() != "5s" || !f.IsSensitive("private_key") {
			t.Errorf("the fence is %+v", f)
		}
		if v, diags := d.Resolve(o.Addr, nil); diags.HasErrors() || !v.RawEquals(o.Value) {
			t.Errorf("resolved it is %#v, %v", v, diags)
		}
	})
	t.Run("uri known after apply", func(t *testing.T) {
		d, diags := load(t, `
fence "late" {
  agent      = "libvirt"
  nodes      = values(node.n)
  parameters = { uri = "qemu+tcp://${machine.n["n1"].address}/system" }
}
`)
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		late := addr.Address{Type: addr.TypeFence, Name: "late"}
		v, diags := d.Resolve(late, func(a addr.Address) (cty.Value, bool) {
			return cty.ObjectVal(map[string]cty.Value{"address": cty.StringVal("10.0.0.9")}), a.Type == addr.TypeMachine
		})
		if got := v.GetAttr("parameters").Index(cty.StringVal("uri")); diags.HasErrors() || got.AsString() != "qemu+tcp://10.0.0.9/system" {
			t.Errorf("it is %#v, %v", got, diags)
		}
	})
	reach := func(uri, more string) string {
		return fmt.Sprintf("provider \"hypervisor\" {\n  fence {\n    uri = %q\n    %s\n  }\n}\n", uri, more)
	}
	for name, c := range map[string]struct {
		text, want string
		severity   hcl.DiagnosticSeverity
	}{
		"socket":          {"", "(n1, n2, n3): qemu:///system is a socket of the hypervisor", hcl.DiagWarning},
		"explicit socket": {"provider \"hypervisor\" {\n  fence {\n    uri = \"qemu:///system\"\n  }\n}\n", "is a socket of the hypervisor", hcl.DiagError},
		"no key":          {"provider \"hypervisor\" {\n  uri = \"qemu+ssh://root@h/system\"\n}\n", "the agents have no key to log in to h with", hcl.DiagWarning},
		"no host key":     {reach("qemu+ssh://root@h/system?keyfile=/k", ""), "don't know the key of h's SSH server", hcl.DiagError},
		"own files":       {"provider \"hypervisor\" {\n  uri = \"qemu+ssh://root@h/system?keyfile=/k&known_hosts=/h\"\n}\n", "log in to h with (keyfile of the provider's uri is on the machine that plans)", hcl.DiagWarning},
		"own known hosts": {"provider \"hypervisor\" {\n  uri = \"qemu+ssh://root@h/system?known_hosts=/h\"\n  fence {\n    private_key = \"sesame\"\n  }\n}\n", "(known_hosts of the provider's uri is on", hcl.DiagError},
		"own pki":         {"provider \"hypervisor\" {\n  uri = \"qemu://h/system?pkipath=/p\"\n}\n", "(pkipath of the provider's uri is on", hcl.DiagWarning},
		"files on nodes":  {reach("qemu+ssh://root@h/system?keyfile=/k&known_hosts=/h", ""), "", 0},
		"half of the TLS": {reach("qemu://h/system?pkipath=/p", "certificate = \"c\""), "no authority for TLS with h", hcl.DiagError},
		"password":        {reach("qemu+tcp://root:sesame@h/system", ""), "has a password in it", hcl.DiagError},
		"password, torn":  {reach("qemu+tcp://root:sesame@h:x/system", ""), "is none of libvirt's", hcl.DiagError},
		"other way":       {reach("qemu+libssh2://root@h/system", ""), "+libssh2 in the uri is not known", hcl.DiagError},
		"no path":         {reach("qemu+tcp://h", ""), "has no path", hcl.DiagError},
		"trusts any":      {reach("qemu+tls://h/system?no_verify=1", ""), "trust any host", hcl.DiagError},
		"secret host":     {"variable \"at\" {\n  type = string\n  sensitive = true\n  default = \"qemu+ssh://root@sesame/system\"\n}\nprovider \"hypervisor\" {\n  fence {\n    uri = var.at\n  }\n}\n", "no key to log in to the hypervisor with", hcl.DiagError},
		"no certificate":  {"provider \"hypervisor\" {\n  uri = \"qemu://h/system\"\n}\n", "no authority for TLS with h", hcl.DiagWarning},
		"loopback":        {"provider \"hypervisor\" {\n  uri = \"qemu+tcp://127.0.0.1/system\"\n}\n", "is, inside a machine, that machine", hcl.DiagWarning},
		"name taken":      {ssh + "fence \"machines\" {\n  agent = \"fence_x\"\n  nodes = [node.w]\n}\n", "Rename this one", hcl.DiagError},
		"tcp":             {"provider \"hypervisor\" {\n  uri = \"qemu+tcp://h/system\"\n}\n", "", 0},
		"off":             {"provider \"hypervisor\" {\n  fence {\n    enabled = false\n  }\n}\n", "", 0},
		"one for all":     {"fence \"all\" {\n  agent = \"fence_x\"\n}\n", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, diags := load(t, c.text)
			if c.want == "" {
				if len(diags) > 0 {
					t.Fatal(diags)
				}
				return
			}
			if len(diags) != 1 || diags[0].Severity != c.severity || !strings.Contains(diags[0].Detail, c.want) || strings.Contains(diags[0].Detail, "sesame") {
				t.Fatalf("want %q: %v", c.want, diags)
			}
		})
	}
}
