package main

import (
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/core"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// cluster is a leader's machine with peers that answer each frame at once.
type cluster struct {
	m     *core.Machine
	state *confdb.State
	now   spec.Instant
	nodes int
	seqs  []uint64
	dead  int // node that answers no more; 0: none

	proposed []confdb.Command
	decided  time.Duration // spent in steps that are no frames
	cpu      time.Duration // of the processor, likewise
}

func nodeName(i int) string { return fmt.Sprintf("n%03d", i) }

// newCluster has every fourth group depend on the one before, some kept apart,
// three priorities, demands and capacities that a dead node's groups fit in,
// and a log of events that is full.
func newCluster(groups, nodes int) *cluster {
	c := &cluster{now: spec.Instant(time.Hour), nodes: nodes, seqs: make([]uint64, nodes+1), state: confdb.NewState()}
	s := c.state
	s.Cluster = spec.Cluster{ID: "c", Name: "c", Heartbeat: spec.Timings{}.WithDefaults(), Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}
	s.Revision = 10
	for i := 1; i <= nodes; i++ {
		name := nodeName(i)
		s.Nodes[name] = &confdb.Node{ServerID: uint64(i), Endpoint: name + ":1", Joined: true, Spec: spec.Node{
			ID: name, Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember,
			Capacity: map[string]int64{"cpu": int64(2 * (groups/nodes + 8)), "memory": 1 << 40},
		}}
		s.View.Up = append(s.View.Up, name)
	}
	for i := range groups {
		name := fmt.Sprintf("g%05d", i)
		at := i/2%nodes + 1
		g := &confdb.Group{Want: spec.WantOnline, State: spec.StateOnline, Owner: confdb.Ownership{
			Node: nodeName(at), Epoch: 1, Lease: s.Cluster.Heartbeat.Lease, StopWithin: spec.Duration(100 * time.Millisecond), Kill: spec.Duration(50 * time.Millisecond)}}
		g.Spec = spec.Group{
			ID: name, Name: name, Addr: addr.Group(name, addr.NoKey), Priority: 1000 * (1 + i%3), PersistentState: spec.WantOnline,
			PreferredOwners: []string{nodeName(at), nodeName(at%nodes + 1), nodeName((at+6)%nodes + 1)},
			Demand:          map[string]int64{"cpu": 1, "memory": 1 << 20}, StopWithin: spec.Duration(100 * time.Millisecond),
		}
		if i%4 == 1 {
			g.Spec.DependsOn = []string{fmt.Sprintf("g%05d", i-1)}
		}
		if i%10 == 9 {
			g.Spec.KeepApart = []string{fmt.Sprintf("g%05d", i-5)}
		}
		s.Groups[name] = g
	}
	for i := range 2000 {
		s.Apply(confdb.Command{ID: fmt.Sprint("e", i), Event: &confdb.Event{Kind: "note", Text: "x", Object: "group.g"}})
	}
	c.m = core.New(core.Config{Node: nodeName(1), Name: nodeName(1), Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, c.now, s)
	return c
}

func (c *cluster) step(ev core.Event) {
	_, frame := ev.(core.Heard)
	start, cpu := time.Now(), spent()
	effects := c.m.Step(c.now, ev)
	if !frame {
		c.decided += time.Since(start)
		c.cpu += spent() - cpu
	}
	for _, e := range effects {
		if p, ok := e.(core.Propose); ok {
			c.proposed = append(c.proposed, p.Command)
		}
	}
}

// round lets 50 ms pass, with a tick at each deadline, and has every living
// peer answer a frame.
func (c *cluster) round() {
	for end := c.now.Add(50 * time.Millisecond); ; {
		next := c.m.NextDeadline()
		if next == 0 || next > end {
			c.now = end
			break
		}
		c.now = max(next, c.now)
		c.step(core.Tick{})
	}
	for i := 2; i <= c.nodes; i++ {
		if i == c.dead {
			continue
		}
		f := c.m.Frame(c.now, uint64(i))
		c.seqs[i]++
		c.step(core.Heard{Frame: &heartbeat.Frame{
			From: uint64(i), To: 1, Incarnation: uint64(11 * i), Seq: c.seqs[i], NodeID: nodeName(i), Term: 5, Leader: 1,
			AckIncarnation: 11, AckSeq: f.Seq, Ready: true, Revision: c.state.Revision, UpSince: time.Hour, Held: 1 << 60, OldTermAge: time.Hour,
		}})
	}
	c.m.Beaten(c.now)
}

// loseNode lets the second node die and tells how long the leader's decisions
// took, and how many groups have a new owner.
func (c *cluster) loseNode() (took, cpu time.Duration, moved int, err error) {
	voters := make([]uint64, c.nodes)
	for i := range voters {
		voters[i] = uint64(i + 1)
	}
	c.step(core.MonitorUp{})
	c.step(core.Agreement{Status: confdb.Status{Self: 1, Term: 5, Leader: 1, Role: confdb.Leader, Voters: voters, Needed: c.nodes/2 + 1, Ready: true}})
	for range 60 {
		c.round()
		c.commit()
	}
	if n := c.owned(nodeName(2)); n == 0 || c.m.LeaseEnd() < c.now {
		return 0, 0, 0, fmt.Errorf("the cluster is not at rest before the fault: %d groups on the node that is to die", n)
	}
	c.proposed = nil
	c.dead = 2
	before := 0
	for i := 0; i < 100; i++ {
		c.proposed = nil
		was, wasCPU := c.decided, c.cpu
		c.round()
		if before == 0 && len(c.proposed) == 0 {
			c.decided, c.cpu = was, wasCPU
			continue // not found yet
		}
		if before == 0 { // all before the step that found it was no decision
			before = 1
			c.decided -= was
			c.cpu -= wasCPU
		}
		moved = 0
		for _, p := range c.proposed {
			if p.Assign != nil {
				moved++
			}
		}
		if moved > 0 {
			return c.decided, c.cpu, moved, nil
		}
		c.commit()
	}
	return 0, 0, 0, fmt.Errorf("the leader decided nothing within %d rounds; %d groups are on the dead node", 100, c.owned(nodeName(2)))
}

// commit applies what was proposed.
func (c *cluster) commit() {
	list := c.proposed
	c.proposed = nil
	if len(list) == 0 {
		return
	}
	results := make([]confdb.Result, len(list))
	for i := range list {
		results[i] = c.state.Apply(list[i])
	}
	c.step(core.StateChanged{State: c.state})
	for i := range list {
		c.step(core.Proposed{ID: list[i].ID, Result: results[i]})
	}
}

func (c *cluster) owned(node string) int {
	n := 0
	for _, g := range c.state.Groups {
		if g.Owner.Node == node {
			n++
		}
	}
	return n
}

// placementInput is the cluster after the fault, as placement sees it.
func (c *cluster) placementInput() placement.Input {
	var in placement.Input
	for id, n := range c.state.Nodes {
		in.Nodes = append(in.Nodes, placement.Node{Spec: n.Spec, Up: id != nodeName(2)})
	}
	for _, g := range c.state.Groups {
		in.Groups = append(in.Groups, placement.Group{Spec: g.Spec, Owner: g.Owner.Node, Want: g.Want})
	}
	return in
}
