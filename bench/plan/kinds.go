package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bench is one call of this program.
type bench struct {
	options
	shape   shape
	program string
	sites   []*site
	rival   *rival
}

func (b *bench) close() {
	for _, s := range b.sites {
		s.close()
	}
	if b.rival != nil {
		b.rival.close()
	}
}

func (b *bench) site(objects int) (*site, error) {
	s, err := newSite(b.program, b.shape, objects)
	if err == nil {
		b.sites = append(b.sites, s)
	}
	return s, err
}

// settled has a site's objects be there.
func (s *site) settled() (err error) {
	s.stop, err = settle(s.dir, true)
	return err
}

// apply measures an apply of everything but the cluster and its nodes, which
// are there.
func (s *site) apply(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(s.dir, ".clusterplan")); err != nil {
		return err
	}
	if _, err := settle(s.dir, false); err != nil {
		return err
	}
	return s.run(ctx, applying)
}

// figures are those of one shape, without another program.
type figures struct {
	Objects  int     `json:"objects"`
	Shape    string  `json:"shape"`
	FirstMS  float64 `json:"first_ms"`
	NoopMS   float64 `json:"noop_ms"`
	NoopCPU  float64 `json:"noop_cpu_ms"`
	NoopRSS  float64 `json:"noop_rss_mib"`
	FixedCPU float64 `json:"fixed_cpu_ms"`
	Exponent float64 `json:"exponent"`
}

func (f figures) String() string {
	return fmt.Sprintf("%d objects (%s): first plan %.0f ms; nothing to do: %.0f ms, %.0f ms of CPU (%.0f of them for any plan), %.0f MiB; exponent %.2f\n",
		f.Objects, f.Shape, f.FirstMS, f.NoopMS, f.NoopCPU, f.FixedCPU, f.NoopRSS, f.Exponent)
}

func (b *bench) plans(ctx context.Context) (fmt.Stringer, error) {
	for _, n := range []int{bare, b.objects / 10, b.objects} {
		s, err := b.site(n)
		if err != nil {
			return nil, err
		}
		for range b.runs {
			if err := s.run(ctx, first); err != nil {
				return nil, err
			}
		}
		if err := s.settled(); err != nil {
			return nil, err
		}
	}
	// In turns, so that a moment in which the machine is busy hits them all.
	for range b.runs {
		for _, s := range b.sites {
			if err := s.run(ctx, noop); err != nil {
				return nil, err
			}
		}
	}
	whole := b.sites[2]
	c := whole.cost(noop)
	return figures{
		Objects: whole.objects, Shape: b.shape.name, FirstMS: round(whole.cost(first).Wall*1000, 1), NoopMS: round(c.Wall*1000, 1),
		NoopCPU: round(c.CPU*1000, 1), NoopRSS: c.RSS, FixedCPU: round(b.sites[0].cost(noop).CPU*1000, 1),
		Exponent: exponent(b.sites[0], b.sites[1], whole, noop),
	}, nil
}

// pair is what both take for the same, and how many times as much Terraform.
type pair struct {
	Clusterplan cost    `json:"clusterplan"`
	Terraform   cost    `json:"terraform"`
	CPURatio    float64 `json:"cpu_ratio"`
	RSSRatio    float64 `json:"rss_ratio"`
}

func newPair(ours, theirs cost) pair {
	return pair{ours, theirs, round(theirs.CPU/ours.CPU, 1), round(theirs.RSS/ours.RSS, 1)}
}

func (p pair) String() string {
	return fmt.Sprintf("%.2f s of CPU, %.0f MiB; Terraform %.2f s, %.0f MiB: %.1f times the CPU, %.1f times the memory",
		p.Clusterplan.CPU, p.Clusterplan.RSS, p.Terraform.CPU, p.Terraform.RSS, p.CPURatio, p.RSSRatio)
}

// comparison is plans beside Terraform's.
type comparison struct {
	Shape            string `json:"shape"`
	Objects          int    `json:"objects"`
	PerGroup         int    `json:"per_group"`
	TerraformObjects int    `json:"terraform_objects"`
	TerraformVersion string `json:"terraform_version"`
	Noop             pair   `json:"noop"`
	First            pair   `json:"first"`
	Changed          pair   `json:"changed"`
	// More is clusterplan alone at --objects, where Terraform has fewer.
	More map[string]cost `json:"more,omitempty"`
	Note string          `json:"note,omitempty"`
}

func (c comparison) String() string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s, %d objects of clusterplan (groups of %d), %d resources of Terraform %s\n", c.Shape, c.Objects, c.PerGroup, c.TerraformObjects, c.TerraformVersion)
	fmt.Fprintf(&w, "nothing to do: %s\nfirst plan:    %s\n1 %% changed:   %s\n", c.Noop, c.First, c.Changed)
	for _, what := range []string{noop, first, changed} {
		if m, ok := c.More[what]; ok {
			fmt.Fprintf(&w, "%s of %d objects, clusterplan alone: %.2f s of CPU, %.0f MiB\n", what, c.Objects, m.CPU, m.RSS)
		}
	}
	if c.Note != "" {
		fmt.Fprintln(&w, c.Note)
	}
	return w.String()
}

