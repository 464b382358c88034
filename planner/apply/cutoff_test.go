package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

// A first apply is cut off at any write up to the joins, and then all nodes are to be elsewhere:
// the next apply does the whole of it.
func TestFirstApplyCutOffThenAllElsewhere(t *testing.T) {
	placed := func(last int) string {
		src := threeNodes + twoGroups
		for i := range 3 {
			src = strings.Replace(src, fmt.Sprintf("node \"n%d\" { provider = local }", i+1), fmt.Sprintf("node \"n%d\" {\n  provider = local\n  address = \"127.0.0.%d\"\n}", i+1, last+i), 1)
		}
		return src
	}
	for at := 1; at < 24; at++ {
		l := newLab(t)
		l.journal.killAt, l.journal.after = at, at%2 == 0
		if _, _, err := l.apply(l.load(placed(21)), ""); !errors.Is(err, errKilled) {
			t.Fatalf("killed at %d: %v", at, err)
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		def := l.load(placed(31))
		res, p, err := l.apply(def, "")
		if err != nil || p.Errored || len(res.Failed)+len(res.Skipped) > 0 {
			t.Errorf("killed at %d: %v %v", at, err, p.Diagnostics)
			if res != nil {
				t.Errorf("failed %v, skipped %v", res.Failed, res.Skipped)
			}
			continue
		}
		l.settled(def)
		for _, v := range l.world.Violations() {
			t.Errorf("killed at %d: %s", at, v)
		}
	}
}

// Another quorum device for a cluster that runs is refused, with the way around,
// and that way leads there.
func TestAnotherQuorumDevice(t *testing.T) {
	on := func(device string) string {
		return strings.Replace(threeNodes, `model = "majority_node_set"`, "\n    model  = \"single_quorum\"\n    device = \""+device+"\"\n ", 1) + twoGroups
	}
	l := newLab(t)
	l.must(l.load(on("/dev/disk/by-id/a")), "")
	p := l.plan(l.load(on("/dev/disk/by-id/b")), "")
	if !p.Errored || p.Applyable || !slices.ContainsFunc(p.Diagnostics, func(d planner.Diagnostic) bool {
		text := d.Summary + " " + d.Detail
		return strings.Contains(text, "from /dev/disk/by-id/a to /dev/disk/by-id/b") && strings.Contains(text, "clusterplan destroy, clusterplan apply")
	}) {
		t.Fatalf("%+v", p.Diagnostics)
	}
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
	l.world.Ending = false
	def := l.load(on("/dev/disk/by-id/b"))
	l.must(def, "")
	l.settled(def)
}

// A node has left, or has been made anew and not joined yet, when the apply fails or is
// cut off, and then no agent runs that could tell that it is no member: where it is
// wanted with other settings it joins, where it isn't the rest of it goes.
func TestLeftAndNobodyTells(t *testing.T) {
	with := func(n3 string) string {
		return strings.Replace(threeNodes, `node "n3" { provider = local }`, n3, 1) + twoGroups
	}
	const (
		kept      = "node \"n3\" {\n  provider = local\n  zone = \"z\"\n}"
		elsewhere = "node \"n3\" {\n  provider = local\n  address = \"127.0.0.31\"\n}"
		there     = "node \"n3\" {\n  provider = local\n  address = \"127.0.0.31\"\n  zone = \"z\"\n}"
	)
	for _, c := range []struct {
		half      bool // n3 has joined before, and has no vote yet
		cut, then string
		phase     string // after which phase of n3 the second apply ends
		killed    bool
	}{
		{cut: "", phase: providers.PhaseStop, then: kept},
		{cut: "", phase: providers.PhaseStop, then: ""},
		{cut: "", phase: providers.PhaseStop, killed: true, then: kept},
		{cut: "", phase: providers.PhaseLeave, killed: true, then: kept},
		{cut: elsewhere, phase: providers.PhaseStop, then: kept},
		{cut: elsewhere, phase: providers.PhaseLeave, killed: true, then: kept},
		{cut: elsewhere, phase: providers.PhaseInstall, then: there},
		{half: true, cut: elsewhere, phase: providers.PhaseStart, then: there},
	} {
		for _, ahead := range []bool{false, true} {
			l := newLab(t)
			l.ahead = ahead
			l.world.Endpoint = func(v cty.Value) string { return v.GetAttr("name").AsString() + ":1" } // so none is made beside the old one
			fail := func(phase string, killed bool) {
				l.world.FailAfter = func(call plannertest.Call) error {
					if call.Addr.String() != "node.n3" || call.Phase != phase {
						return nil
					}
					l.journal.dead.Store(killed)
					return errKilled
				}
			}
			if c.half {
				fail(providers.PhasePromote, false)
			}
			l.apply(l.load(with("node \"n3\" { provider = local }")), "")
			fail(c.phase, c.killed)
			if _, p, _ := l.apply(l.load(with(c.cut)), ""); p.Errored {
				t.Fatalf("%+v: %v", c, p.Diagnostics)
			}
			l.journal.dead.Store(false)
			l.world.FailAfter = nil
			for _, h := range l.world.Hosts {
				h.Running = false
			}
			def := l.load(with(c.then))
			res, _, err := l.apply(def, "")
			if err != nil || len(res.Failed)+len(res.Skipped) > 0 {
				t.Errorf("%+v, ahead %t: %v, failed %v, skipped %v", c, ahead, err, res.Failed, res.Skipped)
				continue
			}
			l.settled(def)
		}
	}
}

// A node that a first apply had begun with, of which only an intent tells, is started
// to leave, for its vote may be the only one; cut off there, it is still none that has joined.
func TestStartedToLeaveIsNotWhole(t *testing.T) {
	l := newLab(t)
	l.ahead = true // so an intent tells of the cluster, too
	dies := func(what string) {
		l.world.FailAfter = func(c plannertest.Call) error {
			if c.String() != what {
				return nil
			}
			l.journal.dead.Store(true)
			return errKilled
		}
	}
	four := threeNodes + "node \"n4\" { provider = local }\n"
	for _, run := range []struct{ def, dies string }{{four, "node.n4 install"}, {threeNodes, "node.n1 promote"}} {
		dies(run.dies)
		l.apply(l.load(run.def), "")
		l.journal.dead.Store(false)
		l.world.FailAfter = nil
	}
	state, _ := l.current()
	if !strings.Contains(l.calls(), "node.n4 start") {
		t.Fatalf("n4 was not started:\n%s", l.calls())
	}
	for _, o := range state.Objects {
		if o.Addr.String() == "node.n4" && len(o.Phases) == 0 {
			t.Errorf("the state has n4 whole; the calls were:\n%s", l.calls())
		}
	}
}

// A first apply is cut off before there is a cluster, and what it had begun is not
// wanted any more: the plan says delete only of what may be there. What was never made
// is forgotten, and nobody is asked to delete it.
func TestCutOffAndNeverMade(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		for at := 2; at < 9; at++ {
			for _, mode := range []string{"", planner.ModeDestroy} {
				l := newLab(t)
				if l.ahead = ahead; ahead {
					calls := 0
					l.world.Fail = func(plannertest.Call) error { // dies before this call
						if calls++; calls >= at-1 {
							l.journal.dead.Store(true)
							return errKilled
						}
						return nil
					}
				} else {
					l.journal.killAt, l.journal.after = at, true
				}
				if _, _, err := l.apply(l.load(threeNodes+twoGroups), ""); !errors.Is(err, errKilled) && !l.journal.dead.Load() {
					t.Fatalf("not killed at %d: %v", at, err)
				}
				l.world.Fail, l.journal.killAt = nil, 0
				l.journal.dead.Store(false)
				if l.world.Formed {
					continue
				}
				where := fmt.Sprintf("killed at %d (ahead: %v), then %q", at, ahead, mode)
				def := l.load(strings.Replace(threeNodes, `node "n3" { provider = local }`, "", 1))
				if l.world.Ending = mode != ""; l.world.Ending {
					def = nil
				}
				there := map[string]bool{}
				for _, h := range l.world.Hosts {
					there["node."+h.Value.GetAttr("name").AsString()] = true
				}
				p := l.plan(def, mode)
				for _, c := range p.Changes {
					a := c.Address.String()
					// An agent that does not run may have the cluster's database: nobody can tell.
					unclear := len(there) > 0 && strings.Contains(strings.Join(c.Why, " "), "can't be seen now")
					if c.Action() == "delete" && !there[a] && !unclear {
						t.Errorf("%s: %s is to be deleted, and is not there: %v", where, a, c.Why)
					}
					if c.Action() == "forget" && (there[a] || c.Reason != planner.ReasonCutOff) {
						t.Errorf("%s: %s is to be forgotten: %s %v", where, a, c.Reason, c.Why)
					}
				}
				if len(p.Drift) > 0 && len(there) == 0 {
					t.Errorf("%s: drift of what never was: %+v", where, p.Drift)
				}
				before := len(l.world.Calls)
				l.must(def, mode)
				for _, c := range l.world.Calls[before:] {
					if mode != "" && !there[c.Addr.String()] && len(there) == 0 {
						t.Errorf("%s: asked for %s", where, c)
					}
				}
				if mode != "" && (len(l.state.Objects) > 0 || len(l.world.Hosts) > 0) {
					t.Errorf("%s: left %v, %v", where, l.state.Objects, l.world.Hosts)
				}
				if mode == "" {
					l.settled(def)
				}
			}
		}
	}
}

