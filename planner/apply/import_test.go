package apply_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/statefile"
)

// importAll brings back what forget takes out of the state; of what the state
// has it says nothing.
const importAll = `
import {
  to = node.n1
  id = "n1"
}
import {
  to = node.n3
  id = "n3"
}
import {
  to = group.web
  id = "web"
}
import {
  to = group.worker
  id = "worker"
}
`

// forget takes objects out of the state, as state rm does.
func (l *lab) forget(which ...string) {
	l.t.Helper()
	var list []addr.Address
	for _, text := range which {
		a, err := addr.Parse(text)
		if err != nil {
			l.t.Fatal(err)
		}
		list = append(list, a)
	}
	state, _, err := statefile.Forget(l.state, list...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.state = state
}

// group is the world's group of that name.
func (l *lab) group(name string) *plannertest.Group {
	l.t.Helper()
	for _, g := range l.world.Groups {
		if g.Value.GetAttr("name").AsString() == name {
			return g
		}
	}
	l.t.Fatalf("the world has no group %s", name)
	return nil
}

func changeOf(t *testing.T, p *planner.Plan, a string) *planner.Change {
	t.Helper()
	for i := range p.Changes {
		if p.Changes[i].Address.String() == a {
			return &p.Changes[i]
		}
	}
	t.Fatalf("the plan has no %s", a)
	return nil
}

// What the state has lost comes back with its ids, and nothing is done to it;
// the plan says so, and the next one has nothing to do.
func TestImport(t *testing.T) {
	l := newLab(t)
	src := threeNodes + twoGroups
	l.must(l.load(src), "")
	before, ids := l.summary(), l.idsByAddress()
	l.forget("node.n3", "group.web", "group.worker")
	l.world.Calls = nil

	def := l.load(src + importAll)
	p := l.plan(def, "")
	if got := p.Summary; got.Import != 3 || got.Create+got.Update+got.Replace+got.Delete != 0 || !p.Applyable || p.Errored || len(p.Unmanaged) != 0 {
		t.Fatalf("the plan: %+v, unmanaged %v, %v\n%s", got, p.Unmanaged, p.Diagnostics, actions(p))
	}
	c := changeOf(t, p, "group.web")
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"importing":{"id":"web"}`) || !strings.Contains(string(text), `"actions":["no-op"]`) || c.Before.GetAttr("name").AsString() != "web" {
		t.Errorf("the change: %s", text)
	}
	if c := changeOf(t, p, "node.n1"); c.Importing != nil {
		t.Errorf("%s is imported, and the state has it", c.Address)
	}
	res := l.must(def, "")
	if res.Done.Import != 3 || len(l.world.Calls) != 0 {
		t.Errorf("done: %+v, calls:\n%s", res.Done, l.calls())
	}
	if got := l.summary(); got != before {
		t.Errorf("the state after it:\n%s\nwant:\n%s", got, before)
	}
	for a, id := range l.idsByAddress() {
		if ids[a] != id {
			t.Errorf("%s has the id %s, and had %s", a, id, ids[a])
		}
	}
	l.settled(def)
}

// What differs from the definition is changed by the same apply, in its place;
// what somebody else manages is taken over, in the database too; one that is
// known there by another address learns of its new one.
func TestImportChanges(t *testing.T) {
	l := newLab(t)
	src := threeNodes + twoGroups
	l.must(l.load(src), "")
	l.forget("group.worker", "group.web", "node.n3")
	l.group("web").ManagedBy = "terraform"
	l.world.Calls = nil
	next := strings.NewReplacer(`node "n3" { provider = local }`, "node \"n3\" {\n  provider = local\n  zone     = \"east\"\n}", `group "worker" {`, "group \"crew\" {\n  name = \"worker\"").Replace(src) + `
import {
  to = group.web
  id = "web"
}
import {
  to = group.crew
  id = "worker"
}
import {
  to = node.n3
  id = "n3"
}
`
	def := l.load(next)
	p := l.plan(def, "")
	if s := p.Summary; s.Import != 3 || s.Update != 1 || s.Create+s.Delete+s.Replace != 0 || p.Errored {
		t.Fatalf("the plan: %+v %v\n%s", s, p.Diagnostics, actions(p))
	}
	if c := changeOf(t, p, "group.web"); !slices.Contains(c.Why, "managed by terraform until now") || c.Action() != "no-op" {
		t.Errorf("group.web: %s %v", c.Action(), c.Why)
	}
	if c := changeOf(t, p, "group.crew"); !slices.Contains(c.Why, "known to the cluster as group.worker") || c.Action() != "no-op" {
		t.Errorf("group.crew: %s %v", c.Action(), c.Why)
	}
	if c := changeOf(t, p, "node.n3"); c.Action() != "update" || c.Reason != planner.ReasonChanged || len(paths(*c)) != 1 {
		t.Errorf("node.n3: %s %s %v", c.Action(), c.Reason, paths(*c))
	}
	res := l.must(def, "")
	if res.Done.Import != 3 || res.Done.Update != 1 || res.Done.Create != 0 {
		t.Errorf("done: %+v", res.Done)
	}
	calls := strings.Split(l.calls(), "\n")
	if slices.Sort(calls); !slices.Equal(calls, []string{"group.crew", "group.web", "node.n3 update"}) {
		t.Errorf("calls: %q", calls)
	}
	if g := l.group("web"); g.ManagedBy != "clusterplan" {
		t.Errorf("web is managed by %s", g.ManagedBy)
	}
	l.settled(def)
}

// Each of these is an error with its place, and no plan that could be applied;
// what is left out by --target is not looked at.
func TestImportRefused(t *testing.T) {
	l := newLab(t)
	src := threeNodes + twoGroups
	l.must(l.load(src), "")
	l.forget("group.worker")
	block := func(to, id string) string { return "\nimport {\n  to = " + to + "\n  id = \"" + id + "\"\n}\n" }
	for _, c := range []struct{ src, to, words string }{
		{src + block("group.worker", "nobody"), "group.worker", `has no group "nobody"`},
		{src + block("group.worker", "web"), "group.worker", "is group.web already"},
		{src + block("group.other", "worker"), "group.other", "The definition has no group.other"},
		{src + "group \"two\" {\n  resource \"script\" \"s\" { start = [\"x\"] }\n}\n" + block("group.two", "worker") + block("group.worker", "worker"), "group.worker", "is group.two already"},
	} {
		p := l.plan(l.load(c.src), "")
		found := false
		for _, d := range p.Diagnostics {
			found = found || d.Summary == "Can't import "+c.to && strings.Contains(d.Detail, c.words) && d.Range != nil && strings.Contains(c.src[d.Range.Start.Byte:], "import")
		}
		if !found || p.Applyable {
			t.Errorf("%s: applyable %v, %+v", c.words, p.Applyable, p.Diagnostics)
		}
	}
	l.target(l.load(src+block("group.worker", "nobody")), "node.n1") // that it is not there matters to nobody
	def := l.load(src + block("group.worker", "worker"))
	l.planned = l.target(def, "node.n1")
	if p := l.planned; p.Summary.Any() || len(p.Unmanaged) != 1 || p.Unmanaged[0].Name != "worker" {
		t.Errorf("with a target: %+v, unmanaged %v", p.Summary, p.Unmanaged)
	}
	l.must(def, "")
	if l.state.Find(addr.Group("worker", addr.NoKey)) != nil {
		t.Error("what is left out was imported")
	}
}

// An import that was cut off, and whose block is gone then, is no reason to
// delete what it was about, nor to make it again.
func TestImportDropped(t *testing.T) {
	for _, after := range []bool{false, true} { // it was taken over, or not even that
		l := newLab(t)
		l.must(l.load(threeNodes+twoGroups), "")
		l.forget("group.worker")
		l.group("worker").ManagedBy = "hand"
		l.journal.killAt, l.journal.after = 3, false // the result; 2 is the intent
		if !after {
			l.journal.killAt, l.journal.after = 2, true
		}
		if _, _, err := l.apply(l.load(threeNodes+twoGroups+"import {\n  to = group.worker\n  id = \"worker\"\n}\n"), ""); err == nil {
			t.Fatal("it was not killed")
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		if _, pending := l.current(); len(pending) != 1 || (l.group("worker").ManagedBy == "clusterplan") != after {
			t.Fatalf("taken over %v: %s, pending %v", after, l.group("worker").ManagedBy, pending)
		}
		l.world.Calls = nil
		l.must(l.load(threeNodes+webOnly), "")
		if _, pending := l.current(); l.group("worker") == nil || len(pending) != 0 || strings.Contains(l.calls(), "worker") {
			t.Errorf("taken over %v: pending %v, calls:\n%s", after, pending, l.calls())
		}
	}
}

// The cluster's members, fences and groups that the state doesn't have are told.
func TestUnmanaged(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	l.forget("node.n3", "group.worker")
	l.group("worker").ManagedBy = "terraform"
	p := l.plan(l.load(strings.Replace(threeNodes, "node \"n3\" { provider = local }\n", "", 1)+webOnly), "")
	var got []string
	for _, u := range p.Unmanaged {
		got = append(got, u.Type+" "+u.Name+" "+u.ManagedBy)
	}
	if want := []string{"group worker terraform", "node n3 clusterplan"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	// The member that nobody knows still votes.
	if m := p.FailureMatrix; len(m.After.Rows) == 0 || len(m.Before.Rows) != len(m.After.Rows) || len(m.Regressions) > 0 {
		t.Errorf("before %+v, after %+v, worse %v", m.Before, m.After, m.Regressions)
	}
}

// What an apply that was cut off had begun to make is not imported to another
// address: one object would be two, and what takes the one away takes the other.
func TestImportOfWhatWasBegun(t *testing.T) {
	for _, both := range []bool{false, true} {
		l := newLab(t)
		l.must(l.load(threeNodes+webOnly), "")
		l.journal.killAt, l.journal.after = 3, false // the result; 2 is the intent
		if _, _, err := l.apply(l.load(threeNodes+twoGroups), ""); err == nil {
			t.Fatal("it was not killed")
		}
		l.journal.dead.Store(false)
		l.journal.killAt = 0
		if _, pending := l.current(); len(pending) != 1 || l.group("worker") == nil {
			t.Fatalf("pending %v", pending)
		}
		src := threeNodes + webOnly
		if both {
			src = threeNodes + twoGroups
		}
		p := l.plan(l.load(src+"group \"crew\" {\n  resource \"script\" \"s\" { start = [\"x\"] }\n}\nimport {\n  to = group.crew\n  id = \"worker\"\n}\n"), "")
		if p.Applyable || !strings.Contains(diagnosticsOf(p), "is group.worker already") {
			t.Errorf("both %v: applyable %v\n%s\n%s", both, p.Applyable, actions(p), diagnosticsOf(p))
		}
	}
}

// One thing is not imported at two addresses, also where it is a resource in two
// groups: of an imported group and of one that the state has, or of two that are
// imported at once.
func TestImportOfAResourceTwice(t *testing.T) {
	const web, worker = "import {\n  to = group.web\n  id = \"web\"\n}\n", "import {\n  to = group.worker\n  id = \"worker\"\n}\n"
	for _, c := range []struct{ name, forget, blocks, want string }{
		{"the state has it", "group.worker", worker, "Can't import group.worker"},
		{"two imports", "group.web", web + worker, "Can't import group.worker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(threeNodes+twoGroups), "")
			l.forget("group.worker")
			if c.forget != "group.worker" {
				l.forget(c.forget)
			}
			l.group("worker").Resources[0].ID = l.group("web").Resources[0].ID
			p := l.plan(l.load(threeNodes+twoGroups+c.blocks), "")
			var told []string
			for _, d := range p.Diagnostics {
				told = append(told, d.Summary+": "+d.Detail)
			}
			if text := strings.Join(told, "\n"); !p.Errored || !strings.Contains(text, c.want) || !strings.Contains(text, "group.web.resource.") || !strings.Contains(text, "already") {
				t.Errorf("errored %v: %s", p.Errored, text)
			}
		})
	}
}
