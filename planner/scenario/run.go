package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/sim"
)

// Run carries out a scenario on the definition's cluster. The context ends it
// early, with its error.
func Run(ctx context.Context, def *spec.Definition, s *Scenario) (Result, error) {
	r := &runner{def: def, nodes: map[string]addr.Address{}, out: Result{
		Name: s.Name, Description: s.Description, File: s.Range.Filename, Line: s.Range.Start.Line, Seed: s.Seed,
		Groups: []GroupStart{}, Steps: []StepResult{},
	}}
	for i := range def.Nodes {
		r.nodes[def.Nodes[i].Name] = def.Nodes[i].Addr
	}
	var err error
	if r.lab, err = sim.NewLab(*def, sim.LabConfig{Seed: s.Seed, Clock: s.Clock}); err != nil {
		r.out.Error = err.Error()
		return r.out, nil
	}
	r.last = r.lab.Groups()
	for i, g := range r.last {
		r.out.Groups = append(r.out.Groups, GroupStart{Group: def.Groups[i].Addr, Owner: r.node(g.Owner), State: g.State})
	}
	for i := range s.Steps {
		if err := r.step(ctx, i+1, &s.Steps[i]); err != nil {
			return r.out, err
		}
		if err := r.lab.Err(); err != nil {
			r.out.Error = err.Error() + " (this is a fault of clusterplan's, not of the definition: please report it with the definition and the scenario)"
			break
		}
	}
	r.out.VirtualMS = r.lab.Now().Milliseconds()
	r.out.Passed = !r.out.failed()
	return r.out, nil
}

// runner is one scenario on its way.
type runner struct {
	def   *spec.Definition
	lab   *sim.Lab
	nodes map[string]addr.Address
	last  []sim.LabGroup // at the end of the step before
	out   Result
}

func (r *runner) node(name string) *addr.Address {
	a, ok := r.nodes[name]
	if !ok {
		return nil
	}
	return &a
}

func (r *runner) called(name string) string {
	if a := r.node(name); a != nil {
		return a.String()
	}
	return "nobody"
}

func (r *runner) step(ctx context.Context, n int, s *Step) error {
	out := StepResult{
		N: n, Name: s.Name, Action: s.Action.Text(), Line: s.Range.Start.Line, AtMS: r.lab.Now().Milliseconds(),
		Groups: []GroupResult{}, Failures: []Failure{},
	}
	begun := r.lab.Now()
	r.lab.Mark()
	out.Refused = r.do(&s.Action)
	if err := r.wait(ctx, s, begun, &out); err != nil {
		return err
	}
	out.TookMS, out.Quorum = (r.lab.Now() - begun).Milliseconds(), r.lab.Quorum()
	now := r.lab.Groups()
	for i, g := range now {
		out.Groups = append(out.Groups, GroupResult{
			Group: r.def.Groups[i].Addr, From: r.node(r.last[i].Owner), To: r.node(g.Owner), State: g.State, DownMS: up(g.Down),
		})
	}
	r.last = now
	refusal := false
	for i := range s.Expect {
		refusal = refusal || s.Expect[i].Refused != nil
		r.expect(&s.Expect[i], &out, now)
	}
	if out.Refused != "" && !refusal {
		out.Failures = append(out.Failures, failureAt(s.Action.Range, fmt.Sprintf("%s was refused: %s", out.Action, out.Refused)))
	}
	r.out.Steps = append(r.out.Steps, out)
	return nil
}

