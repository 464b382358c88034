package monitor

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// deadman is a timer in the kernel that kills this process with SIGKILL at a
// moment of the boot clock, whatever the process does then: it may be stopped,
// hang in a system call, or be starved. What the process hosts dies with it
// (guard.go). It isn't inherited by children and ends with the process.
type deadman struct {
	id int32
	at spec.Instant // 0: disarmed
}

// sigevent is the kernel's struct sigevent on 64-bit Linux: 64 bytes.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32
	_      [48]byte
}

const (
	sigevSignal  = 0
	timerAbstime = 1
)

// newDeadman makes the timer, disarmed.
func newDeadman() (*deadman, error) {
	d := &deadman{}
	ev := sigevent{signo: int32(unix.SIGKILL), notify: sigevSignal}
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME,
		uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&d.id)))
	if errno != 0 {
		return nil, fmt.Errorf("make the dead man's timer: %w", errno)
	}
	return d, nil
}

// set arms it for the moment at; 0 disarms it. A moment that has passed kills
// at once.
func (d *deadman) set(at spec.Instant) error {
	if at == d.at {
		return nil
	}
	var t unix.ItimerSpec
	if at != 0 {
		// A zero value would disarm it.
		t.Value = unix.NsecToTimespec(max(int64(at), 1))
	}
	// Raw: it returns at once, and Go's scheduler need not hear of it (internal/rawio).
	_, _, errno := unix.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(d.id), timerAbstime,
		uintptr(unsafe.Pointer(&t)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set the dead man's timer: %w", errno)
	}
	d.at = at
	return nil
}

// later is the moment d after t, or the last one there is.
func later(t spec.Instant, d int64) spec.Instant {
	if d > 0 && int64(t) > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + spec.Instant(d)
}
