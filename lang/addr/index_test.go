package addr

import (
	"fmt"
	"testing"
)

// An Index is a map from address to the last thing that was put there.
func TestIndex(t *testing.T) {
	type thing struct {
		a Address
		n int
	}
	of := func(t *thing) *Address { return &t.a }
	for _, room := range []int{0, 100} {
		x, want := NewIndex(of, room), map[Address]int{}
		for i := range 300 {
			a := Group(fmt.Sprint("g", i%100), NoKey)
			if i%3 == 0 {
				a = a.WithResource("r", IntKey(i%5))
			}
			x.Put(&thing{a, i})
			want[a] = i
			for b, n := range want {
				if got := x.At(b); got == nil || got.n != n || got.a != b {
					t.Fatalf("%s: %v, want %d", b, got, n)
				}
			}
		}
		all := 0
		for one := range x.All() {
			if all++; want[one.a] != one.n {
				t.Errorf("%s: %d, want %d", one.a, one.n, want[one.a])
			}
		}
		if all != len(want) || x.Len() != len(want) || x.At(Cluster()) != nil {
			t.Errorf("%d things, want %d; a cluster %v", x.Len(), len(want), x.At(Cluster()))
		}
	}
	if none := (*Index[thing])(nil); none.At(Cluster()) != nil || none.Len() != 0 {
		t.Error("nil holds something")
	}
}
