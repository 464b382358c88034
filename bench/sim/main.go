// Command sim runs the simulation for as long as is wanted, seed after seed,
// on one core, and stops at the first broken invariant with its story:
//
//	go run ./bench/sim --minutes 5 --seed 1 --json
//
// prints {"runs", "steps", "faults", "violations", "least_slack_ms"}. Exit code
// 1: an invariant was broken; the seed on stderr tells the same story again.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/clusterplan/clusterplan/runtime/sim"
)

func main() {
	minutes := flag.Float64("minutes", 1, "how long to run, in minutes of real time")
	seed := flag.Uint64("seed", 1, "the first seed; the next run takes the next one")
	nodes := flag.Int("nodes", 0, "nodes of each cluster; 0: 3, 4 and 5 in turn")
	one := flag.Bool("one", false, "run this seed alone and print its story")
	asJSON := flag.Bool("json", false, "print the result as one JSON object")
	flag.Parse()

	out := struct {
		Runs             int      `json:"runs"`
		Steps            int      `json:"steps"`
		Faults           int      `json:"faults"`
		Failovers        int      `json:"failovers"`
		Violations       int      `json:"violations"`
		LeastSlack       *float64 `json:"least_slack_ms"` // null: no group was taken over by time alone
		SimulatedMinutes float64  `json:"simulated_minutes"`
	}{}
	const each = time.Minute
	for end := time.Now().Add(time.Duration(*minutes * float64(time.Minute))); out.Runs == 0 || !*one && time.Now().Before(end); out.Runs++ {
		cfg := sim.Vary(*seed + uint64(out.Runs))
		if *nodes != 0 {
			cfg = sim.Config{Seed: cfg.Seed, Nodes: *nodes}
		}
		cfg.For = each
		r := sim.Run(cfg)
		out.Steps += r.Steps
		out.Faults += r.Faults
		out.Failovers += r.Failovers
		out.SimulatedMinutes += each.Minutes()
		if r.LeastSlack < time.Hour {
			slack := float64(r.LeastSlack) / float64(time.Millisecond)
			if out.LeastSlack == nil || slack < *out.LeastSlack {
				out.LeastSlack = &slack
			}
		}
		if *one || len(r.Violations) > 0 {
			fmt.Fprintln(os.Stderr, r.Tell())
		}
		if len(r.Violations) > 0 {
			out.Violations = len(r.Violations)

			out.Runs++
			break
		}
	}
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(out)
	} else {
		slack := "none"
		if out.LeastSlack != nil {
			slack = fmt.Sprintf("%.1f ms", *out.LeastSlack)
		}
		fmt.Printf("%d runs, %d steps, %d faults, %d changes of owner, %d violations, least slack %s\n",
			out.Runs, out.Steps, out.Faults, out.Failovers, out.Violations, slack)
	}
	if out.Violations > 0 {
		os.Exit(1)
	}
}
