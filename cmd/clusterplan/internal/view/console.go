package view

import (
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
)

// Answer prints a value as a definition would write it, over many lines where
// it has parts; or its type.
func Answer(w io.Writer, v cty.Value, onlyType bool) error {
	if onlyType {
		_, err := fmt.Fprintln(w, typeexpr.TypeString(v.Type()))
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
