package sim

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// stepped looks at a member after each of its steps.
func (c *checker) stepped(a *agent) {
	c.leads(a)
	s := a.m.State()
	if s == nil {
		return
	}
	c.isReady(a, s)
	was, known := c.seenRev[a]
	if known && s.Revision == was {
		return
	}
	c.seenRev[a] = s.Revision
	c.w.lab.noted(s)
	c.commands(a, s, was)
	if len(c.w.hosts) <= 16 && c.w.lab == nil || s.Revision%8 == 0 { // each of many nodes at each revision costs too much
		h := digest(s)
		if was, ok := c.byRev[s.Revision]; ok && was != h {
			c.w.violate("", []*host{a.h}, "replicas differ at revision %d: %s is not as another was", s.Revision, a.h.name)
		}
		c.byRev[s.Revision] = h
	}
	for _, id := range sortedKeys(s.Groups) {
		g := s.Groups[id]
		if g.Owner.Epoch > c.newest[id] || c.owners[id] == nil || c.owners[id][g.Owner.Epoch].node != g.Owner.Node {
			c.epoch(a, s, id, g)
		}
		if g.State == spec.StateOnline && g.Owner.Node != "" {
			if by := c.ran[id][g.Owner.Epoch]; by == nil || by.nodeID != g.Owner.Node {
				c.w.violate(id, []*host{c.w.hostOf(g.Owner.Node), by}, "%s is online on %s under epoch %d by the database, and was never started there", id, g.Owner.Node, g.Owner.Epoch)
			}
		}
	}
}

// epoch takes an ownership that is seen for the first time.
func (c *checker) epoch(a *agent, s *confdb.State, id string, g *confdb.Group) {
	if c.owners[id] == nil {
		c.owners[id] = map[uint64]ownership{}
	}
	epoch := g.Owner.Epoch
	if was, ok := c.owners[id][epoch]; ok {
		if was.node != g.Owner.Node {
			c.w.violate(id, []*host{c.w.hostOf(was.node), c.w.hostOf(g.Owner.Node)}, "epoch %d of %s has two owners in the database: %q and %q", epoch, id, was.node, g.Owner.Node)
		}
		return
	}
	c.owners[id][epoch] = ownership{g.Owner.Node, g.Owner.StopWithin.D(), g.Owner.Kill.D()}
	if epoch <= c.newest[id] {
		return
	}
	c.newest[id] = epoch
	if c.since[id] == nil {
		c.since[id] = map[uint64]uint64{}
	}
	c.since[id][epoch] = s.Revision
	c.w.line(lineEpoch, a.h, id, "%s: epoch %d is committed, owner %s", id, epoch, orNobody(g.Owner.Node))
	c.committed(id, epoch)
	if epoch > 1 && s.Revision-c.lastSeen(s) <= 1 {
		c.reason(s, id, g)
	}
}

// lastSeen is the newest revision before the state's that was seen on any node.
func (c *checker) lastSeen(s *confdb.State) uint64 {
	if _, ok := c.byRev[s.Revision-1]; ok {
		return s.Revision - 1
	}
	return 0
}

func orNobody(node string) string {
	if node == "" {
		return "nobody"
	}
	return node
}

// reason wants an event that says why a group changed its owner, and of what
// that follows: a node that is lost, a group that failed, an order.
func (c *checker) reason(s *confdb.State, id string, g *confdb.Group) {
	if was := c.owners[id][g.Owner.Epoch-1]; was.node == "" || was.node == g.Owner.Node {
		return
	}
	object := g.Spec.Addr.String()
	for i := range slices.Backward(s.Events) {
		e := &s.Events[i]
		if e.Object != object {
			continue
		}
		switch e.Kind {
		case confdb.KindGroupAssigned, confdb.KindGroupFailover, confdb.KindGroupReleased, confdb.KindGroupLeft:
			if e.Text == "" || e.Cause == 0 || e.Cause >= e.ID {
				c.w.violate(id, nil, "%s leaves its owner (epoch %d) without a reason: event %d %q follows from %d", id, g.Owner.Epoch, e.ID, e.Text, e.Cause)
			}
			return
		}
		break
	}
	c.w.violate(id, nil, "%s leaves its owner (epoch %d), and the newest event about it doesn't say so", id, g.Owner.Epoch)
}

// commands checks that each revision is one command's, everywhere.
func (c *checker) commands(a *agent, s *confdb.State, since uint64) {
	for i := range slices.Backward(s.Done) {
		d := &s.Done[i]
		if d.Result.Revision <= since {
			return
		}
		if was, ok := c.order[d.Result.Revision]; ok && was != d.ID {
			c.w.violate("", []*host{a.h}, "revision %d is command %s on %s, and was %s elsewhere", d.Result.Revision, d.ID, a.h.name, was)
		}
		c.order[d.Result.Revision] = d.ID
		c.w.clients.applied(d)
		if r, ok := c.reports[d.ID]; ok && d.Result.Code == "" {
			c.wrote(r.group, r.epoch, d.Result.Revision)
		}
	}
}

