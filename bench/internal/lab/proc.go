package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
// smaps_rollup, and its time on a processor from its CPU clock.
type Usage struct {
	RSS, PSS int64 // bytes
	CPU      time.Duration
	Parent   int
}

// cpuTime is the time that a process's threads have run, ended ones too, in
// nanoseconds from switch to switch (the kernel's sum_exec_runtime, which
// schedstat tells thread by thread). The two counts of /proc/PID/stat are worse
// for a process that is awake for 0.1 ms at a time: each is cut to 10 ms, and a
// kernel that divides time by ticks sees a process that wakes by a timer either
// at each tick or at none.
func cpuTime(pid int) (time.Duration, error) {
	var ts unix.Timespec
	// The kernel's number for a process's clock (clock_getcpuclockid): all bits of
	// the pid turned over, then 2 for time by the scheduler.
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

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
	if !ok || len(f) < 2 {
		return u, fmt.Errorf("%s/stat can't be read", dir)
	}
	u.Parent, _ = strconv.Atoi(f[1])
	if u.CPU, err = cpuTime(pid); err != nil {
		return u, err
	}
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
