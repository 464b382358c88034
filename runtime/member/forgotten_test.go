package member

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A node hears of a new leader, releases its group to both, and crashes before
// the new term is on its disk. In its next life it is back in the old term, and
// the old leader, which nobody else hears any more, has authority left for a
// lease. It gets none: the node asks more voters than the old leader before it
// answers in any term. (And the new leader has not believed the release:
// core's TestAReleaseIsOfItsIncarnation.)
func TestAForgottenTerm(t *testing.T) {
	for phase := range 10 {
		w := newWorld(t, 5)
		g := groupSpec("web", "n2")
		g.PossibleOwners = []string{"n2", "n4"}
		w.put(g)
		old, node := w.leader(), w.hosts[1]
		if old != w.hosts[0] {
			t.Fatal("n1 doesn't lead")
		}
		w.run(time.Second + time.Duration(phase)*25*time.Millisecond)
		cut := func(a *host, is bool, from ...*host) {
			for _, h := range from {
				w.cut[[2]int{a.i, h.i}], w.cut[[2]int{h.i, a.i}] = is, is
			}
		}
		others := w.hosts[2:]
		cut(old, true, w.hosts[3]) // so that it has nowhere to send web to
		w.run(300 * time.Millisecond)
		node.hung = true
		node.input(Shutdown{})
		w.run(10 * time.Millisecond)
		cut(old, true, others...)
		cut(node, true, others...)
		w.run(285 * time.Millisecond)
		cut(node, false, others...)
		w.until("another leads n2", 2*time.Second, func() bool {
			s := node.m.Status().Driver
			return s.Role == confdb.Follower && s.Leader != 0 && s.Leader != old.server
		})
		w.run(2 * time.Millisecond)
		cut(node, true, others...)
		node.kill()
		node.hung = false
		starts := len(node.starts)
		node.start()
		w.run(300 * time.Millisecond)
		if len(node.starts) > starts {
			t.Error("the old leader granted the node's next life a lease")
		}
		if s := node.m.Status().Driver; !s.Starting || s.Term != 0 || s.Leader != 0 {
			t.Errorf("in its next life it takes part, heard by the old leader alone: %+v", s)
		}
		cut(old, false, others...)
		cut(node, false, others...)
		w.until("web is online", 5*time.Second, func() bool { return w.online("web") })
	}
}
