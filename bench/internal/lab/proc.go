package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Args are a process's arguments; nil when it is gone or a zombie.
func Args(pid int) []string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
}

// Env is a variable of a process's environment.
func Env(pid int, name string) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return ""
	}
	for _, v := range bytes.Split(data, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// PIDs are the processes of this host.
func PIDs() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	pids := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Usage is what a process has used: its resident memory from /proc/PID/statm
// (pages shared with other processes count in full), its proportional share from
// smaps_rollup, and its time on a processor from /proc/PID/stat.
type Usage struct {
	RSS, PSS int64 // bytes
	CPU      time.Duration
	Parent   int
}

const clockTick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on

// UsageOf reads a process's usage.
func UsageOf(pid int) (u Usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// The name stands in parentheses and may hold anything; fields follow it.
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return u, fmt.Errorf("%s/stat can't be read", dir)
	}
	u.Parent, _ = strconv.Atoi(f[1])
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	u.CPU = time.Duration(user+system) * clockTick
	statm, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return u, err
	}
	if f := strings.Fields(string(statm)); len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		u.RSS = pages * int64(os.Getpagesize())
	}
	rollup, _ := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	for _, line := range strings.Split(string(rollup), "\n") {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.ParseInt(strings.Fields(kb)[0], 10, 64)
			u.PSS = n << 10
		}
	}
	return u, nil
}
