package run

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// checkNamed finds addresses in a plan's options that neither the definition nor
// the state has, before anything is looked at: one that is mistyped must neither
// pass for one that needs nothing, nor have its error wait below a whole plan.
// A resource that is only in the cluster can't be told yet; checkPlanned does.
func (s *Session) checkNamed(def *lang.Definition, o PlanOptions) hcl.Diagnostics {
	if len(o.Replace)+len(o.Targets)+len(o.Excludes) == 0 {
		return nil
	}
	var known []addr.Address
	if def != nil && ofDefinition(o.Mode) {
		for i := range def.Objects {
			known = append(known, def.Objects[i].Addr)
		}
	}
	for i := range s.Snap.State.Objects {
		known = append(known, s.Snap.State.Objects[i].Addr)
	}
	for i := range s.Snap.Pending {
		if s.Snap.Pending[i].Object != nil {
			known = append(known, s.Snap.Pending[i].Addr)
		}
	}
	later := func(a addr.Address) bool {
		return a.IsResource() && !o.NoRefresh && s.Snap.State.Find(a.Owner()) != nil
	}
	diags := unknown(known, o, later)
	if def == nil || o.Mode != planner.ModeRefreshOnly {
		return diags
	}
	for _, d := range diags {
		for _, a := range slices.Concat(o.Targets, o.Excludes) {
			if _, has := def.Object(a); has && d.Summary == "There is no "+a.String() {
				d.Summary = fmt.Sprintf("%s is not in the state", a)
				d.Detail = "The definition has it, and no apply has made it yet: with --refresh-only only what the state has is looked at."
			}
		}
	}
	return diags
}

// checkPlanned is checkNamed for what only the cluster could tell.
func checkPlanned(plan *planner.Plan, o PlanOptions) hcl.Diagnostics {
	if plan == nil || len(o.Replace)+len(o.Targets)+len(o.Excludes) == 0 {
		return nil
	}
	known := make([]addr.Address, len(plan.Changes))
	for i := range plan.Changes {
		known[i] = plan.Changes[i].Address
	}
	return unknown(known, o, func(addr.Address) bool { return false })
}

// unknown are errors for the addresses of o that are not among those known, and
// that can't be told later either.
func unknown(known []addr.Address, o PlanOptions, later func(addr.Address) bool) hcl.Diagnostics {
	slices.SortFunc(known, addr.Compare)
	known = slices.Compact(known)
	texts := func() []string {
		out := make([]string, len(known))
		for i, a := range known {
			out[i] = a.String()
		}
		return out
	}
	var diags hcl.Diagnostics
	for _, a := range slices.Concat(o.Targets, o.Excludes) {
		if !slices.ContainsFunc(known, func(at addr.Address) bool { return planner.Names(a, at) }) && !later(a) {
			diags = append(diags, planner.NoSuchObject(a, texts()))
		}
	}
	for _, a := range o.Replace {
		if slices.Contains(known, a) || later(a) {
			continue
		}
		if some := instances(known, a); some != "" {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: fmt.Sprintf("%s has instances", a),
				Detail: fmt.Sprintf("Each is replaced by its own address. Name those that you mean: %s.", some)})
			continue
		}
		d := planner.NoSuchObject(a, texts())
		d.Summary += " to replace"
		diags = append(diags, d)
	}
	return diags
}

// instances lists those of block a among what is known, as many as can be read.
func instances(known []addr.Address, a addr.Address) string {
	var out []string
	for _, at := range known {
		if at != a && at.WithoutKey() == a {
			out = append(out, at.String())
		}
	}
	const most = 5
	if n := len(out); n > most {
		out = append(out[:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(out, ", ")
}

// NotInState is the error for an address that the state doesn't have.
func NotInState(st *statefile.State, a addr.Address) error {
	known, at := make([]string, len(st.Objects)), make([]addr.Address, len(st.Objects))
	for i := range st.Objects {
		at[i] = st.Objects[i].Addr
		known[i] = at[i].String()
	}
	if some := instances(at, a); some != "" {
		return &view.Hint{Err: fmt.Errorf("%s has instances", a), Hint: "Name the one that you mean, in a shell in single quotes: " + some + "."}
	}
	text := "clusterplan state list shows what it has."
	if near := lang.Nearest(a.String(), known); near != "" {
		text = "Did you mean " + near + "? " + text
	}
	return &view.Hint{Err: fmt.Errorf("the state has no %s", a), Hint: text}
}
