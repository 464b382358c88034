package plannertest

import (
	"context"
	"fmt"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// database is the provider confdb.
type database World

var _ providers.LiveReader = (*database)(nil)

func (p *database) Schema() providers.Schema {
	return providers.Schema{Config: spec.Schema{Name: "confdb"}, Resources: spec.ResourceTypes(),
		Objects: map[string]spec.Schema{addr.TypeCluster: spec.ClusterSchema(), addr.TypeFence: spec.FenceSchema(), addr.TypeGroup: spec.GroupSchema()}}
}
func (p *database) Configure(cty.Value, providers.Env) error { return nil }
func (p *database) Close() error                             { return nil }

func (p *database) Plan(req providers.PlanRequest) (providers.PlanResponse, error) {
	resp := providers.PlanResponse{Planned: req.Config}
	if req.Type != addr.TypeCluster || req.Config == cty.NilVal {
		return resp, nil
	}
	switch {
	case req.Prior == nil:
		resp.Phases = []string{providers.PhaseBootstrap}
	case !req.Prior.Value.RawEquals(req.Config):
		resp.Phases = []string{providers.PhaseUpdate}
		var was, is spec.Cluster
		if schema.DecodeKnown(req.Prior.Value, &was) == nil && schema.DecodeKnown(req.Config, &is) == nil {
			if why := spec.QuorumChange(was.Quorum, is.Quorum); why != "" {
				return resp, cty.GetAttrPath("quorum").NewErrorf("%s", why)
			}
		}
	}
	return resp, nil
}

func (p *database) Read(_ context.Context, req providers.ReadRequest) (providers.ReadResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Formed && !w.answers() {
		return providers.ReadResponse{}, fmt.Errorf("%w: no agent answers", providers.ErrUnreachable)
	}
	resp := providers.ReadResponse{AsOf: w.Revision, NoQuorum: !w.Quorum()}
	if req.Type == addr.TypeCluster {
		if w.Formed {
			resp.Object = &providers.Object{ID: w.ID, Value: w.Settings}
		}
		return resp, nil
	}
	if v, ok := w.Fences[req.ID]; ok {
		resp.Object = &providers.Object{ID: req.ID, Value: v}
	}
	if g := w.Groups[req.ID]; g != nil && g.ManagedBy != spec.ManagedBy {
		return resp, fmt.Errorf("group %s is managed by %q", req.ID, g.ManagedBy)
	} else if g != nil {
		resp.Object, resp.Resources = &providers.Object{ID: req.ID, Value: g.Value}, g.Resources
	}
	return resp, nil
}

func (p *database) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	call := Call{req.Addr, req.ID, req.Phase}
	if req.Planned == cty.NilVal {
		call.Phase = "delete"
	}
	if err := w.begin(call); err != nil {
		return providers.ApplyResponse{}, err
	}
	if err := ctx.Err(); err != nil {
		return providers.ApplyResponse{}, err
	}
	var resp providers.ApplyResponse
	switch {
	case req.Phase == providers.PhaseBootstrap:
		if !w.Formed {
			first := ""
			for _, id := range sorted(w.Hosts) {
				if w.Hosts[id].up() && !w.Hosts[id].Value.GetAttr("votes").RawEquals(cty.Zero) {
					first = id
					break
				}
			}
			if first == "" {
				return resp, fmt.Errorf("%w: no agent of a node that votes runs", providers.ErrUnreachable)
			}
			w.made[req.ID]++
			w.Formed, w.ID, w.Leader = true, req.ID, first
			h := w.Hosts[first]
			n := spec.Node{ID: first, Votes: 1, Role: spec.RoleMember, Addr: addr.Node(h.Value.GetAttr("name").AsString(), addr.NoKey)}
			if err := schema.DecodeKnown(h.Value, &n); err != nil {
				return resp, err
			}
			w.Members[first] = &Member{Spec: n, Server: h.Server, Voter: true}
		}
		w.Settings = req.Planned
		resp.Object = &providers.Object{ID: req.ID, Value: req.Planned}
	case req.Type == addr.TypeCluster:
		if err := w.commit(); err != nil {
			return resp, err
		}
		w.Settings = req.Planned
		resp.Object = &providers.Object{ID: req.ID, Value: req.Planned}
	case req.Type == addr.TypeFence:
		if err := w.commit(); err != nil {
			return resp, err
		}
		if delete(w.Fences, req.ID); req.Planned != cty.NilVal {
			w.Fences[req.ID] = req.Planned
			resp.Object = &providers.Object{ID: req.ID, Value: req.Planned}
		}
	case req.Planned == cty.NilVal:
		if err := w.commit(); err != nil {
			return resp, err
		}
		delete(w.Groups, req.ID)
	default:
		if err := w.commit(); err != nil {
			return resp, err
		}
		if err := w.put(req); err != nil {
			return resp, err
		}
		resp.Object, resp.Resources = &providers.Object{ID: req.ID, Value: req.Planned}, req.Resources
	}
	w.place()
	return resp, w.end(call)
}

