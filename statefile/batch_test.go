package statefile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A crash in the last write leaves any of its sectors as zeros, and may cut its end:
// what was durable before is there, all of that write is not, and one can go on.
// Zeros anywhere before are damage, as long as a record of a later write is there.
func TestTornBatches(t *testing.T) {
	es := entries()
	var c Chain
	var data []byte
	write := func(es ...Entry) (end int) {
		t.Helper()
		var err error
		if data, err = c.AppendAll(data, es, nil); err != nil {
			t.Fatal(err)
		}
		return len(data)
	}
	write(es[0])
	one := write(es[1])
	two := write(es[2], es[3], es[1])
	before := c
	kept := []Entry{es[0], es[1], es[2], es[3], es[1]}
	all := write(es[3], es[4], es[1], es[2])
	if j, err := DecodeJournal(data, nil); err != nil || j.Torn || len(j.Entries) != 9 || j.Size != int64(all) || j.Chain != c {
		t.Fatal(err)
	}
	const sector = 32
	dropped := func(what string, bad []byte) {
		t.Helper()
		j, err := DecodeJournal(bad, nil)
		if err != nil || !j.Torn || j.Size != int64(two) || j.Chain != before {
			t.Fatalf("%s: %v, %+v", what, err, j)
		}
		if diff := cmp.Diff(kept, j.Entries, sameAddr); diff != "" {
			t.Fatalf("%s:\n%s", what, diff)
		}
	}
	for cut := two + 1; cut < all; cut++ {
		dropped(fmt.Sprintf("cut at %d", cut), data[:cut])
	}
	for from := two; from < all; from += sector {
		for to := from + 1; to < all+sector; to += sector {
			bad := slices.Clone(data)
			clear(bad[from:min(to, all)])
			dropped(fmt.Sprintf("zeros from %d to %d", from, to), bad)
			if other := to + 3*sector; other < all { // and more, and the end is missing
				clear(bad[other:min(other+sector, all)])
				dropped(fmt.Sprintf("zeros from %d to %d and from %d", from, to, other), bad)
				dropped(fmt.Sprintf("zeros from %d to %d, cut", from, to), bad[:other-1])
			}
		}
	}
	bad := slices.Clone(data)
	bad[all-1] = 0
	dropped("a zero for the last byte alone", bad)
	last := bytes.LastIndexByte(data[:all-1], '\n') + 1
	for from := 0; from < two; from += sector {
		for to := from + 1; to < last; to += sector {
			bad := slices.Clone(data)
			clear(bad[from:to])
			if _, err := DecodeJournal(bad, nil); !errors.Is(err, ErrDamaged) {
				t.Fatalf("zeros from %d to %d of %d, %d: %v", from, to, one, two, err)
			}
		}
	}
	for i := range data { // one that was changed is no torn one
		bad := slices.Clone(data)
		bad[i] ^= 1
		if _, err := DecodeJournal(bad, nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	// A whole record that is lost from a write, or brought to another, is missed.
	lines := bytes.SplitAfter(data, []byte("\n"))
	for _, at := range []int{2, 3, 4, 5, 6, 7} {
		var again Chain
		var bad []byte
		for i, line := range lines[:len(lines)-1] {
			if i != at {
				bad = again.record(bad, line[9:len(line)-1])
			}
		}
		if _, err := DecodeJournal(bad, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("without record %d: %v", at+1, err)
		}
	}
}
