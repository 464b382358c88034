package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

// A node with reset = "sysrq" resets itself when what it ran without a lease is not
// proved gone in time. The kernel kills the monitor, with all that it hosts, at the
// lease's end and stop_within; what is there K later hangs in the kernel, and others
// may start its group now. It is the agent that looks, as it lives when the monitor
// doesn't; a hardware watchdog alone helps where the agent is dead as well.
//
// Nothing counts on it: W is as long as without it. So it makes no group exclusive,
// and the shorter the time that two run at once, the better.

// sysrqTrigger takes one letter for a request to the kernel. root may ask for any of
// them there: /proc/sys/kernel/sysrq is about keyboards only
// (linux/Documentation/admin-guide/sysrq.rst).
const sysrqTrigger = "/proc/sysrq-trigger"

// resetWord asks for a reset at once, without a sync or an unmount.
const resetWord = "b"

// lookAgainAfter is how soon what is left of a monitor is looked at again.
const lookAgainAfter = 20 * time.Millisecond

// lookPatience is how long one look may take. /proc hangs with a process that holds
// its memory's lock and hangs: what can't be looked at is not proved gone.
const lookPatience = time.Second

// openTrigger opens what resets the node. It stays open, so that nothing has to be
// found when it is needed.
func openTrigger(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	const so = "this node can't reset itself"
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: the kernel has no %s (CONFIG_MAGIC_SYSRQ), or this container doesn't show it: use a fence or a watchdog, and remove reset", so, path)
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return nil, fmt.Errorf("%s: the agent may not write to %s (%w): run it as root, outside of a container that makes /proc read-only, or use a fence or a watchdog, and remove reset", so, path, err)
	}
	return nil, fmt.Errorf("%s: %w", so, err)
}

// hosts is a monitor process as resetting needs it (monitor.Process).
type hosts interface {
	Grace() time.Duration   // after the lease's end; 0: nothing runs
	Ended() <-chan struct{} // the process is gone
	Remains() string        // what is left of it and of what it hosts; "": nothing. It may hang
}

// resetter resets the node when what it ran is not gone in time.
type resetter struct {
	trigger io.Writer
	lease   func() spec.Instant // this node's, its end as it was passed on last
	tell    func(text string)
}

// watch sees one monitor to its end, and until nothing is left of it. A word on poke
// says that it may have started something.
func (r *resetter) watch(p hosts, poke <-chan struct{}) error {
	timer, err := boottime.NewTimer()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = timer.Run(ctx) }()
	ended := p.Ended()
	var next, slept spec.Instant // when to look again (0: when it is told to), and since when that is awaited
	var anew spec.Instant        // what stood still along with this agent may stay until then
	for {
		select {
		case <-ended:
			ended = nil
		default:
		}
		grace := p.Grace()
		now := boottime.Now()
		switch late := !now.Before(r.due(grace)); {
		case !late:
			anew = 0
		case anew == 0 && next != 0 && now.Sub(max(next, slept)) > lookAgainAfter:
			// It looks too late. The host may have stood still (a suspend, a freezer),
			// and the kernel may be killing only now: that has its time, once.
			anew = now.Add(grace)
		}
		next = 0
		if grace == 0 {
			if ended == nil {
				return nil
			}
		} else {
			due := max(r.due(grace), anew)
			if late := !now.Before(due); late || ended == nil {
				left := look(p)
				switch {
				case left == "" && ended == nil:
					return nil
				case late && left != "":
					// Meanwhile the lease may have been renewed, or what had the least grace be gone.
					if g := p.Grace(); g != 0 && !boottime.Now().Before(r.due(g)) {
						r.reset(left)
						return nil
					}
				}
				due = max(due, now.Add(lookAgainAfter))
				if ended == nil {
					due = now.Add(lookAgainAfter)
				}
			}
			next = due
		}
		timer.Set(next)
		slept = boottime.Now()
		select {
		case <-ended:
			ended = nil
		case <-poke:
		case <-timer.C:
			timer.Fired()
		}
	}
}

// due is when all has to be gone.
func (r *resetter) due(grace time.Duration) spec.Instant { return r.lease().Add(grace) }

// look is what is left of a monitor.
func look(p hosts) string {
	answer := make(chan string, 1)
	go func() { answer <- p.Remains() }()
	select {
	case left := <-answer:
		return left
	case <-time.After(lookPatience):
		return fmt.Sprintf("something that /proc can't show within %s", lookPatience)
	}
}

// reset resets the node. It comes back only where the kernel doesn't.
func (r *resetter) reset(left string) {
	r.tell("this node is reset (sysrq): its lease is over, and what it ran is not gone in time: " + left)
	_, err := io.WriteString(r.trigger, resetWord)
	if err == nil {
		err = errors.New("the kernel took the request and went on")
	}
	r.tell(fmt.Sprintf("this node could not be reset (%v), and still has %s: turn it off by hand", err, left))
}

// openReset opens the trigger where the node is to reset itself. What is not there is
// told, in the log and by status: nothing depends on it. It returns what closes it.
func (n *Node) openReset() (end func()) {
	if n.files.conf.Reset == "" {
		return func() {}
	}
	path := n.cfg.SysrqTrigger
	if path == "" {
		path = sysrqTrigger
	}
	f, err := openTrigger(path)
	if err != nil {
		n.noReset = err.Error()
		n.log.Error(n.noReset)
		return func() {}
	}
	n.resetter = &resetter{trigger: f, lease: func() spec.Instant { return spec.Instant(n.leaseEnd.Load()) }, tell: func(text string) { n.log.Error(text) }}
	n.log.Info("this node resets itself when what it ran without a lease is not gone in time", "trigger", path)
	return func() { f.Close() }
}

// watchRemains has the resetter watch a monitor, beside all else.
func (n *Node) watchRemains(s *seat, p *monitor.Process) {
	poke := make(chan struct{}, 1)
	s.poke = poke
	s.watched.Add(1)
	n.spawn(func() error {
		defer s.watched.Add(-1)
		return n.resetter.watch(p, poke)
	})
}

// stuck is told by a monitor that can't get rid of what an earlier agent's has left.
// What an earlier one of this agent has, is watched (as this one is).
func (n *Node) stuck(s *seat, left string) {
	if n.resetter == nil || s.freezer || s.watched.Load() > 1 || boottime.Now().Before(n.resetter.lease()) {
		return
	}
	n.resetter.reset(left)
}
