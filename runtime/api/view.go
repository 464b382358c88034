package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// waiting is the error of a node that knows no cluster: it is no member yet, or was one
// and has not read its database again.
func (s *server) waiting(ctx context.Context) error {
	name, former, problem := s.b.Facts().Name, false, ""
	err := s.read(ctx, func(st *confdb.State, ms member.Status) {
		former, problem = st.Cluster.ID == "" && ms.Driver.Former, ms.Driver.DeviceProblem
	})
	switch {
	case err != nil:
		return err
	case former:
		e := &client.Error{Status: http.StatusServiceUnavailable, Code: "unread",
			Message: fmt.Sprintf("the node %s is a member and has not read the cluster's database yet", name),
			Hint:    "it does by itself, from the quorum device"}
		if problem != "" {
			e.Message += ": " + problem
			e.Hint = "bring the quorum device back; it goes on by itself then"
		}
		return e
	}
	return &client.Error{Status: http.StatusServiceUnavailable, Code: "waiting",
		Message: fmt.Sprintf("the node %s is not a member of the cluster (yet); it waits to be bootstrapped or joined", name),
		Hint:    "clusterplan apply does that"}
}

func (s *server) self(c *call) error {
	f := s.b.Facts()
	out := client.Self{FormatVersion: client.FormatVersion, ClusterID: f.ClusterID, NodeID: f.NodeID, Name: f.Name,
		ServerID: f.ServerID, Endpoint: f.Endpoint, Version: f.Version, Program: f.Program,
		CertNotAfter: f.CertNotAfter, Features: []string{client.FeatureChange}, PID: f.PID, MonitorPID: f.MonitorPID, FreezerPID: f.FreezerPID, NoReset: f.NoReset, NotReady: f.NotReady}
	err := s.read(c.ctx, func(st *confdb.State, ms member.Status) {
		out.Membership = membership(st, ms, f.NodeID, f.ServerID)
		out.Quorum, out.Revision, out.StopBound = ms.Quorum, st.Revision, spec.Duration(ms.StopBound)
		if g := st.Groups[c.group]; g != nil {
			out.Group = g.Spec.Name
		}
		if n, ok := st.Nodes[ms.LeaderNode]; ok {
			out.Leader = n.Spec.Name
		}
	})
	if err != nil {
		return err
	}
	c.w.Header().Set(client.HeaderRevision, strconv.FormatUint(out.Revision, 10))
	return c.answer(out)
}

func membership(st *confdb.State, ms member.Status, node string, server uint64) string {
	voter, learner := has(ms.Driver, server)
	n, known := st.Nodes[node]
	switch {
	case voter:
		return "voter"
	case learner:
		return "learner"
	case st.Cluster.ID != "" && (!known || n.ServerID != server || ms.Driver.Role == confdb.Outside):
		return "removed"
	case st.Cluster.ID == "" && ms.Driver.Former:
		return "unread"
	}
	return "waiting"
}

// config answers the database. Specs are shared with the state while the answer
// is written: Apply replaces a changed one as a whole and never writes into it.
func (s *server) config(c *call) error {
	if fresh := c.r.URL.Query().Get("fresh"); fresh == "1" || fresh == "true" {
		known := false
		if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { known = st.Cluster.ID != "" }); err != nil {
			return err
		}
		if !known { // nothing will be committed here: others may answer
			return s.waiting(c.ctx)
		}
		if _, err := s.submit(c.ctx, confdb.Command{ID: newID(), Time: time.Now().UTC(), Nothing: true}); err != nil {
			return err
		}
	}
	out := client.Config{FormatVersion: client.FormatVersion}
	err := s.read(c.ctx, func(st *confdb.State, ms member.Status) {
		out.Revision, out.ConfigRevision, out.Quorum, out.Cluster = st.Revision, st.ConfigRevision, ms.Quorum, st.Cluster
		out.Cluster.Links = slices.Clone(st.Cluster.Links)
		for _, id := range sortedNodes(st) {
			n := st.Nodes[id]
			m := client.ConfigMember{
				MemberRequest: client.MemberRequest{Spec: n.Spec, ServerID: n.ServerID, Endpoint: n.Endpoint, Version: n.Version},
				State:         "joining", Paused: intent(n.Paused), Drained: n.Drained}
			m.Node, _ = nodeState(st, ms, id, s.b.Facts().NodeID)
			if voter, learner := has(ms.Driver, n.ServerID); voter {
				m.State = "voter"
			} else if learner {
				m.State = "learner"
			}
			out.Members = append(out.Members, m)
		}
		for _, id := range sortedGroups(st) {
			g := st.Groups[id]
			cg := client.ConfigGroup{Spec: g.Spec, Want: g.Want, WantBy: intent(g.WantBy), Owner: nameOf(st, g.Owner.Node), Home: nameOf(st, g.HomeFrom), Epoch: g.Owner.Epoch, State: g.State}
			if g.Move != nil {
				cg.Move = intent(&g.Move.Intent)
				cg.Move.To = nameOf(st, g.Move.To)
			}
			out.Groups = append(out.Groups, cg)
		}
		out.Fences = fencesOf(st, allowed(c.role, client.RoleAdmin))
		out.Change = changeOf(st)
	})
	if err != nil {
		return err
	}
	if out.Cluster.ID == "" {
		return s.waiting(c.ctx)
	}
	return c.answer(out)
}

