package apply_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/planner/plannertest"
)

// saved is what a plan file has of p.
func saved(t *testing.T, p *planner.Plan) *planfile.File {
	t.Helper()
	text, err := planfile.MarshalPlan(p)
	if err != nil {
		t.Fatal(err)
	}
	return &planfile.File{Plan: text, RestsOn: planfile.RestsOn{Serial: p.Serial, ConfigRevision: p.ConfigRevision}}
}

func stale(t *testing.T, f *planfile.File, now *planner.Plan) string {
	t.Helper()
	why, err := f.StalePlan(now)
	if err != nil {
		t.Fatal(err)
	}
	return why
}

// A plan that is worked out again is the one that was shown as long as the
// world is the same in what matters.
func TestStalePlan(t *testing.T) {
	src := threeNodes + strings.Replace(twoGroups, "[node.n1, node.n2]", "[node.n1, node.n2, node.n3]", 1)
	changed := strings.Replace(src, `["true"]`, `["true", "--fast"]`, 1)
	for _, c := range []struct {
		name   string
		change func(*lab)
		words  string // "": it may be applied
	}{
		{"nothing", func(*lab) {}, ""},
		{"an operator's order that changes no step", func(l *lab) {
			for _, m := range l.world.Members {
				if m.Spec.Name == "n3" {
					m.Paused = plannertest.Order("eve", "a look")
				}
			}
		}, ""},
		{"somebody wrote to the configuration", func(l *lab) { l.world.Revision++ }, "somebody changed it"},
		{"an agent died", func(l *lab) { l.host("n2").Running = false }, "node.n2 would change too (update)"},
		{"most agents died", func(l *lab) { l.host("n2").Running, l.host("n1").Running = false, false }, "node.n1 would change too"},
		{"a new program", func(l *lab) { l.world.Program = "p2" }, "node.n1 would change too (update); node.n2 would change too (update)"},
		{"the group was changed by hand", func(l *lab) {
			for _, g := range l.world.Groups {
				attrs := g.Value.AsValueMap()
				attrs["description"] = cty.StringVal("edited by hand")
				g.Value = cty.ObjectVal(attrs)
			}
		}, "group.web would change too (update)"},
		{"the group is gone", func(l *lab) { clear(l.world.Groups) }, "group.web"},
	} {
		l := newLab(t)
		l.must(l.load(src), "")
		def := l.load(changed)
		f := saved(t, l.plan(def, ""))
		c.change(l)
		why := stale(t, f, l.plan(l.load(changed), ""))
		if (why == "") != (c.words == "") || !strings.Contains(why, c.words) {
			t.Errorf("%s: %q, want %q", c.name, why, c.words)
		}
	}
	// The first plan of all, and one of a change that somebody else made.
	l := newLab(t)
	f := saved(t, l.plan(l.load(src), ""))
	if why := stale(t, f, l.plan(l.load(src), "")); why != "" {
		t.Error(why)
	}
	l.must(l.load(src), "")
	if why := stale(t, f, l.plan(l.load(src), "")); why == "" {
		t.Error("a plan to make all goes for one with nothing to do")
	}
}

// What is imported as it is, is what was shown: another one by the same name is not.
func TestStaleImport(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	l.forget("node.n3", "group.worker")
	def := l.load(threeNodes + twoGroups + importAll)
	f := saved(t, l.plan(def, ""))
	now := l.plan(def, "")
	if why := stale(t, f, now); why != "" {
		t.Errorf("the same: %s", why)
	}
	c := changeOf(t, now, "node.n3")
	attrs := c.Before.AsValueMap()
	attrs["endpoint"] = cty.StringVal("127.0.0.1:999")
	c.Before = cty.ObjectVal(attrs)
	if why := stale(t, f, now); why != "node.n3 would import otherwise than planned" {
		t.Errorf("another node: %q", why)
	}
	changeOf(t, now, "group.worker").Importing, c.Importing = nil, nil
	if why := stale(t, f, now); why != "group.worker was to import, and has nothing to do now; node.n3 was to import, and has nothing to do now" {
		t.Errorf("no import any more: %q", why)
	}
}

// host is the host of the node with a name.
func (l *lab) host(name string) *plannertest.Host {
	for id, m := range l.world.Members {
		if m.Spec.Name == name {
			return l.world.Hosts[id]
		}
	}
	l.t.Fatalf("no member %s", name)
	return nil
}

// The steps on today's owners: the same or better is applied, worse is stale.
func TestStaleOwners(t *testing.T) {
	src := threeNodes + twoGroups
	l := newLab(t)
	l.must(l.load(src), "")
	l.world.Program = "p2" // every node is rolled, and every group moved for it
	ids := slices.Sorted(maps.Keys(l.world.Members))
	type situation struct {
		name string
		plan *planner.Plan
	}
	var all []situation
	for _, leader := range ids {
		for _, owner := range ids {
			l.world.Leader = leader
			for _, g := range l.world.Groups {
				g.Owner = owner
			}
			all = append(all, situation{fmt.Sprintf("%s leads, %s owns", l.world.Members[leader].Spec.Name, l.world.Members[owner].Spec.Name), l.plan(l.load(src), "")})
		}
	}
	cost := func(p *planner.Plan) (n map[string]int) {
		n = map[string]int{}
		for _, a := range p.Availability {
			n[a.Group.String()] += a.Interruptions
		}
		return n
	}
	counts := map[bool]int{}
	for _, was := range all {
		f := saved(t, was.plan)
		for _, is := range all {
			worse := false
			planned := cost(was.plan)
			for group, n := range cost(is.plan) {
				worse = worse || n > planned[group]
			}
			why := stale(t, f, is.plan)
			if (why != "") != worse {
				t.Errorf("planned when %s (%v), now %s (%v): %q", was.name, planned, is.name, cost(is.plan), why)
			}
			counts[worse]++
		}
	}
	if counts[true] == 0 || counts[false] <= len(all) {
		t.Errorf("worse and not worse: %v: the situations are all alike", counts)
	}
}
