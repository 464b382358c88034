package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// startFaults lets faults happen at random from now until heal.
func (w *world) startFaults() {
	until := w.now + int64(w.cfg.For)
	w.ops.failing, w.edge = true, true
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
	switch w.rng.IntN(18) {
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
	case 13, 14:
		w.replay()
	case 15: // a storm of restarts
		for n, at := 2+w.rng.IntN(5), time.Duration(0); n > 0; n-- {
			w.after(at, h.killAgent)
			at += w.between(time.Millisecond, 150*time.Millisecond)
			w.after(at, h.startAgent)
			at += w.between(time.Millisecond, 300*time.Millisecond)
		}
	case 17:
		if w.whole() {
			h.loseDisk()
		}
	case 16:
		h.setRate(int64(w.rng.IntN(20_001)) - 10_000)
	}
}

// whole tells whether every host runs and has a vote: then one may lose its disk.
func (w *world) whole() bool {
	l := w.leader()
	for _, h := range w.hosts {
		if l == nil || h.agent == nil || !slices.Contains(l.agent.m.Status().Driver.Voters, h.server) {
			return false
		}
	}
	return true
}

// loseDisk empties a node's data directory: it comes back as a new server, which
// has to join again; the one that it was never votes any more. Its old monitor
// may live on until its lease ends.
func (h *host) loseDisk() {
	w := h.w
	if w.chance(0.5) {
		h.killMonitor()
	}
	h.killAgent()
	h.disk.stored = confdb.Stored{}
	clear(h.lastEpochs)
	w.servers++
	h.server = 2000 + w.servers
	w.tell("%s: loses its disk, and is server %d now", h.name, h.server)
	w.restartLater(h, w.between(10*time.Millisecond, 2*time.Second))
	w.after(w.between(50*time.Millisecond, 3*time.Second), func() { w.ops.promote(h) })
}

// setRate changes the rate of a host's clock, which reads on from what it reads.
func (h *host) setRate(ppm int64) {
	now := h.now()
	h.clock.ppm = ppm
	h.clock.offset += int64(now - h.now())
	h.w.tell("%s: clock at %+d ppm", h.name, ppm)
	mon := h.oldMonitor
	if a := h.agent; a != nil {
		a.armed = 0
		a.schedule()
		if a.mon != nil {
			mon = a.mon
		}
	}
	if mon != nil && mon.alive && mon.lease > now {
		mon.arm()
	}
	for id, t := range h.w.check.last {
		if t.h == h {
			t.until = 0 // worked out anew
			h.w.check.last[id] = t
		}
	}
	h.w.check.leases(h)
}

// tap is a frame that someone on the network has recorded.
type tap struct {
	from, to *host
	frame    heartbeat.Frame
}

const maxTaps = 3000

// record keeps some frames, of long ago too.
func (w *world) record(from, to *host, f heartbeat.Frame) {
	if !w.edge || !w.chance(0.1) {
		return
	}
	t := tap{from, to, cloneFrame(f)}
	if len(w.taps) < maxTaps {
		w.taps = append(w.taps, t)
	} else {
		w.taps[w.rng.IntN(maxTaps)] = t
	}
}

// replay plays some of the recorded frames to one host for a while, as they
// were. What the seal remembers is refused.
func (w *world) replay() {
	if len(w.taps) == 0 {
		return
	}
	to := w.hosts[w.rng.IntN(len(w.hosts))]
	w.tell("net: recorded frames come to %s again", to.name)
	at := time.Duration(0)
	for range 100 {
		t := w.taps[w.rng.IntN(len(w.taps))]
		if t.to != to {
			continue
		}
		at += w.between(0, 50*time.Millisecond)
		w.after(at, func() {
			id := frameID{t.frame.Incarnation, t.frame.Seq}
			if a := to.agent; a != nil && !a.heard[id] {
				a.heard[id] = true
				a.input(member.FrameIn{From: t.from.endpoint, Frame: cloneFrame(t.frame)})
			}
		})
	}
}

// dieAtEdge kills processes between what a member wants done: after a proposal
// went out, after a write was begun, after a commit was applied, after a start.
func (a *agent) dieAtEdge(out member.Output) {
	h, w := a.h, a.h.w
	if !w.edge {
		return
	}
	p := 0.0
	switch out.(type) {
	case member.Persist, member.SendMessage, member.Applied:
		p = 0.0003
	case member.StartResource, member.StopResource, member.EndGroup:
		p = 0.01
	}
	if p == 0 || !w.chance(p) {
		return
	}
	w.tell("%s: dies after %T", h.name, out)
	w.rep.Faults++
	if w.chance(0.5) {
		h.killMonitor()
	}
	h.killAgent()
	w.restartLater(h, w.between(time.Millisecond, 2*time.Second))
}

// startCrashes crashes one whole node after another; each time its groups have
// to start elsewhere within the plan's bound, while no other group stops.
func (w *world) startCrashes() {
	until := w.now + int64(w.cfg.For-3*time.Second) // the last one is judged before all is healed
	t := spec.Timings{}.WithDefaults()
	// W by a slow clock, the commit, the start; and what the simulation adds.
	bound := t.TakeoverWait(0)*101/100 + 60*time.Millisecond + 45*time.Millisecond + 300*time.Millisecond
	var next func(waited time.Duration)
	next = func(waited time.Duration) {
		switch {
		case w.now > until:
			w.calm = nil
			return
		case !w.well() && waited > 15*time.Second:
			w.violate("the cluster is not whole %v after a node is back", waited)
			return
		case !w.well():
			w.after(100*time.Millisecond, func() { next(waited + 100*time.Millisecond) })
			return
		}
		h := w.hosts[w.rng.IntN(len(w.hosts))]
		if l := w.leader(); w.chance(0.5) {
			h = l
		}
		var mine []string
		w.calm = map[string]bool{}
		for i := range w.cfg.Groups {
			if id := groupID(i); h.kernel.runs(id) {
				mine = append(mine, id)
			} else {
				w.calm[id] = true
			}
		}
		w.rep.Faults++
		h.killMonitor()
		h.killAgent()
		w.after(bound, func() {
			for _, id := range mine {
				elsewhere := false
				for _, o := range w.hosts {
					elsewhere = elsewhere || o != h && o.kernel.runs(id)
				}
				if !elsewhere {
					w.violate("%s does not run %v after the crash of %s, the plan's bound", id, bound, h.name)
				}
			}
		})
		w.after(w.between(bound, 3*time.Second), func() {
			h.startAgent()
			w.after(w.between(time.Second, 3*time.Second), func() { next(0) })
		})
	}
	w.after(time.Second, func() { next(0) })
}

// well tells whether all nodes are up and each group is online.
func (w *world) well() bool {
	l := w.leader()
	if l == nil {
		return false
	}
	s := l.agent.m.State()
	if len(s.View.Up) < len(w.hosts) {
		return false
	}
	for _, g := range s.Groups {
		if g.State != spec.StateOnline {
			return false
		}
	}
	return true
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
	w.ops.failing, w.edge = false, false
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
		if !w.cfg.Crashes {
			w.ops.promote(h)
		}
	}
}
