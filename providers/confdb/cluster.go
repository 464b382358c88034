package confdb

import (
	"context"
	"fmt"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

func clusterSpec(id string, v cty.Value) (spec.Cluster, error) {
	var c spec.Cluster
	if err := schema.Decode(v, &c); err != nil {
		return c, err
	}
	c.ID, c.ManagedBy = id, spec.ManagedBy
	return c, nil
}

func clusterObject(c spec.Cluster) (*providers.Object, error) {
	v, err := encode(c, shapeOf(spec.ClusterSchema()))
	if err != nil {
		return nil, fmt.Errorf("read the cluster: %w", err)
	}
	return &providers.Object{ID: c.ID, Value: v}, nil
}

// applyCluster bootstraps the cluster or changes its settings. Its end is
// nothing to do here: it is over when its last node is gone.
func (p *Provider) applyCluster(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	if req.Planned == cty.NilVal || req.Planned.IsNull() {
		return providers.ApplyResponse{}, nil
	}
	c, err := clusterSpec(req.ID, req.Planned)
	if err != nil {
		return providers.ApplyResponse{}, err
	}
	switch req.Phase {
	case providers.PhaseBootstrap:
		if err := p.bootstrap(ctx, c); err != nil {
			return providers.ApplyResponse{}, fmt.Errorf("bootstrap cluster %s: %w", c.Name, err)
		}
	case providers.PhaseUpdate:
	default:
		return providers.ApplyResponse{}, fmt.Errorf("a cluster has no phase %q", req.Phase)
	}
	if req.Phase == providers.PhaseUpdate {
		if err := p.write(ctx, func(api *client.Client) error {
			_, err := api.PutCluster(ctx, c, 0)
			return err
		}); err != nil {
			return providers.ApplyResponse{}, fmt.Errorf("update cluster %s: %w", c.Name, err)
		}
	}
	o, err := clusterObject(c)
	return providers.ApplyResponse{Object: o}, err
}

// bootstrap makes one waiting node that votes the first of the cluster, rather
// than a witness another one, unless one is already. (The first has a vote whatever
// its settings say: one without would keep it.) It refuses while a node that has run before does not answer: that
// one may be the first already, and two firsts would be two clusters.
func (p *Provider) bootstrap(ctx context.Context, c spec.Cluster) error {
	api, err := p.api()
	if err != nil {
		return err
	}
	defer p.forget()
	var first *answer
	var silent, words []string
	answers := p.ask(ctx, api)
	for i := range answers {
		a := &answers[i]
		switch {
		case a.err != nil && a.ServerID != 0:
			silent = append(silent, a.Name)
			words = append(words, fmt.Sprintf("%s: %v", a.Name, a.err))
		case a.err != nil:
			words = append(words, fmt.Sprintf("%s: %v", a.Name, a.err))
		case a.self.Membership == "waiting":
			switch {
			case a.Spec.Votes == 0:
				words = append(words, a.Name+" answers, and has votes = 0")
			case first == nil || first.Spec.Witness() && !a.Spec.Witness():
				first = a
			}
		default: // begun before: on this node it can be called again
			if err := p.bootstrapOn(ctx, api, a, c); err == nil || code(err) == "conflict" {
				return nil
			} else {
				return wrap(err)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(silent) > 0 {
		return fmt.Errorf("%w: %s ran before and may hold the cluster's database already, but does not answer; start it (apply does), or remove it from the definition and destroy it (%s)",
			providers.ErrUnreachable, strings.Join(silent, ", "), strings.Join(words, "; "))
	}
	if first == nil {
		return fmt.Errorf("%w: no agent of a node that votes answers (%s)", providers.ErrUnreachable, strings.Join(words, "; "))
	}
	return wrap(p.bootstrapOn(ctx, api, first, c))
}

// bootstrapOn makes the node of a the first. Its own join, which follows,
// brings the rest of its settings.
func (p *Provider) bootstrapOn(ctx context.Context, api *client.Client, a *answer, c spec.Cluster) error {
	s := a.Spec
	s.ID, s.Name, s.Votes = a.NodeID, a.Name, 1
	if s.Role == "" {
		s.Role = spec.RoleMember
	}
	if s.Addr == (addr.Address{}) {
		s.Addr = addr.Node(a.Name, addr.NoKey)
	}
	s.Address = a.Endpoint
	_, err := api.Bootstrap(ctx, a.Endpoint, client.Bootstrap{
		Cluster: c,
		Member:  client.MemberRequest{Spec: s, ServerID: a.self.ServerID, Endpoint: a.Endpoint, Version: a.self.Version},
	})
	return err
}
