package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
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
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	above, err := cgroupOf(string(mounts), string(own))
	if err != nil {
		return "", err
	}
	return filepath.Join(above, "clusterplan-"+token), nil
}

// cgroupOf finds the directory of a process's own cgroup in its mountinfo and
// cgroup files.
func cgroupOf(mountinfo, own string) (string, error) {
	path := ""
	for _, line := range strings.Split(own, "\n") {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			path = p
		}
	}
	if path == "" {
		return "", errors.New("the kernel has no cgroup v2")
	}
	for _, line := range strings.Split(mountinfo, "\n") {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before) // id, parent, device, root, mount point, ...
		if len(f) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		rel, ok := strings.CutPrefix(path, strings.TrimSuffix(f[3], "/"))
		if ok && (rel == "" || rel[0] == '/') && !strings.HasPrefix(rel, "/..") {
			return filepath.Join(unescape(f[4]), rel), nil
		}
	}
	return "", errors.New("no cgroup v2 is mounted here")
}

// unescape reads a path of mountinfo, which has spaces as \040.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
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
		removeCgroup(dir)
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

// killCgroup kills all in a cgroup and below it, and tells whether nothing is
// left. One that isn't there is empty.
func killCgroup(dir string) bool {
	if dir == "" || !populated(dir) {
		return true
	}
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return !populated(dir)
	}
	_, _ = f.WriteString("1")
	f.Close()
	return !populated(dir)
}

// populated tells whether a process lives in a cgroup or below it.
func populated(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV)
	}
	return !bytes.Contains(b, []byte("populated 0"))
}

// emptyCgroup kills all in a cgroup and returns when it is gone. tell is called
// now and then while something can't be killed.
func emptyCgroup(dir string, tell func(since time.Duration)) {
	if dir == "" {
		return
	}
	began, told := time.Now(), time.Second
	for wait := time.Millisecond; !killCgroup(dir); wait = min(wait*2, 50*time.Millisecond) {
		time.Sleep(wait)
		if since := time.Since(began); since > told {
			tell(since)
			told *= 2
		}
	}
	removeCgroup(dir)
}

// removeCgroup removes an empty cgroup with those below it, which a program may
// have made.
func removeCgroup(dir string) {
	below, _ := os.ReadDir(dir)
	for _, e := range below {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir)
}
