package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Scenarios of the lab.
const (
	crash       = "crash"        // the owner, a follower, loses all its processes at once
	crashLeader = "crash-leader" // the same of an owner that is Raft's leader
	partition   = "partition"    // the owner's link is cut; by turns a follower and the leader
	oneway      = "oneway"       // only what it sends is cut, or what it gets, by turns
	pause       = "pause"        // all of its processes are stopped for longer than the lease
	move        = "move"         // an operator's move
	process     = "process"      // the resource's process is killed
)

var scenarios = []string{crash, crashLeader, partition, oneway, pause, move, process}

// paused is how long SIGSTOP lasts: more than lease, stop and kill and a
// takeover.
const paused = 2 * time.Second

// figures are of some times, in milliseconds.
type figures struct {
	Median float64 `json:"median_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

func figuresOf(times []time.Duration) *figures {
	if len(times) == 0 {
		return nil
	}
	t := slices.Clone(times)
	slices.Sort(t)
	n := len(t)
	// The smallest value that at least 99 of 100 are not above.
	return &figures{Median: ms((t[(n-1)/2] + t[n/2]) / 2), P99: ms(t[(n*99+99)/100-1]), Max: ms(t[n-1])}
}

// labResult is a scenario's in the lab. The figures at its top are from the
// fault to the first ICMP answer of another node (move: the client's silence
// over HTTP; process: the first HTTP answer).
type labResult struct {
	Scenario string `json:"scenario"`
	Nodes    int    `json:"nodes"`
	Runs     int    `json:"runs"`
	figures
	Overlap float64  `json:"overlap_max_ms"`         // two nodes held the address
	HTTP    *figures `json:"http,omitempty"`         // to the first HTTP answer of another node
	Silence *figures `json:"silence,omitempty"`      // between two ICMP answers, whoever gave them
	Quiet   *figures `json:"http_silence,omitempty"` // the same of HTTP
	Own     *float64 `json:"own_ms,omitempty"`       // move: the resources' own stop and start
	Over    *figures `json:"over_own,omitempty"`     // move: HTTP's silence less that
}

type netnsBench struct {
	*faultlab.Cluster
	prober *faultlab.Prober
	watch  *faultlab.Watch
	log    io.Writer
	turn   int
}

// sample is what one run measured; a zero is not measured.
type sample struct {
	icmp, http, silence, quiet, overlap time.Duration
}

func runNetns(ctx context.Context, scenario string, nodes, voters, runs int, asJSON bool, log io.Writer) (err error) {
	if !slices.Contains(scenarios, scenario) {
		return fmt.Errorf("there is no scenario %q; there are %s", scenario, strings.Join(scenarios, ", "))
	}
	if nodes < 3 || nodes > 90 {
		return fmt.Errorf("%d nodes: the lab takes 3 to 90", nodes)
	}
	if err := netlab.Allowed(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "clusterplan-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			err = fmt.Errorf("%w; its files are kept in %s", err, dir)
		}
	}()
	program := filepath.Join(dir, "clusterplan")
	if err := faultlab.Build(ctx, program); err != nil {
		return err
	}
	home := filepath.Join(dir, "lab")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	c, err := faultlab.Up(ctx, faultlab.Config{Program: program, Dir: home, Nodes: nodes, Voters: voters, Out: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	b := &netnsBench{Cluster: c, log: log}
	if b.watch, err = faultlab.NewWatch(c, faultlab.Address); err != nil {
		return err
	}
	defer b.watch.Close()
	if b.prober, err = faultlab.NewProber(c, faultlab.Address); err != nil {
		return err
	}
	defer b.prober.Close()

	one := map[string]func(context.Context) (sample, error){
		crash: b.crash, crashLeader: b.crashLeader, partition: b.partition, oneway: b.oneway, pause: b.pause, move: b.move, process: b.process,
	}[scenario]
	var all []sample
	for i := range runs {
		s, err := one(ctx)
		if err != nil {
			return fmt.Errorf("%s, run %d: %w", scenario, i+1, err)
		}
		fmt.Fprintf(log, "%s, run %d: icmp %v, http %v, silence %v, http silence %v, overlap %v\n", scenario, i+1, s.icmp, s.http, s.silence, s.quiet, s.overlap)
		all = append(all, s)
	}
	res, err := b.sum(ctx, scenario, all)
	if err != nil {
		return err
	}
	if told := b.watch.Overlaps(); len(told) > 0 {
		fmt.Fprintf(os.Stderr, "two nodes held the address at once:\n%s\n", strings.Join(told, "\n"))
	}
	if told := b.prober.Backward(); len(told) > 0 {
		return fmt.Errorf("an owner that was followed still answered:\n%s", strings.Join(told, "\n"))
	}
	if asJSON {
		data, err := json.Marshal(res)
		if err != nil {
			return err
		}
		fmt.Println(string(data))
		return nil
	}
	fmt.Printf("%s, %d nodes: %d runs, median %.0f ms, 99th percentile %.0f ms, at most %.0f ms; two nodes at once for %.1f ms at most\n",
		scenario, nodes, res.Runs, res.Median, res.P99, res.Max, res.Overlap)
	return nil
}

func (b *netnsBench) sum(ctx context.Context, scenario string, all []sample) (labResult, error) {
	r := labResult{Scenario: scenario, Nodes: b.Nodes, Runs: len(all)}
	of := func(pick func(sample) time.Duration) []time.Duration {
		var out []time.Duration
		for _, s := range all {
			if d := pick(s); d > 0 {
				out = append(out, d)
			}
		}
		return out
	}
	icmp, http := of(func(s sample) time.Duration { return s.icmp }), of(func(s sample) time.Duration { return s.http })
	quiet := of(func(s sample) time.Duration { return s.quiet })
	r.HTTP, r.Silence, r.Quiet = figuresOf(http), figuresOf(of(func(s sample) time.Duration { return s.silence })), figuresOf(quiet)
	for _, s := range all {
		r.Overlap = max(r.Overlap, ms(s.overlap))
	}
	top := figuresOf(icmp)
	switch scenario {
	case move:
		top = r.Quiet
		own, err := b.own(ctx)
		if err != nil {
			return r, err
		}
		at := ms(own)
		r.Own = &at
		var over []time.Duration
		for _, q := range quiet {
			over = append(over, max(0, q-own))
		}
		r.Over = figuresOf(over)
	case process:
		top = r.HTTP
	}
	if top == nil {
		return r, errors.New("nothing was measured")
	}
	r.figures = *top
	return r, nil
}

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
	return b.mended(ctx, s, true)
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
	return b.mended(ctx, s, false)
}

func (b *netnsBench) partition(ctx context.Context) (sample, error) {
	return b.cut(ctx, b.turn%2 == 1, "")
}

func (b *netnsBench) oneway(ctx context.Context) (sample, error) {
	return b.cut(ctx, b.turn%4 >= 2, []string{"out", "in"}[b.turn%2])
}

func (b *netnsBench) pause(ctx context.Context) (sample, error) {
	owner, err := b.place(ctx, b.turn%2 == 1)
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

// probe is how long an ip_address listens for another owner before it takes the
// address: its default.
const probe = 25 * time.Millisecond

// own is how long the group's resources take by themselves to stop and start,
// without a cluster: the server to its first answer and to its end, in the
// client's namespace; the address listens for another owner. Median of 9.
func (b *netnsBench) own(ctx context.Context) (time.Duration, error) {
	var times []time.Duration
	at := net.JoinHostPort(b.Record.Seats[netlab.Client].Address().String(), "8077")
	for range 9 {
		cmd := exec.CommandContext(ctx, b.Program, "demo", "web", "--listen", at)
		began := time.Now()
		if err := netlab.Start(b.Namespace(netlab.Client), cmd); err != nil {
			return 0, err
		}
		for {
			conn, err := netlab.Dial(ctx, b.Namespace(netlab.Client), "tcp", at)
			if err == nil {
				conn.Close()
				break
			}
			if time.Since(began) > waitLimit {
				return 0, errors.Join(fmt.Errorf("demo web does not answer at %s: %w", at, err), cmd.Process.Kill(), cmd.Wait())
			}
			time.Sleep(time.Millisecond)
		}
		started := time.Now()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return 0, err
		}
		_ = cmd.Wait() // ended by the signal, or by itself
		times = append(times, started.Sub(began)+time.Since(started)+probe)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
