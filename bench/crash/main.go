// Crash kills an apply with -9 at random moments, and counts what that leaves
// behind: real processes of clusterplan, which make a cluster of real agents on
// this machine with groups that run real programs.
//
//	go run ./bench/crash --objects 60 --runs 50 --json
//
// prints {"objects", "runs", "kills", "seed", "orphans", "duplicates", "lost"}:
// orphans are things that were there and neither the state nor its journal knew
// of, just after a kill, or after the apply that followed it, or that a destroy
// left; duplicates are things that were there twice or were made again; lost are
// those that were not there, or not known, once the next apply was done. Each is
// told on stderr, and the exit code is 1 if there was any.
//
// A run is an apply of a new definition that is killed at a moment of the time
// that one takes which nobody kills, in every other run a second one that is
// killed too, and one that is let go on; then a plan, which has to find nothing
// to do, and a destroy. What is there is read from where it is: node directories,
// processes of /proc, and the cluster's database by the agents' API.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

type figures struct {
	Objects    int    `json:"objects"`
	Runs       int    `json:"runs"`
	Kills      int    `json:"kills"`
	Seed       uint64 `json:"seed"`
	Orphans    int    `json:"orphans"`
	Duplicates int    `json:"duplicates"`
	Lost       int    `json:"lost"`
}

// patience is how long one command may take, and the world to come to what an
// apply has left.
const (
	patience = 3 * time.Minute
	settling = 30 * time.Second
)

func main() {
	objects := flag.Int("objects", 60, "how many objects the definition has")
	nodes := flag.Int("nodes", 3, "how many of them are nodes")
	runs := flag.Int("runs", 50, "how many applies are killed and gone on with")
	seed := flag.Uint64("seed", 0, "of the moments; 0: another each time")
	asJSON := flag.Bool("json", false, "print one JSON object")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	f, err := measure(ctx, *objects, *nodes, *runs, *seed)
	if err == nil {
		err = f.write(os.Stdout, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
	if f.Orphans+f.Duplicates+f.Lost > 0 {
		os.Exit(1)
	}
}

// write prints the figures, for people or as one JSON object.
func (f figures) write(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(f)
	}
	_, err := fmt.Fprintf(w, "%d applies of %d objects, killed %d times: %d orphans, %d duplicates, %d lost\n", f.Runs, f.Objects, f.Kills, f.Orphans, f.Duplicates, f.Lost)
	return err
}

// bench is what the runs share.
type bench struct {
	tmp     string
	program string
	want    shape
	rng     *rand.Rand
	fig     figures
}

func measure(ctx context.Context, objects, nodes, runs int, seed uint64) (f figures, err error) {
	if runs < 1 || nodes < 1 || nodes > 9 || objects < nodes+3 {
		return f, errors.New("--runs takes 1 or more, --nodes 1 to 9, --objects at least three more than nodes")
	}
	l := &bench{rng: rand.New(rand.NewPCG(seed, 1)), fig: figures{Runs: runs, Seed: seed}}
	if l.tmp, err = os.MkdirTemp("", "clusterplan-crash-"); err != nil {
		return f, err
	}
	if l.tmp, err = filepath.EvalSymlinks(l.tmp); err != nil { // as processes name it
		return f, err
	}
	defer os.RemoveAll(l.tmp)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return f, err
	}
	l.want = shapeOf(objects, nodes, sleep)
	l.fig.Objects = l.want.objects()
	l.program = filepath.Join(l.tmp, "clusterplan")
	build := exec.CommandContext(ctx, "go", "build", "-o", l.program, "github.com/clusterplan/clusterplan/cmd/clusterplan")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return f, fmt.Errorf("build clusterplan (run this in its tree): %w", err)
	}
	// One that nobody kills: how long it takes, and that all of it is seen.
	whole, err := l.run(ctx, "whole", nil)
	if err != nil {
		return f, err
	}
	if n := l.fig.Orphans + l.fig.Duplicates + l.fig.Lost; n > 0 {
		return f, fmt.Errorf("%d things are wrong after an apply that nobody killed; nothing was measured", n)
	}
	for n := range runs {
		moments := []time.Duration{time.Duration(l.rng.Int64N(int64(whole)))}
		if n%2 == 1 {
			moments = append(moments, time.Duration(l.rng.Int64N(int64(whole))))
		}
		if _, err := l.run(ctx, fmt.Sprintf("run%d", n), moments); err != nil {
			return l.fig, fmt.Errorf("run %d: %w", n, err)
		}
	}
	return l.fig, nil
}

// run makes a cluster, kills the applies that do at the given moments, and
// takes it down. It returns how long the last apply took.
func (l *bench) run(ctx context.Context, name string, moments []time.Duration) (took time.Duration, err error) {
	s := &site{dir: filepath.Join(l.tmp, name), program: l.program, token: fmt.Sprintf("86400.%d%s", os.Getpid(), digits(name)), want: l.want}
	if err := s.write(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.clear()) }()
	var looks []*look
	for i, at := range moments {
		killed, err := s.killed(ctx, at)
		if err != nil {
			return 0, err
		}
		if !killed && i == 0 {
			// It was done sooner than that. A moment sooner, then, and from the beginning.
			if err := s.command(ctx, "destroy"); err != nil {
				return 0, err
			}
			return l.run(ctx, name, []time.Duration{at * 4 / 5})
		}
		if killed {
			l.fig.Kills++
		}
		seen, err := s.look(ctx, false)
		if err != nil {
			return 0, err
		}
		looks = append(looks, seen)
		l.count(name, at, verdict{orphans: orphans(seen), duplicates: duplicates(seen)})
	}
	began := time.Now()
	if err := s.command(ctx, "apply"); err != nil {
		return 0, err
	}
	took = time.Since(began)
	var v verdict
	var after *look
	for end := time.Now().Add(settling); ; {
		if after, err = s.look(ctx, true); err != nil {
			return 0, err
		}
		v = judge(looks, after, l.want)
		if len(v.lost) == 0 || time.Now().After(end) {
			break // programs may take a moment to come up
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	last := time.Duration(0)
	if len(moments) > 0 {
		last = moments[len(moments)-1]
	}
	l.count(name, last, v)
	if len(v.lost) == 0 {
		if err := s.command(ctx, "plan"); err != nil {
			return 0, fmt.Errorf("after the apply there is still something to do: %w", err)
		}
	}
	if err := s.command(ctx, "destroy"); err != nil {
		return 0, err
	}
	left := s.processes()
	for end := time.Now().Add(2 * time.Second); len(left) > 0 && time.Now().Before(end); left = s.processes() {
		time.Sleep(20 * time.Millisecond) // the kernel may still be ending them
	}
	for _, t := range left {
		l.count(name, last, verdict{orphans: []string{t.kind + " " + t.addr + " is there after destroy"}})
	}
	return took, nil
}

func (l *bench) count(run string, at time.Duration, v verdict) {
	for _, one := range []struct {
		what  string
		texts []string
		n     *int
	}{{"orphan", v.orphans, &l.fig.Orphans}, {"duplicate", v.duplicates, &l.fig.Duplicates}, {"lost", v.lost, &l.fig.Lost}} {
		for _, text := range one.texts {
			*one.n++
			fmt.Fprintf(os.Stderr, "%s, killed at %v: %s: %s\n", run, at.Round(time.Millisecond), one.what, text)
		}
	}
}

// digits makes a run's name part of a number, which a program is known by.
func digits(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		fmt.Fprintf(&b, "%03d", c)
	}
	return b.String()
}
