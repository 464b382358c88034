package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// seen is what a plan could see, of plan --json.
type seen struct {
	Complete bool `json:"complete"`
	AsOf     *struct {
		Revision uint64 `json:"revision"`
		Quorum   bool   `json:"quorum"`
	} `json:"as_of"`
	Unreachable []struct {
		Address string `json:"address"`
		Reason  string `json:"reason"`
	} `json:"unreachable"`
	Drift []struct {
		Address string   `json:"address"`
		What    []string `json:"what"`
	} `json:"drift"`
}

func (l *lab) look(args ...string) seen {
	l.t.Helper()
	r := l.must(0, append([]string{"plan", "--json"}, args...)...)
	var p seen
	if err := json.Unmarshal([]byte(r.out), &p); err != nil {
		l.t.Fatalf("plan --json: %v: %s", err, r)
	}
	return p
}

// Two of three nodes hang, all of their processes: a plan says of which revision
// it is and that they don't answer; apply starts them anew, and then changes the
// group, all in one run.
func TestHungNodes(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	for _, p := range append(l.of("n2"), l.of("n3")...) {
		if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	l.until("n1 knows that there is no quorum", func() (bool, string) {
		st := l.status()
		return !st.Quorum.Have && len(st.Nodes) == 3 && st.Nodes[0].PID != 0, "quorum"
	})
	l.edit("group \"worker\" {\n", "group \"worker\" {\n  description = \"changed while two hang\"\n")
	p := l.look()
	if p.Complete || p.AsOf == nil || p.AsOf.Quorum || p.AsOf.Revision == 0 || len(p.Drift) != 2 {
		t.Errorf("with two of three hanging: %+v", p)
	}
	for i, d := range p.Drift {
		if d.Address != []string{"node.n2", "node.n3"}[i] || !slices.Contains(d.What, "agent does not answer") {
			t.Errorf("drift: %+v", d)
		}
	}
	l.apply().wants(t, "node.n2: changed", "node.n3: changed", "group.worker: changed")
	l.settled()
	l.up(3, 3)
	l.served("n1", "n2", "n3")
	l.destroyed()
}

// A node whose program can't be put in place fails alone: the group is changed,
// the apply fails and says where, and without that node the next one does not. A
// node that can't even be looked at keeps its values.
func TestNodeThatCantStart(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	l.kill("n2")
	link := filepath.Join(l.dir, ".clusterplan", "nodes", "n2", "bin", "clusterplan")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(link, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l.edit("group \"worker\" {\n", "group \"worker\" {\n  description = \"changed while one is broken\"\n")
	l.must(1, "apply", "--auto-approve").wants(t, "Error: node.n2", link, "group.worker: changed", "apply again")
	if got := l.planned(); !slices.Equal(got, []string{"node.n2"}) {
		t.Errorf("left to do: %q", got)
	}
	if p := l.look("--exclude", "node.n2"); p.Complete {
		t.Error("a plan of all but a node calls itself complete")
	}
	l.must(0, "apply", "--auto-approve", "--exclude", "node.n2").wants(t, "all but node.n2")
	if left := l.of("n2"); len(left) > 0 {
		t.Errorf("an apply of all but n2 has started %v", left)
	}
	if err := os.RemoveAll(link); err != nil {
		t.Fatal(err)
	}

	// Its directory can't be read: it is listed, and the rest goes on.
	conf := filepath.Join(l.dir, ".clusterplan", "nodes", "n2", "agent.json")
	if err := os.Rename(conf, conf+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	l.edit("changed while one is broken", "changed once more")
	p := l.look()
	if p.Complete || len(p.Unreachable) != 1 || p.Unreachable[0].Address != "node.n2" || !strings.Contains(p.Unreachable[0].Reason, conf) {
		t.Errorf("with a node that can't be read: %+v", p)
	}
	l.apply().wants(t, "node.n2", "group.worker: changed")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(conf+".away", conf); err != nil {
		t.Fatal(err)
	}

	// No link any more, but a copy of something else, or nothing: apply puts it right.
	for _, broken := range []func() error{
		func() error { return nil },
		func() error { return os.WriteFile(link, []byte("not a program"), 0o755) },
	} {
		if err := os.RemoveAll(link); err != nil {
			t.Fatal(err)
		}
		if err := broken(); err != nil {
			t.Fatal(err)
		}
		l.apply().wants(t, "agent program differs")
		l.up(3, 3)
		l.settled()
		l.kill("n2")
	}
	l.apply()
	l.destroyed()
}

// A node that has lost its data, one that has lost all, and one whose file system
// is away for a while: the plan tells them apart, apply has them join
// anew, and nothing that the cluster knew is lost.
func TestDataGone(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	nodes, away := filepath.Join(l.dir, ".clusterplan", "nodes"), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	drifts := func(node, what string) {
		t.Helper()
		p := l.look()
		if len(p.Drift) != 1 || p.Drift[0].Address != "node."+node || !strings.Contains(strings.Join(p.Drift[0].What, ", "), what) {
			t.Errorf("want %s drifted, %s: %+v", node, what, p.Drift)
		}
	}
	mended := func() {
		t.Helper()
		l.apply()
		l.settled()
		l.up(3, 3)
	}
	l.kill("n2")
	must(os.RemoveAll(filepath.Join(nodes, "n2", "data")))
	must(os.Mkdir(filepath.Join(nodes, "n2", "data"), 0o700))
	drifts("n2", "data directory gone: "+filepath.Join(nodes, "n2", "data")+" is there and empty; is a file system not mounted?")
	mended()
	// Below an agent that runs: it serves on, and the plan sees it all the same.
	must(os.RemoveAll(filepath.Join(nodes, "n1", "data")))
	drifts("n1", "data directory gone")
	mended()
	// Below all of them: one after the other joins anew, and the others have the database.
	revision := l.status().Revision
	for _, node := range []string{"n1", "n2", "n3"} {
		must(os.RemoveAll(filepath.Join(nodes, node, "data")))
	}
	mended()
	if now := l.status().Revision; now < revision {
		t.Errorf("the database is another: revision %d, was %d", now, revision)
	}
	l.kill("n2")
	must(os.RemoveAll(filepath.Join(nodes, "n2")))
	drifts("n2", "directory gone")
	mended()

	// A file system that isn't mounted, then is again with what it had: no vote of old.
	l.kill("n3")
	must(os.Rename(filepath.Join(nodes, "n3"), filepath.Join(away, "unmounted")))
	must(os.Mkdir(filepath.Join(nodes, "n3"), 0o700))
	drifts("n3", "directory gone: "+filepath.Join(nodes, "n3")+" is there and empty; is a file system not mounted?")
	mended()
	l.kill("n3")
	must(os.Rename(filepath.Join(nodes, "n3"), filepath.Join(away, "shadowed")))
	must(os.Rename(filepath.Join(away, "unmounted"), filepath.Join(nodes, "n3")))
	agent := exec.Command(filepath.Join(nodes, "n3", "bin", "clusterplan"), "agent", "--dir", filepath.Join(nodes, "n3"))
	must(agent.Start())
	go agent.Wait()
	l.until("the plan sees what it came back with", func() (bool, string) {
		what := fmt.Sprint(l.look().Drift)
		return strings.Contains(what, "a new data directory, not the one that joined"), what
	})
	l.up(3, 2)
	mended()
	l.served("n1", "n2", "n3")
	l.destroyed()
}

// The network falls apart while a group is edited: every agent runs, none has a
// quorum. Apply waits for one and says so, can be interrupted and repeated, and
// goes on as soon as the links are back.
func TestNetnsHalfIsolated(t *testing.T) {
	l := netns(t)
	l.apply()
	l.groupOnline("web", "n1")
	for _, node := range []string{"n2", "n3"} {
		l.must(0, "lab", "isolate", node)
	}
	l.until("nobody has a quorum", func() (bool, string) {
		st := l.status()
		return !st.Quorum.Have && st.Quorum.LostSince != nil, "quorum"
	})
	l.edit("group \"web\" {\n", "group \"web\" {\n  description = \"changed while the network is down\"\n")
	if p := l.look(); p.Complete || p.AsOf == nil || p.AsOf.Quorum || p.AsOf.Revision == 0 || len(p.Unreachable) != 0 {
		t.Errorf("without a quorum: %+v", p)
	}
	const waits = "Waiting for a quorum"
	pid, done, output := l.begin()
	l.prints(waits, output)
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	l.ended(done, output)
	if text := output(); !strings.Contains(text, "exit status 130") || !strings.Contains(text, "Not begun: group.web") || strings.Contains(text, "Cut off") {
		t.Errorf("interrupted while it waits: %s", text)
	}
	_, done, output = l.begin()
	l.prints(waits, output)
	l.must(0, "lab", "heal")
	l.ended(done, output)
	if text := output(); !strings.Contains(text, "exit status 0") || !strings.Contains(text, "group.web: changed") {
		t.Errorf("repeated, and healed: %s", text)
	}
	l.settled()
	l.destroyed()
}

// The database of a cluster with a quorum device is on that: nodes whose data
// directories were removed below their agents join anew, also all of them.
func TestDataGoneWithDevice(t *testing.T) {
	l := copyExample(t, "single-quorum")
	l.env = append(l.env, "CLUSTERPLAN_VAR_listen="+l.address)
	l.apply()
	l.groupOnline("web", "a")
	for _, nodes := range [][]string{{"a"}, {"a", "b"}} {
		for _, node := range nodes {
			if err := os.RemoveAll(filepath.Join(l.dir, ".clusterplan", "nodes", node, "data")); err != nil {
				t.Fatal(err)
			}
		}
		if p := l.look(); len(p.Drift) != len(nodes) {
			t.Errorf("%v drifted: %+v", nodes, p.Drift)
		}
		l.apply()
		l.settled()
		l.groupOnline("web", "")
	}
	l.destroyed()
}

// Nodes that have all started anew know of their cluster once they have read it from the
// quorum device. Before that, and where it is lost, a plan can't see the cluster: it never
// says that there is none.
func TestNodesOfADeviceStartAnew(t *testing.T) {
	l := copyExample(t, "single-quorum")
	l.env = append(l.env, "CLUSTERPLAN_VAR_listen="+l.address)
	l.apply()
	l.groupOnline("web", "a")
	anew := func(between func() error) {
		t.Helper()
		for _, node := range []string{"a", "b"} {
			l.kill(node)
		}
		if err := between(); err != nil {
			t.Fatal(err)
		}
		for _, node := range []string{"a", "b"} {
			dir := filepath.Join(l.dir, ".clusterplan", "nodes", node)
			socket := filepath.Join(dir, "run", "api.sock")
			if err := os.Remove(socket); err != nil { // the killed one's
				t.Fatal(err)
			}
			agent := exec.Command(filepath.Join(dir, "bin", "clusterplan"), "agent", "--dir", dir)
			agent.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { _ = agent.Wait() }()
			l.until("the agent of "+node+" answers", func() (bool, string) {
				_, err := os.Stat(socket)
				return err == nil, fmt.Sprint(err)
			})
		}
	}
	anew(func() error { return nil })
	if p := l.look(); !p.Complete && p.AsOf == nil || len(p.Drift) > 0 {
		t.Errorf("as they start: %+v", p)
	}
	l.groupOnline("web", "")

	lost := func() error { return os.Rename(l.device, l.device+".away") }
	anew(lost)
	const unread = "is a member and has not read the cluster's database yet: "
	l.until("the device is lost", func() (bool, string) {
		p := l.look()
		return !p.Complete && len(p.Drift) == 0 && len(p.Unreachable) > 0 && strings.Contains(p.Unreachable[0].Reason, unread+"quorum device "+l.device+": there is no such file"), fmt.Sprintf("%+v", p)
	})
	l.must(1, "status").wants(t, unread)
	if err := os.Rename(l.device+".away", l.device); err != nil {
		t.Fatal(err)
	}
	l.groupOnline("web", "")
	l.settled()

	anew(lost) // for good: so is the database, and there is an end to be made of the rest
	l.destroyed()
}

// The only copy of a single node's database is in its agent's memory once its data
// directory was removed: no apply ends it, whether it answers or not. Others can have it.
func TestDataGoneOfTheOnlyNode(t *testing.T) {
	l := newLab(t)
	l.oneNode()
	before := l.node("n1").PID
	if err := os.RemoveAll(filepath.Join(l.dir, ".clusterplan", "nodes", "n1", "data")); err != nil {
		t.Fatal(err)
	}
	signal := func(s syscall.Signal) {
		t.Helper()
		for _, p := range l.of("n1") {
			if err := syscall.Kill(p.pid, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, args := range []string{"plan", "apply --auto-approve", "apply --auto-approve --allow-quorum-loss"} {
		l.must(6, strings.Fields(args)...).wants(t, "node.n1: its data directory is gone: the only copy of the cluster's database")
	}
	signal(syscall.SIGSTOP)
	l.must(6, "apply", "--auto-approve").wants(t, "node.n1: its data directory is gone: the only copy of the cluster's database")
	signal(syscall.SIGCONT)
	l.until("it answers again", func() (bool, string) { return l.node("n1").PID == before, "another agent" })
	l.served("n1")
	// The way out: others get the database, then it joins anew.
	l.edit("node \"n1\" {\n  provider = local\n}\n", "node \"n1\" {\n  provider = local\n}\n\n"+otherNodes)
	l.edit(`"single_node"`, `"majority_node_set"`)
	l.apply()
	l.settled()
	l.up(3, 3)
	l.destroyed()
}
