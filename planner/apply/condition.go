package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
)

// ConditionError is pre- or postconditions that don't hold. Its diagnostics say
// which, and where they stand.
type ConditionError struct{ Diags hcl.Diagnostics }

func (e *ConditionError) Error() string {
	texts := make([]string, len(e.Diags))
	for i, d := range e.Diags {
		texts[i] = fmt.Sprintf("%s at %s: %s", d.Summary, d.Subject, d.Detail)
	}
	return strings.Join(texts, "; ")
}

// glance is the newest look at the running cluster, which all share that ask
// after the same moment. A look sees all groups, and each group asks for one of its
// own: between two there is four times as long as the last one took, so that those
// which come meanwhile share the next.
type glance struct {
	turn chan struct{} // holds one while somebody looks, or waits to; guards all below
	at   time.Time
	next time.Time // none before
	live lang.Live
}

// look tells how the running cluster is, not before since; nil once ctx ended.
func (r *runner) look(ctx context.Context, since time.Time) lang.Live {
	g := &r.glance
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return nil
	}
	if !g.at.Before(since) {
		return g.live
	}
	if wait := time.Until(g.next); wait > 0 && !sleep(ctx, wait) {
		return nil
	}
	var world planner.World
	g.at = time.Now()
	refresh.Live(ctx, r.cfg.Providers, &world)
	g.live = planner.Runtime(world.Live)
	now := time.Now()
	g.next = now.Add(min(4*now.Sub(g.at), r.cfg.Poll)) // no longer than anyone waits between two
	return g.live
}

// conditional tells whether there are conditions to be looked at.
func (r *runner) conditional() bool {
	return r.cfg.Definition != nil && !r.work.Destroy && r.cfg.Definition.HasConditions()
}

// before looks at the preconditions of a unit's objects before the first thing
// is done to them. By now everything that they ask for is known.
func (r *runner) before(u *planner.Unit) error {
	if !r.conditional() || u.Action == "delete" || u.Action == "forget" {
		return nil
	}
	r.mu.Lock()
	looked := r.looked[u.Key.Addr]
	r.looked[u.Key.Addr] = true
	r.mu.Unlock()
	if looked {
		return nil
	}
	var diags hcl.Diagnostics
	for _, a := range objectsOf(u) {
		failed, unknown := broken(a, r.cfg.Definition.Conditions(a, lang.Precondition, lang.View{Known: r.value}))
		diags = append(append(diags, failed...), unknown...)
	}
	return conditionError(diags)
}

// objectsOf are a unit's object and, of a group, its resources.
func objectsOf(u *planner.Unit) []addr.Address {
	out := []addr.Address{u.Key.Addr}
	for i := range u.Parts {
		out = append(out, u.Parts[i].Addr)
	}
	return out
}

// after looks at postconditions once the objects are there; those that ask the
// running cluster are given some time to come true.
func (r *runner) after(ctx context.Context, j *job, objects map[addr.Address]cty.Value) error {
	if !r.conditional() {
		return nil
	}
	now := time.Now()
	failed, unknown, err := r.await(ctx, now, now.Add(r.cfg.ConditionWait), j, objects, lang.Postcondition)
	if err != nil {
		return err
	}
	return conditionError(append(failed, unknown...))
}

// await returns what does not hold, and of what nobody knows it. A look at
// the running cluster counts if it was taken after since; until is when it has to
// hold. j is the objects' job, which only waits from where the running cluster is
// asked; nil: there is none. The error is that of a context that ended.
func (r *runner) await(ctx context.Context, since, until time.Time, j *job, objects map[addr.Address]cty.Value, kinds ...string) (failed, unknown hcl.Diagnostics, err error) {
	runtime := false
	look := func(live lang.Live) {
		failed, unknown = nil, nil
		for _, a := range sortedAddrs(objects) {
			for _, kind := range kinds {
				list := r.cfg.Definition.Conditions(a, kind, lang.View{Known: r.value, Live: live, Self: objects[a]})
				runtime = runtime || slices.ContainsFunc(list, func(c lang.Condition) bool { return c.Runtime })
				f, u := broken(a, list)
				failed, unknown = append(failed, f...), append(unknown, u...)
			}
		}
	}
	look(nil)
	if runtime && len(failed)+len(unknown) > 0 && j != nil {
		j.waits()
	}
	for told := false; runtime && len(failed)+len(unknown) > 0; {
		look(r.look(ctx, since))
		if len(failed)+len(unknown) == 0 || !time.Now().Before(until) {
			break
		}
		if !told && j != nil {
			j.progress("its postconditions don't hold yet")
			told = true
		}
		if !sleep(ctx, r.cfg.Poll) {
			return failed, unknown, ctx.Err()
		}
		since = time.Now()
	}
	return failed, unknown, nil
}