// A node has joined when the apply is cut off, before the state hears of it, and then its
// directory is gone and it isn't wanted any more: it is a member, so it leaves, and is not
// only forgotten, for its vote would count for ever.
func TestCutOffAndMember(t *testing.T) {
	const n4 = "node \"n4\" { provider = local }\n"
	for _, folded := range []bool{false, true} {
		l := newLab(t)
		l.must(l.load(threeNodes), "")
		l.ahead = true
		l.world.FailAfter = func(c plannertest.Call) error {
			if c.String() != "node.n4 join" {
				return nil
			}
			l.journal.dead.Store(true)
			return errKilled
		}
		l.apply(l.load(threeNodes+n4), "")
		l.world.FailAfter = nil
		l.journal.dead.Store(false)
		if len(l.world.Members) != 4 {
			t.Fatalf("%d members", len(l.world.Members))
		}
		for id, h := range l.world.Hosts {
			if h.Value.GetAttr("name").AsString() == "n4" {
				delete(l.world.Hosts, id)
			}
		}
		if folded { // an apply that is about something else keeps what was begun in the state
			def := l.load(threeNodes + twoGroups + n4)
			l.planned = l.exclude(def, "node.n4")
			res := l.must(def, "")
			l.state, l.journal.entries = onDisk(t, res.State), nil
		}
		def := l.load(threeNodes)
		l.must(def, "")
		l.settled(def)
		if len(l.world.Members) != 3 {
			t.Errorf("folded %t: %d members", folded, len(l.world.Members))
		}
	}
}

