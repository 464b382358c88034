package view

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

func str(s string) cty.Value { return cty.StringVal(s) }

func strs(list ...string) cty.Value {
	out := make([]cty.Value, len(list))
	for i, s := range list {
		out[i] = str(s)
	}
	if len(out) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	return cty.ListVal(out)
}

func env(pairs ...string) cty.Value {
	out := map[string]cty.Value{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = str(pairs[i+1])
	}
	if len(out) == 0 {
		return cty.MapValEmpty(cty.String)
	}
	return cty.MapVal(out)
}

func obj(attrs map[string]cty.Value) cty.Value { return cty.ObjectVal(attrs) }

// inPlace is a change of attributes in place; elements are told as the planner
// tells them.
func inPlace(a addr.Address, typ string, before, after map[string]cty.Value, attrs ...planner.AttributeChange) planner.Change {
	c := planner.Change{Address: a, Type: typ, Actions: planner.ActionUpdate, Reason: planner.ReasonChanged, Before: obj(before), After: obj(after)}
	for _, at := range attrs {
		if at.Impact == "" {
			at.Impact = spec.ImpactNone
		}
		if at.Cause == "" {
			at.Cause = planner.CauseDefinition
		}
		root, _, _ := strings.Cut(at.Path, "[")
		if root == at.Path && at.Before == cty.NilVal && at.After == cty.NilVal {
			at.Before, at.After = before[root], after[root]
		}
		c.Attributes = append(c.Attributes, at)
	}
	return c
}

