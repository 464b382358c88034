package lang

import (
	"bytes"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// deepestNesting is how deep brackets, and what else a parser follows by calling
// itself, may be nested: text that is nested a million times deep would take all
// of its stack, which no program survives.
const deepestNesting = 500

// tooDeep finds the place where a text is nested too deep. It counts generously:
// brackets in strings and comments as well.
func tooDeep(src []byte, name string) *hcl.Diagnostic {
	deep, signs, choices, directives, splats := 0, 0, 0, 0, 0
	line, bol := 1, 0
	for i, c := range src {
		switch c {
		case '(', '[', '{':
			deep++
		case ')', ']', '}':
			deep = max(0, deep-1)
		case '!', '-':
			signs++
		case '?':
			choices++
		case '%': // %{ if } and %{ for } of a template go up to %{ endif }
			if rest := src[i+1:]; bytes.HasPrefix(rest, []byte("{")) {
				switch word := bytes.TrimLeft(rest[1:min(len(rest), 16)], "~ \t"); {
				case bytes.HasPrefix(word, []byte("if")), bytes.HasPrefix(word, []byte("for")):
					directives++
				case bytes.HasPrefix(word, []byte("end")):
					directives = max(0, directives-1)
				}
			}
		case '*':
			if i > 0 && (src[i-1] == '[' || src[i-1] == '.') {
				splats++
			}
		case '\n':
			if line, bol = line+1, i+1; deep == 0 {
				choices, splats = 0, 0
			}
			signs = 0
		case ' ', '\t':
		default:
			signs = 0
			if c == '=' || c == '"' {
				choices, splats = 0, 0
			}
		}
		if deep <= deepestNesting && max(signs, choices, directives, splats) <= deepestNesting {
			continue
		}
		if rest := src[i:]; signs > deepestNesting && !hasOperand(rest) {
			continue // a line of dashes in a comment
		}
		at := hcl.Pos{Line: line, Column: i - bol + 1, Byte: i}
		return errorAt(hcl.Range{Filename: name, Start: at, End: at}, "Nested too deep",
			fmt.Sprintf("Brackets or operators are nested more than %d deep here, and the file isn't read further. Give parts of the expression names in a locals block.", deepestNesting))
	}
	return nil
}

// hasOperand tells whether a run of signs stands before something on its line.
func hasOperand(rest []byte) bool {
	for _, c := range rest {
		switch c {
		case '!', '-', ' ', '\t':
		case '\n', '\r':
			return false
		default:
			return true
		}
	}
	return false
}

// parseExpression is hclsyntax.ParseExpression of text that isn't nested too deep.
func parseExpression(src []byte, name string, start hcl.Pos) (hclsyntax.Expression, hcl.Diagnostics) {
	if d := tooDeepFrom(src, name, start); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	return hclsyntax.ParseExpression(src, name, start)
}

// parseTemplate is hclsyntax.ParseTemplate of text that isn't nested too deep.
func parseTemplate(src []byte, name string, start hcl.Pos) (hclsyntax.Expression, hcl.Diagnostics) {
	if d := tooDeepFrom(src, name, start); d != nil {
		return nil, hcl.Diagnostics{d}
	}
	return hclsyntax.ParseTemplate(src, name, start)
}

// tooDeepFrom is tooDeep of a text that begins at start.
func tooDeepFrom(src []byte, name string, start hcl.Pos) *hcl.Diagnostic {
	d := tooDeep(src, name)
	if d == nil {
		return nil
	}
	at := d.Subject.Start
	if at.Line == 1 {
		at.Column += start.Column - 1
	}
	at.Line, at.Byte = at.Line+start.Line-1, at.Byte+start.Byte
	d.Subject = &hcl.Range{Filename: name, Start: at, End: at}
	return d
}

// flatFunc lets a decoder read only what isn't nested too deep: it calls itself
// for each level. quotes: a bracket in a string, as JSON has them, doesn't count.
func flatFunc(f function.Function, quotes bool) function.Function {
	return function.New(&function.Spec{
		Params: f.Params(),
		Type: func(args []cty.Value) (cty.Type, error) {
			if args[0].IsKnown() {
				deep, quoted := 0, false
				for text, i := args[0].AsString(), 0; i < len(text); i++ {
					switch c := text[i]; {
					case c == '"':
						quoted = quotes && !quoted
					case c == '\\':
						i++
					case quoted:
					case c == '[' || c == '{':
						if deep++; deep > deepestNesting {
							return cty.NilType, function.NewArgErrorf(0, "is nested more than %d deep", deepestNesting)
						}
					case c == ']' || c == '}':
						deep = max(0, deep-1)
					}
				}
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}
