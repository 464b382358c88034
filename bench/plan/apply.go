package main

import (
	"context"
	"errors"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// idle is a cluster's database that does nothing: it takes whatever it is given
// and keeps none of it. Its members are the world's.
type idle struct {
	providers.Provider
	providers.LiveReader
}

func (idle) Apply(_ context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	return providers.ApplyResponse{Object: &providers.Object{ID: req.ID, Value: req.Planned}, Resources: req.Resources}, nil
}

// idleRegistry is the providers of an apply: a running cluster of the state's
// nodes, and a database that does nothing.
func idleRegistry(state *statefile.State) (*providers.Registry, error) {
	world := plannertest.New()
	world.Formed, world.Members = true, map[string]*plannertest.Member{}
	for i := range state.Objects {
		o := &state.Objects[i]
		switch o.Addr.Type {
		case addr.TypeCluster:
			v, err := schema.FromJSON(o.Attributes, schema.Type(spec.ClusterSchema()))
			if err != nil {
				return nil, err
			}
			world.ID, world.Settings = o.ID, v
		case addr.TypeNode:
			v, err := schema.FromJSON(o.Attributes, schema.Type(spec.NodeSchema()))
			if err != nil {
				return nil, err
			}
			n := spec.Node{ID: o.ID, Addr: o.Addr, Provider: "local"}
			if err := schema.DecodeKnown(v, &n); err != nil {
				return nil, err
			}
			world.Hosts[o.ID] = &plannertest.Host{Value: v, Program: world.Program, Running: true, Server: 1}
			world.Members[o.ID] = &plannertest.Member{Spec: n, Server: 1, Voter: true}
			world.Leader = o.ID
		}
	}
	r := world.Registry()
	local, err := r.Provider("local")
	if err != nil {
		return nil, err
	}
	database, err := r.Provider("confdb")
	if err != nil {
		return nil, err
	}
	return providers.NewRegistry(map[string]providers.Provider{"local": local, "confdb": idle{database, database.(providers.LiveReader)}}), nil
}

// applyOnce plans the definition in dir and carries it out, with the state's
// lock, journal and snapshot as they are, synced to the disk.
func applyOnce(ctx context.Context, dir string) (err error) {
	store, err := localstore.Open(localstore.DefaultPath(dir), localstore.Options{})
	if err != nil {
		return err
	}
	lock, err := store.Lock(ctx, statefile.LockRequest{Who: "bench", What: "apply"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	snap, err := lock.Read(context.Background())
	if err != nil {
		return err
	}
	r, err := idleRegistry(&snap.State)
	if err != nil {
		return err
	}
	defer r.Close()
	p, def, err := plan(ctx, dir, snap, r, false, func(int) {})
	if err != nil {
		return err
	}
	res, err := apply.Run(ctx, apply.Config{
		Plan: p, Definition: def, State: snap.State, Pending: snap.Pending, Providers: r, Journal: lock, Begin: statefile.Begin{Run: "bench", Who: "bench"},
	})
	if err == nil && len(res.Failed)+len(res.Skipped) > 0 {
		err = errors.New("something failed")
	}
	if err == nil && res.Done.Create != p.Summary.Create {
		err = errors.New("not all was made")
	}
	if err := errors.Join(err, lock.Finish(res.State)); err != nil {
		return err
	}
	return tell(p)
}
