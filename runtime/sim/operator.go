package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
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
	failing bool // resources' starts fail now and then
}

func (o *operator) init(w *world) {
	o.w = w
	o.waiting = map[uint64]func(confdb.Result){}
}

func (o *operator) failsStart() bool { return o.failing && o.w.chance(0.05) }

// reply comes from a member.
func (o *operator) reply(_ *host, r member.Reply) {
	if f := o.waiting[r.Token]; f != nil {
		delete(o.waiting, r.Token)
		f(r.Result)
	}
}

// submit sends a command to h and reports its result; lost ones never answer.
func (o *operator) submit(h *host, c confdb.Command, then func(confdb.Result)) {
	if h.agent == nil {
		return
	}
	o.token++
	token := o.token
	if c.ID == "" {
		c.ID = fmt.Sprintf("op-%d", token)
	}
	c.Time = time.Unix(1_700_000_000, o.w.now).UTC()
	c.Author = "sim"
	o.waiting[token] = func(r confdb.Result) {
		if r.Code == "" {
			o.w.check.acked[c.ID] = true
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

// until repeats try every 50 ms until done says so or a simulated minute is over.
func (w *world) until(done func() bool, try func()) bool {
	for end := w.now + int64(time.Minute); w.now < end && len(w.rep.Violations) == 0; {
		if done() {
			return true
		}
		try()
		w.runUntil(w.now + int64(50*time.Millisecond))
	}
	return false
}

func (w *world) leader() *host {
	for _, h := range w.hosts {
		if h.agent != nil && !h.agent.paused {
			if s := h.agent.m.Status().Driver; s.Role == confdb.Leader && s.Ready {
				return h
			}
		}
	}
	return nil
}

// waitFormed bootstraps the first host, joins the others, and puts the groups.
func (w *world) waitFormed() bool {
	first := w.hosts[0]
	if !w.until(func() bool { return w.leader() != nil }, func() {
		if first.agent.m.Status().Driver.Role == confdb.Outside {
			w.ops.membership(first, member.Membership{Op: "bootstrap"}, func(confdb.Result) {})
		}
	}) {
		return false
	}
	cluster := spec.Cluster{ID: "sim", Name: "sim", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}, MaxUnavailable: 1, Heartbeat: spec.Timings{}.WithDefaults()}
	if !w.put("cluster", confdb.Command{PutCluster: &cluster}) {
		return false
	}
	for _, h := range w.hosts {
		node := spec.Node{ID: h.nodeID, Addr: addr.Node(h.name, addr.NoKey), Name: h.name, Provider: "sim", Votes: 1, Role: spec.RoleMember}
		if !w.put("node "+h.name, confdb.Command{PutNode: &confdb.PutNode{Spec: node, ServerID: h.server, Endpoint: h.endpoint, Version: "sim"}}) {
			return false
		}
		if h != first && !w.join(h) {
			return false
		}
	}
	if w.cfg.Fence && !w.put("fence", fenceCommand()) {
		return false
	}
	for i := range w.cfg.Groups {
		g := w.group(i)
		if !w.put("group "+g.Name, confdb.Command{PutGroup: &g}) {
			return false
		}
	}
	return w.until(func() bool {
		for i := range w.cfg.Groups {
			runs := 0
			for _, h := range w.hosts {
				if h.kernel.runs(groupID(i)) {
					runs++
				}
			}
			if runs == 0 {
				return false
			}
		}
		return true
	}, func() {})
}

func (w *world) put(what string, c confdb.Command) bool {
	done, n := false, 0
	ok := w.until(func() bool { return done }, func() {
		n++
		if l := w.leader(); l != nil && n%20 == 1 {
			c.ID = fmt.Sprintf("form %s %d", what, n)
			w.ops.submit(l, c, func(r confdb.Result) {
				done = r.Code == ""
				if !done {
					w.tell("forming: %s: %s %s", what, r.Code, r.Detail)
				}
			})
		}
	})
	return ok
}

func (w *world) join(h *host) bool {
	state := func() (voter, learner bool) {
		l := w.leader()
		if l == nil {
			return false, false
		}
		s := l.agent.m.Status().Driver
		for _, v := range s.Voters {
			voter = voter || v == h.server
		}
		for _, v := range s.Learners {
			learner = learner || v == h.server
		}
		return voter, learner
	}
	return w.until(func() bool { v, _ := state(); return v }, func() {
		l := w.leader()
		if l == nil {
			return
		}
		op := "add_learner"
		if _, learner := state(); learner {
			op = "promote"
		}
		w.ops.membership(l, member.Membership{Op: op, Server: h.server, Endpoint: h.endpoint}, func(confdb.Result) {})
	})
}

func groupID(i int) string { return fmt.Sprintf("group%02d", i) }

// group is the i-th group: two resources, preferred owners turned by i.
func (w *world) group(i int) spec.Group {
	name := fmt.Sprintf("g%d", i)
	at := addr.Group(name, addr.NoKey)
	var preferred []string
	for k := range w.hosts {
		preferred = append(preferred, w.hosts[(i+k)%len(w.hosts)].name)
	}
	resource := func(n string, deps ...string) spec.Resource {
		return spec.Resource{
			ID: groupID(i) + n, Addr: at.WithResource(n, addr.NoKey), Name: n, Type: "generic_application",
			Attributes: map[string]any{"command": []any{"true"}}, DependsOn: deps,
			PendingTimeout: spec.Duration(3 * time.Minute),
			LooksAlive:     spec.Poll{Interval: spec.Duration(5 * time.Second)},
			IsAlive:        spec.Poll{Interval: spec.Duration(time.Minute)},
			Restart:        spec.Restart{Action: spec.RestartRestart, Threshold: 3, Period: spec.Duration(15 * time.Minute), AffectGroup: true},
		}
	}
	failback := spec.Failback{Mode: spec.FailbackPrevent}
	if i%2 == 1 && !w.cfg.Crashes {
		failback = spec.Failback{Mode: spec.FailbackImmediate, Delay: spec.Duration(3 * time.Second)}
	}
	return spec.Group{
		ID: groupID(i), Addr: at, Name: name, PreferredOwners: preferred, Priority: 2000, PersistentState: spec.WantOnline,
		StopWithin: spec.Duration(100 * time.Millisecond), NoQuorum: spec.NoQuorumStop,
		Failover: spec.Failover{Mode: spec.FailoverAutomatic, Threshold: 100_000, Period: spec.Duration(6 * time.Hour)},
		Failback: failback, Resources: []spec.Resource{resource("a"), resource("b", "a")}, ManagedBy: spec.ManagedBy,
	}
}

// start gives orders from now on, at random times to random nodes.
func (o *operator) start(w *world) {
	if w.cfg.NoFault || w.cfg.Crashes {
		return
	}
	until := w.now + int64(w.cfg.For)
	var next func()
	next = func() {
		if w.now > until {
			return
		}
		h := w.hosts[w.rng.IntN(len(w.hosts))]
		group := groupID(w.rng.IntN(w.cfg.Groups))
		switch w.rng.IntN(9) {
		case 8:
			o.lease(h)
		case 6, 7:
			o.demote(w.hosts[w.rng.IntN(len(w.hosts))])
		case 0:
			to := w.hosts[w.rng.IntN(len(w.hosts))]
			w.tell("operator: move %s to %s (asked of %s)", group, to.name, h.name)
			o.submit(h, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: group, To: to.nodeID}}, nil)
		case 1:
			w.tell("operator: %s offline, and online again 2 s later", group)
			o.submit(h, confdb.Command{SetWant: &confdb.SetWant{Group: group, Want: spec.WantOffline}}, nil)
			w.after(2*time.Second, func() { o.wantOnline(group) })
		case 2:
			w.tell("operator: drain %s, and resume 3 s later", h.name)
			o.submit(h, confdb.Command{PauseNode: &confdb.PauseNode{Node: h.nodeID, Drain: true}}, nil)
			w.after(3*time.Second, func() { o.resume(h.nodeID) })
		default:
			// What an application writes: kept, whatever happens (a barrier leaves no trace).
			o.submit(h, confdb.Command{KV: &confdb.KVWrite{Key: "key", Value: []byte(h.name)}}, nil)
		}
		w.after(w.between(300*time.Millisecond, 4*time.Second), next)
	}
	w.after(time.Second, next)
}

