package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
)

// A node's host can't be reached from here, while the cluster sees it well: the
// other nodes get their new program all the same, and it is not drained for an
// agent that can't be stopped then.
func TestNodeOutOfReachHoldsNobodyUp(t *testing.T) {
	l := newLab(t)
	src := strings.Replace(threeNodes, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}\nnode \"n4\" { provider = local }", 1) + twoGroups
	def := l.load(src)
	l.must(def, "")
	l.host("n1").Lost = true
	l.world.Program = "p2"
	l.world.Calls = nil
	res, p, err := l.apply(def, "")
	if err != nil || p.Errored {
		t.Fatal(err, p.Diagnostics)
	}
	if len(res.Failed) != 1 || res.Failed[0].Addr.Name != "n1" || !errors.Is(res.Failed[0].Err, providers.ErrUnreachable) || len(res.Skipped) != 0 {
		t.Errorf("failed %v, skipped %v", res.Failed, res.Skipped)
	}
	for _, n := range []string{"n2", "n3", "n4"} {
		if l.host(n).Program != "p2" {
			t.Errorf("%s has the old program", n)
		}
	}
	if strings.Contains(l.calls(), "node.n1 drain") {
		t.Errorf("n1 was drained for nothing:\n%s", l.calls())
	}
	l.host("n1").Lost = false
	l.must(def, "")
	l.settled(def)
}

