package lsp

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
)

func (s *server) documentSymbol(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[documentParams](raw)
	if err != nil {
		return nil, err
	}
	_, doc, err := s.document(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	enc := s.encoding
	s.mu.Unlock()
	out := []documentSymbol{}
	for _, b := range doc.outline.blocks {
		out = append(out, symbolOf(doc, b, enc))
	}
	return out, nil
}

// symbolOf shows a block with what has a name of its own in it: a group's
// resources, local values.
func symbolOf(doc *document, b *block, enc encoding) documentSymbol {
	header := word{b.typ, b.start, b.start + len(b.typ)}
	var labels []string
	for _, l := range b.labels {
		labels = append(labels, l.text)
		header.end = l.end
	}
	out := documentSymbol{
		Name: strings.TrimSpace(b.typ + " " + strings.Join(labels, " ")), Kind: symbolStruct,
		Range:          doc.textRange(b.start, max(b.end, header.end), enc),
		SelectionRange: doc.textRange(header.start, header.end, enc),
	}
	switch b.typ {
	case "variable", "output":
		out.Kind = symbolVariable
	case "module":
		out.Kind = symbolModule
	case "node", "group", "resource", "cluster", "fence", "machine", "network", "volume":
		out.Kind = symbolObject
	}
	if b.typ == "locals" {
		for _, a := range b.attrs {
			out.Children = append(out.Children, documentSymbol{Name: a.name.text, Kind: symbolConstant,
				Range: doc.textRange(a.name.start, a.end, enc), SelectionRange: doc.textRange(a.name.start, a.name.end, enc)})
		}
	}
	for _, inner := range b.blocks {
		if inner.typ == "resource" {
			out.Children = append(out.Children, symbolOf(doc, inner, enc))
		}
	}
	return out
}

// formatting lays a document out, as fmt does. One that doesn't parse stays as
// it is: its diagnostics tell why.
func (s *server) formatting(_ context.Context, raw json.RawMessage) (any, error) {
	p, err := read[documentParams](raw)
	if err != nil {
		return nil, err
	}
	path, doc, err := s.document(p.TextDocument.URI)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	enc := s.encoding
	s.mu.Unlock()
	if len(doc.text) > maxText {
		return []textEdit{}, nil
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if !lang.Formattable(name) {
		return nil, failed("fmt lays out *.cluster.hcl, *.vars.hcl and *.scenario.hcl, and not %s", name)
	}
	after, diags := lang.Format(doc.text, path)
	if diags.HasErrors() {
		return []textEdit{}, nil
	}
	return edits(doc, after, enc), nil
}
