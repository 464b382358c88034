package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestCgroupOf(t *testing.T) {
	const v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
	const hybrid = "40 30 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 30 0:33 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 none rw\n"
	const container = "50 40 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	for _, tt := range []struct{ name, mounts, own, want string }{
		{"unified", v2, "0::/system.slice/clusterplan.service\n", "/sys/fs/cgroup/system.slice/clusterplan.service"},
		{"root", v2, "0::/\n", "/sys/fs/cgroup"},
		{"hybrid", hybrid, "4:cpu:/a\n0::/user\n", "/sys/fs/cgroup/uni fied/user"},
		{"container", container, "0::/docker/abc/x\n", "/sys/fs/cgroup/x"},
		{"out of sight", container, "0::/docker/abcd\n", ""},
		{"namespace of another", v2, "0::/../x\n", ""},
		{"none mounted", "22 1 0:20 / /proc rw - proc proc rw\n", "0::/\n", ""},
		{"v1", v2, "4:cpu:/a\n", ""},
	} {
		got, err := cgroupOf(tt.mounts, tt.own)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

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
	own, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", hidden.PID))
	if !strings.Contains(string(own), "/clusterplan-") {
		t.Fatalf("it is in %s", own)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	dir, err := cgroupOf(string(mounts), string(own))
	if err != nil {
		t.Fatal(err)
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
