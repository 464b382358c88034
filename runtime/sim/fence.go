package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// fences are the devices that turn hosts off. They may be slow, fail, or do it
// and say that they failed; they never say that a host is off which is not.
type fences struct {
	w         *world
	cancelled map[fenceJob]bool
}

type fenceJob struct {
	a  *agent
	id uint64
}

// fenceCommand is the definition's one fence, for all nodes, used whenever a
// group waits for a lost node.
func fenceCommand() confdb.Command {
	return confdb.Command{PutFence: &spec.Fence{
		ID: "f0", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_sim", Level: 1, Action: spec.FenceOff, When: spec.FenceAlways,
	}}
}

func (f *fences) cancel(a *agent, id uint64) {
	if f.cancelled == nil {
		f.cancelled = map[fenceJob]bool{}
	}
	f.cancelled[fenceJob{a, id}] = true
}

// start is a fence agent's run. It goes on though the clusterplan agent that
// began it dies; only its answer is lost then.
func (f *fences) start(a *agent, o member.StartFence) {
	w := a.h.w
	f.w = w
	var target *host
	for _, h := range w.hosts {
		if h.nodeID == o.Node {
			target = h
		}
	}
	if target == a.h {
		w.violate("", []*host{a.h}, "%s fences itself", a.h.name)
		return
	}
	answer := func(done member.FenceDone) {
		done.ID = o.ID
		a.h.tell("fence of %s: ok %v, cancelled %v %s", target.name, done.OK, done.Cancelled, done.Err)
		if a.h.agent == a {
			a.input(done)
		}
	}
	a.h.tell("fences %s", target.name)
	w.after(w.between(20*time.Millisecond, 700*time.Millisecond), func() {
		switch {
		case f.cancelled[fenceJob{a, o.ID}]:
			answer(member.FenceDone{Cancelled: true})
			return
		case w.faults.on && w.chance(0.2):
			answer(member.FenceDone{Err: "the device does not answer"})
			return
		}
		target.powerOff()
		w.after(w.between(time.Millisecond, 60*time.Millisecond), func() {
			switch {
			case target.agent != nil || len(target.monitors()) > 0 || len(target.kernel.running) > 0:
				answer(member.FenceDone{Err: "the device says that it is on"}) // someone switched it on again
			case w.faults.on && w.chance(0.1):
				answer(member.FenceDone{Err: "the answer was lost"})
			default:
				by, uses := w.lab.fencedBy(o)
				answer(member.FenceDone{OK: true, By: by, Uses: uses})
			}
		})
		if w.lab.staysOff(target, o) {
			return
		}
		w.restartLater(target, w.between(30*time.Millisecond, 3*time.Second))
	})
}

// powerOff ends all of a host at once, paused or not.
func (h *host) powerOff() {
	h.wake() // it is off, not asleep
	h.tell("is turned off")
	h.disarm()
	h.killMonitors()
	h.killAgent()
	h.killMonitors() // those that outlived their agent
	h.drop(func(thing) bool { return true })
	h.leaseTop = 0 // nothing is left that could run by it
}
