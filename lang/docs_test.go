package lang

import (
	"os"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// docs/language.md names every attribute, block, resource type and function,
// and its examples are definitions.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../docs/language.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	need := func(what, text string) {
		if !strings.Contains(doc, text) {
			t.Errorf("%s is not in docs/language.md: no %q", what, text)
		}
	}
	var attrs func(where string, as []spec.Attribute, bs []spec.Block)
	attrs = func(where string, as []spec.Attribute, bs []spec.Block) {
		for _, a := range as {
			if !strings.Contains(doc, "`"+a.Name+"`") && !strings.Contains(doc, "{ "+a.Name+" }") {
				t.Errorf("%s.%s is not in docs/language.md", where, a.Name)
			}
		}
		for _, n := range bs {
			need(where+"."+n.Name, "`"+n.Name+" {")
			attrs(where+"."+n.Name, n.Attributes, n.Blocks)
		}
	}
	for _, s := range []spec.Schema{spec.ClusterSchema(), spec.NodeSchema(), spec.GroupSchema(), spec.GuaranteeSchema(), spec.ResourceCommon()} {
		attrs(s.Name, s.Attributes, s.Blocks)
	}
	for _, s := range spec.ResourceTypes() {
		need("resource type", "`"+s.Name+"`")
		attrs(s.Name, s.Attributes, s.Blocks)
	}
	_, table, _ := strings.Cut(doc, "## Functions")
	words := map[string]bool{}
	for _, w := range strings.FieldsFunc(table, func(r rune) bool { return strings.ContainsRune(" `|\n", r) }) {
		words[w] = true
	}
	for name := range functions(nil) {
		if !words[name] {
			t.Errorf("function %s is not in docs/language.md", name)
		}
	}
	_, example, _ := strings.Cut(doc, "## A small definition\n\n```hcl\n")
	example, _, _ = strings.Cut(example, "```")
	evaluate(t, example)
	for _, block := range strings.Split(doc, "```hcl\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if _, diags := Format([]byte(block), "docs/language.md"); diags.HasErrors() {
			t.Errorf("%s\n%s", diags, block)
		}
	}
}