// lease makes leases longer, or as long as they were.
func (o *operator) lease(h *host) {
	if h.agent == nil {
		return
	}
	cluster := h.agent.m.State().Cluster
	cluster.Heartbeat = spec.Timings{Lease: spec.Duration(o.w.between(600*time.Millisecond, 1200*time.Millisecond))}.WithDefaults()
	if o.w.chance(0.5) {
		cluster.Heartbeat = spec.Timings{}.WithDefaults()
	}
	o.w.tell("operator: leases of %s", cluster.Heartbeat.Lease)
	o.submit(h, confdb.Command{PutCluster: &cluster}, nil)
}

// demote takes a node's vote for some seconds, while a majority of others is left.
func (o *operator) demote(h *host) {
	l := o.w.leader()
	if l == nil || l == h || len(l.agent.m.Status().Driver.Voters) < len(o.w.hosts) {
		return
	}
	o.w.tell("operator: %s loses its vote for a while", h.name)
	o.membership(l, member.Membership{Op: "add_learner", Server: h.server, Endpoint: h.endpoint}, func(confdb.Result) {})
	o.w.after(o.w.between(100*time.Millisecond, 4*time.Second), func() { o.promote(h) })
}

// promote goes on until the node has its vote, under whatever server id its
// disk has now.
func (o *operator) promote(h *host) {
	l := o.w.leader()
	if l == nil {
		o.w.after(500*time.Millisecond, func() { o.promote(h) })
		return
	}
	s, n := l.agent.m.Status().Driver, l.agent.m.State().Nodes[h.nodeID]
	in := member.Membership{Server: h.server, Endpoint: h.endpoint}
	switch {
	case n == nil || slices.Contains(s.Voters, h.server) && n.ServerID == h.server:
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
		o.submit(h, command(), func(r confdb.Result) { done = done || r.Code == "" })
		o.w.after(time.Second, try)
	}
	try()
}
