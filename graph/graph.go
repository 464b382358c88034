// Package graph is a directed acyclic graph over comparable keys: who depends
// on whom, in which order things can be done, and what hangs on what.
//
// An edge runs from what depends to what it depends on: AddEdge(group, node,
// Hard) says that the group needs the node. Order puts dependencies first.
//
// Edges are of two kinds. A hard edge says that the dependent can't be done
// when its dependency fails; a soft edge orders the two and nothing else. Two
// edges between the same vertices are one, and hard if either was.
//
// Vertices have the order in which they were added, and everything that is
// told of a graph follows it: the same calls give the same answers, byte for
// byte. All of it is linear in vertices and edges, but for Reduce, whose cost
// stands there. The package is pure: it imports the standard library only, has
// no goroutines and no effects. A Graph may be read by many at once while
// nobody adds to it. The walk in parallel is planner/apply's.
package graph

import (
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
)

// Kind of an edge.
type Kind uint8

const (
	Soft Kind = iota // orders only
	Hard             // orders, and a failure skips what depends
)

// String is "soft" or "hard".
func (k Kind) String() string {
	if k == Hard {
		return "hard"
	}
	return "soft"
}

// Graph of keys K. The zero value is empty and ready to use.
type Graph[K comparable] struct {
	slots []int32 // where the keys are, from 1, by their hashes: a map would hold every key, which may be large, once more
	keys  []K
	out   [][]half        // to dependencies
	in    [][]half        // to dependents
	edges map[uint64]Kind // by pair
}

// pair is an edge as one number, which a map hashes fastest.
func pair(from, to int32) uint64 { return uint64(uint32(from))<<32 | uint64(uint32(to)) }

// half is an edge as one of its ends sees it. Its kind is kept in edges, the
// only place where it can change.
type half struct {
	other int32
}

// New returns an empty graph.
func New[K comparable]() *Graph[K] { return new(Graph[K]) }

// Grow makes room for n vertices, so that adding them moves none.
func (g *Graph[K]) Grow(n int) {
	if g.edges == nil {
		g.edges = make(map[uint64]Kind, n)
	}
	g.room(len(g.keys) + n)
	g.keys, g.out, g.in = slices.Grow(g.keys, n), slices.Grow(g.out, n), slices.Grow(g.in, n)
}

// AddVertex adds k and tells whether it was new.
func (g *Graph[K]) AddVertex(k K) bool {
	n := len(g.keys)
	g.vertex(k)
	return len(g.keys) > n
}

func (g *Graph[K]) vertex(k K) int32 {
	if i, ok := g.find(k); ok {
		return i
	}
	if g.edges == nil {
		g.edges = make(map[uint64]Kind)
	}
	i := int32(len(g.keys))
	g.room(len(g.keys) + 1)
	g.keys = append(g.keys, k)
	g.slots[g.slot(k)] = i + 1
	g.out = append(g.out, nil)
	g.in = append(g.in, nil)
	return i
}

// find is the number of k. False: it is no vertex.
func (g *Graph[K]) find(k K) (int32, bool) {
	if len(g.slots) == 0 {
		return 0, false
	}
	i := g.slots[g.slot(k)] - 1
	return i, i >= 0
}

// slot is where k is, or would be.
func (g *Graph[K]) slot(k K) int {
	mask := len(g.slots) - 1
	for i := int(maphash.Comparable(seed, k)) & mask; ; i = (i + 1) & mask {
		if at := g.slots[i]; at == 0 || g.keys[at-1] == k {
			return i
		}
	}
}

// room makes the slots be enough for n keys: a power of two, at least a quarter of
// them free.
func (g *Graph[K]) room(n int) {
	size := max(len(g.slots), 8)
	for size*3/4 < n {
		size *= 2
	}
	if size == len(g.slots) {
		return
	}
	g.slots = make([]int32, size)
	for i, k := range g.keys {
		g.slots[g.slot(k)] = int32(i) + 1
	}
}

var seed = maphash.MakeSeed()

// AddEdge says that from depends on to, and adds either where it is missing.
func (g *Graph[K]) AddEdge(from, to K, kind Kind) {
	f, t := g.vertex(from), g.vertex(to)
	e := pair(f, t)
	old, ok := g.edges[e]
	if !ok {
		g.out[f] = append(g.out[f], half{t})
		g.in[t] = append(g.in[t], half{f})
	}
	g.edges[e] = max(old, kind)
}

