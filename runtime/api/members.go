package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// Membership is two things that have to agree: the database's nodes (what the
// cluster knows of each), and who takes part in the agreement (by server id).
// Every call below can be repeated after a crash between the two: it looks at
// both and does what is missing.

// has tells how a server takes part in the agreement.
func has(st confdb.Status, server uint64) (voter, learner bool) {
	return slices.Contains(st.Voters, server), slices.Contains(st.Learners, server)
}

// atLeader answers not_leader unless this node leads.
func (s *server) atLeader(ctx context.Context, ms member.Status) error {
	if ms.Driver.Role == confdb.Leader {
		return nil
	}
	return s.refused(ctx, confdb.Result{Code: "not_leader"}, confdb.Command{})
}

// snapshot is what the membership calls decide on.
type snapshot struct {
	ms    member.Status
	node  *confdb.Node // copy; nil: not known
	owns  []string     // names of its groups
	id    string       // the database's cluster
	model spec.QuorumModel
}

func (s *server) look(ctx context.Context, node string) (snapshot, error) {
	var l snapshot
	err := s.read(ctx, func(st *confdb.State, ms member.Status) {
		l.ms, l.id, l.model = ms, st.Cluster.ID, st.Cluster.Quorum.Model
		for _, id := range sortedGroups(st) {
			if g := st.Groups[id]; g.Owner.Node == node {
				l.owns = append(l.owns, g.Spec.Name)
			}
		}
		if n, ok := st.Nodes[node]; ok {
			c := *n
			l.node = &c
		}
	})
	return l, err
}

// lookAsLeader is look for what the leader alone may do: elsewhere it is an
// error that says where the leader is.
func (s *server) lookAsLeader(ctx context.Context, node string) (snapshot, error) {
	l, err := s.look(ctx, node)
	if err == nil && l.id == "" {
		err = s.waiting(ctx)
	}
	if err == nil {
		err = s.atLeader(ctx, l.ms)
	}
	return l, err
}

func checkMember(m client.MemberRequest) error {
	switch {
	case m.Spec.ID == "" || m.Spec.Name == "":
		return bad("the member has no id or no name")
	case m.ServerID == 0:
		return bad("member %s has no server_id; GET %s on the node says it", m.Spec.Name, client.PathSelf)
	case m.Endpoint == "":
		return bad("member %s has no endpoint; GET %s on the node says it", m.Spec.Name, client.PathSelf)
	}
	return nil
}

func putNode(m client.MemberRequest) *confdb.PutNode {
	return &confdb.PutNode{Spec: m.Spec, ServerID: m.ServerID, Endpoint: m.Endpoint, Version: m.Version}
}

