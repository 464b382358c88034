package apply_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/planner"
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

// renamed is threeNodes and twoGroups with these nodes, by their labels, in the place of its own.
func renamed(nodes map[string]string) string {
	src := threeNodes + twoGroups
	for label, body := range nodes {
		own := fmt.Sprintf("node %q { provider = local }", label)
		block := fmt.Sprintf("node %q {\n  provider = local\n  %s\n}\n", label, strings.ReplaceAll(body, "; ", "\n  "))
		if body == "" {
			block = ""
		}
		if !strings.Contains(src, own) {
			src += block
		}
		src = strings.Replace(src, own, block, 1)
	}
	return src
}

// Names pass on in every stage in which nodes change, killed at any write or not, and also
// where the old definition is put back after that. Nothing else is refused than what would
// be taken before it is free.
func TestNamesPassOnInEveryStage(t *testing.T) {
	const there = `; address = "127.0.0.31"`
	for what, c := range map[string]struct {
		nodes   map[string]string
		upgrade bool
		more    string // in both definitions
		down    string // a node that is
		once    bool   // killed nowhere
		refused string
	}{
		"joins":                                 {nodes: map[string]string{"n1": `name = "n2"`, "n2": `name = "n3"`, "n3": `name = "n4"`}},
		"joins, the other way":                  {nodes: map[string]string{"n1": `name = "n0"`, "n2": `name = "n1"`, "n3": `name = "n2"`}},
		"rolls":                                 {nodes: map[string]string{"n1": `name = "n2"`, "n2": `name = "n3"`, "n3": `name = "n4"`}, upgrade: true},
		"to a new node":                         {nodes: map[string]string{"n1": `name = "n4"`, "new": `name = "n1"`}},
		"to one that is made anew":              {nodes: map[string]string{"n1": `name = "n2"` + there, "n2": `name = "nx"`}},
		"from one that is made anew, as well":   {nodes: map[string]string{"n2": `name = "n1"` + there, "n1": `name = "nx"; address = "127.0.0.32"`}},
		"from one that is made anew, by a roll": {nodes: map[string]string{"n2": `name = "nx"` + there, "n1": `name = "n2"`}, upgrade: true, once: true},
		"made anew under the same names":        {nodes: map[string]string{"n1": `address = "127.0.0.32"`, "n2": `name = "n2"` + there}, once: true},
		"from one that leaves early, by a roll": {nodes: map[string]string{"n1": `name = "n5"`}, more: "node \"n4\" { provider = local }\n", down: "n5", upgrade: true, once: true},

		"from one that leaves, to one that is made anew": {nodes: map[string]string{"n1": `name = "n3"` + there, "n3": ""}, refused: "node.n3 is called n3, and leaves only after"},
		"from one that is made anew, by a join":          {nodes: map[string]string{"n1": `name = "nx"` + there, "n2": `name = "n1"`}, refused: "node.n2 takes n1, which node.n1 has"},
		"exchanged by two that are made anew":            {nodes: map[string]string{"n1": `name = "n2"` + there, "n2": `name = "n1"; address = "127.0.0.32"`}, refused: "Names that are not free"},
		"from a roll, to a join":                         {nodes: map[string]string{"n1": `name = "n2"`, "n2": `name = "nx"; votes = 0`}, refused: "node.n1 takes n2, which node.n2 has"},
	} {
		t.Run(what, func(t *testing.T) {
			for at, back := 0, false; ; at, back = at+1, !back {
				l := newLab(t)
				now := renamed(nil) + c.more
				if c.down != "" {
					l.must(l.load(now+fmt.Sprintf("node %q { provider = local }\n", c.down)), "")
					l.host(c.down).Running = false
					for _, g := range l.world.Groups {
						g.Owner = l.idsByAddress()["node.n2"]
					}
				} else {
					l.must(l.load(now), "")
				}
				if c.upgrade {
					l.world.Program = "p2"
				}
				next := renamed(c.nodes) + c.more
				if _, gone := c.nodes["n3"]; gone && c.nodes["n3"] == "" {
					next = strings.ReplaceAll(next, ", node.n3", "")
				}
				def := l.load(next)
				if c.refused != "" {
					if p := l.plan(def, ""); !p.Errored || !strings.Contains(fmt.Sprint(p.Diagnostics), c.refused) {
						t.Errorf("%v, want %q", p.Diagnostics, c.refused)
					}
					break
				}
				if at > 0 {
					l.journal.appends, l.journal.killAt, l.journal.after = 0, at, at%4 < 2
				}
				res, p, err := l.apply(def, "")
				switch over := at > 0 && err == nil; {
				case err != nil && !errors.Is(err, errKilled), at == 0 && len(res.Failed)+len(res.Skipped) > 0:
					t.Fatalf("%v %v %+v", err, p.Diagnostics, res)
				case over:
				default:
					l.journal.dead.Store(false)
					l.journal.killAt = 0
					if back {
						if p := l.plan(l.load(now), ""); !p.Errored {
							def = l.load(now)
						} else if text := fmt.Sprint(p.Diagnostics); !strings.Contains(text, "not free") { // it has gone so far that this takes two applies
							t.Fatalf("killed at %d, put back: %s", at, text)
						}
					}
					if res, p, err := l.apply(def, ""); err != nil || len(res.Failed)+len(res.Skipped) > 0 {
						t.Errorf("killed at %d, put back %v: %v %v %+v", at, back, err, p.Diagnostics, res)
					}
					l.settled(def)
					if t.Failed() || len(l.world.Violations()) > 0 {
						t.Fatalf("killed at %d, put back %v: %v", at, back, l.world.Violations())
					}
					if !c.once {
						continue
					}
				}
				break
			}
		})
	}
}

