package apply_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// summary is the state without what differs from run to run: ids become the
// objects' own places in the world.
func (l *lab) summary() string {
	var out []string
	for _, o := range l.state.Objects {
		there := "missing"
		switch {
		case o.Addr.Type == addr.TypeNode && l.world.Hosts[o.ID] != nil && l.world.Members[o.ID] != nil:
			there = fmt.Sprintf("runs %v, votes %v", l.world.Hosts[o.ID].Running, l.world.Members[o.ID].Voter)
		case o.Addr.Type == addr.TypeCluster && l.world.ID == o.ID && l.state.Cluster.ID == o.ID:
			there = "formed"
		case o.Addr.Type == addr.TypeGroup && !o.Addr.IsResource() && l.world.Groups[o.ID] != nil:
			there = "there"
		case o.Addr.IsResource():
			for _, g := range l.world.Groups {
				for _, r := range g.Resources {
					if r.ID == o.ID && r.Addr == o.Addr {
						there = "there"
					}
				}
			}
		}
		attrs := string(o.Attributes)
		if i := strings.Index(attrs, `"server_id"`); i >= 0 {
			j := strings.IndexAny(attrs[i:], ",}")
			attrs = attrs[:i] + attrs[i+j:]
		}
		out = append(out, fmt.Sprintf("%s %s %v %v %v: %s", o.Addr, attrs, o.Phases, o.DependsOn, o.Tainted, there))
	}
	out = append(out, fmt.Sprintf("%d hosts, %d members, %d groups", len(l.world.Hosts), len(l.world.Members), len(l.world.Groups)))
	return strings.Join(out, "\n")
}

// Killed at every write of the journal, before and after it reached the disk, and
// with its first entries there alone, the next run goes on from the truth:
// everything is made once, and the end is the same.
func TestKilledAtEveryWrite(t *testing.T) {
	if raced {
		t.Skip("run without the race detector")
	}
	for _, run := range killed() {
		t.Run(run.name, func(t *testing.T) {
			want := ""
			for k := 0; ; k++ { // 0: the run that nobody kills
				for _, after := range []string{"", "all", "1", "2"} {
					arm := func(l *lab) {
						l.journal.killAt, l.journal.after = k, after != ""
						l.journal.part, _ = strconv.Atoi(after)
					}
					if !run.kill(t, &want, fmt.Sprintf("at write %d, after %q", k, after), arm) && k > 0 {
						return // that many writes there are not
					}
				}
			}
		})
	}
}

// With a journal that is far away results come to it late: killed at every call of a
// provider, before and after its effect, the next run reads back what was intended.
func TestKilledAtEveryCallAhead(t *testing.T) {
	for _, run := range killed() {
		if run.ahead = true; !slices.Contains([]string{"first", "change", "two nodes made anew", "renamed", "imported", "destroy", "destroy of a dead cluster"}, run.name) {
			continue // they have much the same calls
		}
		t.Run(run.name, func(t *testing.T) {
			want := ""
			for k := 0; ; k++ { // 0: the run that nobody kills
				for _, after := range []bool{false, true} {
					arm := func(l *lab) {
						n := 0
						die := func(plannertest.Call) error {
							if n++; n == k {
								l.journal.dead.Store(true)
							}
							if l.journal.dead.Load() {
								return errKilled
							}
							return nil
						}
						if l.world.Fail = die; after {
							l.world.Fail, l.world.FailAfter = func(plannertest.Call) error {
								if l.journal.dead.Load() {
									return errKilled
								}
								return nil
							}, die
						}
					}
					if !run.kill(t, &want, fmt.Sprintf("at call %d, after %v", k, after), arm) && k > 0 {
						return // that many calls there are not
					}
				}
			}
		})
	}
}

// deadly is an apply that is killed.
type deadly struct {
	name, before, src, mode string
	prepare                 func(*lab)
	ahead                   bool
}

