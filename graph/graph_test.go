package graph

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// parse builds a graph from lines: "a" a vertex, "a > b" hard, "a ~ b" soft.
func parse(text string) *Graph[string] {
	g := New[string]()
	for _, l := range strings.Split(text, ";") {
		switch f := strings.Fields(l); len(f) {
		case 1:
			g.AddVertex(f[0])
		case 3:
			g.AddEdge(f[0], f[2], map[string]Kind{">": Hard, "~": Soft}[f[1]])
		}
	}
	return g
}

func print(g *Graph[string]) string {
	var b []string
	for k := range g.Vertices() {
		b = append(b, k)
	}
	for k := range g.Vertices() {
		for to, kind := range g.Dependencies(k) {
			b = append(b, k+map[Kind]string{Hard: " > ", Soft: " ~ "}[kind]+to)
		}
	}
	return strings.Join(b, "; ")
}

func TestOrder(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"a; b; c", "a b c"},
		{"a; b; c; c > b; b > a", "a b c"},
		{"a > b; b > c", "c b a"},
		{"a; b; c; a ~ c; a > b", "b c a"},
		{"cluster; n1; n2; web; web > cluster; cluster ~ n2; cluster ~ n1", "n1 n2 cluster web"},
	} {
		got, err := parse(c.in).Order()
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: order %v, %v; want %s", c.in, got, err, c.want)
		}
	}
}

func TestCycle(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a > b; b > c", ""},
		{"a > a", "a"},
		{"x; a > b; b ~ c; c > a; x > a", "a b c"},
		{"a; b; c; c > b; b > c; a > c", "b c"},
	} {
		g := parse(c.in)
		if got := strings.Join(g.Cycle(), " "); got != c.want {
			t.Errorf("%q: cycle %q, want %q", c.in, got, c.want)
		}
		_, err := g.Order()
		var ce *CycleError[string]
		if is := errors.As(err, &ce); is != (c.want != "") {
			t.Errorf("%q: order's error %v", c.in, err)
		}
		if _, err2 := g.Reduce(); fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Errorf("%q: reduce's error %v, order's %v", c.in, err2, err)
		}
	}
	_, err := parse("a > b; b > a").Order()
	if got, want := fmt.Sprint(err), "cycle: a -> b -> a"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReduce(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a > b; b > c; a > c", "a; b; c; a > b; b > c"},
		{"a ~ b; b > c; a > c", "a; b; c; a ~ b; a > c; b > c"}, // a failure of c has to skip a
		{"a ~ b; b > c; a ~ c", "a; b; c; a ~ b; b > c"},
		{"a > b; b > c; a ~ c", "a; b; c; a > b; b > c"},
		{"a > b; a > c; b > d; c > d; a > d", "a; b; c; d; a > b; a > c; b > d; c > d"},
		{"a > b; b > c; c > d; a > d; a > c; b ~ d", "a; b; c; d; a > b; b > c; c > d"},
	} {
		r, err := parse(c.in).Reduce()
		if err != nil {
			t.Fatal(err)
		}
		if got := print(r); !slices.Equal(sortedEdges(got), sortedEdges(c.want)) {
			t.Errorf("%q: reduced to %q, want %q", c.in, got, c.want)
		}
	}
}

func sortedEdges(s string) []string { f := strings.Split(s, "; "); slices.Sort(f); return f }

