package apply_test

import (
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/statefile"
)

var hinted = regexp.MustCompile(`clusterplan (import|evict|offline|state rm)((?: (?:'[^']*'|[a-z][\w.-]*[\w]))+)`)

// hints are the commands that a plan's errors name, as a shell reads them.
func hints(t *testing.T, diags []planner.Diagnostic) [][]string {
	t.Helper()
	var out [][]string
	for _, d := range diags {
		for _, m := range hinted.FindAllStringSubmatch(d.Detail, -1) {
			args, err := exec.Command("sh", "-c", `printf '%s\n' `+m[2]).Output()
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Split(strings.TrimSpace(string(args)), "\n")
			takes := 1
			if m[1] == "import" {
				takes = 2
			}
			out = append(out, append([]string{m[1]}, words[:takes]...)) // what follows are words of the sentence
		}
	}
	return out
}

// follow does what a command does to the lab's world and state.
func (l *lab) follow(def *lang.Definition, words []string) error {
	at := func() (addr.Address, error) { return addr.Parse(words[1]) }
	switch words[0] {
	case "import":
		a, err := at()
		if err != nil {
			return err
		}
		o, ok := def.Object(a)
		if !ok {
			return fmt.Errorf("the definition has no %s", a)
		}
		one := planner.Import{To: a, ID: words[2]}
		config, _ := o.Value.UnmarkDeep()
		refresh.Find(l.t.Context(), l.world.Registry(), &one, o.Provider, config)
		l.state, err = planner.Adopt(l.state, def, &one)
		return err
	case "state rm":
		a, err := at()
		if err == nil {
			l.state, _, err = statefile.Forget(l.state, a)
		}
		return err
	case "evict":
		for id, m := range l.world.Members {
			if h := l.world.Hosts[id]; m.Spec.Name == words[1] && (h == nil || !h.Running) {
				delete(l.world.Members, id)
				return nil
			}
		}
		return fmt.Errorf("there is no node %s that is down", words[1])
	case "offline":
		for _, g := range l.world.Groups {
			if g.Value.GetAttr("name").AsString() == words[1] {
				g.Want, g.Owner = spec.WantOffline, ""
				return nil
			}
		}
	}
	return fmt.Errorf("%v: nothing is done", words)
}

// Commands that errors of a plan name do what they say in the very situation that
// the error is about, typed into a shell as they stand there.
func TestHintsLeadOut(t *testing.T) {
	keyed := `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n" {
  for_each = toset(["a", "b", "c", "d"])
  provider = local
}
`
	lost := func(l *lab, a addr.Address, dir bool) string {
		o := l.state.Find(a)
		if l.world.Hosts[o.ID].Running = false; !dir {
			delete(l.world.Hosts, o.ID)
		}
		return o.ID
	}
	d := addr.Node("n", addr.StringKey("d"))
	for name, c := range map[string]struct {
		break_ func(*lab)
		want   []string
	}{
		"state rm, and it runs": {func(l *lab) { l.state, _, _ = statefile.Forget(l.state, d) }, []string{"import"}},
		"a lost node": {func(l *lab) {
			lost(l, d, false)
			l.state, _, _ = statefile.Forget(l.state, d)
		}, []string{"evict"}},
		"a node that is down": {func(l *lab) {
			lost(l, d, true)
			l.state, _, _ = statefile.Forget(l.state, d)
		}, []string{"import"}},
		"another one in the state": {func(l *lab) {
			o := l.state.Find(d)
			o.ID = "00000000000000ff"
		}, []string{"state rm", "import"}},
		"a group": {func(l *lab) {
			l.state, _, _ = statefile.Forget(l.state, addr.Group("web", addr.NoKey))
		}, []string{"import"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			src := keyed + `group "web" {
  resource "generic_application" "app" { command = ["true"] }
}
`
			l.must(l.load(src), "")
			l.state.Objects = slices.Clone(l.state.Objects)
			c.break_(l)
			def := l.load(src)
			p := l.plan(def, "")
			if !p.Errored {
				t.Fatalf("the plan has no error: %v", actions(p))
			}
			named := map[string][]string{}
			for _, words := range hints(t, p.Diagnostics) {
				named[words[0]] = words
			}
			for _, verb := range c.want {
				if named[verb] == nil {
					t.Fatalf("no %s among %v:\n%+v", verb, slices.Sorted(maps.Keys(named)), p.Diagnostics)
				}
				if err := l.follow(def, named[verb]); err != nil {
					t.Fatalf("%v: %v\n%+v", named[verb], err, p.Diagnostics)
				}
			}
			l.must(def, "")
			l.settled(def)
			if len(l.world.Members) != 4 || len(l.world.Groups) != 1 {
				t.Errorf("%d members, %d groups", len(l.world.Members), len(l.world.Groups))
			}
		})
	}
}

// A plan that would lose the quorum names who is down and what to do, and each of
// these leads there.
func TestWaysToKeepTheQuorum(t *testing.T) {
	two := strings.Replace(threeNodes, "node \"n3\" { provider = local }\n", "", 1)
	dead := func(l *lab) { l.host("n1").Lost, l.host("n1").Running = true, false }
	fourth := "node \"n4\" { provider = local }\n"
	for name, c := range map[string]struct {
		src    string
		break_ func(*lab)
		says   string
		then   func(*lab) string // the definition after it
	}{
		"bring it back": {threeNodes, dead, "node.n1 votes, and is down or can't be reached: bring it back, or give it another host (another address)",
			func(l *lab) string { l.host("n1").Lost = false; return threeNodes }},
		"another host": {threeNodes, dead, "another address", func(*lab) string { return anew(threeNodes, "n1") }},
		"two of five": {threeNodes + fourth + "node \"n5\" { provider = local }\n", func(l *lab) { dead(l); l.host("n4").Lost, l.host("n4").Running = true, false },
			"node.n1, node.n4 vote, and are down or can't be reached", func(*lab) string {
				return anew(threeNodes, "n1") + "node \"n4\" {\n  provider = local\n  address = \"127.0.0.44\"\n}\nnode \"n5\" { provider = local }\n"
			}},
		"one more": {two, func(*lab) {}, "Add a node with a vote", func(*lab) string { return two + fourth }},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.must(l.load(c.src), "")
			l.world.Program = "p2"
			c.break_(l)
			p := l.plan(l.load(c.src), "")
			i := slices.IndexFunc(p.Diagnostics, func(d planner.Diagnostic) bool { return d.Summary == planner.QuorumLost })
			if i < 0 || !strings.Contains(p.Diagnostics[i].Detail, c.says) {
				t.Fatalf("%+v", p.Diagnostics)
			}
			def := l.load(c.then(l))
			res, p, err := l.apply(def, "")
			if err != nil || len(res.Failed)+len(res.Skipped) > 0 {
				t.Fatal(err, p.Diagnostics, res)
			}
			l.settled(def)
		})
	}
}
