package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// operator forms the cluster, then gives orders through faults, as a person or
// a program would: each with an id of its own, to some node.
type operator struct {
	w       *world
	token   uint64
	waiting map[uint64]func(confdb.Result)
	extra   int   // groups that come and go
	demoted int64 // when a node's vote was last taken
}

func (o *operator) init(w *world) {
	o.w = w
	o.waiting = map[uint64]func(confdb.Result){}
}

// reply comes from a member.
func (o *operator) reply(_ *host, r member.Reply) {
	if f := o.waiting[r.Token]; f != nil {
		delete(o.waiting, r.Token)
		f(r.Result)
	}
}

// submit sends a command to h and reports its result; lost ones never answer.
func (o *operator) submit(h *host, c confdb.Command, then func(confdb.Result)) {
	o.send(h, c, o.w.check.ackedMax, then)
}

// send is submit of a command that was asked for when that revision had been
// acknowledged: it may be sent again.
func (o *operator) send(h *host, c confdb.Command, asked uint64, then func(confdb.Result)) {
	if h.agent == nil {
		return
	}
	o.token++
	token := o.token
	if c.ID == "" {
		c.ID = fmt.Sprintf("op-%d", token)
	}
	c.Time = time.Unix(1_700_000_000, o.w.now).UTC()
	if o.w.lab != nil {
		c.Time = o.w.lab.wall()
	}
	c.Author = "sim"
	a := h.agent
	o.waiting[token] = func(r confdb.Result) {
		if r.Revision != 0 {
			o.w.check.acked(a, c.ID, r.Revision, asked)
			o.w.rep.Acked++
		}
		if then != nil {
			then(r)
		}
	}
	h.agent.input(member.Submit{Token: token, Command: c})
}

func (o *operator) membership(h *host, m member.Membership, then func(confdb.Result)) {
	if h.agent == nil {
		return
	}
	o.token++
	m.Token = o.token
	o.waiting[m.Token] = then
	h.agent.input(m)
}

// order is one of an operator's, with how often it comes.
type order struct {
	weight int
	do     func(o *operator, h *host, group string)
}

var orders = []order{
	{3, func(o *operator, h *host, group string) {
		to := o.w.hosts[o.w.rng.IntN(len(o.w.hosts))]
		o.w.tell("operator: move %s to %s (asked of %s)", group, to.name, h.name)
		o.submit(h, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: group, To: to.nodeID}}, nil)
	}},
	{1, func(o *operator, h *host, group string) {
		o.w.tell("operator: move %s elsewhere", group)
		o.submit(h, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: group}}, nil)
	}},
	{3, func(o *operator, h *host, group string) {
		back := o.w.between(20*time.Millisecond, 3*time.Second)
		o.w.tell("operator: %s offline, and online again %v later", group, back)
		o.submit(h, confdb.Command{SetWant: &confdb.SetWant{Group: group, Want: spec.WantOffline}}, nil)
		o.w.after(back, func() { o.wantOnline(group) })
	}},
	{3, func(o *operator, h *host, _ string) {
		drain := o.w.chance(0.6)
		o.w.tell("operator: pause %s (drain %v), and resume 3 s later", h.name, drain)
		o.submit(h, confdb.Command{PauseNode: &confdb.PauseNode{Node: h.nodeID, Drain: drain}}, nil)
		o.w.after(3*time.Second, func() { o.resume(h.nodeID) })
	}},
	{1, func(o *operator, h *host, _ string) { o.resume(h.nodeID) }}, // ends a quarantine
	{3, func(o *operator, h *host, _ string) { o.demote(h) }},
	{2, func(o *operator, h *host, _ string) { o.transfer(h) }},
	{2, func(o *operator, h *host, _ string) { o.lease(h) }},
	{2, func(o *operator, h *host, group string) { o.change(h, group) }},
	{1, func(o *operator, h *host, _ string) { o.comeAndGo(h) }},
	{1, func(o *operator, h *host, _ string) { o.replace(h) }},
	{1, func(o *operator, h *host, _ string) { o.evict(h) }},
	{8, func(o *operator, h *host, _ string) { // what an application writes: kept, whatever happens
		o.submit(h, confdb.Command{KV: &confdb.KVWrite{Key: "key", Value: []byte(h.name)}}, nil)
	}},
}

