package planner

import "testing"

// Orders are looked at as long as a plan takes no seconds: with many nodes each costs more.
func TestOrders(t *testing.T) {
	for _, c := range []struct{ largest, units, groups, want int }{
		{1, 200, 10, 1},
		{2, 9, 10, 5},
		{3, 9, 10, 13},
		{4, 9, 500, 13},
		{3, 9, 600, 5},
		{3, 200, 10, 5},
	} {
		if got := len(orders(c.largest, c.units, c.groups)); got != c.want {
			t.Errorf("%d nodes in batches of %d, %d groups: %d ways, want %d", c.units, c.largest, c.groups, got, c.want)
		}
	}
}
