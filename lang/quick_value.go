package lang

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// value reads an expression: a term, or two with an operator between them.
// inside: within brackets, or a template, where ends of lines mean nothing. It
// also says where the expression ends. What must follow, its caller knows; a
// further operator never may, for here none binds closer than another.
func (q *quick) value(inside bool) (hclsyntax.Expression, hcl.Pos, bool) {
	left, end, ok := q.term(inside)
	if !ok {
		return nil, end, false
	}
	if q.blanks(); inside && !q.space() {
		return nil, end, false
	}
	op, n := q.operator()
	if op == nil {
		return left, end, q.ends(inside)
	}
	q.pos += n
	if q.blanks(); inside && !q.space() {
		return nil, end, false
	}
	right, end, ok := q.term(inside)
	if !ok {
		return nil, end, false
	}
	both := hcl.Range{Filename: q.name, Start: left.Range().Start, End: end}
	return &hclsyntax.BinaryOpExpr{LHS: left, Op: op, RHS: right, SrcRange: both}, end, q.ends(inside)
}

// operator is the one at pos, and its length; nil: there is none that is known here.
func (q *quick) operator() (*hclsyntax.Operation, int) {
	next := byte(0)
	if q.pos+1 < len(q.src) {
		next = q.src[q.pos+1]
	}
	switch c := q.peek(); {
	case c == '+':
		return hclsyntax.OpAdd, 1
	case c == '-':
		return hclsyntax.OpSubtract, 1
	case c == '*':
		return hclsyntax.OpMultiply, 1
	case c == '=' && next == '=':
		return hclsyntax.OpEqual, 2
	case c == '!' && next == '=':
		return hclsyntax.OpNotEqual, 2
	case c == '<' && next == '=':
		return hclsyntax.OpLessThanOrEqual, 2
	case c == '>' && next == '=':
		return hclsyntax.OpGreaterThanOrEqual, 2
	case c == '<' && next == ' ':
		return hclsyntax.OpLessThan, 1
	case c == '>' && next == ' ':
		return hclsyntax.OpGreaterThan, 1
	case c == '&' && next == '&':
		return hclsyntax.OpLogicalAnd, 2
	case c == '|' && next == '|':
		return hclsyntax.OpLogicalOr, 2
	}
	return nil, 0
}

// term is an expression without operators. What follows it is the caller's.
func (q *quick) term(inside bool) (hclsyntax.Expression, hcl.Pos, bool) {
	start := q.pos
	switch c := q.peek(); {
	case c == '"':
		e, ok := q.template()
		return e, q.at(), ok
	case c == '[':
		return q.tuple()
	case c == '{':
		return q.object()
	case digit(c):
		e, ok := q.number()
		return e, q.at(), ok
	}
	name, ok := q.ident()
	if !ok {
		return nil, hcl.Pos{}, false
	}
	rng := q.since(start)
	if q.peek() == '(' {
		return q.call(name, rng)
	}
	var literal cty.Value
	switch name {
	case "true":
		literal = cty.True
	case "false":
		literal = cty.False
	case "null":
		literal = cty.NullVal(cty.DynamicPseudoType)
	default:
		e, ok := q.traversal(name, rng)
		return e, e.SrcRange.End, ok
	}
	return q.literals.put(hclsyntax.LiteralValueExpr{Val: literal, SrcRange: rng}), rng.End, true
}

// call reads the arguments of a function.
func (q *quick) call(name string, rng hcl.Range) (hclsyntax.Expression, hcl.Pos, bool) {
	e := &hclsyntax.FunctionCallExpr{Name: name, NameRange: rng}
	q.pos++
	e.OpenParenRange = q.since(q.pos - 1)
	if q.deep++; q.deep > deepest || !q.space() {
		return nil, rng.End, false
	}
	for q.peek() != ')' {
		arg, _, ok := q.value(true)
		if !ok {
			return nil, rng.End, false
		}
		e.Args = append(e.Args, arg)
		if q.peek() == ',' {
			if q.pos++; !q.space() {
				return nil, rng.End, false
			}
		} else if q.peek() != ')' {
			return nil, rng.End, false
		}
	}
	q.pos++
	q.deep--
	e.CloseParenRange = q.since(q.pos - 1)
	return e, q.at(), true
}

// ends tells whether an expression is at its end: nothing goes on with it. It
// skips what lies before that.
func (q *quick) ends(inside bool) bool {
	if q.blanks(); inside && !q.space() {
		return false
	}
	switch q.peek() {
	case 0:
		return q.pos == len(q.src)
	case '\n', '#', ',', ']', ')', '}', '=', ':':
		return true
	case '/':
		return q.pos+1 < len(q.src) && q.src[q.pos+1] == '/'
	}
	return false
}

func (q *quick) number() (hclsyntax.Expression, bool) {
	start := q.pos
	for digit(q.peek()) {
		q.pos++
	}
	if c := q.peek(); letter(c) || c == '.' || c >= 0x80 || q.pos-start > 300 {
		return nil, false
	}
	v, err := cty.ParseNumberVal(string(q.src[start:q.pos]))
	return q.literals.put(hclsyntax.LiteralValueExpr{Val: v, SrcRange: q.since(start)}), err == nil
}

