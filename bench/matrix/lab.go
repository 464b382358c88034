package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/clusterplan/clusterplan/internal/faultlab"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

// labResult is what clusters did beside what their plans had said.
type labResult struct {
	Rows      int              `json:"rows"`
	Disturbed int              `json:"disturbed"` // tried again: something else had happened (faultlab.ErrDisturbed)
	Wrong     int              `json:"wrong"`     // the cluster did something else
	RatioMax  float64          `json:"ratio_max"` // of ms and worst_ms
	Over      int              `json:"over"`      // took longer than worst_ms and the machine's stall
	StallMax  float64          `json:"stall_max_ms"`
	Tried     []faultlab.Tried `json:"tried"`
}

// tries is how often a row is tried that is disturbed.
const tries = 5

func lab(ctx context.Context, only string, asJSON, verbose bool) error {
	if err := netlab.Allowed(); err != nil {
		return err
	}
	scenes := faultlab.Scenes()
	if only != "" {
		s, err := faultlab.SceneNamed(only)
		if err != nil {
			return err
		}
		scenes = []faultlab.Scene{s}
	}
	dir, err := os.MkdirTemp("", "clusterplan-bench-")
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "clusterplan")
	if err := faultlab.Build(ctx, program); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	out := labResult{Tried: []faultlab.Tried{}}
	var wrong []error
	for _, s := range scenes {
		home := filepath.Join(dir, s.Name)
		if err := os.Mkdir(home, 0o755); err != nil {
			return err
		}
		if err := out.scene(ctx, program, home, s, verbose); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("%w; files are kept in %s", err, dir)
			}
			wrong = append(wrong, err)
			out.Wrong++
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if asJSON {
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			return err
		}
	} else {
		out.print()
	}
	return errors.Join(wrong...)
}

// scene goes through the rows of one definition. What is wrong ends it: nobody
// knows what the cluster is like then.
func (r *labResult) scene(ctx context.Context, program, dir string, s faultlab.Scene, verbose bool) (err error) {
	t, err := faultlab.Try(ctx, program, dir, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for _, row := range t.Rows {
		if row.Zone != "" { // its nodes are a pair, which has a row
			continue
		}
		var told faultlab.Tried
		for range tries {
			if told, err = t.Row(ctx, row); !errors.Is(err, faultlab.ErrDisturbed) {
				break
			}
			r.Disturbed++
		}
		if err != nil {
			return err
		}
		r.add(told)
		if verbose {
			fmt.Fprintln(os.Stderr, line(told))
		}
	}
	return nil
}

func (r *labResult) add(told faultlab.Tried) {
	r.Rows++
	r.Tried = append(r.Tried, told)
	r.StallMax = max(r.StallMax, told.StallMS)
	for _, g := range told.Groups {
		r.RatioMax = max(r.RatioMax, g.Ratio)
	}
	r.Over += len(told.Late())
}

func line(t faultlab.Tried) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-18s %-10s", t.Scene, t.Fail, t.How)
	if !t.Quorum {
		b.WriteString("  no quorum")
	}
	for _, g := range t.Groups {
		fmt.Fprintf(&b, "  %s %s -> %s %.0f ms (at most %.0f, %.2f)", g.Group, g.From, g.To, g.MS, g.WorstMS, g.Ratio)
	}
	fmt.Fprintf(&b, "  [stood still for %.0f ms]", t.StallMS)
	return b.String()
}

func (r *labResult) print() {
	for _, t := range r.Tried {
		fmt.Println(line(t))
	}
	fmt.Printf("%d rows came true, %d disturbed and tried again, %d definitions with a wrong one; the slowest group took %.2f of its bound, %d took longer than it\n",
		r.Rows, r.Disturbed, r.Wrong, r.RatioMax, r.Over)
}
