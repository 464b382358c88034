package apply_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
)

// renamedAll is threeNodes with twoGroups under other addresses: a name that
// follows and one that stays, a node that becomes an instance, groups, and a
// resource within its group.
const renamedAll = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n1" { provider = local }
node "west" {
  provider = local
  for_each = toset(["n2"])
  name     = each.key
}
node "m3" { provider = local }
group "site" {
  preferred_owners = [node.n1, node.west["n2"]]
  resource "ip_address" "vip" { address = "127.0.0.9" }
  resource "generic_application" "server" {
    command    = ["true"]
    depends_on = [resource.vip]
  }
}
group "crew" {
  name       = "worker"
  depends_on = [group.site]
  resource "generic_application" "app" { command = ["true"] }
}
output "where" { value = "127.0.0.9" }
` + movedAll

const movedAll = `
moved {
  from = node.n2
  to   = node.west["n2"]
}
moved {
  from = node.n3
  to   = node.m3
}
moved {
  from = group.web
  to   = group.between
}
moved {
  from = group.between
  to   = group.site
}
moved {
  from = group.web.resource.app
  to   = group.site.resource.server
}
moved {
  from = group.worker
  to   = group.crew
}
`

// ids are a state's, by address.
func (l *lab) idsByAddress() map[string]string {
	out := map[string]string{}
	for _, o := range l.state.Objects {
		out[o.Addr.String()] = o.ID
	}
	return out
}

// Renamed by moved blocks, everything keeps its id and goes on where it runs;
// the blocks do nothing any more once they are applied.
func TestMoved(t *testing.T) {
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.Parallelism = 1 } // the same ids each time
	l.must(l.load(threeNodes+twoGroups), "")
	before, owners := l.idsByAddress(), map[string]string{}
	for id, g := range l.world.Groups {
		owners[id] = g.Owner
	}
	def := l.load(renamedAll)
	p := l.plan(def, "")
	golden(t, "moved", p)
	var got []string
	for _, c := range p.Changes {
		if c.PreviousAddress != nil {
			got = append(got, strings.TrimSpace(c.PreviousAddress.String()+" -> "+c.Address.String()+" "+c.Action()+" "+strings.Join(c.Phases, ",")))
		}
	}
	want := []string{
		"node.n3 -> node.m3 update update",
		`node.n2 -> node.west["n2"] no-op update`,
		"group.worker -> group.crew update",
		"group.worker.resource.app -> group.crew.resource.app no-op",
		"group.web -> group.site update",
		"group.web.resource.app -> group.site.resource.server no-op",
		"group.web.resource.vip -> group.site.resource.vip no-op",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if p.Summary != (planner.Summary{Update: 3, Move: 7, NoOp: 2}) {
		t.Errorf("summary: %+v", p.Summary)
	}
	if len(p.Availability) != 1 || p.Availability[0].Group.Name != "site" || len(p.FailureMatrix.Regressions) > 0 {
		t.Errorf("availability %+v, worse %v", p.Availability, p.FailureMatrix.Regressions)
	}
	l.world.Calls = nil
	res := l.must(def, "")
	if calls := l.calls(); calls != "node.m3 update\nnode.west[\"n2\"] update\ngroup.site\ngroup.crew" {
		t.Errorf("calls:\n%s", calls)
	}
	if res.Done != (planner.Summary{Update: 3, Move: 7}) {
		t.Errorf("done: %+v", res.Done)
	}
	after := l.idsByAddress()
	for _, m := range []struct{ from, to string }{
		{"node.n1", "node.n1"}, {"node.n2", `node.west["n2"]`}, {"node.n3", "node.m3"}, {"group.web", "group.site"},
		{"group.web.resource.vip", "group.site.resource.vip"}, {"group.web.resource.app", "group.site.resource.server"},
		{"group.worker", "group.crew"}, {"group.worker.resource.app", "group.crew.resource.app"},
	} {
		if before[m.from] == "" || before[m.from] != after[m.to] {
			t.Errorf("%s had the id %s, %s has %s", m.from, before[m.from], m.to, after[m.to])
		}
	}
	if len(before) != len(after) || len(l.world.Hosts) != 3 {
		t.Errorf("%d objects before, %d after, on %d hosts", len(before), len(after), len(l.world.Hosts))
	}
	for id, g := range l.world.Groups {
		if g.Owner != owners[id] {
			t.Errorf("%s went from %s to %s", g.Addr, owners[id], g.Owner)
		}
	}
	for _, m := range l.world.Members {
		if o := l.state.Find(m.Spec.Addr); o == nil || o.ID != m.Spec.ID {
			t.Errorf("the cluster knows %s as %s", m.Spec.Name, m.Spec.Addr)
		}
	}
	l.settled(l.load(renamedAll))
	l.settled(l.load(strings.Replace(renamedAll, movedAll, "", 1)))
}

// What the cluster calls otherwise is drift, and mended: an apply ended between
// the state and the database.
func TestClusterKnowsAnotherAddress(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	l.must(def, "")
	for _, m := range l.world.Members {
		if m.Spec.Name == "n2" {
			m.Spec.Addr = addr.Node("old", addr.NoKey)
		}
	}
	for _, g := range l.world.Groups {
		if g.Addr.Name == "worker" {
			g.Addr = addr.Group("old", addr.StringKey("k"))
		}
	}
	p := l.plan(def, "")
	if got := actions(p); got != "node.n2 update drifted\ngroup.worker update drifted" || len(p.Drift) != 2 || p.Drift[1].What[0] != `known to the cluster as group.old["k"]` {
		t.Errorf("plan:\n%s\n%+v", got, p.Drift)
	}
	l.must(def, "")
	l.settled(def)
}

// Killed while it creates, and renamed before the next apply: what was begun is
// found under its new address.
func TestMovedWhileBegun(t *testing.T) {
	const more = threeNodes + `