// start gives orders from now on, at random times to random nodes.
func (o *operator) start() {
	w := o.w
	if w.cfg.NoFault || w.cfg.Crashes {
		return
	}
	total := 0
	for _, d := range orders {
		total += d.weight
	}
	until := w.now + int64(w.cfg.For)
	var next func()
	next = func() {
		if w.now > until {
			return
		}
		n := w.rng.IntN(total)
		for _, d := range orders {
			if n -= d.weight; n < 0 {
				d.do(o, w.hosts[w.rng.IntN(len(w.hosts))], groupID(w.rng.IntN(w.cfg.Groups)))
				break
			}
		}
		w.after(w.between(100*time.Millisecond, 3*time.Second), next)
	}
	w.after(time.Second, next)
}

// application is what a group's program does with the database from its start
// on: it writes under its epoch. The last write is late: maybe it owns the group
// no longer.
func (o *operator) application(h *host, group string, epoch uint64) {
	if !o.w.faults.on {
		return
	}
	write := func() {
		o.submit(o.w.hosts[o.w.rng.IntN(len(o.w.hosts))], confdb.Command{KV: &confdb.KVWrite{Space: group, Key: "owner", Value: []byte(h.name), Epoch: epoch}}, func(r confdb.Result) {
			if r.Code == "" {
				o.w.check.wrote(group, epoch, r.Revision)
			}
		})
	}
	at := time.Duration(0)
	for range 3 {
		at += o.w.between(50*time.Millisecond, 900*time.Millisecond)
		o.w.after(at, func() {
			if h.kernel.running[group]["a"].epoch == epoch {
				write()
			}
		})
	}
	o.w.after(o.w.between(0, 6*time.Second), write)
}

// lease makes leases longer or shorter.
func (o *operator) lease(h *host) {
	if h.agent == nil {
		return
	}
	cluster := h.agent.m.State().Cluster
	if cluster.ID == "" {
		return
	}
	cluster.Heartbeat = spec.Timings{Lease: spec.Duration(o.w.between(600*time.Millisecond, 1200*time.Millisecond))}.WithDefaults()
	if o.w.chance(0.5) {
		cluster.Heartbeat = o.w.timings()
	}
	if o.w.chance(0.2) {
		// For long enough that the long leases are at work, mostly.
		cluster.Heartbeat = spec.Timings{Profile: spec.ProfileMSCS}.WithDefaults()
		o.w.after(o.w.between(100*time.Millisecond, 12*time.Second), o.fast)
	}
	o.w.tell("operator: profile %s, leases of %s", cluster.Heartbeat.Profile, cluster.Heartbeat.Lease)
	o.submit(h, confdb.Command{PutCluster: &cluster}, nil)
}

// fast has the cluster be in profile fast again, until a leader's state says so.
func (o *operator) fast() {
	l := o.w.leader()
	if l != nil && l.agent.m.State().Cluster.ID != "" {
		cluster := l.agent.m.State().Cluster
		if cluster.Heartbeat.Profile != spec.ProfileMSCS {
			return
		}
		cluster.Heartbeat = spec.Timings{DeviceIO: cluster.Heartbeat.DeviceIO}.WithDefaults()
		o.submit(l, confdb.Command{PutCluster: &cluster}, nil)
	}
	o.w.after(500*time.Millisecond, o.fast)
}

// change gives a group another definition, of which some attribute takes a
// restart of a resource, or another stop_within.
func (o *operator) change(h *host, group string) {
	if h.agent == nil {
		return
	}
	g := h.agent.m.State().Groups[group]
	if g == nil {
		return
	}
	next := g.Spec
	next.Resources = slices.Clone(next.Resources)
	if o.w.chance(0.5) {
		next.StopWithin = spec.Duration(o.w.between(30*time.Millisecond, 400*time.Millisecond))
		o.w.tell("operator: %s: stop_within %s", group, next.StopWithin)
	} else {
		next.Resources[0].Attributes = map[string]any{"command": []any{"true", fmt.Sprint(o.w.rng.IntN(1000))}}
		o.w.tell("operator: %s: another command", group)
	}
	o.submit(h, confdb.Command{PutGroup: &next}, nil)
}

// comeAndGo adds a group, and deletes it some seconds later.
func (o *operator) comeAndGo(h *host) {
	w := o.w
	g := w.group(20 + o.extra%50)
	o.extra++
	w.tell("operator: adds %s, and deletes it later", g.ID)
	o.submit(h, confdb.Command{PutGroup: &g}, nil)
	w.after(w.between(500*time.Millisecond, 5*time.Second), func() {
		o.insist(func() confdb.Command { return confdb.Command{DeleteGroup: &confdb.GroupRef{Group: g.ID}} })
	})
}

