package spec

import (
	"fmt"
	"sort"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// model checks what the cluster's configuration promises.
func (c *checker) model() {
	switch c.d.Cluster.Configuration {
	case VirtualServer:
		c.virtualServer()
	case StaticLoadBalancing:
		c.staticLoadBalancing()
	case HotSpare:
		c.hotSpare()
	case Partial:
		c.partial()
	case Hybrid:
		c.hybrid()
	}
}

func (c *checker) virtualServer() {
	if m := c.d.Cluster.Quorum.Model; m != SingleNode {
		c.add(addr.Cluster(), "configuration", "virtual_server without single_node", "Configuration virtual_server is one node whose groups have addresses of their own, and the quorum model is %s. Use model = \"single_node\", or another configuration.", m)
	}
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		has := false
		for j := range g.Resources {
			has = has || g.Resources[j].Type == "ip_address"
		}
		if !has {
			c.add(g.Addr, "", "Virtual server without an address", "Group %s has no ip_address, so that its clients would lose it once nodes are added. Add resource \"ip_address\" \"vip\" { address = \"...\" } to it, and let clients use that address.", g.Name)
		}
	}
}

// staticLoadBalancing: each member is somebody's first choice, and the others
// can carry its groups when it fails.
func (c *checker) staticLoadBalancing() {
	home := make(map[string][]*Group, len(c.nodes)) // by first preferred owner
	for i := range c.d.Groups {
		if g := &c.d.Groups[i]; len(g.PreferredOwners) > 0 {
			home[g.PreferredOwners[0]] = append(home[g.PreferredOwners[0]], g)
		}
	}
	load := make(map[string]map[string]int64, len(c.nodes))
	for name, groups := range home {
		load[name] = map[string]int64{}
		for _, g := range groups {
			for what, n := range g.Demand {
				load[name][what] += n
			}
		}
	}
	for i := range c.d.Nodes {
		n := &c.d.Nodes[i]
		if n.Witness() {
			continue
		}
		if len(home[n.Name]) == 0 {
			c.add(n.Addr, "", "Member without a group", "In configuration static_load_balancing each member carries something, and node %s is the first preferred owner of no group. Put it first in some group's preferred_owners, or give it role = \"witness\".", n.Name)
			continue
		}
		for _, what := range sortedNames(load[n.Name]) {
			used := load[n.Name][what]
			if can, limited := n.Capacity[what]; limited && used > can {
				c.add(n.Addr, "capacity", "Member is too small", "The groups that node %s is the first preferred owner of need %s %s: %s; it has %s. Raise its capacity or move a group.", n.Name, what, Quantity(what, used), sum(what, home[n.Name]), Quantity(what, can))
			}
		}
		c.fitsElsewhere(n, home[n.Name], load)
	}
}

// fitsElsewhere places a failed node's groups on the others, each on the first
// of its owners with room, largest priority first.
func (c *checker) fitsElsewhere(failed *Node, groups []*Group, load map[string]map[string]int64) {
	extra := map[string]map[string]int64{} // by node, what the failure brings
	free := func(n *Node, what string) (int64, bool) {
		can, limited := n.Capacity[what]
		return can - load[n.Name][what] - extra[n.Name][what], limited
	}
	sorted := append([]*Group(nil), groups...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Priority > sorted[j].Priority })
	for _, g := range sorted {
		if g.Failover.Mode == FailoverNone {
			continue
		}
		var target *Node
		tooLittle := "" // a quantity that no owner had enough of
		try := func(n *Node) {
			if target != nil || n == nil || n.Name == failed.Name || !g.MayOwn(*n) {
				return
			}
			for _, what := range sortedNames(g.Demand) {
				if have, limited := free(n, what); limited && have < g.Demand[what] {
					tooLittle = what
					return
				}
			}
			target = n
		}
		for _, name := range g.PreferredOwners {
			try(c.nodes[name])
		}
		for i := range c.d.Nodes {
			try(&c.d.Nodes[i])
		}
		switch {
		case target != nil:
			if extra[target.Name] == nil {
				extra[target.Name] = map[string]int64{}
			}
			for what, n := range g.Demand {
				extra[target.Name][what] += n
			}
		case tooLittle == "":
			c.add(g.Addr, "possible_owners", "No room after a failure", "When node %s fails, group %s has no other owner. Add a node to its possible_owners, or set failover { mode = \"none\" } if it may stay down.", failed.Name, g.Name)
		default:
			var rest []string
			for i := range c.d.Nodes {
				n := &c.d.Nodes[i]
				if n.Name == failed.Name || !g.MayOwn(*n) {
					continue
				}
				if have, limited := free(n, tooLittle); limited {
					rest = append(rest, fmt.Sprintf("%s has %s of %s free", n.Name, Quantity(tooLittle, max(have, 0)), Quantity(tooLittle, n.Capacity[tooLittle])))
				}
			}
			c.add(g.Addr, "demand", "No room after a failure", "When node %s fails, group %s needs %s %s elsewhere (of %s), and %s. Raise a capacity, lower a demand, or spread the groups.",
				failed.Name, g.Name, tooLittle, Quantity(tooLittle, g.Demand[tooLittle]), sum(tooLittle, groups), strings.Join(rest, ", "))
		}
	}
}

