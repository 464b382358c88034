package spec

import (
	"path"
	"strings"
	"time"
)

// Time-outs of watchdogs. Their interface counts in seconds
// (linux/Documentation/watchdog/watchdog-api.rst).
const (
	DefaultWatchdogTimeout = Duration(5 * time.Second) // as SBD's
	MinWatchdogTimeout     = Duration(2 * time.Second)
	MaxWatchdogTimeout     = Duration(10 * time.Minute)
)

// ResetSysrq is a node's reset by the kernel, asked through /proc/sysrq-trigger.
const ResetSysrq = "sysrq"

// WatchdogWait is the time-out of the node's watchdog; 0: it has none.
func (n *Node) WatchdogWait() Duration {
	if n.Watchdog == "" {
		return 0
	}
	if n.WatchdogTimeout == 0 {
		return DefaultWatchdogTimeout
	}
	return n.WatchdogTimeout
}

// WatchdogOn is how much longer than for its lease a takeover of the group from
// that node has to wait: its watchdog's time-out, where the group relies on it,
// because something of it may outlive the lease. 0: it doesn't.
func (g *Group) WatchdogOn(n *Node) Duration {
	for i := range g.Resources {
		if g.Resources[i].MayOutlive() {
			return n.WatchdogWait()
		}
	}
	return 0
}

// MayOutlive tells whether something of the resource may go on after its node's
// lease is over, unless the node is turned off or resets itself.
func (r *Resource) MayOutlive() bool { return r.notHeld() != "" }

// Guarded tells whether every node that may own the group is covered by a fence
// or has a watchdog, so that a takeover waits for what outlives a lease.
func (d *Definition) Guarded(g *Group) bool {
	owners := 0
	for i := range d.Nodes {
		n := &d.Nodes[i]
		if !g.MayOwn(*n) {
			continue
		}
		owners++
		if n.Watchdog == "" && !d.fenced(n.Name) {
			return false
		}
	}
	return owners > 0
}

func (d *Definition) fenced(node string) bool {
	for i := range d.Fences {
		if d.Fences[i].Covers(node) {
			return true
		}
	}
	return false
}

// watchdog checks a node's watchdog.
func (c *checker) watchdog(n *Node) {
	t := n.WatchdogTimeout
	switch {
	case n.Watchdog == "":
		if t != 0 {
			c.add(n.Addr, "watchdog_timeout", "Time-out without a watchdog", "Node %s has a watchdog_timeout and no watchdog. Add watchdog = \"/dev/watchdog\", or remove the line.", n.Name)
		}
		return
	case !strings.HasPrefix(n.Watchdog, "/dev/") || path.Clean(n.Watchdog) != n.Watchdog:
		c.add(n.Addr, "watchdog", "Invalid watchdog", "%q is no device. Write its path, as /dev/watchdog.", n.Watchdog)
	case t != 0 && (t < MinWatchdogTimeout || t > MaxWatchdogTimeout || t.D()%time.Second != 0):
		c.add(n.Addr, "watchdog_timeout", "Invalid time-out of a watchdog", "A watchdog counts in whole seconds, from %s to %s, and this is %s. Use a span such as \"5s\".", MinWatchdogTimeout, MaxWatchdogTimeout, t)
	}
	if n.Witness() {
		c.warn(n.Addr, "watchdog", "Watchdog of a witness", "Node %s is a witness and never owns a group, so nothing relies on its watchdog. Remove it.", n.Name)
	}
}

// reset checks how a node resets itself.
func (c *checker) reset(n *Node) {
	switch {
	case n.Reset == "":
	case n.Reset != ResetSysrq:
		c.add(n.Addr, "reset", "Invalid reset", "%q is no way to reset a node. Write reset = %q, or remove the line.", n.Reset, ResetSysrq)
	case n.Provider == "local":
		c.add(n.Addr, "reset", "Reset of a local node", "Node %s is of provider local: a reset would take the whole machine down, with every other node on it. Remove reset; a fence with agent = \"local\" ends such a node.", n.Name)
	case n.Witness():
		c.warn(n.Addr, "reset", "Reset of a witness", "Node %s is a witness and never owns a group, so it has nothing to be reset for. Remove reset.", n.Name)
	}
}
