package placement

import (
	"math/bits"
	"slices"
)

// Choose says which node a group should go to for a reason (WhyFirstStart,
// WhyFailover, WhyFailback, WhyDrain, WhyMove, WhyNotPossible), with all other
// groups where they are. to is "" when there is none, and why then says what
// is in the way; else why is the reason.
//
// The candidates are the preferred owners in order, then the other possible
// owners in node order. A first start, a failback and a move without a target
// ("best possible") take the head, or what comes nearest to it; all others
// take the next after the present owner, round and round. Skipped are nodes
// that are not up, paused, witnesses, spares (unless no primary is left),
// without room, or kept apart (softly: unless only such are left). A group
// without preferred owners takes the node with most room, then the one with
// the fewest groups, then the first by name.
func Choose(in Input, group, reason string) (to, why string) {
	b := Compile(in)
	b.reset(nil)
	for i := range b.groups {
		if b.groups[i].Spec.Name == group {
			n, why := b.choose(i, reason)
			if n == none {
				return "", why
			}
			return b.nodes[n].Spec.Name, why
		}
	}
	return "", WhyNoNode
}

// choose is Choose on the board as it is. The group itself takes no room
// while it looks around.
func (b *Board) choose(g int, reason string) (int, string) {
	here := b.at[g]
	b.lift(g)
	defer func() {
		if here != none {
			b.place(g, here)
		}
	}()
	if reason == WhyFailback {
		return b.chooseHome(g, here)
	}
	best, bestTier, why := none, 0, WhyNoNode
	for _, n := range b.candidates(g, reason) {
		tier, not := b.fits(g, n)
		if not != "" {
			why = nearer(why, not)
			continue
		}
		if best == none || tier < bestTier || tier == bestTier && len(b.preferred[g]) == 0 && b.roomier(g, n, best) {
			best, bestTier = n, tier
		}
	}
	if best == none {
		return none, why
	}
	return best, reason
}

// candidates lists the nodes to look at, best first.
func (b *Board) candidates(g int, reason string) []int {
	ring := b.ring(g)
	if reason == WhyFirstStart {
		return ring
	}
	grp := &b.groups[g]
	if reason == WhyMove {
		if here, ok := b.byNode[grp.Owner]; ok {
			return slices.DeleteFunc(slices.Clone(ring), func(n int) bool { return n == here })
		}
	}
	name := grp.Owner
	if name == "" {
		name = grp.Last
	}
	present, known := b.byNode[name]
	out := make([]int, 0, len(ring))
	for i, n := range ring {
		if known && n == present {
			out = append(append(out, ring[i+1:]...), ring[:i]...)
			if grp.Owner == "" || reason == WhyShed { // it may be the only one left, and up again, or have room again
				out = append(out, n)
			}
			return out
		}
	}
	return ring
}

// chooseHome finds a preferred owner that comes before the present one; for a
// group without preferred owners, the node that failure took it from. A spare,
// and a node with what it is softly kept apart from, is a home only for one that
// is on no better place: it would be sent away from there again.
func (b *Board) chooseHome(g, here int) (int, string) {
	why := WhyNoNode
	homes := b.preferred[g]
	if len(homes) == 0 {
		if n, ok := b.byNode[b.groups[g].Home]; ok && b.possible[g][n] {
			homes = []int{n}
		}
	}
	for _, n := range homes {
		if n == here {
			break
		}
		if slices.Contains(b.groups[g].NoHome, b.nodes[n].Spec.Name) {
			continue
		}
		tier, not := b.fits(g, n)
		if not == "" && (here == none || tier <= b.tier(g, here)) {
			return n, WhyFailback
		}
		why = nearer(why, not)
	}
	return none, why
}

// fits tells whether g could go to n, in which tier (the lower the better), or
// what is in the way.
func (b *Board) fits(g, n int) (tier int, not string) {
	node := &b.nodes[n]
	if !b.up[n] || node.Paused || node.Drained || node.Quarantined || !b.possible[g][n] {
		return 0, WhyNoNode
	}
	if !b.hasRoom(g, n) {
		return 0, WhyNoRoom
	}
	for _, other := range b.apart[g] {
		if b.at[other] == n {
			return 0, WhyApart
		}
	}
	return b.tier(g, n), ""
}

// tier is the lower, the better a place n is for g, whatever it prefers.
func (b *Board) tier(g, n int) (tier int) {
	if b.nodes[n].Spec.Spare { // owns nothing while a primary can
		tier += 2
	}
	for _, other := range b.soft[g] {
		if b.at[other] == n {
			return tier + 1
		}
	}
	return tier
}

func (b *Board) hasRoom(g, n int) bool {
	for k, d := range b.demand[g] {
		if d > 0 && b.capacity[n][k] != unlimited && b.capacity[n][k]-b.used[n][k] < d {
			return false
		}
	}
	return true
}

// roomier tells whether n is a better place than m for a group that has no
// preferred owners: most room left with it, then fewest groups, then name.
func (b *Board) roomier(g, n, m int) bool {
	if x, y := b.room(g, n), b.room(g, m); x != y {
		return x > y
	}
	if x, y := len(b.here[n]), len(b.here[m]); x != y {
		return x < y
	}
	return b.nodes[n].Spec.Name < b.nodes[m].Spec.Name
}

// room is the smallest share, in millionths, that would be left free at n of
// what g asks for. Integers only: every machine gets the same.
func (b *Board) room(g, n int) uint64 {
	const whole = 1_000_000
	least := uint64(whole)
	for k, d := range b.demand[g] {
		c := b.capacity[n][k]
		if d <= 0 || c == unlimited || c <= 0 {
			continue
		}
		free := max(c-b.used[n][k]-d, 0)
		hi, lo := bits.Mul64(uint64(free), whole)
		share, _ := bits.Div64(hi, lo, uint64(c))
		least = min(least, share)
	}
	return least
}

// nearer keeps the obstacle that came last on the way to a place: it says most.
func nearer(a, b string) string {
	order := func(s string) int {
		switch s {
		case WhyApart:
			return 2
		case WhyNoRoom:
			return 1
		}
		return 0
	}
	if order(b) > order(a) {
		return b
	}
	return a
}
