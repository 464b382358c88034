// Package cgrouptest has processes that only their cgroup leads to, for tests.
package cgrouptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
)

// Hidden starts a process in a program's cgroup of a new monitor's: with a session
// of its own and nothing in its environment. dir is the monitor's cgroup. The test
// is skipped where there is no cgroup v2 to use.
func Hidden(t testing.TB) (dir string, alive func() bool) {
	t.Helper()
	above, err := cgroup.Own()
	if err != nil {
		t.Skip("no cgroup v2 here: ", err)
	}
	if dir, err = os.MkdirTemp(above, cgroup.Prefix+"test-"); err != nil {
		t.Skip("no cgroup v2 to write to here: ", err)
	}
	t.Cleanup(func() { cgroup.Empty(dir, func(time.Duration) {}) })
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		t.Skip("the kernel has no cgroup.kill: ", err)
	}
	program := filepath.Join(dir, "1-1")
	if err := os.Mkdir(program, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(program, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		t.Skip("a process can't be started in a cgroup here: ", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	return dir, func() bool {
		select {
		case <-ended:
			return false
		default:
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			return err == nil && !isZombie(stat)
		}
	}
}

// isZombie reads /proc/PID/stat of a process with a plain name.
func isZombie(stat []byte) bool {
	var pid int
	var name, state string
	_, err := fmt.Sscan(string(stat), &pid, &name, &state)
	return err == nil && (state == "Z" || state == "X")
}
