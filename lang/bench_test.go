package lang

import (
	"fmt"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// large is a definition of 3 nodes and about n other objects: groups by
// for_each, each with three resources that differ by instance.
func large(groups int) string {
	return fmt.Sprintf(`
cluster "large" {
  quorum {
    model = "majority_node_set"
  }
}

locals {
  prefix = "app"
  numbers = flatten([for i in range(%d) : [for j in range(50) : i * 50 + j]])
  shards  = { for i in local.numbers : format("s%%05d", i) => { port = 10000 + i, owner = ["a", "b", "c"][i %% 3] } }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  zone     = each.key
}

group "shard" {
  for_each         = local.shards
  description      = "Shard ${each.key}"
  preferred_owners = concat([node.n[each.value.owner]], [for k, n in node.n : n if k != each.value.owner])
  demand           = { cpu = 1, memory = "1GiB" }

  failback {
    mode  = "immediate"
    delay = "5s"
  }

  resource "generic_application" "server" {
    command     = ["clusterplan", "demo", "web", "--listen", "127.0.0.1:${group_each.value.port}"]
    environment = { PREFIX = local.prefix, KEY = group_each.key }
    is_alive {
      interval = "10s"
      tcp      = "127.0.0.1:${group_each.value.port}"
    }
  }

  resource "generic_application" "agent" {
    command    = ["clusterplan", "demo", "worker"]
    directory  = "/tmp"
    depends_on = [resource.server]
  }

  resource "generic_application" "seen" {
    command    = ["echo", node.n[group_each.value.owner].endpoint]
    depends_on = [resource.server, resource.agent]
  }
}

output "ports" {
  value = { for k, s in local.shards : k => s.port }
}
`, groups/50)
}

func loadLarge(tb testing.TB, groups int) *Config {
	fsys := fstest.MapFS{"main.cluster.hcl": &fstest.MapFile{Data: []byte(large(groups))}}
	c, diags := Load(Options{FS: fsys, Providers: localProvider})
	if len(diags) > 0 {
		tb.Fatal(diags)
	}
	return c
}

func BenchmarkEvaluate(b *testing.B) {
	for _, objects := range []int{1000, 10000} {
		b.Run(fmt.Sprint(objects), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, diags := loadLarge(b, objects/4).Evaluate(nil)
				if len(diags) > 0 || len(d.Objects) < objects {
					b.Fatal(len(d.Objects), diags)
				}
			}
		})
	}
	b.Run("heap", func(b *testing.B) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		d, _ := loadLarge(b, 2500).Evaluate(nil)
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(d)
		for b.Loop() {
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-held")
	})
}

// Resolving every object one by one, as an apply does.
func BenchmarkResolve(b *testing.B) {
	for _, objects := range []int{1000, 10000} {
		b.Run(fmt.Sprint(objects), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				d, _ := loadLarge(b, objects/4).Evaluate(nil)
				b.StartTimer()
				for _, o := range d.Objects {
					v, diags := d.Resolve(o.Addr, allKnown)
					if len(diags) > 0 || !v.IsWhollyKnown() {
						b.Fatalf("%s: %#v %v", o.Addr, v, diags)
					}
				}
			}
		})
	}
}

// allKnown knows the computed attributes of every node.
func allKnown(a addr.Address) (cty.Value, bool) {
	if a.Type != addr.TypeNode {
		return cty.NilVal, false
	}
	return cty.ObjectVal(map[string]cty.Value{
		"endpoint": cty.StringVal(a.DefaultName() + ".example:7401"), "server_id": cty.NumberIntVal(7), "program": cty.StringVal("abc"),
	}), true
}