// What a reviewer reads of each kind of change.
func TestChanges(t *testing.T) {
	web := addr.Group("web", addr.NoKey)
	app := web.WithResource("app", addr.NoKey)
	common := func(more map[string]cty.Value) map[string]cty.Value {
		out := map[string]cty.Value{"log_max_size": str("10MiB"), "stop_signal": str("TERM"), "user": cty.NullVal(cty.String), "depends_on": strs("vip"),
			"restart": obj(map[string]cty.Value{"delay": str("1s"), "threshold": cty.NumberIntVal(3)})}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	with := func(k string, v cty.Value) map[string]cty.Value { return common(map[string]cty.Value{k: v}) }
	long := make([]string, 12)
	for i := range long {
		long[i] = fmt.Sprintf("--option-%d", i)
	}
	secret := func(s string) cty.Value { return str(s).Mark(schema.Sensitive) }
	motd, motd2 := "welcome\nto the\nfirst\nof all\nclusters\n", "welcome\nto the\nsecond\nof all\nclusters\n"
	object := func(name, role string) cty.Value {
		return obj(map[string]cty.Value{"name": str(name), "role": str(role)})
	}
	cases := []struct {
		name string
		c    planner.Change
	}{
		{"list: one more, one less, neighbours kept, the rest counted", inPlace(app, "generic_application",
			with("command", strs("serve", "--a", "--b", "--c", "--d", "--e")), with("command", strs("serve", "--a", "--b", "--x", "--c", "--e", "--f")),
			planner.AttributeChange{Path: "command", Impact: spec.ImpactRestartResource})},
		{"list: an element of one length", inPlace(app, "generic_application",
			with("command", strs("serve", "--port", "80", "-v")), with("command", strs("serve", "--port", "81", "-v")),
			planner.AttributeChange{Path: "command[2]", Before: str("80"), After: str("81"), Impact: spec.ImpactRestartResource})},
		{"list: emptied", inPlace(app, "generic_application", with("depends_on", strs("vip")), with("depends_on", strs()), planner.AttributeChange{Path: "depends_on"})},
		{"list of objects: one is changed in one place", inPlace(addr.Cluster(), "cluster",
			map[string]cty.Value{"link": cty.ListVal([]cty.Value{object("lan", "all"), object("spare", "internal")})},
			map[string]cty.Value{"link": cty.ListVal([]cty.Value{object("lan", "all"), object("spare", "all")})},
			planner.AttributeChange{Path: "link[1]", Before: object("spare", "internal"), After: object("spare", "all"), Impact: spec.ImpactMembership})},
		{"map: a key comes, one goes, one changes, keys aligned", inPlace(app, "generic_application",
			with("environment", env("A", "1", "LONGER", "x", "GONE", "y", "SAME", "s")), with("environment", env("A", "1", "LONGER", "z", "NEW", "n", "SAME", "s")),
			planner.AttributeChange{Path: `environment["GONE"]`, Before: str("y"), Impact: spec.ImpactRestartResource},
			planner.AttributeChange{Path: `environment["LONGER"]`, Before: str("x"), After: str("z"), Impact: spec.ImpactRestartResource},
			planner.AttributeChange{Path: `environment["NEW"]`, After: str("n"), Impact: spec.ImpactRestartResource, Cause: planner.CauseDefinition})},
		{"map: a sensitive key", inPlace(app, "generic_application",
			with("environment", cty.MapVal(map[string]cty.Value{"TOKEN": secret("hunter2"), "A": str("1"), "B": str("2")})),
			with("environment", cty.MapVal(map[string]cty.Value{"TOKEN": secret("hunter3"), "A": str("1"), "B": str("3")})),
			planner.AttributeChange{Path: `environment["B"]`, Before: str("2"), After: str("3")},
			planner.AttributeChange{Path: `environment["TOKEN"]`, Before: secret("hunter2"), After: secret("hunter3"), Sensitive: true})},
		{"map: a key that is sensitive on one side only", inPlace(app, "generic_application",
			with("environment", env("A", "1", "TOKEN", "hunter2")), with("environment", env("A", "1", "TOKEN", "hunter3")),
			planner.AttributeChange{Path: `environment["TOKEN"]`, Before: str("hunter2"), After: str("hunter3"), Sensitive: true})},
		{"sensitive", inPlace(app, "generic_application", with("password", secret("hunter2")), with("password", secret("hunter3")),
			planner.AttributeChange{Path: "password", Sensitive: true})},
		{"text of many lines", inPlace(app, "file", with("content", str(motd)), with("content", str(motd2)), planner.AttributeChange{Path: "content", Impact: spec.ImpactRestartResource})},
		{"null and unknown", inPlace(app, "generic_application",
			common(map[string]cty.Value{"user": cty.NullVal(cty.String), "umask": str("022"), "endpoint": str("a:1"), "ports": strs("1", "2")}),
			common(map[string]cty.Value{"user": str("www"), "umask": cty.NullVal(cty.String), "endpoint": cty.UnknownVal(cty.String), "ports": cty.UnknownVal(cty.List(cty.String))}),
			planner.AttributeChange{Path: "endpoint"}, planner.AttributeChange{Path: "ports"}, planner.AttributeChange{Path: "umask"}, planner.AttributeChange{Path: "user"})},
		{"an unknown element", inPlace(app, "generic_application", with("command", strs("a", "b")), with("command", cty.ListVal([]cty.Value{str("a"), cty.UnknownVal(cty.String)})),
			planner.AttributeChange{Path: "command[1]", Before: str("b"), After: cty.UnknownVal(cty.String)})},
		{"in a block; drift", inPlace(app, "generic_application", common(nil),
			common(map[string]cty.Value{"restart": obj(map[string]cty.Value{"delay": str("2s"), "threshold": cty.NumberIntVal(3)})}),
			planner.AttributeChange{Path: "restart.delay", Before: str("1s"), After: str("2s"), Cause: planner.CauseDrift})},
	}
	cases[len(cases)-1].c.Why = []string{"drifted: agent not running", "drifted: restart.delay"}
	var b bytes.Buffer
	for _, c := range cases {
		fmt.Fprintf(&b, "== %s\n", c.name)
		b.WriteString(changed(c.c))
	}
	replaced := inPlace(node("n1"), "node", map[string]cty.Value{"name": str("n1"), "provider": str("local"), "endpoint": str("a:1"), "votes": cty.NumberIntVal(1)},
		map[string]cty.Value{"name": str("n1"), "provider": str("other"), "endpoint": cty.UnknownVal(cty.String), "votes": cty.NumberIntVal(1)},
		planner.AttributeChange{Path: "endpoint", Impact: spec.ImpactRestartAgent}, planner.AttributeChange{Path: "provider", Impact: spec.ImpactReplace})
	replaced.Actions, replaced.ReplacePaths, replaced.Why = planner.ActionDeleteThenCreate, []string{"provider"}, []string{"provider: forces replacement"}
	moved := inPlace(web, "group", map[string]cty.Value{"name": str("old"), "priority": cty.NumberIntVal(1)}, map[string]cty.Value{"name": str("web"), "priority": cty.NumberIntVal(1)},
		planner.AttributeChange{Path: "name"})
	moved.PreviousAddress = ptr(addr.Group("old", addr.NoKey))
	made := planner.Change{Address: app, Type: "generic_application", Actions: planner.ActionCreate, Why: []string{"not in state"}, After: obj(map[string]cty.Value{"command": strs(long...)}),
		Attributes: []planner.AttributeChange{{Path: "command", After: strs(long...)}, {Path: "content", After: str(motd)}, {Path: "environment", After: env("A", "1", "B", strings.Repeat("long ", 16))},
			{Path: "password", After: secret("hunter2"), Sensitive: true}, {Path: "stop_signal", After: str("TERM")}}}
	gone := planner.Change{Address: app, Type: "generic_application", Actions: planner.ActionDelete, Why: []string{"not in the definition"},
		Before: obj(common(map[string]cty.Value{"command": strs("serve"), "password": secret("hunter2")}))}
	forgotten := planner.Change{Address: web, Type: "group", Actions: planner.ActionForget, Why: []string{"by a removed block; it goes on, and is not managed any more"},
		Before: obj(map[string]cty.Value{"name": str("web")})}
	for _, c := range []struct {
		name string
		c    planner.Change
	}{{"replaced: what forces it", replaced}, {"moved and changed", moved}, {"made: long values", made}, {"deleted", gone}, {"forgotten", forgotten}} {
		fmt.Fprintf(&b, "== %s\n", c.name)
		b.WriteString(changed(c.c))
	}
	golden(t, "changes.txt", b.String())
	if strings.Contains(b.String(), "hunter") {
		t.Error("a secret is shown")
	}
	for _, l := range strings.Split(b.String(), "\n") {
		if len(l) > 120 || strings.TrimRight(l, " ") != l {
			t.Errorf("too long, or blanks at its end: %q", l)
		}
	}
}

func changed(c planner.Change) string {
	b := new(bytes.Buffer)
	(Style{}).changes(b, &planner.Plan{Changes: []planner.Change{c}}, nil)
	return b.String()
}

// An edit leads from the one list to the other, and no shorter one does in small
// lists; it stays one where the lists are too large to look for the shortest.
func TestScript(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 7)
		before, after := list.Draw(t, "before"), list.Draw(t, "after")
		kept := checkScript(t, before, after)
		if want := longest(before, after); kept != want {
			t.Errorf("it keeps %d, could keep %d", kept, want)
		}
	})
	before, after := make([]int, 2000), make([]int, 2000)
	for i := range before {
		before[i], after[i] = i, -i-1
	}
	before[0], after[0] = 7, 7
	checkScript(t, before, after)
}

