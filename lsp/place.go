package lsp

import (
	"bytes"
	"slices"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// What can stand at a place.
type kind int

const (
	atNothing kind = iota // within a comment
	atItem                // the name of an attribute or a block
	atLabel
	atValue
)

// place is what an outline says of an offset.
type place struct {
	kind  kind
	block *block // around it; of a label, the block that has it
	label int    // which one
	attr  *attr  // of a value
	word  word   // the name that the offset is in or behind; may be empty
	steps []string
	// Of a value:
	quoted bool // in a string, outside of ${ }
	str    word // that string's text
}

// placeAt finds out what stands at an offset.
func placeAt(d *document, offset int) place {
	src := d.text
	b := d.outline.at(offset)
	p := place{kind: atItem, block: b}
	for _, inner := range b.blocks {
		for i, l := range inner.labels {
			if l.start <= offset && offset <= l.end {
				return place{kind: atLabel, block: inner, label: i, word: l}
			}
		}
	}
	from := b.open
	for i := range b.attrs {
		if a := &b.attrs[i]; a.start <= offset && offset <= a.end {
			p.kind, p.attr, from = atValue, a, a.start
		}
	}
	if p.kind == atItem { // comments begin anew with each item
		for _, inner := range b.blocks {
			if inner.end <= offset {
				from = max(from, inner.end)
			}
		}
		for _, a := range b.attrs {
			if a.end <= offset {
				from = max(from, a.end)
			}
		}
	}
	in, start := within(src, from, offset)
	switch in {
	case '#':
		return place{kind: atNothing, block: b}
	case '"', '<':
		p.quoted = true
		end := start
		o := &outliner{src: src, pos: start}
		for o.pos < len(src) && src[o.pos] != '"' && src[o.pos] != '\n' {
			if src[o.pos] == '\\' {
				o.pos++
			}
			o.pos++
		}
		end = min(o.pos, len(src))
		p.str = word{string(src[start:max(start, end)]), start, max(start, end)}
	}
	p.word = wordAt(src, offset)
	at := p.word.start
	for at > from && src[at-1] == '.' {
		at--
		for at > from && src[at-1] == ']' { // ["key"]
			open := bytes.LastIndexByte(src[from:at], '[')
			if open < 0 {
				break
			}
			at = from + open
		}
		end := at
		for at > from && nameByte(src[at-1]) {
			at--
		}
		if at == end {
			break
		}
		p.steps = append(p.steps, string(src[at:end]))
	}
	slices.Reverse(p.steps)
	return p
}

func wordAt(src []byte, offset int) word {
	start, end := offset, offset
	for start > 0 && nameByte(src[start-1]) {
		start--
	}
	for end < len(src) && nameByte(src[end]) {
		end++
	}
	return word{string(src[start:end]), start, end}
}

// within tells what offset lies in, in text that begins at from outside of
// everything: a comment (#), a string (", which begins at start), a heredoc (<),
// or none of them (0).
func within(src []byte, from, offset int) (in byte, start int) {
	type mode struct {
		in    byte // ", <, { for brackets of expressions and templates
		start int
		end   string // of a heredoc: its marker
	}
	var stack []mode
	o := &outliner{src: src, pos: from}
	for o.pos < offset {
		top := mode{}
		if len(stack) > 0 {
			top = stack[len(stack)-1]
		}
		c := src[o.pos]
		switch top.in {
		case '"':
			switch {
			case c == '\\':
				o.pos++
			case c == '"', c == '\n':
				stack = stack[:len(stack)-1]
			case (c == '$' || c == '%') && o.peek(1) == '{' && (o.pos == 0 || src[o.pos-1] != c):
				o.pos++
				stack = append(stack, mode{in: '{'})
			}
			o.pos++
			continue
		case '<':
			if c == '\n' {
				o.pos++
				o.blanks()
				if at := o.pos; bytes.HasPrefix(src[at:], []byte(top.end)) && (at+len(top.end) >= len(src) || !nameByte(src[at+len(top.end)])) {
					o.pos += len(top.end)
					stack = stack[:len(stack)-1]
				}
				continue
			}
			if (c == '$' || c == '%') && o.peek(1) == '{' && src[o.pos-1] != c {
				o.pos++
				stack = append(stack, mode{in: '{'})
			}
			o.pos++
			continue
		}
		switch {
		case c == '#' || c == '/' && (o.peek(1) == '/' || o.peek(1) == '*'):
			o.comment()
			if o.pos >= offset && (o.pos > offset || c == '#' || src[o.pos-1] != '/') {
				return '#', 0
			}
			continue
		case c == '"':
			stack = append(stack, mode{in: '"', start: o.pos + 1})
		case c == '<' && o.peek(1) == '<':
			at := o.pos + 2
			if at < len(src) && src[at] == '-' {
				at++
			}
			if at < len(src) && nameStart(src[at]) {
				o.pos = at
				marker := o.name().text
				o.line()
				stack = append(stack, mode{in: '<', start: min(o.pos+1, len(src)), end: marker})
				continue
			}
		case c == '{':
			stack = append(stack, mode{in: '{'})
		case c == '}':
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		}
		o.pos++
	}
	if len(stack) == 0 || stack[len(stack)-1].in == '{' {
		return 0, 0
	}
	top := stack[len(stack)-1]
	return top.in, min(top.start, offset)
}

// typeOf is what the language says of a block; nil: nothing. The root's type
// has the language's blocks.
func (s *server) typeOf(path string, b *block) *lang.BlockType {
	if b.parent == nil {
		return &lang.BlockType{Blocks: s.types}
	}
	if b.typ == "content" && b.parent.typ == "dynamic" && b.parent.parent != nil {
		if around := s.typeOf(path, b.parent.parent); around != nil {
			return around.Block(b.parent.label(0))
		}
		return nil
	}
	around := s.typeOf(path, b.parent)
	if around == nil {
		return nil
	}
	t := around.Block(b.typ)
	if t == nil {
		return nil
	}
	if len(t.Types) > 0 {
		t = t.Of(b.label(0))
	}
	if b.typ == "module" {
		t = s.moduleType(path, b, t)
	}
	return t
}

// attributeOf is what the language says of an attribute; nil: nothing.
func (s *server) attributeOf(path string, b *block, name string) *spec.Attribute {
	if t := s.typeOf(path, b); t != nil {
		return t.Attribute(name)
	}
	return nil
}

// objectOf is the block of an object that b is or lies in.
func objectOf(b *block) *block {
	for ; b != nil && b.parent != nil; b = b.parent {
		switch b.typ {
		case "cluster", "node", "fence", "group", "resource", "guarantee", "machine", "network", "volume":
			return b
		}
	}
	return nil
}
