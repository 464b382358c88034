package lang

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// A damaged file is never taken for a whole one: where hclsyntax has an error, a
// definition, an editor and fmt have one, and fmt gives back what it was given.
func TestDamaged(t *testing.T) {
	const name = "main.cluster.hcl"
	example, err := os.ReadFile("../examples/quickstart/" + name)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func(text string, i int) string{
		"cut":      func(text string, i int) string { return text[:i] },
		"cut, BOM": func(text string, i int) string { return "\ufeff" + text[:i] },
		"cut, CR":  func(text string, i int) string { return strings.ReplaceAll(text[:i], "\n", "\r\n") },
		"lacking":  func(text string, i int) string { return text[:i] + text[i+1:] },
		"quote":    func(text string, i int) string { return text[:i] + `"` + text[i:] },
	}
	broken := 0
	for step, text := range map[int]string{5: string(example), 1: templates} {
		for what, damage := range damages {
			for i := 0; i < len(text); i += step {
				src := damage(text, i)
				_, want := hclsyntax.ParseConfig([]byte(src), name, hcl.InitialPos)
				_, got := Parse([]byte(src), name)
				_, parts := ParseParts([]byte(src), name)
				out, format := Format([]byte(src), name)
				if got.HasErrors() != want.HasErrors() || format.HasErrors() != want.HasErrors() || want.HasErrors() && !parts.HasErrors() {
					t.Fatalf("%s at %d: Parse %v; ParseParts %v; Format %v; hclsyntax %v\n%s", what, i, got, parts, format, want, src)
				}
				if !want.HasErrors() {
					if _, diags := hclsyntax.ParseConfig(out, name, hcl.InitialPos); diags.HasErrors() {
						t.Fatalf("%s at %d: fmt broke a file: %v\n%s", what, i, diags, out)
					}
					continue
				}
				broken++
				if !bytes.Equal(out, []byte(src)) {
					t.Fatalf("%s at %d: fmt changed a file with an error\n%s", what, i, src)
				}
				if broken%48 != 0 {
					continue
				}
				c, diags := load(t, map[string]string{name: src})
				if !diags.HasErrors() {
					t.Fatalf("%s at %d: a definition without an error\n%s", what, i, src)
				}
				c.Evaluate(nil) // no panic
			}
		}
	}
	if broken < 1000 {
		t.Errorf("%d broken files only", broken)
	}
}

// templates are the strings that contain strings.
const templates = `locals {
  text = <<-EOT
    one "quote ${local.escaped}
    %{ if local.deep == "a" }two%{ else }"three"%{ endif }
  EOT
  escaped = "a\"b\\" # "comment
  /* "more
  */
  deep = "a ${ join(",", [for s in ["x", "${"b"}"] : "${s}-"]) } $${no} %%{no}"
}

cluster "c" {
  quorum { model = "majority_node_set" }
}
`
