package monitor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A process is named by its id and its start time together: ids are used
// again, and a kill by id alone may hit a stranger. Every kill in this package
// holds the process by a pidfd first, checks that it is the one, and then
// signals the pidfd.

// procStat is what /proc/PID/stat says.
type procStat struct {
	ppid  int
	pgrp  int
	state byte
	flags uint64
	tasks int    // threads that are not reaped
	start uint64 // in clock ticks since boot
}

// pfExiting is the kernel's PF_EXITING: the thread is on its way out.
const pfExiting = 0x4

// ended tells whether no thread of the process is left. One whose first thread is a
// zombie may have another that hangs in the kernel.
func (s procStat) ended() bool {
	return s.state == 'X' || s.state == 'Z' && s.tasks <= 1
}

// dead tells whether it runs no more code.
func (s procStat) dead() bool {
	return s.state == 'Z' || s.state == 'X' || s.flags&pfExiting != 0
}

func statOf(pid int) (procStat, error) { return readStat("/proc/" + strconv.Itoa(pid) + "/stat") }

func readStat(path string) (procStat, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, err
	}
	// The name stands in parentheses and may hold anything, parentheses too.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, fmt.Errorf("%s: not understood", path)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return procStat{}, fmt.Errorf("%s: not understood", path)
	}
	var s procStat
	s.state = f[0][0]
	s.ppid, err = strconv.Atoi(f[1])
	if err == nil {
		s.pgrp, err = strconv.Atoi(f[2])
	}
	if err == nil {
		s.flags, err = strconv.ParseUint(f[6], 10, 64)
	}
	if err == nil {
		s.tasks, err = strconv.Atoi(f[17])
	}
	if err == nil {
		s.start, err = strconv.ParseUint(f[19], 10, 64)
	}
	if err != nil {
		return procStat{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// childrenOf lists the direct children of a process, those that it hasn't
// reaped among them. Where the process is this one the list is whole: what
// isn't in it had no parent of ours when the call began, as only we reap.
func childrenOf(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is gone
	}
	var out []int
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if errors.Is(err, os.ErrNotExist) && !exists(dir+"/"+t.Name()+"/stat") {
			continue // the thread ended
		}
		if err != nil {
			return childrenByScan(pid)
		}
		for _, f := range bytes.Fields(b) {
			if n, err := strconv.Atoi(string(f)); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// childrenByScan is for kernels built without children files.
func childrenByScan(pid int) []int {
	var out []int
	for _, p := range allPIDs() {
		if s, err := statOf(p); err == nil && s.ppid == pid {
			out = append(out, p)
		}
	}
	return out
}

// allPIDs lists the host's processes.
func allPIDs() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var out []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// signalIf signals the process pid if the check holds for the very process
// that gets the signal. It reports whether one was sent.
func signalIf(pid int, sig unix.Signal, check func(procStat) bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return false // gone
	}
	if err == nil {
		defer unix.Close(fd)
	}
	// Read after the pidfd was opened: if the id had changed hands before,
	// this is the new process, and the check fails; if it changes hands
	// after, the pidfd still means the old one.
	s, serr := statOf(pid)
	if serr != nil || !check(s) {
		return false
	}
	if err != nil { // kernels before 5.3
		return unix.Kill(pid, sig) == nil
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// signalDescendants signals all descendants of this process but those that are
// below (or are) a child that spare names, parents first, and but the members
// of the process group notGroup.
func signalDescendants(sig unix.Signal, notGroup int, spare func(pid int) bool) {
	self := os.Getpid()
	seen := map[int]bool{}
	var visit func(parent int, children []int)
	visit = func(parent int, children []int) {
		for _, pid := range children {
			if seen[pid] || parent == self && spare != nil && spare(pid) {
				continue
			}
			seen[pid] = true
			below := childrenOf(pid) // before it dies and they are ours
			signalIf(pid, sig, func(s procStat) bool {
				// An orphan has become ours meanwhile.
				return (s.ppid == parent || s.ppid == self) && s.state != 'Z' && s.pgrp != notGroup
			})
			visit(pid, below)
		}
	}
	visit(self, childrenOf(self))
}

// holdsToken tells whether a process was started with the token in its
// environment, as what a monitor starts is, with all its descendants.
func holdsToken(pid int, token string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	want := []byte(tokenVariable + "=" + token)
	for len(b) > 0 {
		var v []byte
		v, b, _ = bytes.Cut(b, []byte{0})
		if bytes.Equal(v, want) {
			return true
		}
	}
	return false
}

// signalName is a signal's name for people: SIGTERM.
func signalName(sig unix.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return "signal " + strconv.Itoa(int(sig))
}
