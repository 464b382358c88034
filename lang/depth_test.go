package lang

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Text that is nested without end is refused wherever a parser meets it: none
// survives the end of its stack.
func TestNestedTooDeep(t *testing.T) {
	const deep = 400_000
	nested := func(open, shut string) string { return strings.Repeat(open, deep) + "1" + strings.Repeat(shut, deep) }
	refused := func(what string, diags hcl.Diagnostics) {
		t.Helper()
		if !diags.HasErrors() || !strings.Contains(strings.ToLower(diags.Error()), "nested") {
			t.Errorf("%s: %.300s", what, diags.Error())
		}
	}
	for name, src := range map[string]string{
		"a.cluster.hcl":  "locals {\n  x = " + nested("(", ")") + "\n}\n",
		"b.cluster.hcl":  "locals {\n  x = " + nested("-", "") + "\n}\n",
		"c.cluster.hcl":  "locals {\n  x = \"${" + nested("(", ")") + "}\"\n}\n",
		"e.cluster.hcl":  "locals {\n  x = \"" + strings.Repeat("%{if true}", deep) + "\"\n}\n",
		"f.cluster.hcl":  "locals {\n  x = a" + strings.Repeat("[*]", deep) + "\n}\n",
		"d.cluster.json": `{"locals":{"x":"${` + nested(`\u0028`, `\u0029`) + `}"}}`,
	} {
		_, diags := load(t, map[string]string{name: src})
		refused(name, diags)
	}
	ctx := &hcl.EvalContext{
		Functions: functions(fstest.MapFS{"t": {Data: []byte("${" + nested("(", ")") + "}")}}),
		Variables: map[string]cty.Value{"json": cty.StringVal(nested("[", "]")), "template": cty.StringVal("${" + nested("(", ")") + "}")},
	}
	for _, text := range []string{"jsondecode(json)", "yamldecode(json)", `templatefile("t", {})`, "templatestring(template, {})"} {
		e, diags := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		_, diags = e.Value(ctx)
		refused(text, diags)
	}
	c, diags := load(t, map[string]string{"main.cluster.hcl": `variable "v" {
  type    = list(any)
  default = []
}`})
	if c.vars["v"] == nil {
		t.Fatal(diags)
	}
	_, diags = c.givenValue(c.vars["v"], given{name: "v", text: nested("[", "]"), source: "--var"})
	refused("--var", diags)
	e, diags := hclsyntax.ParseExpression([]byte(`jsondecode("{\"a\": \"`+strings.Repeat("[", 1000)+`\"}").a`), "test", hcl.InitialPos)
	if v, bad := e.Value(ctx); diags.HasErrors() || bad.HasErrors() || len(v.AsString()) != 1000 {
		t.Errorf("brackets in a string of JSON: %v %v", diags, bad)
	}
}
