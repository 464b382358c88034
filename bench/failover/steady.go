package main

import (
	"context"
	"os/exec"
	"runtime"
	"time"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// steady is the scenario in which nothing is to happen.
const steady = "steady"

// steadyResult is of a time in which frames are lost and the processors are
// busy, and nobody is to fail over.
type steadyResult struct {
	Scenario  string   `json:"scenario"`
	Nodes     int      `json:"nodes"`
	Minutes   float64  `json:"minutes"`
	Loss      float64  `json:"loss_percent"`
	Busy      int      `json:"busy"` // processes that did other work
	Failovers int      `json:"failovers"`
	Downs     int      `json:"node_downs"`
	Overlap   float64  `json:"overlap_max_ms"`
	Stall     float64  `json:"stall_max_ms"` // the machine as a whole stood still
	Silence   *figures `json:"http_silence,omitempty"`
}

// steadily loses percent of all frames and keeps every processor busy with other
// work, for a while, and counts who was taken for lost and what failed over.
func (b *netnsBench) steadily(ctx context.Context, span time.Duration, percent float64) (res steadyResult, err error) {
	res = steadyResult{Scenario: steady, Nodes: b.Nodes, Minutes: span.Minutes(), Loss: percent, Busy: runtime.NumCPU()}
	s, err := b.Settled(ctx)
	if err != nil {
		return res, err
	}
	if err := b.calm(ctx, s.Groups[0].Owner); err != nil {
		return res, err
	}
	before, err := b.Events(ctx, 0)
	if err != nil {
		return res, err
	}
	busy, stop := context.WithCancel(ctx)
	defer stop()
	for range res.Busy {
		cmd := exec.CommandContext(busy, "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			return res, err
		}
		defer func() {
			stop()
			_ = cmd.Wait() // killed
		}()
	}
	if percent > 0 {
		if err := b.Lab.Inflict(netlab.Fault{Kind: netlab.FaultLoss, Percent: percent}); err != nil {
			return res, err
		}
	}
	b.stalls.Reset()
	began := time.Now()
	var quiet []time.Duration
	for end := began.Add(span); time.Now().Before(end); { // by the minute: answers are many
		from := time.Now()
		select {
		case <-ctx.Done():
			return res, ctx.Err()
		case <-time.After(min(time.Minute, time.Until(end))):
		}
		quiet = append(quiet, b.prober.Silence(faultlab.HTTP, from))
		b.prober.Reset()
	}
	if err := b.Lab.Heal(); err != nil {
		return res, err
	}
	came, err := b.Events(ctx, before[len(before)-1].ID)
	if err != nil {
		return res, err
	}
	for _, e := range came {
		switch e.Kind {
		case "group_failover":
			res.Failovers++
		case "node_down":
			res.Downs++
		}
	}
	overlap, err := b.watch.Overlap()
	res.Overlap, res.Silence, res.Stall = ms(overlap), figuresOf(quiet), ms(b.stalls.Longest())
	return res, err
}
