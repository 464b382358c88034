package member

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// deadMan is the kernel's timer: it asks no process.
func (h *host) deadMan(end spec.Instant) {
	h.w.after(max(h.trueSpan(end.Add(100*time.Millisecond)), 0), func() {
		if h.lease == end && len(h.procs) > 0 {
			h.killMonitor()
		}
	})
}

func (h *host) killMonitor() {
	for g := range h.procs {
		h.endGroup(g)
	}
	if h.mon {
		h.mon = false
		h.monLife++
		h.input(MonitorDown{})
		h.startMonitor()
	}
}

// kill is kill -9 of agent and monitor.
func (h *host) kill() {
	h.m, h.mon = nil, false
	h.life++
	h.monLife++
	for g := range h.procs {
		h.endGroup(g)
	}
}

// killAgent leaves the monitor's processes to their lease.
func (h *host) killAgent() {
	h.m, h.mon = nil, false
	h.life++
	h.monLife++
}

func (h *host) freeze() { h.frozen = true }

func (h *host) thaw() {
	h.frozen = false
	for _, do := range h.waiting {
		do()
	}
	h.waiting = nil
}

func (w *world) isolate(h *host, cut bool) {
	for _, o := range w.hosts {
		if o != h {
			w.cut[[2]int{h.i, o.i}], w.cut[[2]int{o.i, h.i}] = cut, cut
		}
	}
}
