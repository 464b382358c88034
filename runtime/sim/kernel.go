package sim

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// kernel is what a host really runs, whatever its monitor believes.
type kernel struct {
	running map[string]map[string]thing // group id -> resource name -> what serves
}

// thing is what serves for a resource: a process; an address on a device that
// its monitor holds open; or what outlives both, as a mount, until someone takes
// it away or the host is turned off.
type thing struct {
	epoch uint64
	kind  string // of the resource: its type
	by    seat   // whose it is
	up    bool   // its start is over
}

// seat is which of a host's two monitors: the node's, or the freezer.
type seat int

const (
	nodeSeat seat = iota
	freezerSeat
)

const (
	kindAddress = "ip_address"
	kindMount   = "script" // the type that leaves something behind
)

func (k *kernel) runs(group string) bool { return len(k.running[group]) > 0 }

// serves tells whether a host does anything for a group now: one that sleeps
// keeps everything and does nothing.
func (h *host) serves(group string) bool { return !h.suspended && h.kernel.runs(group) }

// drop takes away all of some kinds.
func (h *host) drop(which func(thing) bool) {
	for _, id := range sortedKeys(h.kernel.running) {
		for _, r := range sortedKeys(h.kernel.running[id]) {
			if which(h.kernel.running[id][r]) {
				h.stopProcess(id, r)
			}
		}
	}
}

// dropAddresses is what the kernel does when the process that holds the
// addresses' device is gone.
func (h *host) dropAddresses(by seat) {
	h.drop(func(t thing) bool { return t.by == by && t.kind == kindAddress })
}

// dropProcesses is what the kernel does in the end with the children of a
// process that is gone (guardians, PDEATHSIG).
func (h *host) dropProcesses(by seat) {
	h.drop(func(t thing) bool { return t.by == by && t.kind != kindAddress && t.kind != kindMount })
}

// monitor is the monitor process: what runtime/monitor does, over a simulated
// kernel. Its orders come from the agent; at the lease's end it stops what it
// hosts; the kernel kills it, and all that it hosts, when it has not (dead man).
//
// The freezer is one as well, but for the lease's end: as long as it has its
// agent, that stops nothing there, and no timer of the kernel's is set.
type monitor struct {
	ordered  int64 // when the newest order arrives
	h        *host
	seat     seat
	alive    bool
	paused   bool
	inbox    []func() // while paused
	lease    spec.Instant
	seen     map[string]uint64 // newest epoch per group
	groups   map[string]*monGroup
	deadline uint64       // generation of the lease-end timer
	deadman  uint64       // generation of the kernel's timer
	killAt   spec.Instant // what it is set to; 0: not at all
	orphan   bool         // its agent is gone
	told     int64        // when the newest word does
}

type monGroup struct {
	epoch      uint64
	stopWithin time.Duration
	resources  map[string]spec.Resource
	stopping   bool
	ends       []uint64               // EndGroups that wait for their GroupDown
	waiting    []member.StartResource // that came while it was stopping
}

func (h *host) newMonitor(s seat) *monitor {
	return &monitor{h: h, seat: s, alive: true, seen: h.lastEpochs, groups: map[string]*monGroup{}}
}

// order hands an order over the socket.
func (m *monitor) order(do func()) {
	w := m.h.w
	m.ordered = max(m.ordered, w.now+int64(w.between(20*time.Microsecond, 200*time.Microsecond))) // one socket: in order
	w.after(time.Duration(m.ordered-w.now), func() { m.run(do) })
}

// run does something in the monitor's process: not when dead, later when paused.
func (m *monitor) run(do func()) {
	switch {
	case !m.alive:
	case m.paused:
		m.inbox = append(m.inbox, do)
	default:
		do()
	}
}

// tell sends a word to the agent that spawned it.
func (m *monitor) tell(in member.Input) {
	a := m.h.agent
	w := m.h.w
	m.told = max(m.told, w.now+int64(w.between(20*time.Microsecond, 200*time.Microsecond)))
	w.at(m.told, func() {
		if m.h.agent == a && a != nil && a.mons[m.seat] == m {
			a.input(in)
		}
	})
}

func (m *monitor) renew(end spec.Instant) {
	if end <= m.lease || m.h.now() >= end {
		return
	}
	m.lease = end
	m.arm()
}

// arm sets the monitor's own timer and the kernel's.
func (m *monitor) arm() {
	m.deadline++
	own := m.deadline
	m.h.timer(m.lease, 0, func() {
		m.run(func() {
			if m.deadline == own {
				m.leaseOver()
			}
		})
	})
	m.armKernel()
}

