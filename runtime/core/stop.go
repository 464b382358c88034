package core

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// stopSlack is for the word of a stop that was cut off at its stop_timeout.
const stopSlack = 5 * time.Second

// stopEnd is when the stop of x has taken too long; 0: never.
func (x *resource) stopEnd(slack time.Duration) spec.Instant {
	if timeout := x.spec.PendingTimeout.D(); timeout > 0 {
		return x.since.Add(max(timeout, max(x.stop, x.spec.StopTimeout())+slack))
	}
	return 0
}

func (m *Machine) stopOne(r *run, x *resource, reason string) {
	if isDown(x.state) || x.state == spec.StateOfflinePending {
		return
	}
	x.set(spec.StateOfflinePending, reason)
	x.since = m.now
	m.emit(StopResource{Group: r.id, Epoch: r.epoch, Resource: x.spec.Name, Freezer: r.freezes})
}

// stopRun begins to stop a group. What is stopping already, for however long, counts
// from now on: the rest of the group has its own time.
func (m *Machine) stopRun(r *run) {
	r.phase = phaseStopping
	for _, list := range [][]resource{r.resources, r.old} {
		for i := range list {
			if x := &list[i]; x.state == spec.StateOfflinePending {
				x.since = m.now
			}
		}
	}
	m.driveDown(r)
}

// driveDown stops in reverse; when all is down, or its time is over, the
// monitor makes sure that nothing is left. While the lease holds, each
// resource has the time that its type gives it; once the lease is over, all
// have stop_within.
func (m *Machine) driveDown(r *run) {
	left, late := false, false
	for _, list := range [][]resource{r.resources, r.old} {
		for i := range list {
			x := &list[i]
			x.retryAt = 0
			if isDown(x.state) {
				continue
			}
			left = true
			if !r.needed(x) {
				m.stopOne(r, x, x.reason)
				end := x.stopEnd(0)
				late = late || end != 0 && m.now >= end
				earliest(&r.deadline, end)
			}
		}
	}
	if !m.hasLease() {
		end := m.leaseEnd
		if r.freezes {
			end = max(end, r.stopAt) // nothing else ends it
		}
		end = end.Add(r.stopWithin.D())
		late = late || m.now >= end
		earliest(&r.deadline, end)
	}
	if left && !late && m.hosted(r) {
		return
	}
	r.deadline = 0
	r.phase, r.endAt, r.answered = phaseEnding, m.now, false
	if m.hosted(r) {
		m.emit(EndGroup{Group: r.id, Epoch: r.epoch, Freezer: r.freezes})
	}
	m.watchEnd(r)
}

// watchEnd: a stop that is never proven ends this node's lease, and with it,
// by the kernel's hand, the monitor; unless that would help nothing.
func (m *Machine) watchEnd(r *run) {
	if r.endAt == 0 || r.stuck {
		return
	}
	late := r.endAt.Add(r.stopWithin.D() + stuckAfter*r.kill.D() + time.Second)
	if m.now < late {
		earliest(&r.deadline, late)
		return
	}
	if r.freezes && !m.freezer.up && !m.rescued(true) {
		m.waitUnfenced(r) // the next freezer goes on cleaning up after the last one; the lease is no help
		return
	}
	if left := m.heldByScript(r); left != nil {
		if !r.held {
			r.held = true
			m.say("error", "a script does not stop: its group stays with this node until it has, and the node goes on with its others", "group", r.name, "epoch", r.epoch, "resource", left.spec.Name)
			r.note(KindGroupWaits, fmt.Sprintf("group %s stays on node %s, and runs nowhere, until resource %s has stopped: %s", r.name, m.cfg.Name, left.spec.Name, orElse(left.reason, "its stop has not come to an end")))
		}
		m.waitUnfenced(r)
		return
	}
	if r.held { // that has stopped: the proof that all is down has its time from now on
		r.held, r.endAt = false, m.now
		m.watchEnd(r)
		return
	}
	r.stuck = true
	r.note(KindGroupWaits, fmt.Sprintf("group %s does not stop on node %s, which takes no more leases until it has: its other groups go elsewhere", r.name, m.cfg.Name))
	m.say("error", "a stopped group does not go away: this node takes no more leases until it has", "group", r.name, "epoch", r.epoch)
}

// waitUnfenced looks again at a group that has to stay, and has the leader whose own node
// that is know where a fence would free it.
func (m *Machine) waitUnfenced(r *run) {
	earliest(&r.deadline, m.now.Add(heldAgain))
	if g := m.state.Groups[r.id]; g != nil && m.isOpen(g) {
		r.unfenced = true
		m.leadDirty()
	}
}

// heldAgain is when it is looked again whether a group has to stay.
const heldAgain = 10 * time.Second

// rescued tells whether a group is freed from this node, safely, once that gives its
// lease up: by a fence, which the leader's own node has none of, or by its watchdog, but
// for a group that freezes.
func (m *Machine) rescued(freezes bool) bool {
	n := m.state.Nodes[m.cfg.Node]
	return !freezes && n != nil && n.Spec.Watchdog != "" || m.lead == nil && len(m.state.Covering(m.cfg.Node)) > 0
}

// heldByScript is the script whose stop alone keeps a group from being down; nil:
// something else does. A node that gave its lease up for one would lose its other
// groups, and the next monitor could do no more than run the same command; others
// would get the group, by W, while the script is on. So the node keeps the lease, and
// with it the group. Where others wait for its being turned off or its reset, and so
// get the group safely, it does give the lease up; on the leader's own node a fence
// does nothing.
func (m *Machine) heldByScript(r *run) *resource {
	n := m.state.Nodes[m.cfg.Node]
	if !r.answered || r.freezes || m.closing || n == nil {
		return nil
	}
	rescued := m.rescued(false)
	var held *resource
	for _, list := range [][]resource{r.resources, r.old} {
		for i := range list {
			switch x := &list[i]; {
			case isDown(x.state):
			case !x.spec.StopsByCommand() || rescued && x.spec.MayOutlive():
				return nil
			default:
				held = x
			}
		}
	}
	return held
}

// groupDown takes the monitor's proof: its answer to EndGroup, after which
// nothing was started. A word of any other time may have crossed with a start.
func (m *Machine) groupDown(ev GroupDown) {
	r := m.owner.runs[ev.Group]
	if r == nil || ev.Epoch < r.epoch || r.phase != phaseEnding {
		return
	}
	r.allDown("")
	r.dirty, m.owner.dirty = true, true
}
