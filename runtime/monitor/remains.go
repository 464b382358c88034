package monitor

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/cgroup"
)

// At the lease's end and stop_within the kernel kills a monitor with all that it
// hosts, and K later nothing of it may be there. What hangs in the kernel (a
// process in uninterruptible sleep) is there all the same, and no signal helps. Its
// agent, which lives, asks here for the proof, and resets the node without it where
// it may (runtime/agent/reset.go).

// tellGrace writes down, for the agent, how long after the lease's end the first of
// what runs has to be gone; 0: nothing runs, or it may go on. It is there before
// anything is started, and stays when this process dies.
func (m *monitor) tellGrace() {
	if m.conf.Freezer || m.conf.Apart != nil { // a separate monitor's is the node's monitor's
		return
	}
	var least time.Duration
	for _, g := range m.groups {
		if len(g.live) > 0 && (least == 0 || g.within < least) {
			least = g.within
		}
	}
	if m.board.grace.Load() != int64(least) {
		m.board.grace.Store(int64(least))
	}
}

// Grace is how long after its lease's end all that the monitor hosts has to be gone:
// the least stop_within of what runs, and the kill's time. 0: nothing runs. Once the
// monitor has ended it stays what it was.
func (p *Process) Grace() time.Duration { return time.Duration(p.board.grace.Load()) }

// Ended is closed once the process is gone, even if nobody reads its words.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Remains names what is left of the monitor and of all that it has started, for
// people; "": nothing is. It looks through /proc, and may hang with a process that
// does.
func (p *Process) Remains() string {
	var left []string
	select {
	case <-p.ended:
	default:
		if s, err := statOf(p.PID()); err == nil && !s.ended() {
			left = append(left, fmt.Sprintf("the monitor itself, process %d (state %c)", p.PID(), s.state))
		}
	}
	ready := p.ready.Load()
	if ready == nil { // it has started nothing
		return strings.Join(left, ", ")
	}
	for _, pid := range allPIDs() {
		if pid == os.Getpid() || !holdsToken(pid, ready.Token) {
			continue
		}
		if s, err := statOf(pid); err == nil && !s.ended() {
			left = append(left, fmt.Sprintf("process %d (state %c)", pid, s.state))
		}
	}
	if len(left) == 0 && ready.Cgroup != "" && cgroup.Populated(ready.Cgroup) {
		left = append(left, "processes in "+ready.Cgroup)
	}
	return strings.Join(left, ", ")
}
