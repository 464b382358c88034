package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// daemon is a script that makes a process which nothing leads to but its cgroup:
// it has another session, another parent, and nothing in its environment.
func daemon(file string) string {
	return fmt.Sprintf(`( env -i setsid /bin/sh -c 'echo $$ >> %s; while :; do /bin/sleep 1000; done' & )
exec sleep 1000`, file)
}

// needCgroup skips where programs have none.
func needCgroup(t *testing.T) {
	t.Helper()
	dir, err := cgroupDir(newToken())
	if err == nil {
		err = new(cgroups).use(dir)
	}
	if err != nil {
		t.Skip("no cgroup v2 to use here: ", err)
	}
}

// A program's processes are in a cgroup of its own, where it is found though
// monitor and guardian are killed at one blow, and which is gone afterwards.
func TestCgroup(t *testing.T) {
	t.Parallel()
	needCgroup(t)
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(daemon(file)))
	r.awaitState("a", spec.StateOnline)
	hidden := pidsIn(t, file, 1)[0]
	dir, err := cgroup.Of(hidden.PID)
	if err != nil || !strings.Contains(dir, "/"+cgroup.Prefix) {
		t.Fatalf("it is in %q, %v", dir, err)
	}

	// In order: nothing is left, not even the monitor's directory.
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	if alive(hidden) || exists(dir) || exists(filepath.Dir(dir)) {
		t.Fatalf("after Down: process %v, its cgroup %v, the monitor's %v", alive(hidden), exists(dir), exists(filepath.Dir(dir)))
	}

	// The monitor is killed: the guardian does the same.
	os.Remove(file)
	r.send(app(daemon(file)))
	r.awaitState("a", spec.StateOnline)
	hidden = pidsIn(t, file, 1)[0]
	r.p.Kill()
	<-r.p.Done()
	awaitGone(t, hidden)
	eventually(t, "its cgroups gone", func() bool { return !exists(filepath.Dir(dir)) })

	// Both are: the next monitor does.
	os.Remove(file)
	r = startRig(t, r.dir)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.renew(patience)
	r.send(app(daemon(file)))
	r.awaitState("a", spec.StateOnline)
	hidden = pidsIn(t, file, 1)[0]
	guardian := guardiansOf(t, r.dir)[0]
	for _, pid := range []int{r.p.PID(), guardian.PID} {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "stopped", func() bool { s, err := statOf(pid); return err == nil && s.state == 'T' })
	}
	if err := unix.Kill(guardian.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, guardian)
	r.p.Kill()
	<-r.p.Done()
	if !alive(hidden) {
		t.Fatal("nothing escaped: this test tests nothing")
	}
	r = startRig(t, r.dir)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	if alive(hidden) {
		t.Error("it lives after the next monitor's Ready")
	}
}
