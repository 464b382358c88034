package spec

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
	_ "time/tzdata" // the same zones for whoever validates and on every node, whatever the hosts have

	"github.com/clusterplan/clusterplan/lang/addr"
)

func (c *checker) groupRules() {
	names := map[string]*addr.Address{}
	for i := range c.d.Groups {
		g := &c.d.Groups[i]
		c.name(&g.Addr, g.Name, names)
		c.owners(g)
		c.policies(g)
		c.resources(g)
		c.exclusive(g)
	}
}

func (c *checker) owners(g *Group) {
	possible := make(map[string]bool, len(g.PossibleOwners))
	left := 0
	for _, name := range g.PossibleOwners {
		possible[name] = true
		n, ok := c.nodes[name]
		if ok && n.Witness() {
			c.add(g.Addr, "possible_owners", "Witness as an owner", "Node %s is a witness, which never owns a group. Remove it from possible_owners of group %s.", name, g.Name)
		}
		if ok && !n.Witness() {
			left++
		}
	}
	if len(g.PossibleOwners) > 0 && left == 0 {
		c.add(g.Addr, "possible_owners", "No possible owner", "Group %s is left without any node that may own it. Add a member to possible_owners, or remove the line.", g.Name)
	}
	for _, name := range g.PreferredOwners {
		if n, ok := c.nodes[name]; ok && n.Witness() {
			c.add(g.Addr, "preferred_owners", "Witness as an owner", "Node %s is a witness, which never owns a group. Remove it from preferred_owners of group %s.", name, g.Name)
		} else if len(possible) > 0 && !possible[name] {
			c.add(g.Addr, "preferred_owners", "Preferred owner is not possible", "Group %s prefers node %s, which is not among its possible_owners. Add it there, or remove it here.", g.Name, name)
		}
	}
}

func (c *checker) policies(g *Group) {
	if g.NoQuorum == NoQuorumFreeze && c.d.Cluster.Quorum.Model != SingleNode && !c.d.Covered(g) {
		c.add(g.Addr, "no_quorum", "Frozen group without a fence", "Group %s goes on when its node has lost the quorum (no_quorum = \"freeze\"), so that no wait frees it from a lost node: only a fence does, and none covers %s. Cover every node that may own it with a fence block, or use no_quorum = \"stop\".", g.Name, c.d.uncovered(g))
	}
	for _, name := range g.DependsOn {
		if name == g.Name {
			c.add(g.Addr, "depends_on", "Dependency cycle", "Group %s depends on itself. Remove it from depends_on.", g.Name)
		}
	}
	for _, apart := range []struct {
		attribute string
		names     []string
	}{{"keep_apart", g.KeepApart}, {"keep_apart_soft", g.KeepApartSoft}} {
		for _, name := range apart.names {
			if name == g.Name {
				c.add(g.Addr, apart.attribute, "Apart from itself", "Group %s can't be kept apart from itself. Remove it from %s.", g.Name, apart.attribute)
			}
		}
	}
	fb := g.Failback
	switch {
	case fb.Mode == FailbackWindow && fb.Window == "":
		c.add(g.Addr, "failback", "Failback window is missing", "failback.mode is window, and nothing says when that is. Add window = \"22:00-04:00\", or use mode = \"immediate\".")
	case fb.Mode != FailbackWindow && fb.Window != "":
		c.add(g.Addr, "failback.window", "Window without its mode", "A window counts with failback.mode = \"window\" only, and this is %s. Change the mode, or remove the window.", fb.Mode)
	case fb.Window != "":
		if _, _, err := ParseWindow(fb.Window); err != nil {
			c.add(g.Addr, "failback.window", "Invalid window", "%s.", err)
		}
	}
	if _, err := time.LoadLocation(fb.Timezone); err != nil || fb.Timezone == "Local" {
		c.add(g.Addr, "failback.timezone", "Unknown time zone", "%q is no time zone that every node knows. Use a name such as Europe/Stockholm, or leave it out for UTC.", fb.Timezone)
	}
}

