package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// full is a look at a world where everything is as it should be.
func full(want shape) *look {
	l := &look{ids: map[string]string{}, addrs: map[string]bool{}}
	for _, t := range want.things() {
		if t.kind != kindAgent && t.kind != kindProgram {
			t.id = "id of " + t.addr
			l.ids[t.id] = t.addr
		}
		l.things = append(l.things, t)
	}
	for _, a := range want.addresses() {
		l.addrs[a] = true
	}
	return l
}

// What is missing, double or unknown is found; what is right is not.
func TestJudge(t *testing.T) {
	want := shapeOf(11, 3, "/bin/sleep")
	if n := want.objects(); n != 11 {
		t.Fatalf("%d objects", n)
	}
	drop := func(l *look, kind, addr string) {
		l.things = slices.DeleteFunc(l.things, func(t thing) bool { return t.kind == kind && t.addr == addr })
	}
	for _, c := range []struct {
		name                      string
		break1                    func(before, after *look)
		orphans, duplicates, lost int
	}{
		{"all is well", func(b, a *look) {}, 0, 0, 0},
		{"killed early", func(b, a *look) { b.things = nil }, 0, 0, 0},
		{"known by its intent alone", func(b, a *look) { drop(b, kindResource, "group.g1.resource.app0") }, 0, 0, 0},
		{"a group that the state does not know", func(b, a *look) {
			a.things = append(a.things, thing{kindGroup, "group.g9", "x"})
		}, 1, 0, 0},
		{"a group made again", func(b, a *look) {
			for i := range a.things {
				if a.things[i].addr == "group.g1" {
					a.things[i].id = "other"
				}
			}
			a.ids["other"] = "group.g1"
		}, 0, 1, 0},
		{"a program that runs twice", func(b, a *look) {
			a.things = append(a.things, thing{kind: kindProgram, addr: "group.g1.resource.app0"})
		}, 0, 1, 0},
		{"a program that does not run", func(b, a *look) { drop(a, kindProgram, "group.g1.resource.app0") }, 0, 0, 1},
		{"a group that is gone", func(b, a *look) { drop(a, kindGroup, "group.g1") }, 0, 0, 1},
		{"a node that the state forgot", func(b, a *look) {
			delete(a.addrs, "node.n2")
			delete(a.ids, "id of node.n2")
		}, 3, 0, 3},
		{"an agent of nobody", func(b, a *look) { a.things = append(a.things, thing{kind: kindAgent, addr: "node.n7"}) }, 1, 0, 0},
		{"a resource of nobody", func(b, a *look) {
			delete(a.ids, "id of group.g2.resource.app0")
			delete(a.addrs, "group.g2.resource.app0")
		}, 1, 0, 2},
	} {
		before, after := full(want), full(want)
		before.things, before.ids = slices.Clone(before.things), maps.Clone(before.ids)
		c.break1(before, after)
		v := judge([]*look{before}, after, want)
		if len(v.orphans) != c.orphans || len(v.duplicates) != c.duplicates || len(v.lost) != c.lost {
			t.Errorf("%s: orphans %q, duplicates %q, lost %q", c.name, v.orphans, v.duplicates, v.lost)
		}
	}
	if n := len(orphans(&look{things: []thing{{kindGroup, "group.g1", "x"}, {kind: kindProgram, addr: "group.g1.resource.app0"}}})); n != 2 {
		t.Errorf("%d orphans where nothing is known", n)
	}
	if text := want.definition("86400.1"); strings.Count(text, "generic_application") != 4 || !strings.Contains(text, `"86400.1000021"`) {
		t.Error(text)
	}
}

// What --json prints is one object with these keys, which others read.
func TestFiguresForPrograms(t *testing.T) {
	var b strings.Builder
	if err := (figures{Objects: 60, Runs: 50, Kills: 75, Seed: 1 << 63, Orphans: 1, Duplicates: 2, Lost: 3}).write(&b, true); err != nil {
		t.Fatal(err)
	}
	const want = `{"objects":60,"runs":50,"kills":75,"seed":9223372036854775808,"orphans":1,"duplicates":2,"lost":3}` + "\n"
	if b.String() != want {
		t.Errorf("%s, want %s", b.String(), want)
	}
}
