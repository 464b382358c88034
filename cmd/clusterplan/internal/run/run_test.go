package run

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

func session(t *testing.T) *Session {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte("cluster \"c\" {\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// What was begun and whose end nobody knows is only in the journal: an apply's
// end must not fold it away. Once that is settled, it does.
func TestFinishKeepsWhatIsPending(t *testing.T) {
	s := session(t)
	lock, err := s.Store.Lock(t.Context(), statefile.LockRequest{Who: "anna@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	a := addr.Node("n1", addr.NoKey)
	o := &statefile.Object{Addr: a, Type: "node", Provider: "local", ID: "00000000000000a1", Attributes: json.RawMessage("{}")}
	if err := lock.Append(statefile.Entry{Begin: &statefile.Begin{Run: "r"}}, statefile.Entry{Intent: &statefile.Intent{Addr: a, Action: "create", Object: o}}); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(lock, &apply.Result{}); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Store.Read(t.Context())
	if err != nil || len(snap.Pending) != 1 || snap.Pending[0].Object.ID != o.ID || snap.State.Serial != 0 {
		t.Fatalf("%+v, %v", snap, err)
	}
	if err := lock.Append(statefile.Entry{Result: &statefile.Result{Addr: a, Object: o}}); err != nil {
		t.Fatal(err)
	}
	if err := s.finish(lock, &apply.Result{State: statefile.State{Objects: []statefile.Object{*o}}}); err != nil {
		t.Fatal(err)
	}
	snap, err = s.Store.Read(t.Context())
	if err != nil || len(snap.Pending) != 0 || snap.Unfinished != 0 || snap.State.Serial != 1 || len(snap.State.Objects) != 1 {
		t.Fatalf("%+v, %v", snap, err)
	}
}

// The state's directory goes while an apply works: what was done is told in a file
// beside the definition, and is the state again once it is pushed.
func TestStateDirectoryRemoved(t *testing.T) {
	s := session(t)
	if err := s.ReadState(t.Context()); err != nil {
		t.Fatal(err)
	}
	lock, err := s.Store.Lock(t.Context(), statefile.LockRequest{Who: "anna@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	a := addr.Node("n1", addr.NoKey)
	o := statefile.Object{Addr: a, Type: "node", Provider: "local", ID: "00000000000000a1", Attributes: json.RawMessage("{}")}
	if err := lock.Append(statefile.Entry{Begin: &statefile.Begin{Run: "r"}}, statefile.Entry{Result: &statefile.Result{Addr: a, Object: &o}}); err != nil {
		t.Fatal(err)
	}
	res := &apply.Result{State: statefile.State{Objects: []statefile.Object{o}}}
	if err := s.rescue(res, errors.New("another")); err == nil || err.Error() != "another" {
		t.Errorf("rescued what the journal has: %v", err)
	}
	if err := os.RemoveAll(filepath.Dir(s.Store.Path())); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(s.abs, rescueName) // of an earlier apply, and not pushed yet
	if err := os.WriteFile(before, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.rescue(res, s.finish(lock, res))
	if data, err := os.ReadFile(before); err != nil || string(data) != "before" {
		t.Errorf("%q, %v", data, err)
	}
	path := filepath.Join(s.abs, "errored.clusterplan-state-2.json")
	var hint *view.Hint
	if !errors.Is(err, statefile.ErrLockLost) || !strings.Contains(err.Error(), path) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "state push "+path) {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PushState(t.Context(), path, data, EditOptions{}); err != nil {
		t.Fatal(err)
	}
	if snap, err := s.Store.Read(t.Context()); err != nil || snap.State.Find(a) == nil {
		t.Errorf("%+v, %v", snap, err)
	}
}

// What a hint has somebody type works as it stands, whatever the directory is called.
func TestRescueHintForAShell(t *testing.T) {
	for _, remote := range []bool{false, true} {
		if got := rescueHint("/its place/state.json", "/anna's shop/state.json", remote); !strings.Contains(got, `clusterplan state push '/anna'\''s shop/state.json'`) {
			t.Error(got)
		}
	}
}

func TestLogOf(t *testing.T) {
	s := session(t)
	web, many, none := addr.Group("web", addr.NoKey), addr.Group("many", addr.StringKey("a")), addr.Group("none", addr.NoKey)
	s.Snap = &statefile.Snapshot{}
	for _, a := range []addr.Address{none, none.WithResource("vip", addr.NoKey), many, many.WithResource("p", addr.IntKey(0)), many.WithResource("p", addr.IntKey(1)),
		web, web.WithResource("server", addr.NoKey), web.WithResource("vip", addr.NoKey)} {
		o := statefile.Object{Addr: a, Type: "group"}
		switch {
		case a.Resource == "vip":
			o.Type = "ip_address"
		case a.IsResource():
			o.Type = "generic_application"
		}
		if a == none {
			o.Attributes = json.RawMessage(`{"name":"called"}`)
		}
		s.Snap.State.Objects = append(s.Snap.State.Objects, o)
	}
	for _, c := range []struct{ in, group, resource, err string }{
		{"web", "group.web", "server", ""},
		{"web.vip", "", "", "web.vip is an ip_address: it runs no program"},
		{"group.web", "group.web", "server", ""},
		{"group.web.resource.server", "group.web", "server", ""},
		{`group.many["a"].resource.p[1]`, `group.many["a"]`, "p-1", ""},
		{"many-a.p-0", `group.many["a"]`, "p-0", ""},
		{"many-a", "", "", "several programs"},
		{"named", "", "", "no group named"},
		{"called", "group.none", "", "no program"},
		{"web.x", "", "", "no resource x"},
		{"nobody", "", "", "no group nobody"},
	} {
		group, resource, err := s.logOf(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.in, err)
			}
			continue
		}
		if err != nil || group.String() != c.group || resource != c.resource {
			t.Errorf("%s: %s, %s, %v", c.in, group, resource, err)
		}
	}
}

// The log of a group that nobody owns is where it was last.
func TestLastOwner(t *testing.T) {
	web := addr.Group("web", addr.NoKey)
	members := []client.ConfigMember{{MemberRequest: client.MemberRequest{Spec: spec.Node{Name: "n1"}}}, {MemberRequest: client.MemberRequest{Spec: spec.Node{Name: "n2"}}}}
	events := []client.Event{
		{Object: "group.web", Node: "n1"}, {Object: "group.web", Node: "n2"}, {Object: "group.web", Node: "n3"},
		{Object: "group.web"}, {Object: "group.other", Node: "n1"},
	}
	if got := lastOwner(events, web, members); got != "n2" {
		t.Errorf("%q", got)
	}
	if got := lastOwner(events[2:], web, members); got != "" {
		t.Errorf("%q, of a node that is no member and of another group", got)
	}
}

// A plan with nothing to do says so of groups that don't run, and of no others.
func TestFailedGroups(t *testing.T) {
	group := func(name, state string) providers.LiveGroup {
		return providers.LiveGroup{Spec: spec.Group{Name: name, Addr: addr.Group(name, addr.NoKey), ManagedBy: spec.ManagedBy}, State: state}
	}
	foreign := group("foreign", spec.StateFailed)
	foreign.Spec.ManagedBy = "hand"
	live := &providers.Live{Groups: []providers.LiveGroup{group("bad", spec.StateFailed), group("fine", spec.StateOnline), group("changed", spec.StateFailed), foreign}}
	plan := &planner.Plan{Changes: []planner.Change{
		{Address: addr.Group("bad", addr.NoKey), Actions: planner.ActionNoOp},
		{Address: addr.Group("changed", addr.NoKey).WithResource("app", addr.NoKey), Actions: planner.ActionUpdate},
	}}
	diags := failedGroups(plan, live)
	if len(diags) != 1 || diags.HasErrors() || !strings.Contains(diags[0].Summary, "group.bad") || !strings.Contains(diags[0].Detail, "clusterplan online bad") {
		t.Errorf("%v", diags)
	}
	if diags := failedGroups(plan, nil); diags != nil {
		t.Errorf("nothing was seen: %v", diags)
	}
}

// A plan says so of nodes that the cluster lacks, unless it starts them, could not see
// them, or has told what is wrong with them. Only of an agent that runs it says that.
func TestDownNodes(t *testing.T) {
	live, plan := &providers.Live{}, &planner.Plan{}
	for _, c := range []struct {
		name, state string
		actions     []string
	}{{"up", spec.NodeUp, planner.ActionNoOp}, {"cut", spec.NodeDown, planner.ActionNoOp}, {"dead", spec.NodeDown, planner.ActionUpdate}, {"unseen", spec.NodeDown, planner.ActionNoOp}, {"foreign", spec.NodeDown, nil}, {"left", spec.NodeDown, planner.ActionNoOp}, {"told", spec.NodeDown, planner.ActionNoOp}} {
		a := addr.Address{Type: addr.TypeNode, Name: c.name}
		live.Members = append(live.Members, providers.LiveMember{Spec: spec.Node{Name: c.name, Addr: a}, Node: c.state})
		if c.actions != nil {
			plan.Changes = append(plan.Changes, planner.Change{Address: a, Actions: c.actions})
		}
	}
	node := func(name string) addr.Address { return addr.Address{Type: addr.TypeNode, Name: name} }
	plan.Unreachable = []planner.Unreachable{{Address: node("unseen")}}
	plan.Drift = []planner.Drift{{Address: node("told"), What: []string{providers.HealthNotRunning}}}
	stopped := planner.Seen{Object: &providers.Object{Health: []string{providers.HealthNotRunning}}}
	world := planner.World{Live: live, Objects: map[addr.Address]planner.Seen{
		node("cut"): {Object: &providers.Object{}}, node("left"): stopped, node("told"): stopped,
	}}
	diags := downNodes(plan, world)
	if len(diags) != 2 || diags.HasErrors() || diags[0].Summary != "node.cut is down" || !strings.Contains(diags[0].Detail, "Its agent runs") {
		t.Errorf("%v", diags)
	}
	if left := diags[1]; left.Summary != "node.left is down" || strings.Contains(left.Detail, "Its agent runs") || !strings.Contains(left.Detail, "agent not running") {
		t.Errorf("%v", left)
	}
	if diags := downNodes(plan, planner.World{}); diags != nil {
		t.Errorf("nothing was seen: %v", diags)
	}
}

// What apply says to kill are numbers of this machine's processes, or nothing.
func TestKillable(t *testing.T) {
	of := func(kinds ...string) *statefile.State {
		st := &statefile.State{Objects: []statefile.Object{{Addr: addr.Address{Type: addr.TypeCluster}, Provider: "confdb"}}}
		for _, provider := range kinds {
			st.Objects = append(st.Objects, statefile.Object{Addr: addr.Address{Type: addr.TypeNode, Name: "n"}, Provider: provider})
		}
		return st
	}
	if !killable(of("local", "local")) || killable(of("ssh", "ssh")) || killable(of("local", "ssh")) {
		t.Error("nodes that are elsewhere are to be killed here, or those that are here are not")
	}
}

// What simulate takes for granted of a cluster that it doesn't see whole, it says.
func TestDimly(t *testing.T) {
	for want, world := range map[string]*planner.World{
		"":                              {Live: &providers.Live{Quorum: true}},
		"The cluster has no quorum now": {Live: &providers.Live{Revision: 7}},
		"The cluster can't be seen":     {LiveErr: "nobody answers."},
	} {
		d, got := dimly(world), ""
		if d != nil {
			got = d.Summary
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// An address of --replace that is nothing's, or a block's with instances, is told.
func TestNotThere(t *testing.T) {
	p := &planner.Plan{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		p.Changes = append(p.Changes, planner.Change{Address: addr.Node("n", addr.StringKey(key))})
	}
	p.Changes = append(p.Changes, planner.Change{Address: addr.Group("web", addr.NoKey)})
	for text, want := range map[string]string{
		"group.web":   "",
		`node.n["c"]`: "",
		"group.wob":   "There is no group.wob to replace",
		"node.n":      `node.n has instances: Each is replaced by its own address. Name those that you mean: node.n["a"], node.n["b"], node.n["c"], node.n["d"], node.n["e"], and 2 more.`,
	} {
		at, err := addr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, d := range checkPlanned(p, PlanOptions{Replace: []addr.Address{at}}) {
			got += d.Summary + ": " + d.Detail
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	st := &statefile.State{}
	for _, key := range []string{"a", "b"} {
		st.Objects = append(st.Objects, statefile.Object{Addr: addr.Node("n", addr.StringKey(key))})
	}
	var hint *view.Hint
	if err := NotInState(st, addr.Node("n", addr.NoKey)); !errors.As(err, &hint) || err.Error() != "node.n has instances" || !strings.Contains(hint.Hint, `node.n["a"], node.n["b"].`) {
		t.Errorf("%v", err)
	}
}

// A plan that is stale is made again as it was made.
func TestStaleHint(t *testing.T) {
	for want, o := range map[string]planfile.Options{
		"clusterplan plan --out":                  {Mode: planner.ModeNormal},
		"clusterplan plan --destroy --out":        {Mode: planner.ModeDestroy},
		"clusterplan plan --refresh-only --out":   {Mode: planner.ModeRefreshOnly},
		"clusterplan plan --ref v2 --out":         {Mode: planner.ModeNormal, Ref: "v2"},
		"clusterplan rollback 0123456789ab --out": {Mode: planner.ModeNormal, Ref: "0123456789abcdef", Rollback: "r1"},
		"clusterplan plan --refresh=false --pairs --target group.web --target 'node.n[\"a\"]' --out": {Mode: planner.ModeNormal, NoRefresh: true, Pairs: true, Targets: []string{"group.web", `node.n["a"]`}},
		"clusterplan plan --allow-quorum-loss --exclude node.n1 --replace node.n2 --out":             {Mode: planner.ModeNormal, AllowQuorumLoss: true, Excludes: []string{"node.n1"}, Replace: []string{"node.n2"}},
	} {
		var hint *view.Hint
		err := stale(&planfile.File{Options: o}, "the state has serial 2 now")
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint, want) || !errors.Is(err, ErrStale) {
			t.Errorf("%+v: %v", o, hint)
		}
	}
	if err := stale(&planfile.File{}, ""); err != nil {
		t.Error(err)
	}
}
