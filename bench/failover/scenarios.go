package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// paused is how long SIGSTOP lasts: more than lease, stop and kill and a
// takeover.
const paused = 2 * time.Second

// place moves the group to the leader, or away from it, and returns its owner.
// Owners change from run to run.
func (b *netnsBench) place(ctx context.Context, onLeader bool) (owner string, err error) {
	s, err := b.Settled(ctx)
	if err != nil {
		return "", err
	}
	b.turn++
	want := s.Leader
	if !onLeader {
		names := slices.DeleteFunc(b.Names(), func(n string) bool { return n == s.Leader })
		want = names[b.turn%len(names)]
	}
	if err := b.Move(ctx, want); err != nil {
		return "", err
	}
	if err := b.calm(ctx, want); err != nil {
		return "", err
	}
	// Leadership may have gone elsewhere meanwhile; then once more.
	if s, err = b.Status(ctx); err == nil && (s.Leader == want) != onLeader {
		return b.place(ctx, onLeader)
	}
	return want, err
}

// calm waits until the client hears the owner, and nothing else has happened for
// a while.
func (b *netnsBench) calm(ctx context.Context, owner string) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	b.prober.Reset()
	for _, kind := range []string{faultlab.ICMP, faultlab.HTTP} {
		if _, err := b.prober.First(ctx, func(a faultlab.Answer) bool { return a.Kind == kind && a.By == owner }); err != nil {
			return fmt.Errorf("%s does not answer by %s: %w", owner, kind, err)
		}
	}
	b.prober.Reset() // what comes from here on shows how silence began
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
	}
	b.watch.Reset()
	return nil
}

// measure does the harm and waits for answers that count, by ICMP and by HTTP.
func (b *netnsBench) measure(ctx context.Context, harm func() error, counts func(faultlab.Answer) bool) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	began := time.Now()
	if err := harm(); err != nil {
		return s, err
	}
	for _, kind := range []string{faultlab.ICMP, faultlab.HTTP} {
		a, err := b.prober.First(ctx, func(a faultlab.Answer) bool { return a.Kind == kind && a.Came.After(began) && counts(a) })
		if err != nil {
			return s, err
		}
		if kind == faultlab.ICMP {
			s.icmp = a.Came.Sub(began)
		} else {
			s.http = a.Came.Sub(began)
		}
	}
	select { // whoever thinks that it owns the address still
	case <-ctx.Done():
	case <-time.After(afterward):
	}
	s.silence, s.quiet = b.prober.Silence(faultlab.ICMP, began), b.prober.Silence(faultlab.HTTP, began)
	return s, nil
}

// mended ends the run: everything is as before, and no two held the address
// until then.
func (b *netnsBench) mended(ctx context.Context, s sample, apply bool) (sample, error) {
	if err := b.Lab.Heal(); err != nil {
		return s, err
	}
	if apply {
		if err := b.Apply(ctx); err != nil {
			return s, err
		}
	}
	if _, err := b.Settled(ctx); err != nil {
		return s, err
	}
	var err error
	s.overlap, err = b.watch.Overlap()
	return s, err
}

func not(owner string) func(faultlab.Answer) bool {
	return func(a faultlab.Answer) bool { return a.By != owner }
}

func (b *netnsBench) signal(owner string, sig syscall.Signal) func() error {
	return func() error {
		_, err := netlab.Signal(b.Namespace(owner), sig)
		return err
	}
}

func (b *netnsBench) crashOf(ctx context.Context, leader bool) (sample, error) {
	owner, err := b.place(ctx, leader)
	if err != nil {
		return sample{}, err
	}
	s, err := b.measure(ctx, b.signal(owner, syscall.SIGKILL), not(owner))
	if err != nil {
		return s, err
	}
	s.what = owner + " killed, " + role(leader)
	return b.mended(ctx, s, true)
}

func role(leader bool) string {
	if leader {
		return "the leader"
	}
	return "a follower"
}

func (b *netnsBench) crash(ctx context.Context) (sample, error)       { return b.crashOf(ctx, false) }
func (b *netnsBench) crashLeader(ctx context.Context) (sample, error) { return b.crashOf(ctx, true) }

func (b *netnsBench) cut(ctx context.Context, leader bool, side string) (sample, error) {
	owner, err := b.place(ctx, leader)
	if err != nil {
		return sample{}, err
	}
	s, err := b.measure(ctx, func() error { return b.Lab.Inflict(faultlab.Isolated(owner, side)) }, not(owner))
	if err != nil {
		return s, err
	}
	s.what = fmt.Sprintf("%s, %s: %s", owner, role(leader), map[string]string{"": "cut off", "out": "what it sends is cut", "in": "what it gets is cut"}[side])
	return b.mended(ctx, s, false)
}

func (b *netnsBench) partition(ctx context.Context) (sample, error) {
	return b.cut(ctx, b.turn%2 == 1, "")
}

func (b *netnsBench) oneway(ctx context.Context) (sample, error) {
	return b.cut(ctx, b.turn%4 >= 2, []string{"out", "in"}[b.turn%2])
}

func (b *netnsBench) pause(ctx context.Context) (sample, error) {
	leader := b.turn%2 == 1
	owner, err := b.place(ctx, leader)
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	s, err := b.measure(ctx, b.signal(owner, syscall.SIGSTOP), not(owner))
	if err == nil {
		select {
		case <-ctx.Done():
		case <-time.After(paused - time.Since(began)):
		}
	}
	if err := errors.Join(err, b.signal(owner, syscall.SIGCONT)()); err != nil {
		return s, err
	}
	s.what = owner + " stopped, " + role(leader)
	return b.mended(ctx, s, false)
}

func (b *netnsBench) move(ctx context.Context) (sample, error) {
	s, err := b.Settled(ctx)
	if err != nil {
		return sample{}, err
	}
	b.turn++
	owner := s.Groups[0].Owner
	names := slices.DeleteFunc(b.Names(), func(n string) bool { return n == owner })
	to := names[b.turn%len(names)]
	if err := b.calm(ctx, owner); err != nil {
		return sample{}, err
	}
	m, err := b.measure(ctx, func() error { return b.Run(ctx, "move", faultlab.Group, to, "--dir", b.Dir) },
		func(a faultlab.Answer) bool { return a.By == to })
	if err != nil {
		return m, err
	}
	m.what = fmt.Sprintf("%s to %s, leader %s", owner, to, s.Leader)
	return b.mended(ctx, m, false)
}

func (b *netnsBench) process(ctx context.Context) (sample, error) {
	s, err := b.Settled(ctx)
	if err != nil {
		return sample{}, err
	}
	owner := s.Groups[0].Owner
	if err := b.calm(ctx, owner); err != nil {
		return sample{}, err
	}
	pid, err := b.server(owner)
	if err != nil {
		return sample{}, err
	}
	var harmed time.Time
	m, err := b.measure(ctx, func() error {
		err := syscall.Kill(pid, syscall.SIGKILL)
		harmed = time.Now()
		return err
	}, func(a faultlab.Answer) bool { return a.Kind == faultlab.ICMP || a.Sent.After(harmed) })
	if err != nil {
		return m, err
	}
	m.icmp = 0 // the address stays
	m.what = "on " + owner
	return b.mended(ctx, m, false)
}

// server is the process that serves the group on a node.
func (b *netnsBench) server(node string) (int, error) {
	pids, err := netlab.Processes(b.Namespace(node))
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: not it
		if args := strings.Split(string(text), "\x00"); len(args) > 2 && args[1] == "demo" && args[2] == "web" {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no process on %s serves the group", node)
}