// Len is the number of vertices.
func (g *Graph[K]) Len() int { return len(g.keys) }

// Edges is the number of edges.
func (g *Graph[K]) Edges() int { return len(g.edges) }

// Has tells whether k is a vertex.
func (g *Graph[K]) Has(k K) bool { _, ok := g.find(k); return ok }

// Edge tells whether from depends directly on to, and how.
func (g *Graph[K]) Edge(from, to K) (Kind, bool) {
	f, ok1 := g.find(from)
	t, ok2 := g.find(to)
	if !ok1 || !ok2 {
		return Soft, false
	}
	k, ok := g.edges[pair(f, t)]
	return k, ok
}

// Vertices yields all vertices in the order in which they were added.
func (g *Graph[K]) Vertices() iter.Seq[K] {
	return func(yield func(K) bool) {
		for _, k := range g.keys {
			if !yield(k) {
				return
			}
		}
	}
}

// Dependencies yields what k depends on directly, in the order of AddEdge.
func (g *Graph[K]) Dependencies(k K) iter.Seq2[K, Kind] {
	return func(yield func(K, Kind) bool) {
		i, ok := g.find(k)
		if !ok {
			return
		}
		for _, h := range g.out[i] {
			if !yield(g.keys[h.other], g.edges[pair(i, h.other)]) {
				return
			}
		}
	}
}

// Dependents yields what depends directly on k, in the order of AddEdge.
func (g *Graph[K]) Dependents(k K) iter.Seq2[K, Kind] {
	return func(yield func(K, Kind) bool) {
		i, ok := g.find(k)
		if !ok {
			return
		}
		for _, h := range g.in[i] {
			if !yield(g.keys[h.other], g.edges[pair(h.other, i)]) {
				return
			}
		}
	}
}

// AllDependencies is what the roots depend on, directly or not, over edges of
// at least the given kind (Soft: all edges, Hard: hard ones only). Roots are
// in it only where a root depends on them. In vertex order.
func (g *Graph[K]) AllDependencies(kind Kind, roots ...K) []K {
	return g.reach(kind, roots, g.out, func(at, other int32) uint64 { return pair(at, other) })
}

// AllDependents is what depends on the roots, directly or not, over edges of
// at least the given kind; with Hard it is what a failure of the roots skips.
func (g *Graph[K]) AllDependents(kind Kind, roots ...K) []K {
	return g.reach(kind, roots, g.in, func(at, other int32) uint64 { return pair(other, at) })
}

func (g *Graph[K]) reach(kind Kind, roots []K, next [][]half, edge func(at, other int32) uint64) []K {
	seen := make([]bool, len(g.keys))
	var stack []int32
	for _, k := range roots {
		if i, ok := g.find(k); ok {
			stack = append(stack, i)
		}
	}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, h := range next[at] {
			if !seen[h.other] && g.edges[edge(at, h.other)] >= kind {
				seen[h.other] = true
				stack = append(stack, h.other)
			}
		}
	}
	var all []K
	for i, is := range seen {
		if is {
			all = append(all, g.keys[i])
		}
	}
	return all
}

// Reverse is a new graph with every edge turned round, its vertices in the
// same order: what a destroy walks.
func (g *Graph[K]) Reverse() *Graph[K] {
	r := New[K]()
	for _, k := range g.keys {
		r.AddVertex(k)
	}
	for i := range g.keys {
		for _, h := range g.out[i] {
			r.AddEdge(g.keys[h.other], g.keys[i], g.edges[pair(int32(i), h.other)])
		}
	}
	return r
}

// CycleError says that a graph is not acyclic. Each vertex of Cycle depends on
// the next, the last on the first.
type CycleError[K comparable] struct{ Cycle []K }

func (e *CycleError[K]) Error() string {
	var b strings.Builder
	b.WriteString("cycle: ")
	for _, k := range e.Cycle {
		fmt.Fprintf(&b, "%v -> ", k)
	}
	fmt.Fprintf(&b, "%v", e.Cycle[0])
	return b.String()
}
