// Calm looks for false failovers: a cluster in a lab of network namespaces (as
// root) that loses some of its packets while every core is kept busy by other
// work, and nothing else happens to it.
//
//	go run ./bench/calm --minutes 30 --loss 5 --json
//
// prints how many groups failed over and how many nodes were held for down, by
// the cluster's event log, and exits with 1 if there was a failover. What the log
// tells of the time goes to stderr.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"time"

	"github.com/clusterplan/clusterplan/bench/internal/lab"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

const definition = `provider "local" {
  mode   = "netns"
  subnet = "10.77.0.0/24"
}
cluster "calm" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}
group "g" {
  for_each         = { a = "10.77.0.50", b = "10.77.0.51", c = "10.77.0.52" }
  preferred_owners = [node.n["1"], node.n["2"], node.n["3"]]
  resource "ip_address" "vip" {
    address = group_each.value
  }
}
`

type result struct {
	Minutes   float64 `json:"minutes"`
	Loss      float64 `json:"loss_percent"`
	Busy      int     `json:"busy_loops"`
	Failovers int     `json:"failovers"`
	NodesDown int     `json:"nodes_down"`
	Events    int     `json:"events"`
}

func main() {
	minutes := flag.Float64("minutes", 30, "how long to look")
	loss := flag.Float64("loss", 5, "packets that are lost on every link, in percent")
	busy := flag.Int("busy", runtime.NumCPU(), "processes that do nothing but compute")
	asJSON := flag.Bool("json", false, "print one JSON object")
	verbose := flag.Bool("v", false, "show what the commands print, on stderr")
	spin := flag.Bool("spin", false, "compute and do nothing else (what the busy processes run)")
	flag.Parse()
	if *spin {
		for x := uint64(1); ; x = x*6364136223846793005 + 1 {
			if x == 0 {
				os.Exit(0) // never: it keeps the loop from being optimised away
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := io.Discard
	if *verbose {
		out = os.Stderr
	}
	r, told, err := run(ctx, *minutes, *loss, *busy, out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "calm:", err)
		os.Exit(1)
	}
	for _, e := range told {
		fmt.Fprintln(os.Stderr, e.Time.Format(time.TimeOnly), e.Kind, e.Text)
	}
	if *asJSON {
		data, err := json.Marshal(r)
		if err != nil {
			fmt.Fprintln(os.Stderr, "calm:", err)
			os.Exit(1)
		}
		fmt.Println(string(data))
	} else {
		fmt.Printf("%.1f minutes with %d busy processes and %g %% loss: %d failovers, %d nodes held for down\n", r.Minutes, r.Busy, r.Loss, r.Failovers, r.NodesDown)
	}
	if r.Failovers > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, minutes, loss float64, busy int, out io.Writer) (r result, told []client.Event, err error) {
	r = result{Loss: loss, Busy: busy}
	c, err := lab.UpText(ctx, definition, out)
	if err != nil {
		return r, nil, err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	if _, err := c.Settled(ctx, 3*time.Second); err != nil {
		return r, nil, err
	}
	before, err := c.Events(ctx, 0)
	if err != nil {
		return r, nil, err
	}
	last := uint64(0)
	for _, e := range before {
		last = e.ID
	}
	if loss > 0 {
		if err := c.Run(ctx, "lab", "loss", strconv.FormatFloat(loss, 'g', -1, 64), "--chdir", c.Dir); err != nil {
			return r, nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return r, nil, err
	}
	for range busy {
		cmd := exec.CommandContext(ctx, self, "--spin")
		if err := cmd.Start(); err != nil {
			return r, nil, err
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
	}
	began := time.Now()
	for time.Since(began) < time.Duration(minutes*float64(time.Minute)) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return r, nil, ctx.Err()
		}
	}
	r.Minutes = float64(time.Since(began).Round(time.Second)) / float64(time.Minute)
	if told, err = c.Events(ctx, last); err != nil {
		return r, nil, err
	}
	for _, e := range told {
		r.Events++
		switch e.Kind {
		case "group_failover":
			r.Failovers++
		case "node_down":
			r.NodesDown++
		}
	}
	return r, told, nil
}
