package lsp

// block is a block of a text as far as it can be made out, however incomplete
// the text is. Offsets are bytes. The root of an outline has no type.
type block struct {
	typ         string
	start       int // of the type
	labels      []word
	open, close int // of the body: behind the brace, and the brace that ends it (or where the text does)
	end         int // behind the closing brace
	attrs       []attr
	blocks      []*block
	stray       []word // names that are not finished yet: neither = nor { follows
	parent      *block
}

type word struct {
	text       string
	start, end int
}

// attr is an attribute; its value is what stands between start and end.
type attr struct {
	name       word
	start, end int
}

func (b *block) label(i int) string {
	if i < len(b.labels) {
		return b.labels[i].text
	}
	return ""
}

func (b *block) attr(name string) *attr {
	for i := range b.attrs {
		if b.attrs[i].name.text == name {
			return &b.attrs[i]
		}
	}
	return nil
}

// at is the innermost block whose body offset lies in.
func (b *block) at(offset int) *block {
	for _, inner := range b.blocks {
		if inner.open <= offset && offset <= inner.close && inner.open > 0 {
			return inner.at(offset)
		}
	}
	return b
}

// within is the nearest block of a type, from b outwards.
func (b *block) within(typ string) *block {
	for ; b != nil; b = b.parent {
		if b.typ == typ {
			return b
		}
	}
	return nil
}

// deepest is how deep blocks and brackets are followed.
const deepest = 200

// outlineOf makes the outline of a text.
func outlineOf(src []byte) *block {
	root := &block{close: len(src), end: len(src)}
	o := &outliner{src: src}
	o.body(root, 0)
	return root
}

type outliner struct {
	src []byte
	pos int
}

func nameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func nameByte(c byte) bool { return nameStart(c) || c == '-' || '0' <= c && c <= '9' }

func (o *outliner) peek(n int) byte {
	if o.pos+n < len(o.src) {
		return o.src[o.pos+n]
	}
	return 0
}

func (o *outliner) name() word {
	start := o.pos
	for o.pos < len(o.src) && nameByte(o.src[o.pos]) {
		o.pos++
	}
	return word{string(o.src[start:o.pos]), start, o.pos}
}

func (o *outliner) blanks() {
	for o.pos < len(o.src) && (o.src[o.pos] == ' ' || o.src[o.pos] == '\t' || o.src[o.pos] == '\r') {
		o.pos++
	}
}

// comment passes over a comment that begins here.
func (o *outliner) comment() bool {
	switch {
	case o.peek(0) == '#', o.peek(0) == '/' && o.peek(1) == '/':
		o.line()
		return true
	case o.peek(0) == '/' && o.peek(1) == '*':
		for o.pos += 2; o.pos < len(o.src); o.pos++ {
			if o.peek(0) == '*' && o.peek(1) == '/' {
				o.pos += 2
				break
			}
		}
		o.pos = min(o.pos, len(o.src))
		return true
	}
	return false
}

// line goes to the end of the line.
func (o *outliner) line() {
	for o.pos < len(o.src) && o.src[o.pos] != '\n' {
		o.pos++
	}
}

// body reads what stands in b, up to its closing brace.
func (o *outliner) body(b *block, depth int) {
	for o.pos < len(o.src) {
		switch c := o.src[o.pos]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',' || c == ';':
			o.pos++
		case o.comment():
		case c == '}':
			if b.parent != nil {
				b.close, b.end = o.pos, o.pos+1
				o.pos++
				return
			}
			o.pos++
		case nameStart(c):
			o.item(b, depth)
		default:
			o.value() // what it is can't be made out
			if o.pos < len(o.src) && o.src[o.pos] == '}' && b.parent == nil {
				o.pos++
			}
		}
	}
	b.close, b.end = len(o.src), len(o.src)
}

// item reads an attribute or a block.
func (o *outliner) item(b *block, depth int) {
	name := o.name()
	o.blanks()
	if o.peek(0) == '=' && o.peek(1) != '=' && o.peek(1) != '>' {
		o.pos++
		start := o.pos
		o.value()
		b.attrs = append(b.attrs, attr{name, start, o.pos})
		return
	}
	inner := &block{typ: name.text, start: name.start, parent: b}
	for {
		o.blanks()
		switch c := o.peek(0); {
		case c == '"':
			start := o.pos
			o.quoted()
			text := o.src[start+1 : o.pos]
			if n := len(text); n > 0 && text[n-1] == '"' {
				text = text[:n-1]
			}
			inner.labels = append(inner.labels, word{string(text), start + 1, start + 1 + len(text)})
			continue
		case nameStart(c):
			w := o.name()
			inner.labels = append(inner.labels, w)
			continue
		case c == '{' && depth < deepest:
			o.pos++
			inner.open = o.pos
			b.blocks = append(b.blocks, inner)
			o.body(inner, depth+1)
			return
		case c == '\n' || c == 0 || c == '}' || c == '#':
		default:
			o.value()
		}
		break
	}
	if len(inner.labels) > 0 { // a header whose body is still to come
		inner.open, inner.close, inner.end = 0, 0, o.pos
		b.blocks = append(b.blocks, inner)
		return
	}
	b.stray = append(b.stray, name)
}

