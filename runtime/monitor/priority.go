package monitor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Priorities, where the host allows them: agent, monitor and guardians work for
// little of the time, and have to when it is due. What is hosted gets none of it
// (plainChildren).
//
// The agent gets the niceness only: as SCHED_RR it lost no fewer leases on busy
// hosts, and cost a fifth more, as the kernel moves such threads about.
const (
	niceness = -10
	realTime = 1 // of SCHED_RR: before all ordinary programs, after all others of real time
)

// Urgent puts all threads of this process before ordinary programs, by nice -10.
// Threads and programs that are started from now on are as urgent. The error
// says that it is not allowed.
func Urgent() error { return hurry(false) }

// hurry is Urgent; with rr, SCHED_RR as well where that is allowed, which is
// then enough.
func hurry(rr bool) error {
	hurrySession()
	var done []int
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list this process's threads: %w", err)
		}
		fresh := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || slices.Contains(done, tid) {
				continue
			}
			if err := hurryThread(tid, rr); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			done, fresh = append(done, tid), true
		}
		if !fresh { // none was started meanwhile by one that was not urgent yet
			return nil
		}
	}
}

// hurrySession puts this process's session before others. Where the kernel
// groups programs by session (sched_autogroup), niceness counts within a session
// only, and each session gets as much as any other, however busy. Only a session
// of this process's own is touched. Where that is not allowed, or there are no
// such groups, nothing is lost: hurry's caller is told of the niceness.
func hurrySession() {
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		return
	}
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(niceness)), 0)
}

func hurryThread(tid int, rr bool) error {
	err := unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
	if rr {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: realTime}
		if unix.SchedSetAttr(tid, &attr, 0) == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("nice %d: %w", niceness, err)
	}
	return nil
}

// reapOne reaps a child that has ended, as wait4 with these options does, with this
// thread among ordinary programs.
//
// Who reaps a process lets go of its entries in /proc (the kernel's d_walk), and where
// another program is just doing so for the same ones, as whoever reads /proc may, it
// asks again and again whether that is done. As SCHED_RR it keeps the processor from
// that program the while, and from all others: until the kernel throttles it, after
// 0.95 s. Agents on that processor have lost their leases by then.
func reapOne(ws *syscall.WaitStatus, options int) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if err == nil && attr.Policy == unix.SCHED_RR {
		plain := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Nice: niceness, Flags: attr.Flags}
		if unix.SchedSetAttr(0, &plain, 0) == nil {
			defer func() { _ = unix.SchedSetAttr(0, attr, 0) }() // what it had, it may have
		}
	}
	return syscall.Wait4(-1, ws, options, nil)
}

// plainChildren has what this thread starts run at the priority of any program,
// and keeps the thread's own.
func plainChildren() error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	attr.Flags |= unix.SCHED_FLAG_RESET_ON_FORK
	return unix.SchedSetAttr(0, attr, 0)
}
