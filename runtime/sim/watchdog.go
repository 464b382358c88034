package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// watchdogTimeout is that of every host's watchdog, where there are any.
const watchdogTimeout = spec.Duration(3 * time.Second)

// watchdogTimeout is what a monitor says of the one that it has armed; 0: the
// host has none.
func (h *host) watchdogTimeout() spec.Duration {
	switch {
	case h.w.lab != nil:
		return h.w.lab.def.Nodes[h.index].WatchdogWait()
	case h.w.cfg.Watchdog:
		return watchdogTimeout
	}
	return 0
}

// watchdog is a host's: it resets the host when it was not fed for its time-out.
// It is hardware: it asks no process, and goes by a clock of the host's rate.
type watchdog struct {
	fed uint64       // generation of its timer
	at  spec.Instant // when it resets; 0: it is not armed
}

// feed is what reaches the device.
func (h *host) feed() {
	h.dog.fed++
	h.dog.at = h.now().Add(h.watchdogTimeout().D())
	own := h.dog.fed
	h.timer(h.dog.at, 0, func() {
		if h.dog.fed == own {
			h.reset()
		}
	})
}

// reset is the watchdog's. It counts on while the host sleeps: one that started
// anew at its end could not be relied on there (docs/runtime.md).
func (h *host) reset() {
	h.tell("the watchdog resets the host")
	h.w.rep.Resets++
	h.powerOff()
	h.w.restartLater(h, h.w.between(500*time.Millisecond, 4*time.Second))
}

// left tells whether anything of that monitor, or of those before it, is there.
func (h *host) left(s seat) bool {
	for _, group := range h.kernel.running {
		for _, t := range group {
			if t.by == s {
				return true
			}
		}
	}
	return false
}

// disarm stops the watchdog: the magic close of an orderly end, or the host is off.
func (h *host) disarm() { h.dog.fed, h.dog.at = h.dog.fed+1, 0 }

// armWatchdog is what a monitor does when it has cleaned up: opening feeds it.
func (m *monitor) armWatchdog() {
	if m.h.watchdogTimeout() > 0 {
		m.h.feed()
		m.feedWatchdog()
	}
}

// feedWatchdog feeds under the lease, or when nothing is left, four times in a
// time-out. What it has decided may reach the device late; not after its death.
func (m *monitor) feedWatchdog() {
	h, w := m.h, m.h.w
	if !m.alive {
		return
	}
	m.run(func() {
		if h.now() >= m.lease && h.left(m.seat) {
			return
		}
		late := w.between(0, 200*time.Microsecond)
		if w.faults.on && w.chance(0.1) {
			late = w.between(0, 2*time.Second)
		}
		w.after(late, func() {
			if m.alive && !h.suspended { // who sleeps feeds nothing
				h.feed()
			}
		})
	})
	h.timer(h.now().Add(h.watchdogTimeout().D()/4), 0, m.feedWatchdog)
}

// endWatchdog is a monitor's orderly end.
func (m *monitor) endWatchdog() {
	if m.seat != freezerSeat && !m.h.left(m.seat) {
		m.h.disarm()
	}
}

// cleanUpTime is how long a new monitor takes to undo what the last one left: a
// script's stop may hang for longer than the watchdog waits.
func (h *host) cleanUpTime(s seat) time.Duration {
	w := h.w
	took := w.between(5*time.Millisecond, 30*time.Millisecond)
	if w.cfg.Watchdog && w.faults.on && h.left(s) && w.chance(0.3) {
		took = w.between(0, 8*time.Second)
	}
	return took
}
