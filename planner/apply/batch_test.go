package apply_test

import (
	"context"
	"strings"
	"sync"
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

// rolling counts the nodes that an apply has out.
type rolling struct {
	providers.Provider
	mu        *sync.Mutex
	now, most *int
}

func (r rolling) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	count := func(n int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		*r.now += n
		*r.most = max(*r.most, *r.now)
	}
	if req.Phase == providers.PhaseDrain {
		count(1)
	}
	time.Sleep(time.Second)
	res, err := r.Provider.Apply(ctx, req)
	if req.Phase == providers.PhaseResume {
		count(-1)
	}
	return res, err
}

// A dead node gives its vote up, and the others are rolled after that though it does not
// come back: it counts among those that are out.
func TestDeadNodeCountsAsOut(t *testing.T) {
	for _, dead := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			src := strings.Replace(threeNodes, `cluster "c" {`, "cluster \"c\" {\n  max_unavailable = 2", 1) + "node \"n4\" { provider = local }\n" + twoGroups
			for _, n := range []string{"n5", "n6"} {
				src += "node \"" + n + "\" {\n  provider = local\n  votes = 0\n}\n"
			}
			l.must(l.load(src), "")
			l.host("n1").Lost, l.host("n1").Running = dead, !dead
			l.world.Program = "p2"
			var mu sync.Mutex
			now, most := 0, 0
			l.conf = func(c *apply.Config) {
				local, err := c.Providers.Provider("local")
				if err != nil {
					t.Fatal(err)
				}
				db, _ := c.Providers.Provider("confdb")
				c.Providers = providers.NewRegistry(map[string]providers.Provider{"local": rolling{local, &mu, &now, &most}, "confdb": db})
			}
			def := l.load(strings.Replace(src, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}", 1))
			res, p, err := l.apply(def, "")
			if err != nil || p.Errored {
				t.Fatal(err, p.Diagnostics)
			}
			if len(res.Skipped) != 0 {
				t.Errorf("skipped %v", res.Skipped)
			}
			for _, n := range []string{"n2", "n3", "n4", "n5", "n6"} {
				if l.host(n).Program != "p2" {
					t.Errorf("%s has the old program", n)
				}
			}
			want := 2
			if dead {
				want = 1
			}
			if most != want {
				t.Errorf("n1 dead %v: %d others were out at once, want %d, of max_unavailable = 2", dead, most, want)
			}
		})
	}
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

// Nodes that are drained at once may want the same place for their groups: who comes
// too late has left already, goes back, and stops with its node. The plan counts both.
func TestDrainedForATakenPlace(t *testing.T) {
	l := newLab(t)
	src := `
cluster "c" {
  max_unavailable = 2
  quorum { model = "majority_node_set" }
}
node "n1" { provider = local }
node "n2" { provider = local }
node "n3" {
  provider = local
  votes    = 0
}
node "n4" {
  provider = local
  role     = "witness"
}
node "n5" {
  provider = local
  role     = "witness"
}
group "a" {
  possible_owners  = [node.n1, node.n3]
  preferred_owners = [node.n1]
  resource "generic_application" "app" { command = ["true"] }
}
group "b" {
  possible_owners  = [node.n2, node.n3]
  preferred_owners = [node.n2]
  keep_apart       = [group.a]
  resource "generic_application" "app" { command = ["true"] }
}
`
	l.conf = func(c *apply.Config) { c.Parallelism = 1 } // ids in one order: of equals, the lowest goes first
	l.must(l.load(src), "")
	l.own("a", "n3")
	l.own("b", "n3") // plannertest keeps nothing apart
	l.world.Program = "p2"
	p := l.plan(l.load(src), "")
	// Batches are n2 and n3, n4 and n5, n1. With n2 gone first b has no other place, and with n3 gone first it has.
	for _, v := range p.Availability {
		if v.Interruptions != 3 || v.MaxMS != -1 {
			t.Errorf("%s: %d interruptions of %d ms, want 3, of unknown length", v.Group, v.Interruptions, v.MaxMS)
		}
	}
	if len(p.Availability) != 2 {
		t.Errorf("%+v", p.Availability)
	}
}
