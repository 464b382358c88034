package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// host is one machine: a clock, a kernel, a disk, and the two processes.
type host struct {
	w          *world
	index      int
	name       string // n1
	nodeID     string
	endpoint   string
	server     uint64
	clock      clock
	kernel     kernel
	disk       disk
	path       path        // to the quorum device
	agent      *agent      // nil: not running
	old        [2]*monitor // by seat: of a former agent, still holding the lock
	hadFreezer bool        // its record is on disk
	dog        watchdog
	lastEpochs map[string]uint64 // the monitors' record on disk
	tape       []tap             // the first frames that this life of the agent heard

	suspended bool          // the whole machine sleeps; its boot clock goes on
	since     int64         // suspended: true time
	slept     time.Duration // by the boot clock, in all
	atResume  []func()      // what came due meanwhile
	waking    bool

	// For the invariants, as true observers see it.
	leaseTop spec.Instant      // end of the newest lease that an agent here was granted
	released map[string]uint64 // newest epochs that were released, by the newest incarnation with a lease or a later one
	failing  map[string]int64  // groups whose starts fail here, until a true time
	wedged   int64             // stops of scripts fail here, until a true time
	leaving  bool              // an operator is taking the node out
	deleter  *agent            // was asked to delete the node, and has not answered
	off      bool              // a scenario took it down: it starts only when that says so
	driven   bool              // someone else says when its agent starts (driven.go)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// now is the host's lease time: its boot clock, which goes on while it sleeps.
func (h *host) now() spec.Instant { return h.clock.read(h.w.now) }

// timer lets do happen once the host's clock reads t, and after a sleep at its end.
func (h *host) timer(t spec.Instant, late time.Duration, do func()) {
	w := h.w
	var fire func()
	fire = func() {
		switch left := t.Sub(h.now()); {
		case h.suspended:
			h.atResume = append(h.atResume, fire)
		case left > 0:
			w.after(max(left, time.Microsecond), fire)
		default:
			do()
		}
	}
	w.at(h.clock.when(t)+int64(late), fire)
}

// monitors are the living monitor processes.
func (h *host) monitors() []*monitor {
	var all []*monitor
	for s := range h.old {
		if h.agent != nil && h.agent.mons[s] != nil {
			all = append(all, h.agent.mons[s])
		}
		if h.old[s] != nil {
			all = append(all, h.old[s])
		}
	}
	return all
}

func (h *host) startProcess(group, resource string, t thing) {
	if h.kernel.running[group] == nil {
		h.kernel.running[group] = map[string]thing{}
	}
	fresh := true // beside what an earlier epoch left on, too
	for _, other := range h.kernel.running[group] {
		fresh = fresh && other.epoch != t.epoch
	}
	h.kernel.running[group][resource] = t
	h.w.lab.look(group)
	if fresh {
		h.w.line(lineState, h, group, "starts %s (epoch %d)", group, t.epoch)
		h.w.check.started(h, group, t.epoch)
		h.w.ops.application(h, group, t.epoch)
		h.w.atEdge(edgeStart, h, group, t.epoch)
	}
}

func (h *host) stopProcess(group, resource string) {
	if _, ok := h.kernel.running[group][resource]; !ok {
		return
	}
	delete(h.kernel.running[group], resource)
	h.w.lab.look(group)
	if len(h.kernel.running[group]) == 0 {
		delete(h.kernel.running, group)
		h.w.line(lineState, h, group, "%s is down", group)
		h.w.check.stopped(h, group)
	}
}

// agent is the agent process: a member, its store's goroutine, its socket.
type agent struct {
	h        *host
	m        *member.Member
	mons     [2]*monitor // by seat
	freezer  bool        // it keeps one
	paused   bool
	inbox    []member.Input // while paused
	timer    uint64         // generation
	armed    spec.Instant
	writing  []member.Persist // queue of the store's goroutine
	under    *confdb.Persist  // being written
	inStep   bool
	leased   bool              // it had a lease
	released map[string]uint64 // newest epochs that it released
	ending   bool              // it was asked to
	pending  []member.Input
	heard    map[frameID]bool // what the seal's memory refuses when it comes again
}

type frameID struct{ incarnation, seq uint64 }

func (h *host) startAgent() {
	if h.agent != nil || h.off {
		return
	}
	if h.suspended {
		h.atResume = append(h.atResume, h.startAgent)
		return
	}
	a := &agent{h: h, heard: map[frameID]bool{}, released: map[string]uint64{}, freezer: h.hadFreezer}
	h.tape = nil
	h.agent = a
	drv, state, index := h.disk.open(h)
	drv = &watched{drv, a}
	a.m = member.New(member.Config{
		ClusterID: "sim", NodeID: h.nodeID, NodeName: h.name, Endpoint: h.endpoint, Version: "sim",
		ServerID: h.server, Incarnation: h.w.rng.Uint64() | 1, Seed: h.w.rng.Uint64(),
		Driver: drv, State: state, StateIndex: index, Freezer: h.hadFreezer, Majority: a.majority(),
		Timings: h.w.lab.timings(), Wall: h.w.lab.wall(), Location: h.w.lab.location(),
	}, h.now())
	h.tell("agent starts")
	a.input(member.Tick{}) // as the agent does: a driver over a store has work from the start
	h.w.after(h.w.between(10*time.Millisecond, 60*time.Millisecond), func() { h.spawnMonitor(nodeSeat) })
	if a.freezer {
		h.w.after(h.w.between(10*time.Millisecond, 60*time.Millisecond), func() { h.spawnMonitor(freezerSeat) })
	}
}

// spawnMonitor starts a monitor once the old one, which holds the lock, is gone.
func (h *host) spawnMonitor(s seat) {
	a := h.agent
	if a == nil || a.mons[s] != nil || h.old[s] != nil || s == freezerSeat && !a.freezer {
		return
	}
	if a.paused { // it starts none, and has not heard of the last one's end: no order for that one reaches the next
		h.w.after(50*time.Millisecond, func() {
			if h.agent == a {
				h.spawnMonitor(s)
			}
		})
		return
	}
	mon := h.newMonitor(s)
	a.mons[s] = mon
	h.cleanUp(a, mon, h.cleanUpTime(s))
}

// cleanUp has a new monitor stop what the last one left. Where a fence covers the
// node, or may, as its agent knows, it is not ready before that has succeeded.
func (h *host) cleanUp(a *agent, mon *monitor, took time.Duration) {
	s := mon.seat
	h.w.after(took, func() {
		mon.run(func() {
			h.drop(func(t thing) bool { return t.by == s && (t.kind != kindMount || !h.failsToStop()) }) // what the last one left
			if covers, known := a.m.FenceCovers(); (covers || !known) && h.left(s) {
				h.cleanUp(a, mon, stopAgain)
				return
			}
			h.hadFreezer = h.hadFreezer || s == freezerSeat
			up := member.MonitorUp{Freezer: s == freezerSeat}
			if s != freezerSeat {
				mon.armWatchdog()
				up.Watchdog = h.watchdogTimeout()
			}
			mon.tell(up)
		})
	})
}

// failsToStop tells whether stops of scripts fail here now.
func (h *host) failsToStop() bool { return h.w.faults.on && h.wedged > h.w.now }

// killAgent is kill -9 of the agent. Its monitor, if it lives, goes on until
// its lease ends.
func (h *host) killAgent() {
	a := h.agent
	if a == nil {
		return
	}
	h.tell("agent dies")
	h.agent = nil
	for s, mon := range a.mons {
		if mon != nil && mon.alive {
			h.old[s] = mon
			mon.run(mon.orphaned)
		}
	}
	h.disk.crash(h.w, a.under)
}

func (h *host) killMonitor() { h.killSeat(nodeSeat) }

func (h *host) killSeat(s seat) {
	switch {
	case h.agent != nil && h.agent.mons[s] != nil:
		h.tell("%s dies", [...]string{"monitor", "freezer"}[s])
		h.agent.mons[s].kill()
	case h.old[s] != nil:
		h.old[s].kill()
	}
}

// killMonitors kills both.
func (h *host) killMonitors() {
	h.killSeat(nodeSeat)
	h.killSeat(freezerSeat)
}

// input feeds the member, unless the process is paused.
func (a *agent) input(in member.Input) {
	if a.h.agent != a {
		return
	}
	if a.paused {
		if len(a.inbox) < 5000 { // a socket's buffer is finite
			a.inbox = append(a.inbox, in)
		}
		return
	}
	a.step(in)
}

func (a *agent) resume() {
	if a.h.suspended {
		return // when the host goes on
	}
	a.paused = false
	in := a.inbox
	a.inbox = nil
	for _, i := range in {
		if a.h.agent != a {
			return
		}
		a.step(i)
	}
	a.step(member.Tick{})
}

func (a *agent) step(in member.Input) {
	if a.inStep { // an output's effect came back at once
		a.pending = append(a.pending, in)
		return
	}
	a.inStep = true
	for {
		outs := a.m.Step(a.h.now(), in)
		a.h.w.atEdge(edgePropose, a.h, "", 0)
		for _, out := range outs {
			if a.h.agent != a {
				a.h.w.check.stepped(a) // what it had applied was committed
				return                 // it died on the way
			}
			a.carryOut(out)
			a.dieAtEdge(out)
		}
		if len(a.pending) == 0 || a.h.agent != a {
			break
		}
		in, a.pending = a.pending[0], a.pending[1:]
	}
	a.inStep = false
	a.h.w.check.stepped(a)
	if a.h.agent == a {
		a.schedule()
	}
}

func (a *agent) schedule() {
	next := a.m.NextDeadline()
	if next == 0 || next == a.armed {
		return
	}
	a.armed = next
	a.timer++
	own := a.timer
	late := a.h.w.between(0, 300*time.Microsecond) // a timer's own lateness
	a.h.timer(next, late, func() {
		if a.timer == own && a.h.agent == a {
			a.armed = 0
			a.input(member.Tick{})
		}
	})
}

// seat is the monitor that an order is for; nil: there is none now.
func (a *agent) seat(freezer bool) *monitor {
	if freezer {
		return a.mons[freezerSeat]
	}
	return a.mons[nodeSeat]
}

func (a *agent) carryOut(out member.Output) {
	h, w := a.h, a.h.w
	switch o := out.(type) {
	case *member.SendFrame:
		for _, r := range o.Frame.Releases {
			a.released[r.Group] = max(a.released[r.Group], r.Epoch)
			h.released[r.Group] = max(h.released[r.Group], r.Epoch)
		}
		to := w.hostAt(o.To)
		if to == nil || to == h {
			return
		}
		frame := cloneFrame(o.Frame)
		w.record(h, to, frame)
		w.send(h.index, to.index, func() {
			if to.agent != nil && !to.suspended {
				to.agent.heard[frameID{frame.Incarnation, frame.Seq}] = true
				if len(to.tape) < maxTape {
					to.tape = append(to.tape, tap{h, to, cloneFrame(frame)})
				}
				to.agent.input(member.FrameIn{From: h.endpoint, Frame: frame})
			}
		})
	case member.SendMessage:
		to := w.hostAt(o.To)
		if to == nil || to == h {
			return
		}
		msg := o.Message
		msg.Data = slices.Clone(msg.Data)
		w.send(h.index, to.index, func() {
			if to.agent != nil && !to.suspended && to.server == msg.To {
				to.agent.input(member.MessageIn{Message: msg})
			}
		})
	case member.Persist:
		a.writing = append(a.writing, o)
		a.write()
		if o.What.Grows && w.faults.on && w.chance(0.5) {
			w.after(w.between(0, 8*time.Millisecond), func() { a.dieGrowing() })
		}
	case member.Grown:
		h.tell("its database is a majority's")
		w.rep.Grown++
	case member.DeviceIO:
		w.operate(a, o.Op)
	case member.Renew:
		w.line(lineLease, h, "", "lease until %.6f", float64(h.clock.when(o.End))/1e9)
		w.check.renewed(a, o.End)
		for _, mon := range a.mons {
			if mon != nil {
				mon.order(func() { mon.renew(o.End) })
			}
		}
	case member.StartResource:
		if mon := a.seat(o.Freezer); mon != nil {
			mon.order(func() { mon.start(o) })
		}
	case member.StopResource:
		if mon := a.seat(o.Freezer); mon != nil {
			mon.order(func() { mon.stop(o) })
		}
	case member.EndGroup:
		if mon := a.seat(o.Freezer); mon != nil {
			mon.order(func() { mon.end(o.Group, o.Epoch) })
		}
	case member.StartFreezer:
		a.freezer = true
		w.after(w.between(5*time.Millisecond, 30*time.Millisecond), func() { h.spawnMonitor(freezerSeat) })
	case member.StartFence:
		w.fences.start(a, o)
	case member.CancelFence:
		w.fences.cancel(a, o.ID)
	case member.Reply:
		w.ops.reply(h, o)
	case member.Applied:
		w.atEdge(edgeApply, h, "", 0)
	case member.Log:
		h.tell("log: %s %v", o.Text, o.Args)
	case member.Stopped:
		h.tell("agent ends in order")
		for _, mon := range a.mons {
			if mon != nil && mon.alive {
				mon.endWatchdog()
			}
		}
		h.killMonitors()
		h.killAgent()
		if a.m.Status().Driver.Older {
			w.rep.Older++
			h.tell("says that its disk is older than what it promised: an operator empties it")
			h.loseDisk(w.rng)
			return
		}
		if !h.driven {
			w.restartLater(h, w.between(10*time.Millisecond, 2*time.Second))
		}
	default:
		panic(fmt.Sprintf("sim: unknown output %T", out))
	}
}

func cloneFrame(f heartbeat.Frame) heartbeat.Frame {
	f.Releases = slices.Clone(f.Releases)
	f.Driver = slices.Clone(f.Driver)
	for i := range f.Driver {
		f.Driver[i] = slices.Clone(f.Driver[i])
	}
	return f
}

func (w *world) hostAt(endpoint string) *host {
	for _, h := range w.hosts {
		if h.endpoint == endpoint {
			return h
		}
	}
	return nil
}
