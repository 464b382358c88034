package member

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A stop that is never proven costs the node its lease, and then its monitor:
// the group is not stuck for ever.
func TestStuckStop(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n2")
	for i := range g.Resources {
		g.Resources[i].PendingTimeout = spec.Duration(2 * time.Second)
	}
	owner := w.put(g)
	w.run(time.Second)
	// ip hangs for its pending_timeout, then EndGroup does nothing either.
	owner.mute = true
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n3"}})
	w.run(time.Second)
	if w.running["g-web"] != "n2" {
		t.Fatal("taken without a release")
	}
	w.until("web is on n3", 20*time.Second, func() bool { return w.online("web") && w.running["g-web"] == "n3" })
}

// What has failed is not down while its stop goes on: nothing that it stands on is
// stopped under it, it is not started beside its own stop, no other node gets the
// group, and the node keeps its lease and its other groups.
func TestFailedWhileItStops(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n2")
	g.Resources[1].Restart.Threshold = 1
	owner := w.put(g)
	w.put(groupSpec("db", "n2"))
	w.run(time.Second)
	starts := func(group string) (n int) {
		for _, h := range w.hosts {
			for _, s := range h.starts {
				if strings.HasPrefix(s, group+"/") {
					n++
				}
			}
		}
		return n
	}
	epoch, others, before := w.group("web").Owner.Epoch, starts("g-db"), starts("g-web")
	fail := func() {
		owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateFailed, Reason: "check failed", Stopping: true})
	}
	stopped := func() {
		owner.end("g-web", "app")
		owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateOffline})
	}
	app := func() confdb.ResourceState { return w.group("web").Resources[1] }
	fail()
	w.run(20 * time.Second) // longer than any end of a group may take
	if starts("g-web") != before || app().State != spec.StateOfflinePending || app().Reason != "check failed" {
		t.Fatalf("while it stops: %+v, starts %v", app(), owner.starts)
	}
	owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateOfflinePending, Reason: "its stop command failed"})
	w.run(time.Second)
	if got := app().Reason; got != "check failed; its stop command failed" {
		t.Errorf("the reason is %q", got)
	}
	stopped()
	w.until("web is online again, here", time.Second, func() bool { return w.online("web") && w.running["g-web"] == "n2" && starts("g-web") == before+1 })

	fail() // past its restarts: the group gives up on this node
	w.run(20 * time.Second)
	if w.group("web").State != spec.StateFailed || app().State != spec.StateOfflinePending || owner.procs["g-web"]["ip"] == 0 || w.running["g-web"] != "n2" {
		t.Fatalf("while it stops: %+v\n%s", w.group("web"), w.describe())
	}
	if owner.m.Status().LeaseEnd <= owner.clock() || w.running["g-db"] != "n2" || starts("g-db") != others {
		t.Fatalf("the node's other group was stopped for it:\n%s", w.describe())
	}
	stopped()
	w.until("web is on another node", time.Second, func() bool { return w.online("web") && w.running["g-web"] != "n2" })
	if w.running["g-db"] != "n2" || starts("g-db") != others {
		t.Errorf("the node's other group was stopped for it:\n%s", w.describe())
	}
}

// A group whose failed resource does not stop gives up on its node, in order, after
// pending_timeout: what else of it runs is of no use, and where a fence covers the
// node, only that helps.
func TestFailedThatDoesNotStop(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n2"))
	w.run(time.Second)
	owner.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "app", State: spec.StateFailed, Reason: "check failed", Stopping: true})
	if took := w.until("it gives up", 5*time.Minute, func() bool { return w.group("web").State == spec.StateFailed }); took < 179*time.Second || took > 182*time.Second {
		t.Errorf("after %v", took)
	}
	if !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool {
		return e.Kind == "group_failed" && strings.Contains(e.Text, "its stop has not come to an end for 3m: check failed; group web gives up on this node")
	}) {
		t.Errorf("no word on why:\n%s", w.describe())
	}
}

