package boottime

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Whatever is done to the time of day, once between two looks, no moment is
// earlier than the true one; and where nothing is done to it, it is the true one.
func TestStamps(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var s Stamps
	wall := func(at, off int64) int64 { return at - off }
	off := int64(-1_700_000_000_000_000_000)
	at := int64(time.Hour)
	s.look(wall(at, off), spec.Instant(at))
	for range 20_000 {
		before, was := off, at
		at += 1 + rng.Int64N(int64(100*time.Millisecond))
		set := was + rng.Int64N(at-was+1)
		if rng.IntN(3) == 0 {
			step := rng.Int64N(int64(time.Second)) - int64(500*time.Millisecond)
			if rng.IntN(2) == 0 {
				step /= 1000
			}
			off += step
		}
		type came struct{ true, stamp int64 }
		var list []came
		for range 4 {
			c := came{true: was + rng.Int64N(at-was+1)}
			if c.stamp = wall(c.true, before); c.true >= set {
				c.stamp = wall(c.true, off)
			}
			list = append(list, c)
		}
		s.look(wall(at, off), spec.Instant(at))
		for _, c := range list {
			got := int64(s.At(c.stamp))
			if got < c.true || got > at {
				t.Fatalf("it came at %d and is taken for %d, at %d", c.true, got, at)
			}
			if off == before && got != c.true {
				t.Fatalf("it came at %d and is taken for %d, though nobody set the clock", c.true, got)
			}
		}
		if got := s.At(0); int64(got) != at {
			t.Fatalf("without a stamp it came at %d, want now, %d", got, at)
		}
	}
}

func TestStampsLook(t *testing.T) {
	t.Parallel()
	var s Stamps
	first := s.Look()
	stamp := time.Now().UnixNano()
	last := s.Look()
	if at := s.At(stamp); at < first || at > last {
		t.Fatalf("stamped between %d and %d, taken for %d", first, last, at)
	}
	for _, stamp := range []int64{1, stamp - int64(time.Hour), stamp + int64(time.Hour)} {
		if at := s.At(stamp); at != last {
			t.Errorf("a stamp that can't be true is taken for %d, want now, %d", at, last)
		}
	}
}
