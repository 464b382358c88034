package lang

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// What conditions see, and what becomes of them: what the definition gives, what
// an apply has made known, the object itself, and the running cluster.
func TestConditions(t *testing.T) {
	const src = `
variable "sites" { default = { a = "east", b = "west", c = "west" } }
locals { quiet = [for n in node.n : n.name if n.zone == "west"] }
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = var.sites
  zone     = each.value
  lifecycle {
    postcondition {
      condition     = COND
      error_message = "n ${each.key}: ${self.endpoint}"
    }
  }
}
group "g" {
  for_each = toset(["x", "y"])
  lifecycle {
    PRE {
      condition     = COND
      error_message = "g ${each.key}"
    }
  }
  resource "ip_address" "vip" { address = "127.0.0.${group_each.key == "x" ? 1 : 2}" }
  resource "generic_application" "app" {
    command = ["true"]
    lifecycle {
      precondition {
        condition     = COND
        error_message = "app of ${group_each.key}"
      }
    }
  }
}
check "c" {
  assert {
    condition     = COND
    error_message = "c"
  }
}
`
	parts := strings.Split(src, "COND")
	// with puts a condition into one of the four places, and has all others hold.
	with := func(place int, kind, condition string) string {
		out := parts[0]
		for i, rest := range parts[1:] {
			if i == place {
				out += condition
			} else {
				out += "length(var.sites) == 3"
			}
			out += rest
		}
		return strings.Replace(out, "PRE", cmp.Or(kind, Precondition), 1)
	}
	endpoints := Known(func(a addr.Address) (cty.Value, bool) {
		return cty.ObjectVal(map[string]cty.Value{"endpoint": cty.StringVal("10.0.0." + a.Key.Plain())}), a.Type == addr.TypeNode
	})
	live := Live(func(a addr.Address, attribute string) (string, bool) {
		if a.Type == addr.TypeNode {
			return "up", true
		}
		return map[string]string{"state": "online", "owner": "n-" + a.Key.Plain()}[attribute], a.Key.Plain() != "y"
	})
	self := func(attrs map[string]cty.Value) View { return View{Self: cty.ObjectVal(attrs)} }
	const node, group, app, check = 0, 1, 2, 3
	for _, c := range []struct {
		place     int
		kind      string
		condition string
		view      View
		want      string
	}{
		{node, "", `self.zone == each.value`, View{}, "pass"},
		{node, "", `self.zone == "east"`, View{}, "fail The condition isn't met."}, // its message is not known yet
		{node, "", `self.zone == "east"`, View{Known: endpoints}, "fail n b: 10.0.0.b"},
		{node, "", `self.zone == "west"`, self(map[string]cty.Value{"zone": cty.StringVal("west")}), "pass"},
		{node, "", `self.endpoint != ""`, View{}, "unknown"},
		{node, "", `self.endpoint == "10.0.0.b"`, View{Known: endpoints}, "pass"},
		{node, "", `self.state == "up"`, View{}, "unknown"},
		{node, "", `self.state == "up"`, View{Live: live}, "pass"},
		{node, "", `contains(local.quiet, self.name)`, View{}, "fail"}, // refers to its own block, through a local value
		{group, Precondition, `node.n["a"].zone == "east" && each.key != ""`, View{}, "pass"},
		{group, Precondition, `node.n["a"].endpoint != ""`, View{}, "unknown"},
		{group, Precondition, `node.n["a"].endpoint == "10.0.0.b"`, View{Known: endpoints}, "fail g x"},
		{group, Postcondition, `self.state == "online" && self.owner == "n-${each.key}"`, View{Live: live}, "pass"},
		{group, Postcondition, `self.name == "g-y"`, View{}, "fail g x"},
		{app, "", `resource.vip.address == "127.0.0.1"`, View{}, "pass"},
		{app, "", `resource.vip.address == "127.0.0.2"`, View{}, "fail app of x"},
		{check, "", `group.g["x"].state == "online"`, View{Live: live}, "pass"},
		{check, "", `group.g["y"].state == "online"`, View{Live: live}, "unknown"}, // of it nobody tells
		{check, "", `alltrue([for n in node.n : n.state == "up"])`, View{Live: live}, "pass"},
		{check, "", `alltrue([for k, g in group.g : g.owner == "n-${k}" if k == "x"])`, View{Live: live}, "pass"},
		{check, "", `anytrue([for n in values(node.n) : n.state == "down"])`, View{Live: live}, "fail c"},
		{check, "", `split("", node.n["a"].state)[7] == "x"`, View{Live: live}, "error Invalid index"},
		{check, "", `can(split("", node.n["a"].state)[7])`, View{Live: live}, "fail c"},
		{check, "", `node.n["a"].state == "up" ? null : true`, View{Live: live}, "error A condition is true or false, and this is null."},
	} {
		conf, diags := load(t, map[string]string{"main.cluster.hcl": with(c.place, c.kind, c.condition)})
		def, more := conf.Evaluate(nil)
		if c.kind == "" && c.place == node && strings.Contains(c.condition, "local.quiet") {
			if !strings.Contains(fmt.Sprint(diags), "Dependency cycle") {
				t.Errorf("%s: %v", c.condition, diags)
			}
			continue
		}
		if append(diags, more...).HasErrors() {
			t.Errorf("%s: %v %v", c.condition, diags, more)
			continue
		}
		var got []Condition
		switch c.place {
		case node:
			got = def.Conditions(addr.Node("n", addr.StringKey("b")), Postcondition, c.view)
		case group:
			got = def.Conditions(addr.Group("g", addr.StringKey("x")), c.kind, c.view)
		case app:
			got = def.Conditions(addr.Group("g", addr.StringKey("x")).WithResource("app", addr.NoKey), Precondition, c.view)
		case check:
			got = def.Checks(c.view)[0].Conditions
		}
		if len(got) != 1 || !strings.HasPrefix(strings.TrimSpace(got[0].Status+" "+got[0].Message), c.want) {
			t.Errorf("%s: %+v, want %s", c.condition, got, c.want)
		} else if (got[0].Diag != nil) != (got[0].Status == Fail || got[0].Status == Error) {
			t.Errorf("%s: diagnostic %v with %s", c.condition, got[0].Diag, got[0].Status)
		}
	}
}

