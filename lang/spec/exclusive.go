package spec

import "strings"

// NotHeld is a resource that may go on after its node's lease is over, so that
// two nodes may have it for a while.
type NotHeld struct {
	Resource string `json:"resource"` // its name
	Why      string `json:"why"`      // what nothing takes away, for people; no full stop
}

// NotHeld lists the resources of g that the kernel doesn't take down with the
// monitor, in their order. Without any, the group is exclusive: at most one node
// runs it at any instant, whatever fails.
//
// Held are an ip_address (in 127/8, or on a device that vanishes with the monitor)
// and a generic_application (a guardian kills all its processes). Not held is a
// script, whose commands may change anything anywhere, unless its definition says
// exclusive = true; and every type that this version doesn't know.
//
// It says nothing of fences: a node that is verified off runs nothing, so where
// every takeover of the group waits for that, what is listed here does no harm. Nor
// of watchdogs, which reset a node that can't prove that it is down (WatchdogOn).
func (g *Group) NotHeld() []NotHeld {
	var out []NotHeld
	for i := range g.Resources {
		if why := g.Resources[i].notHeld(); why != "" {
			out = append(out, NotHeld{Resource: g.Resources[i].Name, Why: why})
		}
	}
	return out
}

func (r *Resource) notHeld() string {
	switch r.Type {
	case "ip_address", "generic_application":
		return ""
	case "script":
		if exclusive, _ := r.Attributes["exclusive"].(bool); exclusive {
			return ""
		}
		return "what its start command changes outside of its own processes stays when the node has lost its lease"
	}
	return "this version doesn't know what its type leaves behind"
}

// StopsByCommand tells whether only a command of the definition's takes away what
// the resource leaves, so that to end who hosts it is no help.
func (r *Resource) StopsByCommand() bool { return r.Type == "script" }

// exclusive warns of groups that nothing holds whole.
func (c *checker) exclusive(g *Group) {
	left := g.NotHeld()
	if len(left) == 0 || c.d.Cluster.Quorum.Model == SingleNode || c.d.Guarded(g) {
		return
	}
	names := make([]string, len(left))
	for i, n := range left {
		names[i] = n.Resource
	}
	c.warn(g.Addr, "", "Group is not exclusive", "Group %s may be active on two nodes for a while after a node is cut off, as nothing takes away what its resource %s leaves: %s. "+
		"Where the script itself keeps others out (a reservation, a lock that CLUSTERPLAN_EPOCH guards), or where two at once do no harm, say exclusive = true in the resource. A fence or a watchdog for each of the group's owners makes it wait for that instead.",
		g.Name, strings.Join(names, ", "), left[0].Why)
}