// ParseWindow reads a failback window, `22:00-04:00`, as two times of day; one
// that ends before it begins lasts over midnight.
func ParseWindow(s string) (from, to time.Duration, err error) {
	a, b, ok := strings.Cut(s, "-")
	f, err1 := time.Parse("15:04", strings.TrimSpace(a))
	t, err2 := time.Parse("15:04", strings.TrimSpace(b))
	if !ok || err1 != nil || err2 != nil || f.Equal(t) {
		return 0, 0, fmt.Errorf("%q is no window; write two times of day, as 22:00-04:00", s)
	}
	clock := func(t time.Time) time.Duration {
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	return clock(f), clock(t), nil
}

func (c *checker) resources(g *Group) {
	names := make(map[string]*addr.Address, len(g.Resources))
	index := make(map[string]int, len(g.Resources))
	for i := range g.Resources {
		c.name(&g.Resources[i].Addr, g.Resources[i].Name, names)
		index[g.Resources[i].Name] = i
	}
	edges := make([][]int, len(g.Resources))
	for i := range g.Resources {
		r := &g.Resources[i]
		for _, list := range []struct {
			attribute string
			names     []string
		}{{"depends_on", r.DependsOn}, {"depends_on_any", r.DependsOnAny}} {
			for _, name := range list.names {
				j, ok := index[name]
				if !ok {
					c.add(r.Addr, list.attribute, "Dependency outside of the group", "Resource %s depends on %s, which is no resource of group %s. A resource and what it depends on are in one group.", r.Name, name, g.Name)
					continue
				}
				edges[i] = append(edges[i], j)
			}
		}
		c.poll(r, "looks_alive", r.LooksAlive)
		c.poll(r, "is_alive", r.IsAlive)
		c.checkpoint(r)
		c.apart(r, g.Resources[:i])
	}
	for _, cycle := range cycles(edges) {
		p := Problem{Attribute: "depends_on", Summary: "Dependency cycle", Detail: "These resources depend on each other, so that none can come online first. Remove one of the dependencies."}
		for _, i := range cycle {
			p.Cycle = append(p.Cycle, g.Resources[i].Addr)
		}
		p.Addr = p.Cycle[0]
		c.problems = append(c.problems, p)
	}
}

func (c *checker) poll(r *Resource, block string, p Poll) {
	kinds := 0
	for _, given := range []bool{len(p.Command) > 0, p.TCP != "", p.HTTP != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		c.add(r.Addr, block, "More than one check", "%s has more than one of command, tcp and http. Keep one; the other can go into the other check.", block)
	case p.Interval <= 0:
		c.add(r.Addr, block+".interval", "Interval is zero", "Checks need time between them. Use an interval such as \"5s\".")
	case p.Timeout <= 0:
		c.add(r.Addr, block+".timeout", "Timeout is zero", "A check needs time to answer. Use a timeout such as \"10s\".")
	}
	if p.TCP != "" && !hasPort(p.TCP) {
		c.add(r.Addr, block+".tcp", "No port", "%q has no port. Write host:port.", p.TCP)
	}
	if p.HTTP != "" {
		if u, err := url.Parse(p.HTTP); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			c.add(r.Addr, block+".http", "Invalid URL", "%q is no URL that a check can ask. Write http://host:port/path.", p.HTTP)
		}
	}
}

// IPAddress reads the address of an ip_address resource, with or without a
// prefix length.
func IPAddress(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4() && p.Bits() < 31 && !p.Addr().IsLoopback() && p.Addr() == p.Masked().Addr() {
			return netip.Addr{}, fmt.Errorf("%q is a whole subnet; write an address in it, as %s/%d", s, p.Addr().Next(), p.Bits())
		}
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no IP address; write one as 127.77.0.10 or 10.0.0.5/24", s)
	}
	return a.Unmap(), nil
}

// DefaultProbe is how long an ip_address is probed for before it is added: a host
// that has it answers within a fraction of a millisecond, some once they are awake.
const DefaultProbe = 25 * time.Millisecond

