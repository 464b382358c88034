package lang

import (
	"bytes"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// torn is what is known of a module's files that have syntax errors. What follows
// from one of these is not told: a block that can't be read whole may lack anything,
// and what seems to be nowhere may stand in it.
type torn struct {
	files  []*hcl.File
	blocks []hcl.Range     // with a syntax error in them
	names  map[string]bool // that may be given in files; made when first asked for
}

// tear notes the file of p, which has syntax errors.
func (c *Config) tear(p *parsing) {
	c.torn.files, c.torn.names = append(c.torn.files, p.file), nil
	body, ok := p.file.Body.(*hclsyntax.Body)
	if !ok {
		return
	}
	for _, d := range p.diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		at := *d.Subject
		for _, b := range body.Blocks { // the last that begins before it, in the order of the file
			if rng := b.Range(); rng.Start.Byte <= d.Subject.Start.Byte {
				at = hcl.RangeBetween(rng, *d.Subject)
			}
		}
		switch unread, ok := d.Extra.(unreadTo); {
		case ok:
			at.End = unread.end
		case d.Summary == "Unclosed configuration block": // it takes in all that follows
			at.End = body.SrcRange.End
		}
		c.torn.blocks = append(c.torn.blocks, at)
	}
}

// mayGive tells whether a file that can't be read may give something this name.
func (t *torn) mayGive(name string) bool {
	if t.names == nil {
		t.names = map[string]bool{}
		for _, f := range t.files {
			t.read(f)
		}
	}
	return t.names[name]
}

func (t *torn) read(f *hcl.File) {
	for line := range bytes.Lines(f.Bytes) { // for itself: a string that isn't closed ends with it
		tokens, _ := hclsyntax.LexConfig(line, "", hcl.InitialPos)
		for i, one := range tokens {
			text := string(one.Bytes)
			switch {
			case one.Type == hclsyntax.TokenQuotedLit: // a label, or a name in JSON
				t.names[strings.TrimSpace(text)] = true
			case one.Type == hclsyntax.TokenIdent && i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenEqual:
				t.names[text] = true
			}
		}
	}
}

// first leaves out what follows from syntax errors: all that is said of a block that
// has one.
func (t *torn) first(diags hcl.Diagnostics) hcl.Diagnostics {
	if len(t.blocks) == 0 {
		return diags
	}
	out := diags[:0:0]
	for _, d := range diags {
		if d.Subject == nil || !t.has(*d.Subject) {
			out = append(out, d)
		}
	}
	return out
}

// has tells whether what stands there is, or is in, a block with a syntax error.
func (t *torn) has(rng hcl.Range) bool {
	return slices.ContainsFunc(t.blocks, func(b hcl.Range) bool {
		return rng.Filename == b.Filename && rng.Start.Byte >= b.Start.Byte && rng.Start.Byte < b.End.Byte
	})
}
