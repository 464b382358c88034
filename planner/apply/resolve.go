package apply

import (
	"context"
	"fmt"
	"time"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/statefile"
)

// value tells the definition what is known of an object by now.
func (r *runner) value(a addr.Address) (cty.Value, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.known[a]
	return v, ok
}

// resolve is an object's configuration with what the plan could not know. s
// is its schema; keep, if given, puts back what stays as it is.
func (r *runner) resolve(a addr.Address, s spec.Schema, config cty.Value, keep func(cty.Value) cty.Value) (cty.Value, error) {
	if config == cty.NilVal {
		return config, nil
	}
	if r.cfg.Definition != nil && !config.IsWhollyKnown() {
		v, diags := r.cfg.Definition.Resolve(a, r.value)
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		if keep != nil {
			v = keep(v)
		}
		for name, e := range v.AsValueMap() {
			// What the provider works out itself it may still work out.
			if attr, _ := s.Attribute(name); !attr.Computed && !e.IsWhollyKnown() {
				return cty.NilVal, fmt.Errorf("%s of %s is not known, for what has it was not applied; apply that first", name, a)
			}
		}
		config = v
	}
	config, _ = config.UnmarkDeep()
	if a.Type == addr.TypeFence {
		return config, nil // the cluster puts its own secrets in the place of digests
	}
	return config, known(a, config)
}

// known refuses what is known by a digest alone.
func known(a addr.Address, v cty.Value) error {
	return cty.Walk(v, func(path cty.Path, e cty.Value) (bool, error) {
		if e.Type() != cty.String || !e.IsKnown() || e.IsNull() {
			return true, nil
		}
		if _, is := spec.IsDigest(e.AsString()); is {
			return false, fmt.Errorf("%s of %s is sensitive and stays as it is (ignore_changes), but the state has only a digest of it; plan again once the cluster tells what it has, or give it in the definition and don't ignore it for one apply", schema.PathString(path), a)
		}
		return true, nil
	})
}

// outputs are the outputs' values after the run; what is still unknown keeps
// its last value.
func (r *runner) outputs(ctx context.Context, res *Result) map[string]statefile.Output {
	out := map[string]statefile.Output{}
	live := r.live(ctx)
	for _, o := range r.cfg.Definition.ResolveOutputs(r.value, live) {
		old, had := r.cfg.State.Outputs[o.Name]
		if !r.allowed(&o, live, res) || !o.Value.IsWhollyKnown() {
			if had {
				out[o.Name] = old
			}
			continue
		}
		ty, err := ctyjson.MarshalType(o.Value.Type())
		if err != nil {
			continue
		}
		text, err := ctyjson.Marshal(o.Value, o.Value.Type())
		if err != nil {
			continue
		}
		one := statefile.Output{Value: text, Type: ty, Sensitive: o.Sensitive}
		if o.Sensitive {
			one.Value, one.Digest = []byte("null"), r.cfg.State.OutputDigest(o.Name, ty, text)
		}
		out[o.Name] = one
	}
	return out
}

// live tells those that ask for it how the cluster is now.
func (r *runner) live(ctx context.Context) lang.Live {
	start := time.Now()
	return func(a addr.Address, attribute string) (string, bool) {
		live := r.look(ctx, start)
		if live == nil {
			return "", false
		}
		return live(a, attribute)
	}
}

// stored is an object's value as the state has it.
func (r *runner) stored(o *statefile.Object) (cty.Value, error) {
	p, err := r.cfg.Providers.Provider(o.Provider)
	if err != nil {
		return cty.NilVal, err
	}
	s, ok := p.Schema().Objects[o.Type]
	if !ok {
		return cty.NilVal, fmt.Errorf("provider %s has no objects of type %s", o.Provider, o.Type)
	}
	return schema.FromJSON(r.cfg.State.Known(o), schema.Type(s))
}