func killed() []deadly {
	first := threeNodes + twoGroups
	second := strings.Replace(threeNodes, `node "n3"`, `node "n4"`, 1) +
		strings.NewReplacer(`["true"]`, `["false"]`, `"worker"`, `"other"`).Replace(twoGroups)
	third := strings.Replace(second, `resource "ip_address" "vip"`, `resource "generic_application" "more" { command = ["x"] }
  resource "ip_address" "vip"`, 1)
	runs := []deadly{
		{"first", "", first, "", nil, false},
		{"change", first, second, "", nil, false},
		{"a resource more", second, third, "", nil, false},
		{"a resource less", third, second, "", nil, false},
		{"one node grows to three", oneNode + strings.ReplaceAll(twoGroups, "[node.n1, node.n2]", "[node.n1]"), first, "", nil, false},
		{"upgrade", first, first, "", func(l *lab) { l.world.Program = "p2" }, false},
		{"data removed below all agents", first, first, "", func(l *lab) {
			for _, h := range l.world.Hosts {
				h.Emptied = true
			}
		}, false},
		{"a node made anew", first, anew(first, "n2"), "", nil, false},
		{"two nodes made anew", first, anew(first, "n1", "n2"), "", nil, false},
		{"renamed", first, renamedAll, "", nil, false},
		{"forgotten", first, threeNodes + webOnly + forgetWorker, "", nil, false},
		{"imported", first, first + importAll, "", func(l *lab) {
			l.forget("node.n3", "group.web", "group.worker")
			l.group("worker").ManagedBy = "hand"
		}, false},
		{"imported and changed", first, second + strings.NewReplacer("group.worker", "group.other", "node.n3", "node.n2").Replace(importAll), "", func(l *lab) { l.forget("node.n1", "group.web", "group.worker") }, false},
		{"destroy", first, "", planner.ModeDestroy, func(l *lab) { l.world.Ending = true }, false},
		{"destroy of a dead cluster", first, "", planner.ModeDestroy, func(l *lab) {
			l.world.Ending = true
			for _, h := range l.world.Hosts {
				h.Running = false
			}
		}, false},
	}
	return runs
}

// kill has an apply die as arm says, and the next go on from there, to the same end
// as others'. It tells whether the apply died.
func (run *deadly) kill(t *testing.T, want *string, when string, arm func(*lab)) bool {
	t.Helper()
	l := newLab(t)
	l.ahead = run.ahead
	if run.before != "" {
		l.must(l.load(run.before), "")
	}
	if run.prepare != nil {
		run.prepare(l)
	}
	def := l.load(cmp.Or(run.src, run.before))
	if run.mode == planner.ModeDestroy {
		def = nil
	}
	l.conf = func(c *apply.Config) { c.Parallelism = 1 } // the same writes each time
	arm(l)
	_, _, err := l.apply(def, run.mode)
	if l.journal.whole {
		return true // this one there is not
	}
	died := l.journal.dead.Load()
	if !run.ahead && died != (err != nil) || err != nil && !errors.Is(err, errKilled) {
		t.Fatalf("%s: died %v, error %v", when, died, err)
	}
	if died {
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		l.world.Fail, l.world.FailAfter = nil, nil
		l.must(def, run.mode)
	}
	if def != nil {
		l.settled(def)
	} else if l.state.Cluster != nil {
		t.Errorf("%s: the identity outlived the cluster", when)
	}
	got := l.summary()
	if *want == "" {
		*want = got
	}
	if got != *want {
		t.Fatalf("killed %s:\n%s\nwant:\n%s", when, got, *want)
	}
	return died
}

// Cut off, the first apply is gone on with by another program: agents that run
// the old one are started with the new one, and run in the end.
func TestFirstApplyGoneOnWithByAnotherProgram(t *testing.T) {
	for k := 1; ; k++ {
		for _, after := range []bool{false, true} {
			l := newLab(t)
			def := l.load(threeNodes + twoGroups)
			l.conf = func(c *apply.Config) { c.Parallelism = 1 }
			l.journal.killAt, l.journal.after = k, after
			_, _, err := l.apply(def, "")
			if err == nil {
				return // that many writes there are not
			}
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			l.world.Program = "p2"
			l.must(def, "")
			l.settled(def)
			if t.Failed() {
				t.Fatalf("killed at write %d, after %v", k, after)
			}
		}
	}
}

// A first apply that is cut off once its cluster has formed leaves a quorum like
// any other: what the next definition and program ask for never takes it away, and
// where no order could keep it, the plan is refused.
func TestFirstApplyCutOffKeepsItsQuorum(t *testing.T) {
	two := strings.Replace(threeNodes, "node \"n3\" { provider = local }\n", "", 1)
	for _, next := range []struct {
		name, then, program string
		refused             bool // at some write
	}{
		{"another program", two + twoGroups, "p2", true},
		{"another address", anew(two, "n1"), "p1", false},
		{"another node", strings.Replace(two, `node "n1"`, `node "n3"`, 1), "p1", false},
		{"a node more, another program", threeNodes, "p2", false},
	} {
		t.Run(next.name, func(t *testing.T) {
			refused := false
			for k := 1; ; k++ {
				l := newLab(t)
				l.conf = func(c *apply.Config) { c.Parallelism = 1 }
				l.journal.killAt = k
				if _, _, err := l.apply(l.load(two), ""); err == nil {
					if refused != next.refused {
						t.Errorf("refused at some write: %v", refused)
					}
					return // that many writes there are not
				}
				l.journal.dead.Store(false)
				l.journal.killAt, l.world.Program = 0, next.program
				def := l.load(next.then)
				if p := l.plan(def, ""); !p.Errored {
					l.must(def, "")
					l.settled(def)
				} else if p.Quorum == nil || !p.Quorum.Lost || !l.world.Quorum() {
					t.Errorf("refused: %v", p.Diagnostics)
				} else {
					refused = true
				}
				if t.Failed() || len(l.world.Violations()) > 0 {
					t.Fatalf("killed at write %d: %v", k, l.world.Violations())
				}
			}
		})
	}
}