func TestNeighbours(t *testing.T) {
	g := parse("g > n; g ~ m; m > c; n > c; h ~ c; x")
	g.AddEdge("g", "m", Hard) // the stronger kind stays
	g.AddEdge("g", "n", Soft)
	if k, ok := g.Edge("g", "m"); k != Hard || !ok {
		t.Errorf("g -> m is %v, %v", k, ok)
	}
	if k, ok := g.Edge("g", "n"); k != Hard || !ok {
		t.Errorf("g -> n is %v, %v", k, ok)
	}
	if _, ok := g.Edge("n", "g"); ok || g.Edges() != 5 || g.Len() != 6 {
		t.Errorf("%d edges, %d vertices, n -> g %v", g.Edges(), g.Len(), ok)
	}
	for _, c := range []struct {
		got  []string
		want string
	}{
		{g.AllDependencies(Soft, "g"), "n m c"},
		{g.AllDependencies(Hard, "h"), ""},
		{g.AllDependents(Soft, "c"), "g n m h"},
		{g.AllDependents(Hard, "c"), "g n m"},
		{g.AllDependents(Hard, "nobody", "x"), ""},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if diff := cmp.Diff(sortedEdges("g; n; m; c; h; x; n > g; m > g; c > m; c > n; c ~ h"), sortedEdges(print(g.Reverse()))); diff != "" {
		t.Error(diff)
	}
}

func TestDraw(t *testing.T) {
	g := New[string]()
	g.AddEdge(`node.n["a"]`, "cluster", Hard)
	g.AddEdge(`node.n["a"]`, `c\d`, Soft)
	wantDOT := `digraph "my \"lab\"" {
  rankdir = "RL"
  node [shape = "box"]
  v0 [label = "node.n[\"a\"]"]
  v1 [label = "cluster"]
  v2 [label = "c\\d"]
  v0 -> v1
  v0 -> v2 [style = "dashed"]
}
`
	if diff := cmp.Diff(wantDOT, g.DOT(`my "lab"`, nil)); diff != "" {
		t.Error(diff)
	}
	wantMermaid := `flowchart RL
  v0["#lt;node.n[#quot;a#quot;]#gt;"]
  v1["#lt;cluster#gt;"]
  v2["#lt;c\d#gt;"]
  v0 --> v1
  v0 -.-> v2
`
	if diff := cmp.Diff(wantMermaid, g.Mermaid(func(k string) string { return "<" + k + ">" })); diff != "" {
		t.Error(diff)
	}
}

// check holds what is true of every graph, against slow and simple answers.
func check(t interface{ Fatalf(string, ...any) }, g *Graph[int]) {
	reach := func(g *Graph[int], from, to int, kind Kind) bool {
		return slices.Contains(g.AllDependencies(kind, from), to)
	}
	cycle := g.Cycle()
	for i, k := range cycle {
		if _, ok := g.Edge(k, cycle[(i+1)%len(cycle)]); !ok {
			t.Fatalf("no cycle: %v", cycle)
		}
	}
	order, err := g.Order()
	if (err != nil) != (cycle != nil) {
		t.Fatalf("order's error %v, cycle %v", err, cycle)
	}
	if rr := g.Reverse().Reverse(); !equal(g, rr) {
		t.Fatalf("reversed twice, another graph")
	}
	if cycle != nil {
		return
	}
	at := map[int]int{}
	for i, k := range order {
		at[k] = i
	}
	if len(at) != g.Len() {
		t.Fatalf("order has %d of %d vertices", len(at), g.Len())
	}
	// Stable: built again in its own order, it has that order.
	again := New[int]()
	for _, k := range order {
		again.AddVertex(k)
	}
	for k := range g.Vertices() {
		for to, kind := range g.Dependencies(k) {
			if at[to] >= at[k] {
				t.Fatalf("%d stands before %d, which it depends on", k, to)
			}
			again.AddEdge(k, to, kind)
		}
	}
	if o, _ := again.Order(); !slices.Equal(o, order) {
		t.Fatalf("order %v is %v when built in it", order, o)
	}
	r, _ := g.Reduce()
	for a := range g.Vertices() {
		for b := range g.Vertices() {
			for _, kind := range []Kind{Soft, Hard} {
				if reach(g, a, b, kind) != reach(r, a, b, kind) {
					t.Fatalf("%d to %d over %v edges differs after the reduction", a, b, kind)
				}
			}
		}
	}
	for a := range r.Vertices() {
		for b, kind := range r.Dependencies(a) {
			if k, ok := g.Edge(a, b); !ok || k != kind {
				t.Fatalf("the reduction made %d -> %d %v", a, b, kind)
			}
			for c, k := range r.Dependencies(a) {
				if c != b && k >= kind && reach(r, c, b, kind) {
					t.Fatalf("%d -> %d is left though %d -> %d leads there", a, b, a, c)
				}
			}
		}
	}
}

func equal(a, b *Graph[int]) bool {
	if a.Len() != b.Len() || a.Edges() != b.Edges() || !slices.Equal(slices.Collect(a.Vertices()), slices.Collect(b.Vertices())) {
		return false
	}
	for k := range a.Vertices() {
		for to, kind := range a.Dependencies(k) {
			if k2, ok := b.Edge(k, to); !ok || k2 != kind {
				return false
			}
		}
	}
	return true
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 14).Draw(t, "vertices")
		acyclic := rapid.Bool().Draw(t, "acyclic")
		g := New[int]()
		for _, k := range rapid.Permutation(seq(n)).Draw(t, "order") {
			g.AddVertex(k)
		}
		for range rapid.IntRange(0, 3*n).Draw(t, "edges") {
			a, b := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
			if acyclic && a == b {
				continue
			} else if acyclic {
				a, b = max(a, b), min(a, b)
			}
			g.AddEdge(a, b, Kind(rapid.IntRange(0, 1).Draw(t, "kind")))
		}
		check(t, g)
	})
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func FuzzEdges(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x10, 0x21, 0x20})
	f.Add([]byte{0x11})
	f.Add([]byte{0x10, 0x01, 0x32, 0x3f})
	f.Fuzz(func(t *testing.T, data []byte) {
		g := New[int]()
		for i, b := range data[:min(len(data), 64)] {
			g.AddEdge(int(b>>4), int(b&15), Kind(i&1))
		}
		check(t, g)
	})
}

// A chain must not need the stack, and a comb must not cost its square.
func TestLarge(t *testing.T) {
	const n = 50_000
	g := New[int]()
	for i := range n {
		g.AddEdge(i, i+1, Hard)
		g.AddEdge(i, n, Soft)
	}
	r, err := g.Reduce()
	if err != nil || r.Edges() != n {
		t.Fatalf("%d edges left, %v", r.Edges(), err)
	}
}

// layered is the shape of a definition: groups hang on all nodes, nodes and
// groups on the cluster, each group on the one before it now and then.
func layered(n int) *Graph[int] {
	g := New[int]()
	g.AddVertex(0)
	for i := 1; i < n; i++ {
		g.AddEdge(i, 0, Hard)
		if i > 16 {
			for k := 1; k <= 8; k++ {
				g.AddEdge(i, k, Soft)
			}
			if i%3 == 0 {
				g.AddEdge(i, i-1, Hard)
			}
		}
	}
	return g
}

func Benchmark(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		g := layered(n)
		b.Run(fmt.Sprintf("build/%d", n), func(b *testing.B) {
			for b.Loop() {
				layered(n)
			}
		})
		b.Run(fmt.Sprintf("order/%d", n), func(b *testing.B) {
			for b.Loop() {
				g.Order()
			}
		})
		b.Run(fmt.Sprintf("reduce/%d", n), func(b *testing.B) {
			for b.Loop() {
				g.Reduce()
			}
		})
		b.Run(fmt.Sprintf("dot/%d", n), func(b *testing.B) {
			for b.Loop() {
				g.DOT("g", nil)
			}
		})
	}
}
