package api

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// evictNode takes a dead or drained node out for good: marked in the database,
// so that the leader takes or frees what it owns; then out of the agreement,
// and last out of the database. It can be repeated after a crash anywhere.
func (s *server) evictNode(c *call) error {
	id, _, cmd, err := s.order(c, s.nodeID)
	if err != nil {
		return err
	}
	l, err := s.lookAsLeader(c.ctx, id)
	if err != nil {
		return err
	}
	if l.node == nil {
		return unknown("node", id, nil)
	}
	voter, _ := has(l.ms.Driver, l.node.ServerID)
	if voter {
		done, err := s.takeVote(c, l)
		if err != nil {
			return err
		}
		defer done()
	}
	if l.node.ServerID == l.ms.Driver.Self {
		if !l.node.Drained || len(l.owns) > 0 {
			return &client.Error{Status: http.StatusConflict, Code: "conflict",
				Message: fmt.Sprintf("node %s is up", l.node.Spec.Name), Hint: "drain it and wait until its groups have left"}
		}
		return s.handOver(c.ctx, l.ms)
	}
	gone := cmd
	gone.ID += "/gone"
	cmd.EvictNode = &confdb.NodeRef{Node: id}
	if _, err := s.submit(c.ctx, cmd); err != nil {
		return err
	}
	free := func(st *confdb.State, _ member.Status) bool {
		for _, g := range st.Groups {
			if g.Owner.Node == id {
				return false
			}
		}
		return true
	}
	if !s.until(c.ctx, free) {
		l, err := s.look(c.ctx, id)
		if err != nil {
			return err
		}
		return busy(fmt.Sprintf("%s still owns %q, which can't be taken from it yet", l.node.Spec.Name, l.owns))
	}
	if err := s.remove(c.ctx, l.node.ServerID, l.ms.Driver); err != nil {
		return err
	}
	gone.DeleteNode = &confdb.NodeRef{Node: id}
	return s.commit(c, gone)
}

// takeVote waits for the caller's turn to take a node's vote, until done: two that
// each leave votes enough could together leave too few. It refuses as keepsQuorum does.
func (s *server) takeVote(c *call, l snapshot) (done func(), err error) {
	if err := s.keepsQuorum(c, l); err != nil { // whoever has a turn may be what it waits for
		return nil, err
	}
	select {
	case s.votes <- struct{}{}:
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
	done = func() { <-s.votes }
	if err := s.keepsQuorum(c, l); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// keepsQuorum refuses to take a vote when too few of the other voters are up, and
// stay so for a while: with a dead one's that can't be, with another's it can, and
// nothing could bring the cluster back.
func (s *server) keepsQuorum(c *call, l snapshot) error {
	left, up, needed := 0, 0, 0
	enough := func(st *confdb.State, ms member.Status) bool {
		left, up = 0, 0
		for _, v := range ms.Driver.Voters {
			if v != l.node.ServerID {
				left++
			}
		}
		for id, n := range st.Nodes {
			v, _ := has(ms.Driver, n.ServerID)
			if v && n.ServerID != l.node.ServerID && (n.ServerID == ms.Driver.Self || slices.Contains(ms.UpNodes, id)) {
				up++
			}
		}
		if needed = left/2 + 1; l.model == spec.SingleQuorum {
			needed = 1 // the device decides
		}
		return left == 0 || up >= needed
	}
	switch {
	case !s.until(c.ctx, enough):
		if _, err := s.lookAsLeader(c.ctx, ""); err != nil {
			return err // it does not lead any more: another node may see more of them
		}
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("without %s, %d votes are left and only %d of them are up; %d are needed", l.node.Spec.Name, left, up, needed),
			Hint:    "bring another node up first, or take out one that is down (clusterplan evict)"}
	case left == 0:
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s is the last voter of the cluster and can't leave it", l.node.Spec.Name),
			Hint:    "to end the cluster, stop its agent (clusterplan destroy does)"}
	}
	return nil
}