func (q *quick) traversal(root string, rng hcl.Range) (*hclsyntax.ScopeTraversalExpr, bool) {
	steps := 1
	for i := q.pos; i < len(q.src) && (letter(q.src[i]) || digit(q.src[i]) || q.src[i] == '-' || q.src[i] == '.'); i++ {
		if q.src[i] == '.' {
			steps++
		}
	}
	e := q.traversals.put(hclsyntax.ScopeTraversalExpr{Traversal: make(hcl.Traversal, 1, steps), SrcRange: rng})
	e.Traversal[0] = hcl.TraverseRoot{Name: root, SrcRange: rng}
	for {
		start := q.pos
		switch q.peek() {
		case '.':
			q.pos++
			name, ok := q.ident()
			if !ok {
				return e, false
			}
			e.Traversal = append(e.Traversal, hcl.TraverseAttr{Name: name, SrcRange: q.since(start)})
		case '[':
			q.pos++
			var key cty.Value
			if q.peek() == '"' {
				text, ok := q.quoted()
				if !ok || text == "" {
					return e, false
				}
				key = cty.StringVal(text)
			} else {
				if !digit(q.peek()) {
					return e, false
				}
				n, ok := q.number()
				if !ok {
					return e, false
				}
				key = n.(*hclsyntax.LiteralValueExpr).Val
			}
			if q.peek() != ']' {
				return e, false
			}
			q.pos++
			e.Traversal = append(e.Traversal, hcl.TraverseIndex{Key: key, SrcRange: q.since(start)})
		default:
			return e, true
		}
		e.SrcRange.End = q.at()
	}
}

// template reads a quoted string whose templates are references, calls of
// functions and operators only.
func (q *quick) template() (hclsyntax.Expression, bool) {
	open := q.pos
	text := open + 1 // where the literal begins that is being read
	var parts []hclsyntax.Expression
	wrapped := false // the last part is no literal
	literal := func() {
		if q.pos > text {
			parts = append(parts, q.literals.put(hclsyntax.LiteralValueExpr{Val: cty.StringVal(string(q.src[text:q.pos])), SrcRange: q.since(text)}))
		}
	}
	for q.pos++; q.pos < len(q.src); {
		switch c := q.src[q.pos]; {
		case c == '"':
			literal()
			q.pos++
			if len(parts) == 0 { // as hclsyntax has it, after the quotes
				parts = append(parts, q.literals.put(hclsyntax.LiteralValueExpr{Val: cty.StringVal(""), SrcRange: q.since(q.pos)}))
			}
			if len(parts) == 1 && wrapped {
				return &hclsyntax.TemplateWrapExpr{Wrapped: parts[0], SrcRange: q.since(open)}, true
			}
			return q.templates.put(hclsyntax.TemplateExpr{Parts: parts, SrcRange: q.since(open)}), true
		case c == '$' && q.pos+1 < len(q.src) && q.src[q.pos+1] == '{' && q.src[q.pos-1] != '$':
			literal()
			q.pos += 2
			q.blanks()
			if q.deep++; q.deep > deepest {
				return nil, false
			}
			e, _, ok := q.value(false)
			if !ok || !q.next('}') {
				return nil, false
			}
			q.deep--
			switch e.(type) {
			case *hclsyntax.ScopeTraversalExpr, *hclsyntax.FunctionCallExpr, *hclsyntax.BinaryOpExpr:
			default:
				return nil, false
			}
			wrapped = true
			parts = append(parts, e)
			text = q.pos
		case c < ' ' || c > '~' || c == '\\' || c == '$' || c == '%':
			return nil, false
		default:
			q.pos++
		}
	}
	return nil, false
}

func (q *quick) tuple() (hclsyntax.Expression, hcl.Pos, bool) {
	start := q.at()
	q.pos++
	open := q.since(start.Byte)
	var exprs []hclsyntax.Expression
	if q.deep++; q.deep > deepest || !q.space() || q.startsFor() {
		return nil, start, false
	}
	for q.peek() != ']' {
		e, _, ok := q.value(true)
		if !ok {
			return nil, start, false
		}
		exprs = append(exprs, e)
		if q.peek() == ',' {
			if q.pos++; !q.space() {
				return nil, start, false
			}
		} else if q.peek() != ']' {
			return nil, start, false
		}
	}
	q.pos++
	q.deep--
	end := q.at()
	return &hclsyntax.TupleConsExpr{Exprs: exprs, OpenRange: open, SrcRange: hcl.Range{Filename: q.name, Start: start, End: end}}, end, true
}

func (q *quick) object() (hclsyntax.Expression, hcl.Pos, bool) {
	start := q.at()
	q.pos++
	open := q.since(start.Byte)
	var items []hclsyntax.ObjectConsItem
	if q.deep++; q.deep > deepest || !q.space() || q.startsFor() {
		return nil, start, false
	}
	for q.peek() != '}' {
		if c := q.peek(); c != '"' && !letter(c) {
			return nil, start, false
		}
		key, _, ok := q.term(false)
		if !ok || !q.ends(false) || q.peek() != '=' && q.peek() != ':' {
			return nil, start, false
		}
		q.pos++
		if c := q.peek(); c == '=' || c == '>' || c == ':' {
			return nil, start, false
		}
		q.blanks()
		value, _, ok := q.value(false)
		if !ok {
			return nil, start, false
		}
		items = append(items, hclsyntax.ObjectConsItem{KeyExpr: q.keys.put(hclsyntax.ObjectConsKeyExpr{Wrapped: key}), ValueExpr: value})
		switch c := q.peek(); {
		case c == ',':
			q.pos++
		case c != '}' && !(q.pos < len(q.src) && q.endLine()):
			return nil, start, false
		}
		if !q.space() {
			return nil, start, false
		}
	}
	q.pos++
	q.deep--
	end := q.at()
	return &hclsyntax.ObjectConsExpr{Items: items, OpenRange: open, SrcRange: hcl.Range{Filename: q.name, Start: start, End: end}}, end, true
}

// startsFor tells whether a for expression follows an opening bracket.
func (q *quick) startsFor() bool {
	back := q.pos
	name, _ := q.ident()
	q.pos = back
	return name == "for"
}
