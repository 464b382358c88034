package member

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Without a majority nobody can write that there is none: the next leader does,
// as of when it was, and what stopped and started for it follows from it. A
// change of leader, and a minority's return, are no such thing.
func TestQuorumLost(t *testing.T) {
	split := func(w *world, cut bool) {
		for _, h := range w.hosts {
			w.isolate(h, cut)
		}
	}
	for _, c := range []struct {
		name    string
		trouble func(w *world, owner *host)
		lost    bool
		words   string
	}{
		{"all apart", func(w *world, _ *host) { split(w, true); w.run(20 * time.Second); split(w, false) }, true, ""},
		{"all apart, then votes and heartbeats come through before the log does", func(w *world, _ *host) {
			split(w, true)
			w.run(15 * time.Second)
			w.dumb = true
			split(w, false)
			w.run(5 * time.Second)
			w.dumb = false
		}, true, ""},
		{"two of three crash", func(w *world, owner *host) {
			var crashed []*host
			for _, h := range w.hosts {
				if h != owner {
					h.kill()
					crashed = append(crashed, h)
				}
			}
			w.run(20 * time.Second)
			crashed[0].start()
			w.run(5 * time.Second)
			crashed[1].start()
		}, true, "does not answer yet"},
		{"the leader crashes", func(w *world, _ *host) {
			l := w.leader()
			l.kill()
			w.run(20 * time.Second)
			l.start()
		}, false, ""},
		{"one is isolated", func(w *world, owner *host) { w.isolate(owner, true); w.run(20 * time.Second); w.isolate(owner, false) }, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.put(groupSpec("web", "n2"))
			w.run(5 * time.Second)
			owner := w.owner("web")
			began := w.leader().m.core.WallNow()
			c.trouble(w, owner)
			w.until("all are up and web is online", 20*time.Second, func() bool {
				return w.leader() != nil && len(w.state().View.Up) == 3 && w.online("web") && w.running["g-web"] != ""
			})
			w.run(time.Second)
			var got []confdb.Event
			kinds := []string{}
			for _, e := range w.state().Events {
				if strings.HasPrefix(e.Kind, "quorum_") {
					got = append(got, e)
				}
				if !e.Time.Before(began) {
					kinds = append(kinds, e.Kind)
				}
			}
			if !c.lost {
				if len(got) > 0 {
					t.Errorf("told: %+v", got)
				}
				return
			}
			if len(got) != 2 || got[0].Kind != confdb.KindQuorumLost || got[1].Kind != confdb.KindQuorumReturned || got[1].Cause != got[0].ID {
				t.Fatalf("told: %+v\n%s", got, w.describe())
			}
			// From the end of the last lease on (a leader alone speaks on for a moment), to the new leader's first entry.
			if at, took := got[0].Time.Sub(began), got[1].Time.Sub(got[0].Time); at < 500*time.Millisecond || at > 1100*time.Millisecond || took < 19*time.Second || took > 21*time.Second {
				t.Errorf("lost after %v, for %v", at, took)
			}
			if !strings.Contains(got[0].Text, c.words) {
				t.Errorf("told: %s", got[0].Text)
			}
			if chain := why(w, "group_online"); chain != "quorum_lost quorum_returned group_online" && chain != "quorum_lost quorum_returned node_up group_online" {
				t.Errorf("web is online because of %q; since then there was %q\n%s", chain, kinds, w.describe())
			}
			if i := slices.Index(kinds, "group_offline"); i >= 0 {
				if chain := why(w, "group_offline"); chain != "quorum_lost group_offline" {
					t.Errorf("web was offline because of %q", chain)
				}
			}
		})
	}
}
