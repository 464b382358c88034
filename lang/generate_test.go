package lang

import (
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// What is written for objects as they are evaluates to the same objects, and
// says nothing that is so by default.
func TestGenerate(t *testing.T) {
	const base = `
cluster "c" {
  quorum { model = "majority_node_set" }
  configuration = "hybrid"
}
node "n1" { provider = local }
node "n4" { provider = local }
node "n2" {
  provider = local
  for_each = toset(["$${x}"])
  name     = "n2"
}
`
	const objects = `
node "n3" {
  provider = local
  name     = "third"
  address  = "127.0.0.1:7403"
  capacity = { cpu = 1.5, memory = "8GiB", disks = 3 }
  votes    = 0
  labels   = { "a b" = "$${x} \"q\"\n" }
}
fence "f" {
  agent = "fence_virsh"
  nodes = [node.n1, node.n3]
  plugs = { n1 = "p" }
}
group "a" {
  preferred_owners = [node.n1]
  failover { mode = "automatic" }
  resource "script" "s" {
    start     = ["%%{x}", "\\"]
    exclusive = true
  }
}
group "b" {
  preferred_owners = [node.n2["$${x}"], node.n3]
  possible_owners  = [node.n1, node.n2["$${x}"], node.n3]
  priority         = 0
  depends_on       = [group.a]
  stop_within      = "250ms"
  failover {
    mode      = "manual"
    threshold = 2
  }
  failback { mode = "immediate" }
  resource "ip_address" "vip" { address = "127.0.0.9" }
  resource "generic_application" "app" {
    command        = ["x", "y z"]
    environment    = { A = "1", "for" = "$${y}", "a b" = "%" }
    depends_on     = [resource.vip]
    depends_on_any = [resource.vip]
    is_alive { tcp = "127.0.0.9:80" }
    restart { affect_group = false }
    checkpoint { paths = ["/x"] }
  }
}
`
	want := evaluate(t, base+objects)
	var list []Found
	for _, text := range []string{"node.n3", "fence.f", "group.a", "group.b"} {
		a, err := addr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		o, _ := want.Object(a)
		f := Found{Addr: a, Type: o.Type, Value: o.Value}
		for _, r := range want.Objects {
			if r.Addr.IsResource() && r.Addr.Owner() == a {
				f.Resources = append(f.Resources, Found{Addr: r.Addr, Type: r.Type, Value: r.Value})
			}
		}
		list = append(list, f)
	}
	there := evaluate(t, base)
	text, problems, diags := there.Generate(list)
	if len(problems) > 0 || diags.HasErrors() {
		t.Fatalf("%v %v", problems, diags)
	}
	if again, _ := Format(text, "x.hcl"); string(again) != string(text) {
		t.Errorf("it is not in the canonical style:\n%s", text)
	}
	got := evaluate(t, base+string(text))
	for i := range want.Objects {
		w := &want.Objects[i]
		g, ok := got.Object(w.Addr)
		if !ok || g.Type != w.Type || !g.Value.RawEquals(w.Value) && w.Value.IsWhollyKnown() || w.Addr.Type == addr.TypeNode && !sameNode(got, want, w.Addr) {
			t.Errorf("%s differs:\n%#v\n%#v", w.Addr, g, w)
		}
	}
	for _, words := range []string{"role", "spare", "action", "timeout", "persistent_state", "looks_alive", "period", `name     = "n1"`, "endpoint"} {
		if strings.Contains(string(text), words) {
			t.Errorf("%q is so by default:\n%s", words, text)
		}
	}
	// What can't be written is told, and the rest is written.
	keyed := list[0]
	keyed.Addr = addr.Node("k", addr.StringKey("a"))
	text, problems, _ = there.Generate([]Found{list[3], keyed, list[0]})
	if len(problems) != 2 || !strings.Contains(problems[0].Error(), `depends_on: the definition has no group called "a"`) || !strings.Contains(problems[1].Error(), "only a person can write") || !strings.Contains(string(text), `node "n3"`) {
		t.Errorf("%v\n%s", problems, text)
	}
}

func sameNode(a, b *Definition, at addr.Address) bool {
	x, _ := a.Object(at)
	y, _ := b.Object(at)
	for name := range x.Value.Type().AttributeTypes() {
		v, w := x.Value.GetAttr(name), y.Value.GetAttr(name)
		if v.IsKnown() != w.IsKnown() || v.IsKnown() && !v.RawEquals(w) {
			return false
		}
	}
	return true
}
