package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// dotted draws "a.b" in "a", which is a frame where it is no vertex.
func dotted(title string) Drawing[string] {
	return Drawing[string]{Title: title, Within: func(k string) (string, bool) {
		i := strings.LastIndexByte(k, '.')
		return k[:max(i, 0)], i >= 0
	}}
}

func TestSVG(t *testing.T) {
	g := parse("cluster; node.a; node.b; node.c; node.a > cluster; node.b > cluster; node.c > cluster;" +
		"web; web.vip; web.server; web.server > web.vip; web ~ node.a; web ~ node.b; web ~ node.c; web > cluster;" +
		"sql; sql.disk; sql.server; sql.server > sql.disk; sql ~ node.c; web.server > sql.server")
	d := dotted("a <small> cluster")
	d.Note = func(k string) string { return map[string]string{"web.vip": "ip_address", "web.server": `"<&>'`}[k] }
	d.Tone = func(k string) Tone { return map[string]Tone{"cluster": Purple, "web": Teal, "sql": Teal}[k] }
	got, err := g.SVG(d)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/small.svg"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}

	empty, err := New[string]().SVG(Drawing[string]{})
	if err != nil || !strings.Contains(empty, "Nothing to draw") {
		t.Errorf("an empty graph: %v\n%s", err, empty)
	}
	var cycle *CycleError[string]
	if _, err := parse("a > b; b > a").SVG(d); !errors.As(err, &cycle) {
		t.Errorf("a cycle: %v", err)
	}
	// Frames that depend on each other, though what they hold does not.
	knot := parse("a.1 > b.1; b.2 > a.2")
	if root, err := knot.layoutOf(&d); err != nil || len(root.kids) != 4 {
		t.Errorf("a knot of frames: %v, %d boxes", err, len(root.kids))
	}
	checkDrawing(t, knot, d)
}

// A line that ends at a frame, and means only some of what is in it, says so.
func TestSVGSomeOfAFrame(t *testing.T) {
	for _, c := range []struct {
		graph string
		rings int // with the legend's
	}{
		{"x > f.a; x > f.b", 0},                // all of it
		{"x > f.a; f.b", 0},                    // its own line
		{"x > f.b; f.a > f.b", 2},              // it stands behind another one
		{"f.a > x; f.a > f.b", 2},              // likewise, at the other end
		{"f.a > g.b; f.a > f.b; g.a > g.b", 3}, // both
	} {
		text, err := parse(c.graph).SVG(dotted("some"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(text, `class="ring"`); got != c.rings {
			t.Errorf("%s: %d rings, want %d", c.graph, got, c.rings)
		}
	}
}

// Any text is a label: the picture stays XML, and its box has room for it.
func TestSVGLabels(t *testing.T) {
	labels := []string{"", "]]>", `node.n["\"<a>&'"]`, "a\x00b\x1b\xff\uffff", "日本語 групп", strings.Repeat("x", 500), "<!-- -->", "a\nb\tc"}
	g := New[int]()
	for i := range labels {
		g.AddEdge(i, i+1, Hard)
	}
	d := Drawing[int]{Title: labels[2], Label: func(i int) string { return slices.Concat(labels, labels)[i] }, Note: func(i int) string { return labels[i%len(labels)] }}
	checkDrawing(t, g, d)
	text, err := g.SVG(d)
	if err != nil {
		t.Fatal(err)
	}
	shown, _ := read(t, text)
	for _, want := range []string{`node.n["\"<a>&'"]`, "日本語 групп", strings.Repeat("x", 500), "<!-- -->"} {
		if !slices.ContainsFunc(shown, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%q is not told", want)
		}
	}
	if short(labels[5]) == labels[5] {
		t.Error("a label of 500 characters was not made shorter")
	}
}

// read is the texts of a picture, and how many rectangles it has.
func read(t interface{ Fatalf(string, ...any) }, svg string) (texts []string, rects int) {
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return texts, rects
		}
		if err != nil {
			t.Fatalf("no XML: %v\n%s", err, svg)
		}
		switch tok := tok.(type) {
		case xml.CharData:
			texts = append(texts, string(tok))
		case xml.StartElement:
			if tok.Name.Local == "rect" {
				rects++
			}
		}
	}
}

