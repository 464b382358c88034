package run

import (
	"fmt"

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

// downNodes warns of nodes that the others hold for down although they are as the
// definition says, with an agent that answers: such as one whose network is cut.
// The plan has nothing to do about them, and the cluster lacks them all the same.
func downNodes(plan *planner.Plan, live *providers.Live) hcl.Diagnostics {
	if plan == nil || live == nil || plan.Mode == planner.ModeDestroy {
		return nil
	}
	fine := map[addr.Address]bool{}
	for i := range plan.Changes {
		fine[plan.Changes[i].Address] = plan.Changes[i].Action() == "no-op"
	}
	for _, u := range plan.Unreachable { // is told already
		fine[u.Address] = false
	}
	var diags hcl.Diagnostics
	for _, m := range live.Members {
		if m.Node != spec.NodeDown || !fine[m.Spec.Addr] {
			continue
		}
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: fmt.Sprintf("%s is down", m.Spec.Addr),
			Detail: "Its agent runs, but the other nodes don't hear it: it has no part in quorum, and no group runs there. An apply can't change that. See whether the network between the nodes is cut."})
	}
	return diags
}
