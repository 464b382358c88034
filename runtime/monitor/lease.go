package monitor

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// board is where the agent writes its lease's end and the monitor reads it: a
// page of memory that both share. A renewal, twenty times a second, so costs
// neither of them a system call, a wake-up or a word; and whenever the monitor
// looks, it sees the same end as the agent.
//
// The monitor looks before it starts anything, at each order, when the lease
// that it knows would end, and several times before that (lookAgain), as the
// kernel's timer stands by the end that was seen last.
//
// Beside it the monitor writes its grace, which outlives it there: how long after
// the lease's end the first of what it hosts has to be gone (remains.go).
type board struct{ end, grace *atomic.Int64 }

const boardSize = 4096

// newBoard makes a board, and the file that the monitor inherits. Nobody can
// make the file shorter, which would kill who reads it.
func newBoard() (*board, *os.File, error) {
	fd, err := unix.MemfdCreate("clusterplan-lease", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("memory to share with the monitor: %w", err)
	}
	file := os.NewFile(uintptr(fd), "lease")
	if err = unix.Ftruncate(fd, boardSize); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	var b *board
	if err == nil {
		b, err = openBoard(fd)
	}
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("memory to share with the monitor: %w", err)
	}
	return b, file, nil
}

// openBoard maps the board of an inherited file. It stays mapped as long as the
// process lives: an agent makes one for each monitor that it starts.
func openBoard(fd int) (*board, error) {
	page, err := unix.Mmap(fd, 0, boardSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map the lease: %w", err)
	}
	return &board{end: (*atomic.Int64)(unsafe.Pointer(&page[0])), grace: (*atomic.Int64)(unsafe.Pointer(&page[8]))}, nil
}

// write sets the lease's end and returns what it was.
func (b *board) write(end spec.Instant) spec.Instant { return spec.Instant(b.end.Swap(int64(end))) }

// read is the lease's end; 0: there was none yet.
func (b *board) read() spec.Instant { return spec.Instant(b.end.Load()) }

// leastLook bounds how often the monitor looks at a lease that is not renewed.
const leastLook = 20 * time.Millisecond

// lookAgain is when to look for a renewal of a lease with that end: after a
// quarter of what is left of it. A monitor that gets no processor for a moment
// so has three quarters and stop_within before the kernel takes it for dead.
func lookAgain(now, end spec.Instant) spec.Instant {
	return min(end, now.Add(max(end.Sub(now)/4, leastLook)))
}
