package faultlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Fault is something that goes wrong with a node, for a while.
type Fault struct {
	Name string
	Disk bool // needs Config.Disks
	Link bool // needs Config.Links
	// do has it happen to a node; other is another one. It returns when it is over,
	// as far as it is over by itself: mend does the rest.
	do func(ctx context.Context, r *Runner, node, other string) error
}

// longer is how long stops and cuts last: more than a lease and a takeover, also
// on a busy machine.
func (c *Cluster) longer() time.Duration {
	if c.Model == string(spec.SingleQuorum) {
		return 7 * time.Second // its lease outlasts the device's and a challenge
	}
	return 2500 * time.Millisecond
}

func kill(agent, monitor bool) func(context.Context, *Runner, string, string) error {
	return func(ctx context.Context, r *Runner, node, _ string) error {
		s, err := r.Status(ctx)
		if err != nil {
			return err
		}
		n := Node(s, node)
		for _, p := range []struct {
			on  bool
			pid int
		}{{agent, n.PID}, {monitor, n.MonitorPID}} {
			if p.on && p.pid != 0 { // 0: the other fault of the round was faster
				if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return err
				}
			}
		}
		wait(ctx, time.Second)
		return nil
	}
}

// stopped stops processes of a node for a while: all, or one of them.
func stopped(which string) func(context.Context, *Runner, string, string) error {
	return func(ctx context.Context, r *Runner, node, _ string) error {
		if which == "" {
			if _, err := netlab.Signal(r.Namespace(node), syscall.SIGSTOP); err != nil {
				return err
			}
			wait(ctx, r.longer())
			_, err := netlab.Signal(r.Namespace(node), syscall.SIGCONT)
			return err
		}
		s, err := r.Status(ctx)
		if err != nil {
			return err
		}
		pid := Node(s, node).PID
		if which == "monitor" {
			pid = Node(s, node).MonitorPID
		}
		if pid == 0 {
			return nil // killed by the other fault of the round
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		wait(ctx, r.longer())
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err // gone: the kernel has killed it at its lease's end
		}
		return nil
	}
}

// wired is a fault of the switch, for a while.
func wired(faults func(node, other string) []netlab.Fault) func(context.Context, *Runner, string, string) error {
	return func(ctx context.Context, r *Runner, node, other string) error {
		if err := r.Lab.Inflict(faults(node, other)...); err != nil {
			return err
		}
		wait(ctx, r.longer())
		return nil
	}
}

