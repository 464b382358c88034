package refresh

import (
	"context"
	"fmt"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Import looks for what the definition's import blocks name and the state
// doesn't have yet: nodes first, for they answer for the rest. What is not
// found is told in the answer (planner.Import.Err); the error is ctx's.
func Import(ctx context.Context, cfg Config) ([]planner.Import, error) {
	var out []planner.Import
	blocks := slices.Clone(cfg.Definition.Imports)
	slices.SortStableFunc(blocks, func(x, y lang.Import) int { return addr.Compare(x.To, y.To) }) // nodes before groups
	for _, block := range blocks {
		if cfg.State.Find(block.To) != nil {
			continue // done, or not needed any more
		}
		one := planner.Import{To: block.To, ID: block.ID, Range: &block.Range}
		o, ok := cfg.Definition.Object(block.To)
		switch {
		case cfg.State.Cluster == nil && !addr.Machinery(block.To.Type):
			one.Err = "There is no cluster yet that it could be part of: the state does not hold its identity. Bring the state back, or apply first, without this block."
		case begun(cfg, block.To):
			one.Err = fmt.Sprintf("An apply that was cut off had begun to make %s. Apply without this block, which settles that.", block.To)
		case !ok:
			one.Err = fmt.Sprintf("The definition has no %s. Write its block, or have it written: clusterplan plan --generate-config-out=NAME.cluster.hcl.", block.To)
		default:
			config, _ := o.Value.UnmarkDeep()
			Find(ctx, cfg.Providers, &one, o.Provider, config)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out = append(out, one)
	}
	return out, nil
}

func begun(cfg Config, a addr.Address) bool {
	return slices.ContainsFunc(cfg.Pending, func(p statefile.Pending) bool {
		return p.Addr == a && p.Object != nil && p.Action != planner.ActionImport
	})
}

// Find fills in what a provider finds, or why it finds nothing. config is the
// definition's value; cty.NilVal: there is none.
func Find(ctx context.Context, registry *providers.Registry, one *planner.Import, provider string, config cty.Value) {
	one.Provider = provider
	p, err := registry.Provider(provider)
	var found providers.ImportResponse
	if err == nil {
		found, err = p.Import(ctx, providers.ImportRequest{Addr: one.To, Type: one.To.Type, ID: one.ID, Config: config})
	}
	if err == nil && found.Object == nil {
		err = fmt.Errorf("provider %s finds nothing by the id %q", provider, one.ID)
	}
	if err != nil {
		one.Err = planner.Sentence(err.Error())
		return
	}
	one.Object, one.Resources, one.ManagedBy = found.Object, found.Resources, found.ManagedBy
}

// With tells what imported nodes and machinery know of themselves, and of all others what
// known does.
func With(known lang.Known, imports []planner.Import) lang.Known {
	return func(a addr.Address) (cty.Value, bool) {
		for i := range imports {
			if one := &imports[i]; one.To == a && one.Object != nil && (a.Type == addr.TypeNode || addr.Machinery(a.Type)) {
				return one.Object.Value, true
			}
		}
		return known(a)
	}
}
