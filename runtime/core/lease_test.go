package core

import (
	"cmp"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Voters that joined since the term began, and heard nothing of older leaders,
// don't make old leases look older than they are.
func TestOldLeasesOfNewVoters(t *testing.T) {
	now := spec.Instant(10 * time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	now = now.Add(time.Hour)
	answer := func(from uint64, age time.Duration) {
		f := m.Frame(now, from)
		now = now.Add(time.Millisecond)
		m.Step(now, Heard{&heartbeat.Frame{From: from, To: 1, Incarnation: 11 * from, Seq: 1, Term: 5, Leader: 1, AckIncarnation: 11, AckSeq: f.Seq, UpSince: 9 * time.Hour, OldTermAge: age}})
	}
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1, 2, 3}, Needed: 2}})
	if since := m.oldLeases(); since != now {
		t.Fatalf("before anyone told, %v before the term's start", now.Sub(since))
	}
	answer(2, 50*time.Millisecond)
	was := m.oldLeases()
	if age := now.Sub(was); age < 49*time.Millisecond || age > 50*time.Millisecond {
		t.Fatalf("n2 answered 50 ms ago, old leases are taken for %v old", age)
	}
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1, 2, 3, 4, 5}, Needed: 3}})
	answer(4, 9*time.Hour)
	answer(5, 9*time.Hour)
	if is := m.oldLeases(); is != was {
		t.Errorf("two new voters make old leases %v older", was.Sub(is))
	}
}

// leading is a leader, n1, with web owned by n2; answer has a server answer the
// newest frame to it, and returns the Assign that comes of it.
func leading(t *testing.T) (m *Machine, state *confdb.State, now *spec.Instant, answer func(server uint64, node string, a heartbeat.Frame) *confdb.Command) {
	t.Helper()
	now = new(spec.Instant(10 * time.Hour))
	state = confdb.NewState()
	state.Cluster, state.Revision = spec.Cluster{ID: "c"}, 10
	for i, name := range []string{"n1", "n2", "n3"} {
		state.Nodes[name] = &confdb.Node{ServerID: uint64(i + 1), Joined: true, Spec: spec.Node{ID: name, Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember}}
	}
	g := &confdb.Group{Want: spec.WantOnline, State: spec.StateOnline, Spec: spec.Group{ID: "web", Name: "web", Addr: addr.Group("web", addr.NoKey), Priority: 2000, PersistentState: spec.WantOnline}}
	g.Owner = confdb.Ownership{Node: "n2", Epoch: 1, Lease: spec.Duration(600 * time.Millisecond), StopWithin: spec.Duration(100 * time.Millisecond), Kill: spec.Duration(50 * time.Millisecond)}
	state.Groups["web"] = g
	m = New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, *now, state)
	*now = now.Add(time.Hour)
	m.Step(*now, MonitorUp{})
	m.Step(*now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1, 2, 3}, Needed: 2, Ready: true}})
	seq := uint64(0)
	answer = func(server uint64, node string, a heartbeat.Frame) *confdb.Command {
		f := m.Frame(*now, server)
		*now = now.Add(time.Millisecond)
		seq++
		a.From, a.To, a.Incarnation, a.Seq, a.NodeID, a.Term, a.Leader = server, 1, cmp.Or(a.Incarnation, 11*server), seq, node, 5, 1
		a.AckIncarnation, a.AckSeq, a.Ready, a.UpSince, a.OldTermAge = 11, f.Seq, true, 9*time.Hour, 10*time.Millisecond
		for _, e := range m.Step(*now, Heard{&a}) {
			if p, ok := e.(Propose); ok && p.Command.Assign != nil {
				return new(p.Command)
			}
		}
		return nil
	}
	return m, state, now, answer
}

// Who knows of shorter leases than a leader with a slow disk rightly takes none
// of it: that is no deafness. Without such a reason it is.
func TestAheadIsNotDeaf(t *testing.T) {
	for ahead, want := range map[uint64]bool{0: true, 3: false} {
		m, _, now, answer := leading(t)
		for range 30 {
			answer(3, "n3", heartbeat.Frame{Revision: 10, Held: 1 << 60})
			answer(2, "n2", heartbeat.Frame{Revision: 10 + ahead})
			*now = now.Add(50 * time.Millisecond)
		}
		if m.peers[2].deaf != want {
			t.Errorf("%d updates ahead of the leader, n2 counts as deaf: %v", ahead, !want)
		}
	}
}