// Faults are all that there are.
func Faults() []Fault {
	return []Fault{
		{Name: "agent killed", do: kill(true, false)},
		{Name: "monitor killed", do: kill(false, true)},
		{Name: "agent and monitor killed", do: kill(true, true)},
		{Name: "everything killed", do: func(ctx context.Context, r *Runner, node, _ string) error {
			_, err := netlab.Signal(r.Namespace(node), syscall.SIGKILL)
			wait(ctx, time.Second)
			return err
		}},
		{Name: "everything stopped", do: stopped("")},
		{Name: "agent stopped", do: stopped("agent")},
		{Name: "monitor stopped", do: stopped("monitor")},
		{Name: "isolated", do: wired(func(node, _ string) []netlab.Fault { return []netlab.Fault{Isolated(node, "")} })},
		{Name: "mute", do: wired(func(node, _ string) []netlab.Fault { return []netlab.Fault{Isolated(node, "out")} })},
		{Name: "deaf", do: wired(func(node, _ string) []netlab.Fault { return []netlab.Fault{Isolated(node, "in")} })},
		{Name: "bridge", do: wired(func(node, other string) []netlab.Fault {
			return []netlab.Fault{{Kind: netlab.FaultCut, From: node, To: other}, {Kind: netlab.FaultCut, From: other, To: node}}
		})},
		{Name: "split", do: func(ctx context.Context, r *Runner, node, other string) error {
			// Two on one side: a minority of five, the majority of three.
			return wired(func(node, other string) (cuts []netlab.Fault) {
				for _, rest := range r.Names() {
					if rest == node || rest == other {
						continue
					}
					for _, side := range []string{node, other} {
						cuts = append(cuts, netlab.Fault{Kind: netlab.FaultCut, From: side, To: rest}, netlab.Fault{Kind: netlab.FaultCut, From: rest, To: side})
					}
				}
				return cuts
			})(ctx, r, node, other)
		}},
		{Name: "one way to one", do: wired(func(node, other string) []netlab.Fault {
			return []netlab.Fault{{Kind: netlab.FaultCut, From: node, To: other}}
		})},
		{Name: "flapping link", do: func(ctx context.Context, r *Runner, node, _ string) error {
			for i := range 14 {
				// Not Heal: another fault may go on.
				if err := r.Lab.Unplug(node); err != nil {
					return err
				}
				wait(ctx, time.Duration(50+50*(i%4))*time.Millisecond)
				if err := r.Lab.Plug(node); err != nil {
					return err
				}
				wait(ctx, time.Duration(50+40*(i%5))*time.Millisecond)
			}
			return ctx.Err()
		}},
		{Name: "one of two links", Link: true, do: func(ctx context.Context, r *Runner, node, _ string) error {
			return wired(func(node, _ string) []netlab.Fault {
				return []netlab.Fault{{Kind: netlab.FaultIsolate, From: node, Network: r.network()}}
			})(ctx, r, node, "")
		}},
		{Name: "loss on one of two links", Link: true, do: func(ctx context.Context, r *Runner, node, _ string) error {
			return wired(func(string, string) []netlab.Fault {
				return []netlab.Fault{{Kind: netlab.FaultLoss, Percent: 20, Network: r.network()}}
			})(ctx, r, node, "")
		}},
		{Name: "links in turn", Link: true, do: func(ctx context.Context, r *Runner, node, _ string) error {
			// The one that is back carries the frames before the other one goes.
			for i := range 6 {
				network := []string{Lan, Spare}[i%2]
				if err := r.Lab.Unplug(node, network); err != nil {
					return err
				}
				wait(ctx, 400*time.Millisecond)
				if err := r.Lab.Plug(node, network); err != nil {
					return err
				}
				wait(ctx, 100*time.Millisecond)
			}
			return ctx.Err()
		}},
		{Name: "20% loss", do: wired(func(string, string) []netlab.Fault { return []netlab.Fault{{Kind: netlab.FaultLoss, Percent: 20}} })},
		{Name: "moved", do: func(ctx context.Context, r *Runner, node, _ string) error {
			// An operator, in between; refused where the node is just down.
			if err := r.Run(ctx, "move", Group, node, "--dir", r.Dir); err != nil {
				r.say("move to %s: refused", node)
			}
			wait(ctx, 300*time.Millisecond)
			return ctx.Err()
		}},
		{Name: "full disk", Disk: true, do: func(ctx context.Context, r *Runner, node, _ string) error {
			if err := r.fill(node); err != nil {
				return err
			}
			// Someone writes meanwhile: the database has to find out.
			wait(ctx, r.longer())
			return r.empty(node)
		}},
		{Name: "slow disk", Disk: true, do: func(ctx context.Context, r *Runner, node, _ string) error { return r.slow(ctx, node, r.longer()) }},
	}
}

// network is one of two.
func (r *Runner) network() string { return []string{Lan, Spare}[r.turn.Add(1)%2] }

// FaultNamed finds a fault.
func FaultNamed(name string) (Fault, error) {
	var names []string
	for _, f := range Faults() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Fault{}, fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(names, ", "))
}

// Runner has things go wrong in a cluster, round by round, and checks what must
// hold: two nodes never hold the address, no owner that was followed answers,
// the database stays linearizable, and afterwards all is well again.
type Runner struct {
	*Cluster
	Watch  *Watch
	Prober *Prober
	Rand   *rand.Rand
	Log    io.Writer
	Total  Outcome // of all rounds
	rounds int
	turn   atomic.Uint32 // which link is hit
}

// NewRunner begins to watch and to probe; Close ends that.
func NewRunner(c *Cluster, seed uint64, log io.Writer) (*Runner, error) {
	if log == nil {
		log = io.Discard
	}
	r := &Runner{Cluster: c, Rand: rand.New(rand.NewPCG(seed, 1)), Log: log}
	var err error
	if r.Watch, err = NewWatch(c, Address); err != nil {
		return nil, err
	}
	if r.Prober, err = NewProber(c, Address); err != nil {
		r.Watch.Close()
		return nil, err
	}
	return r, nil
}

