package apply_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

var oneNode = strings.NewReplacer("majority_node_set", "single_node", "node \"n2\" { provider = local }\n", "", "node \"n3\" { provider = local }\n", "").Replace(threeNodes)

// A single node's cluster becomes one of three: the plan, byte for byte, with
// the votes of each step and no interruption; first the model, then the joins,
// one at a time; where the model can't be changed nobody joins.
func TestOneNodeGrows(t *testing.T) {
	l := newLab(t)
	one := strings.ReplaceAll(twoGroups, "[node.n1, node.n2]", "[node.n1]")
	l.must(l.load(oneNode+one), "")
	l.settled(l.load(oneNode + one))
	def := l.load(threeNodes + twoGroups)
	p := l.plan(def, "")
	golden(t, "grow", p)
	if len(p.Availability) != 0 || p.Quorum.Lost || p.Quorum.Lowest != 1 {
		t.Errorf("interruptions %+v, quorum %+v", p.Availability, p.Quorum)
	}

	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr == addr.Cluster() {
			return errors.New("the disk is full")
		}
		return nil
	}
	l.world.Calls = nil
	if res, _, err := l.apply(def, ""); err != nil || len(res.Failed) == 0 {
		t.Fatalf("nothing failed: %+v, %v", res, err)
	}
	if calls := l.calls(); strings.Contains(calls, providers.PhaseJoin) || len(l.world.Members) != 1 {
		t.Errorf("somebody joined a single node:\n%s", calls)
	}
	l.world.Fail, l.world.Calls = nil, nil
	l.must(def, "")
	const want = "cluster update\nnode.n2 join\nnode.n2 promote\nnode.n3 join\nnode.n3 promote"
	if got := l.calls(); got != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
	l.settled(def)

}
