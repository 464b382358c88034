package lang

import (
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What is kept as a value alone is the value of the tree that it stood for, and
// nothing is kept so that could mean something else elsewhere.
func TestLiterally(t *testing.T) {
	for text, want := range map[string]bool{
		`1`: true, `null`: true, `"a b"`: true, `""`: true, `["a", 2, [true]]`: true, `{ A = "x", "b" : [1] }`: true, `{ (1) = 2 }`: false,
		`"${"a"}b"`: true, `"a${var.x}"`: false, `[var.x]`: false, `{ a = node.n }`: false, `{ "${each.key}" = 1 }`: false,
		`{ (var.x) = 1 }`: false, `var`: false, `upper("a")`: false, `timestamp()`: false, `1 + 1`: false, `[for x in [1] : x]`: false,
	} {
		e, diags := hclsyntax.ParseExpression([]byte(text), "t", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%s: %v", text, diags)
		}
		v, ok := literally(e)
		if ok != want {
			t.Errorf("%s: literal is %v", text, ok)
		}
		if tree, _ := e.Value(nil); ok && !v.RawEquals(tree) {
			t.Errorf("%s: %#v, by its tree %#v", text, v, tree)
		}
		if refs := findRefs(e); ok && len(refs) > 0 {
			t.Errorf("%s refers to %v", text, refs)
		}
	}
	c, diags := load(t, map[string]string{"a.cluster.hcl": "cluster \"c\" {\n  quorum { model = \"single_node\" }\n}\n"})
	mustHaveNone(t, c, diags)
	for name, f := range c.Files() {
		if f.Body != nil || len(f.Bytes) == 0 {
			t.Errorf("of %s its tree is kept, or not its text", name)
		}
	}
}
