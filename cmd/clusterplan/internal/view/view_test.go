package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func node(name string) addr.Address    { return addr.Node(name, addr.NoKey) }
func ptr(a addr.Address) *addr.Address { return &a }

// full is a plan with something of everything.
func full() *planner.Plan {
	web, before := addr.Group("web", addr.NoKey), int64(871)
	return &planner.Plan{
		Cluster:     "c",
		AsOf:        &planner.AsOf{Revision: 41, Text: "as of revision 41, no quorum"},
		Unreachable: []planner.Unreachable{{Address: node("n4"), Reason: "connection refused"}, {Address: node("n6"), Reason: "connection refused"}, {Address: node("n7"), Reason: "no route"}},
		Drift:       []planner.Drift{{Address: node("n1"), What: []string{"agent not running", "certificate expires in 3 days"}}, {Address: node("n2"), Gone: true}},
		Operator:    []planner.Operator{{Address: web, Order: "move", To: "n2", Author: "anna@host", Reason: "new memory"}},
		Unmanaged:   []planner.Unmanaged{{Type: "group", Name: "legacy", ManagedBy: "hand"}},
		Changes: []planner.Change{
			{Address: node("n1"), Type: "node", Actions: planner.ActionUpdate, Why: []string{"drifted: agent not running"}, Phases: []string{"start"}},
			{Address: node("n2"), Type: "node", Actions: planner.ActionCreateThenDelete, Why: []string{"address: forces replacement"}, ReplacePaths: []string{"address"},
				Attributes: []planner.AttributeChange{{Path: "address", Before: cty.StringVal("10.0.0.1"), After: cty.UnknownVal(cty.String), Impact: spec.ImpactReplace}}},
			{Address: node("n3"), Type: "node", Actions: planner.ActionNoOp},
			{Address: node("n5"), PreviousAddress: ptr(node("n4")), Type: "node", Actions: planner.ActionNoOp},
			{Address: web, Type: "group", Actions: planner.ActionUpdate, Why: []string{"changed"}, Attributes: []planner.AttributeChange{
				{Path: "stop_within", Before: cty.StringVal("100ms"), After: cty.StringVal("200ms"), Impact: spec.ImpactNone},
				{Path: "description", Before: cty.NullVal(cty.String), After: cty.StringVal("a \"b\"")},
				{Path: `demand["cpu"]`, Before: cty.NumberIntVal(2), After: cty.NilVal, Cause: planner.CauseDrift},
			}},
			{Address: web.WithResource("app", addr.NoKey), Type: "generic_application", Actions: planner.ActionCreate, Why: []string{"not in state"}, Attributes: []planner.AttributeChange{
				{Path: "command", After: cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.StringVal("b")})},
				{Path: "environment", After: cty.ObjectVal(map[string]cty.Value{"A": cty.StringVal("1"), "odd key": cty.True, "none": cty.NullVal(cty.String)})},
				{Path: "password", After: cty.StringVal("hunter2"), Sensitive: true},
			}},
			{Address: addr.Group("old", addr.NoKey), Type: "group", Actions: planner.ActionDelete, Why: []string{"not in definition"}},
		},
		SuggestedMoves: []planner.SuggestedMove{{From: addr.Group("old", addr.NoKey), To: addr.Group("new", addr.StringKey("a"))}},
		Summary:        planner.Summary{Create: 1, Update: 2, Replace: 1, Delete: 1, Move: 1},
		OutputChanges: map[string]planner.OutputChange{
			"url":    {Actions: planner.ActionUpdate, Before: cty.StringVal("a"), After: cty.StringVal("b")},
			"old":    {Actions: planner.ActionDelete, Before: cty.True, After: cty.NilVal},
			"secret": {Actions: planner.ActionCreate, After: cty.StringVal("hunter2"), Sensitive: true},
		},
		Steps: []planner.Step{
			{N: 1, Address: node("n2"), Phase: "install"}, {N: 2, Address: node("n2"), Phase: "start"},
			{N: 3, Address: node("n2"), Phase: "join", Up: 3, Needed: 2}, {N: 4, Address: node("n2"), Phase: "promote", Up: 3, Needed: 2},
			{N: 5, Address: node("n1"), Phase: "stop", Up: 1, Needed: 2, Refused: true, Why: "1 of 2 votes"},
		},
		Quorum:       &planner.Quorum{Model: spec.MajorityNodeSet, Votes: 3, Needed: 2, Lowest: 2},
		Availability: []planner.Availability{{Group: web, From: ptr(node("n1")), To: ptr(node("n2")), Interruptions: 1, MaxMS: 900, Why: "node.n1 restarts"}, {Group: web, From: ptr(node("n2")), Interruptions: 2, MaxMS: -1, Why: "nobody else"}},
		FailoverTimes: []planner.FailoverTime{{Group: web, WorstMS: 1240, Exclusive: true, Terms: planner.FailoverTerms{Lease: 600, StopWithin: 100, Kill: 50, Drift: 16, Commit: 60, Start: 45}},
			{Group: addr.Group("slower", addr.NoKey), WorstMS: 1240, Exclusive: true, BeforeMS: &before, Terms: planner.FailoverTerms{Lease: 1135, Commit: 60, Start: 45}},
			{Group: addr.Group("same", addr.NoKey), WorstMS: 871, Exclusive: true, BeforeMS: &before, Same: true}},
		FailureMatrix: planner.FailureMatrix{
			Before: &planner.Matrix{Pairs: true, Rows: []planner.MatrixRow{
				{Fail: []addr.Address{node("n1")}, Quorum: true, Groups: []planner.MatrixGroup{{Group: web, From: ptr(node("n1")), To: ptr(node("n3")), State: "online"}}},
				{Fail: []addr.Address{node("n2")}, Quorum: true},
				{Fail: []addr.Address{node("n1"), node("n2")}, Quorum: true, Groups: []planner.MatrixGroup{{Group: web, From: ptr(node("n1")), To: ptr(node("n3")), State: "online"}}},
			}},
			After: &planner.Matrix{Pairs: true, Rows: []planner.MatrixRow{
				{Fail: []addr.Address{node("n1")}, Quorum: true, Groups: []planner.MatrixGroup{{Group: web, From: ptr(node("n1")), To: ptr(node("n2")), State: "online"}}},
				{Fail: []addr.Address{node("n2")}, Quorum: true},
				{Fail: []addr.Address{node("n1"), node("n2")}, Groups: []planner.MatrixGroup{{Group: web, From: ptr(node("n1")), State: "offline", Reason: "no_quorum"}}},
				{Fail: []addr.Address{node("n2"), node("n3")}, Zone: "east", Groups: []planner.MatrixGroup{{Group: web, From: ptr(node("n1")), To: ptr(node("n1")), State: "online", Reason: planner.Frozen}}},
				{Fail: []addr.Address{node("n2"), node("n3"), node("n4"), node("n5"), node("n6")}, Zone: "far away", Quorum: true},
			}},
			Regressions: []string{"group.web: node.n3 lost: nowhere to go; before, to node.n2"},
		},
		Guarantees: []planner.Guarantee{
			{Name: "web", Groups: []addr.Address{web}, Holds: true, WorstMS: 1240, MaxDowntimeMS: 10_000},
			{Name: "everything", Groups: []addr.Address{web}, WorstMS: -1, Broken: []string{"zone east lost: the cluster has no quorum then, group.web stays down", "and 3 more faults"}},
		},
	}
}

