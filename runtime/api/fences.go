package api

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

func (s *server) putFence(c *call) error {
	var f spec.Fence
	if err := c.body(&f); err != nil {
		return err
	}
	if id := c.r.PathValue("id"); f.ID != id {
		return bad("the fence's id is %q in the path and %q in the body", id, f.ID)
	}
	if err := s.ownSecrets(c, &f); err != nil {
		return err
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.PutFence = &f
	return s.commit(c, cmd)
}

// ownSecrets puts the fence's own secrets in the place of what admins are shown for
// them. What stands for another value is refused, for it can't be a value.
func (s *server) ownSecrets(c *call, f *spec.Fence) error {
	for name, value := range f.Parameters {
		shown := value == spec.Hidden || strings.HasPrefix(value, "sha256:") && f.IsSensitive(name)
		if !shown {
			continue
		}
		var own string
		if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
			if old := st.Fences[f.ID]; old != nil {
				own = old.Spec.Parameters[name]
			}
		}); err != nil {
			return err
		}
		if own == "" || client.SealParameter(f.ID, name, own) != value {
			return bad("parameter %s holds what this API shows in place of a value that the fence doesn't have; write the value itself", name)
		}
		f.Parameters[name] = own
	}
	return nil
}

func (s *server) deleteFence(c *call) error {
	id := c.r.PathValue("id")
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.DeleteFence = &confdb.FenceRef{Fence: id}
	r, err := s.submit(c.ctx, cmd)
	if err != nil && r.Code != confdb.CodeNotFound {
		return err
	}
	return s.done(c, r.Revision)
}

// fenceNode orders the leader to turn a node off, or takes a person's word
// that it is.
func (s *server) fenceNode(c *call) error {
	id, o, cmd, err := s.order(c, s.nodeID)
	if err != nil {
		return err
	}
	if o.Node != "" {
		return bad("the node stands in the path, not in the body")
	}
	if o.ConfirmedOff != "" && o.ConfirmedOff != client.ConfirmedNode {
		return bad("confirmed_off is %q for the node in the path", client.ConfirmedNode)
	}
	return s.orderFence(c, cmd, id, o.ConfirmedOff != "")
}

func (s *server) orderFence(c *call, cmd confdb.Command, node string, confirmed bool) error {
	if confirmed && cmd.Reason == "" {
		return bad("a word that a node is off is recorded with its reason; give one")
	}
	if !confirmed {
		leads := false
		if err := s.read(c.ctx, func(_ *confdb.State, ms member.Status) { leads = ms.LeaderNode == node }); err != nil {
			return err
		}
		if leads {
			return &client.Error{Status: 409, Code: "conflict", Message: "that node leads the cluster, and a node never fences itself",
				Hint: "stop its agent, or have another node lead first"}
		}
	}
	cmd.FenceNode = &confdb.FenceNode{Node: node, ConfirmedOff: confirmed}
	return s.commit(c, cmd)
}

// confirmOwner takes a person's word that a group's owner is off, before a
// move away from it; "" where there is none.
func (s *server) confirmOwner(c *call, group, owner string, cmd confdb.Command) error {
	node, err := s.nodeID(c, owner)
	if err != nil {
		return err
	}
	has, said, is := "", owner, ""
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		said = nameOf(st, node)
		if g := st.Groups[group]; g != nil {
			has, is = g.Owner.Node, nameOf(st, g.Owner.Node)
		}
	}); err != nil {
		return err
	}
	if has != node {
		text := "node " + said + " does not own the group now"
		if is != "" {
			text += "; its owner is " + is
		}
		return &client.Error{Status: 409, Code: "conflict", Message: text,
			Hint: "see clusterplan status, and confirm the owner that you have seen to be off"}
	}
	if cmd.Reason == "" {
		return bad("a word that a node is off is recorded with its reason; give one")
	}
	cmd.ID += "-off"
	cmd.FenceNode = &confdb.FenceNode{Node: node, ConfirmedOff: true}
	_, err = s.submit(c.ctx, cmd)
	return err
}

// fencesOf are the fences for a reader; an admin also sees which secrets changed.
func fencesOf(st *confdb.State, admin bool) []client.ConfigFence {
	out := make([]client.ConfigFence, 0, len(st.Fences))
	for _, id := range sortedFences(st) {
		f := st.Fences[id]
		shown := f.Spec.Shown()
		if admin {
			for name, value := range f.Spec.Parameters {
				if f.Spec.IsSensitive(name) {
					shown.Parameters[name] = client.SealParameter(f.Spec.ID, name, value)
				}
			}
		}
		out = append(out, client.ConfigFence{Spec: shown, Last: lastUse(st, f)})
	}
	return out
}

func statusFences(st *confdb.State) []client.StatusFence {
	out := make([]client.StatusFence, 0, len(st.Fences))
	for _, id := range sortedFences(st) {
		f := st.Fences[id]
		sf := client.StatusFence{Name: f.Spec.Name, Agent: f.Spec.Agent, Level: f.Spec.Level, Nodes: []string{}, Last: lastUse(st, f)}
		for _, node := range sortedNodes(st) {
			if name := st.Nodes[node].Spec.Name; f.Spec.Covers(name) {
				sf.Nodes = append(sf.Nodes, name)
			}
		}
		out = append(out, sf)
	}
	return out
}

func lastUse(st *confdb.State, f *confdb.Fence) *client.FenceUse {
	if f.Last == nil {
		return nil
	}
	return &client.FenceUse{Node: nameOf(st, f.Last.Node), OK: f.Last.OK, Error: f.Last.Error, Time: f.Last.Time}
}

func fencedStatus(n *confdb.Node) *client.StatusFenced {
	if n.Fenced == nil {
		return nil
	}
	return &client.StatusFenced{By: n.Fenced.By, Person: n.Fenced.Person, Time: n.Fenced.Time}
}

func sortedFences(st *confdb.State) []string {
	ids := make([]string, 0, len(st.Fences))
	for id := range st.Fences {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(st.Fences[a].Spec.Name, st.Fences[b].Spec.Name) })
	return ids
}
