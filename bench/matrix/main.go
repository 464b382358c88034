// Command matrix measures how long the planner takes for a failure matrix, every
// node and every pair (up to 64 nodes), every zone:
//
//	go run ./bench/matrix --groups 1000 --nodes 32 --json
//
// prints {"groups", "nodes", "scenarios", "ms", "max_ms", "cpu_ms"}: scenarios are
// the rows, ms is the median over runs of one whole matrix of a cluster with
// priorities, demands, dependencies and groups that are kept apart; max_ms is the
// longest, cpu_ms the median in time of the processor, which a busy machine
// doesn't lengthen. A plan of a running cluster works out two, before and after.
//
// With --lab (root) it holds matrices to real clusters in network namespaces
// instead: each row of the plans of four definitions happens, the groups have to go
// where it says, and each group's time without an owner is compared with the bound
// that the plan gives:
//
//	go run ./bench/matrix --lab --json
//
// prints {"rows", "disturbed", "wrong", "ratio_max", "over", "stall_max_ms",
// "tried"}: tried has each row with the groups whose node failed, from the fault to
// their program's start elsewhere (ms), the plan's worst_ms and their ratio, and for
// how long the machine as a whole stood still meanwhile; over is how many took
// longer than worst_ms and that stall. A row in which nodes were lost that nothing
// was done to, or were seen to go one after the other, is disturbed, and tried again. --scene takes one definition (spare,
// zones, device, witness); -v shows rows as they are done.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

type result struct {
	Groups    int     `json:"groups"`
	Nodes     int     `json:"nodes"`
	Scenarios int     `json:"scenarios"`
	MS        float64 `json:"ms"`
	MaxMS     float64 `json:"max_ms"`
	CPUMS     float64 `json:"cpu_ms"`
}

func main() {
	groups := flag.Int("groups", 1000, "groups of the cluster")
	nodes := flag.Int("nodes", 32, "nodes of the cluster")
	runs := flag.Int("runs", 9, "how often it is measured")
	asJSON := flag.Bool("json", false, "print the result as one JSON object")
	inLab := flag.Bool("lab", false, "hold matrices to clusters in network namespaces (root)")
	scene := flag.String("scene", "", "lab: one definition instead of all")
	verbose := flag.Bool("v", false, "lab: show each row as it is done, on stderr")
	flag.Parse()
	if *inLab {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		err := lab(ctx, *scene, *asJSON, *verbose)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, "matrix:", err)
			os.Exit(1)
		}
		return
	}
	if *groups < 1 || *nodes < 1 || *runs < 1 {
		fmt.Fprintln(os.Stderr, "matrix: it takes a group, a node and a run at least")
		os.Exit(2)
	}
	out := measure(*groups, *nodes, *runs)
	if *asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			fmt.Fprintln(os.Stderr, "matrix:", err)
			os.Exit(1)
		}
		return
	}
	fmt.Printf("%d scenarios of %d groups on %d nodes: %.1f ms (longest %.1f ms, processor %.1f ms)\n", out.Scenarios, out.Groups, out.Nodes, out.MS, out.MaxMS, out.CPUMS)
}

// measure works the matrix out so many times.
func measure(groups, nodes, runs int) result {
	def := cluster(groups, nodes)
	out := result{Groups: groups, Nodes: nodes}
	var wall, cpu []float64
	for range runs {
		began, spentBefore := time.Now(), spent()
		m := planner.MatrixOf(def)
		wall = append(wall, ms(time.Since(began)))
		cpu = append(cpu, ms(spent()-spentBefore))
		out.Scenarios = len(m.Rows)
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	out.MS, out.MaxMS, out.CPUMS = wall[len(wall)/2], wall[len(wall)-1], cpu[len(cpu)/2]
	return out
}

// spent is the processor's time of the whole process, the garbage collector's too.
func spent() time.Duration {
	var t unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &t); err != nil {
		return 0
	}
	return time.Duration(t.Utime.Nano() + t.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// cluster has four zones, every fourth group depend on the one before, some kept
// apart, three priorities, and capacities that a dead pair's groups fit in.
func cluster(groups, nodes int) spec.Definition {
	def := spec.Definition{Cluster: spec.Cluster{Name: "c", Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}}
	name := func(i int) string { return fmt.Sprintf("n%03d", i%nodes+1) }
	for i := range nodes {
		def.Nodes = append(def.Nodes, spec.Node{
			Name: name(i), Addr: addr.Node(name(i), addr.NoKey), Zone: fmt.Sprintf("zone%d", i%4), Votes: 1, Role: spec.RoleMember,
			Capacity: map[string]int64{"cpu": int64(2 * (groups/nodes + 8)), "memory": 1 << 40},
		})
	}
	for i := range groups {
		g := fmt.Sprintf("g%05d", i)
		at := i / 2
		one := spec.Group{
			Name: g, Addr: addr.Group(g, addr.NoKey), Priority: 1000 * (1 + i%3), PersistentState: spec.WantOnline,
			PreferredOwners: []string{name(at)}, Demand: map[string]int64{"cpu": 1, "memory": 1 << 20},
			Failover: spec.Failover{Mode: spec.FailoverAutomatic},
		}
		for _, k := range []int{at + 1, at + 6} {
			if !slices.Contains(one.PreferredOwners, name(k)) {
				one.PreferredOwners = append(one.PreferredOwners, name(k))
			}
		}
		if i%4 == 1 {
			one.DependsOn = []string{fmt.Sprintf("g%05d", i-1)}
		}
		if i%10 == 9 {
			one.KeepApart = []string{fmt.Sprintf("g%05d", i-5)}
		}
		def.Groups = append(def.Groups, one)
	}
	return def
}
