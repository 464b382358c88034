package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// releases finds addresses, and names of groups, that change their group: {who gets it, who gives it up}.
func (o *orderer) releases() map[[2]addr.Address]bool {
	type holding struct{ typ, value string }
	held := map[holding]addr.Address{}
	value := func(typ string, v cty.Value) (holding, bool) {
		attr, ok := unique[typ]
		if !ok || v == cty.NilVal {
			return holding{}, false
		}
		text := unmark(attribute(v, attr))
		if text == cty.NilVal || !text.IsKnown() || text.IsNull() {
			return holding{}, false
		}
		host, _, _ := strings.Cut(text.AsString(), "/")
		return holding{typ, host}, true
	}
	for _, it := range o.items {
		switch {
		case it.prior == nil:
		case it.addr().IsResource():
			if h, ok := value(it.change.Type, it.prior.Value); ok {
				held[h] = it.addr().Owner()
			}
		case it.addr().Type == addr.TypeGroup:
			held[holding{addr.TypeGroup, nameIn(it.prior.Value, it.addr())}] = it.addr()
		}
	}
	out := map[[2]addr.Address]bool{}
	for _, it := range o.items {
		if it.want == nil {
			continue
		}
		var h holding
		ok := false
		switch {
		case it.addr().IsResource():
			h, ok = value(it.want.Type, it.want.config)
		case it.addr().Type == addr.TypeGroup:
			h, ok = holding{addr.TypeGroup, nameIn(it.want.config, it.addr())}, true
		}
		if !ok {
			continue
		}
		to := it.addr().Owner()
		from, ok := held[h]
		switch {
		case !ok || from == to || o.unitOf(to) == nil:
		case o.unitOf(from) != nil && o.unitOf(from).Action == "forget":
			o.diags = append(o.diags, problem(hcl.DiagError, fmt.Sprintf("%s takes %s, which %s still has", to, h.value, from),
				fmt.Sprintf("The state forgets %s, which stays in the cluster. If they are one, use a moved block in place of the removed one; else give %s another.", from, to)))
		case o.unitOf(from) != nil:
			out[[2]addr.Address{to, from}] = true
		case o.at.At(from) != nil && o.at.At(from).left:
			o.diags = append(o.diags, problem(hcl.DiagError, fmt.Sprintf("%s takes %s, which %s still has", to, h.value, from),
				fmt.Sprintf("%s is left out of this plan, so it does not give it up. Take it into the plan as well.", from)))
		}
	}
	return out
}

// ownerNames are the nodes that a group's or a fence's lists name.
func ownerNames(config cty.Value) []string {
	var out []string
	for _, attr := range []string{"preferred_owners", "possible_owners", "nodes"} {
		v := unmark(attribute(config, attr))
		if v == cty.NilVal || !v.IsKnown() || v.IsNull() {
			continue
		}
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); e.IsKnown() && !e.IsNull() {
				out = append(out, e.AsString())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// nameOf is a node's name in the definition, or as it was.
func nameOf(u *Unit) string {
	v := u.Config
	if v == cty.NilVal && u.Prior != nil {
		v = u.Prior.Value
	}
	return nameIn(v, u.Key.Addr)
}

// nameIn is the name in the value of a node or group.
func nameIn(v cty.Value, a addr.Address) string {
	name := unmark(attribute(v, "name"))
	if name == cty.NilVal || !name.IsKnown() || name.IsNull() {
		return a.DefaultName()
	}
	return name.AsString()
}

// QuorumLost is the summary of the error for a step that is refused.
const QuorumLost = "The cluster would lose its quorum"

// refuseLast: on, if not nil, is made anew under the node, which is why it leaves.
func refuseLast(a addr.Address, on *item) *hcl.Diagnostic {
	why := ""
	if on != nil {
		why = fmt.Sprintf(" %s is made anew, and the only copy of the cluster's database goes with it, and what its groups keep there.", on.addr())
	}
	return problem(hcl.DiagError, QuorumLost,
		fmt.Sprintf("%s has the last vote, and the cluster is no more once it leaves.%s Have another node with a vote join first (quorum model majority_node_set). To begin anew, with nothing of what there is: clusterplan destroy, then apply.", a, why))
}

// refuseCopy is of a node whose data directory was removed below its agent, where too
// few others have the database.
func refuseCopy(a addr.Address, t *tally, needed int) *hcl.Diagnostic {
	what := "the only copy of the cluster's database is in its agent's memory, and ends with that"
	if have := t.copies(); have > 0 {
		what = fmt.Sprintf("its copy of the cluster's database is in its agent's memory, and ends with that; after it others with %d votes have one, and %d are needed, or the database is lost", have, needed)
	}
	const meanwhile = " Its groups go on while it runs; --target changes them meanwhile."
	way := "Have two other nodes with votes join first (quorum model majority_node_set): they get the database, then it joins anew." + meanwhile
	if t.model == spec.MajorityNodeSet {
		way = "Have another node with a vote join first, or one that is down come back." + meanwhile
		var memory []string
		for n, v := range t.voters {
			if v.memory {
				memory = append(memory, n.String())
			}
		}
		if slices.Sort(memory); len(memory) > 0 {
			way += " The same holds for " + strings.Join(memory, ", ") + ": end no agent of these. Where they do not answer, see what keeps them from it."
		}
	}
	return problem(hcl.DiagError, QuorumLost,
		fmt.Sprintf("%s: its data directory is gone: %s. --allow-quorum-loss does not allow that. %s To begin anew, with nothing of what there is: clusterplan destroy, then apply.", a, what, way))
}

// refuse names what is down and votes: that it is not up is what the others lack.
func (t *tally) refuse(a addr.Address, phase string, up, needed int) *hcl.Diagnostic {
	var down []string
	for n, v := range t.voters {
		if !v.up && v.votes > 0 && n != a {
			down = append(down, n.String())
		}
	}
	slices.Sort(down)
	way := "Add a node with a vote"
	switch len(down) {
	case 0:
	case 1:
		way = down[0] + " votes, and is down or can't be reached: bring it back, or give it another host (another address), where a new one joins in its place first"
	default:
		way = strings.Join(down, ", ") + " vote, and are down or can't be reached: bring them back, or give them other hosts (other addresses), where new ones join in their places first"
	}
	return problem(hcl.DiagError, QuorumLost,
		fmt.Sprintf("%s: after %q only %d votes would be up, and %d are needed. %s; or --allow-quorum-loss, which interrupts every group.", a, phase, up, needed, way))
}
