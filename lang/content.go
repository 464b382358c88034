package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// content is what a block holds, as hcl.BodyContent: read from hclsyntax's own
// tree, where the block holds nothing but what it may, without a copy of it.
type content struct {
	native hclsyntax.Attributes
	other  hcl.Attributes
	blocks hcl.Blocks
}

// attr finds an attribute that was given.
func (c *content) attr(name string) (expr hcl.Expression, rng hcl.Range, ok bool) {
	if a := c.native[name]; a != nil {
		return a.Expr, a.NameRange, true
	}
	if a := c.other[name]; a != nil {
		return a.Expr, a.NameRange, true
	}
	return nil, hcl.Range{}, false
}

// wants is a hcl.BodySchema by names.
type wants struct {
	attrs    map[string]bool // true: required
	required int
	blocks   map[string]int // how many labels
}

func wantsOf(s *hcl.BodySchema) wants {
	w := wants{attrs: make(map[string]bool, len(s.Attributes)), blocks: make(map[string]int, len(s.Blocks))}
	for _, a := range s.Attributes {
		w.attrs[a.Name] = w.attrs[a.Name] || a.Required
	}
	for _, required := range w.attrs {
		if required {
			w.required++
		}
	}
	for _, b := range s.Blocks {
		w.blocks[b.Type] = len(b.LabelNames)
	}
	return w
}

// fits tells whether a body is as it has to be.
func (w *wants) fits(b *hclsyntax.Body) bool {
	required := 0
	for name := range b.Attributes {
		r, ok := w.attrs[name]
		if !ok {
			return false
		}
		if r {
			required++
		}
	}
	for _, inner := range b.Blocks {
		if labels, ok := w.blocks[inner.Type]; !ok || labels != len(inner.Labels) {
			return false
		}
	}
	return required == w.required
}

// contentOf reads a body, no part of which was read before. What is wrong with it
// hcl says.
func (s *shape) contentOf(in hcl.Body) (*content, hcl.Diagnostics) {
	if b, ok := in.(*hclsyntax.Body); ok && s.wants.fits(b) {
		out := &content{native: b.Attributes}
		if len(b.Blocks) > 0 {
			out.blocks = make(hcl.Blocks, len(b.Blocks))
			for i, inner := range b.Blocks {
				out.blocks[i] = inner.AsHCLBlock()
			}
		}
		return out, nil
	}
	c, diags := in.Content(s.want)
	suggest(diags, s.want, c)
	return contentFrom(c), diags
}

func contentFrom(c *hcl.BodyContent) *content {
	return &content{other: c.Attributes, blocks: c.Blocks}
}

// contentIn reads a block. Where hcl's words leave it open, it says what may stand there.
func contentIn(b *hcl.Block, want *hcl.BodySchema) (*hcl.BodyContent, hcl.Diagnostics) {
	c, diags := b.Body.Content(want)
	suggest(diags, want, c)
	for _, d := range diags {
		if !strings.HasSuffix(d.Detail, "not expected here.") {
			continue
		}
		var names []string
		for _, a := range want.Attributes {
			names = append(names, a.Name)
		}
		for _, inner := range want.Blocks {
			names = append(names, inner.Type+" {}")
		}
		d.Detail += fmt.Sprintf(" This %s block takes: %s.", b.Type, strings.Join(names, ", "))
	}
	return c, diags
}
