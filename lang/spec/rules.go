package spec

import (
	"fmt"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Check finds the broken semantic rules of a definition, in a stable order:
// cluster, nodes, groups with their resources, configuration model, guarantees.
// What is not known yet (an empty address) breaks no rule. The cost is linear in the
// definition.
func Check(d *Definition) []Problem {
	c := &checker{d: d, nodes: make(map[string]*Node, len(d.Nodes)), groups: make(map[string]*Group, len(d.Groups))}
	for i := range d.Nodes {
		c.nodes[d.Nodes[i].Name] = &d.Nodes[i]
	}
	for i := range d.Groups {
		c.groups[d.Groups[i].Name] = &d.Groups[i]
	}
	c.cluster()
	c.timings()
	c.links()
	c.nodeRules()
	c.fences()
	c.groupRules()
	c.uniqueAddresses()
	c.groupCycles()
	c.model()
	c.guarantees()
	return c.problems
}

type checker struct {
	d        *Definition
	nodes    map[string]*Node // by name; of equal names the last
	groups   map[string]*Group
	problems []Problem
}

func (c *checker) add(a addr.Address, attribute, summary, detail string, args ...any) {
	c.problems = append(c.problems, Problem{Addr: a, Attribute: attribute, Summary: summary, Detail: fmt.Sprintf(detail, args...)})
}

func (c *checker) warn(a addr.Address, attribute, summary, detail string, args ...any) {
	c.add(a, attribute, summary, detail, args...)
	c.problems[len(c.problems)-1].Warning = true
}

// Votes counts the votes of the nodes.
func (d *Definition) Votes() int {
	n := 0
	for _, node := range d.Nodes {
		n += node.Votes
	}
	return n
}

func (c *checker) cluster() {
	d, at := c.d, addr.Cluster()
	if d.Cluster.MaxUnavailable < 1 {
		c.add(at, "max_unavailable", "max_unavailable is too small", "A rolling apply needs at least one node that may be down. Use 1 or more.")
	}
	if len(d.Nodes) == 0 {
		c.add(at, "", "No nodes", "The cluster has no node to run on. Add node blocks.")
		return
	}
	q := d.Cluster.Quorum
	if q.Device != "" && q.Model != SingleQuorum {
		c.add(at, "quorum.device", "Device without single_quorum", "Only quorum model single_quorum has a device, and this is %s. Remove device.", q.Model)
	}
	votes := d.Votes()
	switch q.Model {
	case SingleNode:
		if len(d.Nodes) != 1 {
			c.add(at, "quorum.model", "single_node with more than one node", "Quorum model single_node is for exactly one node, and there are %d. Use majority_node_set, or remove nodes.", len(d.Nodes))
		}
		if votes == 0 {
			c.add(d.Nodes[0].Addr, "votes", "No votes", "The only node has votes = 0, so that nobody may run the cluster. Remove that line.")
		}
		for _, g := range d.Groups {
			if g.Failover.Stated && g.Failover.Mode != FailoverNone {
				c.add(g.Addr, "failover.mode", "Failover with one node", "Quorum model single_node has one node, so group %s can't fail over. Remove the failover block; restarts work without it.", g.Name)
			}
		}
	case SingleQuorum:
		c.device()
	case MajorityNodeSet:
		switch {
		case votes == 0:
			c.add(at, "quorum.model", "No votes", "No node has a vote, so that nobody may run the cluster. Set votes = 1 on three nodes or more.")
		case votes < 3:
			c.warn(at, "quorum.model", "Fewer than three votes", "With %d of %d votes needed, the loss of any voter stops the cluster. Add nodes up to three; one may have role = \"witness\". For one node, use quorum model single_node.", votes/2+1, votes)
		case votes%2 == 0:
			c.warn(at, "quorum.model", "Even number of votes", "With %d votes the cluster survives no more failures than with %d. Add a node with role = \"witness\", or set votes = 0 on one.", votes, votes-1)
		}
	}
}

func (c *checker) timings() {
	t, at := c.d.Cluster.Heartbeat.WithDefaults(), addr.Cluster()
	if t.Profile == ProfileFast || t.Profile == ProfileMSCS {
		own := Timings{Profile: t.Profile}
		if c.d.Cluster.Quorum.Model == SingleQuorum {
			own.DeviceIO = DefaultDeviceIO
		}
		if !t.Equal(own.WithDefaults()) {
			c.add(at, "heartbeat", "Spans with profile "+t.Profile, "Profile %s sets every span itself. Use profile = \"custom\" to set them.", t.Profile)
			return
		}
	}
	if t.DeviceIO != 0 && c.d.Cluster.Quorum.Model != SingleQuorum {
		c.add(at, "heartbeat.device_io", "device_io without single_quorum", "Only quorum model single_quorum has a device. Remove device_io.")
		return
	}
	if why := t.Problem(c.d.Votes()); why != "" {
		advice := "Correct that; what is left out follows from the interval."
		if strings.HasPrefix(why, "lease ") {
			advice = "Lengthen the lease or shorten the interval."
		}
		c.add(at, "heartbeat", "Unsafe timings", "With these timings the cluster can't be safe: %s. %s", why, advice)
	}
}

func (c *checker) nodeRules() {
	names := map[string]*addr.Address{}
	endpoints := map[string]*Node{}
	members := 0
	for i := range c.d.Nodes {
		n := &c.d.Nodes[i]
		c.name(&n.Addr, n.Name, names)
		if n.Votes > 1 {
			c.add(n.Addr, "votes", "Too many votes", "Node %s has %d votes. A node has 0 or 1.", n.Name, n.Votes)
		}
		if n.Witness() {
			if n.Votes == 0 {
				c.add(n.Addr, "votes", "Witness without a vote", "Node %s is a witness, which is there to vote. Remove votes = 0, or the role.", n.Name)
			}
			if n.Spare {
				c.add(n.Addr, "spare", "Witness as a spare", "Node %s is a witness and never owns a group, so it can't be a spare. Remove spare, or the role.", n.Name)
			}
		} else {
			members++
		}
		if n.Spare && c.d.Cluster.Configuration != HotSpare {
			c.warn(n.Addr, "spare", "Spare without hot_spare", "spare counts in configuration = \"hot_spare\" only. Remove it, or set the cluster's configuration.")
		}
		c.watchdog(n)
		c.reset(n)
		if n.SSH != (SSH{}) && n.Provider != "ssh" {
			c.add(n.Addr, "ssh", "SSH of a node that isn't reached by it", "Node %s is of provider %s, so its ssh block says nothing. Remove it, or write provider = ssh.", n.Name, n.Provider)
		}
		// Without a port, the local provider gives each node one of its own.
		if n.Address == "" || n.Provider == "local" && !hasPort(n.Address) {
			continue
		}
		if first, ok := endpoints[n.Address]; ok {
			c.add(n.Addr, "address", "Two nodes with one address", "Nodes %s and %s both listen at %s. Give one of them another address or port.", first.Name, n.Name, n.Address)
			continue
		}
		endpoints[n.Address] = n
	}
	if members == 0 && len(c.d.Nodes) > 0 && len(c.d.Groups) > 0 {
		c.add(addr.Cluster(), "", "Only witnesses", "Every node is a witness, so that no group has an owner. Add nodes with role = \"member\".")
	}
}

func hasPort(address string) bool {
	i := strings.LastIndexByte(address, ':')
	return i >= 0 && (strings.Count(address, ":") == 1 || strings.Contains(address, "]:"))
}

// name checks what a name is made of, since it is part of file names and host
// names, and that it is unique among seen.
func (c *checker) name(a *addr.Address, name string, seen map[string]*addr.Address) {
	kind := a.Type
	if a.IsResource() {
		kind = "resource"
	}
	if !ValidName(name) {
		c.add(*a, "name", "Invalid name", "%q can't be the name of a %s, since it is part of file names. Use letters, digits, . _ and -, a letter or digit first, 64 at most; set name, or choose other keys.", name, kind)
	}
	if first, ok := seen[name]; ok {
		c.add(*a, "name", "Duplicate name", "%s and %s are both named %q. Set name on one of them.", first, a, name)
		return
	}
	seen[name] = a
}

// ValidName tells whether a node, group or resource may have the name.
func ValidName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		switch b := name[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		case (b == '.' || b == '_' || b == '-') && i > 0:
		case b == '_': // a label may begin with it
		default:
			return false
		}
	}
	return true
}