// armKernel sets the dead man's timer: for the lease's end and the least
// stop_within of what runs.
func (m *monitor) armKernel() {
	m.deadman++
	armed := m.deadman
	m.killAt = 0
	if m.lasts() {
		return
	}
	for id, g := range m.groups {
		if at := m.lease.Add(g.stopWithin); m.h.kernel.runs(id) && (m.killAt == 0 || at < m.killAt) {
			m.killAt = at
		}
	}
	if m.killAt == 0 {
		return // nothing runs
	}
	m.h.timer(m.killAt, 0, func() {
		if m.deadman == armed {
			m.h.killByTimer(m)
		}
	})
}

// killByTimer is the kernel's hand. It asks no one, paused or not.
func (h *host) killByTimer(m *monitor) {
	if m.alive {
		h.tell("the kernel kills the monitor: its lease is over")
		m.kill()
	}
}

// lasts tells whether what it hosts goes on at the lease's end.
func (m *monitor) lasts() bool { return m.seat == freezerSeat && !m.orphan }

// orphaned is when its agent is gone.
func (m *monitor) orphaned() {
	m.orphan = true
	if m.seat == freezerSeat { // a monitor like any other from here on
		m.lease = max(m.lease, m.h.now())
		m.arm()
	} else if m.lease <= m.h.now() {
		m.h.w.after(time.Millisecond, func() { m.run(m.leaseOver) })
	}
}

func (m *monitor) leaseOver() {
	if m.lasts() {
		if len(m.groups) > 0 {
			m.h.tell("the lease is over: the freezer goes on")
			m.h.w.rep.Frozen++
		}
		return
	}
	if len(m.groups) > 0 {
		m.h.tell("the lease is over: the monitor stops its groups")
	}
	for _, id := range sortedKeys(m.groups) {
		m.takeDown(id, m.groups[id]) // unasked: nobody is told
	}
	if m.orphan {
		m.h.w.after(200*time.Millisecond, func() {
			m.run(func() {
				m.endWatchdog()
				m.kill()
			})
		})
	}
}

func (m *monitor) start(o member.StartResource) {
	if o.Epoch < m.seen[o.Group] {
		m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateFailed, Reason: "older epoch"})
		return
	}
	if m.h.now() >= m.lease {
		m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateOffline, Reason: "no lease"})
		return
	}
	m.seen[o.Group] = max(m.seen[o.Group], o.Epoch)
	g := m.groups[o.Group]
	if g == nil || g.epoch != o.Epoch {
		g = &monGroup{epoch: o.Epoch, resources: map[string]spec.Resource{}}
		m.groups[o.Group] = g
	}
	if g.stopping {
		g.waiting = append(g.waiting, o)
		return
	}
	g.stopWithin = o.StopWithin.D()
	g.resources[o.Resource.Name] = o.Resource
	m.h.startProcess(o.Group, o.Resource.Name, thing{epoch: o.Epoch, kind: o.Resource.Type, by: m.seat})
	m.armKernel()
	w := m.h.w
	if w.faults.on && w.chance(0.01) {
		w.after(w.between(0, 5*time.Millisecond), m.kill) // right after the start
	}
	took := w.between(2*time.Millisecond, 40*time.Millisecond)
	if w.faults.on && w.chance(0.03) {
		took = w.between(40*time.Millisecond, 2*time.Second) // longer than a lease
	}
	w.after(took, func() {
		m.run(func() {
			if m.groups[o.Group] != g || g.stopping || m.h.kernel.running[o.Group][o.Resource.Name].epoch != o.Epoch {
				return
			}
			if m.h.failsStart(o.Group) {
				m.h.stopProcess(o.Group, o.Resource.Name)
				m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateFailed, Reason: "start failed"})
				return
			}
			m.h.started(o.Group, o.Resource.Name)
			m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateOnline})
		})
	})
}

// failsStart tells whether a start of the group fails now.
func (h *host) failsStart(group string) bool {
	return h.w.faults.on && (h.failing[group] > h.w.now || h.w.chance(0.04))
}

func (m *monitor) stop(o member.StopResource) {
	g := m.groups[o.Group]
	if g != nil {
		g.waiting = slices.DeleteFunc(g.waiting, func(w member.StartResource) bool { return w.Resource.Name == o.Resource })
	}
	if g == nil || g.epoch != o.Epoch || m.h.kernel.running[o.Group][o.Resource].epoch == 0 {
		m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource, State: spec.StateOffline})
		return
	}
	m.stopping(o.Group, g, o.Resource, m.stopTime(g))
}

// stopping ends a resource's stop, once it has lasted so long and the script's own
// doesn't fail.
func (m *monitor) stopping(group string, g *monGroup, resource string, took time.Duration) {
	m.h.w.after(took, func() {
		m.run(func() {
			switch {
			case m.groups[group] != g || m.h.kernel.running[group][resource].epoch != g.epoch:
			case m.h.wedges(group, resource):
				m.stopping(group, g, resource, stopAgain)
			default:
				m.h.stopProcess(group, resource)
				m.armKernel()
				m.tell(member.ResourceChanged{Group: group, Epoch: g.epoch, Resource: resource, State: spec.StateOffline})
			}
		})
	})
}

