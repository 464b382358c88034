package sim

import (
	"bytes"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// The edges on the way of an assignment, at each of which processes die: the
// leader when it was proposed and nothing is written or sent; when it is on the
// leader's disk; when others have it and it may be committed, unknown to the
// leader; the new owner when it has applied it; and when it has started.
const (
	edgePropose = "propose"
	edgePersist = "persist"
	edgeCommit  = "commit"
	edgeApply   = "apply"
	edgeStart   = "start"
)

var edgeNames = []string{edgePropose, edgePersist, edgeCommit, edgeApply, edgeStart}

// edge is a crash that waits for its moment.
type edge struct {
	name  string
	h     *host // who dies
	group string
	epoch uint64
	until int64 // true time: it never came
}

// watched is a driver whose proposals the world sees: the moment at which a
// leader holds a takeover for safe.
type watched struct {
	confdb.Driver
	a *agent
}

// Propose is the driver's, and tells the checker of an assignment.
func (d *watched) Propose(command []byte) error {
	err := d.Driver.Propose(command)
	if bytes.Contains(command, []byte(`"report":{`)) {
		if c, bad := confdb.DecodeCommand(command); bad == nil && c.Report != nil {
			d.a.h.w.check.reports[c.ID] = report{c.Report.Group, c.Report.Epoch}
		}
	}
	if err != nil || !bytes.Contains(command, []byte(`"assign":{`)) {
		return err
	}
	if c, bad := confdb.DecodeCommand(command); bad == nil && c.Assign != nil {
		h := d.a.h
		h.w.check.proposed(d.a, c)
		h.w.planEdge(h, c.Assign)
	}
	return nil
}

// planEdge has someone die on an assignment's way, now and then.
func (w *world) planEdge(leader *host, a *confdb.Assign) {
	if !w.faults.on || w.quiet() || w.edge != nil && w.edge.until > w.now || !w.chance(w.faults.edges) {
		return
	}
	e := &edge{name: edgeNames[w.rng.IntN(len(edgeNames))], h: leader, group: a.Group, epoch: a.From + 1, until: w.now + int64(2*time.Second)}
	if e.name == edgeApply || e.name == edgeStart {
		if e.h = w.hostOf(a.Node); e.h == nil {
			return
		}
	}
	w.edge = e
	if e.name == edgeCommit {
		// The appends are on their way: some followers get to write them.
		w.after(w.between(100*time.Microsecond, 8*time.Millisecond), func() { w.atEdge(edgeCommit, leader, "", 0) })
	}
}

// atEdge tells the plan that a host is at an edge. It tells whether the agent died there.
func (w *world) atEdge(name string, h *host, group string, epoch uint64) bool {
	e := w.edge
	if e == nil || e.name != name || e.h != h || h.agent == nil || w.quiet() {
		return false
	}
	switch name {
	case edgeApply:
		if g := h.agent.m.State().Groups[e.group]; g == nil || g.Owner.Epoch < e.epoch {
			return false
		}
	case edgeStart:
		if group != e.group || epoch < e.epoch {
			return false
		}
	}
	w.edge = nil
	w.rep.Edges[name]++
	w.line(lineFault, h, "", "dies at the edge %q of the assignment of %s (epoch %d)", name, e.group, e.epoch)
	switch w.rng.IntN(3) {
	case 0:
		h.killMonitor()
		fallthrough
	case 1:
		h.killAgent()
		w.restartLater(h, w.between(time.Millisecond, 2*time.Second))
	default:
		h.pauseAgent(w.between(50*time.Millisecond, 3*time.Second))
	}
	return h.agent == nil
}

func (w *world) hostOf(node string) *host {
	for _, h := range w.hosts {
		if h.nodeID == node {
			return h
		}
	}
	return nil
}

// dieAtEdge kills processes between what a member wants done, whatever it is:
// after a proposal went out, after a write was begun, after a commit was
// applied, after an order to the monitor.
func (a *agent) dieAtEdge(out member.Output) {
	h, w := a.h, a.h.w
	if !w.faults.on || h.agent != a || w.quiet() {
		return
	}
	p := 0.0
	switch out.(type) {
	case member.Persist, member.SendMessage, member.Applied:
		p = 0.0002
	case member.StartResource, member.StopResource, member.EndGroup:
		p = 0.005
	}
	if p == 0 || !w.chance(p*w.faults.edges*5) {
		return
	}
	w.line(lineFault, h, "", "dies after %T", out)
	w.rep.Faults++
	w.rep.Kinds["edge"]++
	if w.chance(0.5) {
		h.killMonitor()
	}
	h.killAgent()
	w.restartLater(h, w.between(time.Millisecond, 2*time.Second))
}
