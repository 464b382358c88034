package api

import (
	"fmt"
	"net/http"
	"slices"

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
		if err := s.keepsQuorum(c, l); err != nil {
			return err
		}
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

// keepsQuorum refuses to take a voter out when too few of the others are up:
// with a dead one that can't be, with a drained one it can.
func (s *server) keepsQuorum(c *call, l snapshot) error {
	left, up, needed := len(l.ms.Driver.Voters)-1, 0, 0
	if left == 0 {
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s is the last voter of the cluster", l.node.Spec.Name),
			Hint:    "to end the cluster, use clusterplan destroy"}
	}
	needed = left/2 + 1
	err := s.read(c.ctx, func(st *confdb.State, ms member.Status) {
		for id, n := range st.Nodes {
			v, _ := has(ms.Driver, n.ServerID)
			if v && n.ServerID != l.node.ServerID && (n.ServerID == ms.Driver.Self || slices.Contains(ms.UpNodes, id)) {
				up++
			}
		}
	})
	if err == nil && up < needed {
		err = &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("without %s, %d votes are left and only %d of them are up; %d are needed", l.node.Spec.Name, left, up, needed),
			Hint:    "bring another node up first, or evict one that is down"}
	}
	return err
}
