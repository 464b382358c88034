package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

// cost is what one process took: time of the processor, user and system, the
// most that was resident, and the time on the clock.
type cost struct {
	CPU  float64 `json:"cpu_s"`
	RSS  float64 `json:"rss_mib"`
	Wall float64 `json:"wall_s"`
}

// spend runs a command and says what it took.
func spend(cmd *exec.Cmd, out io.Writer) (cost, error) {
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &words
	// The kernel counts what the parent had resident at most as the child's, for
	// the child is the parent until it execs.
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return cost{}, fmt.Errorf("forget the peak of this process's own memory: %w", err)
	}
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", cmd, err, words.Bytes())
	}
	c := cost{Wall: round(time.Since(start).Seconds(), 3), CPU: round((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), 3)}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.RSS = round(float64(usage.Maxrss)/1024, 1)
	}
	return c, nil
}

// middle is the median of each.
func middle(all []cost) cost {
	one := func(of func(cost) float64) float64 {
		var v []float64
		for _, c := range all {
			v = append(v, of(c))
		}
		return median(v)
	}
	return cost{one(func(c cost) float64 { return c.CPU }), one(func(c cost) float64 { return c.RSS }), one(func(c cost) float64 { return c.Wall })}
}

func round(x float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(x*p) / p
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// site is a definition on disk, and what was measured of it.
type site struct {
	shape
	program string // clusterplan
	dir     string
	stop    func() // the agents' server
	objects int    // as planned
	costs   map[string][]cost
}

// What is measured of a site. First and changed are plans; validate, first and
// show are clusterplan itself, the others go its way within this program, for
// their nodes are in memory.
const (
	first    = "first"
	noop     = "noop"
	changed  = "changed"
	validate = "validate"
	show     = "show"
	applying = "apply"
)

func (s *site) close() {
	if s.stop != nil {
		s.stop()
	}
	os.RemoveAll(s.dir)
}

// newSite writes a definition of that many objects.
func newSite(program string, sh shape, objects int) (*site, error) {
	dir, err := os.MkdirTemp("", "bench-plan-")
	if err != nil {
		return nil, err
	}
	s := &site{shape: sh, program: program, dir: dir, objects: bare + max(0, sh.groups(objects))*sh.perGroup, costs: map[string][]cost{}}
	if err := s.write(objects); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *site) write(objects int) error {
	return os.WriteFile(filepath.Join(s.dir, "main.cluster.hcl"), s.definition(objects), 0o600)
}

// change describes one object in a hundred otherwise, or not any more.
func (s *site) change(changed bool) error {
	s.shape.changed = changed
	return s.write(s.objects)
}

// run measures one thing once. The definition, the state and the agents' server
// have to be as it needs them.
func (s *site) run(ctx context.Context, what string) error {
	var cmd *exec.Cmd
	var out bytes.Buffer
	switch what {
	case first:
		cmd = exec.CommandContext(ctx, s.program, "plan", s.dir, "--no-color")
	case validate:
		cmd = exec.CommandContext(ctx, s.program, "validate", s.dir)
	case show:
		cmd = exec.CommandContext(ctx, s.program, "show", "--chdir", s.dir)
	default:
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd = exec.CommandContext(ctx, self, "--measure", what, s.dir)
	}
	c, err := spend(cmd, &out)
	if err != nil {
		return err
	}
	if err := s.judge(what, out.Bytes()); err != nil {
		return fmt.Errorf("%s of %d objects: %w", what, s.objects, err)
	}
	s.costs[what] = append(s.costs[what], c)
	return nil
}

// outcome is what a plan or an apply in this program says of itself.
type outcome struct {
	Objects int    `json:"objects"`
	Changes int    `json:"changes"`
	Example string `json:"example,omitempty"`
}

// judge refuses to count what did not do its work.
func (s *site) judge(what string, out []byte) error {
	switch what {
	case first:
		if want := fmt.Sprintf("Plan: %d to add, 0 to change, 0 to destroy", s.objects); !bytes.Contains(out, []byte(want)) {
			return fmt.Errorf("the plan doesn't say %q", want)
		}
	case validate:
	case show:
		if n := bytes.Count(out, []byte("\n")); n < s.objects {
			return fmt.Errorf("it shows %d lines", n)
		}
	default:
		var o outcome
		if err := json.Unmarshal(out, &o); err != nil {
			return err
		}
		want := map[string]int{noop: 0, changed: (s.groups(s.objects) + s.every() - 1) / s.every(), applying: s.objects - bare}[what]
		if o.Objects != s.objects || o.Changes != want {
			return fmt.Errorf("%d objects and %d changes, want %d and %d: %s", o.Objects, o.Changes, s.objects, want, o.Example)
		}
	}
	return nil
}

func (s *site) cost(what string) cost { return middle(s.costs[what]) }

// exponent of the growth of CPU time from small to large: 1 is linear. What a
// run costs of nothing but a cluster and its nodes is taken off both, for it
// would make any growth look flatter.
func exponent(nothing, small, large *site, what string) float64 {
	fixed := nothing.cost(what).CPU
	return round(math.Log((large.cost(what).CPU-fixed)/(small.cost(what).CPU-fixed))/math.Log(float64(large.objects-bare)/float64(small.objects-bare)), 3)
}
