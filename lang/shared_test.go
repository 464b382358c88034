package lang

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// One expression in one file has another value in each instance of the module that it
// stands in, however deep, and in each instance of its block.
func TestSameTextOtherValues(t *testing.T) {
	ar := txtar.Parse([]byte(`
-- root/main.cluster.hcl --
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
  name     = each.key
}
locals { tag = "root" }
module "site" {
  source   = "./site"
  for_each = { x = "X", y = "Y" }
  name     = each.key
  value    = each.value
  nodes    = [for n in node.n : n]
}
module "lone" {
  source = "./site/rack"
  name   = "lone"
  tag    = local.tag
  nodes  = [node.n["b"]]
}
output "texts" {
  value = { for k, m in module.site : k => m.texts }
}
-- root/site/main.cluster.hcl --
variable "name" {}
variable "value" {}
variable "nodes" {}
locals {
  tag = "${var.name}=${var.value}"
  own = var.name
}
module "rack" {
  source = "./rack"
  count  = 2
  name   = "${var.name}${count.index}"
  tag    = local.tag
  nodes  = var.nodes
}
group "front" {
  for_each         = toset([local.own, "${local.own}2"])
  name             = each.key
  description      = local.tag
  preferred_owners = var.nodes
  resource "generic_application" "r" {
    command = ["run", var.name, local.own, group_each.key]
  }
}
output "texts" {
  value = concat([local.tag], module.rack[*].text, [module.rack[0].text], [group.front[local.own].description])
}
-- root/site/rack/main.cluster.hcl --
variable "name" {}
variable "tag" {}
variable "nodes" {}
locals { tag = var.tag }
group "g" {
  name             = var.name
  description      = local.tag
  preferred_owners = var.nodes
  resource "generic_application" "r" {
    count   = 2
    directory = "/d${count.index}"
    command = ["run", var.tag, local.tag, tostring(count.index), resource.one.command[0], resource.one.command[0]]
  }
  resource "generic_application" "one" {
    command = [var.name]
  }
}
output "text" { value = "${group.g.name}: ${local.tag}" }
`))
	c, diags := loadTree(t, ar.Files)
	mustHaveNone(t, c, diags)
	d, diags := c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	got := map[string]string{}
	for _, g := range d.Spec().Groups {
		a := g.Addr.String()
		got[a] = fmt.Sprintf("%s %q %v", g.Name, g.Description, g.PreferredOwners)
		for _, r := range g.Resources {
			o, _ := d.Object(r.Addr)
			command, _ := schema.Elements(o.Value.GetAttr("command"))
			got[r.Addr.String()] = fmt.Sprintf("%s %v", r.Name, command)
		}
	}
	if n := d.Outputs[0].Value.LengthInt(); n != 2 {
		t.Errorf("%d sites in the output, want 2", n)
	}
	for k, texts := range d.Outputs[0].Value.AsValueMap() {
		var list []string
		for _, text := range texts.AsValueSlice() {
			list = append(list, text.AsString())
		}
		v := k + "=" + strings.ToUpper(k)
		if want := []string{v, k + "0: " + v, k + "1: " + v, k + "0: " + v, v}; !slices.Equal(list, want) {
			t.Errorf("output of %s: %v, want %v", k, list, want)
		}
	}
	want := map[string]string{
		`module.lone.group.g`:               `lone "root" [b]`,
		`module.lone.group.g.resource.one`:  "one [lone]",
		`module.lone.group.g.resource.r[0]`: "r-0 [run root root 0 lone lone]",
		`module.lone.group.g.resource.r[1]`: "r-1 [run root root 1 lone lone]",
	}
	for k, v := range map[string]string{"x": "x=X", "y": "y=Y"} {
		site := fmt.Sprintf("module.site[%q].", k)
		for _, key := range []string{k, k + "2"} {
			front := fmt.Sprintf("%sgroup.front[%q]", site, key)
			want[front] = fmt.Sprintf("%s %q [a b c]", key, v)
			want[front+".resource.r"] = fmt.Sprintf("r [run %s %s %s]", k, k, key)
		}
		for i := range 2 {
			g, name := fmt.Sprintf("%smodule.rack[%d].group.g", site, i), fmt.Sprint(k, i)
			want[g] = fmt.Sprintf("%s %q [a b c]", name, v)
			want[g+".resource.one"] = fmt.Sprintf("one [%s]", name)
			for j := range 2 {
				want[fmt.Sprintf("%s.resource.r[%d]", g, j)] = fmt.Sprintf("r-%d [run %s %s %d %s %s]", j, v, v, j, name, name)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