// transfer hands leadership over.
func (o *operator) transfer(to *host) {
	if l := o.w.leader(); l != nil && l != to && to.votes() {
		o.w.tell("operator: leadership to %s", to.name)
		o.membership(l, member.Membership{Op: "transfer", Server: to.server}, func(confdb.Result) {})
	}
}

// demote takes a node's vote for some seconds, while a majority of others is left:
// of three nodes both others are needed then, with what their disks hold.
func (o *operator) demote(h *host) {
	l := o.w.leader()
	if l == nil || l == h || len(o.w.hosts) < 3 || !h.votes() || !o.w.whole() || o.w.quiet() {
		return
	}
	o.demoted = o.w.now
	o.w.tell("operator: %s loses its vote for a while", h.name)
	o.membership(l, member.Membership{Op: "add_learner", Server: h.server, Endpoint: h.endpoint}, func(confdb.Result) {})
	o.w.after(o.w.between(100*time.Millisecond, 4*time.Second), func() { o.promote(h) })
}

// replace takes a node out for good, as an operator would: drained, deleted, no
// member any more; a new machine with its name joins afterwards.
func (o *operator) replace(h *host) {
	w := o.w
	if l := w.leader(); l == nil || l == h || len(w.hosts) < 3 || !w.whole() || w.quiet() {
		return
	}
	w.tell("operator: takes %s out of the cluster, and puts a new machine in its place", h.name)
	h.leaving = true
	old := h.server
	o.submit(h, confdb.Command{PauseNode: &confdb.PauseNode{Node: h.nodeID, Drain: true}}, nil)
	var step func()
	step = func() {
		l := w.leader()
		if l != nil && l == h {
			o.transfer(w.hosts[w.rng.IntN(len(w.hosts))])
		} else if l != nil {
			d := l.agent.m.Status().Driver
			switch {
			case l.agent.m.State().Nodes[h.nodeID] != nil:
				o.deleteNode(l, h) // refused while it owns groups
			case slices.Contains(d.Voters, old) || slices.Contains(d.Learners, old):
				o.membership(l, member.Membership{Op: "remove", Server: old}, func(confdb.Result) {})
			default:
				o.newMachine(h)
				return
			}
		}
		w.after(300*time.Millisecond, step)
	}
	w.after(300*time.Millisecond, step)
}

// newMachine puts one in the place of a node that is out of the cluster.
func (o *operator) newMachine(h *host) {
	h.powerOff() // the one before it, asleep or not
	h.disk.stored, h.disk.past = confdb.Stored{}, nil
	h.newServer()
	h.leaving = false
	h.tell("is a new machine, server %d", h.server)
	o.w.restartLater(h, o.w.between(10*time.Millisecond, time.Second))
	o.promote(h)
}

// evict takes a node that has died out for good, in the steps of the API's
// evict, and puts a new machine in its place. Now and then the dead one comes
// back meanwhile, with its old disk.
func (o *operator) evict(h *host) {
	w := o.w
	if l := w.leader(); l == nil || l == h || len(w.hosts) < 3 || !w.whole() || w.quiet() {
		return
	}
	w.tell("operator: %s dies for good, and is evicted", h.name)
	w.rep.Evicted++
	h.leaving = true
	old := h.server
	h.killMonitors()
	h.killAgent()
	if w.chance(0.3) {
		w.restartLater(h, w.between(50*time.Millisecond, 4*time.Second))
	}
	var step func()
	step = func() {
		w.after(300*time.Millisecond, step)
		l := w.leader()
		if l == nil {
			return
		}
		if l == h {
			o.transfer(w.hosts[w.rng.IntN(len(w.hosts))])
			return
		}
		s, d := l.agent.m.State(), l.agent.m.Status().Driver
		switch n := s.Nodes[h.nodeID]; {
		case n != nil && n.Evicting == nil:
			if h.agent != nil {
				o.submit(l, confdb.Command{PauseNode: &confdb.PauseNode{Node: h.nodeID, Drain: true}}, nil)
			}
			o.submit(l, confdb.Command{EvictNode: &confdb.NodeRef{Node: h.nodeID}}, nil) // refused while it is up and not drained
		case o.owns(s, h.nodeID):
		case slices.Contains(d.Voters, old) || slices.Contains(d.Learners, old):
			if o.majorityWithout(l, old) {
				o.membership(l, member.Membership{Op: "remove", Server: old}, func(confdb.Result) {})
			}
		case n != nil:
			o.deleteNode(l, h)
		default:
			step = func() {}
			o.newMachine(h)
		}
	}
	w.after(300*time.Millisecond, step)
}

