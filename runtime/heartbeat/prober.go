package heartbeat

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Prober is a node's schedule of beats and probes to one other (spec.Timings
// with Probes): a beat each interval; one that is not answered within
// ReplyWithin is followed by the probes, phase by phase; any answer ends them;
// ReplyWithin after the last of them the other counts as down, and beats go on.
//
// It is pure: who has it sends a frame that asks for an answer whenever Due
// says so, and tells what it sent and what was echoed. The zero Prober beats at once.
type Prober struct {
	down bool

	beatAt  spec.Instant // of the next beat
	first   uint64       // Seq of the oldest beat that waits for an answer; 0: none
	replyAt spec.Instant // until when it may wait; 0: no beat waits
	late    spec.Instant // a replyAt that passed while beats hurried
	probing bool
	probeAt spec.Instant // of the next probe; past the last one, of the judgement
	phase   int          // of the next probe; len(Probes): all are sent
	sent    int          // of the phase
}

// Down tells whether the other answered nothing for a whole schedule.
func (p *Prober) Down() bool { return p.down }

// Due tells whether a beat or a probe is to leave now. interval is the one
// between beats: the timings' own, or a shorter one for a while.
func (p *Prober) Due(now spec.Instant, t *spec.Timings, interval time.Duration) bool {
	// While beats hurry, the next one is as good as a probe, and sooner.
	if !p.probing && p.replyAt != 0 && now >= p.replyAt && interval >= t.Interval.D() {
		if p.down {
			p.first, p.replyAt = 0, 0
		} else {
			p.probing, p.phase, p.sent = true, 0, 0
			p.probeAt = p.wait(p.replyAt, now, t)
		}
	}
	if p.probing {
		return p.probe(now, t, interval)
	}
	if p.replyAt <= now {
		p.late = p.replyAt
	}
	if next := now.Add(interval); p.beatAt > next {
		p.beatAt = next // the interval became shorter
	}
	if now < p.beatAt {
		return false
	}
	if p.beatAt = p.beatAt.Add(interval); p.beatAt <= now {
		p.beatAt = now.Add(interval)
	}
	if p.replyAt == 0 {
		p.replyAt = now.Add(t.ReplyWithin.D())
	}
	return true
}

func (p *Prober) probe(now spec.Instant, t *spec.Timings, interval time.Duration) bool {
	if now < p.probeAt {
		return false
	}
	if p.phase >= len(t.Probes) {
		*p = Prober{down: true, beatAt: now.Add(interval)}
		return false
	}
	if p.sent++; p.sent >= t.Probes[p.phase].Count {
		p.phase, p.sent = p.phase+1, 0
	}
	p.probeAt = p.wait(p.probeAt, now, t)
	return true
}

// wait is when the next probe is due, or the judgement: counted from when the
// last one was, unless that was so long ago that this host slept.
func (p *Prober) wait(since, now spec.Instant, t *spec.Timings) spec.Instant {
	d := t.ReplyWithin.D()
	if p.phase < len(t.Probes) {
		d = t.Probes[p.phase].Wait()
	}
	if at := since.Add(d); at > now {
		return at
	}
	return now.Add(d)
}

// Next is when Due has something to say.
func (p *Prober) Next() spec.Instant {
	switch {
	case p.probing:
		return p.probeAt
	case p.replyAt > p.late && p.replyAt < p.beatAt:
		return p.replyAt
	}
	return p.beatAt
}

// Sent tells the Seq of the frame that Due asked for.
func (p *Prober) Sent(seq uint64) {
	if p.first == 0 {
		p.first = seq
	}
}

// Echoed tells that the other echoed the own frame seq.
func (p *Prober) Echoed(seq uint64, now spec.Instant, interval time.Duration) {
	if p.first == 0 || seq < p.first {
		return
	}
	p.first, p.replyAt, p.down = 0, 0, false
	if p.probing {
		p.probing, p.beatAt = false, now.Add(interval)
	}
}

// Hurry has a beat leave at once.
func (p *Prober) Hurry(now spec.Instant) {
	if !p.probing {
		p.beatAt = now
	}
}
