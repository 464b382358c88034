package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// selfTimeout bounds how long one node may take to say what it is.
const selfTimeout = 1500 * time.Millisecond

// Status asks the cluster for its state, and each node for itself, for only it
// knows its processes. With an error the status is what the state knows, and
// the error why there is no more.
func (s *Session) Status(ctx context.Context) (*client.Status, error) {
	c, err := s.Client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	nodes := s.Nodes()
	selves := make([]*client.Self, len(nodes))
	var status client.Status
	var statusErr error
	var wg sync.WaitGroup
	wg.Go(func() { status, statusErr = c.Status(ctx) })
	for i, n := range nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, selfTimeout)
			defer cancel()
			if self, err := c.Self(ctx, n.Endpoint); err == nil {
				selves[i] = &self
			}
		})
	}
	wg.Wait()
	if statusErr != nil {
		if ctx.Err() != nil {
			return nil, ErrInterrupted
		}
		known, err := s.knownStatus()
		return known, errors.Join(pki.Explain(statusErr), err)
	}
	addSelves(&status, nodes, selves)
	return &status, nil
}

// addSelves adds to the cluster's answer what each agent says of itself (nil: nothing),
// and the nodes that the state has and the cluster doesn't. While a node is replaced two
// agents have its name: the member is who has its address too. The new one joins under a
// name of its own, and has the other's once that has left.
func addSelves(status *client.Status, nodes []providers.Entry, selves []*client.Self) {
	if status.Nodes == nil {
		status.Nodes = []client.StatusNode{}
	}
	members := len(status.Nodes)
	member := func(n providers.Entry) int {
		return slices.IndexFunc(status.Nodes[:members], func(x client.StatusNode) bool {
			return x.Address == n.Endpoint && (x.Name == n.Name || x.Name == providers.SuccessorName(n.Name, n.NodeID))
		})
	}
	for i, n := range nodes {
		self := selves[i]
		at := member(n)
		if at < 0 && !slices.ContainsFunc(nodes, func(x providers.Entry) bool {
			at := member(x)
			return at >= 0 && status.Nodes[at].Name == n.Name
		}) { // it has another address by now
			at = slices.IndexFunc(status.Nodes[:members], func(x client.StatusNode) bool { return x.Name == n.Name })
		}
		if at < 0 { // not joined, or it has left
			status.Nodes = append(status.Nodes, client.StatusNode{Name: n.Name, State: spec.NodeUnknown, Address: n.Endpoint,
				Zone: n.Spec.Zone, Role: n.Spec.Role, Votes: n.Spec.Votes, Spare: n.Spec.Spare, Reason: notMember(self)})
			at = len(status.Nodes) - 1
		}
		if self != nil {
			n := &status.Nodes[at]
			n.PID, n.MonitorPID, n.FreezerPID, n.NoReset, n.NotReady, n.Version = self.PID, self.MonitorPID, self.FreezerPID, self.NoReset, self.NotReady, self.Version
		}
	}
	slices.SortStableFunc(status.Nodes, func(a, b client.StatusNode) int { return compare(a.Name, b.Name) })
}

func notMember(self *client.Self) string {
	if self == nil {
		return "not a member of the cluster, and its agent does not answer"
	}
	return "not a member of the cluster: " + self.Membership
}

// knownStatus is what the state knows when nobody answers.
func (s *Session) knownStatus() (*client.Status, error) {
	st := s.Snap.State
	out := &client.Status{FormatVersion: client.FormatVersion, Cluster: st.Cluster.Name, Time: time.Now().UTC().Truncate(time.Millisecond),
		Nodes: []client.StatusNode{}, Groups: []client.StatusGroup{}, Fences: []client.StatusFence{}}
	for _, o := range st.Objects {
		var err error
		switch {
		case o.Addr.IsResource():
			if i := len(out.Groups) - 1; i >= 0 { // its group stands just before it
				out.Groups[i].Resources = append(out.Groups[i].Resources, client.StatusResource{Name: nameOf(&o), Type: o.Type, State: spec.StateUnknown})
			}
		case o.Addr.Type == addr.TypeCluster:
			var c spec.Cluster
			if err = s.decode(&o, &c); err == nil {
				out.Quorum.Model = c.Quorum.Model
			}
		case o.Addr.Type == addr.TypeNode:
			var n spec.Node
			if err = s.decode(&o, &n); err == nil {
				out.Nodes = append(out.Nodes, client.StatusNode{Name: n.Name, State: spec.NodeUnknown, Address: s.endpoint(o.ID), Zone: n.Zone,
					Role: n.Role, Votes: n.Votes, Spare: n.Spare})
				out.Quorum.Votes += n.Votes
			}
		case o.Addr.Type == addr.TypeFence:
			var f spec.Fence
			if err = s.decode(&o, &f); err == nil {
				sf := client.StatusFence{Name: f.Name, Agent: f.Agent, Level: f.Level, Nodes: []string{}}
				for _, n := range out.Nodes { // nodes stand before fences
					if f.Covers(n.Name) {
						sf.Nodes = append(sf.Nodes, n.Name)
					}
				}
				out.Fences = append(out.Fences, sf)
			}
		case o.Addr.Type == addr.TypeGroup:
			out.Groups = append(out.Groups, client.StatusGroup{Name: nameOf(&o), State: spec.StateUnknown, Resources: []client.StatusResource{}})
		}
		if err != nil {
			return out, fmt.Errorf("state %s: %s: %w", s.Store.Path(), o.Addr, err)
		}
	}
	out.Quorum.Needed = out.Quorum.Votes/2 + 1
	return out, nil
}

func (s *Session) endpoint(nodeID string) string {
	for _, n := range s.Nodes() {
		if n.NodeID == nodeID {
			return n.Endpoint
		}
	}
	return ""
}

// decode reads an object's attributes by whichever provider has its type.
func (s *Session) decode(o *statefile.Object, into any) error {
	for _, sch := range s.registry.Schemas() {
		if shape, ok := sch.Objects[o.Type]; ok {
			v, err := schema.FromJSON(s.Snap.State.Known(o), schema.Type(shape))
			if err != nil {
				return err
			}
			return schema.DecodeKnown(v, into)
		}
	}
	return fmt.Errorf("no provider knows the type %q", o.Type)
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
