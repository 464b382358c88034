package lang

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Most of a large definition is blocks of literals, lists and references, and
// HCL's own scanner and parser take long over them: it makes a token of 88 bytes
// of every second byte, and counts grapheme clusters to know a column. What
// follows reads this ordinary text, in plain ASCII, into the very tree that
// hclsyntax.ParseConfig makes of it. An expression that it doesn't know is
// hclsyntax's; a file with anything else that it doesn't know, or with any error
// at all, is hclsyntax's as a whole. A fuzz test holds the two to the same tree.

// parseConfig is hclsyntax.ParseConfig, sooner.
func parseConfig(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
	q := &quick{src: src, name: name, place: place{line: 1}}
	if body, ok := q.file(); ok {
		return &hcl.File{Body: body, Bytes: src, Nav: outline(body)}, nil
	}
	d := tooDeep(src, name)
	if d == nil {
		d = numberBeyond(src, name, hcl.InitialPos, hclsyntax.LexConfig)
	}
	if d != nil {
		return &hcl.File{Body: hcl.EmptyBody(), Bytes: src}, hcl.Diagnostics{d}
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	loops(f.Body.(*hclsyntax.Body), src, name)
	return f, unclosed(src, name, hcl.InitialPos, diags)
}

// navigation tells hcl's writer of diagnostics the block that a place lies in.
// It outlives the tree.
type navigation []header

type header struct {
	typ        string
	labels     []string
	start, end int // bytes
}

func outline(root *hclsyntax.Body) navigation {
	out := make(navigation, len(root.Blocks))
	for i, b := range root.Blocks {
		rng := b.Range()
		out[i] = header{b.Type, b.Labels, rng.Start.Byte, rng.End.Byte}
	}
	return out
}

// ContextString is the block's header, "" outside of all.
func (n navigation) ContextString(offset int) string {
	for _, b := range n {
		if offset >= b.start && offset < b.end {
			text := b.typ
			for _, l := range b.labels {
				text += fmt.Sprintf(" %q", l)
			}
			return text
		}
	}
	return ""
}

// quick reads src from pos on. Each of its methods says whether it could; where
// one says no, pos means nothing any more.
type quick struct {
	src  []byte
	name string
	place

	attributes slab[hclsyntax.Attribute]
	literals   slab[hclsyntax.LiteralValueExpr]
	templates  slab[hclsyntax.TemplateExpr]
	keys       slab[hclsyntax.ObjectConsKeyExpr]
	traversals slab[hclsyntax.ScopeTraversalExpr]
}

type place struct {
	pos  int
	line int
	bol  int // where the line begins
	deep int // brackets and blocks around pos
}

// deepest is how deep brackets and blocks go here; hclsyntax has the rest.
const deepest = 64

// slab gives out things of one type, many of them in one piece of memory.
type slab[T any] []T

func (s *slab[T]) put(v T) *T {
	if len(*s) == cap(*s) {
		*s = make([]T, 0, min(128, 2*cap(*s)+4))
	}
	*s = append(*s, v)
	return &(*s)[len(*s)-1]
}

func (q *quick) at() hcl.Pos {
	return hcl.Pos{Line: q.line, Column: q.pos - q.bol + 1, Byte: q.pos}
}

// since is the range from start, on this line, up to pos.
func (q *quick) since(start int) hcl.Range {
	return hcl.Range{Filename: q.name, Start: hcl.Pos{Line: q.line, Column: start - q.bol + 1, Byte: start}, End: q.at()}
}

// peek is the byte at pos, 0 at the end.
func (q *quick) peek() byte {
	if q.pos < len(q.src) {
		return q.src[q.pos]
	}
	return 0
}

func (q *quick) blanks() {
	for q.pos < len(q.src) && (q.src[q.pos] == ' ' || q.src[q.pos] == '\t') {
		q.pos++
	}
}

// next skips blanks, and takes c if it is what follows.
func (q *quick) next(c byte) bool {
	if q.blanks(); q.peek() != c || c == 0 {
		return false
	}
	q.pos++
	return true
}

// endLine takes the end of a line, with a comment that goes up to it, or is at
// the end of the file.
func (q *quick) endLine() bool {
	q.blanks()
	if q.pos == len(q.src) {
		return true
	}
	if c := q.src[q.pos]; c == '#' || c == '/' && bytes.HasPrefix(q.src[q.pos:], []byte("//")) {
		n := bytes.IndexByte(q.src[q.pos:], '\n')
		if n < 0 {
			return false
		}
		for _, c := range q.src[q.pos : q.pos+n] {
			if c >= 0x80 || c < ' ' && c != '\t' {
				return q.foreign(n)
			}
		}
		q.pos += n
	}
	if q.src[q.pos] != '\n' {
		return false
	}
	q.pos++
	q.line, q.bol = q.line+1, q.pos
	return true
}

// foreign takes a comment of n bytes that is not plain ASCII. Its line ends
// with it, so that no column follows from it; but it has to be UTF-8 without
// control characters.
func (q *quick) foreign(n int) bool {
	for _, r := range string(q.src[q.pos : q.pos+n]) {
		if r == 0xfffd || r < ' ' && r != '\t' {
			return false
		}
	}
	q.pos += n + 1
	q.line, q.bol = q.line+1, q.pos
	return true
}

// space skips blanks, comments and ends of lines.
func (q *quick) space() bool {
	for {
		if q.blanks(); q.pos == len(q.src) {
			return true
		}
		if c := q.src[q.pos]; c != '\n' && c != '#' && c != '/' {
			return true
		}
		if !q.endLine() {
			return false
		}
	}
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func (q *quick) ident() (string, bool) {
	start := q.pos
	if !letter(q.peek()) {
		return "", false
	}
	for q.pos < len(q.src) && (letter(q.src[q.pos]) || digit(q.src[q.pos]) || q.src[q.pos] == '-') {
		q.pos++
	}
	return string(q.src[start:q.pos]), q.peek() < 0x80
}

// file reads all of src.
func (q *quick) file() (*hclsyntax.Body, bool) {
	q.blanks()
	start := q.at()
	b := &hclsyntax.Body{Attributes: hclsyntax.Attributes{}, Blocks: hclsyntax.Blocks{}}
	for {
		if !q.space() {
			return nil, false
		}
		if q.pos == len(q.src) {
			break
		}
		if !q.item(b) {
			return nil, false
		}
	}
	b.SrcRange = hcl.Range{Filename: q.name, Start: start, End: q.at()}
	b.EndRange = hcl.Range{Filename: q.name, Start: q.at(), End: q.at()}
	return b, true
}

// item reads an attribute or a block into b.
func (q *quick) item(b *hclsyntax.Body) bool {
	start := q.pos
	name, ok := q.ident()
	if !ok {
		return false
	}
	rng := q.since(start)
	if q.blanks(); q.peek() == '=' {
		a, ok := q.attribute(name, rng)
		if !ok || b.Attributes[name] != nil {
			return false
		}
		b.Attributes[name] = a
		return q.endLine()
	}
	block, ok := q.block(name, rng)
	b.Blocks = append(b.Blocks, block)
	return ok && q.endLine()
}

func (q *quick) attribute(name string, rng hcl.Range) (*hclsyntax.Attribute, bool) {
	q.pos++ // =
	equals := q.since(q.pos - 1)
	if q.blanks(); q.peek() == '=' {
		return nil, false
	}
	back := place{q.pos, q.line, q.bol, q.deep}
	value, end, ok := q.value(false)
	if c := q.peek(); !ok || c == '=' || c == ':' || c == ',' || c == ']' || c == ')' {
		q.place = back
		if value, end, ok = q.foreignValue(); !ok {
			return nil, false
		}
	}
	return q.attributes.put(hclsyntax.Attribute{
		Name: name, Expr: value, NameRange: rng, EqualsRange: equals,
		SrcRange: hcl.Range{Filename: q.name, Start: rng.Start, End: end},
	}), true
}

func (q *quick) block(typ string, rng hcl.Range) (*hclsyntax.Block, bool) {
	b := &hclsyntax.Block{Type: typ, TypeRange: rng}
	for !q.next('{') {
		start := q.pos
		var label string
		var ok bool
		if q.peek() == '"' {
			label, ok = q.quoted()
		} else {
			label, ok = q.ident()
		}
		if !ok {
			return b, false
		}
		if b.Labels == nil {
			n := 1
			if typ == rootResource {
				n = 2
			}
			b.Labels, b.LabelRanges = make([]string, 0, n), make([]hcl.Range, 0, n)
		}
		b.Labels, b.LabelRanges = append(b.Labels, label), append(b.LabelRanges, q.since(start))
	}
	if q.deep++; q.deep > deepest {
		return b, false
	}
	b.OpenBraceRange = q.since(q.pos - 1)
	body := &hclsyntax.Body{}
	b.Body = body
	if q.blanks(); q.peek() != '}' && q.peek() != '\n' && q.peek() != '#' && q.peek() != '/' {
		// One attribute, on one line.
		start := q.pos
		name, ok := q.ident()
		rng := q.since(start)
		if q.blanks(); !ok || q.peek() != '=' {
			return b, false
		}
		a, ok := q.attribute(name, rng)
		if !ok || !q.next('}') || rng.Start.Line != q.line {
			return b, false
		}
		body.Attributes, body.SrcRange = hclsyntax.Attributes{name: a}, a.SrcRange
		body.EndRange = hcl.Range{Filename: q.name, Start: a.SrcRange.End, End: a.SrcRange.End}
	} else {
		body.Attributes, body.Blocks = hclsyntax.Attributes{}, hclsyntax.Blocks{}
		for {
			if !q.space() {
				return b, false
			}
			if q.peek() == '}' {
				break
			}
			if !q.item(body) {
				return b, false
			}
		}
		q.pos++
		body.SrcRange = hcl.Range{Filename: q.name, Start: b.OpenBraceRange.Start, End: q.at()}
		body.EndRange = hcl.Range{Filename: q.name, Start: q.at(), End: q.at()}
	}
	b.CloseBraceRange = q.since(q.pos - 1)
	q.deep--
	return b, true
}

// quoted reads a string without escapes and templates.
func (q *quick) quoted() (string, bool) {
	start := q.pos + 1
	for q.pos++; q.pos < len(q.src); q.pos++ {
		switch c := q.src[q.pos]; {
		case c == '"':
			q.pos++
			return string(q.src[start : q.pos-1]), true
		case c < ' ' || c > '~' || c == '\\' || c == '$' || c == '%':
			return "", false
		}
	}
	return "", false
}

// foreignValue has hclsyntax read an attribute's expression, from pos up to the
// end of its line, or to where the brackets are closed that it opens.
func (q *quick) foreignValue() (hclsyntax.Expression, hcl.Pos, bool) {
	start := q.at()
	if !q.skip(false) {
		return nil, start, false
	}
	text := bytes.TrimRight(q.src[start.Byte:q.pos], " \t")
	if !utf8.Valid(text) || bytes.HasPrefix(text, bom) { // a mark that ParseExpression passes over, as a file's first
		return nil, start, false
	}
	if suspicious(text) {
		return nil, start, false
	}
	value, diags := parseExpression(text, q.name, start)
	if len(diags) > 0 {
		return nil, start, false
	}
	loops(value, text, q.name)
	q.pos = start.Byte + len(text)
	end := q.at()
	for _, c := range text {
		if c >= 0x80 { // columns are of grapheme clusters, which hclsyntax knows how to count
			tokens, _ := hclsyntax.LexExpression(text, q.name, start)
			end = tokens[len(tokens)-1].Range.End
			q.bol = q.pos - end.Column + 1
			break
		}
	}
	return value, end, true
}

// bom is a byte order mark in UTF-8.
var bom = []byte("\ufeff")

// skip goes to the end of an expression: of its line, or before the brace that
// closes the block, or the template, that it stands in. It need not know whether
// it is an expression: that hclsyntax says.
func (q *quick) skip(template bool) bool {
	if q.deep++; q.deep > deepest {
		return false
	}
	for depth := 0; q.pos < len(q.src); q.pos++ {
		switch c := q.src[q.pos]; c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				q.deep--
				return c == '}'
			}
		case '"':
			if !q.skipQuoted() {
				return false
			}
		case '#', '/', '<':
			two := q.src[q.pos:min(q.pos+2, len(q.src))]
			if string(two) == "<<" || string(two) == "/*" {
				return false
			}
			if c == '#' || string(two) == "//" {
				if depth == 0 {
					q.deep--
					return !template
				}
				n := bytes.IndexByte(q.src[q.pos:], '\n')
				if n < 0 {
					return false
				}
				q.pos += n - 1
			}
		case '\n':
			if template {
				return false
			}
			if depth == 0 {
				q.deep--
				return true
			}
			q.line, q.bol = q.line+1, q.pos+1
		case '\r', '\'', '`':
			return false
		}
	}
	q.deep--
	return !template
}

// skipQuoted goes from a string's first quote to its last.
func (q *quick) skipQuoted() bool {
	for q.pos++; q.pos < len(q.src); q.pos++ {
		switch c := q.src[q.pos]; c {
		case '\n', '\r':
			return false
		case '\\':
			q.pos++
		case '$', '%':
			if q.pos+1 < len(q.src) && q.src[q.pos+1] == '{' {
				if q.src[q.pos-1] == c {
					return false
				}
				if q.pos += 2; !q.skip(true) {
					return false
				}
			}
		case '"':
			return true
		}
	}
	return false
}
