package apply_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/member"

	rt "github.com/clusterplan/clusterplan/runtime/confdb"
)

// arenaDB is the provider confdb.
type arenaDB arena

var _ providers.LiveReader = (*arenaDB)(nil)

func (p *arenaDB) Schema() providers.Schema                 { return p.database.Schema() }
func (p *arenaDB) Configure(cty.Value, providers.Env) error { return nil }
func (p *arenaDB) Close() error                             { return nil }
func (p *arenaDB) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	return p.database.Plan(req)
}

func (p *arenaDB) Import(context.Context, providers.ImportRequest) (providers.ImportResponse, error) {
	return providers.ImportResponse{}, errors.New("nothing is imported here")
}

// copyOf is the newest copy of the database that can be read, and whether it is
// the leader's.
func (a *arena) copyOf() (state *rt.State, st member.Status, fresh bool) {
	if state, st = a.view(); state != nil {
		return state, st, true
	}
	for _, id := range ids(a.machines) {
		if s := a.sim.State(id); s != nil && s.Cluster.ID != "" && (state == nil || s.Revision > state.Revision) {
			state = s
			st, _ = a.sim.Status(id)
		}
	}
	return state, st, false
}

func ids[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (p *arenaDB) Read(_ context.Context, req providers.ReadRequest) (resp providers.ReadResponse, err error) {
	a := (*arena)(p)
	a.do(func() {
		state, _, fresh := a.copyOf()
		if state == nil {
			err = fmt.Errorf("%w: no agent answers", providers.ErrUnreachable)
			return
		}
		resp.AsOf, resp.NoQuorum = state.Revision, !fresh
		if req.Type == addr.TypeCluster {
			resp.Object = a.settings
			return
		}
		if g := a.groups[req.ID]; g != nil && state.Groups[req.ID] != nil {
			resp.Object, resp.Resources = &providers.Object{ID: req.ID, Value: g.value}, g.resources
		}
	})
	return resp, err
}

func (p *arenaDB) Apply(ctx context.Context, req providers.ApplyRequest) (resp providers.ApplyResponse, err error) {
	a := (*arena)(p)
	time.Sleep(time.Duration(len(req.Addr.String())*7919+1) * time.Nanosecond)
	a.do(func() { a.sim.Tell(fmt.Sprintf("apply: %s %s", req.Addr, req.Phase)) })
	switch {
	case req.Type == addr.TypeCluster:
		err = a.cluster(ctx, req)
		resp.Object = &providers.Object{ID: req.ID, Value: req.Planned}
		a.do(func() {
			if err == nil {
				a.settings = resp.Object
			}
		})
	case req.Planned == cty.NilVal:
		if err = a.submit(ctx, rt.Command{DeleteGroup: &rt.GroupRef{Group: req.ID}}); err == nil {
			err = a.wait(ctx, 30*time.Second, func() (bool, error) {
				state, _ := a.view()
				return state != nil && state.Groups[req.ID] == nil, nil
			})
		}
		a.do(func() { delete(a.groups, req.ID) })
	default:
		var g spec.Group
		if g, err = specOf(req.ID, req.Addr, &kept{req.Planned, req.Resources}); err == nil {
			err = a.submit(ctx, rt.Command{PutGroup: &g})
		}
		if err == nil {
			a.do(func() { a.groups[req.ID] = &kept{req.Planned, req.Resources} })
			err = a.settles(ctx, g)
		}
		resp.Object, resp.Resources = &providers.Object{ID: req.ID, Value: req.Planned}, req.Resources
	}
	return resp, err
}

func specOf(id string, at addr.Address, k *kept) (spec.Group, error) {
	g := spec.Group{ID: id, Addr: at, ManagedBy: spec.ManagedBy}
	if err := schema.DecodeKnown(k.value, &g); err != nil {
		return g, err
	}
	types := spec.ResourceTypes()
	for _, r := range k.resources {
		one := spec.Resource{ID: r.ID, Addr: r.Addr, Name: r.Addr.DefaultName(), Type: r.Type}
		if err := schema.DecodeResource(r.Value, types[r.Type], &one); err != nil {
			return g, err
		}
		g.Resources = append(g.Resources, one)
	}
	return g, nil
}

// settles waits until a group is online, or nothing is happening to it: it may
// have no place to go to.
func (a *arena) settles(ctx context.Context, g spec.Group) error {
	start := time.Now()
	err := a.wait(ctx, 4*time.Second, func() (bool, error) {
		state, _ := a.view()
		if state == nil || state.Groups[g.ID] == nil {
			return false, nil
		}
		s := state.Groups[g.ID]
		up := s.State == spec.StateOnline
		for _, r := range s.Resources {
			up = up && r.State == spec.StateOnline
		}
		return up && time.Since(start) > time.Second, nil
	})
	if errors.Is(err, errLate) {
		err = nil
	}
	return err
}

// cluster bootstraps, or changes the settings.
func (a *arena) cluster(ctx context.Context, req providers.ApplyRequest) error {
	c := spec.Cluster{ID: req.ID, ManagedBy: spec.ManagedBy}
	if err := schema.DecodeKnown(req.Planned, &c); err != nil {
		return err
	}
	c.ID = "sim" // what the members are told
	if req.Phase == providers.PhaseUpdate {
		return a.submit(ctx, rt.Command{PutCluster: &c})
	}
	first := ""
	var n spec.Node
	var server uint64
	a.do(func() {
		for _, id := range ids(a.machines) {
			one := spec.Node{ID: id, Addr: a.machines[id].addr}
			if schema.DecodeKnown(a.machines[id].value, &one) != nil || !a.sim.Runs(id) || one.Votes == 0 {
				continue
			}
			if first == "" || n.Witness() && !one.Witness() {
				first, n, server = id, one, a.sim.Server(id)
			}
		}
		if first != "" {
			n.Address = a.sim.Endpoint(first)
			a.sim.Membership(first, member.Membership{Op: "bootstrap"}, func(rt.Result) {})
		}
	})
	if first == "" {
		return errors.New("no agent of a node that votes runs")
	}
	if err := a.wait(ctx, 20*time.Second, func() (bool, error) {
		st, _ := a.sim.Status(first)
		return st.Driver.Role == rt.Leader && st.Driver.Ready, nil
	}); err != nil {
		return err
	}
	for _, c := range []rt.Command{
		{PutCluster: &c},
		{PutNode: &rt.PutNode{Spec: n, ServerID: server, Endpoint: n.Address, Version: "sim"}},
		{NodeJoined: &rt.NodeRef{Node: first}},
	} {
		if err := a.submit(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Forget has nothing to let go of.
func (*arenaDB) Forget() {}

// Live is the cluster's own life.
func (p *arenaDB) Live(context.Context) (l *providers.Live, err error) {
	a := (*arena)(p)
	a.do(func() {
		state, st, fresh := a.copyOf()
		if state == nil {
			if len(a.machines) == 0 || a.settings == nil {
				err = fmt.Errorf("%w: no cluster", providers.ErrUnreachable)
				return
			}
			err = fmt.Errorf("%w: no agent answers", providers.ErrUnreachable)
			return
		}
		l = &providers.Live{Revision: state.Revision, ConfigRevision: state.ConfigRevision, Quorum: fresh, Leader: st.LeaderNode, Cluster: state.Cluster}
		if fresh {
			l.Leader = a.sim.Leader()
		}
		for _, id := range ids(state.Nodes) {
			n := state.Nodes[id]
			m := providers.LiveMember{Spec: n.Spec, State: "joining", Node: spec.NodeUp, Drained: n.Drained}
			switch {
			case slices.Contains(st.Driver.Voters, n.ServerID):
				m.State = "voter"
			case slices.Contains(st.Driver.Learners, n.ServerID):
				m.State = "learner"
			}
			switch {
			case !fresh:
				m.Node = spec.NodeUnknown
			case !n.Joined:
				m.Node = spec.NodeJoining
			case !slices.Contains(state.View.Up, id):
				m.Node = spec.NodeDown
			case n.Paused != nil:
				m.Node = spec.NodePaused
			}
			if n.Paused != nil {
				m.Paused = &providers.Order{Author: n.Paused.Author, Reason: n.Paused.Reason}
			}
			l.Members = append(l.Members, m)
		}
		for _, id := range ids(state.Groups) {
			g := state.Groups[id]
			l.Groups = append(l.Groups, providers.LiveGroup{Spec: g.Spec, Owner: g.Owner.Node, Home: g.HomeFrom, State: g.State, Want: g.Want})
		}
	})
	return l, err
}
