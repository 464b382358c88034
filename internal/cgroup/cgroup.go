// Package cgroup ends what runs in control groups (cgroup v2, Linux 5.14 or
// newer) that nodes' monitors have made for their programs.
//
// Monitors, which make them, end what is in them; so do those who take a whole
// node away, for what no monitor and no guardian lives to end.
package cgroup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix begins the name of every monitor's cgroup; each program of its has one
// of its own below.
const Prefix = "clusterplan-"

// Own is the directory of this process's own cgroup, or why there is none.
func Own() (string, error) { return Of(os.Getpid()) }

// Of is the directory of a process's cgroup, as this process sees it.
func Of(pid int) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	return of(string(mounts), string(own))
}

// of finds the directory of a process's own cgroup in its mountinfo and
// cgroup files.
func of(mountinfo, own string) (string, error) {
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
		rel, ok := strings.CutPrefix(path, strings.TrimSuffix(unescape(f[3]), "/"))
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

// Recorded are the cgroups that a monitor's record (run/record.json of a node)
// names: all that may have processes of that node.
func Recorded(record []byte) ([]string, error) {
	var r struct {
		Cgroups []string `json:"cgroups"`
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return nil, fmt.Errorf("what the monitor has started can't be read: %w", err)
	}
	for _, dir := range r.Cgroups {
		if !filepath.IsAbs(dir) || !strings.HasPrefix(filepath.Base(dir), Prefix) {
			return nil, fmt.Errorf("what the monitor has started can't be read: %q is no cgroup of a monitor", dir)
		}
	}
	return r.Cgroups, nil
}

// Kill kills all in a cgroup and below it, and tells whether nothing is left.
// One that isn't there ("" is none) is empty.
func Kill(dir string) bool {
	if dir == "" || !Populated(dir) {
		return true
	}
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return !Populated(dir)
	}
	_, _ = f.WriteString("1")
	f.Close()
	return !Populated(dir)
}

// Populated tells whether a process lives in a cgroup or below it.
func Populated(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV)
	}
	return !bytes.Contains(b, []byte("populated 0"))
}

// Empty kills all in a cgroup and returns when it is gone. tell is called now and
// then while something can't be killed.
func Empty(dir string, tell func(since time.Duration)) {
	if dir == "" {
		return
	}
	began, told := time.Now(), time.Second
	for wait := time.Millisecond; !Kill(dir); wait = min(wait*2, 50*time.Millisecond) {
		time.Sleep(wait)
		if since := time.Since(began); since > told {
			tell(since)
			told *= 2
		}
	}
	Remove(dir)
}

// Remove removes an empty cgroup with those below it, which a program may have
// made.
func Remove(dir string) {
	below, _ := os.ReadDir(dir)
	for _, e := range below {
		if e.IsDir() {
			Remove(filepath.Join(dir, e.Name()))
		}
	}
	_ = unix.Rmdir(dir)
}