func TestPlan(t *testing.T) {
	var b bytes.Buffer
	if err := (Style{}).Plan(&b, full()); err != nil {
		t.Fatal(err)
	}
	golden(t, "plan.txt", b.String())
	if strings.Contains(b.String(), "hunter2") {
		t.Error("a secret is shown")
	}
	// With colours it says the same.
	var c bytes.Buffer
	_ = (Style{Color: true}).Plan(&c, full())
	plain := c.String()
	for _, code := range []string{"1", "2", "31", "32", "33", "0"} {
		plain = strings.ReplaceAll(plain, "\x1b["+code+"m", "")
	}
	if diff := cmp.Diff(b.String(), plain); diff != "" {
		t.Error(diff)
	}
}

// What the state knows to be sensitive is shown nowhere.
func TestStateHidesWhatIsSensitive(t *testing.T) {
	o := &statefile.Object{Addr: addr.Group("web", addr.NoKey).WithResource("app", addr.NoKey), Type: "generic_application", ID: "00000000000000a1",
		Attributes: json.RawMessage(`{"command":["serve"],"environment":{"TOKEN":"hunter2"}}`), Sensitive: []string{"environment"}}
	var text, whole, one bytes.Buffer
	snap := &statefile.Snapshot{State: statefile.State{Objects: []statefile.Object{*o}}}
	if err := errors.Join((Style{}).Object(&text, o), JSON(&one, Object(o)), StateJSON(&whole, snap, nil)); err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{text.String(), one.String(), whole.String()} {
		if strings.Contains(got, "hunter2") || !strings.Contains(got, "serve") || !strings.Contains(got, "sensitive") {
			t.Errorf("%s", got)
		}
	}
}