// broken are the diagnostics of conditions that don't hold, and of those of
// which nobody knows it.
func broken(a addr.Address, list []lang.Condition) (failed, unknown hcl.Diagnostics) {
	for i := range list {
		c := &list[i]
		switch {
		case c.Diag != nil:
			failed = append(failed, c.Diag)
		case c.Status == lang.Unknown:
			why := "what it refers to was not applied. Apply that first"
			if c.Runtime {
				why = "the running cluster does not tell, or has no quorum. See clusterplan status, and apply again"
			}
			unknown = append(unknown, &hcl.Diagnostic{Severity: hcl.DiagError, Subject: &c.Range, Summary: "Unknown " + c.Kind,
				Detail: fmt.Sprintf("%s: whether it holds can't be said, for %s.", a, why)})
		}
	}
	return failed, unknown
}

func conditionError(diags hcl.Diagnostics) error {
	if len(diags) == 0 {
		return nil
	}
	return &ConditionError{diags}
}

func sortedAddrs(m map[addr.Address]cty.Value) []addr.Address {
	out := make([]addr.Address, 0, len(m))
	for a := range m {
		out = append(out, a)
	}
	slices.SortFunc(out, addr.Compare)
	return out
}

// recheck looks at the conditions that the plan could not work out, of objects
// that nothing was done to. All of them together get the time that one has.
func (r *runner) recheck(ctx context.Context, res *Result) {
	if !r.conditional() || res.Interrupted {
		return
	}
	now := time.Now() // nothing is done any more: one look serves all
	until := now.Add(r.cfg.ConditionWait)
	for _, k := range r.work.Recheck {
		failed, _, err := r.await(ctx, now, until, nil, map[addr.Address]cty.Value{k.Addr: k.Self}, lang.Precondition, lang.Postcondition)
		if err != nil || len(failed) == 0 {
			continue // nothing was done to it, so that nothing follows from what nobody knows
		}
		res.Failed = append(res.Failed, Failure{Addr: k.Addr, Action: "check", Err: conditionError(failed)})
	}
}

// allowed tells whether an output may be written: its preconditions hold, and
// what it depends on was applied.
func (r *runner) allowed(o *lang.Output, live lang.Live, res *Result) bool {
	for _, dep := range o.DependsOn {
		if slices.ContainsFunc(unfinished(res), func(a addr.Address) bool { return a == dep.Owner() || a.WithoutKey() == dep.Owner() }) {
			return false
		}
	}
	if !r.conditional() {
		return true
	}
	var diags hcl.Diagnostics
	ok := true
	for _, c := range r.cfg.Definition.OutputConditions(o.Name, lang.View{Known: r.value, Live: live}) {
		ok = ok && c.Status == lang.Pass
		if c.Diag != nil {
			diags = append(diags, c.Diag)
		}
	}
	if err := conditionError(diags); err != nil {
		res.Failed = append(res.Failed, Failure{Action: "output", Err: err})
	}
	return ok
}

// unfinished are the objects that were to be applied and are not.
func unfinished(res *Result) []addr.Address {
	out := slices.Clone(res.NotStarted)
	for _, f := range slices.Concat(res.Failed, res.Cancelled) {
		out = append(out, f.Addr)
	}
	for _, s := range res.Skipped {
		out = append(out, s.Addr)
	}
	return out
}
