package lang

import (
	"fmt"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
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

// modular is a definition of one directory with a module block for each of
// modules, which call one another's directory, of 50 objects each.
func modular(modules int) (root, module string) {
	root = `
cluster "modular" {
  quorum {
    model = "majority_node_set"
  }
}

node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
`
	for i := range modules {
		root += fmt.Sprintf(`
module "m%03d" {
  source = "./modules/m%03d"
  nodes  = node.n
  port   = %d
}
`, i, i, 10000+i)
	}
	module = `
variable "nodes" {
  type = map(node)
}

variable "port" {
  type = number
}

locals {
  owners = values(var.nodes)
}
`
	for i := range 25 {
		module += fmt.Sprintf(`
group "g%02d" {
  preferred_owners = local.owners

  resource "generic_application" "server" {
    command = ["serve", "--port", tostring(var.port + %d), "${path.module}"]
  }
}

output "g%02d" {
  value = group.g%02d
}
`, i, i, i, i)
	}
	return root, module
}

// BenchmarkModules loads and evaluates definitions of so many modules, each a
// directory of its own with 50 objects: 10,000 objects from 200.
func BenchmarkModules(b *testing.B) {
	for _, modules := range []int{50, 100, 200} {
		b.Run(fmt.Sprint(modules), func(b *testing.B) {
			root, module := modular(modules)
			files := []txtar.File{{Name: "root/main.cluster.hcl", Data: []byte(root)}}
			for i := range modules {
				files = append(files, txtar.File{Name: fmt.Sprintf("root/modules/m%03d/main.cluster.hcl", i), Data: []byte(module)})
			}
			b.ReportAllocs()
			for b.Loop() {
				c, diags := loadTree(b, files)
				if len(diags) > 0 {
					b.Fatal(diags)
				}
				d, diags := c.Evaluate(nil)
				if len(diags) > 0 || len(d.Objects) != 4+50*modules {
					b.Fatal(len(d.Objects), diags)
				}
			}
		})
	}
}
