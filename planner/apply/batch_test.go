package apply_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/providers"
)

// slowStop is a provider of nodes whose drains and stops take a while to begin.
type slowStop struct{ providers.Provider }

func (s slowStop) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	time.Sleep(time.Second)
	return s.Provider.Apply(ctx, req)
}

// Two nodes of five are to be out at once, and another one fails after the plan was
// made: each of the two alone may still go, but not both. One goes after the other.
func TestBatchCountsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		src := strings.Replace(threeNodes, `cluster "c" {`, "cluster \"c\" {\n  max_unavailable = 2", 1) + "node \"n4\" { provider = local }\nnode \"n5\" { provider = local }\n" + twoGroups
		def := l.load(src)
		l.must(def, "")
		l.world.Program, l.world.Calls = "p2", nil
		l.planned = l.plan(def, "")
		l.host("n5").Running = false
		l.conf = func(c *apply.Config) {
			local, err := c.Providers.Provider("local")
			if err != nil {
				t.Fatal(err)
			}
			db, _ := c.Providers.Provider("confdb")
			c.Providers = providers.NewRegistry(map[string]providers.Provider{"local": slowStop{local}, "confdb": db})
			c.QuorumWait, c.Poll = 0, 0
		}
		res, _, err := l.apply(def, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Failed) != 0 || len(res.Skipped) != 0 {
			t.Errorf("failed %v, skipped %v", res.Failed, res.Skipped)
		}
		l.conf = nil
		l.must(def, "")
		l.settled(def)
	})
}
