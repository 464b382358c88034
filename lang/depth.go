package lang

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
)

// deepestNesting is how deep brackets, and what else a parser follows by calling
// itself, may be nested: text that is nested a million times deep would take all
// of its stack, which no program survives.
const deepestNesting = 500

// tooDeep finds the place where a text is nested too deep. It counts generously:
// brackets in strings and comments as well.
func tooDeep(src []byte, name string) *hcl.Diagnostic {
	deep, signs, choices := 0, 0, 0
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
		case '\n':
			if line, bol = line+1, i+1; deep == 0 {
				choices = 0
			}
			signs = 0
		case ' ', '\t':
		default:
			signs = 0
			if c == '=' || c == '"' {
				choices = 0
			}
		}
		if deep <= deepestNesting && signs <= deepestNesting && choices <= deepestNesting {
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
