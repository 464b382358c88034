package member

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// tellLinks tells the database this node's addresses on the cluster's links,
// when they are others than it knows.
func (m *Member) tellLinks() {
	if !m.linksKnown || m.linksID != "" && m.proposals[m.linksID] != nil {
		return
	}
	n := m.state.Nodes[m.cfg.NodeID]
	if n == nil || n.ServerID != m.cfg.ServerID || slices.EqualFunc(n.Links, m.ownLinks, sameLink) {
		return
	}
	id := m.commandID()
	data, err := confdb.EncodeCommand(confdb.Command{ID: id, Time: m.core.WallNow(), TellLinks: &confdb.TellLinks{Node: m.cfg.NodeID, Links: m.ownLinks}})
	if err != nil {
		return
	}
	m.linksID = id
	m.try(&proposal{id: id, data: data})
	m.pump()
}

// findPaths works out where frames to each server go. Without links that carry
// frames, to its endpoint alone. With them to each of its addresses on those that
// this node is on as well, and to the endpoint, unless that lies in a client link.
func (m *Member) findPaths() {
	clear(m.paths)
	own := m.state.Nodes[m.cfg.NodeID]
	if own == nil || len(m.state.Cluster.Links) == 0 {
		return
	}
	for _, n := range m.state.Nodes {
		if n == own {
			continue
		}
		first, list := Paths(m.state.Cluster.Links, own, n)
		if first != "" {
			m.endpoints[n.ServerID] = first
		}
		if len(list) > 0 {
			if m.paths == nil {
				m.paths = map[uint64][]string{}
			}
			m.paths[n.ServerID] = list
		}
	}
}

// Paths are the addresses (host:port) by which own reaches n: the first, which
// carries the streams as well while it works, and the others.
func Paths(links []spec.Link, own, n *confdb.Node) (first string, also []string) {
	i := strings.LastIndexByte(n.Endpoint, ':')
	if i < 0 {
		return n.Endpoint, nil
	}
	port, err := strconv.ParseUint(n.Endpoint[i+1:], 10, 16)
	if err != nil {
		return n.Endpoint, nil
	}
	main, _ := netip.ParseAddr(strings.Trim(n.Endpoint[:i], "[]")) // a name lies on no link that is known here
	main = main.Unmap()
	client := false
	for _, l := range links {
		p, err := netip.ParsePrefix(l.Subnet)
		switch {
		case err != nil:
		case !l.Carries():
			client = client || p.Contains(main)
		default:
			mine, _ := netip.ParseAddr(addressOn(own, l.Name))
			its, _ := netip.ParseAddr(addressOn(n, l.Name))
			if mine.IsValid() && its.IsValid() && its.Unmap() != main {
				also = append(also, netip.AddrPortFrom(its, uint16(port)).String())
			}
		}
	}
	if client && len(also) > 0 {
		return also[0], also[1:]
	}
	return n.Endpoint, also
}

func sameLink(a, b confdb.NodeLink) bool {
	return a.Link == b.Link && a.Address == b.Address && slices.Equal(a.Lost, b.Lost)
}

func addressOn(n *confdb.Node, link string) string {
	for _, l := range n.Links {
		if l.Link == link {
			return l.Address
		}
	}
	return ""
}
