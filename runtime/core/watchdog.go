package core

import (
	"fmt"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// unwatched is why a resource must not start here now: it may outlive the lease,
// the node that takes over counts with this one's watchdog, and there is none
// armed, or with a longer time-out than that node counts with. "" where it may; as what freezes,
// which only a fence frees.
func (m *Machine) unwatched(r *run, x *resource) string {
	n, g := m.state.Nodes[m.cfg.Node], m.state.Groups[r.id]
	if n == nil || g == nil || n.Spec.Watchdog == "" || r.freezes || !x.spec.MayOutlive() {
		return ""
	}
	counts := g.Owner.Watchdog
	switch {
	case m.noWatchdog != "":
		return fmt.Sprintf("it relies on the watchdog of node %s: %s", n.Spec.Name, m.noWatchdog)
	case m.watchdog == 0:
		return fmt.Sprintf("it relies on the watchdog %s of node %s, which its agent doesn't know of yet: apply restarts the agent", n.Spec.Watchdog, n.Spec.Name)
	case m.watchdog > counts:
		return fmt.Sprintf("it relies on the watchdog of node %s, whose time-out is %s still, and others count with %s: apply restarts the agent", n.Spec.Name, m.watchdog, spec.Duration(counts))
	}
	return ""
}
