package lang

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

const dynamicNodes = `
variable "phases" {
  default = [{ count = 4, every = "700ms" }, { count = 3, within = "750ms" }]
}
locals {
  subnets = { private = "10.77.0.0/24", spare = "10.78.0.0/24" }
  windows = { sql = "22:00-04:00" }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  zone     = each.key
}
`

// A definition with dynamic blocks is the one that has the blocks themselves:
// labels, iterators, one in another, some that make nothing, and what differs by
// the instance of the object that they stand in.
func TestDynamic(t *testing.T) {
	got := evaluate(t, dynamicNodes+`
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
  dynamic "heartbeat" {
    for_each = ["500ms"]
    iterator = beat
    content {
      profile      = "custom"
      interval     = beat.value
      reply_within = "200ms"
      dynamic "probe" {
        for_each = var.phases
        content {
          count  = probe.value.count
          every  = lookup(probe.value, "every", beat.key == 0 ? null : "1s")
          within = lookup(probe.value, "within", null)
        }
      }
    }
  }
  dynamic "link" {
    for_each = local.subnets
    labels   = ["${link.key}-net"]
    content {
      subnet = link.value
      role   = link.key == "spare" ? "all" : null
    }
  }
  link "public" {
    subnet = "192.0.2.0/24"
    role   = "client"
  }
}
group "g" {
  for_each = { sql = "a", web = "b" }
  dynamic "failback" {
    for_each = contains(keys(local.windows), each.key) ? [local.windows[each.key]] : []
    content {
      mode   = "window"
      window = failback.value
      delay  = "30s"
    }
  }
  dynamic "failover" {
    for_each = toset([each.value])
    iterator = it
    content {
      mode = it.key == "a" ? "manual" : "automatic"
    }
  }
  resource "generic_application" "app" {
    for_each = toset(["x"])
    command  = ["/bin/true"]
    dynamic "checkpoint" {
      for_each = [group_each.value]
      content {
        paths = ["/var/lib/${checkpoint.value}/${each.key}/${node.n[checkpoint.value].zone}"]
      }
    }
  }
}
`)
	want := evaluate(t, dynamicNodes+`
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
  heartbeat {
    profile      = "custom"
    interval     = "500ms"
    reply_within = "200ms"
    probe {
      count = 4
      every = "700ms"
    }
    probe {
      count  = 3
      within = "750ms"
    }
  }
  link "private-net" {
    subnet = "10.77.0.0/24"
  }
  link "spare-net" {
    subnet = "10.78.0.0/24"
    role   = "all"
  }
  link "public" {
    subnet = "192.0.2.0/24"
    role   = "client"
  }
}
group "g" {
  for_each = { sql = "a", web = "b" }
  failback {
    mode   = each.key == "sql" ? "window" : "prevent"
    window = each.key == "sql" ? "22:00-04:00" : null
    delay  = each.key == "sql" ? "30s" : "1m"
  }
  failover {
    mode = each.key == "sql" ? "manual" : "automatic"
  }
  resource "generic_application" "app" {
    for_each = toset(["x"])
    command  = ["/bin/true"]
    checkpoint {
      paths = ["/var/lib/${group_each.value}/${each.key}/${node.n[group_each.value].zone}"]
    }
  }
}
`)
	if diff := cmp.Diff(dump(want), dump(got)); diff != "" {
		t.Errorf("values (-written out, +dynamic):\n%s", diff)
	}
	if diff := cmp.Diff(want.Spec(), got.Spec(), cmp.AllowUnexported(addr.Key{})); diff != "" {
		t.Errorf("model (-written out, +dynamic):\n%s", diff)
	}
}

// An element that an apply will know makes the object wait for it, and is worked
// out again.
func TestDynamicOfUnknown(t *testing.T) {
	d := evaluate(t, dynamicNodes+`
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
group "g" {
  resource "generic_application" "app" {
    command = ["/bin/true"]
    dynamic "is_alive" {
      for_each = [node.n["a"]]
      content {
        tcp = is_alive.value.endpoint
      }
    }
  }
  resource "generic_application" "other" {
    command = ["/bin/true"]
    dynamic "is_alive" {
      for_each = values(node.n)[*].zone == ["x"] ? [1] : []
      content {
        interval = "10s"
      }
    }
  }
}
`)
	at, err := addr.Parse("group.g.resource.app")
	if err != nil {
		t.Fatal(err)
	}
	o, _ := d.Object(at)
	if len(o.DependsOn) != 1 || o.DependsOn[0].To.String() != `node.n["a"]` || !o.DependsOn[0].Hard || !o.Unknown {
		t.Errorf("depends on %v, unknown %v", o.DependsOn, o.Unknown)
	}
	v, diags := d.Resolve(at, func(a addr.Address) (cty.Value, bool) {
		return cty.ObjectVal(map[string]cty.Value{"endpoint": cty.StringVal("127.0.0.1:7")}), a.String() == `node.n["a"]`
	})
	if got := v.GetAttr("is_alive").GetAttr("tcp"); diags.HasErrors() || !got.RawEquals(cty.StringVal("127.0.0.1:7")) {
		t.Errorf("tcp is %#v, %s", got, diags)
	}
	other, _ := d.Object(at.Owner().WithResource("other", addr.NoKey))
	if got := text(other.Value.GetAttr("is_alive").GetAttr("interval")); got != `"1m0s"` && got != `"1m"` {
		t.Errorf("interval is %s, and no block is made", got)
	}
}

// In JSON syntax too.
func TestDynamicJSON(t *testing.T) {
	native := evaluate(t, `
cluster "c" {
  quorum {
    model = "single_node"
  }
  dynamic "link" {
    for_each = { a = "10.0.0.0/24" }
    iterator = it
    labels   = [it.key]
    content {
      subnet = it.value
    }
  }
}
node "n" {
  provider = local
}
`)
	c, diags := load(t, map[string]string{"main.cluster.json": `{
  "cluster": {"c": {
    "quorum": {"model": "single_node"},
    "dynamic": {"link": {"for_each": {"a": "10.0.0.0/24"}, "iterator": "it", "labels": ["${it.key}"], "content": {"subnet": "${it.value}"}}}
  }},
  "node": {"n": {"provider": "local"}}
}`})
	mustHaveNone(t, c, diags)
	d, diags := c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	if diff := cmp.Diff(dump(native), dump(d)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(dump(d), "10.0.0.0/24") {
		t.Error("the link isn't there")
	}
}
