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

var scenarios = []string{crash, crashLeader, partition, oneway, pause, move, process, steady}

// netnsConfig says what to measure.
type netnsConfig struct {
	scenario      string
	nodes, voters int
	runs          int
	minutes, loss float64 // steady
	asJSON        bool
	log           io.Writer
}

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
	Stall   float64  `json:"stall_max_ms"`           // the machine as a whole stood still
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
	stalls *faultlab.Stalls
	log    io.Writer
	turn   int
}

// sample is what one run measured; a zero is not measured.
type sample struct {
	icmp, http, silence, quiet, overlap time.Duration
	what                                string // that was done to whom, for people
}

func runNetns(ctx context.Context, conf netnsConfig) (err error) {
	scenario, nodes, runs, log := conf.scenario, conf.nodes, conf.runs, conf.log
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
	c, err := faultlab.Up(ctx, faultlab.Config{Program: program, Dir: home, Nodes: nodes, Voters: conf.voters, Out: log})
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
	b.stalls = faultlab.NewStalls()
	defer b.stalls.Close()

	if scenario == steady {
		res, err := b.steadily(ctx, time.Duration(conf.minutes*float64(time.Minute)), conf.loss)
		if err != nil {
			return err
		}
		if conf.asJSON {
			return printJSON(res)
		}
		fmt.Printf("steady, %d nodes: %.1f minutes with %g%% loss and %d busy processes: %d failovers, a node taken for lost %d times\n",
			nodes, res.Minutes, res.Loss, res.Busy, res.Failovers, res.Downs)
		return nil
	}
	one := map[string]func(context.Context) (sample, error){
		crash: b.crash, crashLeader: b.crashLeader, partition: b.partition, oneway: b.oneway, pause: b.pause, move: b.move, process: b.process,
	}[scenario]
	var all []sample
	var stall time.Duration
	for i := range runs {
		b.stalls.Reset()
		s, err := one(ctx)
		if err != nil {
			return fmt.Errorf("%s, run %d: %w", scenario, i+1, err)
		}
		fmt.Fprintf(log, "%s, run %d (%s): icmp %v, http %v, silence %v, http silence %v, overlap %v, machine stood still %v\n", scenario, i+1, s.what, s.icmp, s.http, s.silence, s.quiet, s.overlap, b.stalls.Longest())
		stall = max(stall, b.stalls.Longest())
		all = append(all, s)
	}
	res, err := b.sum(ctx, scenario, all)
	if err != nil {
		return err
	}
	res.Stall = ms(stall)
	if told := b.watch.Overlaps(); len(told) > 0 {
		fmt.Fprintf(os.Stderr, "two nodes held the address at once:\n%s\n", strings.Join(told, "\n"))
	}
	if told := b.prober.Backward(); len(told) > 0 {
		return fmt.Errorf("an owner that was followed still answered:\n%s", strings.Join(told, "\n"))
	}
	if conf.asJSON {
		return printJSON(res)
	}
	fmt.Printf("%s, %d nodes: %d runs, median %.0f ms, 99th percentile %.0f ms, at most %.0f ms; two nodes at once for %.1f ms at most\n",
		scenario, nodes, res.Runs, res.Median, res.P99, res.Max, res.Overlap)
	return nil
}

func printJSON(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	fmt.Println(string(data))
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

// probe is how long an ip_address listens for another owner before it takes the
// address: its default.
const probe = 25 * time.Millisecond

// own is how long the group's resources take by themselves to stop and start,
// without a cluster: the server's program from its start to the first connection
// and from its signal to its end, one process in the client's namespace; and the
// 25 ms that the address listens for another owner. Median of 9. What the cluster
// adds to that is over_own: the guardian that starts and ends with the program, the
// records that are synced before, the address added, taken away and read back, and
// the order's, the stop's and the owner's way through the database.
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
