// Command sim runs the simulation for as long as is wanted, seed after seed,
// on one core, and stops at the first broken invariant with its story:
//
//	go run ./bench/sim --minutes 5 --seed 1 --json
//
// prints {"runs", "steps", "faults", "violations", "least_slack_ms"} and more.
// Exit code 1: an invariant was broken; stderr has its story, with as few faults
// as it needs, and the command that tells it again:
//
//	go run ./bench/sim --seed 7 --nodes 3 --story
//
// Without --nodes the clusters vary with the seed: one to seven nodes, with
// witnesses, learners, fences, of every quorum model. --mix says which faults
// come how often, as crash=3,lag=1.
//
//	go run ./bench/sim --scenario failover --nodes 3,16,64 --runs 50 --json
//
// crashes nodes of clusters that are well otherwise, and prints how long their
// groups took to start elsewhere, in simulated time. With --scenario move an
// operator moves groups, and it prints for how long each ran nowhere: the proof
// that nothing is left of it (1 to 30 ms here), its release, the commit, and the
// order to start.
//
// The test of this folder holds the mutations: broken rules of the product that
// the invariants must find (`go test ./bench/sim -v -run Mutations`; with
// `-args -cpu 10m` it looks for each of them that long).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/sim"
)

func main() {
	debug.SetGCPercent(400)
	o := options{}
	flag.Float64Var(&o.minutes, "minutes", 1, "how long to run, in minutes of real time")
	flag.DurationVar(&o.cpu, "cpu", 0, "how long to run, in the program's own processor time; 0: --minutes counts")
	flag.Uint64Var(&o.cfg.Seed, "seed", 1, "the first seed; the next run takes the next one")
	flag.StringVar(&o.nodes, "nodes", "", "nodes of each cluster; empty: it varies with the seed. Scenarios failover and move take a list, as 3,16,64")
	flag.IntVar(&o.cfg.Witnesses, "witnesses", 0, "of the nodes, with --nodes")
	flag.IntVar(&o.cfg.Learners, "learners", 0, "of the nodes, with --nodes: members without a vote")
	flag.IntVar(&o.cfg.Groups, "groups", 0, "groups of each cluster (default 3)")
	model := flag.String("model", "", "quorum model, with --nodes (default majority_node_set)")
	flag.BoolVar(&o.cfg.Grow, "grow", false, "with --nodes: the cluster begins as a single node's and becomes a majority's of all")
	flag.BoolVar(&o.cfg.Watchdog, "watchdog", false, "with --nodes: every node has a watchdog")
	flag.BoolVar(&o.cfg.Fence, "fence", false, "with --nodes: a fence covers every node")
	flag.DurationVar(&o.cfg.For, "for", time.Minute, "simulated time under faults of each run")
	mix := flag.String("mix", "", "which faults come how often, as crash=3,lag=1; empty: all of them ("+strings.Join(sim.FaultNames(), ", ")+")")
	keep := flag.String("keep", "", "the numbers of the faults that come, as 3,17, or none; empty: all")
	flag.BoolVar(&o.story, "story", false, "run this seed alone and print its story")
	flag.BoolVar(&o.whole, "whole", false, "print the story of a broken invariant as it came, without leaving out faults that it doesn't need")
	flag.BoolVar(&o.json, "json", false, "print the result as one JSON object")
	flag.StringVar(&o.scenario, "scenario", "", "faults | crashes | moves | failover | move (default faults)")
	flag.IntVar(&o.runs, "runs", 50, "crashes of scenario failover, moves of scenario move")
	flag.Parse()
	o.cfg.Model = spec.QuorumModel(*model)

	err := o.read(*mix, *keep)
	found := false
	if err == nil {
		if o.scenario == "failover" || o.scenario == "move" {
			found, err = o.failovers()
		} else {
			found, err = o.search()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(2)
	}
	if found {
		os.Exit(1)
	}
}

type options struct {
	cfg         sim.Config
	nodes       string
	minutes     float64
	cpu         time.Duration
	story       bool
	whole, json bool
	scenario    string
	runs        int
}

func (o *options) read(mix, keep string) (err error) {
	if o.cfg.Mix, err = sim.ParseMix(mix); err != nil {
		return err
	}
	if o.cfg.Keep, err = numbers(keep); err != nil {
		return fmt.Errorf("--keep: %w", err)
	}
	switch o.scenario {
	case "", "faults", "failover", "move":
	case "crashes":
		o.cfg.Crashes = true
	case "moves":
		o.cfg.Crashes, o.cfg.Moves = true, true
	default:
		return fmt.Errorf("no scenario is named %q; there are faults, crashes, moves, failover and move", o.scenario)
	}
	return nil
}

func numbers(text string) ([]int, error) {
	out := []int{}
	switch text {
	case "":
		return nil, nil
	case "none":
		return out, nil
	}
	for _, part := range strings.Split(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number from 1 on", part)
		}
		out = append(out, n)
	}
	return out, nil
}

