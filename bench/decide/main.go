// Command decide measures how long the leader takes to decide, on the
// processor alone, who takes over what when a node dies:
//
//	go run ./bench/decide --groups 5000 --nodes 32 --json
//
// prints {"groups", "nodes", "decide_ms", "max_ms", "cpu_ms", "placement_ms", "exponent"}.
// decide_ms is the median over runs of all steps of the leader's machine
// (runtime/core) from the one that finds the node silent to the one that
// proposes the last new owner; the waits between them, which the lease makes,
// are virtual. max_ms is the longest run. placement_ms is runtime/placement
// alone, on the same cluster. cpu_ms is decide_ms in time of the processor, which a
// busy machine doesn't lengthen; exponent is by what power of the groups that
// grows, from a quarter of them to twice as many.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/runtime/placement"
)

type result struct {
	Groups      int     `json:"groups"`
	Nodes       int     `json:"nodes"`
	DecideMS    float64 `json:"decide_ms"`
	MaxMS       float64 `json:"max_ms"`
	CPUMS       float64 `json:"cpu_ms"`
	PlacementMS float64 `json:"placement_ms"`
	Exponent    float64 `json:"exponent"`
}

func main() {
	groups := flag.Int("groups", 5000, "groups of the cluster")
	nodes := flag.Int("nodes", 32, "nodes of the cluster")
	runs := flag.Int("runs", 9, "how often each size is measured")
	asJSON := flag.Bool("json", false, "print the result as one JSON object")
	flag.Parse()
	if *groups < 8 || *nodes < 3 || *runs < 1 {
		fmt.Fprintln(os.Stderr, "decide: it takes 8 groups, 3 nodes and a run at least")
		os.Exit(2)
	}
	runtime.LockOSThread() // whose time is counted
	out := result{Groups: *groups, Nodes: *nodes}
	var xs, ys []float64
	for _, n := range []int{*groups / 4, *groups / 2, *groups, *groups * 2} {
		var all, cpu, alone []float64
		for range *runs {
			c := newCluster(n, *nodes)
			runtime.GC()
			took, spent, moved, err := c.loseNode()
			if err == nil && moved == 0 {
				err = fmt.Errorf("nothing was taken over")
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "decide:", err)
				os.Exit(1)
			}
			all, cpu = append(all, ms(took)), append(cpu, ms(spent))
			in := c.placementInput()
			start := time.Now()
			placement.Settle(in)
			alone = append(alone, ms(time.Since(start)))
		}
		slices.Sort(all)
		slices.Sort(cpu)
		slices.Sort(alone)
		xs, ys = append(xs, math.Log(float64(n))), append(ys, math.Log(cpu[len(cpu)/2]))
		if n == *groups {
			out.DecideMS, out.MaxMS, out.CPUMS, out.PlacementMS = all[len(all)/2], all[len(all)-1], cpu[len(cpu)/2], alone[len(alone)/2]
		}
	}
	out.Exponent = slope(xs, ys)
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			fmt.Fprintln(os.Stderr, "decide:", err)
			os.Exit(1)
		}
		return
	}
	fmt.Printf("%d groups on %d nodes: decided in %.2f ms (at most %.2f; %.2f ms of a processor; placement alone %.2f), growing with the groups to the power of %.2f\n",
		out.Groups, out.Nodes, out.DecideMS, out.MaxMS, out.CPUMS, out.PlacementMS, out.Exponent)
}

func ms(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }

// spent is the processor's time that this thread has had: to the nanosecond, where
// getrusage counts a running thread's by the kernel's ticks (4 ms).
func spent() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(fmt.Sprintf("decide: the thread's clock: %v", err)) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// slope is that of the line with the least squares through the points.
func slope(xs, ys []float64) float64 {
	var sx, sy, sxx, sxy float64
	for i := range xs {
		sx, sy, sxx, sxy = sx+xs[i], sy+ys[i], sxx+xs[i]*xs[i], sxy+xs[i]*ys[i]
	}
	n := float64(len(xs))
	return math.Round(100*(n*sxy-sx*sy)/(n*sxx-sx*sx)) / 100
}
