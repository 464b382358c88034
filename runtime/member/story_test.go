package member

import (
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/eventlog"
)

// Each way in which a group comes to be where it is has a story that begins with
// what began it.
func TestStories(t *testing.T) {
	on := func(h *host, w *world, c confdb.Command) { w.must(h, c) }
	for _, tc := range []struct {
		name string
		do   func(w *world)
		want string
	}{
		{"first start", func(*world) {}, "group_added group_assigned group_online"},
		{"its node is lost", func(w *world) {
			w.hosts[0].kill()
			w.runsOn("web", w.hosts[1], 10*time.Second)
		}, "node_down group_failover group_online"},
		{"a process fails once", func(w *world) {
			h, epoch := w.owner("web"), w.group("web").Owner.Epoch
			h.end("g-web", "app")
			h.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
			w.run(3 * time.Second)
		}, "resource_failed resource_restart"},
		{"it fails past its restarts", func(w *world) {
			w.fail("web")
			w.runsOn("web", w.hosts[1], 10*time.Second)
		}, "resource_failed resource_failed resource_failed group_failed group_failover group_online"},
		{"an operator moves it", func(w *world) {
			on(w.leader(), w, confdb.Command{Author: "ann", MoveGroup: &confdb.MoveGroup{Group: "g-web", To: w.hosts[2].id}})
			w.runsOn("web", w.hosts[2], 10*time.Second)
		}, "group_move group_handover group_assigned group_online"},
		{"an operator drains its node", func(w *world) {
			on(w.leader(), w, confdb.Command{Author: "ann", PauseNode: &confdb.PauseNode{Node: w.hosts[0].id, Drain: true}})
			w.runsOn("web", w.hosts[1], 10*time.Second)
		}, "node_drained group_handover group_assigned group_online"},
		{"an operator stops it", func(w *world) {
			on(w.leader(), w, confdb.Command{Author: "ann", SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
			w.until("web is off", 10*time.Second, func() bool { return w.group("web").Owner.Node == "" })
		}, "group_wanted group_released"},
		{"an operator starts it again", func(w *world) {
			on(w.leader(), w, confdb.Command{Author: "ann", SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
			w.until("web is off", 10*time.Second, func() bool { return w.group("web").Owner.Node == "" })
			on(w.leader(), w, confdb.Command{Author: "ann", SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOnline}})
			w.runsOn("web", w.hosts[0], 10*time.Second)
		}, "group_wanted group_assigned group_online"},
		{"its home is back", func(w *world) {
			w.hosts[0].kill()
			w.runsOn("web", w.hosts[1], 10*time.Second)
			w.hosts[0].start()
			w.runsOn("web", w.hosts[0], 30*time.Second)
		}, "node_up group_handover group_assigned group_online"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 3)
			g := homing(groupSpec("web", "n1", "n2", "n3"), spec.FailbackImmediate, 0)
			w.put(g)
			w.until("another than n1 leads", 30*time.Second, func() bool { // so that its loss is a follower's
				if l := w.leader(); l != nil && l == w.hosts[0] {
					w.change(l, Membership{Op: "transfer", Server: w.hosts[1].server})
				}
				return w.leader() != nil && w.leader() != w.hosts[0]
			})
			w.run(time.Second)
			tc.do(w)
			w.run(time.Second)
			var events []eventlog.Event
			for _, e := range w.state().Events {
				events = append(events, eventlog.Event(e))
			}
			story, ok := eventlog.Why(events, g.Addr.String())
			var kinds []string
			for _, e := range story.Chain {
				kinds = append(kinds, e.Kind)
			}
			var text strings.Builder
			if err := story.Write(&text); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(kinds, " "); !ok || got != tc.want {
				t.Errorf("the chain is\n%s, want\n%s; the story:\n%s\n%s", got, tc.want, text.String(), w.describe())
			}
			if story.Lost != 0 || story.Chain[0].Cause != 0 {
				t.Errorf("the story has no beginning:\n%s", text.String())
			}
		})
	}
}
