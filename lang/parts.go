package lang

import (
	"bytes"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// ParseParts is Parse for a text that somebody is writing: it reads one block
// at the root after the other, so that an error in one of them costs the reading
// of that one by hclsyntax, and hides none of the others. What is wrong within a
// block is told as Parse does; where a block that isn't closed ends, Parse
// doesn't ask, and here it is at the next line that begins with a root block.
func ParseParts(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	if strings.HasSuffix(name, ".json") {
		return Parse(src, name)
	}
	q := &quick{src: src, name: name, place: place{line: 1}}
	q.blanks()
	start := q.at()
	out := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, Blocks: hclsyntax.Blocks{}}
	var diags hcl.Diagnostics
	for {
		back := q.place
		if q.space() {
			if q.pos == len(src) {
				break
			}
			back = q.place
			item := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}}
			if q.item(item) {
				diags = append(diags, join(out, item)...)
				continue
			}
		}
		q.place = back
		end := nextPart(src, back.pos)
		part, bad := foreignPart(src[back.pos:end], name, q.at(), end < len(src))
		diags = append(append(diags, bad...), join(out, part)...)
		q.line += bytes.Count(src[back.pos:end], []byte("\n"))
		q.pos, q.bol, q.deep = end, end, 0
	}
	out.SrcRange = hcl.Range{Filename: name, Start: start, End: q.at()}
	out.EndRange = hcl.Range{Filename: name, Start: q.at(), End: q.at()}
	return &hcl.File{Body: out, Bytes: src, Nav: outline(out)}, diags
}

// foreignPart is what hclsyntax makes of a part of a file, behind which more may follow.
func foreignPart(src []byte, name string, start hcl.Pos, more bool) (*hclsyntax.Body, hcl.Diagnostics) {
	if more { // what lacks at its end lacks behind its last line, not before the next part
		src = withoutTail(src)
	}
	d := tooDeepFrom(src, name, start)
	if d == nil {
		d = numberBeyond(src, name, start, hclsyntax.LexConfig)
	}
	if d != nil {
		return &hclsyntax.Body{}, hcl.Diagnostics{d}
	}
	f, diags := hclsyntax.ParseConfig(src, name, start)
	loops(f.Body.(*hclsyntax.Body), src, name)
	diags = unclosed(src, name, start, diags)
	for _, d := range diags {
		if more {
			d.Detail = strings.ReplaceAll(d.Detail, "the end of the file", "the next block")
		}
	}
	return f.Body.(*hclsyntax.Body), diags
}

// withoutTail is a text without the empty lines and comments at its end.
func withoutTail(src []byte) []byte {
	for len(src) > 0 {
		begin := bytes.LastIndexByte(src[:len(src)-1], '\n') + 1
		if last := bytes.TrimSpace(src[begin:]); len(last) > 0 && last[0] != '#' && !bytes.HasPrefix(last, []byte("//")) || begin == 0 {
			return src
		}
		src = src[:begin]
	}
	return src
}

// join adds what a part holds to the file's.
func join(out, part *hclsyntax.Body) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, name := range sortedKeys(part.Attributes) {
		a := part.Attributes[name]
		if first := out.Attributes[name]; first != nil {
			diags = append(diags, errorAt(a.NameRange, "Attribute redefined", "The argument "+name+" was already set at "+first.NameRange.String()+". Each argument may be set only once."))
			continue
		}
		out.Attributes[name] = a
	}
	out.Blocks = append(out.Blocks, part.Blocks...)
	return diags
}

// nextPart is where, behind the line that from is in, the next item of the root
// seems to begin: on a line that looks like one and isn't indented, outside of
// all brackets, or, where one was left open, with the name of a root block.
func nextPart(src []byte, from int) int {
	depth, heredoc := 0, ""
	for line := from; line < len(src); {
		end := len(src)
		if n := bytes.IndexByte(src[line:], '\n'); n >= 0 {
			end = line + n + 1
		}
		text := src[line:end]
		switch {
		case heredoc != "":
			if string(bytes.TrimSpace(text)) == heredoc {
				heredoc = ""
			}
		case line > from && beginsPart(text, depth > 0):
			return line
		default:
			var comment bool
			if depth, heredoc, comment = brackets(text, depth); comment {
				if n := bytes.Index(src[line+bytes.Index(text, []byte("/*")):], []byte("*/")); n >= 0 {
					end = line + bytes.Index(text, []byte("/*")) + n + 2
					if n := bytes.IndexByte(src[end:], '\n'); n >= 0 {
						end += n + 1
					} else {
						end = len(src)
					}
				} else {
					end = len(src)
				}
			}
			if heredoc != "" && !closes(src[end:], heredoc) {
				heredoc = "" // it is being written
			}
		}
		line = end
	}
	return len(src)
}

// closes tells whether a line of the text ends a heredoc.
func closes(text []byte, heredoc string) bool {
	for line := range bytes.Lines(text) {
		if string(bytes.TrimSpace(line)) == heredoc {
			return true
		}
	}
	return false
}

// beginsPart tells whether a line looks like the first of an attribute or a
// block; rootOnly: of a block that stands at the root.
func beginsPart(line []byte, rootOnly bool) bool {
	n := 0
	for n < len(line) && (letter(line[n]) || n > 0 && (digit(line[n]) || line[n] == '-')) {
		n++
	}
	if n == 0 {
		return false
	}
	name, rest := string(line[:n]), bytes.TrimLeft(line[n:], " \t")
	if rest = bytes.TrimRight(rest, " \t\r\n"); len(rest) == 0 {
		return false
	}
	if rest[0] == '=' {
		return !rootOnly
	}
	if rest[0] != '{' && rest[0] != '"' && (!letter(rest[0]) || len(rest) == len(line)-n) {
		return false
	}
	for _, b := range rootSchema.Blocks {
		if b.Type == name {
			return true
		}
	}
	return !rootOnly && bytes.IndexByte(rest, '{') >= 0
}

// brackets follows a line's brackets. It also tells which heredoc begins on it,
// and whether a comment does that may go on.
func brackets(line []byte, depth int) (_ int, heredoc string, comment bool) {
	quoted := false
	for i := 0; i < len(line); i++ {
		two := ""
		if i+1 < len(line) {
			two = string(line[i : i+2])
		}
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '#' || two == "//":
			return depth, "", false
		case two == "/*":
			return depth, "", true
		case two == "<<":
			word := strings.TrimPrefix(string(bytes.TrimSpace(line[i+2:])), "-")
			if hclsyntax.ValidIdentifier(word) {
				return depth, word, false
			}
		case c == '{' || c == '[' || c == '(':
			depth++
		case c == '}' || c == ']' || c == ')':
			depth = max(0, depth-1)
		}
	}
	return depth, "", false
}
