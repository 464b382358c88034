package member

import (
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// calmAfter is how long nothing but a leader's rounds has to have happened: what
// follows something comes soon after it.
const calmAfter = time.Second

// Calm tells whether frames may wait until NextDeadline: this node leads, and
// has had nothing to do but its rounds for a while (core.Machine.Resting says why
// that is safe). Then FramesIn hands them in, with the moments when they came;
// any other input is handed in at once, and frames are, too, if it is not calm after that.
func (m *Member) Calm() bool { return m.now.Sub(m.stirred) >= calmAfter }

// rests tells whether the step that took in was a part of a leader's rounds, and
// leaves nothing else to be done.
func (m *Member) rests(in Input) bool {
	if m.status.Role != confdb.Leader || !m.core.Resting() || m.broken || m.closing || m.ready != nil || m.durable != nil || m.retryAt != 0 ||
		len(m.proposals) > 0 || len(m.changes) > 0 || len(m.joining) > 0 || m.unjoined || m.grow.next != nil {
		return false
	}
	switch in.(type) {
	case *FrameIn, FrameIn, *FramesIn, Tick, Clock:
	default:
		return false
	}
	for _, o := range m.out {
		switch o.(type) {
		case *SendFrame, Renew:
		default:
			return false
		}
	}
	return true
}