// What takes too long to stop while its group is up, for whatever reason, has the
// group give up on its node: the resource can't be started again there.
func TestStopThatHoldsAGroupBack(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		begin      func(w *world, owner *host, epoch uint64)
	}{
		{"its start took too long", "resource ip of group web failed, and its stop has not come to an end for 20s: ", func(_ *world, owner *host, epoch uint64) {
			owner.hangs = map[string]bool{"ip": true}
			owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "ip", State: spec.StateFailed, Reason: "exit 1"})
		}},
		{"what it depends on failed", "resource ip of group web went down with what it depends on, and its stop has not come to an end for 20s: ", func(_ *world, owner *host, epoch uint64) {
			owner.end("g-web", "app")
			owner.input(ResourceChanged{Group: "g-web", Epoch: epoch, Resource: "app", State: spec.StateFailed, Reason: "exit 1"})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			g := groupSpec("web", "n2")
			if tt.name == "what it depends on failed" {
				g.Resources[0].DependsOn, g.Resources[1].DependsOn = []string{"app"}, nil
			}
			g.Resources[0].PendingTimeout = spec.Duration(20 * time.Second)
			owner := w.put(g)
			w.run(time.Second)
			owner.wedged = true
			tt.begin(w, owner, w.group("web").Owner.Epoch)
			w.until("it gives up", time.Minute, func() bool { return w.group("web").State == spec.StateFailed })
			if !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool {
				return e.Kind == "group_failed" && strings.HasPrefix(e.Text, tt.text) && strings.HasSuffix(e.Text, "; group web gives up on this node")
			}) {
				t.Errorf("no word on why:\n%s", w.describe())
			}
		})
	}
}

// What has failed and does not stop, for however long, takes nothing of the time that
// the rest of its group has to stop: that is not ended at once when the group is to go.
func TestMoveBesideAStopThatFails(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n2")
	g.Resources[0].Restart.AffectGroup = false
	g.Resources[0].Restart.Action = spec.RestartNone
	g.Resources[1].DependsOn = nil
	owner := w.put(g)
	w.run(time.Second)
	owner.wedged = true
	owner.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "ip", State: spec.StateFailed, Reason: "check failed", Stopping: true})
	w.run(10 * time.Minute)
	if w.group("web").Resources[1].State != spec.StateOnline {
		t.Fatalf("app went down with it:\n%s", w.describe())
	}
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n3"}})
	w.until("app has stopped", time.Minute, func() bool { return owner.procs["g-web"]["app"] == 0 })
	w.run(2 * time.Minute)
	if owner.ends != 0 {
		t.Errorf("the group was ended at once, though app had time to stop in order:\n%s", w.describe())
	}
	w.run(2 * time.Minute)
	if owner.ends == 0 {
		t.Errorf("the group was never ended:\n%s", w.describe())
	}
}

