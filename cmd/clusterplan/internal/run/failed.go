package run

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
)

// failedGroups warns of groups that have failed and that the plan leaves as
// they are: that the definition is carried out is not that all of it runs.
func failedGroups(plan *planner.Plan, live *providers.Live) hcl.Diagnostics {
	if plan == nil || live == nil || plan.Mode == planner.ModeDestroy {
		return nil
	}
	touched := map[addr.Address]bool{}
	for i := range plan.Changes {
		if c := &plan.Changes[i]; c.Action() != "no-op" {
			touched[c.Address.Owner()] = true
		}
	}
	var diags hcl.Diagnostics
	for _, g := range live.Groups {
		if g.State != spec.StateFailed || g.Spec.ManagedBy != spec.ManagedBy || touched[g.Spec.Addr] {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: fmt.Sprintf("%s has failed", g.Spec.Addr),
			Detail: fmt.Sprintf("It is as the definition says, but it does not run, and this plan does not change that. clusterplan status says why; once that is mended, clusterplan online %s has it try again.", g.Spec.Name)})
	}
	return diags
}

// downNodes warns of nodes that the others hold for down and that the plan leaves as
// they are: the cluster lacks them all the same. Where the agent runs, such as on a
// node whose network is cut, no apply can do anything about it.
func downNodes(plan *planner.Plan, world planner.World) hcl.Diagnostics {
	if plan == nil || world.Live == nil || plan.Mode == planner.ModeDestroy {
		return nil
	}
	left := map[addr.Address]bool{}
	for i := range plan.Changes {
		left[plan.Changes[i].Address] = plan.Changes[i].Action() == "no-op"
	}
	for _, u := range plan.Unreachable { // is told already
		left[u.Address] = false
	}
	for i := range plan.Drift { // likewise
		left[plan.Drift[i].Address] = false
	}
	var diags hcl.Diagnostics
	for _, m := range world.Live.Members {
		if m.Node != spec.NodeDown || !left[m.Spec.Addr] {
			continue
		}
		d := &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: fmt.Sprintf("%s is down", m.Spec.Addr),
			Detail: "Its agent runs, but the other nodes don't hear it: it has no part in quorum, and no group runs there. An apply can't change that. See whether the network between the nodes is cut."}
		if seen, ok := world.Objects[m.Spec.Addr]; ok && (seen.Object == nil || len(seen.Object.Health) > 0) {
			what := "it is gone"
			if seen.Object != nil {
				what = strings.Join(seen.Object.Health, ", ")
			}
			d.Detail = fmt.Sprintf("It has no part in quorum, and no group runs there (%s). This plan leaves it so; clusterplan apply without --target and --exclude mends it.", what)
		}
		diags = append(diags, d)
	}
	return diags
}