// bootstrap makes this node the first of a new cluster.
func (s *server) bootstrap(c *call) error {
	var b client.Bootstrap
	if err := c.body(&b); err != nil {
		return err
	}
	f := s.b.Facts()
	if b.Cluster.ID != f.ClusterID {
		return otherCluster(b.Cluster.ID, f.ClusterID)
	}
	if err := checkMember(b.Member); err != nil {
		return err
	}
	if b.Member.Spec.ID != f.NodeID || b.Member.ServerID != f.ServerID {
		return bad("the first member of the request is %s (server %d), this node is %s (server %d)", b.Member.Spec.ID, b.Member.ServerID, f.NodeID, f.ServerID)
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	l, err := s.look(c.ctx, f.NodeID)
	if err != nil {
		return err
	}
	switch voters := l.ms.Driver.Voters; {
	case l.id != "" && l.node != nil && l.node.Joined:
		return s.done(c, 0) // was done before
	case l.ms.Driver.Role == confdb.Outside && len(voters) == 0:
		r, err := s.b.Bootstrap(c.ctx, b.Cluster.Quorum)
		if err != nil {
			return s.undone(c.ctx, err)
		}
		if r.Code != "" {
			return s.refused(c.ctx, r, confdb.Command{})
		}
	case len(voters) == 0: // begun by this request, sent a first time, or a member that has not read yet of what
	case len(voters) == 1 && voters[0] == f.ServerID: // begun, then interrupted
	default:
		return memberAlready(f.Name)
	}
	leads := func(_ *confdb.State, ms member.Status) bool {
		return ms.Driver.Role == confdb.Leader && ms.Driver.Ready
	}
	if !s.until(c.ctx, leads) {
		return s.noQuorum(c.ctx)
	}
	if l, err = s.look(c.ctx, f.NodeID); err != nil {
		return err
	}
	switch voters := l.ms.Driver.Voters; {
	case l.node != nil && l.node.Joined:
		return s.done(c, 0)
	case len(voters) > 1:
		return memberAlready(f.Name)
	case l.id == "":
		if err := madeFor(f.Name, l.ms.Driver, b.Cluster.Quorum); err != nil {
			return err
		}
	}
	var last confdb.Result
	for _, step := range []confdb.Command{
		{ID: cmd.ID + "/cluster", PutCluster: &b.Cluster},
		{ID: cmd.ID + "/node", PutNode: putNode(b.Member)},
		{ID: cmd.ID + "/joined", NodeJoined: &confdb.NodeRef{Node: f.NodeID}},
	} {
		step.Time, step.Author, step.Reason, step.Change = cmd.Time, cmd.Author, cmd.Reason, cmd.Change
		if last, err = s.submit(c.ctx, step); err != nil {
			return err
		}
	}
	return s.done(c, last.Revision)
}

// madeFor refuses a cluster of another quorum than the node's database is for: one
// that was asked for before, by a bootstrap that was cut off.
func madeFor(node string, db confdb.Status, want spec.Quorum) error {
	is := spec.Quorum{Model: spec.MajorityNodeSet}
	text := string(is.Model)
	switch {
	case db.ByDevice:
		is = spec.Quorum{Model: spec.SingleQuorum, Device: db.Device}
		text = string(is.Model) + " on " + is.Device
	case db.Single:
		is.Model = spec.SingleNode
		text = string(is.Model)
	}
	if want.Model == is.Model && (is.Device == "" || want.Device == is.Device) {
		return nil
	}
	return &client.Error{Status: http.StatusBadRequest, Code: "bad_request",
		Message: fmt.Sprintf("the database of %s is made for %s, by a bootstrap that was cut off; it is asked for %s", node, text, strings.TrimSpace(string(want.Model)+" "+want.Device)),
		Hint:    "apply with the quorum that it was made for; for another one clusterplan destroy after that, then apply"}
}

func memberAlready(node string) error {
	return &client.Error{Status: http.StatusConflict, Code: "conflict",
		Message: fmt.Sprintf("%s is a member of a cluster already", node),
		Hint:    "bootstrap is for the first node of a new cluster; others join"}
}

// join adds a node as a learner, or brings it back with a new server id.
func (s *server) join(c *call) error {
	var m client.MemberRequest
	if err := c.body(&m); err != nil {
		return err
	}
	if err := checkMember(m); err != nil {
		return err
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	l, err := s.lookAsLeader(c.ctx, m.Spec.ID)
	if err != nil {
		return err
	}
	if l.ms.Driver.Single && m.ServerID != l.ms.Driver.Self {
		if l.model != spec.SingleNode {
			return busy("the database is becoming a majority's still")
		}
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s can't join: quorum model single_node is for one node", m.Spec.Name),
			Hint:    "set quorum.model to majority_node_set and apply; nodes can join then"}
	}
	// An emptied directory is a new server: the one it was must not vote any more.
	if l.node != nil && l.node.ServerID != 0 && l.node.ServerID != m.ServerID {
		if err := s.remove(c.ctx, l.node.ServerID, l.ms.Driver); err != nil {
			return err
		}
	}
	cmd.PutNode = putNode(m)
	r, err := s.submit(c.ctx, cmd)
	if err != nil {
		return err
	}
	if voter, learner := has(l.ms.Driver, m.ServerID); !voter && !learner {
		if err := s.membership(c.ctx, member.Membership{Op: "add_learner", Server: m.ServerID, Endpoint: m.Endpoint}); err != nil {
			return err
		}
	}
	return s.done(c, r.Revision)
}

func (s *server) remove(ctx context.Context, server uint64, st confdb.Status) error {
	if voter, learner := has(st, server); !voter && !learner {
		return nil
	}
	return s.revote(ctx, member.Membership{Op: "remove", Server: server})
}

// promote lets a learner that has caught up vote (where its settings give it a
// vote) and own groups.
func (s *server) promote(c *call) error {
	id := c.r.PathValue("id")
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	l, err := s.lookAsLeader(c.ctx, id)
	if err != nil {
		return err
	}
	if l.node == nil {
		return unknown("member", id, nil)
	}
	voter, learner := has(l.ms.Driver, l.node.ServerID)
	if !voter && !learner {
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s has not been joined with its present data directory", l.node.Spec.Name), Hint: "join it first"}
	}
	if !voter {
		if !l.ms.CaughtUp[l.node.ServerID] {
			return busy(l.node.Spec.Name + " has not caught up with the log yet")
		}
		if l.node.Spec.Votes > 0 || l.model == spec.SingleQuorum {
			if err := s.revote(c.ctx, member.Membership{Op: "promote", Server: l.node.ServerID}); err != nil {
				return err
			}
		}
	}
	if l.node.Joined {
		return s.done(c, 0)
	}
	cmd.NodeJoined = &confdb.NodeRef{Node: id}
	return s.commit(c, cmd)
}

// updateMember changes a member's settings; one that gains or loses its vote
// changes the agreement too, which is the leader's.
func (s *server) updateMember(c *call) error {
	id := c.r.PathValue("id")
	var m client.MemberRequest
	if err := c.body(&m); err != nil {
		return err
	}
	if m.Spec.ID != id {
		return bad("the member's id is %q in the path and %q in the body", id, m.Spec.ID)
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	l, err := s.look(c.ctx, id)
	if err != nil {
		return err
	}
	if l.id == "" {
		return s.waiting(c.ctx)
	}
	if l.node == nil {
		return unknown("member", id, nil)
	}
	if m.ServerID != 0 && m.ServerID != l.node.ServerID {
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s has the server id %d, the request says %d", l.node.Spec.Name, l.node.ServerID, m.ServerID),
			Hint:    "a new data directory joins anew (POST " + client.PathMembers + ")"}
	}
	voter, learner := has(l.ms.Driver, l.node.ServerID)
	gains, loses := learner && l.node.Joined && m.Spec.Votes > 0, voter && m.Spec.Votes == 0
	if l.model == spec.SingleQuorum { // votes don't count
		gains, loses = false, false
	}
	if gains || loses {
		if err := s.atLeader(c.ctx, l.ms); err != nil {
			return err
		}
		if loses && len(l.ms.Driver.Voters) == 1 {
			return bad("%s has the only vote left", l.node.Spec.Name)
		}
		if loses {
			done, err := s.takeVote(c, l)
			if err != nil {
				return err
			}
			defer done()
		}
		if loses && l.node.ServerID == l.ms.Driver.Self {
			return s.handOver(c.ctx, l.ms)
		}
	}
	cmd.PutNode = putNode(m)
	if cmd.PutNode.Endpoint == "" {
		cmd.PutNode.Endpoint = l.node.Endpoint
	}
	if cmd.PutNode.Version == "" {
		cmd.PutNode.Version = l.node.Version
	}
	r, err := s.submit(c.ctx, cmd)
	if err != nil {
		return err
	}
	switch {
	case gains:
		err = s.revote(c.ctx, member.Membership{Op: "promote", Server: l.node.ServerID})
	case loses:
		err = s.revote(c.ctx, member.Membership{Op: "add_learner", Server: l.node.ServerID, Endpoint: cmd.PutNode.Endpoint})
	}
	if err != nil {
		return err
	}
	return s.done(c, r.Revision)
}

// leave takes a node out: first of the agreement, then of the database. A
// leader that is to leave hands leadership over first and sends the caller on.
func (s *server) leave(c *call) error {
	id := c.r.PathValue("id")
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	l, err := s.lookAsLeader(c.ctx, id)
	if err != nil {
		return err
	}
	if l.node == nil {
		return s.done(c, 0)
	}
	if len(l.owns) > 0 {
		return &client.Error{Status: http.StatusConflict, Code: "conflict",
			Message: fmt.Sprintf("%s still owns %q", l.node.Spec.Name, l.owns), Hint: "drain it and wait until they have left"}
	}
	if voter, _ := has(l.ms.Driver, l.node.ServerID); voter {
		done, err := s.takeVote(c, l)
		if err != nil {
			return err
		}
		defer done()
	}
	if l.node.ServerID == l.ms.Driver.Self {
		return s.handOver(c.ctx, l.ms)
	}
	if err := s.remove(c.ctx, l.node.ServerID, l.ms.Driver); err != nil {
		return err
	}
	cmd.DeleteNode = &confdb.NodeRef{Node: id}
	return s.commit(c, cmd)
}

// handOver gives leadership to a voter that has caught up, then tells the
// caller to go there.
func (s *server) handOver(ctx context.Context, ms member.Status) error {
	err := error(busy("no other voter has caught up and can lead"))
	for _, v := range ms.Driver.Voters {
		if v == ms.Driver.Self || !ms.CaughtUp[v] {
			continue
		}
		if err = s.membership(ctx, member.Membership{Op: "transfer", Server: v}); err != nil {
			continue
		}
		if s.until(ctx, func(_ *confdb.State, now member.Status) bool {
			return now.Driver.Role != confdb.Leader && now.LeaderNode != ""
		}) {
			return s.refused(ctx, confdb.Result{Code: "not_leader"}, confdb.Command{})
		}
		err = busy("leadership has not gone over to another node yet")
	}
	return err
}
