package providertest

import (
	"context"
	"fmt"
	"sync"

	"github.com/clusterplan/clusterplan/providers"
)

// Cluster is a cluster in memory, as the node lifecycle asks for it. The zero
// value is ready. Calls are told in Calls.
type Cluster struct {
	Err error // answers every call, where set

	mu      sync.Mutex
	members map[string]*providers.MemberState
	calls   []string
}

// Calls are the calls that changed something, as "join n1".
func (c *Cluster) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.calls...)
}

func (c *Cluster) do(ctx context.Context, call, id string, must bool, fn func(m *providers.MemberState)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Err != nil {
		return c.Err
	}
	m := c.members[id]
	if m == nil && must {
		return fmt.Errorf("%s %s: no member", call, id)
	}
	before := providers.MemberState{}
	if m == nil {
		m = &providers.MemberState{}
	} else {
		before = *m
	}
	fn(m)
	if fmt.Sprint(before) != fmt.Sprint(*m) {
		c.calls = append(c.calls, call+" "+m.Spec.Name)
	}
	if c.members == nil {
		c.members = map[string]*providers.MemberState{}
	}
	if m.State != "" {
		c.members[id] = m
	} else {
		delete(c.members, id)
	}
	return nil
}

func settings(m *providers.MemberState, r providers.Member) {
	m.Spec, m.Endpoint = r.Spec, r.Endpoint
}

// Join makes a learner.
func (c *Cluster) Join(ctx context.Context, r providers.Member) error {
	return c.do(ctx, "join", r.Spec.ID, false, func(m *providers.MemberState) {
		if m.State == "" || m.ServerID != r.ServerID {
			m.State = providers.MemberLearner
		}
		m.ServerID = r.ServerID
		settings(m, r)
	})
}

// Promote makes a voter where the node has a vote.
func (c *Cluster) Promote(ctx context.Context, id string) error {
	return c.do(ctx, "promote", id, true, func(m *providers.MemberState) {
		if m.Spec.Votes > 0 {
			m.State = providers.MemberVoter
		}
	})
}

// Drain marks the node.
func (c *Cluster) Drain(ctx context.Context, id, _ string) error {
	return c.do(ctx, "drain", id, false, func(m *providers.MemberState) { m.DrainedByApply = m.State != "" })
}

// Resume takes the mark away.
func (c *Cluster) Resume(ctx context.Context, id string) error {
	return c.do(ctx, "resume", id, false, func(m *providers.MemberState) { m.DrainedByApply = false })
}

// Leave forgets the node.
func (c *Cluster) Leave(ctx context.Context, id string) error {
	return c.do(ctx, "leave", id, false, func(m *providers.MemberState) { m.State = "" })
}

// Update changes settings, and the vote with them.
func (c *Cluster) Update(ctx context.Context, r providers.Member) error {
	return c.do(ctx, "update", r.Spec.ID, true, func(m *providers.MemberState) {
		settings(m, r)
		if r.Spec.Votes == 0 {
			m.State = providers.MemberLearner
		}
	})
}

// MemberState is what the calls made of the node.
func (c *Cluster) MemberState(_ context.Context, id string) (providers.MemberState, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Err != nil {
		return providers.MemberState{}, c.Err
	}
	if m := c.members[id]; m != nil {
		return *m, nil
	}
	return providers.MemberState{}, nil
}
