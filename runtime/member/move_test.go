package member

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A planned move waits for nothing that comes by the clock: with 30 s between
// two frames a group is away for no longer than it takes to prove that it is
// down, to tell the leader, to commit and to start. From a follower and from the
// leader, to either.
func TestMoveNeedsNoBeat(t *testing.T) {
	w := newWorld(t, 3)
	w.put(groupSpec("web", "n1"))
	w.slow()
	for _, to := range []*host{w.hosts[1], w.hosts[2], w.hosts[0], w.hosts[2]} {
		from := w.owner("web")
		w.run(17 * time.Second) // somewhere between two frames
		w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: to.id}})
		w.until("web is down on "+from.name, time.Second, func() bool { return w.running["g-web"] != from.name })
		// The proof that nothing is left; the release; a commit: two writes and three
		// messages, and as much again where another update is under way.
		limit := stopTime + netDelay + 2*(2*diskDelay+3*netDelay) + 5*time.Millisecond
		w.until("web is on "+to.name, limit, func() bool { return w.running["g-web"] == to.name })
		w.until("web is online on "+to.name, time.Second, func() bool { return w.online("web") })
	}
}

// Two moves at once: a group goes to where there is room only once one that
// depends on it has left, and that one starts elsewhere only once it is online.
// Neither waits for the other.
func TestMovesThatNeedEachOther(t *testing.T) {
	w := newWorld(t, 3)
	w.configure("", func(_ int, n *spec.Node) { n.Capacity = map[string]int64{"cpu": 2} })
	db, web := groupSpec("db", "n2"), groupSpec("web", "n1")
	db.Demand, db.Priority = map[string]int64{"cpu": 1}, 3000
	web.Demand, web.DependsOn = map[string]int64{"cpu": 2}, []string{"db"}
	w.put(db)
	w.put(web)
	w.until("both run", 5*time.Second, func() bool { return w.online("db") && w.online("web") })
	lead := w.leader()
	w.must(lead, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n3"}})
	w.must(lead, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-db", To: "id-n1"}})
	w.until("db is on n1, web on n3", 10*time.Second, func() bool {
		return w.online("db") && w.online("web") && w.running["g-db"] == "n1" && w.running["g-web"] == "n3"
	})
}

// Two groups that change places, where each would have room beside the other: each
// has left by then, and neither waits for the other.
func TestMovesThatExchange(t *testing.T) {
	w := newWorld(t, 3)
	w.configure("", func(_ int, n *spec.Node) { n.Capacity = map[string]int64{"cpu": 2} })
	for name, at := range map[string]string{"db": "n1", "web": "n2"} {
		g := groupSpec(name, at)
		g.Demand = map[string]int64{"cpu": 1}
		w.put(g)
	}
	lead := w.leader()
	w.must(lead, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-db", To: "id-n2"}})
	w.must(lead, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n1"}})
	w.until("db is on n2, web on n1", 5*time.Second, func() bool {
		return w.online("db") && w.online("web") && w.running["g-db"] == "n2" && w.running["g-web"] == "n1"
	})
}

// A group that is on its way, and whose place others have taken, does not go back
// there when it can't go where it was to: it has no owner until some node has room.
func TestNoWayBackToATakenPlace(t *testing.T) {
	w := newWorld(t, 3)
	w.configure("", func(_ int, n *spec.Node) { n.Capacity = map[string]int64{"cpu": 2} })
	db, web, other := groupSpec("db", "n2"), groupSpec("web", "n1"), groupSpec("other", "n3")
	web.Demand, web.DependsOn = map[string]int64{"cpu": 2}, []string{"db"}
	other.Demand = map[string]int64{"cpu": 2}
	w.put(db)
	w.put(web)
	w.put(other)
	w.hosts[2].hangs = map[string]bool{"ip": true}
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-db", To: "id-n3"}})
	w.until("db is on its way up on n3", 2*time.Second, func() bool { return w.state().NodeName(w.group("db").Owner.Node) == "n3" })
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-web", To: "id-n2"}})
	w.until("web waits for db", 2*time.Second, func() bool { return w.group("web").Handover != nil && w.running["g-web"] == "" })
	w.must(w.leader(), confdb.Command{MoveGroup: &confdb.MoveGroup{Group: "g-other", To: "id-n1"}})
	w.until("other is on n1", 2*time.Second, func() bool { return w.online("other") && w.running["g-other"] == "n1" })
	w.must(w.leader(), confdb.Command{PauseNode: &confdb.PauseNode{Node: "id-n2"}})
	w.until("web has no owner", 2*time.Second, func() bool { return w.group("web").Owner.Node == "" })
	w.run(2 * time.Second)
	if w.running["g-web"] != "" || w.running["g-other"] != "n1" {
		t.Errorf("web on %q, other on %q", w.running["g-web"], w.running["g-other"])
	}
}
