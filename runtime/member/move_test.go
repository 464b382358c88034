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
