// Faults breaks a real cluster in a network lab, in real ways, for as long as
// wanted, and checks what must hold. Root.
//
//	go run ./bench/faults --hours 2 --nodes 5 --seed 1 --json
//
// Round by round, one or two faults happen at random, the group's owner being
// hit more often than others: agent, monitor, both or everything on a node is
// killed with -9; all of it, the agent or the monitor is stopped and goes on; a
// node is isolated, mute, deaf, cut from one other both ways or one way, or with one other from the rest; its
// link flaps; a fifth of all frames is lost; of its two links (every node is on
// two networks; --links=false: on one) one is cut, loses frames, or both are
// unplugged in turn; its disk is full, or stands still
// most of the time (each data directory is an ext4 on a loop device, where this
// machine has those); an operator moves the group in between. Then all is
// mended, and everything has to be online again.
//
// All the time a client in a namespace of its own probes the group's address by
// ICMP and HTTP every 10 ms, every node's addresses are watched, and a client on
// each node reads and writes keys of the cluster's database. A violation ends
// the run with exit code 1, keeps the files and prints what the nodes said:
// two nodes held the address at once; an owner that was followed still answered;
// no order of the operations on a key explains what they were answered
// (linearizability, checked by porcupine); what should be online is not within
// a minute.
//
// With --model single_quorum a file is the quorum device of all nodes.
//
// The same seed gives the same faults in the same order; when they hit is the
// machine's.
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
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// result is what a run came to.
type result struct {
	Nodes      int            `json:"nodes"`
	Seed       uint64         `json:"seed"`
	Seconds    int            `json:"seconds"`
	Rounds     int            `json:"rounds"`
	Faults     map[string]int `json:"faults"`
	Operations int            `json:"operations"` // of the database, checked
	Unknown    int            `json:"unknown"`    // of these: writes whose outcome was not told
	Refused    int            `json:"refused"`
	Violations int            `json:"violations"`
	LeftOut    string         `json:"left_out,omitempty"` // faults that this machine can't have
}

func main() {
	hours := flag.Float64("hours", 0.1, "how long")
	rounds := flag.Int("rounds", 0, "end after so many rounds (default: by time alone)")
	nodes := flag.Int("nodes", 3, "nodes, 3 to 90")
	seed := flag.Uint64("seed", 1, "of the faults' order")
	model := flag.String("model", string(spec.MajorityNodeSet), "quorum model: majority_node_set or single_quorum (a file is its device)")
	links := flag.Bool("links", true, "every node is on two networks; false: on one")
	only := flag.String("fault", "", "names of faults, with commas: every round has these, instead of one or two of all")
	asJSON := flag.Bool("json", false, "print one JSON object")
	verbose := flag.Bool("v", false, "show each round on stderr")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	res, err := run(ctx, spec.QuorumModel(*model), *hours, *rounds, *nodes, *seed, *only, *links, *verbose)
	if res != nil {
		if *asJSON {
			data, jerr := json.Marshal(res)
			err = errors.Join(err, jerr)
			fmt.Println(string(data))
		} else {
			fmt.Printf("%d rounds of faults on %d nodes in %d s, seed %d: %d operations on the database, %d violations\n",
				res.Rounds, res.Nodes, res.Seconds, res.Seed, res.Operations, res.Violations)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, model spec.QuorumModel, hours float64, rounds, nodes int, seed uint64, only string, links, verbose bool) (res *result, err error) {
	if nodes < 3 || nodes > 90 {
		return nil, fmt.Errorf("%d nodes: the lab takes 3 to 90", nodes)
	}
	if model != spec.MajorityNodeSet && model != spec.SingleQuorum {
		return nil, fmt.Errorf("model %q: write majority_node_set or single_quorum", model)
	}
	if err := netlab.Allowed(); err != nil {
		return nil, err
	}
	faults := faultlab.Faults()
	if only != "" {
		faults = nil
		for _, name := range strings.Split(only, ",") {
			f, err := faultlab.FaultNamed(strings.TrimSpace(name))
			if err != nil {
				return nil, err
			}
			faults = append(faults, f)
		}
	}
	if !links {
		had := faults
		faults = nil
		for _, f := range had {
			if !f.Link {
				faults = append(faults, f)
			}
		}
		if len(faults) == 0 {
			return nil, errors.New("these faults are of one of two links; leave --links=false out")
		}
	}
	res = &result{Nodes: nodes, Seed: seed, Faults: map[string]int{}}
	disks := true
	if err := faultlab.DisksAllowed(); err != nil {
		disks, res.LeftOut = false, err.Error()
		var rest []faultlab.Fault
		for _, f := range faults {
			if !f.Disk {
				rest = append(rest, f)
			}
		}
		if faults = rest; len(faults) == 0 {
			return nil, err
		}
	}
	log := io.Discard
	if verbose {
		log = os.Stderr
	}
	dir, err := os.MkdirTemp("", "clusterplan-faults-")
	if err != nil {
		return nil, err
	}
	program, home := filepath.Join(dir, "clusterplan"), filepath.Join(dir, "lab")
	if err := errors.Join(faultlab.Build(ctx, program), os.Mkdir(home, 0o755)); err != nil {
		return nil, err
	}
	c, err := faultlab.Up(ctx, faultlab.Config{Program: program, Dir: home, Nodes: nodes, Model: string(model), Disks: disks, Links: links})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, faultlab.Keep(c, filepath.Join(dir, "logs")))
		}
		if down := c.Down(); down != nil || err != nil {
			err = fmt.Errorf("%w; what the nodes said is kept in %s", errors.Join(err, down), dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	r, err := faultlab.NewRunner(c, seed, log)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	order := rand.New(rand.NewPCG(seed, 2))
	began := time.Now()
	defer func() {
		res.Seconds = int(time.Since(began).Seconds())
		res.Operations, res.Unknown, res.Refused = r.Total.Operations, r.Total.Unknown, r.Total.Refused
	}()
	for time.Since(began) < time.Duration(hours*float64(time.Hour)) && (rounds == 0 || res.Rounds < rounds) {
		round := []faultlab.Fault{faults[order.IntN(len(faults))]}
		if order.IntN(3) == 0 {
			round = append(round, faults[order.IntN(len(faults))])
		}
		if only != "" {
			round = faults
		}
		for _, f := range round {
			res.Faults[f.Name]++
		}
		res.Rounds++
		if err := r.Round(ctx, round...); err != nil {
			if ctx.Err() != nil {
				return res, ctx.Err()
			}
			res.Violations++
			return res, fmt.Errorf("round %d: %w", res.Rounds, err)
		}
	}
	return res, nil
}
