package lang

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// unreadTo is with the diagnostic of an error behind which nothing means what it
// seems to, up to end.
type unreadTo struct{ end hcl.Pos }

// unclosed tells of a } that closes nothing, and once of a string that isn't closed
// on its line, where it begins.
// hclsyntax takes what is outside of strings for what is inside from there on, and
// says so of each line that follows, so that one quote that lacks makes thousands
// of errors. start is where src begins; diags are hclsyntax's of it.
func unclosed(src []byte, name string, start hcl.Pos, diags hcl.Diagnostics) hcl.Diagnostics {
	for _, d := range diags {
		if d.Summary != "Argument or block definition required" && d.Summary != "Missing newline after block definition" || d.Subject == nil {
			continue
		}
		if at := d.Subject.Start.Byte - start.Byte; at >= 0 && at < len(src) && src[at] == '}' {
			d.Summary, d.Detail, d.Context = "Unexpected }", "No block is open here. This } is one too many, or a block above it is closed too early.", nil
		}
	}
	if !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool { return d.Summary == "Invalid multi-line string" }) {
		return diags
	}
	tokens, _ := hclsyntax.LexConfig(src, name, start)
	var open []hcl.Range
	for _, one := range tokens {
		switch one.Type {
		case hclsyntax.TokenOQuote:
			open = append(open, one.Range)
		case hclsyntax.TokenCQuote:
			open = open[:max(0, len(open)-1)]
		case hclsyntax.TokenQuotedNewline:
			if len(open) == 0 {
				return diags
			}
			at := open[len(open)-1]
			at.End = one.Range.Start
			out := slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { // what follows from it
				return d.Subject == nil || d.Subject.Start.Byte >= at.Start.Byte || d.Summary == "Unclosed configuration block"
			})
			d := errorAt(at, "Unclosed string", `A string ends on the line that it begins on, and this one doesn't. Close it with "; a line break in it is written as \n, and a text of several lines as a heredoc (<<-EOT). What follows was not looked at.`)
			d.Extra = unreadTo{tokens[len(tokens)-1].Range.End}
			return append(out, d)
		}
	}
	return diags
}