// acked is called when a client learns that its command was applied.
func (c *checker) acked(a *agent, id string, revision, asked uint64) {
	if was, ok := c.order[revision]; ok && was != id {
		c.w.violate("", []*host{a.h}, "update %s was acknowledged as revision %d, which is %s", id, revision, was)
	}
	if revision <= asked {
		c.w.violate("", []*host{a.h}, "update %s is revision %d, though revision %d had been acknowledged before it was asked for", id, revision, asked)
	}
	c.order[revision] = id
	c.ackedMax = max(c.ackedMax, revision)
	if c.w.hosts[a.h.index].agent == a {
		c.ackedMax = max(c.ackedMax, a.m.State().Revision) // it may read there what is newer
	}
}

// wrote is called when something that was written under an epoch is in the
// database: an application's key, an owner's report.
func (c *checker) wrote(group string, epoch, revision uint64) {
	for later, since := range c.since[group] {
		if later > epoch && since < revision {
			c.w.violate(group, nil, "a write under epoch %d of %s is revision %d, and epoch %d was committed by revision %d", epoch, group, revision, later, since)
		}
	}
}

// isReady is when a leader begins to decide: it has all that was acknowledged
// before its election.
func (c *checker) isReady(a *agent, s *confdb.State) {
	term, _ := a.m.Authority()
	if term == 0 || c.ready[a] == term || !a.m.Status().Driver.Ready {
		return
	}
	c.ready[a] = term
	if acked := c.elected[term].acked; s.Revision < acked {
		c.w.violate("", []*host{a.h}, "acknowledged updates are lost: %s leads term %d at revision %d, and revision %d (%s) was acknowledged before its election",
			a.h.name, term, s.Revision, acked, c.order[acked])
	}
}

// digest hashes what the replicas must agree on; now and then, everything.
func digest(s *confdb.State) uint64 {
	h := fnv.New64a()
	if s.Revision%16 == 0 {
		data, _ := confdb.Encode(s)
		h.Write(data)
		return h.Sum64()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, id := range sortedKeys(s.Groups) {
		g := s.Groups[id]
		_ = enc.Encode([]any{id, g.Owner, g.State, g.Want, g.GaveUp, g.Handover, g.HomeFrom, g.Resources})
	}
	for _, id := range sortedKeys(s.Fences) {
		_ = enc.Encode(s.Fences[id])
	}
	_ = enc.Encode(s.View)
	if n := len(s.Done); n > 0 {
		_ = enc.Encode(s.Done[n-1])
	}
	if n := len(s.Events); n > 0 {
		_ = enc.Encode(s.Events[n-1])
	}
	h.Write(b.Bytes())
	return h.Sum64()
}

// settled judges the end, when all faults have been gone for a while.
func (c *checker) settled() {
	w := c.w
	var newest *confdb.State
	for _, h := range w.hosts {
		if h.agent == nil {
			w.violate("", []*host{h}, "%s: its agent does not run at the end", h.name)
			return
		}
		if s := h.agent.m.State(); newest == nil || s.Revision > newest.Revision {
			newest = s
		}
	}
	if newest.Revision < c.ackedMax {
		w.violate("", nil, "the newest state at the end is of revision %d, and %d was acknowledged", newest.Revision, c.ackedMax)
	}
	for _, h := range w.hosts {
		if s := h.agent.m.State(); newest.Revision-s.Revision > 20 {
			w.violate("", []*host{h}, "%s is at revision %d of %d at the end", h.name, s.Revision, newest.Revision)
		}
		if !slices.Contains(newest.View.Up, h.nodeID) {
			w.violate("", []*host{h}, "%s is not up at the end (%v are)", h.name, newest.View.Up)
		}
	}
	for _, id := range sortedKeys(newest.Groups) {
		g := newest.Groups[id]
		var runs []string
		for _, h := range w.hosts {
			if h.kernel.runs(id) {
				runs = append(runs, h.name)
			}
		}
		switch {
		case g.Want != spec.WantOnline && len(runs) > 0:
			w.violate(id, nil, "%s is wanted offline and runs on %v at the end", id, runs)
		case g.Want == spec.WantOnline && g.LeftFailed == "" && len(runs) != 1:
			w.violate(id, nil, "%s is wanted online and runs on %v %v after the last fault (owner %s epoch %d, state %s, move %v)",
				id, runs, w.cfg.Settle, g.Owner.Node, g.Owner.Epoch, g.State, g.Move)
		case g.Want == spec.WantOnline && g.LeftFailed == "" && w.hostOf(g.Owner.Node) != nil && !w.hostOf(g.Owner.Node).kernel.runs(id):
			w.violate(id, nil, "%s runs on %v, and the database says %s", id, runs, g.Owner.Node)
		}
	}
}
