package member

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

func cloneStored(s confdb.Stored) confdb.Stored {
	s.HardState, s.Snapshot, s.Entries = slices.Clone(s.HardState), slices.Clone(s.Snapshot), slices.Clone(s.Entries)
	return s
}

// grow commits so much that the log of then is compacted away.
func (w *world) grow() {
	w.t.Helper()
	g := w.group("web").Spec
	for i := range 26 {
		g.Description = strings.Repeat(string(rune('a'+i)), 200_000)
		next := g
		w.must(w.leader(), confdb.Command{PutGroup: &next})
	}
	w.run(time.Second)
}

// A node that was away for so long that its log is of no use catches up by a
// snapshot before it owns a group again.
func TestAwayForLong(t *testing.T) {
	w := newWorld(t, 3)
	w.put(homing(groupSpec("web", "n3", "n1"), spec.FailbackImmediate, 0))
	n3 := w.hosts[2]
	w.runsOn("web", n3, time.Second)
	n3.kill()
	w.runsOn("web", w.hosts[0], 10*time.Second)
	before := n3.stored.SnapshotIndex
	w.grow()
	revision := w.state().Revision
	n3.start()
	w.until("it starts web", 10*time.Second, func() bool { return w.running["g-web"] == "n3" })
	if got := n3.m.State().Revision; got < revision || n3.stored.SnapshotIndex <= before {
		t.Errorf("it owns a group at revision %d of %d; its snapshot is of %d, then %d", got, revision, before, n3.stored.SnapshotIndex)
	}
}

// A group whose node was evicted goes home to what joins under its name, where its
// preferred owners name it; else it stays where it is.
func TestFailbackAfterEvict(t *testing.T) {
	w := newWorld(t, 4)
	w.put(homing(groupSpec("web", "n1", "n2"), spec.FailbackImmediate, 0))
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n1"}})
	free := homing(groupSpec("free"), spec.FailbackImmediate, 0)
	w.put(free)
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-free", To: "id-n1"}})
	n1 := w.hosts[0]
	w.runsOn("web", n1, 5*time.Second)
	w.runsOn("free", n1, 5*time.Second)
	n1.kill()
	w.until("both failed over", 10*time.Second, func() bool {
		return w.leader() != nil && w.leader() != n1 && w.online("web") && w.online("free") && w.owner("web") != n1 && w.owner("free") != n1
	})
	w.must(w.leader(), confdb.Command{EvictNode: &confdb.NodeRef{Node: "id-n1"}})
	if r := w.change(w.leader(), Membership{Op: "remove", Server: n1.server}); r.Code != "" {
		t.Fatalf("remove: %+v", r)
	}
	w.must(w.leader(), confdb.Command{DeleteNode: &confdb.NodeRef{Node: "id-n1"}})
	stays := w.owner("free")

	n1.server, n1.stored = 999, confdb.Stored{}
	n1.start()
	w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: nodeSpec(0), ServerID: 999, Endpoint: n1.endpoint()}})
	w.until("it is a learner", 10*time.Second, func() bool {
		return w.change(w.leader(), Membership{Op: "add_learner", Server: 999, Endpoint: n1.endpoint()}).Code == ""
	})
	w.until("it votes", 10*time.Second, func() bool { return w.change(w.leader(), Membership{Op: "promote", Server: 999}).Code == "" })
	w.must(w.leader(), confdb.Command{NodeJoined: &confdb.NodeRef{Node: "id-n1"}})
	w.runsOn("web", n1, 10*time.Second)
	w.run(5 * time.Second)
	if w.owner("free") != stays || !w.online("free") {
		t.Errorf("a group without preferred owners left %s\n%s", stays.name, w.describe())
	}
}

// A data directory that was put back to an older state never votes again as who
// it was: it says so and ends; emptied, it joins as another server.
func TestOlderDirectory(t *testing.T) {
	for _, long := range []bool{false, true} {
		w := newWorld(t, 3)
		w.put(groupSpec("web", "n1"))
		w.run(time.Second)
		n3 := w.hosts[2]
		backup := cloneStored(n3.stored)
		for range 5 {
			w.must(w.leader(), confdb.Command{Event: &confdb.Event{Kind: "note", Text: "since the backup"}})
		}
		if long {
			w.grow()
		}
		w.run(time.Second)
		n3.kill()
		n3.stored = backup
		n3.start()
		votes := 0
		w.onFrame = func(from, _ *host, f *heartbeat.Frame) bool {
			if from == n3 && len(f.Driver) > 0 {
				votes++
			}
			return true
		}
		w.until("it ends", 5*time.Second, func() bool { return n3.stopped })
		if !strings.Contains(strings.Join(n3.logs, "\n"), "restored from a backup") {
			t.Errorf("it said %q", n3.logs)
		}
		votes = 0
		n1 := w.leader()
		n1.freeze() // without a leader, and with its agent's process still there
		w.run(3 * time.Second)
		if votes > 0 {
			t.Errorf("%d frames with votes or answers from it", votes)
		}
		n1.thaw()
		w.until("a leader", 5*time.Second, func() bool { return w.leader() != nil })

		n3.kill()
		old := n3.server
		n3.server, n3.stored = 999, confdb.Stored{}
		n3.start()
		lead := w.leader()
		if r := w.change(lead, Membership{Op: "remove", Server: old}); r.Code != "" {
			t.Fatalf("remove: %+v", r)
		}
		w.must(lead, confdb.Command{PutNode: &confdb.PutNode{Spec: nodeSpec(2), ServerID: 999, Endpoint: n3.endpoint()}})
		if r := w.change(lead, Membership{Op: "add_learner", Server: 999, Endpoint: n3.endpoint()}); r.Code != "" {
			t.Fatalf("add_learner: %+v", r)
		}
		w.until("it votes", 10*time.Second, func() bool { return w.change(w.leader(), Membership{Op: "promote", Server: 999}).Code == "" })
		w.until("all are up", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	}
}