// quoted passes over a string. One that isn't closed ends with its line.
func (o *outliner) quoted() {
	o.pos++
	for o.pos < len(o.src) {
		switch c := o.src[o.pos]; {
		case c == '\\':
			o.pos = min(o.pos+2, len(o.src))
		case c == '"':
			o.pos++
			return
		case c == '\n':
			return
		case (c == '$' || c == '%') && o.peek(1) == '{':
			if o.pos > 0 && o.src[o.pos-1] == c { // $${ is text
				o.pos += 2
				continue
			}
			o.pos += 2
			o.template()
		default:
			o.pos++
		}
	}
}

// template passes over what stands in ${ }, up to its brace or the line's end.
func (o *outliner) template() {
	for deep := 1; o.pos < len(o.src); {
		switch o.src[o.pos] {
		case '{':
			deep++
		case '}':
			if deep--; deep == 0 {
				o.pos++
				return
			}
		case '"':
			o.text() // its own strings aren't followed deeper
			continue
		case '\n':
			return
		}
		o.pos++
	}
}

// text passes over a string without looking into it.
func (o *outliner) text() {
	for o.pos++; o.pos < len(o.src) && o.src[o.pos] != '\n'; o.pos++ {
		if o.src[o.pos] == '\\' {
			o.pos++
		} else if o.src[o.pos] == '"' {
			o.pos++
			return
		}
	}
	o.pos = min(o.pos, len(o.src))
}

// heredoc passes over one that begins here.
func (o *outliner) heredoc() bool {
	if o.peek(0) != '<' || o.peek(1) != '<' {
		return false
	}
	at := o.pos + 2
	if at < len(o.src) && o.src[at] == '-' {
		at++
	}
	if at >= len(o.src) || !nameStart(o.src[at]) {
		return false
	}
	o.pos = at
	marker := o.name().text
	for o.line(); o.pos < len(o.src); o.line() {
		o.pos++ // behind the line's end
		o.blanks()
		from := o.pos
		if from < len(o.src) && nameStart(o.src[from]) && o.name().text == marker {
			o.blanks()
			if o.pos >= len(o.src) || o.src[o.pos] == '\n' {
				return true
			}
		}
	}
	return true
}

// value passes over an expression: up to the end of the line, or, within
// brackets, of the line that closes them. A line that can only be the next
// attribute or block ends it as well, and so does a brace of the block around.
func (o *outliner) value() {
	var brackets []byte
	for o.pos < len(o.src) {
		switch c := o.src[o.pos]; {
		case c == '"':
			o.quoted()
			continue
		case c == '<' && o.heredoc():
			continue
		case (c == '#' || c == '/') && o.comment():
			continue
		case c == '[' || c == '(' || c == '{':
			brackets = append(brackets, c)
		case c == ']' || c == ')' || c == '}':
			if len(brackets) == 0 || c == '}' && brackets[len(brackets)-1] != '{' {
				if c == '}' {
					return
				}
				break // one too many
			}
			brackets = brackets[:len(brackets)-1]
		case c == '\n':
			if len(brackets) == 0 {
				return
			}
			if brackets[len(brackets)-1] != '{' && o.startsItem() {
				return
			}
		}
		o.pos++
	}
}

// startsItem tells whether the next line begins as `name =` or `name "label"`
// or `name {` does, which can't stand in ( ) and [ ].
func (o *outliner) startsItem() bool {
	was := o.pos
	defer func() { o.pos = was }()
	o.pos++
	o.blanks()
	if o.pos >= len(o.src) || !nameStart(o.src[o.pos]) {
		return false
	}
	name := o.name().text
	o.blanks()
	switch o.peek(0) {
	case '=':
		return o.peek(1) != '=' && o.peek(1) != '>'
	case '"', '{':
		return name != "for" && name != "in" && name != "if"
	}
	return false
}
