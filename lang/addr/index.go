package addr

import (
	"hash/maphash"
	"iter"
)

// Index finds things by their addresses, of which it keeps no copy: an address
// is large, and a map of thousands of things takes more memory for the addresses
// than for anything else. The zero Index, and nil, hold nothing.
type Index[T any] struct {
	of    func(*T) *Address
	slots []*T // open addressing; a power of two, at least a quarter of them free
	n     int
}

var seed = maphash.MakeSeed()

// NewIndex is an Index of things whose addresses of tells, with room for n.
func NewIndex[T any](of func(*T) *Address, n int) *Index[T] {
	size := 8
	for size*3/4 <= n {
		size *= 2
	}
	return &Index[T]{of: of, slots: make([]*T, size)}
}

// At is the thing of that address, or nil.
func (x *Index[T]) At(a Address) *T {
	if x == nil || x.n == 0 {
		return nil
	}
	return x.slots[x.slot(a)]
}

// Put adds a thing, in place of one that has its address.
func (x *Index[T]) Put(t *T) {
	i := x.slot(*x.of(t))
	if x.slots[i] == nil {
		if x.n++; x.n > len(x.slots)*3/4 {
			x.grow()
			i = x.slot(*x.of(t))
		}
	}
	x.slots[i] = t
}

// Len is how many there are.
func (x *Index[T]) Len() int {
	if x == nil {
		return 0
	}
	return x.n
}

// All are the things, in no order.
func (x *Index[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, t := range x.slots {
			if t != nil && !yield(t) {
				return
			}
		}
	}
}

func (x *Index[T]) grow() {
	old := x.slots
	x.slots = make([]*T, 2*len(old))
	for _, t := range old {
		if t != nil {
			x.slots[x.slot(*x.of(t))] = t
		}
	}
}

// slot is where the thing of that address is, or would be.
func (x *Index[T]) slot(a Address) int {
	mask := len(x.slots) - 1
	for i := int(maphash.Comparable(seed, a)) & mask; ; i = (i + 1) & mask {
		if t := x.slots[i]; t == nil || *x.of(t) == a {
			return i
		}
	}
}
