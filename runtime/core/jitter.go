package core

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Jitter: a node whose answers come irregularly, for frames are lost or its host
// is busy, is suspected later than one that never missed any; nothing else
// follows from it. What is observed is the longest span between two answers, of
// the last minutes: it counts half after each of them. Three times that is how long a silence
// has to be, from the settings' suspicion up to SuspicionLimit: so a first lost
// frame (100 ms of silence instead of 50) makes 300 ms of 250, two in a row 450.
// That limit is such that a dead node's groups start elsewhere no later. An
// election doesn't wait for any of this, and neither do fences.
const (
	jitterFactor  = 3
	jitterHalving = time.Minute
)

// jitter is the longest span between two of a peer's answers, as of a moment.
type jitter struct {
	gap time.Duration
	at  spec.Instant
}

// now is what is left of it.
func (j jitter) now(now spec.Instant) time.Duration {
	if j.gap == 0 {
		return 0
	}
	return j.gap >> min(uint(now.Sub(j.at)/jitterHalving), 62)
}

// note takes a span between two answers. One that counts for more than what is left takes its place.
func (j *jitter) note(now spec.Instant, gap time.Duration) {
	if gap >= j.now(now) {
		j.gap, j.at = gap, now
	}
}

// suspicion is how long a peer may be silent.
func (m *Machine) suspicion(p *peer) time.Duration {
	least, most := m.timings.Suspicion.D(), m.limit
	d := jitterFactor * min(p.jitter.now(m.now), most)
	if d <= least || len(m.state.Fences) > 0 && len(m.state.Covering(p.node)) > 0 { // what a fence frees waits for no W
		return least
	}
	return min(d, most)
}

// advance moves the time on. A leader that was held up itself (it speaks every
// interval, and has not for two) has sent nothing to be answered and has not read what
// came: nobody is silent for that before there was time for an answer.
func (m *Machine) advance(now spec.Instant) {
	if now <= m.now {
		return
	}
	if m.lead != nil && m.lead.beaten != 0 && now.Sub(m.lead.beaten) > 2*m.timings.Interval.D() {
		m.lead.heldUp = now
	}
	m.now = now
}

// silentAt is when a peer that answered counts as silent, without probes. A
// change of the timings gives it a whole suspicion, a leader that was held up a
// round, for as long as leases last.
func (m *Machine) silentAt(p *peer) spec.Instant {
	since := max(p.fresh, m.retimed.since)
	at := since.Add(m.suspicion(p))
	if h := m.lead.heldUp; h != 0 {
		at = max(at, min(h.Add(2*m.timings.Interval.D()), since.Add(m.timings.Lease.D())))
	}
	return at
}
