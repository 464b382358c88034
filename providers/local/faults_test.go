package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/cgroup/cgrouptest"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// What can go wrong when an agent is installed or started: each is told with
// what, where and why.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	p := w.provider(t, func(c *providers.NodesConfig) { c.StartWait = 500 * time.Millisecond })
	dir := filepath.Join(resolve(w.dir), "nodes")
	fault := func(n *node, text string) {
		if err := os.WriteFile(filepath.Join(dir, n.name, "fault"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(t *testing.T, err error, words ...string) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not say %q", err, word)
			}
		}
	}
	t.Run("ends at once", func(t *testing.T) {
		n := newNode(t, p, "exit", nil)
		n.phases(providers.PhaseInstall)
		fault(n, "exit")
		wants(t, n.phase(providers.PhaseStart), "start node exit", "ended at once", "the roof is on fire", "log/agent.log")
		fault(n, "")
		n.phases(providers.PhaseStart) // and then it goes on
	})
	t.Run("never answers", func(t *testing.T) {
		n := newNode(t, p, "hang", nil)
		n.phases(providers.PhaseInstall)
		fault(n, "hang")
		wants(t, n.phase(providers.PhaseStart), "does not answer at 127.0.0.1:", "waiting for Godot", "log/agent.log")
		n.phases(providers.PhaseStop)
	})
	t.Run("no program", func(t *testing.T) {
		n := newNode(t, p, "noexec", nil)
		n.phases(providers.PhaseInstall)
		link := filepath.Join(dir, "noexec", "bin", "clusterplan")
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte("\x7fELF and no more"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(bad, link); err != nil {
			t.Fatal(err)
		}
		wants(t, n.phase(providers.PhaseStart), "start node noexec", "can't be executed", "exec format error", link)
	})
	t.Run("port taken", func(t *testing.T) {
		l, err := net.ListenPacket("udp", "127.0.0.1:0") // UDP alone is enough
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := newNode(t, p, "port", map[string]cty.Value{"address": cty.StringVal(l.LocalAddr().String())})
		n.phases(providers.PhaseInstall)
		wants(t, n.phase(providers.PhaseStart), "start node port", "port is taken", l.LocalAddr().String())
	})
	t.Run("no address of this machine", func(t *testing.T) {
		n := newNode(t, p, "far", map[string]cty.Value{"address": cty.StringVal("192.0.2.1")})
		wants(t, n.phase(providers.PhaseInstall), "192.0.2.1", "can't be listened on")
	})
	t.Run("directory of another node", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(dir, "other"), 0o700); err != nil {
			t.Fatal(err)
		}
		text := `{"cluster_id":"c0ffee","cluster":"old","node_id":"deadbeef","name":"other","address":"127.0.0.1:1"}`
		if err := os.WriteFile(filepath.Join(dir, "other", "agent.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, p, "other", nil)
		wants(t, n.phase(providers.PhaseInstall), "belongs to another node", filepath.Join(dir, "other"), "deadbeef")
		n.read()
		if n.prior != nil {
			t.Errorf("read finds %+v", n.prior)
		}
		n.config = cty.NilVal
		n.phases(providers.PhaseStop, providers.PhaseRemove)
		if _, err := os.Stat(filepath.Join(dir, "other", "agent.json")); err != nil {
			t.Errorf("the other node's directory was touched: %v", err)
		}
	})
	t.Run("an agent of another cluster", func(t *testing.T) {
		old := newNode(t, p, "lost", nil)
		old.phases(providers.PhaseInstall, providers.PhaseStart)
		anew := newWorld(t) // as where the state was lost
		anew.dir = w.dir
		n := newNode(t, anew.provider(t, nil), "lost", nil)
		examine := func() error {
			var said []error
			for _, f := range n.p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{{Addr: n.addr(), Config: n.config}}}) {
				if f.Level == providers.LevelFail {
					said = append(said, errors.New(f.Found))
				}
			}
			return errors.Join(said...)
		}
		pid, err := (&host{root: resolve(w.dir)}).Alive(t.Context(), "nodes/lost")
		if err != nil || pid == 0 {
			t.Fatalf("pid %d, %v", pid, err)
		}
		agent := fmt.Sprintf("process %d", pid)
		wants(t, examine(), "belongs to another node", agent, "bring the state back", "end it before its directory is moved or removed")
		wants(t, n.phase(providers.PhaseInstall), "belongs to another node", agent)
		if err := os.Rename(filepath.Join(dir, "lost"), filepath.Join(dir, "moved")); err != nil {
			t.Fatal(err)
		}
		wants(t, examine(), agent, "moved or removed under it", filepath.Join(dir, "lost"))
		if err := os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "lost")); err != nil {
			t.Fatal(err)
		}
		old.phases(providers.PhaseStop)
		if err := os.Rename(filepath.Join(dir, "lost"), filepath.Join(dir, "moved")); err != nil {
			t.Fatal(err)
		}
		if err := examine(); err != nil {
			t.Errorf("nothing is in the way, and %v", err)
		}
	})
	t.Run("half installed", func(t *testing.T) {
		n := newNode(t, p, "half", nil)
		n.phases(providers.PhaseInstall)
		for _, name := range []string{"node.crt", "cluster.key", "bin/clusterplan"} {
			if err := os.Remove(filepath.Join(dir, "half", name)); err != nil {
				t.Fatal(err)
			}
		}
		n.prior = nil // the apply died before it could write down what it had done
		n.phases(create...)
		if health := n.read(); len(health) > 0 {
			t.Errorf("after: %q", health)
		}
	})
}

