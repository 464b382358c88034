package boottime

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Stamps turns the kernel's stamps of what came, which are by the time of day, into
// moments on the boot clock. A moment is never earlier than the true one: a lease
// may rest on something having been sent before it. So the time of day may be set
// at any moment, which takes the difference of the two clocks from one value to
// another: of those seen before and after what is stamped, the larger one counts.
// A moment past now, or before the look at which all had been read, can't be true,
// and now takes its place.
type Stamps struct {
	since, now spec.Instant // the last two looks
	last       int64        // boot clock less time of day, at the last
	most       int64        // the larger of both
}

// Look reads the clocks, and returns the moment: once before something may come,
// then each time that all that came has been read.
func (s *Stamps) Look() spec.Instant {
	wall := time.Now().UnixNano() // first: held up in between, the difference is larger
	now := Now()
	s.look(wall, now)
	return now
}

func (s *Stamps) look(wall int64, now spec.Instant) {
	off := int64(now) - wall
	s.most, s.last = max(s.last, off), off
	s.since, s.now = s.now, now
}

// At is when something came, by its stamp in nanoseconds of the time of day (0: it
// has none), if it came since the look before the last, and was read before the last.
func (s *Stamps) At(stamp int64) spec.Instant {
	at := spec.Instant(stamp + s.most)
	if stamp == 0 || at < s.since || at > s.now {
		return s.now
	}
	return at
}
