package spec

import (
	"fmt"
	"time"
)

// Instant is a moment of a host's boot clock (CLOCK_BOOTTIME) in nanoseconds:
// it goes on in suspend, and no one sets it. Leases are counted in Instants
// alone, never in time of day, and never compared between hosts.
type Instant int64

// Add is the moment d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub is the span from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// Before tells whether t is earlier than u.
func (t Instant) Before(u Instant) bool { return t < u }

// RhoPercent bounds how much the rates of two hosts' clocks differ, in percent.
const RhoPercent = 1

// Profiles of the heartbeat block.
const (
	ProfileFast   = "fast"
	ProfileMSCS   = "mscs"
	ProfileCustom = "custom"
)

// Timings are what leases, suspicion and takeover are computed from. The zero
// value of a field means the profile's default (WithDefaults).
type Timings struct {
	Profile    string   `json:"profile,omitempty"`
	Interval   Duration `json:"interval,omitempty"`    // between two frames of a leader; fast: 50ms
	Suspicion  Duration `json:"suspicion,omitempty"`   // silence after which a node is suspected; fast: 250ms
	RankDelay  Duration `json:"rank_delay,omitempty"`  // between the campaigns of two ranks; fast: 40ms
	Lease      Duration `json:"lease,omitempty"`       // L; fast: 600ms
	StopWithin Duration `json:"stop_within,omitempty"` // S, where a group names none; fast: 100ms
	Kill       Duration `json:"kill,omitempty"`        // K, from the kill to proof that all is down; fast: 50ms
	DeviceIO   Duration `json:"device_io,omitempty"`   // D_io of single_quorum (timings_device.go): 200ms there, 0 elsewhere
}

// WithDefaults fills in the profile's values.
func (t Timings) WithDefaults() Timings {
	if t.Profile == "" {
		t.Profile = ProfileFast
	}
	def := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	def(&t.Interval, 50*time.Millisecond)
	def(&t.Suspicion, 5*t.Interval.D())
	def(&t.RankDelay, 40*time.Millisecond)
	def(&t.Lease, max(12*t.Interval.D(), t.deviceLeaseDefault()))
	def(&t.StopWithin, 100*time.Millisecond)
	def(&t.Kill, 50*time.Millisecond)
	return t
}

// StretchRho is the longest that a span of d on one host's clock can seem on
// another's: d (1+rho)/(1-rho), rounded up.
func StretchRho(d time.Duration) time.Duration {
	return (d*(100+RhoPercent) + (100 - RhoPercent) - 1) / (100 - RhoPercent)
}

// ShrinkRho is the shortest that a span of d on one host's clock can seem on
// another's: d (1-rho)/(1+rho), rounded down.
func ShrinkRho(d time.Duration) time.Duration {
	return d * (100 - RhoPercent) / (100 + RhoPercent)
}

// TakeoverWait is W: how long after a node's last possible lease began its
// groups may start elsewhere, (L + S + K)(1+rho)/(1-rho), for a group that
// stops within s (0: the default).
func (t Timings) TakeoverWait(s Duration) time.Duration {
	if s == 0 {
		s = t.StopWithin
	}
	return StretchRho(t.Lease.D() + s.D() + t.Kill.D())
}

// LeaseFloor is the shortest lease under which an unsplit change of leader
// stops nobody: a lease is up to two frames old when its leader falls silent,
// then come suspicion, the first rank's campaign with one rank of delay, a
// round of votes, the term's first commit, and a round of grants.
func (t Timings) LeaseFloor(voters int) time.Duration {
	floor := 2*t.Interval.D() + t.Suspicion.D() + 3*t.Interval.D()
	if voters > 2 {
		floor += t.RankDelay.D()
	}
	return floor
}

// Problem returns why the timings can't be safe for that many voters, with
// the sum, or "".
func (t Timings) Problem(voters int) string {
	if t.DeviceIO != 0 {
		return t.deviceProblem()
	}
	if voters > 1 && t.Lease.D() < t.LeaseFloor(voters) {
		return fmt.Sprintf("lease %s is shorter than a change of leader takes: 2 frames of %s + suspicion %s + rank delay %s + votes, first commit and grant %s = %s",
			t.Lease, t.Interval, t.Suspicion, t.RankDelay, Duration(3*t.Interval.D()), Duration(t.LeaseFloor(voters)))
	}
	if t.Suspicion.D() < 2*t.Interval.D() {
		return fmt.Sprintf("suspicion %s is shorter than two frames of %s: one lost frame would take a node down", t.Suspicion, t.Interval)
	}
	return ""
}