// A killed agent's leftovers are found and ended, and a node can be removed
// when its cluster is dead.
func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	n := newNode(t, p, "n1", nil)
	n.phases(providers.PhaseInstall)
	if err := os.WriteFile(filepath.Join(w.dir, "nodes", "n1", "fault"), []byte("leftover"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.phases(providers.PhaseStart, providers.PhaseJoin)
	w.cluster.Err = fmt.Errorf("%w: all dead", providers.ErrNoQuorum)
	if health := n.read(); len(health) > 0 {
		t.Errorf("what can't be asked is no finding: %q", health)
	}
	abs := filepath.Join(resolve(w.dir), "nodes", "n1")
	if all, err := processesOf(abs); err != nil || len(all) != 2 {
		t.Fatalf("processes: %+v, %v; want the agent and what it started", all, err)
	}
	h := &host{root: resolve(w.dir), orphanWait: 50 * time.Millisecond}
	if err := h.Stop(t.Context(), "nodes/n1", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if all, err := processesOf(abs); err != nil || len(all) > 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	n.config = cty.NilVal
	n.phases(providers.PhaseStop, providers.PhaseRemove)
	if entries, _ := os.ReadDir(filepath.Join(w.dir, "nodes")); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

// An agent whose groups may take longer to stop than agents are given else is not
// killed while they do.
func TestStopWaitsForSlowGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := newNode(t, w.provider(t, func(c *providers.NodesConfig) { c.StopGrace = time.Millisecond }), "n1", nil)
	n.phases(providers.PhaseInstall)
	abs := filepath.Join(resolve(w.dir), "nodes", "n1")
	if err := os.WriteFile(filepath.Join(abs, "fault"), []byte("slow"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.phases(providers.PhaseStart, providers.PhaseStop)
	if _, err := os.Stat(filepath.Join(abs, "stopped")); err != nil {
		t.Errorf("its groups did not come to the end of their stop: %v", err)
	}
}

// What hides from the search, where monitor and guardian were killed at one blow,
// is ended in its program's cgroup, and the cgroup goes.
func TestStopEmptiesCgroups(t *testing.T) {
	dir, alive := cgrouptest.Hidden(t)
	h := &host{root: t.TempDir()}
	run := filepath.Join(h.root, "nodes", "n1", "run")
	if err := os.MkdirAll(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, "record.json"), fmt.Appendf(nil, `{"tokens": [], "cgroups": [%q]}`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context(), "nodes/n1", time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) || alive() {
		t.Errorf("%s: %v; its process lives %v", dir, err, alive())
	}
}

// All processes of a node were stopped (SIGSTOP): to end it they are all told to go
// on, so that none has to be waited for and killed.
func TestStopWakesAllOfTheNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := newNode(t, w.provider(t, nil), "n1", nil)
	n.phases(providers.PhaseInstall)
	abs := filepath.Join(resolve(w.dir), "nodes", "n1")
	for name, text := range map[string]string{"fault": "leftover", "ends": ""} {
		if err := os.WriteFile(filepath.Join(abs, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.phases(providers.PhaseStart)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(abs, "hears")); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	all, err := processesOf(abs)
	if err != nil || len(all) != 2 {
		t.Fatalf("processes: %+v, %v; want the agent and what it started", all, err)
	}
	for _, p := range all {
		send(t, p.pid, syscall.SIGSTOP)
	}
	h := &host{root: resolve(w.dir), orphanWait: 20 * time.Second}
	if err := h.Stop(t.Context(), "nodes/n1", 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(abs, "woken")); err != nil {
		t.Errorf("what the agent had started was not told to go on: %v", err)
	}
}

// Nodes are renamed without a restart, and keep their directory and port; a
// new one may then have the old name.
func TestRename(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	n := newNode(t, p, "old", nil)
	n.phases(create...)
	endpoint := n.prior.Value.GetAttr("endpoint").AsString()
	n.config = nodeValue("new", nil)
	plan := n.plan()
	if got := strings.Join(plan.Phases, " "); got != "install update" || plan.Impact != spec.ImpactNone {
		t.Fatalf("the plan does %q (%s)", got, plan.Impact)
	}
	n.phases(plan.Phases...)
	if health := n.read(); len(health) > 0 {
		t.Fatalf("after: %q", health)
	}
	if got := n.prior.Value.GetAttr("endpoint").AsString(); got != endpoint {
		t.Errorf("its endpoint was %s and is %s", endpoint, got)
	}
	second := newNode(t, p, "old", nil)
	second.phases(create...)
	if second.prior.Value.GetAttr("endpoint").AsString() == endpoint {
		t.Error("two nodes have one endpoint")
	}
	if health := n.read(); len(health) > 0 {
		t.Fatalf("after the second: %q", health)
	}
}

// An instance key may hold anything; the node's directory stays where nodes are.
func TestNamesAreNoPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	for _, name := range []string{"n-../../../x", "..", "n-a/b", "n-å"} {
		n := newNode(t, p, name, nil)
		n.phases(providers.PhaseInstall)
		dirs, err := filepath.Glob(filepath.Join(w.dir, "nodes", "*"+n.id, "agent.json"))
		if err != nil || len(dirs) != 1 {
			t.Errorf("%s: %q, %v", name, dirs, err)
		}
		if health := n.read(); !slices.Equal(health, []string{"agent not running", "not a member"}) {
			t.Errorf("%s: %q", name, health)
		}
		n.config = cty.NilVal
		n.phases(providers.PhaseStop, providers.PhaseRemove)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "nodes", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// What a change of the definition does, by plan alone.
func TestPlanChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.provider(t, nil)
	base := map[string]cty.Value{"endpoint": cty.StringVal("127.0.0.1:21000"), "server_id": cty.NumberUIntVal(1<<63 + 1)}
	digest, err := fileSum(w.program)
	if err != nil {
		t.Fatal(err)
	}
	base["program"] = cty.StringVal(digest)
	str, num := cty.StringVal, func(n int64) cty.Value { return cty.NumberIntVal(n) }
	tests := []struct {
		change  map[string]cty.Value
		phases  string
		impact  spec.Impact
		replace bool
	}{
		{map[string]cty.Value{}, "", spec.ImpactNone, false},
		{map[string]cty.Value{"address": str("127.0.0.1")}, "", spec.ImpactNone, false}, // where it is
		{map[string]cty.Value{"zone": str("b")}, "update", spec.ImpactNone, false},
		{map[string]cty.Value{"capacity": cty.MapVal(map[string]cty.Value{"cpu": num(4)})}, "update", spec.ImpactNone, false},
		{map[string]cty.Value{"labels": cty.MapVal(map[string]cty.Value{"rack": str("3")})}, "update", spec.ImpactNone, false},
		{map[string]cty.Value{"spare": cty.True}, "update", spec.ImpactNone, false},
		{map[string]cty.Value{"name": str("n9")}, "install update", spec.ImpactNone, false}, // nothing is interrupted
		{map[string]cty.Value{"address": str("127.0.0.2:99")}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"port": num(99)}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"address": cty.UnknownVal(cty.String)}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"watchdog": str("/dev/watchdog")}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"reset": str("sysrq")}, "drain stop install start update resume", spec.ImpactRestartAgent, false},
		{map[string]cty.Value{"votes": num(0)}, "demote", spec.ImpactMembership, false},
		{map[string]cty.Value{"role": str("witness")}, "drain update resume", spec.ImpactMembership, false},
		{map[string]cty.Value{"provider": str("ssh")}, "", spec.ImpactReplace, true},
	}
	for _, tt := range tests {
		prior := &providers.Object{ID: "x", Value: nodeValue("n1", base)}
		res, err := p.Plan(providers.PlanRequest{Type: "node", Prior: prior, Config: nodeValue("n1", tt.change)})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(res.Phases, " "); got != tt.phases || res.Impact != tt.impact || (len(res.Replace) > 0) != tt.replace {
			t.Errorf("%v: %q, %s, replace %v; want %q, %s, %v", tt.change, got, res.Impact, res.Replace, tt.phases, tt.impact, tt.replace)
		}
	}
	if _, err := p.Plan(providers.PlanRequest{Type: "node", Config: nodeValue("n1", map[string]cty.Value{"address": str("h:0")})}); err == nil || !strings.Contains(err.Error(), "no port") {
		t.Errorf("port 0: %v", err)
	}
}

func fileSum(file string) (string, error) {
	data, err := os.ReadFile(file)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}

func TestConfigure(t *testing.T) {
	testConfigure(t)
	if os.Geteuid() != 0 {
		return
	}
	t.Run("without root", func(t *testing.T) {
		const nobody = 65534
		if err := syscall.Seteuid(nobody); err != nil { // of the whole process: no other test runs beside this one
			t.Skip(err)
		}
		defer func() {
			if err := syscall.Seteuid(0); err != nil {
				t.Fatal(err)
			}
		}()
		testConfigure(t)
	})
}

func testConfigure(t *testing.T) {
	t.Helper()
	root := os.Geteuid() == 0
	for _, c := range []struct{ mode, subnet, subnet6, want string }{
		{"process", "", "", ""},
		{"", "", "", ""},
		{"x", "", "", "no mode"},
		{"process", "10.77.0.0/24", "", "subnet is for mode"},
		{"netns", "", "", "needs a network"},
		{"netns", "10.77.0.0/24", "", ""},
		{"netns", "10.77.0.9/24", "fd77::/64", ""},
		{"netns", "fd77::/64", "", ""},
		{"netns", "10.77.0.0", "", "no network"},
		{"netns", "10.77.0.0/30", "", "too few"},
		{"netns", "127.0.0.0/8", "", "loopback"},
		{"netns", "10.77.0.0/24", "10.78.0.0/24", "no IPv6 network"},
		{"netns", "fd77::/64", "fd78::/64", "second IPv6 network"},
	} {
		if c.mode == "netns" && !root {
			c.want = fmt.Sprintf("mode = \"netns\": network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN), and this is uid %d; run clusterplan as root (sudo)", os.Geteuid())
		}
		config := map[string]cty.Value{}
		for name, v := range map[string]string{"mode": c.mode, "subnet": c.subnet, "subnet6": c.subnet6} {
			config[name] = cty.NullVal(cty.String)
			if v != "" {
				config[name] = cty.StringVal(v)
			}
		}
		err := New().Configure(cty.ObjectVal(config), providers.Env{DataDir: "/x"})
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