// A node from which a group is being taken gets no lease before it knows that,
// also when it becomes another server meanwhile.
func TestTakenFromAnotherServer(t *testing.T) {
	m, state, now, answer := leading(t)
	var assign *confdb.Command
	for i := 0; i < 100 && assign == nil; i++ { // n2 says nothing
		assign = cmp.Or(answer(9, "n2", heartbeat.Frame{Revision: state.Revision}), answer(3, "n3", heartbeat.Frame{Revision: state.Revision, Held: 1 << 60}))
		*now = now.Add(20 * time.Millisecond)
	}
	if assign == nil {
		t.Fatal("web is not taken from n2")
	}
	leased := func(what string, revision uint64, want bool) {
		t.Helper()
		answer(9, "n2", heartbeat.Frame{Revision: revision, Held: 1 << 60})
		if f := m.Frame(*now, 9); f.Grant > 0 != want {
			t.Errorf("%s, it gets a lease: %v", what, !want)
		}
	}
	if r := state.Apply(confdb.Command{ID: "join", PutNode: &confdb.PutNode{Spec: state.Nodes["n2"].Spec, ServerID: 9}}); r.Code != "" {
		t.Fatal(r)
	}
	join := state.Revision
	m.Step(*now, StateChanged{state})
	leased("while web is being taken from it", join, false)
	r := state.Apply(*assign)
	m.Step(*now, StateChanged{state})
	m.Step(*now, Proposed{ID: assign.ID, Result: r})
	leased("before it knows that web was taken from it", join, false)
	leased("once it knows", r.Revision, true)
}

// What an incarnation released, the next one may start again: once that one may
// get a lease, the release is forgotten.
func TestAReleaseIsOfItsIncarnation(t *testing.T) {
	m, state, now, answer := leading(t)
	for range 30 {
		answer(3, "n3", heartbeat.Frame{Revision: 10, Held: 1 << 60})
		answer(2, "n2", heartbeat.Frame{Revision: 10, Held: 1 << 60})
		*now = now.Add(50 * time.Millisecond)
	}
	releases := []heartbeat.Release{{Group: "web", Epoch: 1, Incarnation: 22}}
	answer(2, "n2", heartbeat.Frame{Revision: 10, Held: 1 << 60, Unsaved: true, Releases: releases})
	if m.isReleased("web", state.Groups["web"]) {
		t.Fatal("n2's release is believed though a crash may bring it back to an older term, and leader")
	}
	answer(2, "n2", heartbeat.Frame{Revision: 10, Held: 1 << 60, Releases: releases})
	if !m.isReleased("web", state.Groups["web"]) {
		t.Fatal("n2's release isn't believed")
	}
	answer(2, "n2", heartbeat.Frame{Revision: 10, Incarnation: 23})
	if f := m.Frame(*now, 2); f.Grant <= 0 || f.GrantIncarnation != 23 {
		t.Fatalf("n2's next incarnation gets no lease: %+v", f)
	}
	if m.isReleased("web", state.Groups["web"]) {
		t.Error("n2 has a lease again, and what it released before counts still")
	}
}

// Who knows of shorter leases takes none of a leader that may not.
func TestNoLeaseOfALeaderThatGrantsLonger(t *testing.T) {
	now := spec.Instant(time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	state := confdb.NewState()
	state.Nodes["n1"] = &confdb.Node{ServerID: 1}
	state.Revision, state.ShorterRevision = 9, 9
	m.Step(now, StateChanged{state})
	m.Step(now, MonitorUp{})
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Follower, Leader: 2, Voters: []uint64{1, 2, 3}, Needed: 2}})
	for i, revision := range []uint64{8, 9} {
		own := m.Frame(now, 2)
		m.Step(now, Heard{&heartbeat.Frame{From: 2, To: 1, Incarnation: 22, Seq: uint64(i + 1), NodeID: "n2", Term: 5, Leader: 2, AckIncarnation: 11, AckSeq: own.Seq,
			Revision: revision, Grant: time.Second, GrantIncarnation: 11, GrantSeq: own.Seq}})
		if took := m.LeaseEnd() != 0; took != (revision >= 9) {
			t.Errorf("of a leader at revision %d, leases are shorter since 9, it took one: %v", revision, took)
		}
	}
}