// sum is `a 2 + b 1 = 3`.
func sum(what string, groups []*Group) string {
	var parts []string
	var total int64
	for _, g := range groups {
		if n := g.Demand[what]; n > 0 {
			parts = append(parts, g.Name+" "+Quantity(what, n))
			total += n
		}
	}
	return strings.Join(parts, " + ") + " = " + Quantity(what, total)
}

// Quantity is the text of an entry of a capacity or a demand, which
// ParseQuantity reads: `1.5` of cpu, `4GiB`.
func Quantity(what string, n int64) string {
	if what == "cpu" {
		text := fmt.Sprintf("%d.%03d", n/1000, n%1000)
		return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	if n >= 1024 && n%1024 == 0 {
		return FormatSize(n)
	}
	return fmt.Sprint(n)
}

func sortedNames(m map[string]int64) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (c *checker) hotSpare() {
	spares, primaries := 0, 0
	for i := range c.d.Nodes {
		switch n := &c.d.Nodes[i]; {
		case n.Witness():
		case n.Spare:
			spares++
		default:
			primaries++
		}
	}
	if spares == 0 {
		c.add(addr.Cluster(), "configuration", "No spare", "Configuration hot_spare needs a node that waits for the others. Set spare = true on at least one.")
	}
	if primaries == 0 && spares > 0 {
		c.add(addr.Cluster(), "configuration", "Only spares", "Every member is a spare, so that nobody is there to be replaced. Leave spare off on at least one.")
	}
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		for _, name := range g.PreferredOwners {
			if n, ok := c.nodes[name]; ok && n.Spare {
				c.add(g.Addr, "preferred_owners", "Spare as a preferred owner", "Node %s is a spare: it owns groups only while no primary can. Remove it from preferred_owners of group %s.", name, g.Name)
			}
		}
		if g.Failback.Mode == FailbackPrevent {
			c.add(g.Addr, "failback.mode", "hot_spare without failback", "In configuration hot_spare the primary takes its groups back, and group %s prevents it. Use mode = \"immediate\" or \"window\".", g.Name)
		}
	}
}

func (c *checker) partial() {
	stays := map[string]bool{}
	for i := range c.d.Groups {
		if g := &c.d.Groups[i]; g.Failover.Mode == FailoverNone {
			stays[g.Name] = true
		}
	}
	if len(stays) == 0 {
		c.add(addr.Cluster(), "configuration", "Nothing stays down", "In configuration partial some group stays down with its node, and here every group fails over. Set failover { mode = \"none\" } on one, or use another configuration.")
	}
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		if g.Failover.Mode == FailoverNone {
			continue
		}
		for _, name := range g.DependsOn {
			if stays[name] {
				c.add(g.Addr, "depends_on", "Dependency on a group that stays down", "Group %s fails over, and group %s, which it depends on, stays down with its node. Let %s fail over, or remove the dependency.", g.Name, name, name)
			}
		}
	}
}

func (c *checker) hybrid() {
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		if !g.Failover.Stated {
			c.add(g.Addr, "", "Failover is not stated", "In configuration hybrid each group says what becomes of it, and group %s doesn't. Add failover { mode = \"automatic\" }, or mode = \"manual\", or mode = \"none\" if it stays down with its node.", g.Name)
		}
		if len(g.PreferredOwners) == 0 {
			c.add(g.Addr, "", "Preferred owners are not stated", "In configuration hybrid each group says where it belongs, and group %s doesn't. Add preferred_owners = [node.NAME, ...], the first choice first.", g.Name)
		}
	}
}
