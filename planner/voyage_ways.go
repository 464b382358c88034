package planner

import "slices"

// way is how it may come about: what the apply does not wait for has no moment of
// its own.
type way struct {
	order order
	turn  int // in which order, of those of turns
	back  back
	late  bool // nodes that come are up only once the groups have changed
}

// order is how the nodes of one batch are taken out.
type order int

const (
	together order = iota
	oneByOne       // each is drained while those before it are out
	apart          // each is back before the next one goes
)

// turns are the orders of three nodes.
var turns = [...][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}, {1, 0, 2}, {2, 0, 1}}

// manyMoves is how many nodes to take out times groups, or times themselves, are too
// many to look at more than two orders, for a plan is to take no seconds.
const manyMoves = 5_000

// orders are the ways to take units out, in batches of largest at most.
func orders(largest, units, groups int) []way {
	ways := []way{{}}
	for turn := range turns {
		if largest > 1 && (turn < 2 || largest > 2 && units*max(units, groups) < manyMoves) {
			ways = append(ways, way{order: oneByOne, turn: turn}, way{order: apart, turn: turn})
		}
	}
	return ways
}

// turned is a batch in the order in which its nodes are taken out; of more than three
// there are more orders than are looked at.
func (w way) turned(batch []*Unit) []*Unit {
	out := slices.Clone(batch)
	switch n := len(batch); {
	case n == 3:
		for i, at := range turns[w.turn] {
			out[i] = batch[at]
		}
	default:
		if w.turn%2 == 1 {
			slices.Reverse(out)
		}
		first := w.turn / 2 * n / 3
		out = slices.Concat(out[first:], out[:first])
	}
	return out
}

// back is when groups go back, by their failback policies.
type back int

const (
	atOnce back = iota
	later       // while the next nodes are out
	atEnd
)

// split is the batches as they are taken out.
func (w way) split(batches [][]*Unit) [][]*Unit {
	if w.order != apart {
		return batches
	}
	var out [][]*Unit
	for _, batch := range batches {
		batch = w.turned(batch)
		for i := range batch {
			out = append(out, batch[i:i+1])
		}
	}
	return out
}
