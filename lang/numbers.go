package lang

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// A number of HCL may have any exponent. 1e99999999 is soon read, but has a
// hundred million digits once it is made text, which takes minutes and
// gigabytes. So no expression has a number beyond schema.NumberLimits: not as a
// literal, not as what a function or an operator gives, not as what text is
// converted to.

// longestNumber is how many characters a literal may have: those of the largest
// number, and of the smallest, with all their zeros.
const longestNumber = 1100

// lexer is one of hclsyntax's: of files, expressions and templates.
type lexer func(src []byte, name string, start hcl.Pos) (hclsyntax.Tokens, hcl.Diagnostics)

// numberBeyond finds a literal that is too large, before anything is made of it.
func numberBeyond(src []byte, name string, start hcl.Pos, lex lexer) *hcl.Diagnostic {
	if !suspicious(src) {
		return nil
	}
	tokens, _ := lex(src, name, start) // what is wrong with them, the parser tells
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenNumberLit && literalBeyond(string(t.Bytes)) {
			return beyondAt(t.Range)
		}
	}
	return nil
}

// numberBeyondJSON is numberBeyond of JSON, right or not. Strings in it are read
// when they are compiled.
func numberBeyondJSON(src []byte, name string) *hcl.Diagnostic {
	if !suspicious(src) {
		return nil
	}
	line, bol, inString := 1, 0, false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case c == '\n':
			line, bol = line+1, i+1
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case !inString && digit(c):
			end := i
			for end < len(src) && strings.IndexByte("0123456789.eE+-", src[end]) >= 0 {
				end++
			}
			if literalBeyond(string(src[i:end])) {
				at := func(b int) hcl.Pos { return hcl.Pos{Line: line, Column: b - bol + 1, Byte: b} }
				return beyondAt(hcl.Range{Filename: name, Start: at(i), End: at(end)})
			}
			i = end - 1
		}
	}
	return nil
}

func beyondAt(rng hcl.Range) *hcl.Diagnostic {
	return errorAt(rng, "Number too large", "This number is too large, or too close to 0: "+schema.NumberLimits+". Write a smaller one, or a string.")
}

// suspicious tells whether a number that is too large may stand in a text. Most
// texts it acquits, and sooner than a lexer can.
func suspicious(src []byte) bool {
	run := 0
	for i, c := range src {
		switch {
		case digit(c) || c == '.':
			if run++; run > 300 {
				return true
			}
		case run > 0 && (c == 'e' || c == 'E') && exponentDigits(src[i+1:]) > 2:
			return true
		default:
			run = 0
		}
	}
	return false
}

func exponentDigits(src []byte) int {
	if len(src) > 0 && (src[0] == '+' || src[0] == '-') {
		src = src[1:]
	}
	n := 0
	for n < len(src) && digit(src[n]) {
		n++
	}
	return n
}

func literalBeyond(text string) bool {
	if len(text) > longestNumber {
		return true
	}
	v, err := cty.ParseNumberVal(text)
	return err == nil && beyond(v)
}

// beyond tells whether a value has a number that is too large anywhere.
func beyond(v cty.Value) bool {
	if v, _ = v.Unmark(); !v.IsKnown() || v.IsNull() {
		return false
	}
	t := v.Type()
	if t == cty.Number {
		return !schema.NumberFits(v.AsBigFloat())
	}
	if !hasNumbers(t) {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		if _, elem := it.Element(); beyond(elem) {
			return true
		}
	}
	return false
}

// hasNumbers tells whether values of a type may have numbers in them.
func hasNumbers(t cty.Type) bool {
	switch {
	case t.IsCollectionType():
		return hasNumbers(t.ElementType())
	case t.IsTupleType():
		for _, e := range t.TupleElementTypes() {
			if hasNumbers(e) {
				return true
			}
		}
	case t.IsObjectType():
		for _, e := range t.AttributeTypes() {
			if hasNumbers(e) {
				return true
			}
		}
	}
	return t == cty.Number
}

// bounded is a function that neither takes numbers that are too large, which
// arguments get to be when they are converted from strings, nor gives any. Of
// marks, nulls and unknown values it leaves all to the function itself.
func bounded(f function.Function) function.Function {
	open := func(p function.Parameter) function.Parameter {
		p.AllowDynamicType, p.AllowMarked, p.AllowNull, p.AllowUnknown = true, true, true, true
		return p
	}
	s := &function.Spec{Description: f.Description()}
	for _, p := range f.Params() {
		s.Params = append(s.Params, open(p))
	}
	if p := f.VarParam(); p != nil {
		all := open(*p)
		s.VarParam = &all
	}
	check := func(args []cty.Value) error {
		for i, a := range args {
			if beyond(a) {
				return function.NewArgErrorf(i, "has a number that is too large: %s", schema.NumberLimits)
			}
		}
		return nil
	}
	s.Type = func(args []cty.Value) (cty.Type, error) {
		if err := check(args); err != nil {
			return cty.NilType, err
		}
		return f.ReturnTypeForValues(args)
	}
	s.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		v, err := f.Call(args)
		if err == nil && beyond(v) {
			return cty.NilVal, errors.New("the result has a number that is too large: " + schema.NumberLimits)
		}
		return v, err
	}
	return function.New(s)
}