func (b *bench) versus(ctx context.Context) (fmt.Stringer, error) {
	var err error
	if b.rival, err = newRival(ctx, b.shape.name, b.rivalObjects); err != nil {
		return nil, err
	}
	sizes := []int{b.rivalObjects}
	if b.objects != b.rivalObjects {
		sizes = append(sizes, b.objects)
	}
	for _, n := range sizes {
		if _, err := b.site(n + (bare-n%b.perGroup+b.perGroup*bare)%b.perGroup); err != nil { // at least as many as Terraform has
			return nil, err
		}
	}
	theirs := map[string][]cost{}
	all := fmt.Sprintf("Plan: %d to add, 0 to change, 0 to destroy", b.rivalObjects)
	some := fmt.Sprintf("Plan: 0 to add, %d to change, 0 to destroy", (b.rivalObjects+99)/100)
	for _, turn := range []struct {
		what, want string
		before     func() error
	}{
		{first, all, func() error { return nil }},
		{noop, "No changes.", func() error {
			for _, s := range b.sites {
				if err := s.settled(); err != nil {
					return err
				}
			}
			return b.rival.settle()
		}},
		{changed, some, func() error {
			for _, s := range b.sites {
				if err := s.change(true); err != nil {
					return err
				}
			}
			return b.rival.write(true)
		}},
	} {
		if err := turn.before(); err != nil {
			return nil, err
		}
		for i := range max(b.runs, b.rivalRuns) {
			if i < b.rivalRuns {
				c, err := b.rival.plan(ctx, turn.want)
				if err != nil {
					return nil, err
				}
				theirs[turn.what] = append(theirs[turn.what], c)
			}
			for _, s := range b.sites {
				if i >= b.runs {
					break
				}
				if err := s.run(ctx, turn.what); err != nil {
					return nil, err
				}
			}
		}
	}
	same, most := b.sites[0], b.sites[len(b.sites)-1]
	out := comparison{Shape: b.shape.name, Objects: most.objects, PerGroup: b.perGroup, TerraformObjects: b.rivalObjects, TerraformVersion: b.rival.version}
	for what, to := range map[string]*pair{noop: &out.Noop, first: &out.First, changed: &out.Changed} {
		*to = newPair(same.cost(what), middle(theirs[what]))
	}
	if same != most {
		out.More = map[string]cost{noop: most.cost(noop), first: most.cost(first), changed: most.cost(changed)}
		out.Note = fmt.Sprintf("The pairs and ratios are those of %d objects each; Terraform was not tried with %d.", b.rivalObjects, most.objects)
	}
	return out, nil
}

// applied is applies of a provider that does nothing.
type applied struct {
	Shape    string          `json:"shape"`
	PerGroup int             `json:"per_group"`
	Applies  map[string]cost `json:"applies"` // by objects
	Exponent float64         `json:"exponent"`

	TerraformObjects int                `json:"terraform_objects,omitempty"`
	TerraformVersion string             `json:"terraform_version,omitempty"`
	Terraform        *cost              `json:"terraform,omitempty"`
	CPURatios        map[string]float64 `json:"cpu_ratios,omitempty"` // by objects of clusterplan
}

func (a applied) String() string {
	var w strings.Builder
	for _, n := range sorted(a.Applies) {
		c := a.Applies[n]
		fmt.Fprintf(&w, "apply of %s objects (%s, groups of %d): %.2f s of CPU, %.0f MiB, %.1f s\n", n, a.Shape, a.PerGroup, c.CPU, c.RSS, c.Wall)
		if a.Terraform != nil {
			fmt.Fprintf(&w, "  terraform apply of %d: %.2f s of CPU, %.0f MiB: %.1f times the CPU\n", a.TerraformObjects, a.Terraform.CPU, a.Terraform.RSS, a.CPURatios[n])
		}
	}
	fmt.Fprintf(&w, "exponent %.2f\n", a.Exponent)
	return w.String()
}

func (b *bench) applies(ctx context.Context) (fmt.Stringer, error) {
	for _, n := range []int{bare, b.objects / 10, b.objects} {
		s, err := b.site(n)
		if err != nil {
			return nil, err
		}
		if n == bare {
			if err := s.settled(); err != nil {
				return nil, err
			}
		}
	}
	out := applied{Shape: b.shape.name, PerGroup: b.perGroup, Applies: map[string]cost{}}
	for range b.runs {
		// Where nothing is to be applied, what is left is the plan.
		if err := b.sites[0].run(ctx, noop); err != nil {
			return nil, err
		}
		for _, s := range b.sites[1:] {
			if err := s.apply(ctx); err != nil {
				return nil, err
			}
		}
	}
	b.sites[0].costs[applying] = b.sites[0].costs[noop]
	for _, s := range b.sites[1:] {
		out.Applies[fmt.Sprint(s.objects)] = s.cost(applying)
	}
	out.Exponent = exponent(b.sites[0], b.sites[1], b.sites[2], applying)
	if b.vs == "" {
		return out, nil
	}
	var err error
	if b.rival, err = newRival(ctx, b.shape.name, b.rivalObjects); err != nil {
		return nil, err
	}
	var theirs []cost
	for range b.rivalRuns {
		c, err := b.rival.apply(ctx)
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, c)
		if err := os.Remove(filepath.Join(b.rival.dir, "terraform.tfstate")); err != nil {
			return nil, err
		}
	}
	c := middle(theirs)
	out.TerraformObjects, out.TerraformVersion, out.Terraform, out.CPURatios = b.rivalObjects, b.rival.version, &c, map[string]float64{}
	for n, ours := range out.Applies {
		out.CPURatios[n] = round(c.CPU/ours.CPU, 1)
	}
	return out, nil
}
