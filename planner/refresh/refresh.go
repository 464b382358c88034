// Package refresh asks the providers what is there: everything that the state
// knows, and everything that an apply began and did not finish. It reads in
// parallel, within a bound, and changes nothing. What can't be seen is no
// error: the plan keeps the state's values for it and says so.
package refresh

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sync/errgroup"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// DefaultParallelism is how many objects are read at once.
const DefaultParallelism = 10

// Config says what to look at.
type Config struct {
	State     statefile.State // with its journal folded in
	Pending   []statefile.Pending
	Providers *providers.Registry // configured
	// Definition, where there is one: groups that the database has just as it
	// wants them are not read one by one (planner.Seen.Same).
	Definition  *lang.Definition
	Parallelism int // 0: DefaultParallelism
	// Only: nobody applies what is planned, so that the providers need not keep what
	// was read of groups that are as they are wanted.
	Only bool
}

// target is one object to be read.
type target struct {
	addr     addr.Address
	typ      string
	provider providers.Provider
	id       string
	prior    *providers.Object
	why      string // it is not asked for, because
}

// Run looks at the world. The error is about the state or ctx, never about
// what could not be reached.
func Run(ctx context.Context, cfg Config) (planner.World, error) {
	if cfg.Parallelism <= 0 {
		cfg.Parallelism = DefaultParallelism
	}
	world := planner.World{Objects: map[addr.Address]planner.Seen{}}
	if cfg.State.Cluster != nil {
		Live(ctx, cfg.Providers, &world)
	}
	targets, err := collect(cfg, world)
	if err != nil {
		return world, err
	}
	same := unchanged(cfg.Definition, world.Live, &cfg.State)
	var mu sync.Mutex
	all := func(targets []target) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(cfg.Parallelism)
		for _, t := range targets {
			if t.why != "" || same[t.addr] {
				mu.Lock()
				world.Objects[t.addr] = planner.Seen{Err: t.why, Same: same[t.addr]}
				mu.Unlock()
				continue
			}
			g.Go(func() error {
				seen := read(ctx, t)
				mu.Lock()
				defer mu.Unlock()
				world.Objects[t.addr] = seen
				return ctx.Err()
			})
		}
		return g.Wait()
	}
	on := machines(cfg.Definition)
	var first, later []target
	for _, t := range targets {
		if len(on[t.addr]) > 0 {
			later = append(later, t)
		} else {
			first = append(first, t)
		}
	}
	if err := all(first); err != nil {
		return world, err
	}
	for i := range later {
		for _, m := range on[later[i].addr] {
			if o := world.Objects[m].Object; o != nil && slices.Contains(o.Health, providers.HealthMachineOff) {
				later[i].why = m.String() + " is off"
			}
		}
	}
	err = all(later)
	if cfg.Only {
		forget(cfg.Providers)
	}
	return world, err
}

// forget has the providers let go of the cluster's database.
func forget(registry *providers.Registry) {
	for _, name := range registry.Names() {
		if p, err := registry.Provider(name); err == nil {
			if reader, ok := p.(providers.LiveReader); ok {
				reader.Forget()
			}
		}
	}
}

// machines are those that nodes stand on. They are read first: one that is off says
// so at once, where its node would be waited for in vain.
func machines(def *lang.Definition) map[addr.Address][]addr.Address {
	on := map[addr.Address][]addr.Address{}
	if def == nil {
		return on
	}
	for i := range def.Objects {
		o := &def.Objects[i]
		if o.Addr.Type != addr.TypeNode {
			continue
		}
		for _, e := range o.DependsOn {
			if e.On && e.To.Type == addr.TypeMachine {
				on[o.Addr] = append(on[o.Addr], e.To)
			}
		}
	}
	return on
}