func (s *server) status(c *call) error {
	f := s.b.Facts()
	out := client.Status{FormatVersion: client.FormatVersion, Time: time.Now().UTC(),
		Nodes: []client.StatusNode{}, Groups: []client.StatusGroup{}, Fences: []client.StatusFence{}}
	known := false
	err := s.read(c.ctx, func(st *confdb.State, ms member.Status) {
		known = st.Cluster.ID != ""
		out.Cluster, out.Revision, out.Leader = st.Cluster.Name, st.Revision, nameOf(st, ms.LeaderNode)
		out.Quorum = client.StatusQuorum{Model: st.Cluster.Quorum.Model, Have: ms.Quorum, Votes: len(ms.Driver.Voters), Needed: ms.Driver.Needed,
			Device: st.Cluster.Quorum.Device, DeviceProblem: ms.Driver.DeviceProblem}
		if ms.Without != 0 {
			since := out.Time.Add(-boottime.Now().Sub(ms.Without))
			out.Quorum.LostSince = &since
		}
		for _, id := range sortedNodes(st) {
			n := st.Nodes[id]
			sn := client.StatusNode{Name: n.Spec.Name, Address: n.Endpoint, Zone: n.Spec.Zone, Role: n.Spec.Role,
				Votes: n.Spec.Votes, Version: n.Version, Spare: n.Spec.Spare}
			sn.State, sn.Reason = nodeState(st, ms, id, f.NodeID)
			if q := n.Quarantine; q != nil {
				sn.Quarantine = &q.Until
			}
			if n.Cert != nil {
				sn.CertificateUntil = &n.Cert.Until
			}
			for _, l := range n.Links {
				sl := client.StatusLink{Link: l.Link, Address: l.Address}
				for _, other := range l.Lost {
					sl.Lost = append(sl.Lost, nameOf(st, other))
				}
				sn.Links = append(sn.Links, sl)
			}
			sn.Fenced = fencedStatus(n)
			if id == f.NodeID {
				sn.PID, sn.MonitorPID, sn.FreezerPID, sn.NoReset, sn.NotReady = f.PID, f.MonitorPID, f.FreezerPID, f.NoReset, f.NotReady
			}
			if voter, _ := has(ms.Driver, n.ServerID); voter && (sn.State == spec.NodeUp || sn.State == spec.NodePaused) {
				out.Quorum.Up++
			}
			out.Nodes = append(out.Nodes, sn)
		}
		for _, id := range sortedGroups(st) {
			out.Groups = append(out.Groups, groupStatus(st, ms, st.Groups[id], f.NodeID, boottime.Now()))
		}
		out.Fences = statusFences(st)
		out.Change = changeOf(st)
	})
	if err != nil {
		return err
	}
	if !known {
		return s.waiting(c.ctx)
	}
	return c.answer(out)
}

// nodeState is a node as this one sees it: without quorum it knows of itself only.
func nodeState(st *confdb.State, ms member.Status, id, self string) (state, reason string) {
	n := st.Nodes[id]
	up := slices.Contains(st.View.Up, id)
	switch {
	case !ms.Quorum && id != self:
		return spec.NodeUnknown, "this answer comes from a node without quorum"
	case !n.Joined:
		return spec.NodeJoining, ""
	case !up && id != self:
		return spec.NodeDown, ""
	case n.Paused != nil:
		what := "paused"
		if n.Drained {
			what = "drained"
		}
		reason = what + " by " + n.Paused.Author
		if n.Paused.Reason != "" {
			reason += ": " + n.Paused.Reason
		}
		return spec.NodePaused, reason
	}
	if q := n.Quarantine; q != nil {
		return spec.NodeUp, "quarantined until " + q.Until.Format(time.RFC3339) + ": " + q.Why
	}
	if c := n.Cert; c != nil && c.Phase == confdb.CertExpired {
		return spec.NodeUp, "its certificate has expired at " + c.Until.Format(time.RFC3339) + ": clusterplan apply renews it"
	} else if c != nil && c.Phase == confdb.CertEnding {
		return spec.NodeUp, "its certificate ends at " + c.Until.Format(time.RFC3339) + ": clusterplan apply renews it"
	}
	for _, l := range n.Links {
		if len(l.Lost) > 0 {
			names := make([]string, len(l.Lost))
			for i, other := range l.Lost {
				names[i] = nameOf(st, other)
			}
			slices.Sort(names)
			return spec.NodeUp, "hears nothing on link " + l.Link + " from " + strings.Join(names, ", ")
		}
	}
	return spec.NodeUp, ""
}

