package fence

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/cgroup/cgrouptest"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// nodeDir makes a node's directory as provider local does.
func nodeDir(t *testing.T, root, name, node, cluster string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`{"cluster_id": %q, "node_id": %q}`, cluster, node)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// child is a process of the test with this environment, in a session of its own.
func child(t *testing.T, attr *syscall.SysProcAttr, env ...string) (alive func() bool) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(env, "PATH=/usr/bin:/bin")
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		t.Skipf("a process with %+v can't be started here: %v", attr, err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for deadline := time.Now().Add(20 * time.Second); ; { // until it is what it is to be
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if strings.HasPrefix(string(line), "sleep") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it did not start")
		}
		runtime.Gosched()
	}
	return func() bool {
		_, runs := look(cmd.Process.Pid)
		return runs
	}
}

// The built-in agent ends all of a node, stopped processes and those that only
// the monitor's record knows, and nothing else: no other node, no other
// cluster's node of the same id, no stranger.
func TestLocal(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	own := nodeDir(t, root, "n1", "id1", "c")
	n2 := nodeDir(t, root, "n2", "id2", "c")
	n3 := nodeDir(t, root, "n3", "id3", "c")
	foreign := nodeDir(t, root, "other", "id2", "another")
	away := nodeDir(t, elsewhere, "n2", "id2", "c")
	if err := os.WriteFile(filepath.Join(n2, recordFiles[0]), []byte(`{"tokens": ["t-n2"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n2, recordFiles[1]), []byte(`{"tokens": ["t-f2"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	session := func() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
	agent := child(t, session(), nodeMarker+"="+n2)
	service := child(t, session(), monitorToken+"=t-n2")
	frozen := child(t, session(), monitorToken+"=t-f2")
	others := map[string]func() bool{
		"another node":         child(t, session(), nodeMarker+"="+n3),
		"a later monitor's":    child(t, session(), monitorToken+"=t-n2-not"),
		"another cluster":      child(t, session(), nodeMarker+"="+foreign),
		"another definition":   child(t, session(), nodeMarker+"="+away),
		"a stranger":           child(t, session()),
		"a directory below it": child(t, session(), nodeMarker+"="+n2+"2"),
	}
	r := New(Config{Dir: own, NodeID: "id1", ClusterID: "c", Again: 20 * time.Millisecond})
	job := func(node string) Job {
		return Job{Node: node, Name: node, Levels: [][]spec.Fence{{{ID: "f", Name: "here", Agent: spec.FenceLocal, Timeout: spec.Duration(20 * time.Second)}}}}
	}
	if res := r.Run(t.Context(), job("id2")); !res.OK || agent() || service() || frozen() {
		t.Errorf("%+v; agent lives %v, service lives %v, one that freezes %v", res, agent(), service(), frozen())
	}
	for _, node := range []string{"id1", "id9", ""} { // itself, unknown, none
		if res := r.Run(t.Context(), job(node)); res.OK {
			t.Errorf("node %q was fenced: %+v", node, res)
		}
	}
	for what, alive := range others {
		if !alive() {
			t.Errorf("%s was ended", what)
		}
	}
}

// What hides from the search, its guardian killed with the rest, is ended in its
// program's cgroup; and while it can't be told what there is, nothing counts as off.
func TestLocalCgroups(t *testing.T) {
	root := t.TempDir()
	own, n2 := nodeDir(t, root, "n1", "id1", "c"), nodeDir(t, root, "n2", "id2", "c")
	dir, alive := cgrouptest.Hidden(t)
	record := filepath.Join(n2, recordFiles[1])
	if err := os.WriteFile(record, []byte(`{"cgroups": ["`+dir), 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(Config{Dir: own, NodeID: "id1", ClusterID: "c", Again: 20 * time.Millisecond})
	job := Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{{ID: "f", Name: "here", Agent: spec.FenceLocal, Timeout: spec.Duration(20 * time.Second)}}}}
	if res := r.Run(t.Context(), job); res.OK || !strings.Contains(res.Err, record) {
		t.Errorf("%+v by a damaged record", res)
	}
	if err := os.WriteFile(record, fmt.Appendf(nil, `{"cgroups": [%q]}`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	node, err := r.local("id2")
	if err != nil {
		t.Fatal(err)
	}
	if off, err := node.isOff(t.Context()); off || err != nil {
		t.Errorf("off %v, %v, and it lives", off, err)
	}
	if res := r.Run(t.Context(), job); !res.OK || alive() {
		t.Errorf("%+v; it lives %v", res, alive())
	}
}

// A node in a network namespace of its own loses everything in there; one that
// shares its namespace with another loses what is its own.
func TestLocalNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	root := t.TempDir()
	own := nodeDir(t, root, "n1", "id1", "c")
	n2 := nodeDir(t, root, "n2", "id2", "c")
	apart := &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET}
	cmd := exec.Command("sh", "-c", "env -i PATH=$PATH sleep 1001 & exec sleep 1002") // the first knows nothing of its node
	cmd.Env = []string{nodeMarker + "=" + n2, "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = apart
	if err := cmd.Start(); err != nil {
		t.Skipf("a network namespace can't be made here: %v", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	space2 := ""
	in := func(name string) (n int) {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			var pid int
			if _, err := fmt.Sscan(e.Name(), &pid); err == nil && space(pid) == name {
				if _, runs := look(pid); runs {
					n++
				}
			}
		}
		return n
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
	for deadline := time.Now().Add(20 * time.Second); space2 == "" || space2 == space(os.Getpid()) || in(space2) < 2; {
		if space2 = space(cmd.Process.Pid); time.Now().After(deadline) {
			t.Fatal("the namespace's two processes are not there")
		}
		time.Sleep(time.Millisecond)
	}
	r := New(Config{Dir: own, NodeID: "id1", ClusterID: "c", Again: 20 * time.Millisecond})
	res := r.Run(t.Context(), Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{{ID: "f", Name: "here", Agent: spec.FenceLocal, Timeout: spec.Duration(20 * time.Second)}}}})
	if left := in(space2); !res.OK || left != 0 {
		t.Errorf("%+v; %d processes are left in the namespace", res, left)
	}
}