// checkScript returns how much an edit keeps.
func checkScript(t interface{ Errorf(string, ...any) }, before, after []int) (kept int) {
	var was, is []int
	for _, st := range script(before, after, func(a, b int) bool { return a == b }) {
		switch st.mark {
		case '-':
			was = append(was, st.was)
		case '+':
			is = append(is, st.is)
		default:
			was, is = append(was, st.is), append(is, st.is)
			kept++
		}
	}
	if !slices.Equal(was, before) || !slices.Equal(is, after) {
		t.Errorf("from %v to %v it goes from %v to %v", before, after, was, is)
	}
	return kept
}

// longest is the length of the longest common subsequence, by trying.
func longest(a, b []int) int {
	if len(a) == 0 || len(b) == 0 {
		return 0
	}
	if a[0] == b[0] {
		return 1 + longest(a[1:], b[1:])
	}
	return max(longest(a[1:], b), longest(a, b[1:]))
}

// What others wrote does not reach the terminal as it is.
func TestPlanHasNoControls(t *testing.T) {
	p := full()
	p.Operator[0].Reason = "new\x1b]0;owned\a memory\x1b[2J"
	p.Changes[4].Attributes[1].After = str("two\nlines\x1b[2J")
	var b bytes.Buffer
	if err := (Style{}).Plan(&b, p); err != nil || strings.ContainsAny(b.String(), "\x1b\a") {
		t.Errorf("%v: %q", err, b.String())
	}
}

// pieces counts how often it is written to.
type pieces struct {
	strings.Builder
	n int
}

func (p *pieces) Write(text []byte) (int, error) {
	p.n++
	return p.Builder.Write(text)
}

func (p *pieces) WriteString(text string) (int, error) { return p.Write([]byte(text)) }

// A long plan is written in pieces, and they are the whole of it.
func TestLongPlan(t *testing.T) {
	p := &planner.Plan{}
	for i := range 5000 {
		p.Changes = append(p.Changes, planner.Change{Address: addr.Group(fmt.Sprint("g", i), addr.NoKey), Type: "group", Actions: planner.ActionCreate, Why: []string{"not in \x1b[31mstate"}})
	}
	var got pieces
	if err := (Style{}).Plan(&got, p); err != nil {
		t.Fatal(err)
	}
	all := new(bytes.Buffer)
	(Style{}).changes(all, p, nil)
	want := (Style{}).recorded(all.String() + (Style{}).Summary(p))
	if got.String() != want || got.n < 2 || len(want) < 2*piece {
		t.Errorf("%d bytes in %d pieces, want %d bytes in several", got.Len(), got.n, len(want))
	}
}
