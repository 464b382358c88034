package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// putCluster changes the cluster's settings; which cluster it is never changes.
func (s *server) putCluster(c *call) error {
	var cl spec.Cluster
	if err := c.body(&cl); err != nil {
		return err
	}
	if own := s.b.Facts().ClusterID; cl.ID != own {
		return otherCluster(cl.ID, own)
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.PutCluster = &cl
	r, err := s.submit(c.ctx, cmd)
	if err != nil {
		return err
	}
	// A single node's database that becomes a majority's does so after the commit;
	// others can join then.
	if cl.Quorum.Model == spec.MajorityNodeSet && !s.until(c.ctx, func(_ *confdb.State, ms member.Status) bool {
		return !ms.Driver.Single && ms.Driver.Leader != 0
	}) {
		return busy("the database is becoming a majority's still")
	}
	return s.done(c, r.Revision)
}

func otherCluster(got, own string) *client.Error {
	return &client.Error{Status: http.StatusConflict, Code: "conflict",
		Message: fmt.Sprintf("the request is for the cluster with id %q, this node belongs to %q", got, own),
		Hint:    "two clusters' agents may have traded addresses; look at the endpoint"}
}

func (s *server) putGroup(c *call) error {
	var g spec.Group
	if err := c.body(&g); err != nil {
		return err
	}
	if id := c.r.PathValue("id"); g.ID != id {
		return bad("the group's id is %q in the path and %q in the body", id, g.ID)
	}
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	cmd.PutGroup = &g
	return s.commit(c, cmd)
}

func (s *server) deleteGroup(c *call) error {
	id := c.r.PathValue("id")
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	known := false
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) { _, known = st.Groups[id] }); err != nil {
		return err
	}
	cmd.DeleteGroup = &confdb.GroupRef{Group: id}
	r, err := s.submit(c.ctx, cmd)
	if err != nil && (known || r.Code != confdb.CodeNotFound) {
		return err
	}
	return s.done(c, r.Revision)
}

// groupID finds a group by id or name.
func (s *server) groupID(c *call, name string) (id string, err error) {
	var names []string
	rerr := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		for gid, g := range st.Groups {
			if gid == name || g.Spec.Name == name {
				id = gid
			}
			names = append(names, g.Spec.Name)
		}
	})
	if rerr != nil {
		return "", rerr
	}
	if id == "" {
		return "", unknown("group", name, names)
	}
	return id, nil
}

// nodeID finds a node by id or name.
func (s *server) nodeID(c *call, name string) (id string, err error) {
	var names []string
	rerr := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		for nid, n := range st.Nodes {
			if nid == name || n.Spec.Name == name {
				id = nid
			}
			names = append(names, n.Spec.Name)
		}
	})
	if rerr != nil {
		return "", rerr
	}
	if id == "" {
		return "", unknown("node", name, names)
	}
	return id, nil
}

func unknown(what, name string, names []string) *client.Error {
	slices.Sort(names)
	e := &client.Error{Status: http.StatusNotFound, Code: "not_found", Message: fmt.Sprintf("the cluster has no %s %q", what, name)}
	if len(names) > 0 && len(names) <= 20 {
		e.Hint = "it has " + strings.Join(names, ", ")
	}
	return e
}

// order reads an operator's order on a group or node.
func (s *server) order(c *call, find func(*call, string) (string, error)) (id string, o client.Order, cmd confdb.Command, err error) {
	if c.r.ContentLength != 0 {
		if err = c.body(&o); err != nil {
			return
		}
	}
	if cmd, err = c.command(o.Reason); err != nil {
		return
	}
	id, err = find(c, c.r.PathValue("id"))
	return
}

func (s *server) moveGroup(c *call) error {
	id, o, cmd, err := s.order(c, s.groupID)
	if err != nil {
		return err
	}
	to := ""
	if o.Node != "" {
		if to, err = s.nodeID(c, o.Node); err != nil {
			return err
		}
	}
	if o.ConfirmedOff != "" {
		if err := s.confirmOwner(c, id, o.ConfirmedOff, cmd); err != nil {
			return err
		}
	}
	cmd.MoveGroup = &confdb.MoveGroup{Group: id, To: to}
	return s.commit(c, cmd)
}

func (s *server) wantGroup(online bool) func(*call) error {
	want := spec.WantOffline
	if online {
		want = spec.WantOnline
	}
	return func(c *call) error {
		id, o, cmd, err := s.order(c, s.groupID)
		if err != nil {
			return err
		}
		if o.Node != "" || o.ConfirmedOff != "" {
			return bad("an order %s names no node; move does", want)
		}
		cmd.SetWant = &confdb.SetWant{Group: id, Want: want}
		return s.commit(c, cmd)
	}
}

func (s *server) pauseNode(drain bool) func(*call) error {
	return func(c *call) error {
		id, o, cmd, err := s.order(c, s.nodeID)
		if err != nil {
			return err
		}
		if o.Node != "" || o.ConfirmedOff != "" {
			return bad("the node stands in the path, not in the body")
		}
		cmd.PauseNode = &confdb.PauseNode{Node: id, Drain: drain}
		return s.commit(c, cmd)
	}
}

func (s *server) resumeNode(c *call) error {
	id, o, cmd, err := s.order(c, s.nodeID)
	if err != nil {
		return err
	}
	if o.Node != "" || o.ConfirmedOff != "" {
		return bad("the node stands in the path, not in the body")
	}
	cmd.ResumeNode = &confdb.NodeRef{Node: id}
	return s.commit(c, cmd)
}
