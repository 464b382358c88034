package confdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Waits for the cluster: how often it is asked, and how long nothing may
// change before the wait is given up.
const (
	pollEvery   = 150 * time.Millisecond
	catchUpWait = 2 * time.Minute
	leaveWait   = 15 * time.Second
)

// drainMark begins the reason of a drain that the node lifecycle asked for, so
// that Resume undoes only those; pausedMark keeps an operator's pause that it
// replaced.
const (
	drainMark  = "apply: "
	pausedMark = "; before: paused by "
)

func request(m providers.Member) client.MemberRequest {
	return client.MemberRequest{Spec: m.Spec, ServerID: m.ServerID, Endpoint: m.Endpoint, Version: m.Version}
}

// write does one write and drops what was read.
func (p *Provider) write(ctx context.Context, what func(c *client.Client) error) error {
	if err := p.hold(ctx); err != nil {
		return err
	}
	c, err := p.api()
	if err != nil {
		return err
	}
	err = what(c)
	p.forget()
	return wrap(err)
}

// Join makes the node a learner, with the data directory that it has now. Others
// may join beside it: the database takes them in one by one.
func (p *Provider) Join(ctx context.Context, m providers.Member) error {
	return p.write(ctx, func(c *client.Client) error {
		return inTurn(ctx, "its turn has not come", func() error {
			_, err := c.Join(ctx, request(m))
			return err
		})
	})
}

// inTurn does what the database is too busy for again, until it isn't.
func inTurn(ctx context.Context, why string, what func() error) error {
	deadline := time.Now().Add(catchUpWait)
	for {
		err := what()
		if ctx.Err() != nil && err != nil { // that its turn has not come yet is no failure then
			return ctx.Err()
		}
		if code(err) != "busy" {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s for %s: %s", why, catchUpWait, err)
		}
	}
}

// Promote waits until the node has caught up and takes part in full.
func (p *Provider) Promote(ctx context.Context, nodeID string) error {
	return p.write(ctx, func(c *client.Client) error {
		return inTurn(ctx, "it has not caught up", func() error {
			_, err := c.Promote(ctx, nodeID)
			return err
		})
	})
}

// Update changes what the cluster keeps of the node.
func (p *Provider) Update(ctx context.Context, m providers.Member) error {
	return p.write(ctx, func(c *client.Client) error {
		_, err := c.UpdateMember(ctx, request(m), 0)
		return err
	})
}

// Leave takes the node out. Twice is fine. What a node that is down owns still,
// for no other may have it, is taken from it as safely as by an evict.
func (p *Provider) Leave(ctx context.Context, nodeID string) error {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return err
	}
	m := db.members[nodeID]
	return p.write(ctx, func(c *client.Client) error {
		_, err := c.Leave(ctx, nodeID)
		if code(err) == "conflict" && m != nil && m.Node == spec.NodeDown {
			_, err = c.Evict(ctx, nodeID, client.Order{Reason: drainMark + "it leaves, and is down"})
		}
		return err
	})
}

// MemberState is what the cluster knows of the node.
func (p *Provider) MemberState(ctx context.Context, nodeID string) (providers.MemberState, error) {
	db, err := p.database(ctx)
	if err != nil {
		return providers.MemberState{}, err
	}
	m := db.members[nodeID]
	if m == nil {
		if !db.none && !db.Quorum {
			return providers.MemberState{}, fmt.Errorf("%w: the copy that answers may be behind", providers.ErrNoQuorum)
		}
		return providers.MemberState{}, nil
	}
	return providers.MemberState{
		State: m.State, ServerID: m.ServerID, Endpoint: m.Endpoint, Spec: m.Spec,
		DrainedByApply: m.Drained && ours(m.Paused),
	}, nil
}

func ours(i *client.Intent) bool { return i != nil && strings.HasPrefix(i.Reason, drainMark) }

