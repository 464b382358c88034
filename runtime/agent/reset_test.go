package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// triggerVariable names the file that an agent takes for /proc/sysrq-trigger.
const triggerVariable = "CLUSTERPLAN_TEST_SYSRQ"

// resets has the node reset itself by writing to a file.
func (n *nodeRig) resets(t *testing.T) (trigger string) {
	t.Helper()
	path := filepath.Join(n.dir, "agent.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var conf map[string]any
	if err := json.Unmarshal(b, &conf); err != nil {
		t.Fatal(err)
	}
	conf["reset"] = spec.ResetSysrq
	if b, err = json.Marshal(conf); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	trigger = filepath.Join(n.dir, "trigger")
	n.env = append(n.env, triggerVariable+"="+trigger)
	return trigger
}

func (n *nodeRig) wasReset() bool {
	b, _ := os.ReadFile(filepath.Join(n.dir, "trigger"))
	return strings.HasPrefix(string(b), "b")
}

// hang puts a process where SIGKILL waits (a frozen cgroup of version 1), as for one
// that hangs in the kernel.
func hang(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/freezer", "clusterplan-test-"+strconv.Itoa(pid))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup v1 freezer to have a process hang in: ", err)
	}
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	thaw = sync.OnceFunc(func() {
		write("freezer.state", "THAWED")
		for end := time.Now().Add(patience); os.Remove(dir) != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
	})
	t.Cleanup(thaw)
	write("cgroup.procs", strconv.Itoa(pid))
	write("freezer.state", "FROZEN")
	eventually(t, func() string {
		if b, _ := os.ReadFile(filepath.Join(dir, "freezer.state")); strings.TrimSpace(string(b)) != "FROZEN" {
			return "not frozen: " + string(b)
		}
		return ""
	})
	return thaw
}

// A node that loses its quorum stops its groups, and is not reset for it. One whose
// service can't be killed is, once its lease is over.
func TestReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	n1, n2 := r.node("n1"), r.node("n2")
	for _, n := range r.nodes {
		if err := os.WriteFile(n.resets(t), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	admin := r.form(spec.MajorityNodeSet)
	if _, err := admin.PutGroup(r.ctx(), r.webGroup(), 0); err != nil {
		t.Fatal(err)
	}
	r.answers("n1", "")
	stopped := func() string {
		if pids := serving(r.web); len(pids) > 0 {
			return "it still serves"
		}
		return ""
	}
	n2.kill()
	eventually(t, stopped)
	n2.start(t)
	r.answers("n1", "")
	if n1.wasReset() || n2.wasReset() {
		t.Fatal("a node was reset whose groups had stopped")
	}
	pids := serving(r.web)
	if len(pids) != 1 {
		t.Fatalf("%d processes serve", len(pids))
	}
	thaw := hang(t, pids[0])
	n2.kill()
	eventually(t, func() string {
		if !n1.wasReset() {
			return "the node is not reset, and has a process that can't be killed"
		}
		return ""
	})
	eventually(t, func() string { // its log is written beside all else
		if !n1.said("this node is reset (sysrq)") || !n1.said("process "+strconv.Itoa(pids[0])) {
			return "it doesn't say why"
		}
		return ""
	})
	// A new agent finds what the last has left, and is reset for it as well.
	n1.kill()
	if err := os.WriteFile(filepath.Join(n1.dir, "trigger"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n1.start(t)
	eventually(t, func() string {
		if !n1.wasReset() {
			return "an agent that finds a process that can't be killed doesn't reset the node"
		}
		return ""
	})
	// Once it can be killed, nothing is left of it.
	var record struct{ Cgroups []string }
	b, err := os.ReadFile(filepath.Join(n1.dir, "run", "record.json"))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil {
		t.Fatal(err)
	}
	thaw()
	eventually(t, func() string {
		for _, dir := range record.Cgroups {
			if _, err := os.Stat(dir); err == nil {
				return dir + " is there"
			}
		}
		return stopped()
	})
}

// A node that can't reset itself says so, and works as any other.
func TestNoReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	n1 := r.node("n1")
	n1.resets(t)
	r.form(spec.SingleNode)
	if self := r.self(n1); !strings.Contains(self.NoReset, "this node can't reset itself") || !strings.Contains(self.NoReset, "use a fence or a watchdog") {
		t.Errorf("no_reset is %q", self.NoReset)
	}
	if !n1.said("this node can't reset itself") {
		t.Error("its log doesn't say so")
	}
}
