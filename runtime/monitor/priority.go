package monitor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Priorities of the agent, its monitor and the guardians, where the host allows
// them: they work for a few ten-thousandths of the time, and have to when it is
// due. What they host gets none of it (plainChildren).
const (
	niceness = -10
	realTime = 1 // of SCHED_RR: before all ordinary programs, after all others of real time
)

// Urgent puts all threads of this process before ordinary programs: SCHED_RR,
// and nice -10 where that is refused. Threads and programs that are started
// from now on are as urgent. The error says that neither is allowed.
func Urgent() error { return urgentProcess("self") }

func urgentProcess(name string) error {
	var done []int
	for {
		tasks, err := os.ReadDir("/proc/" + name + "/task")
		if err != nil {
			return fmt.Errorf("list a process's threads: %w", err)
		}
		fresh := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || slices.Contains(done, tid) {
				continue
			}
			if err := urgent(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			done, fresh = append(done, tid), true
		}
		if !fresh { // none was started meanwhile by one that was not urgent yet
			return nil
		}
	}
}

func urgent(tid int) error {
	nice := unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: realTime}
	if err := unix.SchedSetAttr(tid, &attr, 0); err != nil && nice != nil {
		return fmt.Errorf("raise the priority (SCHED_RR: %w; nice: %w)", err, nice)
	}
	return nil
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