// endedState is the state of a group of this node whose lease has ended without
// quorum, "" while it has not: the database can't be told that the group stops.
// What is not held by the kernel may stay, so that nobody knows of it.
func endedState(ms member.Status, g *confdb.Group, now spec.Instant) string {
	switch {
	case ms.Quorum || ms.LeaseEnd > now || g.State == "" || g.State == spec.StateOffline || g.State == spec.StateFailed:
		return ""
	case len(g.Spec.NotHeld()) > 0:
		return spec.StateUnknown
	case ms.LeaseEnd.Add(g.Owner.StopWithin.D()+g.Owner.Kill.D()) > now:
		return spec.StateOfflinePending
	}
	return spec.StateOffline
}

// running tells whether something of a group in this state may be there.
func running(state string) bool {
	return state != "" && state != spec.StateOffline && state != spec.StateFailed && state != spec.StatePending
}

func groupStatus(st *confdb.State, ms member.Status, g *confdb.Group, self string, now spec.Instant) client.StatusGroup {
	out := client.StatusGroup{Name: g.Spec.Name, State: g.State, Owner: nameOf(st, g.Owner.Node), Epoch: g.Owner.Epoch,
		Since: g.Owner.Since, Resources: make([]client.StatusResource, 0, len(g.Spec.Resources))}
	if out.State == "" {
		out.State = spec.StateOffline
	}
	out.Reason = g.LeftFailed
	if out.Reason == "" && g.Want == spec.WantOffline && g.WantBy != nil {
		out.Reason = strings.TrimSuffix("offline by "+g.WantBy.Author+": "+g.WantBy.Reason, ": ")
	}
	if g.Deleting != nil {
		out.Reason = "it is being removed, by " + g.Deleting.Author
	}
	known := ms.Quorum || g.Owner.Node == self
	ended := ""
	if !known || !ms.Quorum && ms.LeaseEnd == 0 { // an agent without a lease so far doesn't know what its last one left
		known = false
		out.Reason = fmt.Sprintf("no quorum here; last known %s", out.State)
		out.State = spec.StateUnknown
	} else if ended = endedState(ms, g, now); ended != "" {
		out.Reason = fmt.Sprintf("no quorum: the lease of its node has ended; it was %s", out.State)
		out.State = ended
	} else if owner := g.Owner.Node; ms.Quorum && owner != "" && owner != self && !slices.Contains(st.View.Up, owner) && running(out.State) {
		// Nobody hears its node: it may have a moment of its lease left, and then
		// nothing of the group is there, wherever it is to go.
		known = false
		out.Reason = fmt.Sprintf("node %s is down; it was %s there", out.Owner, out.State)
		out.State = spec.StateUnknown
	}
	byName := make(map[string]confdb.ResourceState, len(g.Resources))
	for _, r := range g.Resources {
		byName[r.Name] = r
	}
	for _, r := range g.Spec.Resources {
		sr := client.StatusResource{Name: r.Name, Type: r.Type, State: spec.StateOffline}
		if have, ok := byName[r.Name]; ok && have.State != "" {
			sr.State, sr.Reason = have.State, have.Reason
		}
		if !known {
			sr.State, sr.Reason = spec.StateUnknown, ""
		}
		if ended != "" {
			sr.State, sr.Reason = ended, ""
		}
		out.Resources = append(out.Resources, sr)
	}
	return out
}

func nameOf(st *confdb.State, node string) string {
	if n, ok := st.Nodes[node]; ok {
		return n.Spec.Name
	}
	return node
}

func intent(i *confdb.Intent) *client.Intent {
	if i == nil {
		return nil
	}
	return &client.Intent{Author: i.Author, Reason: i.Reason, Time: i.Time}
}

// sortedNodes are the ids in the order of names, as people look for them.
func sortedNodes(st *confdb.State) []string {
	ids := make([]string, 0, len(st.Nodes))
	for id := range st.Nodes {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(st.Nodes[a].Spec.Name, st.Nodes[b].Spec.Name) })
	return ids
}

func sortedGroups(st *confdb.State) []string {
	ids := make([]string, 0, len(st.Groups))
	for id := range st.Groups {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(st.Groups[a].Spec.Name, st.Groups[b].Spec.Name) })
	return ids
}
