// Groups measures a cluster with many groups: what it costs to be idle, and how
// fast all groups of one dead node are online elsewhere.
//
//	go run ./bench/groups --groups 500 --resources 4 --json
//
// brings up three nodes with that many groups, each of trivial resources (an
// address in 127/8 has no process), all at home on one node that isn't the
// leader. It reads what agents and monitors cost while nothing happens, then
// kills that node's agent and monitor with SIGKILL and reads the cluster's event
// log. It prints one object:
//
//	rss_mib, cpu_percent   of the costliest node, agent and monitor together
//	online_ms              from the node's being held for down to the last group online elsewhere
//	killed_ms              from the kill to the last group online elsewhere
//
// The log's times are the leader's and the new owner's, on one host. How long
// the leader takes to decide for all of them is bench/decide's figure.
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
	"syscall"
	"time"

	"github.com/clusterplan/clusterplan/bench/internal/lab"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

type result struct {
	Groups    int     `json:"groups"`
	Resources int     `json:"resources"`
	Nodes     int     `json:"nodes"`
	RSS       float64 `json:"rss_mib"`
	CPU       float64 `json:"cpu_percent"`
	Online    float64 `json:"online_ms"`
	Killed    float64 `json:"killed_ms"`
}

func main() {
	groups := flag.Int("groups", 500, "how many groups")
	resources := flag.Int("resources", 4, "resources of each group")
	seconds := flag.Int("seconds", 30, "how long to look at the idle cluster")
	asJSON := flag.Bool("json", false, "print one JSON object")
	verbose := flag.Bool("v", false, "show what the commands print, on stderr")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := io.Discard
	if *verbose {
		out = os.Stderr
	}
	r, err := run(ctx, *groups, *resources, *seconds, out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "groups:", err)
		os.Exit(1)
	}
	if *asJSON {
		data, err := json.Marshal(r)
		if err != nil {
			fmt.Fprintln(os.Stderr, "groups:", err)
			os.Exit(1)
		}
		fmt.Println(string(data))
		return
	}
	fmt.Printf("%d groups of %d resources on %d nodes: at most %.1f MiB and %.2f %% of a core a node; all of one node: online %.0f ms after the node counted as down, %.0f ms after its end\n",
		r.Groups, r.Resources, r.Nodes, r.RSS, r.CPU, r.Online, r.Killed)
}

// definition is three nodes and the groups, which belong to home.
func definition(groups, resources int, home string) string {
	text := fmt.Sprintf(`cluster "many" {
  quorum { model = "majority_node_set" }
}
node "n" {
  provider = local
  for_each = toset(["1", "2", "3"])
}
locals { all = { for i in range(%d) : format("%%05d", i) => i } }
group "g" {
  for_each         = local.all
  preferred_owners = [node.n[%q]]
`, groups, home)
	for i := range resources {
		text += fmt.Sprintf(`  resource "ip_address" "r%d" {
    address = "127.%d.${floor(group_each.value / 250)}.${group_each.value %% 250 + 1}"
  }
`, i, 100+i)
	}
	return text + "}\n"
}

func run(ctx context.Context, groups, resources, seconds int, out io.Writer) (r result, err error) {
	r = result{Groups: groups, Resources: resources, Nodes: 3}
	if groups < 1 || resources < 1 || resources > 100 || groups > 60000 {
		return r, errors.New("1 to 60000 groups of 1 to 100 resources")
	}
	home := "2" // the first node bootstraps, and so leads
	c, err := lab.UpText(ctx, definition(groups, resources, home), out)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	s, err := c.Settled(ctx, 5*time.Second)
	if err != nil {
		return r, err
	}
	victim := "n-" + home
	if s.Leader == victim {
		return r, fmt.Errorf("node %s leads the cluster; run it again", victim)
	}
	if r.RSS, r.CPU, err = idle(ctx, s, time.Duration(seconds)*time.Second); err != nil {
		return r, err
	}
	n, _ := lab.Node(s, victim)
	before, err := c.Events(ctx, 0)
	if err != nil || len(before) == 0 {
		return r, errors.Join(errors.New("no events so far"), err)
	}
	killed := time.Now()
	for _, pid := range []int{n.PID, n.MonitorPID} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return r, fmt.Errorf("kill %d of node %s: %w", pid, victim, err)
		}
	}
	events, err := awaitOnline(ctx, c, before[len(before)-1].ID, groups)
	if err != nil {
		return r, err
	}
	var down, online time.Time
	for _, e := range events {
		switch e.Kind {
		case "node_down":
			down = e.Time
		case "group_online":
			online = e.Time
		}
	}
	if down.IsZero() || online.IsZero() {
		return r, fmt.Errorf("the event log tells of no failover: %+v", events)
	}
	r.Online, r.Killed = ms(online.Sub(down)), ms(online.Sub(killed))
	return r, nil
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Millisecond)*10) / 10 }

// idle is what the costliest node takes while nothing happens.
func idle(ctx context.Context, s client.Status, span time.Duration) (rss, cpu float64, err error) {
	look := func() (map[string]lab.Usage, error) {
		all := map[string]lab.Usage{}
		for _, n := range s.Nodes {
			var sum lab.Usage
			for _, pid := range []int{n.PID, n.MonitorPID} {
				u, err := lab.UsageOf(pid)
				if err != nil {
					return nil, err
				}
				sum.RSS, sum.CPU = sum.RSS+u.RSS, sum.CPU+u.CPU
			}
			all[n.Name] = sum
		}
		return all, nil
	}
	before, err := look()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	after, err := look()
	if err != nil {
		return 0, 0, fmt.Errorf("a process ended meanwhile: %w", err)
	}
	for name, u := range after {
		rss = max(rss, float64(u.RSS)/(1<<20))
		cpu = max(cpu, 100*float64(u.CPU-before[name].CPU)/float64(time.Since(began)))
	}
	return math.Round(rss*10) / 10, math.Round(cpu*100) / 100, nil
}

// awaitOnline waits until every group is online elsewhere, and returns the
// events since, up to the last one's.
func awaitOnline(ctx context.Context, c *lab.Cluster, since uint64, groups int) ([]client.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		// The log is the witness: asking for it disturbs less than asking for all groups.
		events, err := c.Events(ctx, since)
		if err != nil {
			return nil, err
		}
		online := 0
		for i, e := range events {
			if e.Kind == "group_online" {
				if online++; online >= groups {
					return events[:i+1], nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d groups came online: %w", online, groups, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}