// A script whose stop goes on failing keeps its group on its node, for as long as that
// takes, and costs the node's other groups nothing. Where a watchdog or a fence rescues
// the group, the node gives its lease up; the leader's own, which nobody fences, once it
// has handed leadership over. So it does where the monitor says nothing, which may hang.
func TestScriptThatDoesNotStop(t *testing.T) {
	fence := spec.Fence{ID: "f-power", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_x", Level: 1}
	for _, tt := range []struct {
		name               string
		typ                string
		fence, leads, mute bool
		exclusive          bool
		gives              bool // its lease up
	}{
		{name: "script", typ: "script"},
		{name: "of the leader", typ: "script", leads: true},
		{name: "with a fence", typ: "script", fence: true, gives: true},
		{name: "with a fence, of the leader", typ: "script", fence: true, leads: true, gives: true}, // once another leads
		{name: "with a fence, exclusive", typ: "script", fence: true, exclusive: true},
		{name: "a process", typ: "generic_application", gives: true},
		{name: "a monitor that hangs", typ: "script", mute: true, gives: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 3)
			on := w.leader().name
			if !tt.leads {
				on = map[bool]string{true: "n2", false: "n1"}[on == "n1"]
			}
			if tt.fence {
				w.must(w.leader(), confdb.Command{PutFence: &fence})
			}
			g := groupSpec("web", on)
			ip := &g.Resources[0]
			ip.Type, ip.PendingTimeout = tt.typ, spec.Duration(2*time.Second)
			if tt.exclusive {
				ip.Attributes["exclusive"] = true
			}
			owner := w.put(g)
			w.put(groupSpec("db", on))
			w.run(time.Second)
			if owner.name != on {
				t.Fatalf("web is on %s", owner.name)
			}
			epoch := w.group("db").Owner.Epoch
			owner.wedged, owner.mute = !tt.mute, tt.mute
			w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: ""}})
			gave := false
			for range 400 {
				w.run(100 * time.Millisecond)
				gave = gave || owner.m.Status().LeaseEnd <= owner.clock()
				if gave {
					break
				}
			}
			if gave != tt.gives {
				t.Fatalf("its lease is given up: %v, want %v\n%s", gave, tt.gives, w.describe())
			}
			if tt.gives {
				return
			}
			if w.group("db").Owner.Epoch != epoch || w.running["g-db"] != on || w.group("web").Owner.Node != "id-"+on {
				t.Fatalf("db was stopped, or web released:\n%s", w.describe())
			}
			if !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool {
				return e.Kind == "group_waits" && e.Text == "group web stays on node "+on+", and runs nowhere, until resource ip has stopped: its stop command failed"
			}) {
				t.Errorf("no word on it:\n%s", w.describe())
			}
			// It stops at last. What proves that all of the group is down comes a little later.
			owner.wedged = false
			owner.endGroup("g-web")
			web := w.group("web").Owner.Epoch
			owner.input(ResourceChanged{Group: "g-web", Epoch: web, Resource: "ip", State: spec.StateOffline})
			w.run(300 * time.Millisecond)
			if slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool { return e.Kind == "node_down" }) {
				t.Errorf("its node was taken for down as it stopped:\n%s", w.describe())
			}
			owner.input(GroupDown{Group: "g-web", Epoch: web})
			w.until("web is elsewhere", 2*time.Second, func() bool { return w.online("web") && w.running["g-web"] != on })
		})
	}
}

// The leader's own node is fenced as well where only that frees a group: another node
// leads then. It does not before the monitor had time to come back, nor where no fence
// covers the node.
func TestLeaderThatIsToBeFenced(t *testing.T) {
	fence := spec.Fence{ID: "f-power", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_x", Level: 1}
	for _, fenced := range []bool{true, false} {
		w := newWorld(t, 3)
		if fenced {
			w.must(w.leader(), confdb.Command{PutFence: &fence})
		}
		on := w.leader().name
		g := groupSpec("web", on)
		g.Resources[0].Type = "script"
		owner := w.put(g)
		w.run(time.Second)
		if owner.name != on {
			t.Fatalf("web is on %s", owner.name)
		}
		owner.mon = false
		owner.monLife++ // the next one stops what this one left, and does not succeed
		owner.input(MonitorDown{})
		w.run(9 * time.Second)
		if w.leader() != owner {
			t.Fatalf("fence %v: another leads, and its monitor had no time to come back", fenced)
		}
		w.run(10 * time.Second)
		if moved := w.leader() != owner; moved != fenced {
			t.Fatalf("fence %v: another leads: %v\n%s", fenced, moved, w.describe())
		}
		if !fenced {
			continue
		}
		w.until("it is being fenced", 5*time.Second, func() bool {
			return slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool { return e.Kind == "fence_started" && e.Node == on })
		})
	}
}

