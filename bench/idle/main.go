// Idle measures what an idle cluster costs: a copy of the quickstart (three
// nodes, two groups) is brought up, left alone, and read from /proc.
//
//	go run ./bench/idle --seconds 60 --json
//
// prints for each node, and as "mean" of all of them, rss_mib (agent and monitor
// together: resident memory of /proc/PID/statm, shared pages counted in both),
// pss_mib (smaps_rollup: shared pages divided among those that share them) and
// cpu_percent (of one core, from /proc/PID/stat over the time). The guardians of
// resources, one small process each, stand apart; the resources themselves are not
// counted.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/bench/internal/lab"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

type figures struct {
	RSS float64 `json:"rss_mib"`
	PSS float64 `json:"pss_mib"`
	CPU float64 `json:"cpu_percent"`
}

type node struct {
	figures
	Agent     figures `json:"agent"`
	Monitor   figures `json:"monitor"`
	Guardians struct {
		Count int `json:"count"`
		figures
	} `json:"guardians"`
}

func main() {
	seconds := flag.Int("seconds", 60, "how long to look")
	asJSON := flag.Bool("json", false, "print one JSON object")
	address := flag.String("address", "", "where the copy's group web answers (default: a free address in 127/8)")
	verbose := flag.Bool("v", false, "show what the commands print, on stderr")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *seconds, *asJSON, *address, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "idle:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seconds int, asJSON bool, address string, verbose bool) (err error) {
	out := io.Discard
	if verbose {
		out = os.Stderr
	}
	c, err := lab.Up(ctx, address, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	status, err := c.Settled(ctx, 10*time.Second)
	if err != nil {
		return err
	}
	before, err := look(status)
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := look(status)
	if err != nil {
		return fmt.Errorf("a process ended meanwhile: %w", err)
	}
	took := time.Since(began)
	result := make(map[string]node)
	for _, n := range status.Nodes {
		var r node
		r.Agent = diff(before[n.PID], after[n.PID], took)
		r.Monitor = diff(before[n.MonitorPID], after[n.MonitorPID], took)
		r.figures = sum(r.Agent, r.Monitor)
		for pid, u := range after {
			if u.Parent == n.MonitorPID {
				r.Guardians.Count++
				r.Guardians.figures = sum(r.Guardians.figures, diff(before[pid], u, took))
			}
		}
		result[n.Name] = r
	}
	mean := meanOf(result)
	if asJSON {
		out := map[string]any{"mean": mean}
		for name, r := range result {
			out[name] = r
		}
		data, err := json.Marshal(out)
		if err != nil {
			return err
		}
		fmt.Println(string(data))
		return nil
	}
	for _, n := range status.Nodes {
		r := result[n.Name]
		fmt.Printf("%s: agent %.1f MiB %.2f %%, monitor %.1f MiB %.2f %%, together %.1f MiB (%.1f MiB less what is shared), %.2f %% of a core; %d guardians %.1f MiB %.2f %%\n",
			n.Name, r.Agent.RSS, r.Agent.CPU, r.Monitor.RSS, r.Monitor.CPU, r.RSS, r.PSS, r.CPU, r.Guardians.Count, r.Guardians.RSS, r.Guardians.CPU)
	}
	fmt.Printf("a node's mean: %.1f MiB (%.1f MiB less what is shared), %.2f %% of a core\n", mean.RSS, mean.PSS, mean.CPU)
	return nil
}

func meanOf(nodes map[string]node) (m figures) {
	for _, n := range nodes {
		m = sum(m, n.figures)
	}
	of := float64(len(nodes))
	return figures{RSS: round(m.RSS / of), PSS: round(m.PSS / of), CPU: round(m.CPU / of)}
}

// look reads the agents, the monitors and their children.
func look(s client.Status) (map[int]lab.Usage, error) {
	found := make(map[int]lab.Usage)
	var monitors []int
	for _, n := range s.Nodes {
		for _, pid := range []int{n.PID, n.MonitorPID} {
			u, err := lab.UsageOf(pid)
			if err != nil {
				return nil, err
			}
			found[pid] = u
		}
		monitors = append(monitors, n.MonitorPID)
	}
	for _, pid := range lab.PIDs() {
		if u, err := lab.UsageOf(pid); err == nil && slices.Contains(monitors, u.Parent) {
			found[pid] = u
		}
	}
	return found, nil
}

func diff(before, after lab.Usage, took time.Duration) figures {
	return figures{RSS: mib(after.RSS), PSS: mib(after.PSS), CPU: round(100 * float64(after.CPU-before.CPU) / float64(took))}
}

func sum(a, b figures) figures {
	return figures{RSS: round(a.RSS + b.RSS), PSS: round(a.PSS + b.PSS), CPU: round(a.CPU + b.CPU)}
}

func mib(n int64) float64 { return round(float64(n) / (1 << 20)) }

func round(v float64) float64 { return math.Round(v*100) / 100 }
