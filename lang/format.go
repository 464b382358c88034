package lang

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format gives a file its canonical layout: indentation, aligned =, one space
// where one belongs. Comments and blank lines stay. A file that doesn't parse
// is returned as it is, with what is wrong. Format of its own result changes
// nothing.
func Format(src []byte, filename string) ([]byte, hcl.Diagnostics) {
	if d := tooDeep(src, filename); d != nil {
		return src, hcl.Diagnostics{d}
	}
	if _, diags := hclsyntax.ParseConfig(src, filename, hcl.InitialPos); diags.HasErrors() {
		return src, unclosed(src, filename, hcl.InitialPos, diags)
	}
	out := hclwrite.Format(src)
	for range 8 { // one pass is enough for nearly every file
		again := hclwrite.Format(out)
		if bytes.Equal(again, out) {
			break
		}
		out = again
	}
	if _, diags := hclsyntax.ParseConfig(out, filename, hcl.InitialPos); diags.HasErrors() {
		return src, nil // never trade a file that parses for one that doesn't
	}
	return out, nil
}

// Formattable tells whether fmt formats a file of this name.
func Formattable(name string) bool {
	return len(name) > 4 && (hasSuffix(name, hclSuffix) || hasSuffix(name, varsSuffix) || hasSuffix(name, scenarioSuffix) || name == "auto"+varsSuffix)
}

func hasSuffix(s, suffix string) bool {
	return len(s) > len(suffix) && s[len(s)-len(suffix):] == suffix
}
