package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/graph"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
)

// GraphFormats are what a graph can be drawn as.
var GraphFormats = []string{"dot", "mermaid", "svg"}

// GraphJSON is the format of `graph --json`.
const GraphJSON = "json"

// graphJSON is a graph for programs. Vertices and edges are in the order in which
// the graph has them, which is the same each time.
type graphJSON struct {
	FormatVersion string        `json:"format_version"`
	Type          string        `json:"type"`
	Vertices      []graphVertex `json:"vertices"`
	Edges         []graphEdge   `json:"edges"`
}

type graphVertex struct {
	ID      string   `json:"id"`
	Address string   `json:"address,omitempty"` // none: a mark that only orders others
	Type    string   `json:"type,omitempty"`
	Action  string   `json:"action,omitempty"`
	Phases  []string `json:"phases,omitempty"`
}

// graphEdge says that From needs To, or with Kind soft only comes after it.
type graphEdge struct {
	From string `json:"from"`
	To   string `json:"to"`
	Kind string `json:"kind"`
}

// DefinitionGraph draws a definition's objects. As SVG resources stand in their
// group's box, and instances of a block in a frame.
func DefinitionGraph(def *lang.Definition, format string) (string, error) {
	g := graph.New[addr.Address]()
	objects := make(map[addr.Address]*lang.Object, len(def.Objects))
	instances := map[addr.Address]int{} // of a block
	for i := range def.Objects {
		o := &def.Objects[i]
		g.AddVertex(o.Addr)
		objects[o.Addr] = o
		instances[o.Addr.WithoutKey()]++
	}
	for _, o := range def.Objects {
		for _, e := range o.DependsOn {
			kind := graph.Soft
			if e.Hard {
				kind = graph.Hard
			}
			g.AddEdge(o.Addr, e.To, kind)
		}
		if owner := o.Addr.Owner(); owner != o.Addr {
			g.AddEdge(o.Addr, owner, graph.Hard)
		}
	}
	if format == GraphJSON {
		return graphText(g, "definition", func(a addr.Address) graphVertex {
			v := graphVertex{ID: a.String(), Address: a.String(), Type: a.Type}
			if o := objects[a]; o != nil {
				v.Type = o.Type
			}
			return v
		})
	}
	framed := func(a addr.Address) bool { return a != a.WithoutKey() && instances[a.WithoutKey()] > 1 }
	return draw(g, format, addr.Address.String, graph.Drawing[addr.Address]{
		Title: "definition",
		Within: func(a addr.Address) (addr.Address, bool) {
			switch {
			case framed(a):
				return a.WithoutKey(), true
			case a.IsResource():
				return a.Owner(), true
			}
			return a, false
		},
		Label: func(a addr.Address) string {
			switch {
			case framed(a) && a.IsResource():
				return a.ResourceKey.String()
			case framed(a):
				return a.Key.String()
			case a.IsResource():
				return a.Resource + a.ResourceKey.String()
			}
			return a.String()
		},
		Note: func(a addr.Address) string {
			switch o := objects[a]; {
			case o == nil || a.Type == addr.TypeCluster:
				return ""
			case a.Type == addr.TypeNode, addr.Machinery(a.Type):
				return o.Provider
			case a.IsResource():
				return o.Type
			}
			return ""
		},
		Tone: func(a addr.Address) graph.Tone {
			switch {
			case objects[a] == nil || a.IsResource():
				return graph.Plain
			case a.Type == addr.TypeCluster:
				return graph.Purple
			case a.Type == addr.TypeNode:
				return graph.Blue
			case a.Type == addr.TypeGroup:
				return graph.Teal
			}
			return graph.Amber
		},
	})
}

// PlanGraph draws a plan's steps, without the edges that others imply.
func PlanGraph(p *planner.Plan, format string) (string, error) {
	work := p.Work()
	if work == nil || work.Graph == nil {
		if format == GraphJSON {
			return graphText(graph.New[planner.Key](), "plan", nil)
		}
		return draw(graph.New[planner.Key](), format, planner.Key.String, graph.Drawing[planner.Key]{Title: "plan"})
	}
	g := work.Graph
	if r, err := g.Reduce(); err == nil {
		g = r
	}
	units := make(map[planner.Key]*planner.Unit, len(work.Units))
	for _, u := range work.Units {
		units[u.Key] = u
	}
	if format == GraphJSON {
		return graphText(g, "plan", func(k planner.Key) graphVertex {
			v := graphVertex{ID: k.String()}
			if k.Stage != planner.StageMark {
				v.Address, v.Type = k.Addr.String(), k.Addr.Type
			}
			if u := units[k]; u != nil {
				v.Action, v.Phases = u.Action, slices.Concat(u.Remove, u.Phases)
			}
			return v
		})
	}
	return draw(g, format, planner.Key.String, graph.Drawing[planner.Key]{
		Title: "plan",
		Label: planner.Key.String,
		Note:  func(k planner.Key) string { return unitNote(units[k]) },
		Tone: func(k planner.Key) graph.Tone {
			u := units[k]
			if u == nil {
				return graph.Plain
			}
			return map[string]graph.Tone{"create": graph.Green, "update": graph.Amber, "replace": graph.Purple,
				"delete": graph.Red, "forget": graph.Red}[u.Action]
		},
	})
}

// unitNote says what is done in a step.
func unitNote(u *planner.Unit) string {
	if u == nil || u.Action == "" {
		return ""
	}
	if len(u.Parts) > 0 {
		plural := "s"
		if len(u.Parts) == 1 {
			plural = ""
		}
		return fmt.Sprintf("%s, %d resource%s", u.Action, len(u.Parts), plural)
	}
	phases := append(append([]string(nil), u.Remove...), u.Phases...)
	if len(phases) == 0 {
		return u.Action
	}
	return u.Action + ": " + strings.Join(phases, ", ")
}

func graphText[K comparable](g *graph.Graph[K], kind string, vertex func(K) graphVertex) (string, error) {
	doc := graphJSON{FormatVersion: planner.FormatVersion, Type: kind, Vertices: make([]graphVertex, 0, g.Len()), Edges: make([]graphEdge, 0, g.Edges())}
	for k := range g.Vertices() {
		from := vertex(k)
		doc.Vertices = append(doc.Vertices, from)
		for to, kind := range g.Dependencies(k) {
			doc.Edges = append(doc.Edges, graphEdge{From: from.ID, To: vertex(to).ID, Kind: kind.String()})
		}
	}
	var b strings.Builder
	err := JSON(&b, doc)
	return b.String(), err
}

func draw[K comparable](g *graph.Graph[K], format string, name func(K) string, d graph.Drawing[K]) (string, error) {
	switch format {
	case "mermaid":
		return g.Mermaid(name), nil
	case "svg":
		return g.SVG(d)
	}
	return g.DOT(d.Title, name), nil
}