// config is the configuration of the n-th run.
func (o *options) config(n int) (sim.Config, error) {
	seed := o.cfg.Seed + uint64(n)
	if o.nodes == "" {
		cfg := sim.Vary(seed)
		cfg.For, cfg.Mix, cfg.Keep, cfg.Crashes, cfg.Moves = o.cfg.For, o.cfg.Mix, o.cfg.Keep, o.cfg.Crashes, o.cfg.Moves
		if o.cfg.Groups > 0 {
			cfg.Groups = o.cfg.Groups
		}
		return cfg, nil
	}
	nodes, err := strconv.Atoi(o.nodes)
	if err != nil || nodes < 1 || o.cfg.Witnesses+o.cfg.Learners >= nodes {
		return o.cfg, fmt.Errorf("--nodes %s: give one number, of more nodes than witnesses and learners", o.nodes)
	}
	cfg := o.cfg
	cfg.Seed, cfg.Nodes = seed, nodes
	return cfg, nil
}

// search runs seed after seed until its time is over, or an invariant is broken.
func (o *options) search() (found bool, err error) {
	out := struct {
		Runs             int      `json:"runs"`
		Steps            int      `json:"steps"`
		Faults           int      `json:"faults"`
		Failovers        int      `json:"failovers"`
		Takeovers        int      `json:"takeovers"` // by time alone
		Calls            int      `json:"calls"`     // of clients that read and write keys, judged by what they saw
		Violations       int      `json:"violations"`
		LeastSlack       *float64 `json:"least_slack_ms"` // null: no group was taken over by time alone
		SimulatedMinutes float64  `json:"simulated_minutes"`
		Seed             uint64   `json:"seed,omitempty"` // of the broken invariant
		Violation        string   `json:"violation,omitempty"`
	}{}
	end := time.Now().Add(time.Duration(o.minutes * float64(time.Minute)))
	more := func() bool {
		if o.cpu > 0 {
			return processorTime() < o.cpu
		}
		return time.Now().Before(end)
	}
	for ; out.Runs == 0 || !o.story && !found && more(); out.Runs++ {
		cfg, err := o.config(out.Runs)
		if err != nil {
			return false, err
		}
		r := sim.Run(cfg)
		out.Steps += r.Steps
		out.Faults += r.Faults
		out.Failovers += r.Failovers
		out.Takeovers += r.Takeovers
		out.Calls += r.Calls
		out.SimulatedMinutes += r.Simulated.Minutes()
		if r.LeastSlack < time.Hour {
			slack := float64(r.LeastSlack) / float64(time.Millisecond)
			if out.LeastSlack == nil || slack < *out.LeastSlack {
				out.LeastSlack = &slack
			}
		}
		if found = len(r.Violations) > 0; found {
			out.Violations, out.Seed, out.Violation = len(r.Violations), r.Seed, r.Violations[0]
			if !o.whole && !o.story {
				r = sim.Shrink(r, 60)
			}
		}
		if found || o.story {
			fmt.Fprint(os.Stderr, r.Tell())
		}
	}
	if o.json {
		return found, json.NewEncoder(os.Stdout).Encode(out)
	}
	slack := "none"
	if out.LeastSlack != nil {
		slack = fmt.Sprintf("%.1f ms", *out.LeastSlack)
	}
	fmt.Printf("%d runs, %d steps, %d faults, %d changes of owner, %d violations, least slack %s\n",
		out.Runs, out.Steps, out.Faults, out.Failovers, out.Violations, slack)
	return found, nil
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
