package apply_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
)

const oneFence = `
variable "bmc" {
  default   = "hunter2"
  sensitive = true
}
fence "power" {
  agent      = "fence_x"
  nodes      = [node.n1, node.n2, node.n3]
  parameters = { ip = "10.0.0.1", password = var.bmc }
}
`

// A fence is there before the groups, and after the nodes that it covers; it
// goes after them. What is secret of it is in no plan, also once its block is gone.
func TestFence(t *testing.T) {
	l := newLab(t)
	power := addr.Fence("power", addr.NoKey)
	// at is when a call was made, the last of its kind.
	at := func(a addr.Address, phase string) int {
		t.Helper()
		for i, c := range slices.Backward(l.world.Calls) {
			if c.Addr == a && c.Phase == phase {
				return i
			}
		}
		t.Fatalf("there was no call %q for %s: %v", phase, a, l.world.Calls)
		return 0
	}
	secret := func(p *planner.Plan) {
		t.Helper()
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "hunter") {
			t.Errorf("the plan tells the secret: %s", text)
		}
		if !strings.Contains(string(text), `"fence.power"`) {
			t.Error("the plan does not tell of the fence")
		}
	}
	def := l.load(threeNodes + oneFence + twoGroups)
	p := l.plan(def, "")
	secret(p)
	l.must(def, "")
	web := addr.Group("web", addr.NoKey)
	if len(l.world.Fences) != 1 || at(power, "") > at(web, "") || at(power, "") < at(addr.Node("n3", addr.NoKey), providers.PhaseJoin) {
		t.Errorf("order: %v", l.world.Calls)
	}
	l.settled(def)
	changed := l.load(threeNodes + strings.Replace(oneFence, "hunter2", "hunter3", 1) + twoGroups)
	p = l.plan(changed, "")
	secret(p)
	if p.Summary.Update != 1 {
		t.Errorf("a changed secret: %+v", p.Summary)
	}
	l.must(changed, "")
	gone := l.load(threeNodes + strings.Replace(twoGroups, `["true"]`, `["false"]`, 1))
	p = l.plan(gone, "")
	secret(p)
	l.must(gone, "")
	if len(l.world.Fences) != 0 || at(power, "delete") < at(web, "") {
		t.Errorf("order: %v", l.world.Calls)
	}
	l.settled(gone)
	l.must(changed, "")
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
	if len(l.state.Objects) != 0 || at(power, "delete") > at(addr.Node("n3", addr.NoKey), providers.PhaseRemove) {
		t.Errorf("left: %v; order: %v", l.state.Objects, l.world.Calls)
	}
}
