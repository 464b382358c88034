package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// growth is what commands take at three sizes, a hundred times apart from first
// to last.
type growth struct {
	Shape    string             `json:"shape"`
	PerGroup int                `json:"per_group"`
	Fixed    map[string]cost    `json:"fixed"` // by command: of nothing but a cluster and its nodes
	Costs    map[string]byCount `json:"costs"`
	// Exponents of CPU time from the smallest to the largest, by command.
	Exponents map[string]float64 `json:"exponents"`
}

// byCount is a command's cost by the number of objects.
type byCount map[string]cost

func sorted(costs map[string]cost) []string {
	return slices.SortedFunc(maps.Keys(costs), func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
}

// commands in the order in which they are measured: applying ends with a state
// that holds all, which show shows.
var commands = []string{validate, noop, applying, show}

func (g growth) String() string {
	var w strings.Builder
	for _, what := range commands {
		name := what
		if what == noop {
			name = "plan"
		}
		fmt.Fprintf(&w, "%s (%s): exponent %.2f\n", name, g.Shape, g.Exponents[name])
		for _, n := range sorted(g.Costs[name]) {
			c := g.Costs[name][n]
			fmt.Fprintf(&w, "  %s objects: %.2f s of CPU, %.0f MiB\n", n, c.CPU, c.RSS)
		}
	}
	return w.String()
}

func (b *bench) growth(ctx context.Context) (fmt.Stringer, error) {
	for _, n := range []int{bare, b.objects / 100, b.objects / 10, b.objects} {
		if _, err := b.site(n); err != nil {
			return nil, err
		}
	}
	for i, s := range b.sites {
		runs := b.runs
		if i == len(b.sites)-1 {
			runs = 1 + b.runs/3 // the largest takes long, and differs little
		}
		for range runs {
			if err := s.run(ctx, validate); err != nil {
				return nil, err
			}
			if i > 0 {
				if err := s.apply(ctx); err != nil {
					return nil, err
				}
			}
			if i > 0 {
				if err := s.run(ctx, show); err != nil {
					return nil, err
				}
			}
		}
		if err := s.settled(); err != nil {
			return nil, err
		}
		for range runs {
			if err := s.run(ctx, noop); err != nil {
				return nil, err
			}
			if i == 0 {
				if err := s.run(ctx, show); err != nil {
					return nil, err
				}
			}
		}
		if i == 0 {
			s.costs[applying] = s.costs[noop] // where nothing is to be applied, what is left is the plan
		}
		s.stop()
		s.stop = nil
	}
	g := growth{Shape: b.shape.name, PerGroup: b.perGroup, Fixed: map[string]cost{}, Costs: map[string]byCount{}, Exponents: map[string]float64{}}
	for _, what := range commands {
		name := what
		if what == noop {
			name = "plan"
		}
		g.Fixed[name] = b.sites[0].cost(what)
		g.Costs[name] = byCount{}
		for _, s := range b.sites[1:] {
			g.Costs[name][fmt.Sprint(s.objects)] = s.cost(what)
		}
		g.Exponents[name] = exponent(b.sites[0], b.sites[1], b.sites[3], what)
	}
	return g, nil
}