// checkDrawing holds what is true of every drawing.
func checkDrawing[K comparable](t interface{ Fatalf(string, ...any) }, g *Graph[K], d Drawing[K]) {
	root, err := g.layoutOf(&d)
	if err != nil {
		t.Fatalf("%v", err)
	}
	at, boxes := map[int32]*item{}, 0
	type said struct {
		from, to int32
		kind     Kind
	}
	told := map[said]bool{}
	var walk func(c *item)
	walk = func(c *item) {
		for i, it := range c.kids {
			boxes++
			if it.key >= 0 {
				at[it.key] = it
			}
			if c.in != nil && (it.x <= c.x || it.y <= c.y || it.x+it.w >= c.x+c.w || it.y+it.h >= c.y+c.h) {
				t.Fatalf("%q is not within %q", it.label, c.label)
			}
			for _, other := range c.kids[:i] {
				if it.x < other.x+other.w && other.x < it.x+it.w && it.y < other.y+other.h && other.y < it.y+it.h {
					t.Fatalf("%q and %q overlap", it.label, other.label)
				}
			}
			if it.w < 2*padding+cell*cells(it.label) || it.w < 2*padding+noteCell*cells(it.note) {
				t.Fatalf("%q has no room for its text", it.label)
			}
		}
		for _, l := range c.links {
			if l.a.col <= l.b.col || l.a.x <= l.b.x+l.b.w {
				t.Fatalf("%q stands not right of %q", l.a.label, l.b.label)
			}
		}
		for _, col := range c.cols {
			for i, s := range col[1:] {
				if s.y < col[i].y+col[i].h+between {
					t.Fatalf("in %q something goes through something else", c.label)
				}
			}
		}
		for _, b := range c.buses {
			for _, l := range b.says {
				for _, from := range stands(l.from) {
					for _, to := range stands(l.to) {
						told[said{from, to, b.kind}] = true
					}
				}
			}
		}
		for _, kid := range c.kids {
			walk(kid)
		}
	}
	walk(root)
	if len(at) != g.Len() {
		t.Fatalf("%d of %d vertices are drawn", len(at), g.Len())
	}
	// The lines say all that is so, and nothing else.
	seen := 0
	for e, kind := range g.edges {
		from, to := int32(e>>32), int32(uint32(e))
		if holds(at[from], at[to]) || holds(at[to], at[from]) {
			continue
		}
		seen++
		if !told[said{from, to, kind}] {
			t.Fatalf("that %q depends on %q is not drawn", at[from].label, at[to].label)
		}
	}
	if len(told) != seen {
		t.Fatalf("%d edges are drawn, there are %d", len(told), seen)
	}
	svg, err := g.SVG(d)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if _, rects := read(t, svg); rects != boxes+1 {
		t.Fatalf("%d rectangles for %d boxes", rects, boxes)
	}
	if again, _ := g.SVG(d); again != svg {
		t.Fatalf("drawn twice, another picture")
	}
	turned := New[K]() // edges added the other way round
	for _, k := range g.keys {
		turned.AddVertex(k)
	}
	for i := len(g.keys) - 1; i >= 0; i-- {
		for j := len(g.out[i]) - 1; j >= 0; j-- {
			to := g.out[i][j].other
			turned.AddEdge(g.keys[i], g.keys[to], g.edges[pair(int32(i), to)])
		}
	}
	if again, _ := turned.SVG(d); again != svg {
		t.Fatalf("edges added in another order, another picture")
	}
}

// stands are the vertices that a box stands for where a line ends.
func stands(it *item) (out []int32) {
	if it.key >= 0 {
		return []int32{it.key}
	}
	for _, kid := range it.kids {
		out = append(out, stands(kid)...)
	}
	return out
}

func holds(a, b *item) bool {
	for ; b != nil; b = b.in {
		if a == b {
			return true
		}
	}
	return false
}

func TestSVGProperties(t *testing.T) {
	names := []string{"a", "a.x", "a.y", "a.z.1", "a.z.2", "b.1", "b.2", "b.3", "c", "d.p.1", "d.p.2", "d.q", "e", "f", "g.1", "g.2"}
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.Permutation(names).Draw(t, "names")[:rapid.IntRange(1, len(names)).Draw(t, "vertices")]
		g := New[string]()
		for _, k := range keys {
			g.AddVertex(k)
		}
		for range rapid.IntRange(0, 3*len(keys)).Draw(t, "edges") {
			a, b := rapid.IntRange(0, len(keys)-1).Draw(t, "a"), rapid.IntRange(0, len(keys)-1).Draw(t, "b")
			if a != b {
				g.AddEdge(keys[max(a, b)], keys[min(a, b)], Kind(rapid.IntRange(0, 1).Draw(t, "kind")))
			}
		}
		checkDrawing(t, g, dotted("property"))
	})
}

