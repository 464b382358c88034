package graph

import (
	"fmt"
	"strings"
)

// DOT draws the graph for Graphviz: arrows run from what depends to what it
// depends on, soft ones dashed. A nil label prints keys with %v.
func (g *Graph[K]) DOT(name string, label func(K) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n  rankdir = \"RL\"\n  node [shape = \"box\"]\n", dotQuote(name))
	for i, k := range g.keys {
		fmt.Fprintf(&b, "  v%d [label = %s]\n", i, dotQuote(text(k, label)))
	}
	s := g.sort()
	for i := range int32(len(g.keys)) {
		for _, to := range s.of(i) {
			style := ""
			if g.edges[pair(i, to)] == Soft {
				style = " [style = \"dashed\"]"
			}
			fmt.Fprintf(&b, "  v%d -> v%d%s\n", i, to, style)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// Mermaid draws the graph as a Mermaid flowchart, soft edges dotted.
func (g *Graph[K]) Mermaid(label func(K) string) string {
	var b strings.Builder
	b.WriteString("flowchart RL\n")
	for i, k := range g.keys {
		fmt.Fprintf(&b, "  v%d[\"%s\"]\n", i, mermaidEscape(text(k, label)))
	}
	s := g.sort()
	for i := range int32(len(g.keys)) {
		for _, to := range s.of(i) {
			arrow := "-->"
			if g.edges[pair(i, to)] == Soft {
				arrow = "-.->"
			}
			fmt.Fprintf(&b, "  v%d %s v%d\n", i, arrow, to)
		}
	}
	return b.String()
}

func text[K comparable](k K, label func(K) string) string {
	if label == nil {
		return fmt.Sprint(k)
	}
	return label(k)
}

// In DOT a quoted string knows no escape but \", and \n for a new line; a
// backslash before anything else stands for itself in an identifier but may
// mean something in a label, so it is doubled.
func dotQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}

// Mermaid takes entities within a quoted text.
func mermaidEscape(s string) string {
	return strings.NewReplacer("#", "#35;", `"`, "#quot;", "&", "#amp;", "<", "#lt;", ">", "#gt;", "\n", "<br>", "\r", "").Replace(s)
}