// Two groups exchange who depends on whom, in an apply that is killed after the
// first of them has changed. The next one finds that as it should be and goes on;
// what the state said of it before has no two groups wait for each other when they go.
func TestCutOffExchange(t *testing.T) {
	reversed := strings.Replace(strings.Replace(twoGroups, "  depends_on = [group.web]\n", "", 1),
		"group \"web\" {\n", "group \"web\" {\n  depends_on = [group.worker]\n", 1)
	for _, end := range []struct {
		name, def string
		goesOn    bool
	}{{"destroyed at once", "", false}, {"destroyed", "", true}, {"removed at once", threeNodes, false}, {"removed", threeNodes, true}} {
		t.Run(end.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(threeNodes+twoGroups), "")
			l.ahead = true
			l.world.FailAfter = func(c plannertest.Call) error {
				if c.Addr.String() != "group.worker" {
					return nil
				}
				l.journal.dead.Store(true)
				return errKilled
			}
			def := l.load(threeNodes + reversed)
			l.apply(def, "")
			if !l.journal.dead.Load() {
				t.Fatal("it was not killed")
			}
			l.world.FailAfter = nil
			l.journal.dead.Store(false)
			if end.goesOn {
				l.must(def, "")
				l.settled(def)
				for _, o := range l.state.Objects {
					if o.Addr.String() == "group.worker" && slices.ContainsFunc(o.DependsOn, func(a addr.Address) bool { return a.Type == addr.TypeGroup }) {
						t.Errorf("the state has worker depend on %v", o.DependsOn)
					}
				}
			}
			if end.def == "" {
				l.world.Ending = true
				l.must(nil, planner.ModeDestroy)
			} else {
				l.must(l.load(end.def), "")
			}
		})
	}
}

// From a majority to one node: the way that the refusal names.
func TestOneNodeOfMajority(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes), "")
	one := func(model string) string {
		return "cluster \"c\" {\n  quorum { model = \"" + model + "\" }\n}\nnode \"n1\" { provider = local }\n"
	}
	p := l.plan(l.load(one("single_node")), "")
	if !p.Errored || !slices.ContainsFunc(p.Diagnostics, func(d planner.Diagnostic) bool {
		return strings.Contains(d.Summary+" "+d.Detail, "keep majority_node_set and remove the other nodes; with one node left, its own vote is enough")
	}) {
		t.Fatalf("%+v", p.Diagnostics)
	}
	def := l.load(one("majority_node_set"))
	l.must(def, "")
	l.settled(def)
	if !l.world.Quorum() || len(l.world.Members) != 1 {
		t.Errorf("%d members, quorum %v", len(l.world.Members), l.world.Quorum())
	}
}
