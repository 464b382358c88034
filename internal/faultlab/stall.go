package faultlab

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// stallTick is how often a Stalls looks at the clock.
const stallTick = 5 * time.Millisecond

// Stalls tells for how long the machine as a whole stood still: a thread before
// all others (SCHED_FIFO, where that is allowed) that wants to run every 5 ms,
// and how late it was. What a hypervisor takes away, a cluster whose nodes are
// all on this machine can't help; a figure beside it shows which it was.
type Stalls struct {
	longest atomic.Int64 // since the last Reset
	stop    chan struct{}
	done    chan struct{}
}

// NewStalls measures until Close.
func NewStalls() *Stalls {
	s := &Stalls{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = netlab.OnThread(func() error {
			attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 90}
			_ = unix.SchedSetAttr(0, &attr, 0)
			for {
				began := time.Now()
				tick := unix.NsecToTimespec(int64(stallTick))
				_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &tick, nil)
				if late := int64(time.Since(began) - stallTick); late > s.longest.Load() {
					s.longest.Store(late)
				}
				select {
				case <-s.stop:
					return nil
				default:
				}
			}
		})
	}()
	return s
}

// Longest is the longest time since the last Reset for which the thread did not
// run when it should have.
func (s *Stalls) Longest() time.Duration { return time.Duration(s.longest.Load()) }

// Reset begins anew.
func (s *Stalls) Reset() { s.longest.Store(0) }

// Close ends the measuring.
func (s *Stalls) Close() {
	close(s.stop)
	<-s.done
}
