package confdb

import (
	"fmt"
	"slices"
	"strings"
)

// NodeLink is a node's address on one of the cluster's links.
type NodeLink struct {
	Link    string   `json:"link"`              // name
	Address string   `json:"address,omitempty"` // an IP address; "": it has none there
	Lost    []string `json:"lost,omitempty"`    // ids of nodes that it hears, but not on this link; sorted
}

// TellLinks is a node's word of its links, all of them, by name.
type TellLinks struct {
	Node  string     `json:"node"` // id
	Links []NodeLink `json:"links"`
}

// tellLinks takes a node's links over, and tells what was lost and is back.
func (s *State) tellLinks(c Command) Result {
	t := c.TellLinks
	n := s.Nodes[t.Node]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", t.Node)
	}
	was := n.Links
	n.Links = nil
	for _, l := range t.Links {
		l.Lost = slices.Clone(l.Lost)
		n.Links = append(n.Links, l)
	}
	for _, l := range n.Links {
		i := slices.IndexFunc(was, func(o NodeLink) bool { return o.Link == l.Link })
		var old NodeLink
		if i >= 0 {
			old = was[i]
		}
		switch {
		case old.Address != "" && l.Address == "":
			s.event(c, s.aboutNode(t.Node, KindLinkLost, fmt.Sprintf("node %s has no address on link %s any more", n.Spec.Name, l.Link)))
		case len(l.Lost) > 0 && !slices.Equal(l.Lost, old.Lost):
			s.event(c, s.aboutNode(t.Node, KindLinkLost, fmt.Sprintf("node %s hears nothing on link %s from %s; other links carry the frames", n.Spec.Name, l.Link, s.nodeNames(l.Lost))))
		case len(l.Lost) == 0 && len(old.Lost) > 0, i >= 0 && old.Address == "" && l.Address != "":
			s.event(c, s.aboutNode(t.Node, KindLinkBack, fmt.Sprintf("link %s works again at node %s", l.Link, n.Spec.Name)))
		}
	}
	return Result{}
}

func (s *State) nodeNames(ids []string) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = s.NodeName(id)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
