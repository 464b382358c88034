// Plan measures what a plan costs: of a definition with many objects where all
// are to be made (first), and where nothing is to be done (noop).
//
//	go run ./bench/plan --objects 10000 --json
//
// prints objects (as planned), first_ms and noop_ms (wall time, median of the
// runs), noop_cpu_ms (user and system), noop_rss_mib (the most that was
// resident) and exponent (of the growth of noop_ms from a tenth of the objects
// to all of them: 1 is linear).
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
	Exponent float64 `json:"exponent"`
}

func main() {
	objects := flag.Int("objects", 10000, "how many objects the definition has")
	runs := flag.Int("runs", 3, "measurements of each kind; the median counts")
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
	tenth, err := sized(ctx, objects/10, runs, blocks)
	if err != nil {
		return err
	}
	whole, err := sized(ctx, objects, runs, blocks)
	if err != nil {
		return err
	}
	whole.Exponent = round(math.Log(whole.NoopMS/tenth.NoopMS)/math.Log(float64(whole.Objects)/float64(tenth.Objects)), 3)
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(whole)
	}
	fmt.Printf("%d objects: first plan %.0f ms; nothing to do: %.0f ms, %.0f ms of CPU, %.0f MiB; exponent %.2f\n",
		whole.Objects, whole.FirstMS, whole.NoopMS, whole.NoopCPU, whole.NoopRSS, whole.Exponent)
	return nil
}

// sized measures a definition of that many objects.
func sized(ctx context.Context, objects, runs int, blocks bool) (figures, error) {
	dir, err := os.MkdirTemp("", "bench-plan-")
	if err != nil {
		return figures{}, err
	}
	defer os.RemoveAll(dir)
	source := definition(objects, blocks)
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), source, 0o600); err != nil {
		return figures{}, err
	}
	var first, noop, cpu, rss []float64
	count := 0
	for range runs {
		one, err := child(ctx, dir)
		if err != nil {
			return figures{}, err
		}
		if one.Changes != one.Objects {
			return figures{}, fmt.Errorf("the first plan changes %d of %d objects", one.Changes, one.Objects)
		}
		first = append(first, one.wallMS)
	}
	stop, err := settle(dir)
	if err != nil {
		return figures{}, err
	}
	defer stop()
	for range runs {
		one, err := child(ctx, dir)
		if err != nil {
			return figures{}, err
		}
		if one.Changes != 0 {
			return figures{}, fmt.Errorf("%d changes where there should be none: %s", one.Changes, one.Example)
		}
		count = one.Objects
		noop, cpu, rss = append(noop, one.wallMS), append(cpu, one.cpuMS), append(rss, one.rssMiB)
	}
	return figures{Objects: count, FirstMS: median(first), NoopMS: median(noop), NoopCPU: median(cpu), NoopRSS: median(rss)}, nil
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
