package lang

import (
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
