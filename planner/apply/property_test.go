package apply_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
)

// drawDefinition is a cluster of one to five nodes and some groups, with
// owners, dependencies and addresses that may wander from group to group.
func drawDefinition(t *rapid.T) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster \"c\" {\n  max_unavailable = %d\n  description = \"%d\"\n  quorum { model = \"majority_node_set\" }\n}\n",
		rapid.IntRange(1, 2).Draw(t, "max_unavailable"), rapid.IntRange(0, 1).Draw(t, "description"))
	nodes := rapid.SliceOfNDistinct(rapid.IntRange(1, 6), 2, 5, rapid.ID[int]).Draw(t, "nodes")
	for _, n := range nodes {
		fmt.Fprintf(&b, "node \"n%d\" {\n  provider = local\n  zone = \"z%d\"\n}\n", n, rapid.IntRange(0, 1).Draw(t, "zone"))
	}
	groups := rapid.SliceOfNDistinct(rapid.IntRange(1, 5), 0, 4, rapid.ID[int]).Draw(t, "groups")
	ips := rapid.Permutation([]int{1, 2, 3, 4, 5}).Draw(t, "ips")
	for i, g := range groups {
		fmt.Fprintf(&b, "group \"g%d\" {\n", g)
		if owners := rapid.SliceOfNDistinct(rapid.SampledFrom(nodes), 0, 2, rapid.ID[int]).Draw(t, "owners"); len(owners) > 0 {
			b.WriteString("  preferred_owners = [")
			for k, o := range owners {
				if k > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "node.n%d", o)
			}
			b.WriteString("]\n")
		}
		if i > 0 && rapid.Bool().Draw(t, "depends") {
			fmt.Fprintf(&b, "  depends_on = [group.g%d]\n", groups[rapid.IntRange(0, i-1).Draw(t, "on")])
		}
		if rapid.Bool().Draw(t, "vip") {
			fmt.Fprintf(&b, "  resource \"ip_address\" \"vip\" { address = \"127.0.0.%d\" }\n", ips[i])
		}
		fmt.Fprintf(&b, "  resource \"generic_application\" \"app\" { command = [\"%d\"] }\n}\n", rapid.IntRange(0, 1).Draw(t, "command"))
	}
	return b.String()
}

// Whatever definition follows whatever other, with agents that fail, calls
// that fail and deaths in between: once the faults are over, an apply succeeds,
// the next plan has nothing to do, and nothing that must not happen happened.
func TestAnyDefinitionAfterAnyOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLab(quiet{t, rt})
		l.conf = func(c *apply.Config) { c.Parallelism = 1 } // the same again from the same draws
		for step := range rapid.IntRange(1, 4).Draw(rt, "steps") {
			def := l.load(drawDefinition(rt))
			if rapid.Bool().Draw(rt, "new program") {
				l.world.Program = fmt.Sprint("p", step)
			}
			l.ahead = rapid.Bool().Draw(rt, "far away")
			switch rapid.IntRange(0, 4).Draw(rt, "fault") {
			case 1:
				l.journal.killAt, l.journal.after = rapid.IntRange(1, 40).Draw(rt, "killed at"), rapid.Bool().Draw(rt, "after the write")
			case 2:
				n, after := rapid.IntRange(1, 20).Draw(rt, "failing call"), rapid.Bool().Draw(rt, "after the call")
				fail := func(plannertest.Call) error {
					if n--; n == 0 {
						return errors.New("something broke")
					}
					return nil
				}
				if l.world.Fail = fail; after {
					l.world.Fail, l.world.FailAfter = nil, fail
				}
			case 4:
				n := rapid.IntRange(1, 30).Draw(rt, "dies at call")
				l.world.FailAfter = func(plannertest.Call) error {
					if n--; n <= 0 {
						l.journal.dead.Store(true)
						return errKilled
					}
					return nil
				}
			case 3:
				for _, id := range slices.Sorted(maps.Keys(l.world.Hosts)) {
					h := l.world.Hosts[id]
					h.Running = h.Running && rapid.Bool().Draw(rt, "runs")
				}
			}
			_, p, err := l.apply(def, "")
			l.world.Fail, l.world.FailAfter = nil, nil
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			if p.Errored {
				if !exchange(p) && !p.Quorum.Lost {
					rt.Fatalf("plan: %+v", p.Diagnostics)
				}
				return // refused, with the way out
			}
			if err != nil && !errors.Is(err, errKilled) {
				rt.Fatal(err)
			}
			if rapid.Bool().Draw(rt, "another definition at once") {
				continue
			}
			again := l.plan(def, "")
			if again.Errored {
				if !exchange(again) && !again.Quorum.Lost {
					rt.Fatalf("second plan: %+v", again.Diagnostics)
				}
				return
			}
			l.must(def, "")
			l.settled(def)
			for _, v := range l.world.Violations() {
				rt.Fatalf("violated: %s", v)
			}
		}
		if rapid.Bool().Draw(rt, "destroy is cut off") {
			l.world.Ending = true
			l.journal.killAt, l.journal.after = rapid.IntRange(1, 20).Draw(rt, "killed at"), rapid.Bool().Draw(rt, "after the write")
			if _, p, err := l.apply(nil, planner.ModeDestroy); p.Errored || err != nil && !errors.Is(err, errKilled) {
				rt.Fatalf("destroy: %v, %v", p.Diagnostics, err)
			}
			l.journal.dead.Store(false)
			l.journal.killAt = 0
		}
		l.world.Ending = true
		l.must(nil, planner.ModeDestroy)
		if len(l.world.Hosts) > 0 || len(l.state.Objects) > 0 {
			rt.Fatalf("left: %v", l.state.Objects)
		}
	})
}

func exchange(p *planner.Plan) bool {
	for _, d := range p.Diagnostics {
		if d.Summary == "Changes wait for each other" {
			return true
		}
	}
	return false
}

// quiet is rapid's T with what newLab asks of a testing.TB.
type quiet struct {
	testing.TB
	rt *rapid.T
}

func (q quiet) Helper()                        {}
func (q quiet) Cleanup(func())                 {}
func (q quiet) Errorf(format string, a ...any) { q.rt.Errorf(format, a...) }
func (q quiet) Fatalf(format string, a ...any) { q.rt.Fatalf(format, a...) }
