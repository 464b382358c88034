package boottime

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Timer is one timer on the boot clock: a timerfd, which goes off at its moment
// even if the host slept meanwhile (package time's clock stops then). Go's
// poller waits for it, so no thread does. One goroutine runs Run or Follow; Set and
// Fired are called by one at a time.
type Timer struct {
	C     <-chan struct{} // capacity 1; call Fired for each that comes
	c     chan struct{}
	file  *os.File
	conn  syscall.RawConn
	armed spec.Instant

	set struct { // Set's call, kept, so that it costs no garbage
		call  func(fd uintptr)
		when  unix.ItimerSpec
		errno syscall.Errno
	}
}

// NewTimer makes a timer, disarmed. Run has to run for C to get anything.
func NewTimer() (*Timer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a boot-clock timer: %w", err)
	}
	c := make(chan struct{}, 1)
	t := &Timer{file: os.NewFile(uintptr(fd), "timerfd"), C: c, c: c}
	t.set.call = func(fd uintptr) {
		_, _, t.set.errno = unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, unix.TFD_TIMER_ABSTIME, uintptr(unsafe.Pointer(&t.set.when)), 0, 0, 0)
	}
	if t.conn, err = t.file.SyscallConn(); err != nil {
		t.file.Close()
		return nil, fmt.Errorf("make a boot-clock timer: %w", err)
	}
	return t, nil
}

// Set arms the timer for at, or disarms it (0). A moment that has passed is now.
// Once Run has closed the timer, it does nothing: who calls it may hear of the end
// a moment later.
func (t *Timer) Set(at spec.Instant) {
	if at == t.armed {
		return
	}
	t.armed = at
	t.set.when.Value = unix.NsecToTimespec(int64(at))
	if err := t.conn.Control(t.set.call); err != nil {
		return // closed: the number may be another file's by now
	}
	// It fails for a negative time only, a bug that would stop the node's clock, so
	// better loudly.
	if t.set.errno != 0 {
		panic(fmt.Sprintf("arm the boot-clock timer for %d: %v", at, t.set.errno))
	}
}

// Fired notes that the timer has gone off and has to be armed again.
func (t *Timer) Fired() { t.armed = -1 }

// Run fills C until ctx ends, then closes the timer.
func (t *Timer) Run(ctx context.Context) error {
	return t.Follow(ctx, func() {
		select {
		case t.c <- struct{}{}:
		default:
		}
	})
}

// Follow calls fire, in place of filling C, each time that the timer goes off, until
// ctx ends; then it closes the timer. fire may call Fired and Set.
//
// Go's poller tells once each time that the timer goes off (it asks for edges), and
// Set has the kernel forget what was told before, so that nothing has to be read:
// but once, for what there was before the poller was asked.
func (t *Timer) Follow(ctx context.Context, fire func()) error {
	stop := context.AfterFunc(ctx, func() { t.file.Close() })
	defer stop()
	first := true
	err := t.conn.Read(func(fd uintptr) bool {
		if first {
			first = false
			var buf [8]byte
			if _, err := unix.Read(int(fd), buf[:]); err != nil {
				return false // not yet
			}
		}
		fire()
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("wait for the boot-clock timer: %w", err)
}
