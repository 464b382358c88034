package apply_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
)

// webOnly is twoGroups without the group worker.
var webOnly = strings.Split(twoGroups, `group "worker"`)[0] + `output "where" { value = "127.0.0.9" }
`

const forgetWorker = `
removed {
  from = group.worker
  lifecycle {
    destroy = false
  }
}`

// Forgotten is forgotten: the state alone changes, what runs goes on, and the
// next plan says that it is there.
func TestForget(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	def := l.load(threeNodes + webOnly + forgetWorker)
	p := l.plan(def, "")
	if got := actions(p); got != "group.worker forget removed\ngroup.worker.resource.app forget removed" || p.Summary != (planner.Summary{Forget: 2, NoOp: 7}) {
		t.Errorf("plan:\n%s\n%+v", got, p.Summary)
	}
	if len(p.Steps) > 0 || len(p.Availability) > 0 || len(p.FailureMatrix.Regressions) > 0 {
		t.Errorf("steps %v, availability %v, worse %v", p.Steps, p.Availability, p.FailureMatrix.Regressions)
	}
	if len(p.FailoverTimes) != 2 {
		t.Errorf("the cluster has both groups still: %v", p.FailoverTimes)
	}
	l.world.Calls = nil
	if res := l.must(def, ""); res.Done != (planner.Summary{Forget: 2}) || len(l.world.Calls) > 0 {
		t.Errorf("done %+v by:\n%s", res.Done, l.calls())
	}
	if len(l.world.Groups) != 2 || l.state.Find(addr.Group("worker", addr.NoKey)) != nil || l.state.Find(addr.Group("worker", addr.NoKey).WithResource("app", addr.NoKey)) != nil {
		t.Errorf("%d groups; the state has %v", len(l.world.Groups), l.idsByAddress())
	}
	l.settled(def)
	p = l.plan(def, "")
	if len(p.Unmanaged) != 1 || p.Unmanaged[0].Name != "worker" || p.Unmanaged[0].ManagedBy != "clusterplan" {
		t.Errorf("unmanaged: %+v", p.Unmanaged)
	}
	p = l.plan(l.load(threeNodes+strings.Replace(webOnly, `group "web" {`, `group "web" {
  description = "other"`, 1)+forgetWorker), "")
	if m := p.FailureMatrix; p.Summary.Update != 1 || len(p.FailoverTimes) != 2 || len(m.Regressions) > 0 || !reflect.DeepEqual(m.Before.Rows, m.After.Rows) {
		t.Errorf("the cluster has both groups still: %v, before %+v, after %+v", p.FailoverTimes, m.Before, m.After)
	}
	// It has its name: another one can't be made.
	p = l.plan(l.load(threeNodes+twoGroups), "")
	if len(p.Diagnostics) != 1 || p.Diagnostics[0].Summary != "The cluster has a group called worker already" || p.Applyable {
		t.Errorf("diagnostics: %+v", p.Diagnostics)
	}
}

// With destroy = true a removed block is a deletion that says so; and
// prevent_destroy stands against that, but not against forgetting.
func TestRemovedAndPreventDestroy(t *testing.T) {
	kept := strings.Replace(twoGroups, "depends_on = [group.web]", "depends_on = [group.web]\n  lifecycle { prevent_destroy = true }", 1)
	l := newLab(t)
	l.must(l.load(threeNodes+kept), "")
	destroy := l.load(threeNodes + webOnly + strings.Replace(forgetWorker, "false", "true", 1))
	p := l.plan(destroy, "")
	if !p.Errored || !strings.HasPrefix(actions(p), "group.worker delete not_in_definition") || !strings.Contains(p.Diagnostics[0].Detail, "a removed block with from = group.worker and destroy = false") {
		t.Errorf("errored %v:\n%s\n%v", p.Errored, actions(p), p.Diagnostics)
	}
	if p := l.plan(l.load(threeNodes+webOnly+forgetWorker), ""); p.Errored || !p.Applyable {
		t.Errorf("forgetting: %v", p.Diagnostics)
	}
	// Without it the group is deleted.
	l.must(l.load(threeNodes+twoGroups), "")
	l.must(destroy, "")
	if len(l.world.Groups) != 1 {
		t.Errorf("%d groups", len(l.world.Groups))
	}
	l.settled(destroy)
}

// A node that is forgotten is a member still, and counts as one; no agent and
// no quorum are needed to forget it.
func TestForgetNode(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes), "")
	for id, m := range l.world.Members {
		if m.Spec.Name == "n3" {
			l.world.Hosts[id].Running = false
		}
	}
	def := l.load(strings.Replace(threeNodes, `node "n3" { provider = local }`, "", 1) + `
removed {
  from    = node.n3
  destroy = false
}`)
	p := l.plan(def, "")
	if got := actions(p); got != "node.n3 forget removed" || p.Quorum.Votes != 3 || len(p.Diagnostics) != 1 || p.Diagnostics[0].Summary != "node.n3 stays a member" || p.Diagnostics[0].Range == nil {
		t.Errorf("plan:\n%s\n%+v\n%+v", got, p.Quorum, p.Diagnostics)
	}
	l.world.Calls = nil
	if l.must(def, ""); len(l.world.Calls) > 0 || len(l.world.Members) != 3 || len(l.world.Hosts) != 3 {
		t.Errorf("%d members on %d hosts, by:\n%s", len(l.world.Members), len(l.world.Hosts), l.calls())
	}
	l.settled(def)
}