// Probe is how long the start of an ip_address asks the link for another owner; 0
// for others, and for one that isn't added.
func (r *Resource) Probe() time.Duration {
	text, ok := r.Attributes["address"].(string)
	if r.Type != "ip_address" || !ok {
		return 0
	}
	if a, err := IPAddress(text); err != nil || a.IsLoopback() {
		return 0
	}
	if text, ok = r.Attributes["probe"].(string); ok {
		if d, err := ParseDuration(text); err == nil {
			return d.D()
		}
	}
	return DefaultProbe
}

// noHostAddress says why no host can be given the address, or "".
func noHostAddress(a netip.Addr) string {
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "no address that a host can have"
	case a.Is6() && a.IsLoopback():
		return "every host's own loopback address"
	case a.Is6() && a.IsLinkLocalUnicast():
		return "a link-local address, which means something else on each link"
	}
	return ""
}

// uniqueAddresses: an ip_address is unique in the cluster, whatever group has it.
func (c *checker) uniqueAddresses() {
	seen := map[netip.Addr]*addr.Address{} // of thousands, each kept once
	for i := range c.d.Groups {
		for j := range c.d.Groups[i].Resources {
			r := &c.d.Groups[i].Resources[j]
			text, ok := r.Attributes["address"].(string)
			if r.Type != "ip_address" || !ok {
				continue // another type, or not known yet
			}
			a, err := IPAddress(text)
			if err != nil {
				c.add(r.Addr, "address", "Invalid address", "%s.", err)
				continue
			}
			if first, ok := seen[a]; ok {
				c.add(r.Addr, "address", "Address used twice", "%s is the address of %s already. An ip_address is unique in the cluster; use another one.", a, first)
				continue
			}
			seen[a] = &r.Addr
			if why := noHostAddress(a); why != "" {
				c.add(r.Addr, "address", "Invalid address", "%s is %s. Use an address of a subnet that the nodes are in, or one in 127/8 for a trial on one machine.", a, why)
			}
		}
	}
}

func (c *checker) groupCycles() {
	index := make(map[string]int, len(c.d.Groups))
	for i := range c.d.Groups {
		index[c.d.Groups[i].Name] = i
	}
	edges := make([][]int, len(c.d.Groups))
	for i := range c.d.Groups {
		for _, name := range c.d.Groups[i].DependsOn {
			if j, ok := index[name]; ok && j != i { // itself: told by policies
				edges[i] = append(edges[i], j)
			}
		}
	}
	for _, cycle := range cycles(edges) {
		p := Problem{Attribute: "depends_on", Summary: "Dependency cycle", Detail: "These groups depend on each other, so that none can come online first. Remove one of the dependencies."}
		for _, i := range cycle {
			p.Cycle = append(p.Cycle, c.d.Groups[i].Addr)
		}
		p.Addr = p.Cycle[0]
		c.problems = append(c.problems, p)
	}
}

// cycles finds one cycle through each back edge of a depth-first search, each
// as its vertices in order; the first is the lowest. Linear but for the cycles' length.
func cycles(edges [][]int) [][]int {
	const (
		fresh = iota
		onPath
		done
	)
	state := make([]byte, len(edges))
	next := make([]int, len(edges))
	var found [][]int
	var path []int
	for start := range edges {
		if state[start] != fresh {
			continue
		}
		path = append(path[:0], start)
		state[start] = onPath
		for len(path) > 0 {
			v := path[len(path)-1]
			if next[v] == len(edges[v]) {
				state[v] = done
				path = path[:len(path)-1]
				continue
			}
			w := edges[v][next[v]]
			next[v]++
			switch state[w] {
			case fresh:
				state[w] = onPath
				path = append(path, w)
			case onPath:
				from := len(path) - 1
				for path[from] != w {
					from--
				}
				found = append(found, rotated(path[from:]))
			}
		}
	}
	return found
}

func rotated(cycle []int) []int {
	low := 0
	for i := range cycle {
		if cycle[i] < cycle[low] {
			low = i
		}
	}
	return append(append([]int(nil), cycle[low:]...), cycle[:low]...)
}
