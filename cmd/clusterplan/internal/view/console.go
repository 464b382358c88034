package view

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/planner"
)

// answerJSON is a line of `console --json`.
type answerJSON struct {
	FormatVersion string               `json:"format_version"`
	Expression    string               `json:"expression"`
	Type          string               `json:"type,omitempty"`
	Value         json.RawMessage      `json:"value,omitempty"`
	Unknown       bool                 `json:"unknown"`
	Sensitive     bool                 `json:"sensitive"`
	Diagnostics   []planner.Diagnostic `json:"diagnostics"`
}

// AnswerJSON writes what an expression is, in one line; or its type alone, or what
// is wrong with it.
func AnswerJSON(w io.Writer, expression string, v cty.Value, onlyType bool, diags []planner.Diagnostic) error {
	out := answerJSON{FormatVersion: planner.FormatVersion, Expression: expression, Diagnostics: diags}
	if len(diags) == 0 {
		out.Diagnostics = []planner.Diagnostic{} // none, not null
		out.Type = typeexpr.TypeString(shownType(v))
		if !onlyType {
			out.Unknown, out.Sensitive = !v.IsWhollyKnown(), v.ContainsMarked()
			var err error
			if out.Value, err = planner.PublicJSON(v); err != nil {
				return err
			}
		}
	}
	return JSONLine(w, out)
}

// shownType is a value's type. The names in a sensitive object may be what is secret, so
// that is any.
func shownType(v cty.Value) cty.Type {
	switch t := v.Type(); {
	case !v.ContainsMarked():
		return t
	case v.IsMarked() || !v.IsKnown() || v.IsNull() || !t.IsObjectType() && !t.IsTupleType():
		if hasNames(t) {
			return cty.DynamicPseudoType
		}
		return t
	case t.IsTupleType():
		var elems []cty.Type
		for _, e := range v.AsValueSlice() {
			elems = append(elems, shownType(e))
		}
		return cty.Tuple(elems)
	default:
		attrs := map[string]cty.Type{}
		for name, e := range v.AsValueMap() {
			attrs[name] = shownType(e)
		}
		return cty.Object(attrs)
	}
}

// hasNames tells whether a type has names in it.
func hasNames(t cty.Type) bool {
	switch {
	case t.IsCollectionType():
		return hasNames(t.ElementType())
	case t.IsTupleType():
		return slices.ContainsFunc(t.TupleElementTypes(), hasNames)
	}
	return t.IsObjectType()
}

// Answer prints a value as a definition would write it, over many lines where
// it has parts; or its type.
func Answer(w io.Writer, v cty.Value, onlyType bool) error {
	if onlyType {
		_, err := fmt.Fprintln(w, typeexpr.TypeString(shownType(v)))
		return err
	}
	var b strings.Builder
	answer(&b, v, "")
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func answer(b *strings.Builder, v cty.Value, indent string) {
	t := v.Type()
	if v.IsMarked() || !v.IsKnown() || v.IsNull() || !t.IsCollectionType() && !t.IsTupleType() && !t.IsObjectType() {
		b.WriteString(ctyText(v))
		return
	}
	open, shut := "[", "]"
	switch {
	case t.IsObjectType():
		open, shut = "{", "}"
	case t.IsMapType():
		open, shut = "tomap({", "})"
	case t.IsListType():
		open, shut = "tolist([", "])"
	case t.IsSetType():
		open, shut = "toset([", "])"
	}
	b.WriteString(open)
	n := 0
	for it := v.ElementIterator(); it.Next(); n++ {
		k, e := it.Element()
		b.WriteString("\n" + indent + "  ")
		if strings.HasSuffix(open, "{") {
			b.WriteString(key(k.AsString()) + " = ")
		}
		answer(b, e, indent+"  ")
		if !strings.HasSuffix(open, "{") {
			b.WriteByte(',')
		}
	}
	if n > 0 {
		b.WriteString("\n" + indent)
	}
	b.WriteString(shut)
}
