package sim

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// checker holds what must always be true, in true time, over all hosts:
//
//   - at most one host runs anything of a group
//   - a host starts a group only under an epoch that is committed as its own
//   - a group starts elsewhere no earlier than its former owner could still
//     have run it, by lease, stop and kill on that owner's own clock (slack)
//   - replicas at the same revision are equal
//   - no acknowledged update is ever lost
//   - once faults end, every group that should run does, and all agree
//   - when a node crashes and all else is well (Config.Crashes): its groups start
//     elsewhere within the plan's bound, and no other group stops
type checker struct {
	w       *world
	byRev   map[uint64]uint64            // revision -> hash of the replicated decisions
	owners  map[string]map[uint64]string // group -> epoch -> node id, as committed
	last    map[string]tenure            // group -> the newest tenure
	acked   map[string]bool              // command ids
	seenRev map[*agent]uint64
}

// tenure is one host's running of a group.
type tenure struct {
	h     *host
	epoch uint64
	down  bool
	until int64 // true time at which it could still have run at the latest, by its lease
}

func (c *checker) init(w *world) {
	c.w = w
	c.byRev = map[uint64]uint64{}
	c.owners = map[string]map[uint64]string{}
	c.last = map[string]tenure{}
	c.acked = map[string]bool{}
	c.seenRev = map[*agent]uint64{}
}

// started is called when the first process of a group starts on h.
func (c *checker) started(h *host, group string, epoch uint64) {
	w := c.w
	w.rep.Starts++
	for _, other := range w.hosts {
		if other != h && other.kernel.runs(group) {
			w.violate("two owners: %s starts %s (epoch %d) while %s runs it", h.name, group, epoch, other.name)
		}
	}
	if owner, ok := c.owners[group][epoch]; !ok || owner != h.nodeID {
		w.violate("%s starts %s under epoch %d, which is not committed as its own (owner %q)", h.name, group, epoch, owner)
	}
	last, ok := c.last[group]
	if ok && last.h != h {
		w.rep.Failovers++
		if !last.down {
			// Nothing told that it stopped but time: how long ago could it have run at the latest?
			slack := time.Duration(w.now - last.until)
			w.rep.LeastSlack = min(w.rep.LeastSlack, slack)
			if slack < 0 {
				w.violate("%s starts %s %v before its former owner %s must have stopped", h.name, group, -slack, last.h.name)
			}
		}
	}
	c.last[group] = tenure{h: h, epoch: epoch}
	c.leases(h)
}

// leases notes until when the groups on h could run by its present lease.
func (c *checker) leases(h *host) {
	mon := h.oldMonitor
	if h.agent != nil && h.agent.mon != nil {
		mon = h.agent.mon
	}
	if mon == nil {
		return
	}
	for id, g := range mon.groups {
		if t, ok := c.last[id]; ok && t.h == h && !t.down {
			end := h.clock.when(mon.lease.Add(g.stopWithin + defaultKill))
			t.until = max(t.until, end)
			c.last[id] = t
		}
	}
}

var defaultKill = spec.Timings{}.WithDefaults().Kill.D()

// stopped is called when nothing of a group is left on h.
func (c *checker) stopped(h *host, group string) {
	if c.w.calm[group] {
		c.w.violate("%s stops on %s, which is well", group, h.name)
	}
	c.leases(h)
	if t, ok := c.last[group]; ok && t.h == h {
		mon := h.oldMonitor
		if h.agent != nil && h.agent.mon != nil {
			mon = h.agent.mon
		}
		if mon != nil && mon.alive {
			t.down = true // its monitor saw it go: a release may follow
		}
		c.last[group] = t
	}
}

// cleaned is called when a new monitor has seen to it that nothing is left of
// an earlier one: its node may release.
func (c *checker) cleaned(h *host) {
	for id, t := range c.last {
		if t.h == h && !h.kernel.runs(id) {
			t.down = true
			c.last[id] = t
		}
	}
}

// stepped looks at a member after each of its steps.
func (c *checker) stepped(a *agent) {
	c.leases(a.h)
	s := a.m.State()
	if s == nil || s.Revision == c.seenRev[a] {
		return
	}
	c.seenRev[a] = s.Revision
	h := digest(s)
	if was, ok := c.byRev[s.Revision]; ok && was != h {
		c.w.violate("replicas differ at revision %d: %s is not as another was", s.Revision, a.h.name)
	}
	c.byRev[s.Revision] = h
	for id, g := range s.Groups {
		if g.Owner.Node == "" {
			continue
		}
		if c.owners[id] == nil {
			c.owners[id] = map[uint64]string{}
		}
		if was, ok := c.owners[id][g.Owner.Epoch]; ok && was != g.Owner.Node {
			c.w.violate("epoch %d of %s has two owners in the database: %s and %s", g.Owner.Epoch, id, was, g.Owner.Node)
		}
		c.owners[id][g.Owner.Epoch] = g.Owner.Node
	}
}

func (c *checker) applied(*agent, member.Applied) {}

// digest hashes what the replicas must agree on.
func digest(s *confdb.State) uint64 {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, id := range sortedKeys(s.Nodes) {
		_ = enc.Encode(s.Nodes[id])
	}
	for _, id := range sortedKeys(s.Groups) {
		_ = enc.Encode(s.Groups[id])
	}
	for _, id := range sortedKeys(s.Fences) {
		_ = enc.Encode(s.Fences[id])
	}
	_ = enc.Encode(s.View)
	if n := len(s.Done); n > 0 {
		_ = enc.Encode(s.Done[n-1])
	}
	h := fnv.New64a()
	h.Write(b.Bytes())
	return h.Sum64()
}

// settled judges the end, when all faults have been gone for a while.
func (c *checker) settled(w *world) {
	var newest *confdb.State
	for _, h := range w.hosts {
		if h.agent == nil {
			w.violate("%s: its agent does not run at the end", h.name)
			return
		}
		if s := h.agent.m.State(); newest == nil || s.Revision > newest.Revision {
			newest = s
		}
	}
	done := map[string]bool{}
	for _, d := range newest.Done {
		done[d.ID] = true
	}
	if len(newest.Done) < 4900 { // the ring of ids has not turned over
		for _, id := range sortedKeys(c.acked) {
			if !done[id] {
				w.violate("update %s was acknowledged and is lost", id)
			}
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
			w.violate("%s is wanted offline and runs on %v at the end", id, runs)
		case g.Want == spec.WantOnline && g.LeftFailed == "" && len(runs) != 1:
			w.violate("%s is wanted online and runs on %v %v after the last fault (owner %s epoch %d, state %s, move %v)",
				id, runs, w.cfg.Settle, g.Owner.Node, g.Owner.Epoch, g.State, g.Move)
		}
	}
}
