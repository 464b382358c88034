package sim

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
)

// single tells whether a host's disk is for a single node's database, until
// that has become a majority's: the first host's, until it loses it.
func (h *host) single() bool { return h.w.cfg.Grow && h.index == 0 && h.server == 1000 }

// majority is what a member asks when its single node's database grows.
func (a *agent) majority() func(spec.Instant, uint64, uint64, []byte) (confdb.Driver, confdb.Persist, error) {
	if !a.h.single() {
		return nil
	}
	return func(now spec.Instant, term, index uint64, state []byte) (confdb.Driver, confdb.Persist, error) {
		d, p, err := raftdb.Grow(raftdb.Config{ServerID: a.h.server, Seed: a.h.w.rng.Uint64(), Now: now}, term, index, state)
		return &watched{d, a}, p, err
	}
}

// dieGrowing kills the agent, or the whole node, while its database grows, or just when
// it has: that is written, and nobody knows it yet.
func (a *agent) dieGrowing() bool {
	w := a.h.w
	if !w.faults.on || a.h.agent != a || a.under == nil && w.chance(0.6) {
		return false
	}
	w.line(lineFault, a.h, "", "dies while its database becomes a majority's")
	w.rep.Edges["grow"]++
	if w.chance(0.5) {
		a.h.killMonitors()
	}
	a.h.killAgent()
	w.restartLater(a.h, w.between(time.Millisecond, 2*time.Second))
	return true
}

// grow has the single node's cluster be a majority's, and every host a member,
// as an apply does that is started again until it is through.
func (o *operator) grow() {
	w := o.w
	if l := w.leader(); l != nil {
		switch c := l.agent.m.State().Cluster; {
		case c.Quorum.Model == spec.SingleNode:
			w.tell("operator: quorum model majority_node_set")
			c.Quorum.Model = spec.MajorityNodeSet
			o.submit(l, confdb.Command{PutCluster: &c}, nil)
		case !l.agent.m.Status().Driver.Single:
			for _, h := range w.hosts {
				o.promote(h)
			}
			return
		}
	}
	w.after(300*time.Millisecond, o.grow)
}