// Drain waits until the node owns no group. Groups that no other node may own
// stay; the plan has said so, and they stop with the node. One that has begun to stop
// and does not come to an end of it keeps the node from being touched: were its agent
// ended, another node would take the group over while it is on here still. Of a node
// that is down nobody tells any more how its stops went on, and they keep nothing.
func (p *Provider) Drain(ctx context.Context, nodeID, reason string) error {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return err
	}
	m := db.members[nodeID]
	if m == nil {
		return nil // owns nothing
	}
	if !m.Drained {
		text := drainMark + reason
		if m.Paused != nil && !ours(m.Paused) {
			text += pausedMark + m.Paused.Author + ": " + m.Paused.Reason
		}
		if err := p.write(ctx, func(c *client.Client) error {
			_, err := c.Drain(ctx, nodeID, client.Order{Reason: text})
			return err
		}); err != nil {
			return err
		}
	}
	var left []client.StatusGroup
	down := false
	look := func(st *client.Status) (bool, string) {
		down = slices.ContainsFunc(st.Nodes, func(n client.StatusNode) bool { return n.Name == m.Spec.Name && n.State == spec.NodeDown })
		left = slices.DeleteFunc(slices.Clone(st.Groups), func(g client.StatusGroup) bool { return g.Owner != m.Spec.Name })
		var owned []string
		for _, g := range left {
			owned = append(owned, fmt.Sprintf("%s %s", g.Name, g.State))
		}
		return len(left) == 0, strings.Join(owned, ", ")
	}
	gone, err := p.watch(ctx, p.leaveWait, look)
	quiet := p.leaveWait
	if more := stopBound(db, left); err == nil && !gone && !down && more > 0 { // so long a stop may take
		gone, err = p.watch(ctx, more, look)
		quiet += more
	}
	p.forget()
	if err != nil || gone || down {
		return err
	}
	if i := slices.IndexFunc(left, stops); i >= 0 {
		g := left[i]
		return fmt.Errorf("group %[1]s is stuck on it: its stop has not come to an end for %[3]s (%[4]s), so it may start on no other node, and this one is left running, drained. Mend what keeps it from stopping on %[2]s; clusterplan status tells when it has left, as it then does by itself. Apply again after that",
			g.Name, m.Spec.Name, quiet, pending(g))
	}
	return nil
}

// stops tells whether a group has begun to stop, and is not down yet.
func stops(g client.StatusGroup) bool {
	return slices.ContainsFunc(g.Resources, func(r client.StatusResource) bool { return r.State == spec.StateOfflinePending })
}

// stopBound is how long those of the groups may take that stop now.
func stopBound(db *database, groups []client.StatusGroup) time.Duration {
	longest := time.Duration(0)
	for _, g := range groups {
		for _, c := range db.groups {
			if c.Spec.Name == g.Name && stops(g) {
				longest = max(longest, c.Spec.StopBound())
			}
		}
	}
	return longest
}

// Resume undoes Drain; what an operator ordered stays, and comes back where
// Drain had replaced it.
func (p *Provider) Resume(ctx context.Context, nodeID string) error {
	p.forget()
	db, err := p.database(ctx)
	if err != nil {
		return err
	}
	m := db.members[nodeID]
	if m == nil || !ours(m.Paused) {
		return nil
	}
	_, before, wasPaused := strings.Cut(m.Paused.Reason, pausedMark)
	return p.write(ctx, func(c *client.Client) error {
		if _, err := c.Resume(ctx, nodeID, client.Order{Reason: "apply is done"}); err != nil || !wasPaused {
			return err
		}
		who, why, _ := strings.Cut(before, ": ")
		_, err := c.Pause(ctx, nodeID, client.Order{Reason: strings.TrimSpace(fmt.Sprintf("%s (ordered by %s, before an apply)", why, who))})
		return err
	})
}

// watch asks for the cluster's status until done says so (true), or until what
// it tells has not changed for quiet (false). Nodes that go silent meanwhile
// are borne with for as long.
func (p *Provider) watch(ctx context.Context, quiet time.Duration, done func(*client.Status) (bool, string)) (bool, error) {
	c, err := p.api()
	if err != nil {
		return false, err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last, since := "", time.Now()
	for {
		st, err := c.Status(ctx)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		now := "?"
		if err == nil && st.Quorum.Have {
			ok, text := done(&st)
			if ok {
				return true, nil
			}
			now = text
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > quiet {
			if err == nil && !st.Quorum.Have {
				err = fmt.Errorf("%w: none of the nodes that answer has a quorum", providers.ErrNoQuorum)
			}
			return false, wrap(err)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}
