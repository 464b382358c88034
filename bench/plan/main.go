// Plan measures what plans and applies of many objects cost, beside Terraform.
//
//	go run ./bench/plan --objects 10000 --json
//
// prints objects (as planned), first_ms and noop_ms (wall time of a plan where
// all is to be made, and where nothing is to be done), noop_cpu_ms (user and
// system), noop_rss_mib (the most that was resident), fixed_cpu_ms (what a plan
// of nothing but a cluster and its nodes costs) and exponent (of the growth of
// noop_cpu_ms from a tenth of the objects to all of them: 1 is linear). Each is
// the median of the runs. The exponent is that of CPU time, for wall time tells
// more of the machine's other work; and fixed_cpu_ms is taken off both sides
// first, for it would make any growth look flatter.
//
//	go run ./bench/plan --objects 10000 --shape flat|layered|for_each --vs terraform --json
//
// measures both in turn and prints CPU seconds, resident memory and the ratios
// for a plan with nothing to do, a first plan, and a plan with one object in a
// hundred changed. Terraform has as many terraform_data resources in the same
// shape, each with a short text, and a state that its plan finds nothing to do
// with. An object of clusterplan is a group or a resource: groups of 5 objects,
// with commands, environments and checks, or of --per-group 1 to 5.
//
//	go run ./bench/plan --apply --vs terraform --json
//
// measures applies of 1,000 and 10,000 objects of a provider that does nothing,
// with real journals, beside terraform apply of --terraform-objects (1,000).
//
//	go run ./bench/plan --exponent --json
//
// measures validate, plan, apply and show with 1,000, 10,000 and 100,000 objects
// (--objects is the largest), and the exponents of their growth in CPU time.
//
// Each measurement is a process of its own. First plans, validate and show are
// clusterplan itself. The other plans go its whole way (lang.Load, Evaluate, read
// the state from its file, refresh, planner.Build), and so do applies, in a
// process of this program, for their three nodes are read from memory
// (planner/plannertest): what nodes' processes cost is not a plan's. The
// database of a plan is read by providers/confdb over HTTP and mutual TLS; a
// server in the measuring process answers as an agent would.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"

	"github.com/clusterplan/clusterplan/internal/burst"
)

// options are the flags.
type options struct {
	objects, runs, perGroup, rivalObjects, rivalRuns int
	shape, vs                                        string
	apply, exponent, asJSON                          bool
}

func main() {
	var o options
	flag.IntVar(&o.objects, "objects", 0, "how many objects the definition has (0: 10,000; with --exponent 100,000)")
	flag.IntVar(&o.runs, "runs", 0, "measurements of each kind; the median counts (0: 5, or 3 with --vs, --apply and --exponent)")
	flag.StringVar(&o.shape, "shape", shapeBatches, "batches (blocks of 200 instances), flat (a block each), layered (the same, 100 layers that depend on each other) or for_each (one block)")
	blocks := flag.Bool("blocks", false, "the same as --shape flat")
	flag.IntVar(&o.perGroup, "per-group", 5, "objects of a group: itself and up to four resources")
	flag.StringVar(&o.vs, "vs", "", "terraform: measure it too")
	flag.IntVar(&o.rivalObjects, "terraform-objects", 0, "how many resources Terraform has (0: as many; 1,000 with for_each and --apply, for it grows with the square)")
	flag.IntVar(&o.rivalRuns, "terraform-runs", 1, "measurements of Terraform of each kind")
	flag.BoolVar(&o.apply, "apply", false, "measure applies")
	flag.BoolVar(&o.exponent, "exponent", false, "measure the growth of validate, plan, apply and show")
	flag.BoolVar(&o.asJSON, "json", false, "print one JSON object")
	measure := flag.String("measure", "", "internal: do this with the definition in the directory that follows")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *blocks {
		o.shape = shapeFlat
	}
	var err error
	if *measure != "" {
		err = child(ctx, *measure, flag.Arg(0))
	} else {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "plan:", err)
		os.Exit(1)
	}
}

// child is one measured process. With BENCH_PROFILE it leaves a profile in that
// directory.
func child(ctx context.Context, what, dir string) error {
	if to := os.Getenv("BENCH_PROFILE"); to != "" {
		f, err := os.Create(filepath.Join(to, fmt.Sprintf("%s-%d.pprof", what, os.Getpid())))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	burst.Begin(burst.Floor) // as the command does
	if what == applying {
		return applyOnce(ctx, dir)
	}
	return planOnce(ctx, dir)
}

func run(ctx context.Context, o options) error {
	if !slices.Contains(shapes, o.shape) || o.vs != "" && o.vs != "terraform" || o.perGroup < 1 || o.perGroup > 5 {
		return errors.New("--shape takes batches, flat, layered or for_each, --vs terraform, --per-group 1 to 5")
	}
	if o.vs != "" && o.shape == shapeBatches {
		if o.shape = shapeFlat; !o.apply {
			return errors.New("--vs needs a --shape that Terraform has too: flat, layered or for_each")
		}
	}
	many := o.vs != "" || o.apply || o.exponent
	if o.runs == 0 {
		if o.runs = 5; many {
			o.runs = 3
		}
	}
	if o.objects == 0 {
		if o.objects = 10000; o.exponent {
			o.objects = 100000
		}
	}
	if o.objects < 100 || o.runs < 1 || o.rivalRuns < 1 {
		return errors.New("--objects takes 100 or more, --runs and --terraform-runs 1 or more")
	}
	if o.rivalObjects == 0 {
		if o.rivalObjects = o.objects; o.apply || o.shape == shapeForEach {
			o.rivalObjects = min(o.objects, 1000)
		}
	}
	tmp, err := os.MkdirTemp("", "bench-plan-program-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	b := &bench{options: o, program: filepath.Join(tmp, "clusterplan"), shape: shape{name: o.shape, perGroup: o.perGroup}}
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "github.com/clusterplan/clusterplan/cmd/clusterplan")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build clusterplan (run this in its tree): %w", err)
	}
	defer b.close()
	var result fmt.Stringer
	switch {
	case o.exponent:
		result, err = b.growth(ctx)
	case o.apply:
		result, err = b.applies(ctx)
	case o.vs != "":
		result, err = b.versus(ctx)
	default:
		result, err = b.plans(ctx)
	}
	if err != nil {
		return err
	}
	if o.asJSON {
		return json.NewEncoder(os.Stdout).Encode(result)
	}
	fmt.Print(result)
	return nil
}