// hundred is a definition of a hundred objects and more: nodes from one
// for_each, groups that prefer some of them, resources that need each other.
func hundred() *Graph[string] {
	g := New[string]()
	for i := range 8 {
		g.AddVertex(fmt.Sprintf("node.%d", i))
	}
	for i := range 25 {
		group := fmt.Sprintf("group%d", i)
		for k := range 3 {
			g.AddEdge(group, fmt.Sprintf("node.%d", (i/3+k)%8), Soft)
		}
		if i%4 == 3 {
			g.AddEdge(group, fmt.Sprintf("group%d", i-1), Hard)
		}
		g.AddEdge(group+".server", group+".vip", Hard)
		g.AddEdge(group+".server", group, Hard)
		g.AddEdge(group+".vip", group, Hard)
		g.AddEdge(group+".disk", group, Hard)
	}
	return g
}

// Few lines cross: as few as can be where that is known, and no more than were
// found once where it is not.
func TestCrossings(t *testing.T) {
	matching := New[string]() // in a scrambled order
	for i := range 31 {
		matching.AddVertex(fmt.Sprint("b", i*12%31))
	}
	for i := range 31 {
		matching.AddEdge(fmt.Sprint("a", i*7%31), fmt.Sprint("b", i*7%31), Hard)
	}
	tree := New[string]()
	for i := 1; i < 31; i++ { // leaves first, and not in their parents' order
		k := 31 - i*11%31
		if k < 31 {
			tree.AddEdge(fmt.Sprint(k), fmt.Sprint((k-1)/2), Hard)
		}
	}
	all := func(n int) *Graph[string] {
		g := New[string]()
		for i := range n {
			for k := range n {
				g.AddEdge(fmt.Sprint("a", i), fmt.Sprint("b", k), Hard)
			}
		}
		return g
	}
	ladder := New[string]()
	for i := range 12 {
		ladder.AddEdge(fmt.Sprint("l", i+1), fmt.Sprint("l", i), Hard)
		ladder.AddEdge(fmt.Sprint("r", i+1), fmt.Sprint("r", i), Hard)
		ladder.AddEdge(fmt.Sprint("r", i+1), fmt.Sprint("l", i), Hard)
	}
	for _, c := range []struct {
		name string
		g    *Graph[string]
		most int
	}{
		{"matching", matching, 0},
		{"tree", tree, 0},
		{"ladder", ladder, 0},
		{"all with all, 3", all(3), 9},
		{"all with all, 5", all(5), 100},
		{"a hundred objects", hundred(), 145},
	} {
		d := dotted(c.name)
		checkDrawing(t, c.g, d)
		root, err := c.g.layoutOf(&d)
		if err != nil {
			t.Fatal(err)
		}
		if n := allCrossings(root); n > c.most {
			t.Errorf("%s: %d crossings, not %d", c.name, n, c.most)
		} else {
			t.Logf("%s: %d crossings, %d x %d", c.name, n, root.w, root.h)
		}
	}
}

func allCrossings(c *item) int {
	n := c.crossings()
	for _, kid := range c.kids {
		n += allCrossings(kid)
	}
	return n
}

// A wide layer becomes several columns: the picture of a thousand objects side
// by side is no strip.
func TestSVGShape(t *testing.T) {
	g := New[int]()
	for i := range 1000 {
		g.AddVertex(i)
	}
	root, err := g.layoutOf(&Drawing[int]{Title: "flat"})
	if err != nil {
		t.Fatal(err)
	}
	if root.w > 4*root.h || root.h > 4*root.w {
		t.Errorf("%d x %d", root.w, root.h)
	}
	checkDrawing(t, layered(300), Drawing[int]{Title: "layered"})
	var b bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&b, "a%d > a%d;", i+1, i)
	}
	checkDrawing(t, parse(strings.TrimSuffix(b.String(), ";")), Drawing[string]{Title: "a chain"})
}
