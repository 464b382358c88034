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
	agent      *agent            // nil: not running
	oldMonitor *monitor          // of a former agent, still holding the node's lock
	lastEpochs map[string]uint64 // the monitors' record on disk
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (h *host) now() spec.Instant { return h.clock.read(h.w.now) }

func (h *host) startProcess(group, resource string, epoch uint64) {
	if h.kernel.running[group] == nil {
		h.kernel.running[group] = map[string]uint64{}
	}
	fresh := len(h.kernel.running[group]) == 0
	h.kernel.running[group][resource] = epoch
	if fresh {
		h.w.tell("%s: starts %s (epoch %d)", h.name, group, epoch)
		h.w.check.started(h, group, epoch)
	}
}

func (h *host) stopProcess(group, resource string) {
	if _, ok := h.kernel.running[group][resource]; !ok {
		return
	}
	delete(h.kernel.running[group], resource)
	if len(h.kernel.running[group]) == 0 {
		delete(h.kernel.running, group)
		h.w.tell("%s: %s is down", h.name, group)
		h.w.check.stopped(h, group)
	}
}

// agent is the agent process: a member, its store's goroutine, its socket.
type agent struct {
	h       *host
	m       *member.Member
	mon     *monitor
	paused  bool
	inbox   []member.Input // while paused
	timer   uint64         // generation
	armed   spec.Instant
	writing []member.Persist // queue of the store's goroutine
	under   *confdb.Persist  // being written
	inStep  bool
	pending []member.Input
	heard   map[frameID]bool // what the seal's memory refuses when it comes again
}

type frameID struct{ incarnation, seq uint64 }

func (h *host) startAgent() {
	if h.agent != nil {
		return
	}
	a := &agent{h: h, heard: map[frameID]bool{}}
	h.agent = a
	drv, state, index := h.disk.open(h)
	a.m = member.New(member.Config{
		ClusterID: "sim", NodeID: h.nodeID, NodeName: h.name, Endpoint: h.endpoint, Version: "sim",
		ServerID: h.server, Incarnation: h.w.rng.Uint64() | 1, Seed: h.w.rng.Uint64(),
		Driver: drv, State: state, StateIndex: index,
	}, h.now())
	h.w.tell("%s: agent starts", h.name)
	a.schedule()
	h.w.after(h.w.between(10*time.Millisecond, 60*time.Millisecond), h.spawnMonitor)
}

// spawnMonitor starts a monitor once the old one, which holds the lock, is gone.
func (h *host) spawnMonitor() {
	a := h.agent
	if a == nil || a.mon != nil || h.oldMonitor != nil {
		return
	}
	a.mon = h.newMonitor()
	mon := a.mon
	h.w.after(h.w.between(5*time.Millisecond, 30*time.Millisecond), func() {
		mon.run(func() {
			for _, id := range sortedKeys(h.kernel.running) { // what the last one left
				for _, r := range sortedKeys(h.kernel.running[id]) {
					h.stopProcess(id, r)
				}
			}
			h.w.check.cleaned(h)
			mon.tell(member.MonitorUp{})
		})
	})
}

// killAgent is kill -9 of the agent. Its monitor, if it lives, goes on until
// its lease ends.
func (h *host) killAgent() {
	a := h.agent
	if a == nil {
		return
	}
	h.w.tell("%s: agent dies", h.name)
	h.agent = nil
	if a.mon != nil && a.mon.alive {
		h.oldMonitor = a.mon
		mon := a.mon
		mon.orphan = true
		if mon.lease <= h.now() {
			h.w.after(time.Millisecond, func() { mon.run(mon.leaseOver) })
		}
	}
	h.disk.crash(h.w, a.under)
}

func (h *host) killMonitor() {
	switch {
	case h.agent != nil && h.agent.mon != nil:
		h.w.tell("%s: monitor dies", h.name)
		h.agent.mon.kill()
	case h.oldMonitor != nil:
		h.oldMonitor.kill()
	}
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
		for _, out := range a.m.Step(a.h.now(), in) {
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
	a.schedule()
}

func (a *agent) schedule() {
	next := a.m.NextDeadline()
	if next == 0 || next == a.armed {
		return
	}
	a.armed = next
	a.timer++
	own := a.timer
	w := a.h.w
	late := w.between(0, 300*time.Microsecond) // a timer's own lateness
	w.at(a.h.clock.when(next)+int64(late), func() {
		if a.timer == own && a.h.agent == a {
			a.armed = 0
			a.input(member.Tick{})
		}
	})
}

func (a *agent) carryOut(out member.Output) {
	h, w := a.h, a.h.w
	switch o := out.(type) {
	case member.SendFrame:
		to := w.hostAt(o.To)
		if to == nil || to == h {
			return
		}
		frame := cloneFrame(o.Frame)
		w.record(h, to, frame)
		w.send(h.index, to.index, func() {
			if to.agent != nil {
				to.agent.heard[frameID{frame.Incarnation, frame.Seq}] = true
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
			if to.agent != nil && to.server == msg.To {
				to.agent.input(member.MessageIn{Message: msg})
			}
		})
	case member.Persist:
		a.writing = append(a.writing, o)
		a.write()
	case member.Renew:
		if a.mon != nil {
			mon, end := a.mon, o.End
			if w.cfg.Mutate == LongLease {
				end = end.Add(400 * time.Millisecond)
			}
			mon.order(func() { mon.renew(end) })
		}
	case member.StartResource:
		if a.mon != nil {
			mon := a.mon
			mon.order(func() { mon.start(o) })
		}
	case member.StopResource:
		if a.mon != nil {
			mon := a.mon
			mon.order(func() { mon.stop(o) })
		}
	case member.EndGroup:
		if a.mon != nil {
			mon := a.mon
			mon.order(func() { mon.end(o.Group, o.Epoch) })
		}
	case member.StartFence:
		w.fences.start(a, o)
	case member.CancelFence:
		w.fences.cancel(a, o.ID)
	case member.Reply:
		w.ops.reply(h, o)
	case member.Applied:
		w.check.applied(a, o)
	case member.Log:
		w.tell("%s: log: %s %v", h.name, o.Text, o.Args)
	case member.Stopped:
		w.tell("%s: agent ends in order", h.name)
		h.killMonitor()
		h.killAgent()
	default:
		panic(fmt.Sprintf("sim: unknown output %T", out))
	}
}

// write is the store's goroutine: one synced write after the other.
func (a *agent) write() {
	if a.under != nil || len(a.writing) == 0 {
		return
	}
	p := a.writing[0]
	a.under = &p.What
	a.writing = a.writing[1:]
	w := a.h.w
	took := w.between(200*time.Microsecond, 6*time.Millisecond)
	if !w.cfg.Crashes && w.chance(0.03) { // a slow disk is a fault of its own
		took = w.between(10*time.Millisecond, 120*time.Millisecond)
	}
	w.after(took+a.h.disk.slow, func() {
		if a.h.agent != a {
			return // it died with the write under way
		}
		a.h.disk.stored.Write(p.What)
		a.under = nil
		a.input(member.Persisted{N: p.N})
		a.write()
	})
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
