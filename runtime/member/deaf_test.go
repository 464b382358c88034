package member

import (
	"testing"
	"time"
)

// A leader that hears nobody speaks on for a while, and W counts from the last
// that its followers answered. So its own groups are away for a suspicion and a
// round longer than W, the commit and the start, whenever in its rounds it became
// deaf; and no longer than that.
func TestDeafLeader(t *testing.T) {
	for phase := range time.Duration(12) {
		w := newWorld(t, 3)
		w.put(groupSpec("web", w.leader().name))
		w.run(time.Second + phase*25*time.Millisecond)
		old := w.leader()
		if w.owner("web") != old {
			t.Fatalf("web is not on the leader:\n%s", w.describe())
		}
		for _, h := range w.hosts {
			if h != old {
				w.cut[[2]int{h.i, old.i}] = true
			}
		}
		timings := old.m.core.Timings()
		bound := timings.Suspicion.D() + timings.Round() + timings.TakeoverWait(0) + 20*time.Millisecond // two syncs and their messages
		w.until("web runs elsewhere", bound, func() bool {
			return w.running["g-web"] != "" && w.running["g-web"] != old.name
		})
	}
}
