package spec

import (
	"maps"
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Guarantee is a guarantee block: what has to be true of its groups whenever a
// plan is made. Agents know nothing of it.
type Guarantee struct {
	Addr     addr.Address     `json:"addr"`
	Name     string           `json:"name"`               // label, label-key for an instance
	Groups   []string         `json:"groups"`             // group names
	Survives map[string]int64 `json:"survives,omitempty"` // how many of SurviveNodes and SurviveZones may fail at once; separate faults
	// MaxDowntime is the longest that a failover may take; 0: any.
	MaxDowntime Duration `json:"max_downtime,omitempty"`
}

// What may fail, in Guarantee.Survives.
const (
	SurviveNodes = "nodes"
	SurviveZones = "zones"
)

// maxFaults is how many combinations of failures a guarantee may ask for: each
// of them is worked out.
const maxFaults = 20_000

// GuaranteeSchema is the shape of a guarantee block.
func GuaranteeSchema() Schema {
	return Schema{
		Name: "guarantee",
		Doc:  "What has to hold of groups, checked at every plan.",
		Attributes: []Attribute{
			{Name: "groups", Type: TypeGroupRefs, Required: true, KnownAtPlan: true, Impact: ImpactNone, Doc: "The groups that it is about, as [group.sql]."},
			{Name: "survives", Type: TypeCounts, KnownAtPlan: true, Impact: ImpactNone, Doc: "How many nodes, or zones, may fail at once with the groups online after it: { nodes = 1, zones = 1 }. Separate faults, not combined."},
			{Name: "max_downtime", Type: TypeDuration, KnownAtPlan: true, Impact: ImpactNone, Doc: "The longest that a failover may take."},
		},
	}
}

// Zones are the names of the zones with their nodes' names, both in order of
// the definition.
func (d *Definition) Zones() (names []string, nodes map[string][]string) {
	nodes = map[string][]string{}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if n.Zone == "" {
			continue
		}
		if nodes[n.Zone] == nil {
			names = append(names, n.Zone)
		}
		nodes[n.Zone] = append(nodes[n.Zone], n.Name)
	}
	return names, nodes
}

func (c *checker) guarantees() {
	names := map[string]addr.Address{}
	zones, _ := c.d.Zones()
	for i := range c.d.Guarantees {
		g := &c.d.Guarantees[i]
		if first, ok := names[g.Name]; ok {
			c.add(g.Addr, "", "Duplicate name", "%s and %s are both named %q. Choose another label or other keys.", first, g.Addr, g.Name)
		}
		names[g.Name] = g.Addr
		if len(g.Groups) == 0 {
			c.add(g.Addr, "groups", "Guarantee without groups", "Guarantee %s is about no group. Name them: groups = [group.NAME].", g.Name)
		}
		if len(g.Survives) == 0 && g.MaxDowntime == 0 {
			c.add(g.Addr, "", "Guarantee of nothing", "Guarantee %s says neither what its groups survive nor how long they may be down. Add survives = { nodes = 1 }, or max_downtime = \"10s\".", g.Name)
		}
		for _, what := range slices.Sorted(maps.Keys(g.Survives)) {
			n := g.Survives[what]
			all := len(c.d.Nodes)
			switch what {
			case SurviveNodes:
			case SurviveZones:
				if all = len(zones); all == 0 && n > 0 {
					c.add(g.Addr, "survives", "No zones", "Guarantee %s is to survive the loss of a zone, and no node is in one. Give nodes a zone, or remove zones.", g.Name)
				}
			default:
				c.add(g.Addr, "survives", "Unknown kind of failure", "survives counts nodes and zones, and there is no %q. Write survives = { nodes = 1, zones = 1 }.", what)
				continue
			}
			if faults := Combinations(all, n); faults > maxFaults {
				c.add(g.Addr, "survives", "Too many combinations", "%d of %d %s can fail in more than %d ways, and every one would have to be worked out. Ask for fewer.", n, all, what, maxFaults)
			}
		}
	}
}

// Combinations is in how many ways one to k of n things can be chosen, or some
// number above maxFaults if it is more.
func Combinations(n int, k int64) int {
	total, ways := 0, 1
	for i := 1; int64(i) <= k && i <= n; i++ {
		ways = ways * (n - i + 1) / i
		if total += ways; total > maxFaults || ways > maxFaults {
			return maxFaults + 1
		}
	}
	return total
}