// pending_timeout is the time between two signs of progress of a start, with no
// total: as long as there are any, a start may take hours.
func TestPendingTimeout(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n1", "n2")
	for i := range g.Resources {
		g.Resources[i].PendingTimeout = spec.Duration(20 * time.Second)
		g.Resources[i].Restart.Threshold = 0
	}
	n1 := w.hosts[0]
	n1.hangs = map[string]bool{"app": true}
	w.must(w.leader(), confdb.Command{PutGroup: &g})
	w.until("app starts", 5*time.Second, func() bool { return n1.procs["g-web"]["app"] != 0 })
	for range 10 {
		w.run(15 * time.Second)
		n1.input(ResourceChanged{Group: "g-web", Epoch: w.group("web").Owner.Epoch, Resource: "app", State: spec.StateOnlinePending, Reason: "replays its log"})
	}
	if w.running["g-web"] != "n1" || w.group("web").GaveUp {
		t.Fatalf("a start that gets on was given up:\n%s", w.describe())
	}
	if took := w.runsOn("web", w.hosts[1], time.Minute); took < 19*time.Second || took > 22*time.Second {
		t.Errorf("it was given up %v after its last sign of progress", took)
	}
	if !slices.ContainsFunc(w.state().Events, func(e confdb.Event) bool {
		return e.Kind == "group_failed" && strings.Contains(e.Text, "no progress for 20s while coming online (pending_timeout)")
	}) {
		t.Errorf("no word on why:\n%s", w.describe())
	}
}

// All nodes lose power and come back: the cluster forms again and runs what it
// ran, where it ran.
func TestColdStart(t *testing.T) {
	w := newWorld(t, 3)
	w.put(groupSpec("web", "n2"))
	w.put(groupSpec("db", "n3"))
	w.run(time.Second)
	for _, h := range w.hosts {
		h.kill()
	}
	w.run(time.Second)
	for _, h := range w.hosts {
		h.start()
	}
	w.until("all runs again", 10*time.Second, func() bool { return w.leader() != nil && w.online("web") && w.online("db") })
	if w.running["g-web"] != "n2" || w.running["g-db"] != "n3" {
		t.Errorf("moved for nothing: %v\n%s", w.running, w.describe())
	}
}

// A cluster of one node on a local file.
func TestSingleNode(t *testing.T) {
	w := newWorldOf(t, 1, openBolt)
	h := w.put(groupSpec("web"))
	w.run(time.Second)
	h.kill()
	w.run(100 * time.Millisecond)
	h.start()
	took := w.until("web runs again", 5*time.Second, func() bool { return w.online("web") })
	if took < 700*time.Millisecond {
		t.Errorf("it ran again after %v, before what the killed agent had can be over", took)
	}
	w.must(h, confdb.Command{SetWant: &confdb.SetWant{Group: "g-web", Want: spec.WantOffline}})
	w.until("web is offline", time.Second, func() bool { return w.running["g-web"] == "" && w.group("web").State == spec.StateOffline })
	h.input(Shutdown{})
	w.until("stopped", time.Second, func() bool { return h.stopped })
}

// A large state is written as a snapshot as often as its log grows as large: the
// disk, which every update waits for, is not kept busy with it.
func TestLargeStatesAreWrittenSeldom(t *testing.T) {
	w := newWorldOf(t, 1, openBolt)
	h := w.hosts[0]
	for i := range 600 {
		w.must(h, confdb.Command{ID: fmt.Sprint("kv", i), KV: &confdb.KVWrite{Key: fmt.Sprint(i % 240), Value: make([]byte, confdb.MaxValue)}})
	}
	if log, snapshots := h.wrote[0], h.wrote[1]; log < 45<<20 || snapshots == 0 || snapshots > 2*log {
		t.Errorf("%d KiB of entries, %d KiB of snapshots", log>>10, snapshots>>10)
	}
	h.kill()
	w.run(100 * time.Millisecond)
	h.start()
	w.until("the keys are read again", 5*time.Second, func() bool { return len(h.m.State().KV.Spaces[""].Keys) == 240 })
}

