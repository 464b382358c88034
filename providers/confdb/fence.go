package confdb

import (
	"context"
	"fmt"
	"maps"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

func fenceSpec(id string, a addr.Address, v cty.Value) (spec.Fence, error) {
	var f spec.Fence
	if err := schema.Decode(v, &f); err != nil {
		return f, err
	}
	f.ID, f.Addr, f.ManagedBy = id, a, spec.ManagedBy
	return f, nil
}

func fenceObject(f spec.Fence) (*providers.Object, error) {
	v, err := encode(f, shapeOf(spec.FenceSchema()))
	if err != nil {
		return nil, fmt.Errorf("read fence %s: %w", f.Name, err)
	}
	return &providers.Object{ID: f.ID, Value: v}, nil
}

// applyFence puts or deletes a fence: one write.
func (p *Provider) applyFence(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	if req.Planned == cty.NilVal || req.Planned.IsNull() {
		return providers.ApplyResponse{}, p.deleteFence(ctx, req)
	}
	f, err := fenceSpec(req.ID, req.Addr, req.Planned)
	if err != nil {
		return providers.ApplyResponse{}, err
	}
	var there *spec.Fence
	if req.Prior != nil {
		db, err := p.recent(ctx)
		if err != nil {
			return providers.ApplyResponse{}, err
		}
		if old := db.fences[f.ID]; old != nil && old.Spec.ManagedBy != spec.ManagedBy && !req.Adopt {
			return providers.ApplyResponse{}, foreignFence(old.Spec)
		} else if old != nil {
			there = &old.Spec
		}
	}
	sent := f
	sent.Parameters = maps.Clone(f.Parameters)
	if err := keepSecrets(&sent, there); err != nil {
		return providers.ApplyResponse{}, err
	}
	if err := p.write(ctx, func(c *client.Client) error {
		_, err := c.PutFence(ctx, sent, 0)
		return err
	}); err != nil {
		return providers.ApplyResponse{}, fmt.Errorf("put fence %s: %w", f.Name, err)
	}
	o, err := fenceObject(f)
	return providers.ApplyResponse{Object: o}, err
}

func foreignFence(f spec.Fence) error {
	return fmt.Errorf("fence %s is managed by %q, not by clusterplan: it is left alone; take it over with an import block, or delete it there and apply again", f.Name, f.ManagedBy)
}

func (p *Provider) deleteFence(ctx context.Context, req providers.ApplyRequest) error {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return err
	}
	old := db.fences[req.ID]
	switch {
	case db.none || old == nil && db.Quorum:
		return nil
	case !db.Quorum:
		return fmt.Errorf("delete fence %s: %w: the nodes that answer are no majority", req.Addr, providers.ErrNoQuorum)
	case old.Spec.ManagedBy != spec.ManagedBy:
		return foreignFence(old.Spec)
	}
	if err := p.write(ctx, func(c *client.Client) error {
		_, err := c.DeleteFence(ctx, req.ID, 0)
		return err
	}); err != nil {
		return fmt.Errorf("delete fence %s: %w", old.Spec.Name, err)
	}
	return nil
}

// keepSecrets puts in the place of secrets that nobody here knows what the database
// shows for them, which stands for its own.
func keepSecrets(f *spec.Fence, old *spec.Fence) error {
	for name, value := range f.Parameters {
		if _, is := spec.IsDigest(value); !is {
			continue
		}
		if old == nil || old.Parameters[name] == "" {
			return fmt.Errorf("parameter %s of fence %s stays as it is (ignore_changes), but the cluster has none, and the state only a digest of it; give it in the definition, and don't ignore it for one apply", name, f.Name)
		}
		f.Parameters[name] = old.Parameters[name]
	}
	return nil
}

// readFence is a fence as the database has it. Secrets never leave the agents:
// where what stands for one is that of the last applied value, it is that. Where
// of that too there is only a digest, the two can't be told apart.
func readFence(f spec.Fence, prior *providers.Object) (*providers.Object, error) {
	var was spec.Fence
	if prior != nil && prior.Value != cty.NilVal && !prior.Value.IsNull() {
		if err := schema.DecodeKnown(prior.Value, &was); err != nil {
			return nil, fmt.Errorf("read fence %s: %w", f.Name, err)
		}
	}
	known := make(map[string]string, len(f.Parameters))
	for name, value := range f.Parameters {
		if old, ok := was.Parameters[name]; ok && f.IsSensitive(name) {
			if _, is := spec.IsDigest(old); is || client.SealParameter(f.ID, name, old) == value {
				value = old
			}
		}
		known[name] = value
	}
	f.Parameters = known
	return fenceObject(f)
}
