package sim

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// kernel is what a host really runs, whatever its monitor believes.
type kernel struct {
	running map[string]map[string]uint64 // group id -> resource name -> epoch
}

func (k *kernel) runs(group string) bool { return len(k.running[group]) > 0 }

// monitor is the monitor process: what runtime/monitor does, over a simulated
// kernel. Its orders come from the agent; at the lease's end it stops what it
// hosts; the kernel kills it, and all that it hosts, when it has not (dead man).
type monitor struct {
	h        *host
	alive    bool
	paused   bool
	inbox    []func() // while paused
	lease    spec.Instant
	seen     map[string]uint64 // newest epoch per group
	groups   map[string]*monGroup
	deadline uint64 // generation of the lease-end timer
	deadman  uint64 // generation of the kernel's timer
	orphan   bool   // its agent is gone
}

type monGroup struct {
	epoch      uint64
	stopWithin time.Duration
	resources  map[string]spec.Resource
	stopping   bool
	ends       []uint64               // EndGroups that wait for their GroupDown
	waiting    []member.StartResource // that came while it was stopping
}

func (h *host) newMonitor() *monitor {
	return &monitor{h: h, alive: true, seen: h.lastEpochs, groups: map[string]*monGroup{}}
}

// order hands an order over the socket.
func (m *monitor) order(do func()) {
	m.h.w.after(m.h.w.between(20*time.Microsecond, 200*time.Microsecond), func() { m.run(do) })
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
	m.h.w.after(m.h.w.between(20*time.Microsecond, 200*time.Microsecond), func() {
		if m.h.agent == a && a != nil && a.mon == m {
			a.input(in)
		}
	})
}

func (m *monitor) renew(end spec.Instant) {
	if end <= m.lease {
		return
	}
	if m.h.now() >= end {
		return
	}
	m.lease = end
	m.arm()
}

// arm sets the monitor's own timer and the kernel's.
func (m *monitor) arm() {
	m.deadline++
	own := m.deadline
	m.h.w.at(m.h.clock.when(m.lease), func() {
		m.run(func() {
			if m.deadline == own {
				m.leaseOver()
			}
		})
	})
	m.armKernel()
}

func (m *monitor) armKernel() {
	m.deadman++
	armed := m.deadman
	least := time.Duration(-1)
	for id, g := range m.groups {
		if m.h.kernel.runs(id) && (least < 0 || g.stopWithin < least) {
			least = g.stopWithin
		}
	}
	if least < 0 {
		return // nothing runs
	}
	m.h.w.at(m.h.clock.when(m.lease.Add(least)), func() {
		if m.alive && m.deadman == armed && m.h.w.cfg.Mutate != NoDeadMan { // the kernel asks no one, paused or not
			m.h.w.tell("%s: the kernel kills the monitor (lease over)", m.h.name)
			m.kill()
		}
	})
}

func (m *monitor) leaseOver() {
	if len(m.groups) > 0 {
		m.h.w.tell("%s: lease over, monitor stops its groups", m.h.name)
	}
	for _, id := range sortedKeys(m.groups) {
		m.takeDown(id, m.groups[id]) // unasked: nobody is told
	}
	if m.orphan {
		m.h.w.after(200*time.Millisecond, func() { m.run(m.kill) })
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
	m.h.startProcess(o.Group, o.Resource.Name, o.Epoch)
	m.armKernel()
	if m.h.w.edge && m.h.w.chance(0.02) {
		m.h.w.after(m.h.w.between(0, 5*time.Millisecond), m.kill) // right after the start
	}
	took := m.h.w.between(2*time.Millisecond, 40*time.Millisecond)
	if m.h.w.ops.failing && m.h.w.chance(0.03) {
		took = m.h.w.between(40*time.Millisecond, 2*time.Second) // longer than a lease
	}
	m.h.w.after(took, func() {
		m.run(func() {
			if m.groups[o.Group] != g || g.stopping || m.h.kernel.running[o.Group][o.Resource.Name] != o.Epoch {
				return
			}
			if m.h.w.ops.failsStart() {
				m.h.stopProcess(o.Group, o.Resource.Name)
				m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateFailed, Reason: "start failed"})
				return
			}
			m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: spec.StateOnline})
		})
	})
}

func (m *monitor) stop(o member.StopResource) {
	g := m.groups[o.Group]
	if g != nil {
		g.waiting = slices.DeleteFunc(g.waiting, func(w member.StartResource) bool { return w.Resource.Name == o.Resource })
	}
	if g == nil || g.epoch != o.Epoch || m.h.kernel.running[o.Group][o.Resource] == 0 {
		m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource, State: spec.StateOffline})
		return
	}
	if m.h.w.cfg.Mutate == EarlyRelease {
		m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource, State: spec.StateOffline})
	}
	m.h.w.after(m.stopTime(g), func() {
		m.run(func() {
			if m.groups[o.Group] == g {
				m.h.stopProcess(o.Group, o.Resource)
				m.armKernel()
				m.tell(member.ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource, State: spec.StateOffline})
			}
		})
	})
}

// stopTime is how long a stop takes; now and then it hangs until the dead man
// or the kill at the group's stop_within ends it.
func (m *monitor) stopTime(g *monGroup) time.Duration {
	if m.h.w.chance(0.02) {
		return g.stopWithin * 3
	}
	return m.h.w.between(time.Millisecond, 30*time.Millisecond)
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
	if m.h.w.cfg.Mutate == EarlyRelease {
		m.tell(member.GroupDown{Group: group, Epoch: g.epoch})
	}
	m.takeDown(group, g)
}

// takeDown stops all of a group.
func (m *monitor) takeDown(group string, g *monGroup) {
	if g.stopping {
		return
	}
	g.stopping = true
	m.h.w.after(min(m.stopTime(g), g.stopWithin), func() {
		m.run(func() {
			if m.groups[group] != g {
				return
			}
			for _, r := range sortedKeys(m.h.kernel.running[group]) {
				m.h.stopProcess(group, r)
				m.tell(member.ResourceChanged{Group: group, Epoch: g.epoch, Resource: r, State: spec.StateOffline})
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

// kill ends the monitor at once; its processes die with it (PDEATHSIG,
// guardians), which takes up to K.
func (m *monitor) kill() {
	if !m.alive {
		return
	}
	m.alive = false
	h := m.h
	h.w.after(h.w.between(0, 40*time.Millisecond), func() {
		for _, id := range sortedKeys(h.kernel.running) {
			for _, r := range sortedKeys(h.kernel.running[id]) {
				h.stopProcess(id, r)
			}
		}
	})
	if a := h.agent; a != nil && a.mon == m {
		a.input(member.MonitorDown{})
		a.mon = nil
		h.w.after(h.w.between(50*time.Millisecond, 100*time.Millisecond), func() {
			if h.agent == a {
				h.spawnMonitor()
			}
		})
	}
	if h.oldMonitor == m {
		h.oldMonitor = nil
		h.w.after(50*time.Millisecond, h.spawnMonitor)
	}
}