// What sets nothing is left out, however it is stored.
func TestStateWithoutEmptyBlocks(t *testing.T) {
	o := &statefile.Object{Addr: addr.Node("n1", addr.NoKey), Type: "node", Attributes: json.RawMessage(`{"labels":{"rack":"7"},"ssh":{},"votes":0}`)}
	var text bytes.Buffer
	if err := (Style{}).Object(&text, o); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); strings.Contains(got, "ssh") || !strings.Contains(got, `rack = "7"`) || !strings.Contains(got, "votes     = 0") {
		t.Errorf("%s", got)
	}
}

// A plan of hundreds of changes stays one that can be read: the summary is last,
// and what would go on and on is cut, told to be so, and whole in JSON.
func TestLargePlan(t *testing.T) {
	p := full()
	for i := range 300 {
		g := addr.Group(fmt.Sprintf("g%03d", i), addr.NoKey)
		p.Changes = append(p.Changes, planner.Change{Address: g, Type: "group", Actions: planner.ActionUpdate,
			Attributes: []planner.AttributeChange{{Path: "priority", Before: cty.NumberIntVal(1), After: cty.NumberIntVal(2)}}})
		p.Unreachable = append(p.Unreachable, planner.Unreachable{Address: g, Reason: "no answer in time"})
		p.Availability = append(p.Availability, planner.Availability{Group: g, From: ptr(node("n1")), To: ptr(node("n2")), Interruptions: 1, MaxMS: 900, Why: "node.n1 restarts"})
		p.FailoverTimes = append(p.FailoverTimes, planner.FailoverTime{Group: g, WorstMS: 900, Exclusive: true})
		p.FailureMatrix.Regressions = append(p.FailureMatrix.Regressions, g.String()+" has nowhere to go")
		for n := range p.FailureMatrix.After.Rows {
			r := &p.FailureMatrix.After.Rows[n]
			r.Groups = append(r.Groups, planner.MatrixGroup{Group: g, From: ptr(node("n1")), State: "offline", Reason: "no_room"})
		}
	}
	p.Summary.Update += 300
	var b bytes.Buffer
	if err := (Style{}).Plan(&b, p); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; last != "Plan: 2 to add, 302 to change, 2 to destroy, 1 to rename." {
		t.Errorf("the last line is %q", last)
	}
	others := 0 // lines that are not of the 300 changes, which have three each
	for i, l := range lines {
		if n := utf8.RuneCountInString(l); n > 170 {
			t.Errorf("line %d has %d columns: %s", i, n, l)
		}
		others++
	}
	if others -= 3 * 300; others > 200 {
		t.Errorf("%d lines beside the changes", others)
	}
	for _, want := range []string{"group.g000, group.g001, group.g002, group.g003, group.g004, group.g005, group.g006 and 293 more: no answer in time",
		"and 262 more, in --json", "worse: and 285 more, in --json"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

func TestNoChanges(t *testing.T) {
	failed := func(what string) []planner.Diagnostic {
		return []planner.Diagnostic{{Severity: "error", Summary: what}}
	}
	for want, p := range map[string]*planner.Plan{
		"No changes. The cluster is as the definition says.\n": {Complete: true},
		"No changes as far as could be seen.\n":                {},
		"Plan: no changes but those of outputs.\n":             {Complete: true, OutputChanges: map[string]planner.OutputChange{"x": {}}},
		"No changes. There is nothing to destroy.\n":           {Mode: planner.ModeDestroy},
		"No plan: there are errors.\n":                         {Complete: true, Errored: true, Diagnostics: failed("Invalid target")},
		// What is to be done is known, though it may not be.
		"No changes in what was asked for.\n": {Complete: true, Errored: true, Targets: make([]addr.Address, 1), Diagnostics: failed(planner.GuaranteeBroken)},
	} {
		if got := (Style{}).Summary(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st := &client.Status{Cluster: "c", Revision: 42, Time: now, Leader: "n1",
		Quorum: client.StatusQuorum{Model: spec.MajorityNodeSet, Have: true, Votes: 3, Up: 2, Needed: 2},
		Nodes: []client.StatusNode{
			{Name: "n1", State: "up", Address: "127.0.0.1:7401", Role: "member", Votes: 1, Version: "0.1.0", PID: 4711, MonitorPID: 4712, FreezerPID: 4713, Zone: "a", Spare: true},
			{Name: "node-2", State: "down", Role: "witness", Votes: 1, Reason: "silent", NotReady: "an earlier monitor (pid 7) still lives", NoReset: "can't reset itself"},
		},
		Groups: []client.StatusGroup{
			{Name: "web", State: "online", Owner: "n1", Since: now.Add(-90 * time.Minute), Resources: []client.StatusResource{
				{Name: "vip", Type: "ip_address", State: "online"}, {Name: "app", Type: "generic_application", State: "failed", Reason: "exit 3"}}},
			{Name: "idle", State: "offline", Since: now.Add(-50 * time.Hour), Reason: "ordered"},
		}}
	var b bytes.Buffer
	if err := (Style{}).Status(&b, st); err != nil {
		t.Fatal(err)
	}
	st.Quorum.Have, st.Leader, st.Groups, st.Nodes = false, "", nil, nil
	st.Quorum.DeviceProblem = "quorum device /dev/q: there is no such file"
	if err := (Style{}).Status(&b, st); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.txt", b.String())
	b.Reset()
	st.Quorum.Model = "" // nobody answers
	if err := (Style{}).Status(&b, st); err != nil || !strings.Contains(b.String(), "2 needed  leader unknown") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func events() []apply.Event {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n, g := node("n1"), addr.Group("web", addr.NoKey)
	return []apply.Event{
		{Type: apply.EventPlanned, Time: at, Addr: n, Action: "create", Reason: planner.ReasonNotInState},
		{Type: apply.EventPlanned, Time: at, Addr: g, Action: "move", Previous: ptr(addr.Group("old", addr.NoKey))},
		{Type: apply.EventStart, Time: at, Addr: n, Action: "create", ID: "a1"},
		{Type: apply.EventProgress, Time: at.Add(time.Second), Addr: n, Action: "create", Text: "install"},
		{Type: apply.EventComplete, Time: at.Add(2 * time.Second), Addr: n, Action: "create", Elapsed: 2 * time.Second},
		{Type: apply.EventStart, Time: at, Addr: g, Action: "delete"},
		{Type: apply.EventErrored, Time: at.Add(time.Minute), Addr: g, Action: "delete", Elapsed: time.Minute, Err: errors.New("no <quorum>")},
		{Type: apply.EventSkipped, Time: at, Addr: node("n2"), Action: "update", Text: "group.web failed"},
		{Type: apply.EventSummary, Time: at, Summary: planner.Summary{Create: 1}},
	}
}

func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, Style{}, false)
	for i, e := range events() {
		p.Event(e)
		if i == 2 {
			p.tick(e.Time.Add(still))
		}
	}
	p.tick(time.Now()) // nothing is under way
	golden(t, "progress.txt", b.String())

	b.Reset()
	p = NewProgress(&b, Style{}, true)
	for i, e := range events() {
		p.Event(e)
		if i == 2 {
			p.tick(e.Time.Add(still))
		}
	}
	golden(t, "progress.json", b.String())
	if err := jsonschematest.Output([]string{"apply", "--json"}, b.Bytes()); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	var b bytes.Buffer
	s := Style{}
	s.Error(&b, &Hint{Err: errors.New("the state is locked"), Hint: "Wait."})
	s.Error(&b, errors.New("node.n1 (create): no room"))
	s.Error(&b, &DiagnosticsError{Diags: hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Unknown node", Detail: "There is n1.",
		Subject: &hcl.Range{Filename: "main.cluster.hcl", Start: hcl.Pos{Line: 2, Column: 8, Byte: 17}, End: hcl.Pos{Line: 2, Column: 15, Byte: 24}}}},
		Files: map[string]*hcl.File{"main.cluster.hcl": {Bytes: []byte("group \"g\" {\n  own = node.n2\n}\n")}}})
	golden(t, "errors.txt", b.String())
}

func TestDiff(t *testing.T) {
	var b bytes.Buffer
	if err := Diff(&b, "x", []byte("1\n2\n3\n4\n5\n6\n7\n"), []byte("1\n2\n3\nfour\n5\n6\n7\n")); err != nil {
		t.Fatal(err)
	}
	want := "--- old/x\n+++ new/x\n@@ -2,5 +2,5 @@\n 2\n 3\n-4\n+four\n 5\n 6\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
	// What is alike between two places is not told as changed, and far ones are hunks of their own.
	b.Reset()
	if err := Diff(&b, "x", []byte("a\n2\n3\n4\n5\nb\n7\n8\n9\n10\n11\n12\nc\n"), []byte("A\n2\n3\n4\n5\n7\n8\n9\n10\n11\n12\nC\n")); err != nil {
		t.Fatal(err)
	}
	want = "--- old/x\n+++ new/x\n@@ -1,8 +1,7 @@\n-a\n+A\n 2\n 3\n 4\n 5\n-b\n 7\n 8\n@@ -11,3 +10,3 @@\n 11\n 12\n-c\n+C\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestNext(t *testing.T) {
	var b bytes.Buffer
	_ = Style{}.Next(&b, "clusterplan", "examples/quickstart", &Victim{Group: "web", Node: "n1", PID: 1, MonitorPID: 2})
	_ = Style{}.Next(&b, "clusterplan", "", nil)
	_ = Style{}.Next(&b, "clusterplan", "my shop", nil)
	golden(t, "next.txt", b.String())
}
