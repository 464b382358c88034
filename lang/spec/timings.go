package spec

import (
	"fmt"
	"reflect"
	"slices"
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
	Interval   Duration `json:"interval,omitempty"`    // between two frames of a leader, or two beats of a node; fast: 50ms
	Suspicion  Duration `json:"suspicion,omitempty"`   // silence after which a node is suspected; fast: 250ms; with probes: their whole schedule
	RankDelay  Duration `json:"rank_delay,omitempty"`  // between the campaigns of two ranks; fast: 40ms
	Lease      Duration `json:"lease,omitempty"`       // L; fast: 600ms
	StopWithin Duration `json:"stop_within,omitempty"` // S, where a group names none; fast: 100ms
	Kill       Duration `json:"kill,omitempty"`        // K, from the kill to proof that all is down; fast: 50ms
	DeviceIO   Duration `json:"device_io,omitempty"`   // D_io of single_quorum (timings_device.go): 200ms there, 0 elsewhere

	// ReplyWithin, where it is set, is how long an answer to a beat may take.
	// Every node then beats to every other, and probes one that doesn't answer.
	ReplyWithin Duration `json:"reply_within,omitempty"`
	Probes      []Probe  `json:"probe,omitempty"` // phases, in order
}

// Probe is one phase of the probes that follow an unanswered beat: Count of
// them, each after a wait of Every; or spread evenly, the last one at the end
// of Within.
type Probe struct {
	Count  int      `json:"count"`
	Every  Duration `json:"every,omitempty"`
	Within Duration `json:"within,omitempty"`
}

// Wait is the wait before each of the phase's probes.
func (p Probe) Wait() time.Duration {
	if p.Every != 0 || p.Count < 1 {
		return p.Every.D()
	}
	return p.Within.D() / time.Duration(p.Count)
}

// mscs is the schedule of Microsoft Cluster Service: a beat each 0.5 s, an
// answer within 0.2 s, else 18 probes in 5.95 s.
func mscs() Timings {
	ms := func(n int) Duration { return Duration(time.Duration(n) * time.Millisecond) }
	return Timings{
		Profile: ProfileMSCS, Interval: ms(500), ReplyWithin: ms(200), Lease: ms(8500),
		Probes: []Probe{
			{Count: 4, Every: ms(700)}, {Count: 3, Within: ms(750)}, {Count: 2, Every: ms(300)},
			{Count: 5, Within: ms(900)}, {Count: 2, Every: ms(300)}, {Count: 2, Within: ms(300)},
		},
	}
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
	if t.Profile == ProfileMSCS {
		m := mscs()
		def(&t.Interval, m.Interval.D())
		def(&t.ReplyWithin, m.ReplyWithin.D())
		if t.Probes == nil {
			t.Probes = m.Probes
		}
	}
	def(&t.Interval, 50*time.Millisecond)
	def(&t.RankDelay, 40*time.Millisecond)
	def(&t.StopWithin, 100*time.Millisecond)
	def(&t.Kill, 50*time.Millisecond)
	if len(t.Probes) > 0 {
		def(&t.ReplyWithin, 2*t.Interval.D()/5)
	}
	if t.Probing() {
		def(&t.Suspicion, t.probeSpan())
		lease := t.LeaseFloor(3)
		if t.Profile == ProfileMSCS {
			lease = mscs().Lease.D()
		}
		def(&t.Lease, max(lease, t.deviceLeaseDefault()))
		return t
	}
	def(&t.Suspicion, 5*t.Interval.D())
	def(&t.Lease, max(12*t.Interval.D(), t.deviceLeaseDefault()))
	return t
}

// Probing tells whether every node beats to every other and probes the silent
// ones; else the leader's frames and their answers are the only ones.
func (t Timings) Probing() bool { return t.ReplyWithin > 0 }

// probeSpan is the longest from a node's crash to the end of another's probes:
// the crash follows an answer, so it is up to a beat before the one that stays
// unanswered.
func (t Timings) probeSpan() time.Duration {
	d := t.Interval.D() + t.ReplyWithin.D()
	if len(t.Probes) > 0 {
		d += t.ReplyWithin.D()
	}
	for _, p := range t.Probes {
		d += time.Duration(p.Count) * p.Wait()
	}
	return d
}

// Round is how long a frame and its answer may take.
func (t Timings) Round() time.Duration {
	if t.Probing() {
		return t.ReplyWithin.D()
	}
	return t.Interval.D()
}