// boundNumbers bounds the functions that take numbers, and those that make them.
func boundNumbers(m map[string]function.Function) {
	makes := map[string]bool{"tonumber": true, "parseint": true, "jsondecode": true, "yamldecode": true, "lookup": true}
	for name, f := range m {
		takes := f.VarParam() != nil && hasNumbers(f.VarParam().Type)
		for _, p := range f.Params() {
			takes = takes || hasNumbers(p.Type)
		}
		if takes || makes[name] {
			m[name] = bounded(f)
		}
	}
	// Within these, a number is text again before anybody sees it.
	for _, name := range []string{"format", "formatlist"} {
		m[name] = refusing(m[name], formatBeyond)
	}
	m["yamldecode"] = refusing(m["yamldecode"], yamlKeyBeyond(m["yamldecode"]))
}

// The operators of expressions are the same for all trees that hclsyntax makes.
func init() {
	for _, op := range []*hclsyntax.Operation{hclsyntax.OpAdd, hclsyntax.OpSubtract, hclsyntax.OpMultiply, hclsyntax.OpDivide, hclsyntax.OpModulo, hclsyntax.OpNegate} {
		op.Impl = bounded(op.Impl)
	}
}

// refusing is a function that looks at its arguments first, where they are known.
func refusing(f function.Function, bad func([]cty.Value) error) function.Function {
	s := &function.Spec{Description: f.Description(), Params: f.Params(), VarParam: f.VarParam()}
	for i := range s.Params {
		p := &s.Params[i]
		p.AllowDynamicType, p.AllowMarked, p.AllowNull, p.AllowUnknown = true, true, true, true
	}
	if s.VarParam != nil {
		p := *s.VarParam
		p.AllowDynamicType, p.AllowMarked, p.AllowNull, p.AllowUnknown = true, true, true, true
		s.VarParam = &p
	}
	s.Type = func(args []cty.Value) (cty.Type, error) {
		plain := make([]cty.Value, len(args))
		for i := range args {
			plain[i], _ = args[i].UnmarkDeep()
		}
		if err := bad(plain); err != nil {
			return cty.NilType, err
		}
		return f.ReturnTypeForValues(args)
	}
	s.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) }
	return function.New(s)
}

var (
	// verbs of numbers, and widths that nobody reads
	numberVerb = regexp.MustCompile(`%[-+ #0]*[0-9]*(\.[0-9]*)?(\[[0-9]+\])?[bdoxXeEfgG]`)
	wideVerb   = regexp.MustCompile(`%[-+ #0]*([0-9]{5}|[0-9]*\.[0-9]{5})`)
	bigNumber  = regexp.MustCompile(`[0-9][0-9._]*[eE][-+]?[0-9]{4,}`)
)

// formatBeyond finds text that a verb of numbers would convert, and widths that
// would fill the memory.
func formatBeyond(args []cty.Value) error {
	if len(args) == 0 || args[0].Type() != cty.String || !args[0].IsKnown() || args[0].IsNull() {
		return nil
	}
	text := args[0].AsString()
	if wideVerb.MatchString(text) {
		return function.NewArgErrorf(0, "has a width or a precision of more than four digits")
	}
	if !numberVerb.MatchString(text) {
		return nil
	}
	for i, a := range args[1:] {
		for _, v := range texts(a) {
			if bigNumber.MatchString(v) && literalBeyond(v) {
				return function.NewArgErrorf(i+1, "has a number that is too large: %s", schema.NumberLimits)
			}
		}
	}
	return nil
}

// texts are the strings that a value is, or has right in it.
func texts(v cty.Value) []string {
	if !v.IsKnown() || v.IsNull() {
		return nil
	}
	var out []string
	switch t := v.Type(); {
	case t == cty.String:
		out = append(out, v.AsString())
	case t.IsListType() || t.IsSetType() || t.IsTupleType():
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); e.Type() == cty.String && e.IsKnown() && !e.IsNull() {
				out = append(out, e.AsString())
			}
		}
	}
	return out
}

// yamlKeyBeyond finds numbers that are too large as keys, of which YAML's decoder
// makes text. Where the document may have some, it is decoded with exponents that
// are just too large first: keys show by their length.
func yamlKeyBeyond(decode function.Function) func([]cty.Value) error {
	return func(args []cty.Value) error {
		if len(args) == 0 || args[0].Type() != cty.String || !args[0].IsKnown() || args[0].IsNull() || !bigNumber.MatchString(args[0].AsString()) {
			return nil
		}
		probe := bigNumber.ReplaceAllStringFunc(args[0].AsString(), func(n string) string {
			mantissa, exponent, _ := strings.Cut(strings.ToLower(n), "e")
			sign := ""
			if exponent[0] == '-' {
				sign = "-"
			}
			return mantissa + "e" + sign + "2222"
		})
		v, err := decode.Call([]cty.Value{cty.StringVal(probe)})
		if err != nil {
			return err
		}
		if longKey(v) {
			return function.NewArgErrorf(0, "has a key that is a number, and too large: %s", schema.NumberLimits)
		}
		return nil
	}
}

// longKey tells whether a value has a key of digits that 1e2222 could be.
func longKey(v cty.Value) bool {
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if k.Type() == cty.String && len(k.AsString()) > 2000 && strings.Trim(k.AsString(), "-.0123456789") == "" || longKey(e) {
			return true
		}
	}
	return false
}

// tooLargeFor is the diagnostic of a value of a variable.
func tooLargeFor(rng hcl.Range, what, name string) *hcl.Diagnostic {
	return errorAt(rng, "Number too large", fmt.Sprintf("%s of var.%s has a number that is too large, or too close to 0: %s.", what, name, schema.NumberLimits))
}