// up is a span in milliseconds, a begun one counted whole.
func up(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// do does what the step does, at this very moment.
func (r *runner) do(a *Action) (refused string) {
	l := r.lab
	switch a.Kind {
	case ActLose:
		if a.Device {
			l.LoseDevice()
		}
		l.Lose(a.Nodes...)
	case ActKill:
		l.Kill(a.Nodes...)
	case ActHang:
		l.Hang(a.Nodes...)
	case ActCut:
		l.Cut(a.Nodes, a.Others)
	case ActIsolate:
		l.Isolate(a.Nodes...)
	case ActHeal:
		if a.All {
			l.Heal()
		} else {
			l.HealNodes(a.Nodes...)
		}
	case ActStart:
		l.Start(a.Nodes...)
	}
	var orders []confdb.Command
	node, group := l.NodeID, l.GroupID
	for _, n := range a.Nodes {
		switch a.Kind {
		case ActPause, ActDrain:
			orders = append(orders, confdb.Command{PauseNode: &confdb.PauseNode{Node: node(n), Drain: a.Kind == ActDrain}})
		case ActResume:
			orders = append(orders, confdb.Command{ResumeNode: &confdb.NodeRef{Node: node(n)}})
		}
	}
	for _, g := range a.Groups {
		switch a.Kind {
		case ActMove:
			orders = append(orders, confdb.Command{MoveGroup: &confdb.MoveGroup{Group: group(g), To: node(a.To)}})
		case ActOffline:
			orders = append(orders, confdb.Command{SetWant: &confdb.SetWant{Group: group(g), Want: spec.WantOffline}})
		case ActOnline:
			orders = append(orders, confdb.Command{SetWant: &confdb.SetWant{Group: group(g), Want: spec.WantOnline}})
		}
	}
	for _, c := range orders {
		if refused = l.Order(c); refused != "" {
			return refused
		}
	}
	return ""
}

// stretch is how much virtual time passes between two looks at the context.
const stretch = 10 * time.Second

// wait lets the step's time pass; what the order took counts.
func (r *runner) wait(ctx context.Context, s *Step, begun time.Duration, out *StepResult) error {
	if s.Wait == nil {
		out.AtRest = r.lab.Rest()
		if !out.AtRest && r.lab.Err() == nil {
			out.Failures = append(out.Failures, failureAt(s.Range, "the cluster does not come to rest within five minutes; say how long to wait, as wait = \"1m\""))
		}
		return ctx.Err()
	}
	for end := begun + *s.Wait; r.lab.Now() < end && r.lab.Err() == nil; {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.lab.Advance(min(stretch, end-r.lab.Now()))
	}
	return ctx.Err()
}

// expect checks one block.
func (r *runner) expect(e *Expect, out *StepResult, now []sim.LabGroup) {
	fails := func(attribute, format string, args ...any) {
		at, ok := e.At[attribute]
		if !ok {
			at = e.Range
		}
		out.Failures = append(out.Failures, failureAt(at, fmt.Sprintf(format, args...)))
	}
	some := map[bool]string{true: "a quorum", false: "no quorum"}
	if e.Quorum != nil {
		if out.Expected++; *e.Quorum != out.Quorum {
			fails("quorum", "the cluster has %s, and %s was expected", some[out.Quorum], some[*e.Quorum])
		}
	}
	if e.Refused != nil {
		switch out.Expected++; {
		case *e.Refused && out.Refused == "":
			fails("refused", "%s was not refused", out.Action)
		case !*e.Refused && out.Refused != "":
			fails("refused", "%s was refused: %s", out.Action, out.Refused)
		}
	}
	for i := range now {
		a, g := r.def.Groups[i].Addr, &now[i]
		if !slices.Contains(e.Groups, a) {
			continue
		}
		is := fmt.Sprintf("%s is on %s", a, r.called(g.Owner))
		if g.Owner == "" {
			is = fmt.Sprintf("%s runs nowhere (%s)", a, g.State)
		}
		if len(e.Owners) > 0 {
			if out.Expected++; !slices.Contains(e.Owners, g.Owner) {
				fails("owner", "%s, and %s was expected", is, r.or(e.Owners))
			}
		}
		if e.Nobody {
			if out.Expected++; g.Owner != "" {
				fails("owner", "%s, and nobody was expected", is)
			}
		}
		if len(e.NotOn) > 0 {
			if out.Expected++; slices.Contains(e.NotOn, g.Owner) {
				fails("not_on", "%s, where it was not to be", is)
			}
		}
		if e.State != "" {
			if out.Expected++; g.State != e.State {
				fails("state", "%s is %s, and %s was expected", a, words(g.State), words(e.State))
			}
		}
		if e.MaxDowntime != nil {
			switch out.Expected++; {
			case g.State != spec.StateOnline:
				fails("max_downtime", "%s is still down, after %d ms; %s at most was expected", a, up(g.Down), spec.Duration(*e.MaxDowntime))
			case g.Down > *e.MaxDowntime:
				fails("max_downtime", "%s was down for %d ms; %s at most was expected", a, up(g.Down), spec.Duration(*e.MaxDowntime))
			}
		}
	}
}

func words(state string) string { return strings.ReplaceAll(state, "_", " ") }

func (r *runner) or(names []string) string {
	var all []string
	for _, n := range names {
		all = append(all, r.called(n))
	}
	return strings.Join(all, " or ")
}
