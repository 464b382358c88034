package apply_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

// All three agents are down, and two of them do not come up again. Apply
// starts what it can, waits a minute for a quorum, says so, and ends: what it did
// is kept, what it could not do is named, and nothing is changed in the database.
// The next apply, on hosts that work, does the rest. The clock is the test's own.
func TestAMinuteWithoutQuorumEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.must(l.load(threeNodes+twoGroups), "")
		changed := strings.Replace(threeNodes+twoGroups, `["true"]`, `["false"]`, 1)
		for _, h := range l.world.Hosts {
			h.Running = false
		}
		l.world.Fail = func(c plannertest.Call) error {
			if c.Phase == providers.PhaseStart && c.Addr.Name != "n1" {
				return errors.New("its disk is gone")
			}
			return nil
		}
		before := len(l.world.Groups)
		l.conf = func(c *apply.Config) { c.QuorumWait, c.Poll = 0, 0 } // as the command has it
		began := time.Now()
		res, _, err := l.apply(l.load(changed), "")
		if took := time.Since(began); err != nil || took < time.Minute || took > 62*time.Second {
			t.Fatalf("it took %v: %v", took, err)
		}
		var told []string
		for _, f := range res.Failed {
			told = append(told, f.Addr.String()+": "+f.Err.Error())
		}
		text := strings.Join(told, "\n")
		if !strings.Contains(text, "within 1m0s") || !strings.Contains(text, "apply again") || strings.Count(text, "its disk is gone") != 2 {
			t.Errorf("failed:\n%s", text)
		}
		waits, started := 0, 0
		for _, e := range l.events {
			if e.Type == apply.EventWaiting && strings.Contains(e.Text, "waiting for a quorum, for up to 1m0s") {
				waits++
			}
			if e.Type == apply.EventComplete && e.Addr == addr.Node("n1", addr.NoKey) {
				started++
			}
		}
		if waits != 1 || started != 1 || len(res.Skipped) == 0 || len(l.world.Groups) != before {
			t.Errorf("told to wait %d times, n1 started %d times, skipped %v, %d groups", waits, started, res.Skipped, len(l.world.Groups))
		}
		for _, g := range l.world.Groups {
			for _, r := range g.Resources {
				if strings.Contains(r.Value.GoString(), `"false"`) {
					t.Errorf("%s was changed without a quorum", r.Addr)
				}
			}
		}
		l.world.Fail, l.conf = nil, nil
		def := l.load(changed)
		l.must(def, "")
		l.settled(def)
	})
}
