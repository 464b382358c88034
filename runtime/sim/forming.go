package sim

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

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
	cluster := spec.Cluster{ID: "sim", Name: "sim", Quorum: spec.Quorum{Model: w.cfg.Model}, MaxUnavailable: 1, Heartbeat: w.timings()}
	hosts := w.hosts
	if w.cfg.Grow {
		cluster.Quorum.Model, hosts = spec.SingleNode, hosts[:1]
	}
	if !w.put("cluster", confdb.Command{PutCluster: &cluster}) {
		return false
	}
	for _, h := range hosts {
		if !w.put("node "+h.name, confdb.Command{PutNode: h.node()}) {
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
	return w.until(func() bool { v, l := state(); return v || l && !h.votes() }, func() {
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

// votes tells whether a host is to have a vote.
func (h *host) votes() bool {
	if l := h.w.lab; l != nil {
		return l.def.Nodes[h.index].Votes > 0
	}
	return h.index < len(h.w.hosts)-h.w.cfg.Learners || h.index == 0
}

// witness tells whether it votes and never owns a group.
func (h *host) witness() bool {
	if l := h.w.lab; l != nil {
		return l.def.Nodes[h.index].Witness()
	}
	return h.votes() && h.index >= len(h.w.hosts)-h.w.cfg.Learners-h.w.cfg.Witnesses
}

// node is the host as the definition has it.
func (h *host) node() *confdb.PutNode {
	if l := h.w.lab; l != nil {
		return &confdb.PutNode{Spec: l.def.Nodes[h.index], ServerID: h.server, Endpoint: h.endpoint, Version: "sim"}
	}
	n := spec.Node{ID: h.nodeID, Addr: addr.Node(h.name, addr.NoKey), Name: h.name, Provider: "sim", Role: spec.RoleMember}
	if h.votes() {
		n.Votes = 1
	}
	if h.witness() {
		n.Role = spec.RoleWitness
	}
	if h.w.cfg.Watchdog {
		n.Watchdog, n.WatchdogTimeout = "/dev/watchdog", watchdogTimeout
	}
	return &confdb.PutNode{Spec: n, ServerID: h.server, Endpoint: h.endpoint, Version: "sim"}
}

func groupID(i int) string { return fmt.Sprintf("group%02d", i) }

// group is the i-th group: a process and an address, preferred owners turned by i.
func (w *world) group(i int) spec.Group {
	name := fmt.Sprintf("g%d", i)
	at := addr.Group(name, addr.NoKey)
	var preferred []string
	for k := range w.hosts {
		if h := w.hosts[(i+k)%len(w.hosts)]; !h.witness() {
			preferred = append(preferred, h.name)
		}
	}
	threshold := 3
	if i%3 == 2 && !w.cfg.Crashes && !w.cfg.NoFault {
		threshold = 1 // it gives up soon
	}
	resource := func(n, kind string, attributes map[string]any, deps ...string) spec.Resource {
		return spec.Resource{
			ID: groupID(i) + n, Addr: at.WithResource(n, addr.NoKey), Name: n, Type: kind,
			Attributes: attributes, DependsOn: deps,
			PendingTimeout: spec.Duration(8 * time.Second), // so that a hung stop is over before the end
			LooksAlive:     spec.Poll{Interval: spec.Duration(5 * time.Second)},
			IsAlive:        spec.Poll{Interval: spec.Duration(time.Minute)},
			Restart:        spec.Restart{Action: spec.RestartRestart, Threshold: threshold, Period: spec.Duration(15 * time.Minute), AffectGroup: true},
		}
	}
	failback := spec.Failback{Mode: spec.FailbackPrevent}
	if i%2 == 1 && !w.cfg.Crashes {
		failback = spec.Failback{Mode: spec.FailbackImmediate, Delay: spec.Duration(3 * time.Second)}
	}
	g := spec.Group{
		ID: groupID(i), Addr: at, Name: name, PreferredOwners: preferred, Priority: 2000, PersistentState: spec.WantOnline,
		StopWithin: spec.Duration([]time.Duration{100, 50, 300}[i%3] * time.Millisecond), NoQuorum: spec.NoQuorumStop,
		Failover: spec.Failover{Mode: spec.FailoverAutomatic, Threshold: 100_000, Period: spec.Duration(6 * time.Hour)},
		Failback: failback, ManagedBy: spec.ManagedBy,
		Resources: []spec.Resource{
			resource("a", "generic_application", map[string]any{"command": []any{"true"}}),
			resource("b", "ip_address", map[string]any{"address": fmt.Sprintf("10.1.0.%d/24", 10+i)}, "a"),
		},
	}
	if i == 1 && w.cfg.Fence {
		g.NoQuorum = spec.NoQuorumFreeze
	}
	if i == 0 && (w.cfg.Fence || w.cfg.Watchdog) {
		g.Resources = append(g.Resources, resource("c", kindMount, map[string]any{"start": []any{"mount"}}, "b")) // only a fence or a watchdog frees it
	}
	return g
}
