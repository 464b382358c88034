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
	if again := fast.WithDefaults(); !again.Equal(fast) {
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

// Profile mscs is the seed's schedule: 18 probes in 5.95 s, down at most 6.85 s
// from a crash, under a lease of 8.5 s that a change of leader just fits in.
func TestProfileMSCS(t *testing.T) {
	m := Timings{Profile: ProfileMSCS}.WithDefaults()
	if !m.WithDefaults().Equal(m) {
		t.Error("completing twice differs")
	}
	count := 0
	for _, p := range m.Probes {
		count += p.Count
	}
	if count != 18 || m.Suspicion.D() != 6850*time.Millisecond || m.Lease.D() != 8500*time.Millisecond || m.LeaseFloor(3) != 8490*time.Millisecond {
		t.Errorf("%d probes, suspicion %s, lease %s, floor %s", count, m.Suspicion, m.Lease, m.LeaseFloor(3))
	}
	for voters := range 10 {
		if why := m.Problem(voters); why != "" {
			t.Errorf("%d voters: %s", voters, why)
		}
	}
	custom := func(change func(t *Timings)) Timings {
		c := Timings{Profile: ProfileCustom, Interval: Duration(time.Second), Probes: []Probe{{Count: 2, Within: Duration(time.Second)}}}
		change(&c)
		return c.WithDefaults()
	}
	for _, tc := range []struct {
		t    Timings
		want string
	}{
		{custom(func(t *Timings) {}), ""},
		{custom(func(t *Timings) { t.ReplyWithin = t.Interval }), "not shorter than the interval"},
		{custom(func(t *Timings) { t.Probes, t.ReplyWithin = nil, Duration(time.Millisecond) }), "without a probe"},
		{custom(func(t *Timings) { t.Probes[0].Count = 0 }), "count of 0"},
		{custom(func(t *Timings) { t.Probes[0].Every = Duration(time.Second) }), "one of every and within"},
		{custom(func(t *Timings) { t.Suspicion = Duration(5 * time.Second) }), "leave it out"},
		{custom(func(t *Timings) { t.Lease = Duration(5 * time.Second) }), "shorter than a change of leader"},
	} {
		if why := tc.t.Problem(3); (why == "") != (tc.want == "") || !strings.Contains(why, tc.want) {
			t.Errorf("%+v: %q, want %q", tc.t, why, tc.want)
		}
	}
}