// deleteNode has the leader delete a node, one command at a time: a second one might
// be committed when a new machine has joined under the same id.
func (o *operator) deleteNode(l, h *host) {
	asked := func(x *host) bool { return x.agent != nil && x.agent == h.deleter }
	if slices.ContainsFunc(o.w.hosts, asked) {
		return
	}
	a := l.agent
	h.deleter = a
	o.submit(l, confdb.Command{DeleteNode: &confdb.NodeRef{Node: h.nodeID}}, func(confdb.Result) {
		if h.deleter == a {
			h.deleter = nil
		}
	})
}

func (o *operator) owns(s *confdb.State, node string) bool {
	for _, g := range s.Groups {
		if g.Owner.Node == node {
			return true
		}
	}
	return false
}

// majorityWithout tells whether, one voter out, enough of the others are up.
func (o *operator) majorityWithout(l *host, out uint64) bool {
	d := l.agent.m.Status().Driver
	if !slices.Contains(d.Voters, out) {
		return true
	}
	up := 0
	for _, h := range o.w.hosts {
		if h.server != out && h.agent != nil && slices.Contains(d.Voters, h.server) {
			up++
		}
	}
	return up >= (len(d.Voters)-1)/2+1
}

// promote goes on until the node has its vote, under whatever server id its
// disk has now.
func (o *operator) promote(h *host) {
	if h.leaving {
		return // who takes it out sees to that
	}
	l := o.w.leader()
	if l == nil {
		o.w.after(500*time.Millisecond, func() { o.promote(h) })
		return
	}
	s, n := l.agent.m.Status().Driver, l.agent.m.State().Nodes[h.nodeID]
	in := member.Membership{Server: h.server, Endpoint: h.endpoint}
	switch {
	case n == nil:
		o.submit(l, confdb.Command{PutNode: h.node()}, nil)
	case n.ServerID == h.server && (slices.Contains(s.Voters, h.server) || !h.votes() && slices.Contains(s.Learners, h.server)):
		return
	case n.ServerID != h.server && (slices.Contains(s.Voters, n.ServerID) || slices.Contains(s.Learners, n.ServerID)):
		in.Op, in.Server = "remove", n.ServerID
	case n.ServerID != h.server:
		o.submit(l, confdb.Command{PutNode: &confdb.PutNode{Spec: n.Spec, ServerID: h.server, Endpoint: h.endpoint}}, nil)
	case slices.Contains(s.Learners, h.server):
		in.Op = "promote"
	default:
		in.Op = "add_learner"
	}
	if in.Op != "" {
		o.membership(l, in, func(confdb.Result) {})
	}
	o.w.after(300*time.Millisecond, func() { o.promote(h) })
}

// settle has everything run as it should once faults are over.
func (o *operator) settle() {
	w := o.w
	for i := range w.cfg.Groups {
		o.wantOnline(groupID(i))
	}
	o.fast()
	for _, h := range w.hosts {
		o.resume(h.nodeID)
		if !w.cfg.Crashes && w.cfg.Model == spec.MajorityNodeSet {
			o.promote(h)
		}
	}
}

// wantOnline and resume go on until they are acknowledged: an operator's hand.
func (o *operator) wantOnline(group string) {
	o.insist(func() confdb.Command {
		return confdb.Command{SetWant: &confdb.SetWant{Group: group, Want: spec.WantOnline}}
	})
}

func (o *operator) resume(node string) {
	o.insist(func() confdb.Command { return confdb.Command{ResumeNode: &confdb.NodeRef{Node: node}} })
}

func (o *operator) insist(command func() confdb.Command) {
	done := false
	var try func()
	try = func() {
		if done {
			return
		}
		h := o.w.hosts[o.w.rng.IntN(len(o.w.hosts))]
		o.submit(h, command(), func(r confdb.Result) { done = done || r.Code == "" || r.Code == confdb.CodeNotFound })
		o.w.after(time.Second, try)
	}
	try()
}
