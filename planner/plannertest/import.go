package plannertest

import (
	"context"
	"fmt"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Import finds a host by its id or its name.
func (p *hosts) Import(ctx context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	id := ""
	for _, one := range sorted(w.Hosts) {
		if one == req.ID || w.Hosts[one].Value.GetAttr("name").RawEquals(cty.StringVal(req.ID)) {
			id = one
		}
	}
	w.mu.Unlock()
	if id == "" {
		return providers.ImportResponse{}, fmt.Errorf("no node is %q", req.ID)
	}
	read, err := p.Read(ctx, providers.ReadRequest{Addr: req.Addr, Type: req.Type, ID: id})
	return providers.ImportResponse{Object: read.Object, ManagedBy: spec.ManagedBy}, err
}

// Import finds a group by its id or its name.
func (p *database) Import(_ context.Context, req providers.ImportRequest) (providers.ImportResponse, error) {
	w := (*World)(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.Quorum() {
		return providers.ImportResponse{}, fmt.Errorf("%w: too few votes", providers.ErrNoQuorum)
	}
	for _, id := range sorted(w.Groups) {
		g := w.Groups[id]
		if req.Type != addr.TypeGroup || id != req.ID && !g.Value.GetAttr("name").RawEquals(cty.StringVal(req.ID)) {
			continue
		}
		resp := providers.ImportResponse{Object: &providers.Object{ID: id, Value: g.Value}, ManagedBy: g.ManagedBy}
		for _, r := range g.Resources {
			r.Addr = req.Addr.WithResource(r.Addr.Resource, r.Addr.ResourceKey)
			resp.Resources = append(resp.Resources, r)
		}
		return resp, nil
	}
	return providers.ImportResponse{}, fmt.Errorf("the cluster has no %s %q", req.Type, req.ID)
}
