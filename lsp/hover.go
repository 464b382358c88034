package lsp

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// typeText is an attribute's type as people write it.
func typeText(a *spec.Attribute) string {
	if a.Required {
		return string(a.Type) + ", required"
	}
	return string(a.Type)
}

// attributeText describes an attribute, in Markdown.
func attributeText(a *spec.Attribute) string {
	lines := []string{a.Doc}
	var facts []string
	if len(a.Values) > 0 {
		facts = append(facts, "One of `"+strings.Join(a.Values, "`, `")+"`.")
	}
	if a.Default != nil {
		if text, err := json.Marshal(a.Default); err == nil {
			facts = append(facts, "Default: `"+string(text)+"`.")
		}
	}
	if a.Computed {
		facts = append(facts, "Worked out by an apply; it can't be set.")
	}
	if a.Sensitive {
		facts = append(facts, "Never shown.")
	}
	if a.KnownAtPlan {
		facts = append(facts, "Has to be known when planning.")
	}
	if text := impactText(a.Impact); text != "" {
		facts = append(facts, text)
	}
	if len(facts) > 0 {
		lines = append(lines, strings.Join(facts, " "))
	}
	return strings.Join(lines, "\n\n")
}

func impactText(i spec.Impact) string {
	switch i {
	case spec.ImpactRestartResource:
		return "A change restarts the resource."
	case spec.ImpactRestartGroup:
		return "A change restarts the group."
	case spec.ImpactRestartAgent:
		return "A change restarts the node's agent."
	case spec.ImpactReboot:
		return "A change restarts the machine."
	case spec.ImpactReplace:
		return "A change has the object made anew."
	case spec.ImpactMembership:
		return "A change is one of the membership."
	case spec.ImpactTimings:
		return "A change is one of the cluster's timings."
	}
	return ""
}

// about describes a declaration, in Markdown.
func (d *declared) about() string {
	out := []string{"```hcl\n" + d.title() + "\n```"}
	if text := d.literal("description"); text != "" && d.attr == nil {
		out = append(out, text)
	}
	if d.Kind == "var" {
		fact := "Type: `" + string(variableType(d)) + "`."
		if a := d.block.attr("default"); a != nil {
			fact += " Default: `" + d.expression(a) + "`."
		}
		if d.block.attr("sensitive") != nil && d.expression(d.block.attr("sensitive")) == "true" {
			fact = "Type: `" + string(variableType(d)) + "`. Sensitive."
		}
		out = append(out, fact)
	}
	if a := d.block.attr("value"); d.Kind == "output" && a != nil {
		out = append(out, "`"+d.expression(a)+"`")
	}
	for _, name := range []string{"for_each", "count"} {
		if a := d.block.attr(name); a != nil && d.attr == nil {
			out = append(out, "`"+name+" = "+d.expression(a)+"`")
		}
	}
	out = append(out, fmt.Sprintf("%s:%d", filepath.Base(d.path), d.doc.position(d.name.start, utf8s).Line+1))
	return strings.Join(out, "\n\n")
}

