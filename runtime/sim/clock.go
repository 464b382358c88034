package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// rho is the bound on the clocks' rates, in parts per million.
const rho = spec.RhoPercent * 10_000

// clock is a host's boot clock. It goes on through a suspend of its host, and
// each stretch of it runs at a rate of its own within +-rho of true time.
type clock struct{ pieces []piece }

// piece is a stretch of a clock, from a true time on.
type piece struct {
	from int64        // true time
	base spec.Instant // what the clock reads then
	ppm  int64
}

func newClock(base spec.Instant, ppm int64) clock { return clock{[]piece{{0, base, ppm}}} }

// read is what the clock shows at a true time.
func (c *clock) read(trueTime int64) spec.Instant {
	i := len(c.pieces) - 1
	for i > 0 && c.pieces[i].from > trueTime {
		i--
	}
	p := c.pieces[i]
	d := trueTime - p.from
	return p.base.Add(time.Duration(d + d/1_000_000*p.ppm + d%1_000_000*p.ppm/1_000_000))
}

// when is the first true time at which the clock reads t or later; a rate that
// changes afterwards is not known yet.
func (c *clock) when(t spec.Instant) int64 {
	i := len(c.pieces) - 1
	for i > 0 && c.pieces[i].base > t {
		i--
	}
	p := c.pieces[i]
	x, rate := int64(t.Sub(p.base)), 1_000_000+p.ppm
	at := p.from + x/rate*1_000_000 + x%rate*1_000_000/rate
	for c.read(at) < t {
		at++
	}
	return at
}

// setRate lets the clock run at another rate from a true time on.
func (c *clock) setRate(trueTime, ppm int64) {
	c.pieces = append(c.pieces, piece{trueTime, c.read(trueTime), ppm})
}
