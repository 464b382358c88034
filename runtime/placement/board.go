package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Board is an Input prepared for many questions: the failure matrix asks one
// for each row. It keeps scratch space, so one goroutine uses it at a time.
type Board struct {
	nodes  []Node  // in node order
	places []int   // of the input's nodes in there
	groups []Group // in the input's order
	byNode map[string]int

	rings     [][]int   // a group's candidates (see ring), once they were asked for
	preferred [][]int   // a group's preferred owners as node indices, in order
	possible  [][]bool  // group x node
	apart     [][]int   // groups that a group is kept apart from, both ways
	soft      [][]int   // the same, softly
	deps      [][]int   // groups that a group depends on
	rank      []int     // effective priority: the highest of a group's own and its dependents'
	order     []int     // groups as they are placed: rank falling, dependencies first, then by name
	capacity  [][]int64 // node x dimension; unlimited where a node states none
	demand    [][]int64 // group x dimension

	// Of the settlement under way.
	up      []bool
	used    [][]int64
	at      []int   // a group's node, none without
	here    [][]int // the groups at a node, in no order
	slot    []int   // a group's place in its node's list
	settled []bool
	out     []Outcome
}

const (
	none      = -1
	unlimited = math.MaxInt64
)

// Compile prepares an input, and keeps its Groups. Names that nothing has are
// ignored: the semantic rules have refused them long before.
func Compile(in Input) *Board {
	b := &Board{nodes: slices.Clone(in.Nodes), places: make([]int, len(in.Nodes)), groups: in.Groups, byNode: make(map[string]int, len(in.Nodes))}
	slices.SortStableFunc(b.nodes, func(x, y Node) int {
		return cmp.Or(addr.Compare(x.Spec.Addr, y.Spec.Addr), cmp.Compare(x.Spec.Name, y.Spec.Name))
	})
	for i, n := range b.nodes {
		b.byNode[n.Spec.Name] = i
	}
	for i := range in.Nodes {
		b.places[i] = b.byNode[in.Nodes[i].Spec.Name]
	}
	byGroup := make(map[string]int, len(b.groups))
	for i := range b.groups {
		byGroup[b.groups[i].Spec.Name] = i
	}
	n, g := len(b.nodes), len(b.groups)
	b.rings, b.preferred, b.possible = make([][]int, g), make([][]int, g), make([][]bool, g)
	b.apart, b.soft, b.deps = make([][]int, g), make([][]int, g), make([][]int, g)
	every := make([]bool, n) // what a group may own that names no possible owners
	for j := range b.nodes {
		every[j] = !b.nodes[j].Spec.Witness()
	}
	for i := range b.groups {
		gs := &b.groups[i].Spec
		b.possible[i] = every
		if len(gs.PossibleOwners) > 0 {
			b.possible[i] = make([]bool, n)
			for _, name := range gs.PossibleOwners {
				if j, ok := b.byNode[name]; ok {
					b.possible[i][j] = every[j]
				}
			}
		}
		for _, name := range gs.PreferredOwners {
			if j, ok := b.byNode[name]; ok && b.possible[i][j] && !slices.Contains(b.preferred[i], j) {
				if b.preferred[i] == nil {
					b.preferred[i] = make([]int, 0, len(gs.PreferredOwners))
				}
				b.preferred[i] = append(b.preferred[i], j)
			}
		}
		both := func(to [][]int, names []string) {
			for _, name := range names {
				if k, ok := byGroup[name]; ok && k != i {
					to[i], to[k] = append(to[i], k), append(to[k], i)
				}
			}
		}
		both(b.apart, gs.KeepApart)
		both(b.soft, gs.KeepApartSoft)
		for _, name := range gs.DependsOn {
			if k, ok := byGroup[name]; ok && k != i {
				b.deps[i] = append(b.deps[i], k)
			}
		}
	}
	b.rankGroups()
	b.measure()
	b.up = make([]bool, n)
	b.at, b.settled, b.out = make([]int, g), make([]bool, g), make([]Outcome, g)
	b.here, b.slot = make([][]int, n), make([]int, g)
	b.used = make([][]int64, n)
	for i := range b.used {
		b.used[i] = make([]int64, len(b.capacity[i]))
	}
	return b
}

// ring is a group's candidates as node indices: the preferred owners in order,
// then the other possible owners in node order.
func (b *Board) ring(g int) []int {
	if b.rings[g] == nil {
		ring := append(make([]int, 0, len(b.nodes)), b.preferred[g]...)
		for j, may := range b.possible[g] {
			if may && !slices.Contains(b.preferred[g], j) {
				ring = append(ring, j)
			}
		}
		b.rings[g] = ring
	}
	return b.rings[g]
}

