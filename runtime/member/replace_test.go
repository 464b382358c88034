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
