package lang

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// What is taken out of a node piece by piece can be shown, written and kept:
// there is nothing in it that only this program knows.
func TestPiecesOfANode(t *testing.T) {
	d := evaluate(t, typedVariables+`
output "pieces" {
  value = [for k, v in node.n : v if k != "endpoint" && k != "program" && k != "server_id"]
}
output "by_name" {
  value = { for k, v in node.n : k => v if k == "zone" || k == " identity" }
}
output "text" {
  value = jsonencode([lookup(node.n, " identity", "")])
}
`)
	for _, o := range d.Outputs {
		if _, err := ctyjson.Marshal(o.Value, cty.DynamicPseudoType); err != nil {
			t.Errorf("%s: %s", o.Name, err)
		}
		if o.Name == "text" && (!o.Value.IsKnown() || o.Value.AsString() != `["node.n"]`) {
			t.Errorf("text = %s", text(o.Value))
		}
	}
	v, _, diags := d.Ask("values(node.n)", "<console>", nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if got := typeexpr.TypeString(v.Type()); !strings.HasPrefix(got, "tuple([string,") {
		t.Errorf("type of values(node.n) = %s", got)
	}
}

// A node's attributes are what the definition says, and nothing that only we
// know: for whoever counts or lists them, in both syntaxes and in a template.
func TestIdentityIsNoAttribute(t *testing.T) {
	const head = "cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"n\" {\n  provider = local\n  zone = \"z\"\n}\n"
	d := evaluate(t, head+"group \"g\" {\n  preferred_owners = [for x in [node.n] : x]\n}\n")
	if g := d.Spec().Groups[0]; len(g.PreferredOwners) != 1 {
		t.Errorf("a for over nodes keeps who they are: %v", g.PreferredOwners)
	}
	answers := map[string]cty.Value{}
	for _, line := range []string{"keys(node.n)", "[for k, v in node.n : k]", "keys({ for k, v in node.n : k => v })", "split(\",\", \"%{ for k, v in node.n }${k},%{ endfor }\")",
		"length(node.n)", "length(keys(node.n))", "length(values(node.n))", "length([for v in node.n : v])"} {
		v, _, diags := d.Ask(line, "line", nil)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", line, diags)
		}
		answers[line] = v
	}
	n := answers["length(node.n)"].AsBigFloat()
	for line, v := range answers {
		if v.Type() == cty.Number {
			if v.AsBigFloat().Cmp(n) != 0 {
				t.Errorf("%s is %s, and the node has %s attributes", line, v.AsBigFloat(), n)
			}
			continue
		}
		var names []string
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); e.AsString() != "" {
				names = append(names, e.AsString())
			}
		}
		if i, _ := n.Int64(); len(names) != int(i) || slices.ContainsFunc(names, func(s string) bool { return strings.TrimSpace(s) != s }) || !slices.Contains(names, "zone") {
			t.Errorf("%s: %q", line, names)
		}
	}
	c, diags := load(t, map[string]string{"main.cluster.json": `{"cluster": {"c": {"quorum": {"model": "single_node"}}}, "node": {"n": {"provider": "local"}},
		"output": {"keys": {"value": "${join(\",\", [for k, v in node.n : k])}"}}}`})
	mustHaveNone(t, c, diags)
	e, diags := c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	if v := e.Outputs[0].Value; !strings.HasPrefix(v.AsString(), "address,") {
		t.Errorf("in JSON: %#v", v)
	}
}

// A for where nothing may be named is told as any reference is.
func TestForOverConstants(t *testing.T) {
	_, diags := load(t, map[string]string{"main.cluster.hcl": "cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nvariable \"v\" {\n  default = [for x in local.y : x]\n}\n"})
	if got := render(diags); !strings.Contains(got, "main.cluster.hcl:7,23-28: Variables not allowed") {
		t.Error(got)
	}
}