node "n4" { provider = local }
group "more" {
  resource "generic_application" "app" { command = ["true"] }
}`
	renamed := strings.NewReplacer(`"n4"`, `"n5"`, `"more"`, `"plenty"`).Replace(more) + `
moved {
  from = node.n4
  to   = node.n5
}
moved {
  from = group.more
  to   = group.plenty
}`
	for k := 1; ; k++ {
		l := newLab(t)
		l.conf = func(c *apply.Config) { c.Parallelism = 1 }
		l.must(l.load(threeNodes), "")
		l.journal = journal{killAt: k, after: true}
		_, _, err := l.apply(l.load(more), "")
		if err == nil {
			return // that many writes there are not
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		def := l.load(renamed)
		l.must(def, "")
		l.settled(def)
		if len(l.world.Hosts) != 4 || len(l.world.Groups) != 1 || l.state.Find(addr.Node("n5", addr.NoKey)) == nil {
			t.Fatalf("killed at %d: %d hosts, %d groups", k, len(l.world.Hosts), len(l.world.Groups))
		}
	}
}

// Two that would be one are refused, with the block's place.
func TestMovedOntoAnother(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	state, pending := l.current()
	def := l.load(strings.Replace(threeNodes+twoGroups, `node "n3" { provider = local }`, "", 1) + `
moved {
  from = node.n3
  to   = node.n2
}`)
	again, _, moves, diags := planner.Rename(def.Moves(), state, pending)
	if len(diags) != 1 || diags[0].Summary != "node.n2 and node.n3 are both there" || diags[0].Subject == nil || diags[0].Subject.Start.Line != 23 {
		t.Errorf("%v", diags)
	}
	if len(moves) > 0 || again.Find(addr.Node("n3", addr.NoKey)) == nil {
		t.Errorf("moved all the same: %v", moves)
	}
}

// What is deleted and created though only its address differs is proposed as a
// block; what differs in more, or could be one of several, is not.
func TestSuggestedMoves(t *testing.T) {
	const each = `
node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}`
	const cluster = `
cluster "c" {
  quorum { model = "majority_node_set" }
}`
	for _, c := range []struct{ name, before, after, want string }{
		{"a group", threeNodes + twoGroups, threeNodes + strings.NewReplacer(`"worker"`, `"crew"`).Replace(twoGroups), "group.worker -> group.crew"},
		{"a group that changes", threeNodes + twoGroups, threeNodes + strings.NewReplacer(`"worker"`, `"crew"`, `command = ["true"]`, `command = ["false"]`).Replace(twoGroups), ""},
		{"a node", threeNodes, strings.Replace(threeNodes, `"n3"`, `"n4"`, 1), "node.n3 -> node.n4"},
		{"a node or another", threeNodes, strings.NewReplacer(`"n3"`, `"n4"`, `"n2"`, `"n5"`).Replace(threeNodes), ""},
		{"a whole block", cluster + each, cluster + strings.Replace(each, `"n"`, `"m"`, 1), "node.n -> node.m"},
		{"one instance", cluster + each, cluster + strings.Replace(each, `"3"`, `"x"`, 1), `node.n["3"] -> node.n["x"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(c.before), "")
			var got []string
			for _, m := range l.plan(l.load(c.after), "").SuggestedMoves {
				got = append(got, m.From.String()+" -> "+m.To.String())
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("%q, want %q", text, c.want)
			}
		})
	}
}
