package agent

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// bootTimer is one timer on the boot clock: a timerfd, which goes off at its
// moment even if the host slept meanwhile (package time's clock stops then).
// Go's poller waits for it, so no thread does.
type bootTimer struct {
	file  *os.File
	fd    int
	C     chan struct{} // capacity 1
	armed spec.Instant
}

func newBootTimer() (*bootTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a boot-clock timer: %w", err)
	}
	return &bootTimer{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd, C: make(chan struct{}, 1)}, nil
}

// set arms the timer for at; 0 disarms it. Only the loop calls it.
func (t *bootTimer) set(at spec.Instant) {
	if at == t.armed {
		return
	}
	t.armed = at
	var when unix.ItimerSpec
	when.Value = unix.NsecToTimespec(int64(at))
	// It fails for a bad descriptor or a negative time only; either is a bug
	// that would stop the node's clock, so better loudly.
	if err := unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &when, nil); err != nil {
		panic(fmt.Sprintf("arm the boot-clock timer for %d: %v", at, err))
	}
}

// fired notes that the timer has gone off and has to be armed again.
func (t *bootTimer) fired() { t.armed = -1 }

func (t *bootTimer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { t.file.Close() })
	defer stop()
	var buf [8]byte
	for {
		if _, err := t.file.Read(buf[:]); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read the boot-clock timer: %w", err)
		}
		select {
		case t.C <- struct{}{}:
		default:
		}
	}
}