// stopAgain is between two tries of a script's stop that fails.
const stopAgain = 100 * time.Millisecond

// wedges tells whether the stop of a resource fails now.
func (h *host) wedges(group, resource string) bool {
	return h.failsToStop() && h.kernel.running[group][resource].kind == kindMount
}

// wedge has the stops of this host's scripts fail for a time. One that is on fails
// as well then, and its monitor stops it.
func (h *host) wedge(d time.Duration) {
	h.tell("stops of scripts fail for %v", d)
	h.wedged = h.w.now + int64(d)
	for _, m := range h.monitors() {
		for _, id := range sortedKeys(m.groups) {
			g := m.groups[id]
			for _, r := range sortedKeys(h.kernel.running[id]) {
				if t := h.kernel.running[id][r]; t.kind == kindMount && t.by == m.seat && t.epoch == g.epoch && !g.stopping {
					h.w.rep.Wedged++
					m.run(func() {
						m.tell(member.ResourceChanged{Group: id, Epoch: t.epoch, Resource: r, State: spec.StateFailed, Reason: "check failed", Stopping: true})
						m.stopping(id, g, r, stopAgain)
					})
				}
			}
		}
	}
}

// stopTime is how long a stop takes; now and then it hangs until the dead man
// or the kill at the group's stop_within ends it.
func (m *monitor) stopTime(g *monGroup) time.Duration {
	w := m.h.w
	switch {
	case w.faults.on && w.chance(0.005):
		return time.Minute // a hung stop: longer than pending_timeout
	case !w.cfg.Crashes && w.chance(0.02):
		return g.stopWithin * 3
	}
	return w.between(time.Millisecond, 30*time.Millisecond)
}

// end makes sure that nothing of the group is left, then says so.
func (m *monitor) end(group string, epoch uint64) {
	g := m.groups[group]
	if g == nil {
		if !m.h.kernel.runs(group) {
			m.tell(member.GroupDown{Group: group, Epoch: epoch})
		}
		return
	}
	if g.epoch > epoch {
		m.tell(member.GroupDown{Group: group, Epoch: epoch}) // nothing of that one is left
		return
	}
	g.ends, g.waiting = append(g.ends, epoch), nil
	m.takeDown(group, g)
}

// takeDown stops all of a group.
func (m *monitor) takeDown(group string, g *monGroup) {
	if g.stopping {
		return
	}
	g.stopping = true
	m.takingDown(group, g, min(m.stopTime(g), g.stopWithin))
}

func (m *monitor) takingDown(group string, g *monGroup, took time.Duration) {
	m.h.w.after(took, func() {
		m.run(func() {
			if m.groups[group] != g {
				return
			}
			for _, r := range sortedKeys(m.h.kernel.running[group]) {
				if m.h.wedges(group, r) {
					m.tell(member.ResourceChanged{Group: group, Epoch: g.epoch, Resource: r, State: spec.StateOfflinePending, Reason: "its stop fails"})
					continue
				}
				m.h.stopProcess(group, r)
				m.tell(member.ResourceChanged{Group: group, Epoch: g.epoch, Resource: r, State: spec.StateOffline})
			}
			if m.h.kernel.runs(group) {
				m.takingDown(group, g, stopAgain)
				return
			}
			delete(m.groups, group)
			m.armKernel()
			for _, e := range g.ends {
				m.tell(member.GroupDown{Group: group, Epoch: e})
			}
			for _, o := range g.waiting {
				m.start(o)
			}
		})
	})
}

// kill ends the monitor at once. Its addresses go with it; its processes take
// up to K (PDEATHSIG, guardians). A host that wakes up kills first what was due
// while it slept, and all of it, before anything else runs.
func (m *monitor) kill() {
	if !m.alive {
		return
	}
	m.alive = false
	h := m.h
	h.dropAddresses(m.seat)
	if h.waking || h.suspended { // before it does anything again
		h.dropProcesses(m.seat)
	} else {
		h.w.after(h.w.between(0, 40*time.Millisecond), func() { h.dropProcesses(m.seat) })
	}
	if a := h.agent; a != nil && a.mons[m.seat] == m {
		a.input(member.MonitorDown{Freezer: m.seat == freezerSeat})
		a.mons[m.seat] = nil
		h.w.after(h.w.between(50*time.Millisecond, 100*time.Millisecond), func() {
			if h.agent == a {
				h.spawnMonitor(m.seat)
			}
		})
	}
	if h.old[m.seat] == m {
		h.old[m.seat] = nil
		h.w.after(50*time.Millisecond, func() { h.spawnMonitor(m.seat) })
	}
}