// Again looks at what Run left out because it was just as the definition wanted
// it, where cfg's definition, evaluated once more, wants something else now.
func Again(ctx context.Context, cfg Config, world planner.World) error {
	targets, err := collect(cfg, world)
	if err != nil {
		return err
	}
	same := unchanged(cfg.Definition, world.Live, &cfg.State)
	for _, t := range targets {
		if world.Objects[t.addr].Same && !same[t.addr] {
			world.Objects[t.addr] = read(ctx, t)
		}
	}
	return ctx.Err()
}

// Live fills in the running cluster's life, from the provider that has it.
func Live(ctx context.Context, registry *providers.Registry, world *planner.World) {
	for _, name := range registry.Names() {
		p, err := registry.Provider(name)
		if err != nil {
			continue
		}
		reader, ok := p.(providers.LiveReader)
		if !ok {
			continue
		}
		live, err := reader.Live(ctx)
		if err != nil {
			world.LiveErr = err.Error()
			continue
		}
		world.Live = live
		return
	}
}

// collect lists what to read. Without anyone to answer for the cluster's
// database, what is in it is not asked for one by one.
func collect(cfg Config, world planner.World) ([]target, error) {
	var out []target
	// By what the definition has, the secrets of what it had are known where they are
	// the same. An object may have another address there, and the secret be none any more.
	secret := map[string]bool{}
	for i := range cfg.State.Objects {
		if o := &cfg.State.Objects[i]; len(o.Sensitive) > 0 {
			secret[o.Type] = true
		}
	}
	for _, p := range cfg.Pending {
		if p.Object != nil && len(p.Object.Sensitive) > 0 {
			secret[p.Object.Type] = true
		}
	}
	like := map[string][]cty.Value{}
	if cfg.Definition != nil {
		for i := range cfg.Definition.Objects {
			if o := &cfg.Definition.Objects[i]; secret[o.Type] {
				like[o.Type] = append(like[o.Type], o.Value)
			}
		}
	}
	add := func(o *statefile.Object) error {
		if o.Addr.IsResource() {
			return nil // comes with its group
		}
		p, err := cfg.Providers.Provider(o.Provider)
		if err != nil {
			return fmt.Errorf("refresh %s: %w", o.Addr, err)
		}
		t := target{addr: o.Addr, typ: o.Type, provider: p, id: o.ID, prior: &providers.Object{ID: o.ID, Private: o.Private}}
		if _, holds := p.(providers.LiveReader); holds {
			// The cluster itself is asked for all the same: the answer may be that
			// there is none, for sure.
			if world.Live == nil && world.LiveErr != "" && o.Type != addr.TypeCluster {
				t.why = world.LiveErr
			}
		}
		if _, holds := p.(providers.LiveReader); holds && o.Type != addr.TypeFence {
			// Who holds the database tells all of these by itself.
		} else if s, ok := p.Schema().Objects[o.Type]; ok && len(o.Attributes) > 0 {
			v, err := schema.FromJSON(cfg.State.Known(o, like[o.Type]...), schema.Type(s))
			if err != nil {
				return fmt.Errorf("refresh %s: its attributes in the state: %w", o.Addr, err)
			}
			t.prior.Value = v
		}
		out = append(out, t)
		return nil
	}
	known := addr.NewIndex(func(o *statefile.Object) *addr.Address { return &o.Addr }, len(cfg.State.Objects))
	for i := range cfg.State.Objects {
		known.Put(&cfg.State.Objects[i])
		if err := add(&cfg.State.Objects[i]); err != nil {
			return nil, err
		}
	}
	for _, p := range cfg.Pending {
		if p.Object == nil || known.At(p.Addr) != nil {
			continue
		}
		if err := add(p.Object); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func read(ctx context.Context, t target) planner.Seen {
	resp, err := t.provider.Read(ctx, providers.ReadRequest{Addr: t.addr, Type: t.typ, ID: t.id, Prior: t.prior})
	if err != nil {
		return planner.Seen{Err: err.Error()}
	}
	return planner.Seen{Object: resp.Object, Resources: resp.Resources}
}
