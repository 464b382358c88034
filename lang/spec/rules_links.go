package spec

import (
	"net/netip"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// links checks the cluster's networks: a node's address on one is found by its
// subnet, so that no address may lie in two.
func (c *checker) links() {
	at := addr.Cluster()
	var seen []netip.Prefix
	for i, l := range c.d.Cluster.Links {
		p, err := netip.ParsePrefix(l.Subnet)
		if err != nil {
			c.add(at, "link."+l.Name, "Invalid subnet", "The subnet of link %s is %q. Write an address and the length of its prefix, as 10.77.0.0/24.", l.Name, l.Subnet)
			continue
		}
		if p != p.Masked() {
			c.add(at, "link."+l.Name, "Subnet with host bits", "The subnet of link %s is %s. Write its first address: %s.", l.Name, p, p.Masked())
		}
		for j, other := range seen {
			if other.Overlaps(p) {
				c.add(at, "link."+l.Name, "Links overlap", "Addresses in %s may lie in the subnets of links %s and %s (%s). Give each link a network of its own.", p, l.Name, c.d.Cluster.Links[j].Name, other)
			}
		}
		seen = append(seen, p)
		if len(seen) != i+1 { // one before was no prefix: told already, and names would not match
			return
		}
	}
}
