package sim

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// Driven is a cluster that someone else drives, as an apply does: machines come
// and go, their agents are started and stopped, commands and changes of
// membership are asked for. Nothing goes wrong by itself. The invariants of Run
// are checked at every step all the same, and where each group runs is followed.
//
// Time passes only in Advance. One goroutine at a time.
type Driven struct {
	w     *world
	hosts map[string]*host // by node id
	// asked is what had been acknowledged when a command, by its id, was first asked
	// for: one that is asked for again may have come about since.
	asked map[string]uint64
}

// NewDriven is a cluster without machines. Grow: the first machine's database is
// a single node's, whatever the model, until the cluster's says otherwise.
func NewDriven(seed uint64, model spec.QuorumModel, grow bool) *Driven {
	// Crashes: no stop hangs by chance, and no operator has ideas of his own.
	w := newWorld(Config{Seed: seed, Nodes: -1, Model: model, Grow: grow, Crashes: true})
	return &Driven{w: w, hosts: map[string]*host{}, asked: map[string]uint64{}}
}

// Now is the true time since the beginning.
func (d *Driven) Now() time.Duration { return time.Duration(d.w.now) }

// Advance lets everything happen up to a true time.
func (d *Driven) Advance(to time.Duration) {
	if int64(to) > d.w.now {
		d.w.runUntil(int64(to))
	}
}

// Every has look called each span of true time from now on.
func (d *Driven) Every(span time.Duration, look func()) {
	var again func()
	again = func() {
		look()
		d.w.after(span, again)
	}
	d.w.after(span, again)
}

// Violations are the invariants that did not hold.
func (d *Driven) Violations() []string { return slices.Clone(d.w.rep.Violations) }

// Story is what happened, the last of it, for a person.
func (d *Driven) Story() []string { return d.w.story.render(d.w) }

// Tell adds a line to the story.
func (d *Driven) Tell(text string) { d.w.tell("%s", text) }

// Put makes a machine for a node, with an empty data directory and no agent.
func (d *Driven) Put(nodeID, name string) {
	w := d.w
	h := w.newHost(len(w.hosts))
	h.nodeID, h.name, h.driven = nodeID, name, true
	w.hosts = append(w.hosts, h)
	w.net.grow()
	d.hosts[nodeID] = h
}

// Has tells whether there is such a machine.
func (d *Driven) Has(nodeID string) bool { return d.hosts[nodeID] != nil }

// Discard takes a machine away, for good.
func (d *Driven) Discard(nodeID string) {
	d.Crash(nodeID)
	delete(d.hosts, nodeID)
}

// Start starts the node's agent.
func (d *Driven) Start(nodeID string) { d.hosts[nodeID].startAgent() }

// Stop asks the agent to end in order: its groups stop. Runs tells when it has.
func (d *Driven) Stop(nodeID string) {
	if h := d.hosts[nodeID]; h != nil && h.agent != nil && !h.agent.ending {
		h.tell("agent is asked to end")
		h.agent.ending = true
		h.agent.input(member.Shutdown{})
	}
}

// Crash ends a whole node at once.
func (d *Driven) Crash(nodeID string) {
	if h := d.hosts[nodeID]; h != nil {
		h.killMonitors()
		h.killAgent()
	}
}

// Runs tells whether the node's agent runs.
func (d *Driven) Runs(nodeID string) bool {
	h := d.hosts[nodeID]
	return h != nil && h.agent != nil
}

// Server is the id of the node's data directory, and Endpoint where it listens.
func (d *Driven) Server(nodeID string) uint64 { return d.hosts[nodeID].server }

// Endpoint is where the node's agent listens.
func (d *Driven) Endpoint(nodeID string) string { return d.hosts[nodeID].endpoint }

// Leader is the node that leads and can commit; "": there is none now.
func (d *Driven) Leader() string {
	top, id := uint64(0), ""
	for _, h := range d.hosts {
		if h.agent == nil {
			continue
		}
		if s := h.agent.m.Status(); s.Driver.Role == confdb.Leader && s.Driver.Ready && s.Quorum && s.Driver.Term >= top {
			top, id = s.Driver.Term, h.nodeID
		}
	}
	return id
}

// State is a node's copy of the database, not to be written into; nil: its agent
// does not run.
func (d *Driven) State(nodeID string) *confdb.State {
	if h := d.hosts[nodeID]; h != nil && h.agent != nil {
		return h.agent.m.State()
	}
	return nil
}

// Status is what a node's member knows of itself.
func (d *Driven) Status(nodeID string) (member.Status, bool) {
	if h := d.hosts[nodeID]; h != nil && h.agent != nil {
		return h.agent.m.Status(), true
	}
	return member.Status{}, false
}

// Submit asks a node for a command; then gets the answer, or never does.
func (d *Driven) Submit(nodeID string, c confdb.Command, then func(confdb.Result)) {
	h := d.hosts[nodeID]
	if h == nil {
		return
	}
	asked, again := d.asked[c.ID]
	if !again {
		asked = d.w.check.ackedMax
	}
	if c.ID != "" {
		d.asked[c.ID] = asked
	}
	d.w.ops.send(h, c, asked, then)
}

// Membership asks a node for a change of membership.
func (d *Driven) Membership(nodeID string, m member.Membership, then func(confdb.Result)) {
	if h := d.hosts[nodeID]; h != nil {
		d.w.ops.membership(h, m, then)
	}
}

// Running is how many of a group's resources serve now, by node id: what the
// kernels run, whatever anybody believes.
func (d *Driven) Running(group string) map[string]int {
	out := map[string]int{}
	for _, h := range d.w.hosts {
		if n := len(h.kernel.running[group]); n > 0 {
			out[h.nodeID] += n
		}
	}
	return out
}
