package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// freeze puts a process into a frozen cgroup of version 1, where SIGKILL waits: it
// is as one that hangs in the kernel. thaw lets it go.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup/freezer", fmt.Sprintf("clusterplan-test-%d", pid))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("no cgroup v1 freezer to have a process hang in: ", err)
	}
	write := func(file, text string) {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := false
	thaw = func() {
		if done {
			return
		}
		done = true
		write("freezer.state", "THAWED")
		eventually(t, "the freezer's cgroup removed", func() bool { return os.Remove(dir) == nil })
	}
	t.Cleanup(thaw)
	write("cgroup.procs", strconv.Itoa(pid))
	write("freezer.state", "FROZEN")
	eventually(t, "frozen", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "freezer.state"))
		return strings.TrimSpace(string(b)) == "FROZEN"
	})
	return thaw
}

// A process that can't be killed is what remains of a monitor: the agent is told
// which, by when all has to be gone, and so says the next monitor, which is not ready
// before it is.
func TestRemains(t *testing.T) {
	t.Parallel()
	r := ready(t)
	if g := r.p.Grace(); g != 0 {
		t.Errorf("nothing runs, and the grace is %s", g)
	}
	within := func(s *Start) {
		s.StopWithin, s.Kill = spec.Duration(300*time.Millisecond), spec.Duration(70*time.Millisecond)
	}
	longer := func(s *Start) {
		s.Group, s.GroupName, s.StopWithin, s.Kill = "h", "h", spec.Duration(time.Second), spec.Duration(time.Second)
	}
	r.send(app("exec sleep 1000", longer))
	r.awaitState("a", spec.StateOnline)
	if got := r.p.Grace(); got != 2*time.Second {
		t.Errorf("the grace is %s, want 2s", got)
	}
	file := filepath.Join(r.dir, "pids")
	r.send(app(fmt.Sprintf("echo $$ > %s; exec sleep 1000", file), within))
	r.awaitState("a", spec.StateOnline)
	if got := r.p.Grace(); got != 370*time.Millisecond {
		t.Errorf("the grace is %s, want the least, 370ms", got)
	}
	hung := pidsIn(t, file, 1)[0]
	thaw := freeze(t, hung.PID)
	r.p.Kill()
	<-r.p.Ended()
	eventually(t, "only what hangs and its guardian left", func() bool { return strings.Count(r.p.Remains(), "process") == 2 })
	r2 := startRig(t, r.dir)
	name := strconv.Itoa(hung.PID)
	r2.await("stuck", func(w Word) bool { return strings.Contains(w.Stuck, name) })
	if left := r.p.Remains(); !strings.Contains(left, name) {
		t.Errorf("what hangs is not among %q", left)
	}
	if got := r.p.Grace(); got != 370*time.Millisecond {
		t.Errorf("after its end the grace is %s", got)
	}
	thaw()
	r2.await("ready", func(w Word) bool { return w.Ready != nil })
	if left := r.p.Remains(); left != "" {
		t.Errorf("the next monitor is ready, and there is %s", left)
	}
}

// A process whose first thread has ended may have another that hangs.
func TestEnded(t *testing.T) {
	for state, ended := range map[string]bool{"Z 1": true, "Z 2": false, "D 1": false, "S 1": false, "X 0": true} {
		letter, threads, _ := strings.Cut(state, " ")
		file := filepath.Join(t.TempDir(), "stat")
		line := fmt.Sprintf("7 (a b) c) %s 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 %s 0 4711 0 0", letter, threads)
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readStat(file)
		if err != nil || s.ended() != ended || s.start != 4711 {
			t.Errorf("%s: ended %v (%+v, %v)", state, s.ended(), s, err)
		}
	}
}
