package main

import (
	"bytes"
	"fmt"
	"strings"
)

// Shapes of a definition.
const (
	shapeBatches = "batches"  // group blocks with for_each, 200 instances each
	shapeFlat    = "flat"     // every group a block of its own, none depends on another
	shapeLayered = "layered"  // the same in 100 layers, each depends on one of the layer before
	shapeForEach = "for_each" // one group block, all groups are its instances
)

var shapes = []string{shapeBatches, shapeFlat, shapeLayered, shapeForEach}

const (
	batch  = 200
	layers = 100
)

// shape says what a definition looks like.
type shape struct {
	name     string
	perGroup int  // objects of a group: itself and its resources, 1 to 5
	changed  bool // one object in a hundred is described otherwise
}

// bare is a definition of a cluster and three nodes.
const bare = 4

func (s shape) groups(objects int) int { return (objects - bare) / s.perGroup }

// every is which groups are described otherwise where one object in a hundred is.
func (s shape) every() int { return 100 / s.perGroup }

// definition has three nodes and as many groups as make that many objects.
func (s shape) definition(objects int) []byte {
	var b bytes.Buffer
	b.WriteString("cluster \"bench\" {\n  quorum { model = \"majority_node_set\" }\n}\n")
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(&b, "node \"n%d\" { provider = local }\n", i)
	}
	groups := s.groups(objects)
	if groups <= 0 {
		return b.Bytes()
	}
	every := s.every()
	switch s.name {
	case shapeFlat, shapeLayered:
		width := max(1, groups/layers)
		for i := range groups {
			fmt.Fprintf(&b, "group \"g%d\" {\n", i)
			if s.name == shapeLayered && i >= width {
				fmt.Fprintf(&b, "  depends_on = [group.g%d]\n", i-width)
			}
			about := "tenant"
			if s.changed && i%every == 0 {
				about = "another tenant"
			}
			s.body(&b, about, fmt.Sprint(i/250), fmt.Sprint(i%250), "", "")
			b.WriteString("}\n")
		}
	case shapeForEach:
		fmt.Fprintf(&b, "group \"g\" {\n  for_each = { for i in %s : \"t${i}\" => { net = floor(i / 250), host = i %% 250, about = %s } }\n", numbers(groups), s.about("i", every))
		s.body(&b, "${each.value.about}", "${each.value.net}", "${each.value.host}", "${group_each.value.net}", "${group_each.value.host}")
		b.WriteString("}\n")
	default:
		for i := 0; i*batch < groups; i++ {
			fmt.Fprintf(&b, "group \"g%d\" {\n  for_each = toset([for i in range(%d) : tostring(i)])\n", i, min(batch, groups-i*batch))
			about := "tenant"
			if s.changed {
				about = "${" + s.about("tonumber(each.key)", every) + "}"
			}
			s.body(&b, about, fmt.Sprint(i), "${each.key}", "", "${group_each.key}")
			b.WriteString("}\n")
		}
	}
	return b.Bytes()
}

// numbers is an expression of the numbers from 0 below n: range gives 1,024 at most.
func numbers(n int) string {
	const row = 1000
	return fmt.Sprintf("slice(flatten([for a in range(%d) : [for b in range(%d) : a * %d + b]]), 0, %d)", (n+row-1)/row, row, row, n)
}

// about is an expression of what the i-th group is described as.
func (s shape) about(i string, every int) string {
	if !s.changed {
		return `"tenant"`
	}
	return fmt.Sprintf(`%s %% %d == 0 ? "another tenant" : "tenant"`, i, every)
}

// body is a group's. innerNet and innerHost are net and host within a resource,
// "" for the same.
func (s shape) body(b *bytes.Buffer, about, net, host, innerNet, innerHost string) {
	if innerNet == "" {
		innerNet = net
	}
	if innerHost == "" {
		innerHost = host
	}
	fmt.Fprintf(b, "  description      = \"%s %s %s\"\n  preferred_owners = [node.n1, node.n2]\n", about, net, host)
	for _, r := range resources[:s.perGroup-1] {
		b.WriteString(strings.NewReplacer("NET", innerNet, "HOST", innerHost).Replace(r))
	}
}

var resources = []string{`  resource "ip_address" "vip" {
    address = "127.99.NET.HOST"
  }
`, `  resource "generic_application" "db" {
    command    = ["/bin/db", "--tenant", "NET-HOST"]
    depends_on = [resource.vip]
  }
`, `  resource "generic_application" "app" {
    command     = ["/bin/app", "--tenant", "NET-HOST"]
    environment = { DB = "127.99.NET.HOST:5432", TENANT = "HOST" }
    depends_on  = [resource.db]
    is_alive {
      http     = "http://127.99.NET.HOST/"
      interval = "10s"
    }
  }
`, `  resource "generic_application" "worker" {
    command    = ["/bin/worker", "HOST"]
    depends_on = [resource.db]
  }
`}