// What clients are told.
func TestReplies(t *testing.T) {
	w := newWorld(t, 3)
	lead := w.leader()
	other := w.hosts[(lead.i+1)%3]
	if r := w.change(other, Membership{Op: "add_learner", Server: 999}); r.Code != CodeNotLeader || r.Detail != lead.id {
		t.Errorf("a follower asked to add a member: %+v", r)
	}
	c := confdb.Command{ID: "once", Event: &confdb.Event{Kind: "note", Text: "x"}}
	a, b := w.submit(other, c), w.submit(lead, c)
	if a.Code != "" || a.Revision == 0 || a != b {
		t.Errorf("one command twice: %+v, then %+v", a, b)
	}
	if r := w.submit(other, confdb.Command{}); r.Code != confdb.CodeInvalid {
		t.Errorf("an empty command: %+v", r)
	}
	large := confdb.Command{ID: "large", Event: &confdb.Event{Kind: "note", Text: strings.Repeat("x", confdb.MaxCommand)}}
	for _, h := range []*host{lead, other} {
		if r := w.submit(h, large); r.Code != confdb.CodeLimit || !strings.Contains(r.Detail, "1024 at most") {
			t.Errorf("a command that no log takes: %.200v", r)
		}
	}
	w.isolate(other, true)
	w.run(2 * time.Second)
	if r := w.submit(other, confdb.Command{ID: "cut off", Nothing: true}); r.Code != CodeNoLeader {
		t.Errorf("without a leader: %+v", r)
	}
	w.isolate(other, false)
	w.isolate(lead, true)
	start := w.now
	if r := w.submit(lead, confdb.Command{ID: "in doubt", Nothing: true}); r.Code != CodeUnknown {
		t.Errorf("a leader that was cut off just now: %+v", r)
	}
	if took := time.Duration(w.now - start); took < 4*time.Second {
		t.Errorf("it gave up after %v", took)
	}
	w.isolate(lead, false)
	w.until("all are up", 5*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 3 })
	w.run(time.Second)
	for _, h := range w.hosts {
		if got, want := h.m.State().Revision, w.state().Revision; got != want {
			t.Errorf("%s is at revision %d, not %d", h.name, got, want)
		}
	}
}

// A disk that can't be written: the node says so, leaves its groups to others,
// and promises nothing more.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, 3)
	owner := w.put(groupSpec("web", "n2"))
	w.run(time.Second)
	owner.input(PersistFailed{N: 1, Err: "no space left on device"})
	w.isolate(owner, true)
	w.run(400 * time.Millisecond)
	if next := owner.m.NextDeadline(); next != 0 && next <= owner.m.now {
		t.Errorf("it wants to be called %v ago, without end: nobody asks its driver any more", owner.m.now.Sub(next))
	}
	w.isolate(owner, false)
	w.until("web runs elsewhere", 5*time.Second, func() bool { return w.running["g-web"] != "" && w.running["g-web"] != "n2" })
	w.until("it stops", 5*time.Second, func() bool { return owner.stopped })
	if !strings.Contains(strings.Join(owner.logs, "\n"), "error: the store can't be written") {
		t.Errorf("it said: %q", owner.logs)
	}
}