// Close ends watching and probing.
func (r *Runner) Close() {
	r.Prober.Close()
	r.Watch.Close()
}

func (r *Runner) say(format string, args ...any) {
	fmt.Fprintf(r.Log, "%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// Round has faults happen, each to a node of its own (the group's owner more
// often than not), while clients write to the database; then all is mended. The
// error is about what must hold, or that the lab itself failed.
func (r *Runner) Round(ctx context.Context, faults ...Fault) error {
	r.rounds++
	s, err := r.Settled(ctx)
	if err != nil {
		return err
	}
	nodes := r.Names()
	r.Rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	if owner := s.Groups[0].Owner; r.Rand.IntN(4) > 0 {
		i := slices.Index(nodes, owner)
		nodes[0], nodes[i] = nodes[i], nodes[0]
	}
	history, err := NewHistory(r.Cluster, fmt.Sprintf("round-%d", r.rounds), r.Rand.Uint64())
	if err != nil {
		return err
	}
	wait(ctx, 200*time.Millisecond)
	done := make(chan error, len(faults))
	for i, f := range faults {
		node, other := nodes[i%len(nodes)], nodes[(i+1+r.Rand.IntN(len(nodes)-1))%len(nodes)]
		if node == other {
			other = nodes[(i+1)%len(nodes)]
		}
		r.say("round %d: %s: %s (%s)", r.rounds, f.Name, node, other)
		go func() {
			err := f.do(ctx, r, node, other)
			if err != nil {
				err = fmt.Errorf("%s of %s: %w", f.Name, node, err)
			}
			done <- err
		}()
	}
	var errs []error
	for range faults {
		errs = append(errs, <-done)
	}
	errs = append(errs, r.mend(ctx))
	out, err := history.Stop()
	r.Total.Operations += out.Operations
	r.Total.Unknown += out.Unknown
	r.Total.Refused += out.Refused
	r.say("round %d: %d operations, %d of unknown outcome, %d refused", r.rounds, out.Operations, out.Unknown, out.Refused)
	errs = append(errs, err, r.Check())
	return errors.Join(errs...)
}

// mend heals and starts what is down, and waits until all is well: everything
// up and online, the address on its owner alone, and its owner answering.
func (r *Runner) mend(ctx context.Context) error {
	errs := []error{r.Lab.Heal()}
	for _, node := range r.Names() {
		_, err := netlab.Signal(r.Namespace(node), syscall.SIGCONT)
		errs = append(errs, err)
		if r.Disks {
			r.thaw(node)
			errs = append(errs, r.empty(node))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// What was cut a moment ago may not have a quorum for an apply yet.
	var err error
	for range 5 {
		if err = r.Apply(ctx); err == nil || ctx.Err() != nil {
			break
		}
		r.say("apply: %v", err)
		wait(ctx, time.Second)
	}
	if err != nil {
		return err
	}
	if _, err := r.Settled(ctx); err != nil {
		return err
	}
	r.Prober.Reset()
	if _, err = r.Until(ctx, "the group's owner alone has its address, and answers", func(s client.Status) bool {
		if !settled(s) || !slices.Equal(r.Watch.Holders(Address), []string{s.Groups[0].Owner}) {
			return false
		}
		answers := r.Prober.Answers()
		return slices.ContainsFunc(answers, func(a Answer) bool { return a.Kind == ICMP && a.By == s.Groups[0].Owner }) &&
			slices.ContainsFunc(answers, func(a Answer) bool { return a.Kind == HTTP && a.By == s.Groups[0].Owner })
	}); err != nil {
		return fmt.Errorf("%w; the address is on %v", err, r.Watch.Holders(Address))
	}
	return nil
}

// Check is what has been broken so far of what must always hold.
func (r *Runner) Check() error {
	var errs []error
	if _, err := r.Watch.Overlap(); err != nil {
		errs = append(errs, err)
	}
	if told := r.Watch.Overlaps(); len(told) > 0 {
		errs = append(errs, fmt.Errorf("two nodes held the address at once:\n  %s", strings.Join(told, "\n  ")))
	}
	if told := r.Prober.Backward(); len(told) > 0 {
		errs = append(errs, fmt.Errorf("an owner that was followed still answered:\n  %s", strings.Join(told, "\n  ")))
	}
	return errors.Join(errs...)
}
