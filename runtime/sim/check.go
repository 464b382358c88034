package sim

import (
	"maps"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// checker holds what must always be true, in true time, over all hosts. Of who
// runs what, here:
//
//   - at most one host runs anything of a group
//   - a host starts a group only under an epoch that is committed as its own,
//     and is the group's newest; never under an older one than before, nor under
//     one that its agent has released
//   - a leader takes a group from its owner, without a release, no earlier than
//     the owner could still have run it, by lease, stop and kill on the owner's
//     own clock (slack); and no lease granted later makes that moment later
//   - a group that freezes, or was fenced, is taken only once its owner does not run it
//   - a leader's authority is older than the election of the next leader: so at
//     most one of them is live; and a term has one leader
//   - no group stops while it must not (world.calm: crashes elsewhere)
//
// Of the database, in check_state.go:
//
//   - one command at each revision, and equal replicas at equal revisions
//   - an update that was acknowledged is in every later leader's state, and
//     comes after those that were acknowledged, or seen by whoever was answered,
//     before it was asked for: with one order for all, that is linearizability
//   - what clients read and write of keys is linearizable, by what they saw alone
//     (clients.go, judged by porcupine)
//   - a group is online by the database only if its owner started it
//   - what an application or an owner writes under an epoch comes before the next epoch
//   - nothing leaves its owner without a reason in the event log
//   - once faults end, all nodes are up, and every group that should run does
type checker struct {
	w *world

	owners  map[string]map[uint64]ownership // group -> epoch -> as committed
	since   map[string]map[uint64]uint64    // group -> epoch -> revision at which it was seen first: it was committed then at the latest
	newest  map[string]uint64               // group -> newest epoch committed
	ran     map[string]map[uint64]*host     // group -> epoch -> who started it
	last    map[string]*host                // group -> who ran it last
	takes   map[string]taking               // group -> the newest takeover without a release
	reports map[string]report               // command id -> what was proposed
	elected map[uint64]election             // term -> when its leader was seen first
	topTerm uint64

	order    map[uint64]string // revision -> id of the command
	byRev    map[uint64]uint64 // revision -> hash of the replicated decisions
	seenRev  map[*agent]uint64
	ready    map[*agent]uint64 // term that its leader was seen ready in
	ackedMax uint64            // newest revision acknowledged to a client
}

type ownership struct {
	node             string
	stopWithin, kill time.Duration
}

// report is what an owner says of its group.
type report struct {
	group string
	epoch uint64
}

type election struct {
	at    int64
	h     *host
	acked uint64 // newest revision acknowledged then; 0: the term was not the newest
}

// taking is a group taken from an owner by time alone.
type taking struct {
	from  *host
	epoch uint64 // the former owner's
	by    *host
}

func (c *checker) init(w *world) {
	*c = checker{
		w: w, owners: map[string]map[uint64]ownership{}, since: map[string]map[uint64]uint64{}, newest: map[string]uint64{}, ran: map[string]map[uint64]*host{},
		last: map[string]*host{}, takes: map[string]taking{}, elected: map[uint64]election{}, reports: map[string]report{},
		order: map[uint64]string{}, byRev: map[uint64]uint64{}, seenRev: map[*agent]uint64{}, ready: map[*agent]uint64{},
	}
}

// started is called when the first thing of a group starts on h.
func (c *checker) started(h *host, group string, epoch uint64) {
	w := c.w
	w.rep.Starts++
	for _, other := range w.hosts {
		if other != h && other.serves(group) && !w.lab.open(group) {
			w.violate(group, []*host{h, other}, "two owners: %s starts %s (epoch %d) while %s runs it", h.name, group, epoch, other.name)
		}
	}
	owner, ok := c.owners[group][epoch]
	switch newest := c.newest[group]; {
	case !ok || owner.node != h.nodeID:
		w.violate(group, []*host{h}, "%s starts %s under epoch %d, which is not committed as its own (owner %q)", h.name, group, epoch, owner.node)
	case newest > epoch:
		w.violate(group, []*host{h, w.hostOf(c.owners[group][newest].node)}, "%s starts %s under epoch %d, and epoch %d is committed", h.name, group, epoch, newest)
	}
	if a := h.agent; a != nil && a.released[group] >= epoch {
		w.violate(group, []*host{h}, "%s starts %s under epoch %d, which it has released", h.name, group, epoch)
	}
	if was := c.last[group]; was != nil && was != h {
		w.rep.Failovers++
	}
	c.last[group] = h
	if c.ran[group] == nil {
		c.ran[group] = map[uint64]*host{}
	}
	c.ran[group][epoch] = h
}

// stopped is called when nothing of a group is left on h.
func (c *checker) stopped(h *host, group string) {
	if c.w.calm[group] {
		c.w.violate(group, []*host{h}, "%s stops on %s, which is well", group, h.name)
	}
}

// woke is called when a host has slept, and the kernel has done what was due.
func (c *checker) woke(h *host) {
	for _, group := range sortedKeys(h.kernel.running) {
		for _, other := range c.w.hosts {
			if other != h && other.serves(group) && !c.w.lab.open(group) {
				c.w.violate(group, []*host{h, other}, "two owners: %s slept and still runs %s, as %s does", h.name, group, other.name)
			}
		}
	}
}

// leased tells whether the present agent had a lease.
func (h *host) leased() bool { return h.agent != nil && h.agent.leased }

// latestStop is the latest true time at which a host can run a group that it
// owns under that epoch: by the newest lease that it was granted.
func (c *checker) latestStop(h *host, o ownership) int64 {
	return h.clock.when(h.leaseTop.Add(o.stopWithin + o.kill))
}

// proposed is called when a leader puts an assignment into its log: it holds it
// for safe at this moment.
func (c *checker) proposed(a *agent, cmd confdb.Command) {
	w, as := c.w, cmd.Assign
	o := c.owners[as.Group][as.From]
	from := w.hostOf(o.node)
	if from != nil && o.node == as.Node && from.kernel.runs(as.Group) && from.released[as.Group] < as.From && from.leased() {
		w.violate(as.Group, []*host{a.h, from}, "%s has %s start anew (epoch %d) on %s, where it runs", a.h.name, as.Group, as.From+1, from.name)
	}
	if term, _ := a.m.Authority(); term < c.topTerm {
		return // it doesn't know yet that it is deposed: this will never be committed
	}
	delete(c.takes, as.Group) // an older proposal is lost: this leader has not got it
	if from == nil || o.node == as.Node || from.leaseTop == 0 || from.released[as.Group] >= as.From || from == a.h && !from.kernel.runs(as.Group) {
		return
	}
	w.rep.Takeovers++
	g, n := a.m.State().Groups[as.Group], a.m.State().Nodes[o.node]
	if g != nil && g.Freezes() || n != nil && n.Fenced.Covers(as.Group, as.From) {
		// No lease says when it is over: it is proven down, or it may run for ever.
		// What was fenced stays down, whatever lease its node has in a later life.
		if from.kernel.runs(as.Group) {
			w.violate(as.Group, []*host{a.h, from}, "%s takes %s (epoch %d), which only a fence frees, from %s, which runs it", a.h.name, as.Group, as.From, from.name)
		}
		return
	}
	slack := time.Duration(w.now - c.latestStop(from, o))
	w.rep.LeastSlack = min(w.rep.LeastSlack, slack)
	w.line(lineEpoch, a.h, as.Group, "takes %s from %s (epoch %d): slack %v", as.Group, from.name, as.From, slack)
	if slack < 0 {
		w.violate(as.Group, []*host{a.h, from}, "%s takes %s (epoch %d) from %s %v before it must have stopped: slack %v", a.h.name, as.Group, as.From, from.name, -slack, slack)
		return
	}
	c.takes[as.Group] = taking{from: from, epoch: as.From, by: a.h}
}

// committed is called when an epoch of a group is seen for the first time.
func (c *checker) committed(group string, epoch uint64) {
	t, ok := c.takes[group]
	if !ok || t.epoch+1 != epoch {
		return
	}
	o := c.owners[group][t.epoch]
	if s := c.knows(t.from, group); s >= epoch {
		return
	}
	if slack := time.Duration(c.w.now - c.latestStop(t.from, o)); slack < 0 {
		c.w.violate(group, []*host{t.by, t.from}, "%s got a lease while %s took %s from it: it can run that for %v after the takeover is committed", t.from.name, t.by.name, group, -slack)
	}
}

// knows is the epoch of a group that a host has applied.
func (c *checker) knows(h *host, group string) uint64 {
	if h.agent == nil {
		return 0
	}
	if g := h.agent.m.State().Groups[group]; g != nil {
		return g.Owner.Epoch
	}
	return c.newest[group] // it is deleted
}

// renewed is called when an agent takes a lease.
func (c *checker) renewed(a *agent, end spec.Instant) {
	h := a.h
	if !a.leased {
		a.leased, h.released = true, maps.Clone(a.released) // what an earlier incarnation released it may run again
	}
	h.leaseTop = max(h.leaseTop, end)
	for _, group := range sortedKeys(c.takes) {
		t := c.takes[group]
		if t.from != h || c.newest[group] <= t.epoch {
			continue
		}
		if c.knows(h, group) > t.epoch {
			delete(c.takes, group)
			continue
		}
		c.w.violate(group, []*host{h, t.by}, "%s gets a lease and doesn't know yet that %s was taken from it (epoch %d is committed)", h.name, group, c.newest[group])
	}
}

// leads looks at a leader after each of its steps.
func (c *checker) leads(a *agent) {
	term, at := a.m.Authority()
	if term == 0 {
		return
	}
	w := c.w
	e, known := c.elected[term]
	switch {
	case !known:
		c.elected[term] = election{at: w.now, h: a.h}
		w.line(lineFault, a.h, "", "leads term %d", term)
		if c.topTerm = max(c.topTerm, term); c.topTerm > term {
			return
		}
		c.elected[term] = election{w.now, a.h, c.ackedMax}
		// Those of older terms may believe what they were told, and no more.
		for _, o := range w.hosts {
			if o != a.h && o.agent != nil {
				c.authority(o.agent)
			}
		}
	case e.h != a.h:
		w.violate("", []*host{a.h, e.h}, "term %d has two leaders: %s and %s", term, e.h.name, a.h.name)
	}
	if at != 0 && term < c.topTerm {
		c.authority(a)
	}
}

// authority checks that a leader's is older than the next leader's election.
func (c *checker) authority(a *agent) {
	term, at := a.m.Authority()
	if at == 0 {
		return
	}
	when := a.h.clock.when(at)
	for t := term + 1; t <= c.topTerm; t++ {
		if e, ok := c.elected[t]; ok && when > e.at {
			c.w.violate("", []*host{a.h, e.h}, "two live authorities: that of %s (term %d) rests on what it sent %v after %s was elected in term %d",
				a.h.name, term, time.Duration(when-e.at), e.h.name, t)
		}
	}
}
