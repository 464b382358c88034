package graph

import (
	"cmp"
	"slices"
)

// at is where an end in a slot stands in its column, to be compared with
// others: by the slot's place, then by how far down in it.
func (s *slot) at(y int) int64 { return int64(s.ord)<<24 + int64(y)<<23/int64(s.h+1) }

// number tells a column's slots their places.
func number(col []*slot) {
	for i, s := range col {
		s.ord = i
	}
}

// untangle orders the columns so that few lines cross: to and fro, each column
// by the mean of what its slots are joined to in the one before, then by
// exchanging neighbours. The best order that was seen stays.
func (c *item) untangle() {
	for _, col := range c.cols {
		number(col)
	}
	lines := 0
	for _, seam := range c.seams {
		lines += len(seam)
	}
	passes := 14
	if lines > 5000 {
		passes = 4 // nobody reads that closely
	}
	fewest, best := c.crossings(), c.order()
	for pass := 0; pass < passes && fewest > 0; pass++ {
		for i := range c.cols {
			if pass%2 == 0 {
				byMean(c.cols[i], true)
			} else {
				byMean(c.cols[len(c.cols)-1-i], false)
			}
		}
		c.exchange()
		if n := c.crossings(); n < fewest {
			fewest, best = n, c.order()
		}
	}
	for i, col := range best {
		copy(c.cols[i], col)
		number(c.cols[i])
	}
}

func (c *item) order() [][]*slot {
	out := make([][]*slot, len(c.cols))
	for i, col := range c.cols {
		out[i] = slices.Clone(col)
	}
	return out
}

// byMean sorts a column; slots that are joined to nothing on that side stay
// where they are.
func byMean(col []*slot, left bool) {
	type entry struct {
		s      *slot
		sum, n int64
	}
	var joined []entry
	var places []int
	for i, s := range col {
		e := entry{s: s}
		if left {
			for _, j := range s.left {
				e.sum += j.b.at(j.by)
			}
			e.n = int64(len(s.left))
		} else {
			for _, j := range s.right {
				e.sum += j.a.at(j.ay)
			}
			e.n = int64(len(s.right))
		}
		if e.n > 0 {
			joined = append(joined, e)
			places = append(places, i)
		}
	}
	for i := range joined {
		joined[i].sum /= joined[i].n
	}
	slices.SortStableFunc(joined, func(a, b entry) int { return cmp.Compare(a.sum, b.sum) })
	for i, e := range joined {
		col[places[i]] = e.s
	}
	number(col)
}

// exchange swaps neighbours while that takes crossings away.
func (c *item) exchange() {
	for better, round := true, 0; better && round < 8; round++ {
		better = false
		for _, col := range c.cols {
			for i := 1; i < len(col); i++ {
				a, b := col[i-1], col[i]
				if pairs := len(a.left)*len(b.left) + len(a.right)*len(b.right); pairs == 0 || pairs > 1<<11 {
					continue // nothing to gain, or too much to look at
				}
				if across(b, a) < across(a, b) {
					col[i-1], col[i] = b, a
					a.ord, b.ord = b.ord, a.ord
					better = true
				}
			}
		}
	}
}

// across is how many lines of a and b cross when a stands just above b.
func across(a, b *slot) (n int) {
	for _, j := range a.left {
		for _, k := range b.left {
			if j.b.at(j.by) > k.b.at(k.by) {
				n++
			}
		}
	}
	for _, j := range a.right {
		for _, k := range b.right {
			if j.a.at(j.ay) > k.a.at(k.ay) {
				n++
			}
		}
	}
	return n
}

// crossings is how many pairs of lines cross among c's kids.
func (c *item) crossings() int {
	total := 0
	for _, seam := range c.seams {
		type ends struct{ b, a int64 }
		lines := make([]ends, len(seam))
		for i, j := range seam {
			lines[i] = ends{j.b.at(j.by), j.a.at(j.ay)}
		}
		slices.SortFunc(lines, func(x, y ends) int { return cmp.Or(cmp.Compare(x.b, y.b), cmp.Compare(x.a, y.a)) })
		right := make([]int64, len(lines))
		for i, l := range lines {
			right[i] = l.a
		}
		total += inversions(right, make([]int64, len(right)))
	}
	return total
}

// inversions sorts v and counts the pairs that stood the wrong way round.
func inversions(v, space []int64) int {
	if len(v) < 2 {
		return 0
	}
	m := len(v) / 2
	n := inversions(v[:m], space[:m]) + inversions(v[m:], space[m:])
	i, j, k := 0, m, 0
	for i < m && j < len(v) {
		if v[i] <= v[j] {
			space[k] = v[i]
			i++
		} else {
			space[k] = v[j]
			j++
			n += m - i
		}
		k++
	}
	k += copy(space[k:], v[i:m])
	copy(space[k:], v[j:])
	copy(v, space[:len(v)])
	return n
}