// A changed definition: what is new starts and what is changed is started
// again, while the rest goes on; an owner that is none any more hands over.
func TestChangedDefinition(t *testing.T) {
	w := newWorld(t, 3)
	g := groupSpec("web", "n1")
	h := w.put(g)
	w.run(time.Second)
	change := func(do func(g *spec.Group)) []string {
		t.Helper()
		before := len(h.starts)
		next := *w.group("web")
		s := next.Spec
		s.Resources = slices.Clone(s.Resources)
		do(&s)
		w.must(w.leader(), confdb.Command{PutGroup: &s})
		w.run(500 * time.Millisecond)
		if !w.online("web") {
			t.Fatalf("not online:\n%s", w.describe())
		}
		return h.starts[before:]
	}
	if got := change(func(g *spec.Group) {
		g.Resources[1].Restart.Threshold, g.Resources[1].Attributes = 9, map[string]any{"stop_timeout": "3s"}
		g.PreferredOwners = []string{"n2"}
	}); len(got) != 0 {
		t.Errorf("a policy started %v", got)
	}
	if got := change(func(g *spec.Group) {
		r := g.Resources[1]
		r.Name = "log"
		g.Resources = append(g.Resources, r)
	}); !slices.Equal(got, []string{"g-web/log@1"}) {
		t.Errorf("a new resource started %v", got)
	}
	if got := change(func(g *spec.Group) { g.Resources[0].Attributes = map[string]any{"command": []any{"other"}} }); !slices.Equal(got, []string{"g-web/ip@1", "g-web/app@1", "g-web/log@1"}) {
		t.Errorf("a changed dependency started %v", got)
	}
	if got := change(func(g *spec.Group) { g.Resources = g.Resources[:2] }); len(got) != 0 || len(h.procs["g-web"]) != 2 {
		t.Errorf("a removed resource started %v, and %v run", got, h.procs)
	}
	if w.running["g-web"] != "n1" {
		t.Error("changed preferred owners moved the group")
	}
	change(func(g *spec.Group) { g.PossibleOwners = []string{"n2", "n3"} })
	if w.running["g-web"] != "n2" {
		t.Errorf("its owner is none any more, yet it runs on %s", w.running["g-web"])
	}
}

// Room for one more group of high priority is made by the lowest.
func TestShed(t *testing.T) {
	w := newWorld(t, 3)
	for i := range w.hosts {
		s := nodeSpec(i)
		s.Capacity = map[string]int64{"cpu": 4}
		w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: s}})
	}
	for i, name := range []string{"a", "b", "c"} {
		g := groupSpec(name, w.hosts[i].name)
		g.Demand, g.Priority = map[string]int64{"cpu": 3}, 1000*(i+1)
		w.put(g)
	}
	w.run(time.Second)
	w.hosts[2].kill() // c, the highest, was there
	w.until("c runs in a's place", 4*time.Second, func() bool { return w.leader() != nil && w.online("c") && w.running["g-c"] == "n1" })
	w.run(time.Second)
	if w.running["g-a"] != "" || w.group("a").Owner.Node != "" || w.running["g-b"] != "n2" {
		t.Errorf("after it: %v\n%s", w.running, w.describe())
	}
	w.hosts[2].start()
	w.until("a finds room again", 5*time.Second, func() bool { return w.online("a") && w.running["g-a"] == "n3" })
}

// The same inputs give the same outputs.
func TestDeterministic(t *testing.T) {
	tell := func() string {
		w := newWorld(t, 3)
		w.put(groupSpec("web", "n2"))
		w.put(groupSpec("db"))
		w.hosts[1].kill()
		w.run(3 * time.Second)
		w.hosts[1].start()
		w.run(3 * time.Second)
		return w.describe()
	}
	if a, b := tell(), tell(); a != b {
		t.Errorf("two runs differ:\n%s\n---\n%s", a, b)
	}
}

// Five hundred groups cost an idle leader next to nothing per round.
func BenchmarkIdleRound(b *testing.B) {
	w := newWorld(&testing.T{}, 3)
	for i := range 500 {
		g := groupSpec(fmt.Sprint("g", i))
		w.leader().input(Submit{Token: 1 << 40, Command: confdb.Command{PutGroup: &g}})
	}
	w.run(30 * time.Second)
	online := 0
	for _, g := range w.state().Groups {
		if g.State == spec.StateOnline {
			online++
		}
	}
	if online != 500 {
		b.Fatalf("%d online", online)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.run(50 * time.Millisecond) // a round of the whole cluster, world included
	}
}
