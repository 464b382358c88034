package lang

import (
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// What is wrong with a sensitive value, or with what it is a key of, is said
// without the value and its keys.
func TestErrorsHideSensitiveValues(t *testing.T) {
	const root = `
variable "pw" {
  sensitive = true
  default   = "hush"
}
variable "pws" {
  sensitive = true
  type      = map(string)
  default   = { hush = "hush" }
}
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n" {
  for_each = toset(["a", "b", "c"])
  provider = local
}
module "m" {
  source  = "./m"
  pw      = var.pw
  numbers = var.pws
  nodes   = var.pws
}
group "g" {
  resource "generic_application" "w" {
    command = ["x", node.n[module.m.pw].name]
  }
}
`
	const module = `
variable "pw" {}
variable "numbers" { type = map(number) }
variable "nodes" { type = map(node) }
output "pw" { value = var.pw }
`
	c, diags := loadTree(t, []txtar.File{{Name: "root/main.cluster.hcl", Data: []byte(root)}, {Name: "root/m/main.cluster.hcl", Data: []byte(module)}})
	_, more := c.Evaluate(nil)
	got := append(diags, more...)
	told := map[string]int{}
	for _, d := range got {
		told[d.Summary]++
		if strings.Contains(d.Detail, "hush") {
			t.Errorf("%s: %s", d.Summary, d.Detail)
		}
	}
	if told["Value has the wrong type"] != 2 || told["Unknown instance"] != 1 || len(got) != 3 {
		t.Errorf("got %s", render(got))
	}
	v := c.vars["pws"]
	v.typ = c.modules["m"].module.vars["numbers"].typ
	if _, diags := c.givenValue(v, given{name: "pws", text: `{ hush = "hush" }`, source: "--var"}); len(diags) != 1 || strings.Contains(diags[0].Detail, "hush") {
		t.Errorf("--var: %v", diags)
	}
}