func (s *server) hover(at spot) (*hover, error) {
	p := placeAt(at.doc, at.offset)
	tell := func(w word, text string) (*hover, error) {
		return &hover{markdown(text), at.doc.textRange(w.start, w.end, at.enc)}, nil
	}
	if d := s.meant(at, p); d != nil && (p.kind != atLabel || d.block != p.block) {
		return tell(p.word, d.about())
	}
	switch p.kind {
	case atItem:
		for _, inner := range p.block.blocks {
			if inner.start == p.word.start && p.word.text != "" {
				if around := s.typeOf(at.path, p.block); around != nil {
					if t := around.Block(inner.typ); t != nil {
						return tell(p.word, "**"+strings.TrimSpace(inner.typ+" "+inner.label(0))+"**\n\n"+t.Of(inner.label(0)).Doc)
					}
				}
				return nil, nil
			}
		}
		if a := s.attributeOf(at.path, p.block, p.word.text); a != nil {
			return tell(p.word, "**"+a.Name+"** `"+typeText(a)+"`\n\n"+attributeText(a))
		}
	case atLabel:
		if around := s.typeOf(at.path, p.block.parent); around != nil && p.label == 0 {
			if t := around.Block(p.block.typ); t != nil {
				for i := range t.Types {
					if t.Types[i].Name == p.word.text {
						return tell(p.word, "**"+p.block.typ+" "+p.word.text+"**\n\n"+t.Types[i].Doc)
					}
				}
			}
		}
	case atValue:
		if p.word.text == "" {
			return nil, nil
		}
		if a := s.attributeAt(at, p); a != nil {
			return tell(p.word, "**"+a.Name+"** `"+typeText(a)+"`\n\n"+attributeText(a))
		}
		if p.quoted || len(p.steps) > 0 {
			return nil, nil
		}
		for _, f := range lang.Functions() {
			if f.Name == p.word.text && strings.HasPrefix(lineRest(at.doc, p.word.end), "(") {
				return tell(p.word, "```hcl\n"+f.Signature+"\n```\n\n"+f.Doc)
			}
		}
	}
	return nil, nil
}

// symbolAt is the symbol that the names before and at a place mean.
func symbolAt(p place) (lang.Symbol, bool) {
	if p.kind != atValue || p.quoted || p.word.text == "" || len(p.steps) == 0 {
		return lang.Symbol{}, false
	}
	out := lang.Symbol{Kind: p.steps[len(p.steps)-1], Name: p.word.text}
	switch {
	case len(p.steps) == 1 && out.Kind == "resource":
		g := p.block.within("group")
		if g == nil {
			return out, false
		}
		out.Group = g.label(len(g.labels) - 1)
	case len(p.steps) == 3 && p.steps[0] == "group" && out.Kind == "resource":
		out.Group = p.steps[1]
	case len(p.steps) != 1:
		return out, false
	}
	return out, true
}

// meant is the declaration of what stands at a place; nil: of nothing.
func (s *server) meant(at spot, p place) *declared {
	dir := filepath.Dir(at.path)
	if isVars(at.path) {
		if p.block.parent == nil && p.kind == atItem {
			return find(s.names(dir), lang.Symbol{Kind: "var", Name: p.word.text})
		}
		return nil
	}
	if p.kind == atLabel || p.kind == atItem && p.block.typ == "locals" {
		all := s.names(dir)
		for i := range all {
			if d := &all[i]; d.path == at.path && d.name.start <= at.offset && at.offset <= d.name.end {
				return d
			}
		}
		return nil
	}
	if p.kind == atValue && len(p.steps) == 2 && p.steps[0] == "module" {
		if m := find(s.names(dir), lang.Symbol{Kind: "module", Name: p.steps[1]}); m != nil {
			if of := s.moduleDir(dir, m.doc, m.block); of != "" && s.serves(of) {
				return find(s.names(of), lang.Symbol{Kind: "output", Name: p.word.text})
			}
		}
		return nil
	}
	symbol, ok := symbolAt(p)
	if !ok {
		return nil
	}
	return find(s.names(dir), symbol)
}

// attributeAt is the attribute of an object that a reference at a place asks for.
func (s *server) attributeAt(at spot, p place) *spec.Attribute {
	if len(p.steps) != 2 || p.quoted {
		return nil
	}
	symbol := lang.Symbol{Kind: p.steps[0], Name: p.steps[1]}
	if symbol.Kind == "resource" {
		if g := p.block.within("group"); g != nil {
			symbol.Group = g.label(len(g.labels) - 1)
		}
	}
	if d := find(s.names(filepath.Dir(at.path)), symbol); d != nil && d.attr == nil && d.Kind != "var" && d.Kind != "module" {
		return s.attributeOf(d.path, d.block, p.word.text)
	}
	return nil
}

func (s *server) definition(at spot) (*location, error) {
	d := s.meant(at, placeAt(at.doc, at.offset))
	if d == nil {
		return nil, nil
	}
	return &location{uriOf(d.path), d.doc.textRange(d.name.start, d.name.end, at.enc)}, nil
}
