package spec

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The defaults are safe for any number of voters, and the wait before a
// takeover outlasts the lease, the stop and the kill on the fastest clock
// against the slowest.
func TestTimings(t *testing.T) {
	fast := Timings{}.WithDefaults()
	if again := fast.WithDefaults(); again != fast {
		t.Errorf("completing twice differs: %+v", again)
	}
	for voters := range 10 {
		if why := fast.Problem(voters); why != "" {
			t.Errorf("%d voters: %s", voters, why)
		}
	}
	if got := fast.TakeoverWait(0); got != StretchRho(750*time.Millisecond) || got < 765*time.Millisecond || got > 766*time.Millisecond {
		t.Errorf("takeover waits %s", got)
	}
	for _, tc := range []struct {
		t    Timings
		want string
	}{
		{Timings{Lease: Duration(539 * time.Millisecond)}, "= 540ms"},
		{Timings{Lease: Duration(540 * time.Millisecond)}, ""},
		{Timings{Suspicion: Duration(99 * time.Millisecond)}, "two frames"},
		{Timings{Interval: Duration(time.Second)}, ""}, // the rest follows the interval
	} {
		why := tc.t.WithDefaults().Problem(3)
		if (why == "") != (tc.want == "") || !strings.Contains(why, tc.want) {
			t.Errorf("%+v: %q, want %q", tc.t, why, tc.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "d"))
		if StretchRho(d) < d || ShrinkRho(d) > d || ShrinkRho(StretchRho(d)) < d || StretchRho(ShrinkRho(d)) > d+2 {
			t.Fatalf("%d: stretched %d, shrunk %d", d, StretchRho(d), ShrinkRho(d))
		}
	})
}