// Node is the i-th node of the input. What is known of it may be changed before
// the next Settle; its Spec may not.
func (b *Board) Node(i int) *Node { return &b.nodes[b.places[i]] }

// Group is the i-th group of the input, likewise.
func (b *Board) Group(i int) *Group { return &b.groups[i] }

// rankGroups works out the order of placement. A dependency counts at least
// as much as what depends on it, else a group of high priority would wait for
// one that got no room.
func (b *Board) rankGroups() {
	b.rank = make([]int, len(b.groups))
	depth := make([]int, len(b.groups)) // longest way down the dependencies
	state := make([]byte, len(b.groups))
	post := make([]int, 0, len(b.groups)) // dependencies before dependents
	var visit func(i int)
	visit = func(i int) {
		state[i] = 1
		for _, d := range b.deps[i] {
			if state[d] == 0 {
				visit(d)
			}
			if state[d] == 2 { // 1 would be a cycle: refused by validate, harmless here
				depth[i] = max(depth[i], depth[d]+1)
			}
		}
		state[i] = 2
		post = append(post, i)
	}
	for i := range b.groups {
		b.rank[i] = b.groups[i].Spec.Priority
		if state[i] == 0 {
			visit(i)
		}
	}
	for _, i := range slices.Backward(post) {
		for _, d := range b.deps[i] {
			b.rank[d] = max(b.rank[d], b.rank[i])
		}
	}
	b.order = make([]int, len(b.groups))
	for i := range b.order {
		b.order[i] = i
	}
	slices.SortFunc(b.order, func(x, y int) int {
		return cmp.Or(cmp.Compare(b.rank[y], b.rank[x]), cmp.Compare(depth[x], depth[y]),
			cmp.Compare(b.groups[y].Spec.Priority, b.groups[x].Spec.Priority),
			addr.Compare(b.groups[x].Spec.Addr, b.groups[y].Spec.Addr),
			cmp.Compare(b.groups[x].Spec.Name, b.groups[y].Spec.Name))
	})
}

// measure turns demands and capacities into rows of numbers.
func (b *Board) measure() {
	seen := map[string]bool{}
	var keys []string
	for i := range b.groups {
		for k, d := range b.groups[i].Spec.Demand {
			if d > 0 && !seen[k] {
				seen[k] = true
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	b.demand, b.capacity = make([][]int64, len(b.groups)), make([][]int64, len(b.nodes))
	rows := make([]int64, len(b.groups)*len(keys))
	for i := range b.groups {
		b.demand[i], rows = rows[:len(keys):len(keys)], rows[len(keys):]
		if len(b.groups[i].Spec.Demand) == 0 {
			continue
		}
		for k, key := range keys {
			b.demand[i][k] = b.groups[i].Spec.Demand[key]
		}
	}
	for i := range b.nodes {
		b.capacity[i] = make([]int64, len(keys))
		for k, key := range keys {
			c, stated := b.nodes[i].Spec.Capacity[key]
			if !stated {
				c = unlimited
			}
			b.capacity[i][k] = c
		}
	}
}

// reset puts every group where it is, with the named nodes down as well.
func (b *Board) reset(down []string) {
	for i := range b.nodes {
		b.up[i] = b.nodes[i].Up && !slices.Contains(down, b.nodes[i].Spec.Name)
		b.here[i] = b.here[i][:0]
		clear(b.used[i])
	}
	for i := range b.groups {
		b.at[i], b.settled[i] = none, false
		g := &b.groups[i]
		b.out[i] = Outcome{Group: g.Spec.Name, From: g.Owner}
		// What failed holds its place until it leaves: it may have to stay.
		if n, ok := b.byNode[g.Owner]; ok && b.up[n] && b.wanted(g) {
			b.place(i, n)
		}
	}
}

func (b *Board) wanted(g *Group) bool {
	if g.Want == "" {
		return g.Spec.PersistentState != spec.WantOffline
	}
	return g.Want == spec.WantOnline
}

func (b *Board) place(g, n int) {
	b.at[g], b.slot[g] = n, len(b.here[n])
	b.here[n] = append(b.here[n], g)
	for k, d := range b.demand[g] {
		b.used[n][k] += d
	}
}

func (b *Board) lift(g int) {
	n := b.at[g]
	if n == none {
		return
	}
	b.at[g] = none
	list := b.here[n]
	last := list[len(list)-1]
	list[b.slot[g]], b.slot[last] = last, b.slot[g]
	b.here[n] = list[:len(list)-1]
	for k, d := range b.demand[g] {
		b.used[n][k] -= d
	}
}