func (w *World) put(req providers.ApplyRequest) error {
	g := w.Groups[req.ID]
	if g == nil {
		w.made[req.ID]++
		g = &Group{ManagedBy: spec.ManagedBy, Want: spec.WantOnline}
		w.Groups[req.ID] = g
	}
	if g.ManagedBy != spec.ManagedBy && !req.Adopt {
		w.violate("%s was put, and %q manages it", req.Addr, g.ManagedBy)
	}
	g.ManagedBy = spec.ManagedBy
	for id, other := range w.Groups {
		if id != req.ID && other.Value.GetAttr("name").RawEquals(req.Planned.GetAttr("name")) {
			w.violate("%s has the name of %s: two groups %s and %s", req.Addr, other.Addr, id, req.ID)
		}
	}
	for _, r := range req.Resources {
		if r.ID == "" {
			w.violate("%s has no id", r.Addr)
		}
		if r.Type != "ip_address" {
			continue
		}
		for id, other := range w.Groups {
			for _, o := range other.Resources {
				if id != req.ID && o.Type == r.Type && o.Value.GetAttr("address").RawEquals(r.Value.GetAttr("address")) {
					w.violate("%s has the address of %s, which still holds it", r.Addr, o.Addr)
				}
			}
		}
	}
	if g.Value != cty.NilVal {
		w.renamed(g.Value.GetAttr("name").AsString(), req.Planned.GetAttr("name").AsString(), "depends_on", "keep_apart", "keep_apart_soft")
	}
	for it := req.Planned.GetAttr("depends_on").ElementIterator(); it.Next(); {
		_, name := it.Element()
		found := false
		for _, other := range w.Groups {
			if other.Value == cty.NilVal {
				continue // this one, at its birth
			}
			found = found || other.Value.GetAttr("name").RawEquals(name)
		}
		if !found {
			w.violate("%s was put before %s, which it depends on", req.Addr, name.AsString())
		}
	}
	g.Addr, g.Value, g.Resources = req.Addr, req.Planned, req.Resources
	return nil
}

// Forget has nothing to let go of.
func (*database) Forget() {}

// Live is the cluster's own life.
func (p *database) Live(context.Context) (*providers.Live, error) {
	w := (*World)(p)
	time.Sleep(w.LookTakes)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Looks++
	if !w.Formed || !w.answers() {
		return nil, fmt.Errorf("%w: no agent answers", providers.ErrUnreachable)
	}
	l := &providers.Live{Revision: w.Revision, ConfigRevision: w.Revision, Quorum: w.Quorum(), Leader: w.Leader}
	if err := schema.DecodeKnown(w.Settings, &l.Cluster); err != nil {
		return nil, err
	}
	for _, id := range sorted(w.Members) {
		m := w.Members[id]
		lm := providers.LiveMember{Spec: m.Spec, State: "learner", Node: spec.NodeDown, Paused: m.Paused, Drained: m.Drain}
		if m.Voter {
			lm.State = "voter"
		}
		if h := w.Hosts[id]; w.serves(id) && h.late > 0 {
			h.late--
		} else if w.serves(id) {
			lm.Node = spec.NodeUp
		} else if !l.Quorum {
			lm.Node = spec.NodeUnknown // nobody can tell
		}
		l.Members = append(l.Members, lm)
	}
	for _, id := range sorted(w.Groups) {
		g := w.Groups[id]
		s := spec.Group{ID: id, Addr: g.Addr, ManagedBy: g.ManagedBy}
		if err := schema.DecodeKnown(g.Value, &s); err != nil {
			return nil, err
		}
		types := spec.ResourceTypes()
		for _, r := range g.Resources {
			one := spec.Resource{ID: r.ID, Addr: r.Addr, Name: r.Addr.DefaultName(), Type: r.Type}
			if err := schema.DecodeResource(r.Value, types[r.Type], &one); err != nil {
				return nil, err
			}
			s.Resources = append(s.Resources, one)
		}
		state := spec.StateOffline
		if g.Owner != "" {
			state = spec.StateOnline
		}
		l.Groups = append(l.Groups, providers.LiveGroup{Spec: s, Owner: g.Owner, State: state, Want: g.Want, WantBy: g.WantBy})
	}
	return l, nil
}

// Order is an operator's order, at a time that never changes.
func Order(author, reason string) *providers.Order {
	return &providers.Order{Author: author, Reason: reason, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}
