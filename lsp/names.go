package lsp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// declared is a name of the definition, where it stands and what it stands for.
type declared struct {
	lang.Symbol
	path  string
	doc   *document
	name  word
	block *block
	attr  *attr // of a local value
}

// kinds of what blocks declare, by the blocks' type.
var kinds = map[string]string{
	"variable": "var", "node": "node", "group": "group", "fence": "fence", "guarantee": "guarantee", "output": "output",
	"check": "check", "module": "module", "cluster": "cluster", "machine": "machine", "network": "network", "volume": "volume",
}

// names lists what the files of a directory declare, in the order of the files.
func (s *server) names(dir string) []declared {
	var out []declared
	v := s.view(dir)
	for _, name := range v.names(hclSuffix) {
		path := filepath.Join(dir, name)
		doc := s.file(path)
		if doc == nil {
			continue
		}
		for _, b := range doc.outline.blocks {
			if b.typ == "locals" {
				for i := range b.attrs {
					a := &b.attrs[i]
					out = append(out, declared{lang.Symbol{Kind: "local", Name: a.name.text}, path, doc, a.name, b, a})
				}
			}
			kind, ok := kinds[b.typ]
			if !ok || len(b.labels) == 0 {
				continue
			}
			label := b.labels[len(b.labels)-1]
			out = append(out, declared{lang.Symbol{Kind: kind, Name: label.text}, path, doc, label, b, nil})
			if b.typ != "group" {
				continue
			}
			for _, r := range b.blocks {
				if r.typ == "resource" && len(r.labels) == 2 {
					out = append(out, declared{lang.Symbol{Kind: "resource", Name: r.labels[1].text, Group: label.text}, path, doc, r.labels[1], r, nil})
				}
			}
		}
	}
	return out
}

// find is the declaration of a symbol.
func find(all []declared, s lang.Symbol) *declared {
	for i := range all {
		if all[i].Symbol == s {
			return &all[i]
		}
	}
	return nil
}

// literal is the text of an attribute that is a plain string, "" else.
func (d *declared) literal(name string) string { return literal(d.doc, d.block, name) }

func literal(doc *document, b *block, name string) string {
	a := b.attr(name)
	if a == nil {
		return ""
	}
	text := strings.TrimSpace(string(doc.text[a.start:a.end]))
	if len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"' || strings.ContainsAny(text[1:len(text)-1], "\"\\$%") {
		return ""
	}
	return text[1 : len(text)-1]
}

// expression is an attribute as it is written, cut short.
func (d *declared) expression(a *attr) string {
	if a == nil {
		return ""
	}
	text := strings.TrimSpace(string(d.doc.text[a.start:a.end]))
	if line, _, more := strings.Cut(text, "\n"); more {
		text = line + " ..."
	}
	return text
}

// title is how the declaration is written.
func (d *declared) title() string {
	switch {
	case d.attr != nil:
		return "local." + d.Name + " = " + d.expression(d.attr)
	case d.Kind == "resource":
		return "resource \"" + d.block.label(0) + "\" \"" + d.Name + "\""
	}
	return d.block.typ + " \"" + d.Name + "\""
}

// moduleDir is where a module block's directory lies; "": it has none here.
func (s *server) moduleDir(dir string, doc *document, b *block) string {
	source := literal(doc, b, "source")
	if source == "" {
		return ""
	}
	at, _, err := s.conf.Module(os.DirFS(dir), source, ".")
	if err != nil {
		return ""
	}
	return filepath.Join(dir, filepath.FromSlash(at))
}

// moduleDirs are the directories of a definition's modules.
func (s *server) moduleDirs(dir string) []string {
	var out []string
	for _, d := range s.names(dir) {
		if d.Kind == "module" {
			if at := s.moduleDir(dir, d.doc, d.block); at != "" && at != dir && s.serves(at) && !slices.Contains(out, at) {
				out = append(out, at)
			}
		}
	}
	return out
}

// serves tells whether a directory is in the workspace.
func (s *server) serves(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inWorkspace(path)
}

// moduleType adds a module's variables to what its block can hold.
func (s *server) moduleType(path string, b *block, t *lang.BlockType) *lang.BlockType {
	doc := s.file(path)
	if doc == nil {
		return t
	}
	dir := s.moduleDir(filepath.Dir(path), doc, b)
	if dir == "" || !s.serves(dir) {
		return t
	}
	out := *t
	out.Attributes = slices.Clone(t.Attributes)
	for _, d := range s.names(dir) {
		if d.Kind == "var" && out.Attribute(d.Name) == nil {
			out.Attributes = append(out.Attributes, spec.Attribute{Name: d.Name, Type: variableType(&d), Required: d.block.attr("default") == nil, Doc: d.literal("description")})
		}
	}
	return &out
}

func variableType(d *declared) spec.ValueType {
	if text := d.expression(d.block.attr("type")); text != "" {
		return spec.ValueType(text)
	}
	return lang.TypeAny
}