// Of two nodes of which one takes the other's name, --target takes the one alone: the
// other one has its name still.
func TestTargetTakesAName(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	def := l.load(renamed(map[string]string{"n1": `name = "n2"`, "n2": `name = "nx"`}))
	for target, want := range map[string]string{"n1": "node.n2 is called n2, and is left out of this plan", "n2": ""} {
		p, _ := l.part(def, func(in *planner.Input) { in.Targets = addrs(t, "node."+target) })
		if text := fmt.Sprint(p.Diagnostics); p.Errored != (want != "") || !strings.Contains(text, want) {
			t.Errorf("--target node.%s: %v", target, p.Diagnostics)
		}
	}
}

// A group that the state forgets goes on in the cluster, with its name and its addresses:
// another one can't have them.
func TestForgottenGroupKeepsItsName(t *testing.T) {
	l := newLab(t)
	l.must(l.load(threeNodes+twoGroups), "")
	front := strings.Replace(strings.Replace(twoGroups, `group "web" {`, "group \"front\" {\n  name = \"web\"", 1), "depends_on = [group.web]", "", 1)
	p := l.plan(l.load(threeNodes+front+"removed {\n  from = group.web\n  lifecycle { destroy = false }\n}\n"), "")
	for _, want := range []string{"group.front takes web, which group.web still has", "group.front takes 127.0.0.9, which group.web still has", "The state forgets group.web, which stays in the cluster"} {
		if text := fmt.Sprint(p.Diagnostics); !p.Errored || !strings.Contains(text, want) {
			t.Errorf("%v, want %q", p.Diagnostics, want)
		}
	}
}

// Whatever passes names on, with nodes that are rolled, made anew, added, removed and down:
// what the plan does not refuse goes, with no two nodes of one name at any moment, and no
// names have changes wait for each other.
func TestNamesPassOnAtRandom(t *testing.T) {
	refused, done := 0, 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := func(next bool) string {
			src := fmt.Sprintf("cluster \"c\" {\n  max_unavailable = %d\n  quorum { model = \"majority_node_set\" }\n}\n", 1+rng.IntN(2))
			names := []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7"}
			if next {
				for range rng.IntN(4) {
					i, j := rng.IntN(7), rng.IntN(7)
					names[i], names[j] = names[j], names[i]
				}
			}
			for i := 1; i <= 6; i++ {
				if i == 6 && (!next || rng.IntN(2) == 0) || next && i > 1 && i < 6 && rng.IntN(7) == 0 {
					continue
				}
				src += fmt.Sprintf("node \"n%d\" {\n  provider = local\n  name = %q\n", i, names[i-1])
				if next && rng.IntN(4) == 0 {
					src += fmt.Sprintf("  address = \"127.0.1.%d\"\n", i)
				}
				if i == 5 || next && i > 2 && rng.IntN(4) == 0 {
					src += "  votes = 0\n"
				}
				src += "}\n"
			}
			return src + strings.Replace(twoGroups, "  preferred_owners = [node.n1, node.n2]\n", "", 1)
		}
		l := newLab(t)
		l.must(l.load(now(false)), "")
		if rng.IntN(3) == 0 {
			l.world.Program = "p2"
		}
		if rng.IntN(4) == 0 {
			l.host(fmt.Sprintf("n%d", 1+rng.IntN(5))).Running = false
		}
		def := l.load(now(true))
		p := l.plan(def, "")
		if text := fmt.Sprint(p.Diagnostics); p.Errored {
			if strings.Contains(text, "Changes wait for each other") {
				t.Errorf("seed %d: %s", seed, text)
			}
			refused++
			continue
		}
		if res, _, err := l.apply(def, ""); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		} else if len(res.Failed)+len(res.Skipped)+len(l.world.Violations()) > 0 {
			t.Errorf("seed %d: failed %+v, skipped %v, %v", seed, res.Failed, res.Skipped, l.world.Violations())
		}
		done++
	}
	if refused < 10 || done < 20 {
		t.Errorf("%d were refused and %d done", refused, done)
	}
}
