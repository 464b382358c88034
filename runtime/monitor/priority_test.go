package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// A monitor's urgency reaches its guardians, and never what they run.
func TestProgramsAreNotUrgent(t *testing.T) {
	t.Parallel()
	r := ready(t)
	urgency := func(pid int) (policy uint32, nice int32) {
		t.Helper()
		a, err := unix.SchedGetAttr(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return a.Policy, a.Nice
	}
	policy, nice := urgency(r.p.PID())
	if policy == unix.SCHED_NORMAL && nice == 0 {
		t.Skip("no right to raise priorities")
	}
	session := func(pid int) string { // "/autogroup-25 nice -10"; none where sessions are no groups
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", pid))
		if err != nil {
			return ""
		}
		_, n, _ := strings.Cut(strings.TrimSpace(string(b)), " nice ")
		return n
	}
	if n := session(r.p.PID()); n != "" && n != "-10" {
		t.Errorf("the monitor's session has nice %s: other sessions come before it", n)
	}
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file)))
	r.awaitState("a", spec.StateOnline)
	for _, p := range pidsIn(t, file, 3) {
		if policy, nice := urgency(p.PID); policy != unix.SCHED_NORMAL || nice != 0 {
			t.Errorf("a program runs with policy %d, nice %d", policy, nice)
		}
		if n := session(p.PID); n != "" && n != "0" {
			t.Errorf("a program's session has nice %s", n)
		}
	}
	for _, g := range guardiansOf(t, r.dir) {
		if got, _ := urgency(g.PID); got != policy {
			t.Errorf("its guardian runs with policy %d, the monitor with %d", got, policy)
		}
	}
}

// A thread of real time reaps among ordinary programs, and has its priority again after.
func TestReapsOrdinarily(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "reap") // alone: it takes whatever child ends
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var thread, child int
	if _, err := fmt.Fscanln(out, &thread, &child); err != nil {
		t.Fatal(err)
	}
	if thread == 0 {
		_ = cmd.Wait()
		t.Skip("no right to raise priorities")
	}
	defer unix.Kill(child, unix.SIGKILL)
	eventually(t, "it waits for its child among ordinary programs, before most of them", func() bool {
		a, err := unix.SchedGetAttr(thread, 0)
		return err == nil && a.Policy == unix.SCHED_NORMAL && a.Nice == niceness && a.Flags&unix.SCHED_FLAG_RESET_ON_FORK != 0
	})
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var reaped int
	var policy, priority uint32
	var flags uint64
	if _, err := fmt.Fscanln(out, &reaped, &policy, &priority, &flags); err != nil {
		t.Fatal(err)
	}
	if reaped != child || policy != unix.SCHED_RR || priority != realTime || flags&unix.SCHED_FLAG_RESET_ON_FORK == 0 {
		t.Errorf("it reaped %d of %d, and has policy %d, priority %d, flags %d", reaped, child, policy, priority, flags)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// reapMain reaps a program from a thread of real time, and tells the thread and the
// program (0 0: it may have no such thread), then what was reaped and what the thread has.
func reapMain() int {
	runtime.LockOSThread()
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: realTime, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &attr, 0) != nil {
		fmt.Println(0, 0)
		return 0
	}
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(unix.Gettid(), cmd.Process.Pid)
	var ws syscall.WaitStatus
	pid, err := reapOne(&ws, 0)
	for err == syscall.EINTR {
		pid, err = reapOne(&ws, 0)
	}
	now, aerr := unix.SchedGetAttr(0, 0)
	if err != nil || aerr != nil {
		fmt.Fprintln(os.Stderr, err, aerr)
		return 1
	}
	fmt.Println(pid, now.Policy, now.Priority, now.Flags)
	return 0
}

// What was undone and could not be written down so is owed still, under its number: another
// script's would be dropped with the next try.
func TestUndoneThatIsNotWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, _, err := openRecord(filepath.Join(dir, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.undo(resource.Program{Name: "first"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.undone(first); err == nil {
		t.Fatal("written to nowhere")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.undo(resource.Program{Name: "second"}); err != nil {
		t.Fatal(err)
	}
	if err := r.undone(first); err != nil {
		t.Fatal(err)
	}
	if owed := r.toUndo(); len(owed) != 1 || owed[0].Program.Name != "second" {
		t.Errorf("owed: %+v", owed)
	}
}

// A disk that hangs while the record is written holds up no question.
func TestRecordNeverWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, _, err := openRecord(filepath.Join(dir, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.see("g", 7); err != nil {
		t.Fatal(err)
	}
	// An epoch that could not be written was not seen.
	bad, _, err := openRecord(filepath.Join(dir, "none", recordFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.see("g", 7); err == nil || bad.epoch("g") != 0 {
		t.Fatalf("written to nowhere: %v, epoch %d", err, bad.epoch("g"))
	}
	r.saving.Lock() // as a write that hangs does
	defer r.saving.Unlock()
	got := make(chan uint64)
	go func() {
		r.ended(1)
		got <- r.epoch("g")
	}()
	select {
	case e := <-got:
		if e != 7 {
			t.Fatalf("epoch %d", e)
		}
	case <-time.After(patience):
		t.Fatal("it waited")
	}
}
