// Plan measures what a plan costs: of a definition with many objects where all
// are to be made (first), and where nothing is to be done (noop).
//
//	go run ./bench/plan --objects 10000 --json
//
// prints objects (as planned), first_ms and noop_ms (wall time), noop_cpu_ms
// (user and system), noop_rss_mib (the most that was resident), fixed_cpu_ms
// (what a plan of nothing but a cluster and its nodes costs) and exponent (of
// the growth of noop_cpu_ms from a tenth of the objects to all of them: 1 is
// linear). Each is the median of the runs. The exponent is that of CPU time,
// for wall time tells more of the machine's other work; and fixed_cpu_ms is
// taken off both sides first, for it would make any growth look flatter.
//
// Each measurement is a process of its own that goes the whole way: lang.Load,
// Evaluate, read the state from its file, refresh, planner.Build. The database
// is read by providers/confdb over HTTP and mutual TLS; a server in the
// measuring process answers as an agent would. The three nodes are read from
// memory (planner/plannertest): what their processes cost is not a plan's.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

type figures struct {
	Objects  int     `json:"objects"`
	FirstMS  float64 `json:"first_ms"`
	NoopMS   float64 `json:"noop_ms"`
	NoopCPU  float64 `json:"noop_cpu_ms"`
	NoopRSS  float64 `json:"noop_rss_mib"`
	FixedCPU float64 `json:"fixed_cpu_ms"`
	Exponent float64 `json:"exponent"`
}

func main() {
	objects := flag.Int("objects", 10000, "how many objects the definition has")
	runs := flag.Int("runs", 5, "measurements of each kind; the median counts")
	blocks := flag.Bool("blocks", false, "write every group as a block of its own, not with for_each")
	asJSON := flag.Bool("json", false, "print one JSON object")
	measure := flag.String("measure", "", "internal: plan the definition in this directory, print what it took")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *measure != "" {
		err = planOnce(ctx, *measure)
	} else {
		err = run(ctx, *objects, *runs, *blocks, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "plan:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, objects, runs int, blocks, asJSON bool) error {
	if objects < 100 || runs < 1 {
		return errors.New("--objects takes 100 or more, --runs 1 or more")
	}
	// Nothing but the cluster and its nodes: what any plan costs.
	sizes := []int{bare, objects / 10, objects}
	sites := make([]*site, len(sizes))
	for i, n := range sizes {
		s, err := prepare(ctx, n, runs, blocks)
		if err != nil {
			return err
		}
		defer s.close()
		sites[i] = s
	}
	// In turns, so that a moment in which the machine is busy hits them all.
	for range runs {
		for _, s := range sites {
			if err := s.measure(ctx); err != nil {
				return err
			}
		}
	}
	whole := sites[2]
	fixed, tenth, all := median(sites[0].cpu), median(sites[1].cpu), median(whole.cpu)
	f := figures{
		Objects: whole.objects, FirstMS: median(whole.first), NoopMS: median(whole.wall), NoopCPU: all, NoopRSS: median(whole.rss), FixedCPU: fixed,
		Exponent: round(math.Log((all-fixed)/(tenth-fixed))/math.Log(float64(whole.objects-bare)/float64(sites[1].objects-bare)), 3),
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(f)
	}
	fmt.Printf("%d objects: first plan %.0f ms; nothing to do: %.0f ms, %.0f ms of CPU (%.0f of them for any plan), %.0f MiB; exponent %.2f\n",
		f.Objects, f.FirstMS, f.NoopMS, f.NoopCPU, f.FixedCPU, f.NoopRSS, f.Exponent)
	return nil
}

// bare is a definition of a cluster and three nodes.
const bare = 4

// site is a definition on disk whose objects are all there, and what its plans took.
type site struct {
	dir     string
	stop    func() // the agents' server
	objects int

	first, wall, cpu, rss []float64
}

func (s *site) close() {
	if s.stop != nil {
		s.stop()
	}
	os.RemoveAll(s.dir)
}

// prepare measures the first plans of a definition of that many objects, and
// has them be there.
func prepare(ctx context.Context, objects, runs int, blocks bool) (s *site, err error) {
	s = &site{}
	if s.dir, err = os.MkdirTemp("", "bench-plan-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.WriteFile(filepath.Join(s.dir, "main.cluster.hcl"), definition(objects, blocks), 0o600); err != nil {
		return nil, err
	}
	for range runs {
		one, err := child(ctx, s.dir)
		if err != nil {
			return nil, err
		}
		if one.Changes != one.Objects {
			return nil, fmt.Errorf("the first plan changes %d of %d objects", one.Changes, one.Objects)
		}
		s.first = append(s.first, one.wallMS)
	}
	s.stop, err = settle(s.dir)
	return s, err
}

// measure plans once, with nothing to do.
func (s *site) measure(ctx context.Context) error {
	one, err := child(ctx, s.dir)
	if err != nil {
		return err
	}
	if one.Changes != 0 {
		return fmt.Errorf("%d changes where there should be none: %s", one.Changes, one.Example)
	}
	s.objects = one.Objects
	s.wall, s.cpu, s.rss = append(s.wall, one.wallMS), append(s.cpu, one.cpuMS), append(s.rss, one.rssMiB)
	return nil
}

// outcome is what a measured plan says of itself, and what it took.
type outcome struct {
	Objects int    `json:"objects"`
	Changes int    `json:"changes"`
	Example string `json:"example,omitempty"`

	wallMS, cpuMS, rssMiB float64
}

func child(ctx context.Context, dir string) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	cmd := exec.CommandContext(ctx, self, "--measure", dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return outcome{}, fmt.Errorf("measured plan: %w", err)
	}
	o := outcome{wallMS: millis(time.Since(start)), cpuMS: millis(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.rssMiB = round(float64(usage.Maxrss)/1024, 1)
	}
	return o, json.Unmarshal(out.Bytes(), &o)
}

func millis(d time.Duration) float64 { return round(float64(d)/float64(time.Millisecond), 1) }

func round(x float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(x*p) / p
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
