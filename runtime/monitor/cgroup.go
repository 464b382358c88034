package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/cgroup"
)

// Where the host has a cgroup v2 hierarchy that this process may write to (in
// the hybrid layout too), each program runs in a cgroup of its own, below the
// agent's: it is there from its first instruction (clone3), all that it starts is
// there too, and cgroup.kill ends all of it at one blow. Without one, guardians
// find descendants by their parents, and the next monitor by the environment,
// which a program can hide from.

// cgroups makes the programs' cgroups. Its zero value makes none.
type cgroups struct {
	dir  string // the monitor's; "": there is no hierarchy to use
	next atomic.Uint64
}

// cgroupDir is where a monitor with that token would have its cgroup, or why it
// can't have one.
func cgroupDir(token string) (string, error) {
	above, err := cgroup.Own()
	if err != nil {
		return "", err
	}
	return filepath.Join(above, cgroup.Prefix+token), nil
}

// use takes the directory for the monitor's cgroup, which is there only while a
// program is. The error says why it can't be used.
func (c *cgroups) use(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	defer unix.Rmdir(dir)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		return errors.New("the kernel has no cgroup.kill (it came with Linux 5.14)")
	}
	c.dir = dir
	return nil
}

// new makes a program's cgroup; "": there is none.
func (c *cgroups) new() (string, error) {
	if c.dir == "" {
		return "", nil
	}
	// Separate monitors share the directory.
	dir := filepath.Join(c.dir, fmt.Sprintf("%d-%d", os.Getpid(), c.next.Add(1)))
	for try := 0; ; try++ {
		// Whoever removes a program's removes the monitor's with the last.
		err := os.Mkdir(c.dir, 0o755)
		if err == nil || errors.Is(err, os.ErrExist) {
			err = os.Mkdir(dir, 0o755)
		}
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) || try == 100 {
			return "", fmt.Errorf("make its cgroup: %w", err)
		}
	}
}

// dropCgroup removes a program's cgroup, which is empty, and its monitor's with
// the last one.
func dropCgroup(dir string) {
	if dir != "" {
		cgroup.Remove(dir)
		_ = unix.Rmdir(filepath.Dir(dir))
	}
}

// of lists the cgroups that the process with that id has made.
func (c *cgroups) of(pid int) []string {
	if c.dir == "" {
		return nil
	}
	dirs, _ := filepath.Glob(filepath.Join(c.dir, fmt.Sprintf("%d-*", pid)))
	return dirs
}
