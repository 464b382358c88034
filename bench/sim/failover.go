package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/runtime/sim"
)

// failovers crashes whole nodes of clusters that are well otherwise, or has an
// operator move their groups, of each size, and tells how long their groups took
// to start elsewhere.
func (o *options) failovers() (found bool, err error) {
	type result struct {
		Nodes      int     `json:"nodes"`
		Voters     int     `json:"voters"`
		Crashes    int     `json:"crashes,omitempty"`
		Moves      int     `json:"moves,omitempty"`
		Groups     int     `json:"groups"` // that started elsewhere
		Median     float64 `json:"median_ms"`
		P99        float64 `json:"p99_ms"`
		Max        float64 `json:"max_ms"`
		Violations int     `json:"violations"`
	}
	list := o.nodes
	if list == "" {
		list = "3,16,64"
	}
	sizes, err := numbers(list)
	if err != nil {
		return false, fmt.Errorf("--nodes: %w", err)
	}
	var out []result
	for _, n := range sizes {
		cfg := o.cfg
		cfg.Nodes, cfg.Groups = n, max(o.cfg.Groups, n)
		cfg.Learners = max(o.cfg.Learners, n-7) // a hundred nodes need no hundred votes
		run := sim.Failovers
		if o.scenario == "move" {
			run = sim.Moves
		}
		r := run(cfg, o.runs)
		slices.Sort(r.Times)
		at := func(q float64) float64 {
			if len(r.Times) == 0 {
				return 0
			}
			return float64(r.Times[int(q*float64(len(r.Times)-1))]) / float64(time.Millisecond)
		}
		out = append(out, result{n, n - cfg.Learners, r.Kinds["crash"], r.Kinds["move"], len(r.Times), at(0.5), at(0.99), at(1), len(r.Violations)})
		if len(r.Violations) > 0 {
			found = true
			fmt.Fprint(os.Stderr, r.Tell())
		}
	}
	if o.json {
		return found, json.NewEncoder(os.Stdout).Encode(struct {
			Sizes []result `json:"sizes"`
		}{out})
	}
	what := "crashes"
	if o.scenario == "move" {
		what = "  moves"
	}
	fmt.Println("nodes voters " + what + " groups   median      p99      max")
	for _, r := range out {
		fmt.Printf("%5d %6d %7d %6d %6.0f ms %5.0f ms %5.0f ms\n", r.Nodes, r.Voters, r.Crashes+r.Moves, r.Groups, r.Median, r.P99, r.Max)
	}
	return found, nil
}