// Equal tells whether two timings are the same.
func (t Timings) Equal(u Timings) bool {
	probes := slices.Equal(t.Probes, u.Probes)
	t.Probes, u.Probes = nil, nil
	return probes && reflect.DeepEqual(t, u)
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
func (t Timings) TakeoverWait(s Duration) time.Duration { return t.TakeoverWaitWith(s, 0) }

// TakeoverWaitWith is W for a group that relies on its node's watchdog, with that
// time-out: (L + S + K + watchdog)(1+rho)/(1-rho). The monitor feeds it under a
// lease, or when nothing is left, and the kernel kills the monitor S + K after the
// lease's end at the latest; so this is when the last feed can have come.
func (t Timings) TakeoverWaitWith(s, watchdog Duration) time.Duration {
	if s == 0 {
		s = t.StopWithin
	}
	return StretchRho(t.Lease.D() + s.D() + t.Kill.D() + watchdog.D())
}

// SuspicionLimit is how long a node that answers irregularly may be silent before
// its leader suspects it: up to twice the suspicion, as long as its groups' failover
// is no later for it. They wait for W from the last frame that was heard anyway; two
// frames before that, and three rounds for the view's commit, the suspicion is over:
// min(2 suspicion, L + S + K - 2 interval - 3 rounds), 500ms with the defaults of
// profile fast. Probes have a schedule of their own: there it is the suspicion.
func (t Timings) SuspicionLimit() time.Duration {
	if t.Probing() {
		return t.Suspicion.D()
	}
	free := t.Lease.D() + t.StopWithin.D() + t.Kill.D() - 2*t.Interval.D() - 3*t.Round()
	return max(t.Suspicion.D(), min(2*t.Suspicion.D(), free))
}

// LeaseFloor is the shortest lease under which an unsplit change of leader
// stops nobody: a lease is up to two frames old when its leader falls silent,
// then come suspicion, the first rank's campaign with one rank of delay, a
// round of votes, the term's first commit, and a round of grants.
func (t Timings) LeaseFloor(voters int) time.Duration {
	floor := 2*t.Interval.D() + t.Suspicion.D() + 3*t.Round()
	if voters > 2 {
		floor += t.RankDelay.D()
	}
	return floor
}

// Problem returns why the timings can't be safe for that many voters, with
// the sum, or "".
func (t Timings) Problem(voters int) string {
	if t.Probing() {
		if why := t.probeProblem(); why != "" {
			return why
		}
	}
	if t.DeviceIO != 0 {
		return t.deviceProblem()
	}
	if !t.Probing() && t.Suspicion.D() < 2*t.Interval.D() {
		return fmt.Sprintf("suspicion %s is shorter than two frames of %s: one lost frame would take a node down", t.Suspicion, t.Interval)
	}
	if voters > 1 && t.Lease.D() < t.LeaseFloor(voters) {
		rank := ""
		if voters > 2 {
			rank = fmt.Sprintf(" + rank delay %s", t.RankDelay)
		}
		return fmt.Sprintf("lease %s is shorter than a change of leader takes: 2 frames of %s + suspicion %s%s + votes, first commit and grant %s = %s",
			t.Lease, t.Interval, t.suspicionText(), rank, Duration(3*t.Round()), Duration(t.LeaseFloor(voters)))
	}
	return ""
}

func (t Timings) probeProblem() string {
	if t.ReplyWithin >= t.Interval {
		return fmt.Sprintf("reply_within %s is not shorter than the interval %s: the next beat would leave before an answer to the last is due", t.ReplyWithin, t.Interval)
	}
	if len(t.Probes) == 0 {
		return "reply_within without a probe block: one lost frame would take a node down"
	}
	for i, p := range t.Probes {
		switch {
		case p.Count < 1 || p.Count > 1000:
			return fmt.Sprintf("probe block %d has a count of %d, and 1 to 1000 are possible", i+1, p.Count)
		case (p.Every != 0) == (p.Within != 0) || p.Wait() <= 0:
			return fmt.Sprintf("probe block %d needs one of every and within", i+1)
		}
	}
	if t.Suspicion.D() != t.probeSpan() {
		return fmt.Sprintf("suspicion %s is not what the probes take (%s = %s): leave it out", t.Suspicion, t.probeText(), Duration(t.probeSpan()))
	}
	return ""
}

func (t Timings) suspicionText() string {
	if t.Probing() {
		return fmt.Sprintf("%s (%s)", t.Suspicion, t.probeText())
	}
	return t.Suspicion.String()
}

func (t Timings) probeText() string {
	count, span := 0, time.Duration(0)
	for _, p := range t.Probes {
		count += p.Count
		span += time.Duration(p.Count) * p.Wait()
	}
	return fmt.Sprintf("beat %s + answer %s + %d probes in %s + answer %s", t.Interval, t.ReplyWithin, count, Duration(span), t.ReplyWithin)
}
