package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// named is threeNodes with twoGroups under these names, in the order of their labels.
func named(names ...string) string {
	src := threeNodes + twoGroups
	for i, n := range names[:3] {
		src = strings.Replace(src, fmt.Sprintf("node \"n%d\" { provider = local }", i+1), fmt.Sprintf("node \"n%d\" {\n  provider = local\n  name     = %q\n}", i+1, n), 1)
	}
	for i, label := range []string{"web", "worker"} {
		src = strings.Replace(src, fmt.Sprintf("group %q {", label), fmt.Sprintf("group %q {\n  name = %q", label, names[3+i]), 1)
	}
	return src
}

// Names pass from one to the next: each is free before it is taken, also where the apply
// is killed at any write, and the next one goes on. In a circle none would be, and the
// plan says so; by way of another name it goes.
func TestNamesPassOn(t *testing.T) {
	for _, c := range []struct {
		now, next, refused []string // refused: what the plan says of the first try at next
		by                 []string
	}{
		{now: []string{"n1", "n2", "n3", "web", "worker"}, next: []string{"n2", "n3", "n4", "worker", "third"}},
		{now: []string{"n1", "n2", "n3", "web", "worker"}, next: []string{"n0", "n1", "n2", "third", "web"}},
		{now: []string{"n1", "n2", "n3", "web", "worker"}, next: []string{"n2", "n3", "n1", "web", "worker"}, by: []string{"n2", "n3", "nx", "web", "worker"},
			refused: []string{"Names that are not free", "node.n1 takes n2, which node.n2 has; node.n2 takes n3, which node.n3 has; node.n3 takes n1, which node.n1 has.", "first give one of them a name that nobody has"}},
		{now: []string{"n1", "n2", "n3", "web", "worker"}, next: []string{"n1", "n2", "n3", "worker", "web"}, by: []string{"n1", "n2", "n3", "worker", "x"},
			refused: []string{"Changes wait for each other", "group.web", "group.worker", "Do it in two applies"}},
	} {
		for at := 0; ; at++ {
			l := newLab(t)
			l.must(l.load(named(c.now...)), "")
			def := l.load(named(c.next...))
			if c.refused != nil {
				p := l.plan(def, "")
				for _, want := range c.refused {
					if !p.Errored || !strings.Contains(fmt.Sprint(p.Diagnostics), want) {
						t.Fatalf("%v: %v, want %q", c.next, p.Diagnostics, want)
					}
				}
				l.must(l.load(named(c.by...)), "")
			}
			ids := l.idsByAddress()
			if at > 0 {
				l.journal.appends, l.journal.killAt, l.journal.after = 0, at, at%2 == 0
			}
			_, _, err := l.apply(def, "")
			if over := at > 0 && err == nil; err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			} else if over {
				break
			}
			l.journal.dead.Store(false)
			l.journal.killAt = 0
			res, p, err := l.apply(def, "")
			if err != nil || p.Errored || len(res.Failed)+len(res.Skipped) > 0 {
				t.Fatalf("%v, killed at %d: %v %v %+v", c.next, at, err, p.Diagnostics, res)
			}
			l.settled(def)
			for a, id := range l.idsByAddress() {
				if ids[a] != id {
					t.Errorf("%v, killed at %d: %s was %s and is %s", c.next, at, a, ids[a], id)
				}
			}
		}
	}
}

// A node that leaves has its name until the end: another one can't take it in the same
// plan, for it would fail as it joins. A moved block says that they are one.
func TestNameOfOneThatLeaves(t *testing.T) {
	const other = "node \"other\" {\n  provider = local\n  name     = \"n3\"\n}"
	now := threeNodes + twoGroups
	for what, src := range map[string]string{
		"a new one":      strings.Replace(now, `node "n3" { provider = local }`, other, 1),
		"another's name": strings.Replace(strings.Replace(now, `node "n3" { provider = local }`, "", 1), `node "n2" { provider = local }`, "node \"n2\" {\n  provider = local\n  name     = \"n3\"\n}", 1),
	} {
		l := newLab(t)
		l.must(l.load(now), "")
		p := l.plan(l.load(src), "")
		if text := fmt.Sprint(p.Diagnostics); !p.Errored || !strings.Contains(text, "takes a name that is not free") || !strings.Contains(text, "node.n3 is called n3, and leaves only after") {
			t.Errorf("%s: %v", what, p.Diagnostics)
		}
		l.must(l.load(strings.Replace(now, `node "n3" { provider = local }`, "", 1)), "")
		def := l.load(src)
		l.must(def, "")
		l.settled(def)
	}
	l := newLab(t)
	l.must(l.load(now), "")
	def := l.load(strings.Replace(now, `node "n3" { provider = local }`, other, 1) + "moved {\n  from = node.n3\n  to   = node.other\n}\n")
	l.must(def, "")
	l.settled(def)
}
