package burst

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Most is the most that Room gives. A definition of 40,000 objects in 800 modules
// is checked within it without a collection.
const Most = 1 << 30

// Room is a floor for a command whose memory nobody counts, for it is gone in a
// second: a quarter of what this machine has to spare, or its control group
// if that has less; no less than Floor, no more than Most.
func Room() uint64 { return room(os.DirFS("/")) }

func room(root fs.FS) uint64 {
	spare, ok := available(root)
	if !ok {
		return Floor
	}
	if left, ok := groupLeft(root); ok {
		spare = min(spare, left)
	}
	return min(max(spare/4, Floor), Most)
}

// available is what the kernel thinks can be had without swapping.
func available(root fs.FS) (uint64, bool) {
	text, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			n, err := strconv.ParseUint(f[1], 10, 40)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// groupLeft is what the control group of this process, or one above it, has left;
// false where none has a limit.
func groupLeft(root fs.FS) (left uint64, limited bool) {
	text, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) < 3 {
			continue
		}
		mount, most, now := "sys/fs/cgroup", "memory.max", "memory.current"
		switch {
		case slices.Contains(strings.Split(f[1], ","), "memory"): // version 1
			mount, most, now = mount+"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
		case f[0] != "0" || f[1] != "":
			continue
		}
		for dir := path.Join(mount, path.Join("/", f[2])); strings.HasPrefix(dir, mount); dir = path.Dir(dir) {
			limit, ok := number(root, path.Join(dir, most))
			if !ok {
				continue
			}
			used, _ := number(root, path.Join(dir, now))
			if here := limit - min(used, limit); !limited || here < left {
				left, limited = here, true
			}
		}
	}
	return left, limited
}

// number reads one from a file; false for "max" too.
func number(root fs.FS, name string) (uint64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