// The same where that node has a vote, which it is to give up.
func TestNodeOutOfReachThatGivesItsVoteHoldsNobodyUp(t *testing.T) {
	l := newLab(t)
	src := threeNodes + "node \"n4\" { provider = local }\nnode \"n5\" { provider = local }\n" + twoGroups
	l.must(l.load(src), "")
	l.host("n1").Lost = true
	l.world.Program = "p2"
	def := l.load(strings.Replace(src, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}", 1))
	res, p, err := l.apply(def, "")
	if err != nil || p.Errored {
		t.Fatal(err, p.Diagnostics)
	}
	if len(res.Failed) != 1 || res.Failed[0].Addr.Name != "n1" || len(res.Skipped) != 0 {
		t.Errorf("failed %v, skipped %v", res.Failed, res.Skipped)
	}
	for _, n := range []string{"n2", "n3", "n4", "n5"} {
		if l.host(n).Program != "p2" {
			t.Errorf("%s has the old program", n)
		}
	}
	l.host("n1").Lost = false
	l.must(def, "")
	l.settled(def)
}

// A node is dead with its host, and has to give its vote up before any other can go
// without the quorum: it does, and the others get their new program, though it can't.
func TestDeadNodeGivesItsVoteFirst(t *testing.T) {
	for _, program := range []string{"p1", "p2"} { // whether there is more to do to it than to take its vote
		l := newLab(t)
		src := threeNodes + "node \"n4\" { provider = local }\n" + twoGroups
		l.must(l.load(src), "")
		dead := l.host("n1")
		dead.Lost, dead.Running, dead.Program = true, false, program
		l.state.Objects = slices.Clone(l.state.Objects)
		o := l.state.Find(addr.Node("n1", addr.NoKey))
		o.Attributes = []byte(strings.Replace(string(o.Attributes), `"program":"p1"`, `"program":"`+program+`"`, 1))
		l.world.Program = "p2"
		def := l.load(strings.Replace(src, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}", 1))
		res, p, err := l.apply(def, "")
		if err != nil || p.Errored {
			t.Fatal(err, p.Diagnostics)
		}
		if len(res.Failed) > 1 || len(res.Failed) == 1 && (res.Failed[0].Addr.Name != "n1" || !errors.Is(res.Failed[0].Err, providers.ErrUnreachable)) || len(res.Skipped) != 0 {
			t.Errorf("%s: failed %v, skipped %v", program, res.Failed, res.Skipped)
		}
		for _, n := range []string{"n2", "n3", "n4"} {
			if l.host(n).Program != "p2" {
				t.Errorf("%s: %s has the old program:\n%s", program, n, l.calls())
			}
		}
		if m := l.world.Members[o.ID]; m.Voter || m.Spec.Votes != 0 {
			t.Errorf("%s: n1 has its vote still", program)
		}
		dead.Lost = false
		l.must(def, "")
		l.settled(def)
	}
}

// The host of that node is back by the time of the apply, and its new program does not
// start: no other node gets that program. The same where its host dies under it again.
func TestNodeThatIsBackEndsTheRolling(t *testing.T) {
	for _, why := range []error{errors.New("it ended at once"), providers.ErrUnreachable} {
		l := newLab(t)
		src := threeNodes + "node \"n4\" { provider = local }\n" + twoGroups
		l.must(l.load(src), "")
		l.host("n1").Lost, l.host("n1").Running = true, false
		l.world.Program = "p2"
		n1 := addr.Node("n1", addr.NoKey)
		l.world.Fail = func(c plannertest.Call) error {
			if c.Addr == n1 && c.Phase == providers.PhaseStart {
				return why
			}
			return nil
		}
		l.conf = func(*apply.Config) { l.host("n1").Lost = false }
		def := l.load(strings.Replace(src, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}", 1))
		res, p, err := l.apply(def, "")
		if err != nil || p.Errored {
			t.Fatal(err, p.Diagnostics)
		}
		if len(res.Failed) != 1 || res.Failed[0].Phase != providers.PhaseStart || len(res.Skipped) != 3 {
			t.Errorf("%v: failed %v, skipped %v", why, res.Failed, res.Skipped)
		}
		for _, n := range []string{"n2", "n3", "n4"} {
			if l.host(n).Program != "p1" {
				t.Errorf("%v: %s has the new program", why, n)
			}
		}
		l.world.Fail, l.conf = nil, nil
		l.must(def, "")
		l.settled(def)
	}
}

// A node that was down ends again right after its start. The others wait for it once
// before they are drained, and not each of them anew.
func TestOneWaitForWhoDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		def := l.load(threeNodes + "node \"n4\" { provider = local }\nnode \"n5\" { provider = local }\n" + twoGroups)
		l.must(def, "")
		l.host("n5").Running = false
		l.world.Program = "p2"
		l.world.FailAfter = func(c plannertest.Call) error {
			if c.Phase == providers.PhaseStart && c.Addr.Name == "n5" {
				l.world.Hosts[c.ID].Running = false
			}
			return nil
		}
		l.conf = func(c *apply.Config) { c.QuorumWait, c.Poll = 0, 0 } // as the command has it
		began := time.Now()
		res, p, err := l.apply(def, "")
		if err != nil || len(res.Failed) != 0 {
			t.Fatal(err, p.Diagnostics, res)
		}
		if took := time.Since(began); took < time.Minute || took > 61*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A node fails again as soon as it is back with its new program: the next one could
// not stop, so its groups are not sent away either.
func TestNoDrainBeforeWhatIsRefused(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	l.world.Program, l.world.Calls = "p2", nil
	l.world.FailAfter = func(c plannertest.Call) error {
		if c.Phase == providers.PhaseResume {
			l.world.Hosts[c.ID].Running = false
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	l.world.FailAfter = nil
	if err != nil || len(res.Failed) != 1 || !errors.Is(res.Failed[0].Err, providers.ErrNoQuorum) {
		t.Fatalf("failed %v, %v", res.Failed, err)
	}
	if n := strings.Count(l.calls(), " drain"); n != 1 {
		t.Errorf("%d nodes were drained:\n%s", n, l.calls())
	}
	l.must(def, "")
	l.settled(def)
	for _, v := range l.world.Violations() {
		t.Error(v)
	}
}

// No agent answers, so that nobody knows where groups are: a node that has to start,
// for it takes its vote to let it go, does not leave while it may hold one for which
// the others have no place, and leaves where they have.
func TestUnseenGroupKeepsItsNode(t *testing.T) {
	groups := func(owners, apart string) string {
		return fmt.Sprintf(`
group "web" {
  possible_owners = [%[1]s]
  resource "generic_application" "app" { command = ["true"] }
}
group "worker" {
  possible_owners = [%[1]s]
  %[2]s
  resource "generic_application" "app" { command = ["true"] }
}`, owners, apart)
	}
	apart := "keep_apart = [group.web]"
	four := threeNodes + `node "n4" { provider = local }`
	without := strings.Replace(threeNodes, `node "n3" { provider = local }`, "", 1)
	for _, c := range []struct{ name, after, refused string }{
		{"no place", groups("node.n2", apart), "No agent answers, so that it isn't known which groups are on it; and when it is drained, group.worker may be on it and able to run on no other node."},
		{"a place", groups("node.n1, node.n2", apart), ""},
		{"one place for both", groups("node.n2", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(four+groups("node.n2, node.n3", apart)), "")
			for _, h := range l.world.Hosts {
				h.Running = false
			}
			p := l.plan(l.load(without+c.after), "")
			var got string
			for _, d := range p.Diagnostics {
				if d.Severity == "error" {
					got += d.Summary + ": " + d.Detail
				}
			}
			if c.refused == "" && got != "" || !strings.Contains(got, c.refused) || c.refused != "" && !strings.HasPrefix(got, "node.n3 can't leave the cluster: ") {
				t.Errorf("the plan's errors: %q, want %q", got, c.refused)
			}
		})
	}
}