// A first apply that was cut off once a node had voted is gone on with by those who
// come, also by another program: one that fails keeps nobody else from it, for the
// vote that is there counts. It keeps the voter from its restart.
func TestFirstApplyGoneOnWithoutOneNode(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.conf = func(c *apply.Config) { c.Parallelism = 1 }
	l.world.Fail = func(c plannertest.Call) error {
		l.journal.dead.Store(l.journal.dead.Load() || c.Phase == providers.PhaseBootstrap) // and with it its result
		return nil
	}
	if _, _, err := l.apply(def, ""); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	l.journal.dead.Store(false)
	l.world.Program = "p2"
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Name == "n3" && c.Phase == providers.PhaseJoin {
			return errors.New("no way to it")
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil || len(res.Failed) != 2 || !errors.Is(res.Failed[1].Err, providers.ErrNoQuorum) || len(res.Skipped) > 0 || len(l.world.Groups) != 2 {
		t.Errorf("%v: failed %v, skipped %v, %d groups", err, res.Failed, res.Skipped, len(l.world.Groups))
	}
	l.world.Fail = nil
	l.must(def, "")
	l.settled(def)
}

// What was begun is given up by the next definition, and that is cut off as
// well: whatever was there by then is still known, and goes.
func TestKilledWhileItIsGivenUp(t *testing.T) {
	first := threeNodes
	second := first + `
node "n4" { provider = local }
group "more" {
  resource "generic_application" "app" { command = ["true"] }
}`
	for k := 1; ; k++ {
		for m := 1; ; m++ {
			l := newLab(t)
			l.conf = func(c *apply.Config) { c.Parallelism = 1 }
			def := l.load(first)
			l.must(def, "")
			l.journal = journal{killAt: k, after: true}
			_, _, err := l.apply(l.load(second), "")
			if err == nil {
				return // that many writes there are not
			}
			l.journal.dead.Store(false)
			l.journal.appends, l.journal.killAt = 0, m
			_, p, err := l.apply(def, "")
			if p.Errored || err != nil && !errors.Is(err, errKilled) {
				t.Fatalf("killed at %d and %d: %v, %v", k, m, p.Diagnostics, err)
			}
			died := l.journal.dead.Load()
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			l.must(def, "")
			l.settled(def)
			if len(l.world.Hosts) != 3 || len(l.world.Groups) != 0 {
				t.Fatalf("killed at %d and %d: %d hosts, %d groups are left", k, m, len(l.world.Hosts), len(l.world.Groups))
			}
			if !died {
				break
			}
		}
	}
}

// A provider that dies with an answer on its way: the effect is there, and no
// result says so.
func TestEffectWithoutAnswer(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	lost := map[string]bool{}
	l.world.FailAfter = func(c plannertest.Call) error {
		if !lost[c.String()] {
			lost[c.String()] = true
			return errors.New("the connection broke")
		}
		return nil
	}
	for i := 0; ; i++ {
		res, _, err := l.apply(def, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Failed) == 0 {
			break
		}
		if i > 20 {
			t.Fatalf("still failing: %+v", res.Failed)
		}
	}
	l.settled(def)
}

func interruptSoftly(t *testing.T, ahead bool) {
	l := newLab(t)
	l.ahead = ahead
	def := l.load(threeNodes + twoGroups)
	l.world.Fail = func(c plannertest.Call) error {
		if c.Phase == providers.PhaseBootstrap {
			close(l.stop)
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil || !res.Interrupted || len(res.Failed) > 0 {
		t.Fatalf("%v, %+v", err, res)
	}
	if !l.world.Formed || len(l.world.Groups) > 0 {
		t.Error("what was under way is finished, nothing new is begun")
	}
	if len(res.NotStarted) == 0 || !slices.Contains(res.NotStarted, addr.Group("worker", addr.NoKey)) {
		t.Errorf("not started: %v", res.NotStarted)
	}
	l.world.Fail, l.stop = nil, make(chan struct{})
	l.must(def, "")
	l.settled(def)
}

func TestInterrupts(t *testing.T) {
	t.Run("softly", func(t *testing.T) { interruptSoftly(t, false) })
	t.Run("softly, ahead", func(t *testing.T) { interruptSoftly(t, true) })
	t.Run("at once", func(t *testing.T) {
		l := newLab(t)
		def := l.load(threeNodes + twoGroups)
		p := l.plan(def, "")
		ctx, cancel := context.WithCancel(context.Background())
		l.world.Fail = func(c plannertest.Call) error {
			if c.Phase == providers.PhaseJoin {
				cancel()
			}
			return nil
		}
		res, err := apply.Run(ctx, apply.Config{Plan: p, Definition: def, State: l.state, Providers: l.world.Registry(), Journal: &l.journal, Poll: time.Millisecond})
		if err != nil || !res.Interrupted {
			t.Fatalf("%v, %+v", err, res)
		}
		l.state, l.journal, l.world.Fail = res.State, journal{}, nil
		l.must(def, "")
		l.settled(def)
	})
}

// One failed group stops what depends on it, and nothing else.
func TestFailureStopsDependents(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups + `
group "alone" {
  resource "generic_application" "app" { command = ["true"] }
}`)
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Name == "web" {
			return errors.New("refused")
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failed) != 1 || len(res.Skipped) != 1 || res.Skipped[0].Addr.Name != "worker" || len(l.world.Groups) != 1 {
		t.Errorf("failed %+v, skipped %+v, %d groups", res.Failed, res.Skipped, len(l.world.Groups))
	}
	var kinds []string
	for _, e := range l.events {
		if e.Addr.Type == addr.TypeGroup && e.Type != apply.EventPlanned {
			kinds = append(kinds, e.Addr.Name+" "+e.Type)
		}
	}
	slices.Sort(kinds)
	if got := strings.Join(kinds, ", "); got != "alone apply_complete, alone apply_start, web apply_errored, web apply_start, worker apply_skipped" {
		t.Errorf("events: %s", got)
	}
}

// Quorum lost between plan and apply: the step that would make it worse is
// not done.
func TestLooksAtVotesAgain(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes)
	l.must(def, "")
	l.world.Program = "p2"
	l.world.Fail = func(c plannertest.Call) error {
		if c.Phase == providers.PhaseDrain {
			for id, m := range l.world.Members {
				if m.Spec.Name == "n3" {
					l.world.Hosts[id].Running = false
				}
			}
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Failed) == 0 || !errors.Is(res.Failed[0].Err, providers.ErrNoQuorum) || res.Failed[0].Phase != providers.PhaseStop {
		t.Errorf("failed: %+v", res.Failed)
	}
	l.world.Fail = nil
	l.must(def, "")
	l.settled(def)
}

// A node that this run has started is not held for up at once: the next one's
// stop waits for that, and doesn't fail.
func TestWaitsForWhoItStarted(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes)
	l.must(def, "")
	l.world.Program = "p2"
	for id, m := range l.world.Members {
		if m.Spec.Name == "n3" {
			l.world.Hosts[id].Running = false
		}
	}
	l.world.LateUp = 5
	l.must(def, "")
	l.world.LateUp = 0
	l.settled(def)
}

// The entries stand in the order that the next run relies on.
func TestIntentBeforeCallBeforeResult(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	var log []string
	l.world.Fail = func(c plannertest.Call) error { log = append(log, "call "+c.String()); return nil }
	p := l.plan(def, "")
	j := journalFunc(func(entries ...statefile.Entry) error {
		for _, e := range entries {
			switch {
			case e.Cluster != nil:
				log = append(log, "identity")
			case e.Intent != nil:
				log = append(log, "intent "+e.Intent.Addr.String()+" "+e.Intent.Phase)
			case e.Result != nil && !e.Result.Addr.IsResource():
				log = append(log, "result "+e.Result.Addr.String()+" "+e.Result.Phase)
			}
		}
		return nil
	})
	if _, err := apply.Run(context.Background(), apply.Config{Plan: p, Definition: def, State: l.state, Providers: l.world.Registry(), Journal: j, Parallelism: 1}); err != nil {
		t.Fatal(err)
	}
	if log[0] != "identity" {
		t.Errorf("first: %s", log[0])
	}
	for i := 1; i < len(log); i += 3 {
		what := strings.TrimPrefix(log[i], "intent ")
		if log[i] != "intent "+what || log[i+1] != "call "+what || log[i+2] != "result "+what {
			t.Errorf("%q", log[i:i+3])
		}
	}
}

type journalFunc func(...statefile.Entry) error

func (f journalFunc) Append(entries ...statefile.Entry) error { return f(entries...) }
