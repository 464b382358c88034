// Package providertest is what every provider must do, as tests: Run takes an
// object through its life and checks at each step what package providers
// promises. Nodes.go has a cluster that exists in memory only, for providers
// of nodes.
package providertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Object is one object's life: made with Create, changed to Update, deleted.
type Object struct {
	// New is a configured provider; called again, another run's.
	New       func(t *testing.T) providers.Provider
	Addr      addr.Address
	Type      string
	ID        string
	Create    cty.Value
	Update    cty.Value
	Resources []providers.Resource // of a group, before and after
	// Persists says that a delete leaves it to be read (a cluster ends with its last node).
	Persists bool
	Timeout  time.Duration // of the whole life; default 1 min
}

// Default is the value of s with nothing given but what set says.
func Default(s spec.Schema, set map[string]cty.Value) cty.Value {
	attrs := schema.BlockDefault(spec.Block{Attributes: s.Attributes, Blocks: s.Blocks}).AsValueMap()
	for name, v := range set {
		attrs[name] = v
	}
	return cty.ObjectVal(attrs)
}

// Run takes o through its life.
func Run(t *testing.T, o Object) {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.Timeout)
	defer cancel()
	l := &life{Object: o, p: o.New(t), ctx: ctx}

	l.absent(t, "before it is made", nil)
	l.cancelled(t, nil, o.Create)

	made := l.apply(t, "create", nil, o.Create)
	if made.ID != o.ID {
		t.Fatalf("create: the id is %q, it was given %q", made.ID, o.ID)
	}
	seen := l.read(t, "after create", made)
	l.settled(t, "after create", seen, o.Create)
	if err := l.p.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	l.p = o.New(t)
	seen = l.read(t, "by another run", seen)
	l.settled(t, "by another run", seen, o.Create)

	changed := l.apply(t, "update", seen, o.Update)
	seen = l.read(t, "after update", changed)
	l.settled(t, "after update", seen, o.Update)
	l.imported(t)
	l.cancelled(t, seen, o.Update)

	l.apply(t, "delete", seen, cty.NilVal)
	if !o.Persists {
		l.absent(t, "after delete", nil)
	}
	if err := l.p.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

type life struct {
	Object
	p   providers.Provider
	ctx context.Context
}

func (l *life) request(prior *providers.Object) providers.ReadRequest {
	return providers.ReadRequest{Addr: l.Addr, Type: l.Type, ID: l.ID, Prior: prior}
}

// absent wants Read to say that nothing is there.
func (l *life) absent(t *testing.T, when string, prior *providers.Object) {
	t.Helper()
	if prior == nil {
		prior = &providers.Object{ID: l.ID}
	}
	res, err := l.p.Read(l.ctx, l.request(prior))
	if err != nil || res.Object != nil {
		t.Fatalf("%s: read gives %+v, %v; want nothing", when, res.Object, err)
	}
}

func (l *life) read(t *testing.T, when string, prior *providers.Object) *providers.Object {
	t.Helper()
	res, err := l.p.Read(l.ctx, l.request(prior))
	if err != nil || res.Object == nil {
		t.Fatalf("%s: read gives %v, %v", when, res.Object, err)
	}
	if res.Object.ID != l.ID {
		t.Fatalf("%s: read gives the id %q, want %q", when, res.Object.ID, l.ID)
	}
	if !res.Object.Value.IsWhollyKnown() {
		t.Fatalf("%s: what was read is not wholly known: %#v", when, res.Object.Value)
	}
	if len(res.Resources) != len(l.Resources) {
		t.Fatalf("%s: read gives %d resources, want %d", when, len(res.Resources), len(l.Resources))
	}
	for i, r := range res.Resources {
		want := l.Resources[i]
		if r.ID != want.ID || r.Addr != want.Addr || r.Type != want.Type || !r.Value.RawEquals(want.Value) {
			t.Fatalf("%s: resource %d is\n%#v\nwant\n%#v", when, i, r, want)
		}
	}
	return res.Object
}

