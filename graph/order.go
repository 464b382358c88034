package graph

// sorted holds the dependencies of all vertices in one array, each vertex's in
// vertex order, whatever the order of AddEdge was: to[at[i]:at[i+1]].
type sorted struct {
	at []int32
	to []int32
}

func (s *sorted) of(i int32) []int32 { return s.to[s.at[i]:s.at[i+1]] }

// sort makes that in linear time: walking the targets in order and handing
// each to its dependents leaves every dependent's list in order.
func (g *Graph[K]) sort() sorted {
	n := len(g.keys)
	s := sorted{at: make([]int32, n+1), to: make([]int32, len(g.edges))}
	for i := range n {
		s.at[i+1] = s.at[i] + int32(len(g.out[i]))
	}
	fill := append([]int32(nil), s.at[:n]...)
	for t := range n {
		for _, h := range g.in[t] {
			s.to[fill[h.other]] = int32(t)
			fill[h.other]++
		}
	}
	return s
}

// walk visits depth first in vertex order, without recursion, so that a chain
// of a million vertices needs no stack. It calls done for each vertex after all
// that it depends on, and stops at the first cycle, which it returns.
func (s *sorted) walk(n int, done func(int32)) (cycle []int32) {
	const (
		unseen = iota
		open
		closed
	)
	state := make([]uint8, n)
	next := append([]int32(nil), s.at[:n]...)
	var path []int32
	for root := range int32(n) {
		if state[root] != unseen {
			continue
		}
		path = append(path[:0], root)
		state[root] = open
		for len(path) > 0 {
			at := path[len(path)-1]
			if next[at] == s.at[at+1] {
				state[at] = closed
				done(at)
				path = path[:len(path)-1]
				continue
			}
			to := s.to[next[at]]
			next[at]++
			switch state[to] {
			case unseen:
				state[to] = open
				path = append(path, to)
			case open:
				for i, v := range path {
					if v == to {
						return path[i:]
					}
				}
			}
		}
	}
	return nil
}

// Cycle returns the vertices of one cycle, each of which depends on the next
// and the last on the first; nil where there is none. It begins with the vertex
// of it that was added first.
func (g *Graph[K]) Cycle() []K {
	s := g.sort()
	return g.named(s.walk(len(g.keys), func(int32) {}))
}

func (g *Graph[K]) named(cycle []int32) []K {
	if cycle == nil {
		return nil
	}
	first := 0
	for i, v := range cycle {
		if v < cycle[first] {
			first = i
		}
	}
	keys := make([]K, 0, len(cycle))
	for i := range cycle {
		keys = append(keys, g.keys[cycle[(first+i)%len(cycle)]])
	}
	return keys
}

// Order is every vertex, each after all that it depends on. It is stable: it
// does not depend on the order of AddEdge, and where the order of AddVertex
// will do already, it is that. The error is a *CycleError.
func (g *Graph[K]) Order() ([]K, error) {
	order, err := g.order()
	if err != nil {
		return nil, err
	}
	keys := make([]K, len(order))
	for i, v := range order {
		keys[i] = g.keys[v]
	}
	return keys, nil
}

func (g *Graph[K]) order() ([]int32, error) {
	s := g.sort()
	order := make([]int32, 0, len(g.keys))
	if c := s.walk(len(g.keys), func(v int32) { order = append(order, v) }); c != nil {
		return nil, &CycleError[K]{Cycle: g.named(c)}
	}
	return order, nil
}

// Reduce is the transitive reduction: a new graph with the same vertices and
// the fewest of its edges that say the same. A soft edge goes where any other
// way leads there; a hard one only where a way of hard edges does, so that what
// a failure skips stays the same. The error is a *CycleError.
//
// Cost: no algorithm is known that is linear for every graph. This one looks
// only for the targets of edges that skip a level (the longest way down counts
// the levels), not below them, and no further than it takes to find them. A
// graph in few layers, as definitions make them, costs about a pass over its
// edges for each level; the worst case is vertices times edges.
func (g *Graph[K]) Reduce() (*Graph[K], error) {
	order, err := g.order()
	if err != nil {
		return nil, err
	}
	level := make([]int32, len(g.keys))
	for _, v := range order {
		for _, h := range g.out[v] {
			level[v] = max(level[v], level[h.other]+1)
		}
	}
	r := New[K]()
	for _, k := range g.keys {
		r.AddVertex(k)
	}
	x := explorer{mark: make([]int32, len(g.keys)), want: make([]int32, len(g.keys))}
	for i := range g.keys {
		v := int32(i)
		for _, kind := range []Kind{Soft, Hard} {
			g.explore(&x, v, kind, level)
			for _, h := range g.out[v] {
				if e := g.edges[pair(v, h.other)]; e == kind && x.mark[h.other] != x.now {
					r.AddEdge(g.keys[v], g.keys[h.other], e)
				}
			}
		}
	}
	return r, nil
}

// explorer marks what was reached, and what it looks for: mark[v] == now.
type explorer struct {
	mark  []int32
	want  []int32
	now   int32
	stack []int32
}

// explore marks what v reaches over two or more edges of at least the kind,
// until it has found all of v's own edges of the kind that skip a level.
func (g *Graph[K]) explore(x *explorer, v int32, kind Kind, level []int32) {
	x.now++
	x.stack = x.stack[:0]
	missing, low := 0, level[v]
	for _, h := range g.out[v] {
		if l := level[h.other]; l < level[v]-1 && g.edges[pair(v, h.other)] == kind {
			x.want[h.other] = x.now
			missing++
			low = min(low, l)
		}
	}
	if missing == 0 {
		return
	}
	for _, h := range g.out[v] {
		if level[h.other] > low && g.edges[pair(v, h.other)] >= kind {
			x.stack = append(x.stack, h.other)
		}
	}
	// First steps are not marked themselves: only a second way makes an edge
	// needless. One that is reached again is marked then, and walked twice at most.
	for len(x.stack) > 0 {
		at := x.stack[len(x.stack)-1]
		x.stack = x.stack[:len(x.stack)-1]
		for _, h := range g.out[at] {
			if x.mark[h.other] == x.now || level[h.other] < low || g.edges[pair(at, h.other)] < kind {
				continue
			}
			x.mark[h.other] = x.now
			if x.want[h.other] == x.now {
				if missing--; missing == 0 {
					return
				}
			}
			if level[h.other] > low {
				x.stack = append(x.stack, h.other)
			}
		}
	}
}
