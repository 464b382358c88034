package sim

import (
	"fmt"
	"time"
)

// startFaults lets faults happen at random from now until heal.
func (w *world) startFaults() {
	until := w.now + int64(w.cfg.For)
	w.ops.failing = true
	var next func()
	next = func() {
		if w.now > until {
			return
		}
		w.rep.Faults++
		w.fault()
		w.after(w.between(20*time.Millisecond, 2500*time.Millisecond), next)
	}
	w.after(time.Second, next)
}

func (w *world) fault() {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	if l := w.leader(); l != nil && w.chance(0.3) {
		h = l // leaders deserve more than their share
	}
	switch w.rng.IntN(13) {
	case 0: // agent and monitor: the whole node
		h.killMonitor()
		h.killAgent()
		w.restartLater(h, w.between(50*time.Millisecond, 4*time.Second))
	case 1:
		h.killAgent()
		w.restartLater(h, w.between(20*time.Millisecond, 3*time.Second))
	case 2:
		h.killMonitor()
	case 3, 4: // SIGSTOP of the agent; long ones outlast the lease
		h.pauseAgent(w.between(50*time.Millisecond, 3*time.Second))
	case 5:
		h.pauseMonitor(w.between(50*time.Millisecond, 2*time.Second))
	case 6:
		d := w.between(50*time.Millisecond, 3*time.Second)
		h.pauseAgent(d)
		h.pauseMonitor(d)
	case 7, 8:
		w.partition(h)
	case 9: // one way
		other := w.hosts[w.rng.IntN(len(w.hosts))]
		w.tell("net: %s no longer reaches %s", h.name, other.name)
		w.cutFor([][2]int{{h.index, other.index}}, w.between(100*time.Millisecond, 4*time.Second))
	case 10:
		w.net.loss = w.rng.Float64() * 0.3
		w.tell("net: loss %.0f %%", w.net.loss*100)
		w.after(w.between(200*time.Millisecond, 4*time.Second), func() { w.net.loss = 0 })
	case 11:
		w.net.lag = w.between(0, 120*time.Millisecond)
		w.tell("net: lag up to %v", w.net.lag)
		w.after(w.between(200*time.Millisecond, 3*time.Second), func() { w.net.lag = 0 })
	case 12:
		h.disk.slow = w.between(0, 300*time.Millisecond)
		w.tell("%s: disk slower by %v", h.name, h.disk.slow)
		w.after(w.between(200*time.Millisecond, 3*time.Second), func() { h.disk.slow = 0 })
	}
}

func (w *world) restartLater(h *host, d time.Duration) {
	w.after(d, h.startAgent)
}

// partition cuts h off from all others, or the hosts in two, or leaves a bridge.
func (w *world) partition(h *host) {
	var cuts [][2]int
	kind := w.rng.IntN(3)
	for _, a := range w.hosts {
		for _, b := range w.hosts {
			var cut bool
			switch kind {
			case 0: // one alone
				cut = (a == h) != (b == h)
			case 1: // two halves
				cut = (a.index < len(w.hosts)/2) != (b.index < len(w.hosts)/2)
			case 2: // a bridge: only h sees all
				cut = a != b && a != h && b != h
			}
			if cut {
				cuts = append(cuts, [2]int{a.index, b.index})
			}
		}
	}
	w.tell("net: %s", [...]string{
		fmt.Sprintf("%s is alone", h.name), "two halves", fmt.Sprintf("only %s sees the others", h.name)}[kind])
	w.cutFor(cuts, w.between(100*time.Millisecond, 5*time.Second))
}

func (w *world) cutFor(cuts [][2]int, d time.Duration) {
	for _, c := range cuts {
		w.net.cut[c[0]][c[1]] = true
	}
	w.after(d, func() {
		for _, c := range cuts {
			w.net.cut[c[0]][c[1]] = false
		}
	})
}

func (h *host) pauseAgent(d time.Duration) {
	a := h.agent
	if a == nil || a.paused {
		return
	}
	h.w.tell("%s: agent paused for %v", h.name, d)
	a.paused = true
	h.w.after(d, func() {
		if h.agent == a && a.paused {
			h.w.tell("%s: agent goes on", h.name)
			a.resume()
		}
	})
}

func (h *host) pauseMonitor(d time.Duration) {
	if h.agent == nil || h.agent.mon == nil || h.agent.mon.paused {
		return
	}
	m := h.agent.mon
	h.w.tell("%s: monitor paused for %v", h.name, d)
	m.paused = true
	h.w.after(d, func() { m.resume() })
}

func (m *monitor) resume() {
	if !m.paused {
		return
	}
	m.paused = false
	in := m.inbox
	m.inbox = nil
	for _, do := range in {
		m.run(do)
	}
}

// heal ends all faults: links whole, processes going, dead agents started.
func (w *world) heal() {
	w.tell("all faults end")
	w.net.heal()
	w.ops.failing = false
	for _, h := range w.hosts {
		h.disk.slow = 0
		if h.agent != nil && h.agent.paused {
			h.agent.resume()
		}
		if h.agent != nil && h.agent.mon != nil {
			h.agent.mon.resume()
		}
		if h.oldMonitor != nil {
			h.oldMonitor.resume()
		}
		h.startAgent()
	}
	for i := range w.cfg.Groups {
		w.ops.wantOnline(groupID(i))
	}
	for _, h := range w.hosts {
		w.ops.resume(h.nodeID)
	}
}