// imported wants an object that no state knows to be found by its id, and to be
// as the definition says; and nothing by an id that nothing has.
func (l *life) imported(t *testing.T) {
	t.Helper()
	if l.Persists { // a cluster: its keys are in its state only
		return
	}
	p := l.New(t)
	defer p.Close()
	req := providers.ImportRequest{Addr: l.Addr, Type: l.Type, ID: l.ID, Config: l.Update}
	res, err := p.Import(l.ctx, req)
	if err != nil || res.Object == nil || res.Object.ID != l.ID || res.ManagedBy != spec.ManagedBy {
		t.Fatalf("import gives %+v, %v", res, err)
	}
	l.settled(t, "after import", res.Object, l.Update)
	if len(res.Resources) != len(l.Resources) {
		t.Fatalf("import gives %d resources, want %d", len(res.Resources), len(l.Resources))
	}
	for i, r := range res.Resources {
		if want := l.Resources[i]; r.ID != want.ID || r.Addr != want.Addr || !r.Value.RawEquals(want.Value) {
			t.Fatalf("import: resource %d is\n%#v\nwant\n%#v", i, r, want)
		}
	}
	req.ID = "no such thing"
	if res, err := p.Import(l.ctx, req); err == nil || !strings.Contains(err.Error(), req.ID) {
		t.Fatalf("import of what is not there gives %+v, %v", res, err)
	}
}

// plan plans twice: it is pure, so both are the same.
func (l *life) plan(t *testing.T, what string, prior *providers.Object, config cty.Value) providers.PlanResponse {
	t.Helper()
	req := providers.PlanRequest{Addr: l.Addr, Type: l.Type, Prior: prior, Config: config}
	a, err := l.p.Plan(req)
	if err != nil {
		t.Fatalf("plan %s: %v", what, err)
	}
	b, err := l.p.Plan(req)
	if err != nil {
		t.Fatalf("plan %s again: %v", what, err)
	}
	if (a.Planned == cty.NilVal) != (b.Planned == cty.NilVal) || (a.Planned != cty.NilVal && !a.Planned.RawEquals(b.Planned)) || len(a.Phases) != len(b.Phases) {
		t.Fatalf("plan %s: two plans of the same differ:\n%+v\n%+v", what, a, b)
	}
	return a
}

// settled wants a plan with nothing to do.
func (l *life) settled(t *testing.T, when string, seen *providers.Object, config cty.Value) {
	t.Helper()
	if len(seen.Health) > 0 {
		t.Fatalf("%s: read finds %q", when, seen.Health)
	}
	res := l.plan(t, when, seen, config)
	if len(res.Phases)+len(res.Replace)+len(res.Drift) > 0 {
		t.Fatalf("%s: a plan has something to do: %+v", when, res)
	}
	if !res.Planned.RawEquals(seen.Value) {
		t.Fatalf("%s: planned differs from what is there:\n%#v\n%#v", when, res.Planned, seen.Value)
	}
}

// apply plans and does each phase twice: the second time finds it done.
func (l *life) apply(t *testing.T, what string, prior *providers.Object, config cty.Value) *providers.Object {
	t.Helper()
	plan := l.plan(t, what, prior, config)
	phases := plan.Phases
	if len(phases) == 0 {
		phases = []string{""}
	}
	req := providers.ApplyRequest{Addr: l.Addr, Type: l.Type, ID: l.ID, Prior: prior, Planned: plan.Planned}
	if config != cty.NilVal {
		req.Resources = l.Resources
	}
	var last *providers.Object
	for _, phase := range phases {
		for range 2 {
			req.Phase = phase
			res, err := l.p.Apply(l.ctx, req)
			if err != nil {
				t.Fatalf("%s, phase %q: %v", what, phase, err)
			}
			last = res.Object
			if last != nil {
				req.Prior = last
			}
		}
	}
	if config == cty.NilVal {
		if last != nil {
			t.Fatalf("delete leaves %+v", last)
		}
		return nil
	}
	if last == nil {
		t.Fatalf("%s leaves nothing", what)
	}
	return last
}

// cancelled wants what has effects to end with a context that has ended.
func (l *life) cancelled(t *testing.T, prior *providers.Object, config cty.Value) {
	t.Helper()
	ctx, cancel := context.WithCancel(l.ctx)
	cancel()
	plan := l.plan(t, "for a context that has ended", prior, config)
	phase := ""
	if len(plan.Phases) > 0 {
		phase = plan.Phases[0]
	} else if l.Type == addr.TypeNode {
		phase = providers.PhaseInstall
	}
	_, err := l.p.Apply(ctx, providers.ApplyRequest{Addr: l.Addr, Type: l.Type, ID: l.ID, Phase: phase, Prior: prior, Planned: plan.Planned, Resources: l.Resources})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("apply, phase %q, with a context that has ended: %v", phase, err)
	}
	if prior == nil {
		l.absent(t, "after an apply that was cancelled", nil)
	}
}