// JSON syntax has them too; a plain string is an expression in condition, and
// text in error_message.
func TestConditionsInJSON(t *testing.T) {
	conf, diags := load(t, map[string]string{"main.cluster.json": `{
  "cluster": { "c": { "quorum": { "model": "single_node" } } },
  "node": { "n1": { "provider": "local", "zone": "z" } },
  "group": { "g": {
    "failover": { "mode": "none" },
    "lifecycle": { "precondition": [ { "condition": "node.n1.zone == \"y\"", "error_message": "${node.n1.zone} it is" } ] },
    "resource": { "generic_application": { "app": { "command": ["true"] } } }
  } },
  "check": { "c": { "assert": { "condition": "${node.n1.zone == \"z\"}", "error_message": "No." } } },
  "output": { "o": { "value": "x", "depends_on": ["group.g"], "precondition": { "condition": "node.n1.zone == \"z\"", "error_message": "No." } } }
}`})
	def, more := conf.Evaluate(nil)
	if append(diags, more...).HasErrors() {
		t.Fatalf("%v %v", diags, more)
	}
	pre := def.Conditions(addr.Group("g", addr.NoKey), Precondition, View{})
	if len(pre) != 1 || pre[0].Status != Fail || pre[0].Message != "z it is" || pre[0].Diag.Detail != "group.g: z it is" {
		t.Errorf("precondition: %+v", pre)
	}
	if c := def.Checks(View{}); len(c) != 1 || c[0].Conditions[0].Status != Pass {
		t.Errorf("check: %+v", c)
	}
	if o := def.OutputConditions("o", View{}); len(o) != 1 || o[0].Status != Pass || len(def.Outputs[0].DependsOn) != 1 {
		t.Errorf("output: %+v", o)
	}
}
