package sim

import (
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// What can be done to a lab's cluster. Nodes go by name; of those that it does
// not have nothing happens.

func (l *Lab) host(name string) *host {
	i := slices.IndexFunc(l.w.hosts, func(h *host) bool { return h.name == name })
	if i < 0 {
		return nil
	}
	return l.w.hosts[i]
}

func (l *Lab) each(nodes []string, do func(h *host)) {
	l.busyAt = l.w.now
	for _, n := range nodes {
		if h := l.host(n); h != nil {
			do(h)
		}
	}
}

// Lose turns hosts off, all at the same instant. They stay off until Start.
func (l *Lab) Lose(nodes ...string) {
	l.each(nodes, func(h *host) {
		h.off = true
		h.powerOff()
	})
}

// Kill ends the agents of nodes, and nothing else there: what their monitors
// run goes on until its lease is over. They stay so until Start.
func (l *Lab) Kill(nodes ...string) {
	l.each(nodes, func(h *host) {
		h.off = true
		h.killAgent()
	})
}

// Hang has whole hosts stand still until Heal or Start: nothing there does
// anything, and nothing is heard.
func (l *Lab) Hang(nodes ...string) {
	l.each(nodes, func(h *host) { h.suspend(forever) })
}

const forever = 1 << 60 // ns

// Start starts what was lost or killed, and has hosts that stand still go on.
func (l *Lab) Start(nodes ...string) {
	l.each(nodes, func(h *host) {
		h.off = false
		h.wake()
		h.startAgent()
	})
}

// Cut cuts every link between a node of the one list and one of the other.
func (l *Lab) Cut(a, b []string) {
	l.each(a, func(x *host) {
		l.each(b, func(y *host) {
			if x != y {
				l.w.net.cut[x.index][y.index], l.w.net.cut[y.index][x.index] = 1, 1
			}
		})
	})
}

// Isolate cuts nodes off, together, from all others.
func (l *Lab) Isolate(nodes ...string) {
	var others []string
	for _, h := range l.w.hosts {
		if !slices.Contains(nodes, h.name) {
			others = append(others, h.name)
		}
	}
	l.Cut(nodes, others)
}

// LoseDevice has the quorum device answer with errors until Heal.
func (l *Lab) LoseDevice() {
	l.busyAt = l.w.now
	l.w.device.gone = true
}

// Heal makes all links whole, brings the quorum device back, and has hosts that
// stand still go on. What was lost or killed stays so.
func (l *Lab) Heal() {
	l.w.net.heal()
	l.w.device.mend()
	for _, h := range l.w.hosts {
		h.wake()
	}
	l.busyAt = l.w.now
}

// HealNodes makes the links of nodes whole, and has them go on.
func (l *Lab) HealNodes(nodes ...string) {
	l.each(nodes, func(h *host) {
		for i := range l.w.hosts {
			l.w.net.cut[h.index][i], l.w.net.cut[i][h.index] = 0, 0
		}
		h.wake()
	})
}

// staysOff tells whether a host that a fence has turned off is to stay so: it
// was lost, or the fence does not turn it on again.
func (l *Lab) staysOff(h *host, o member.StartFence) bool {
	if l == nil {
		return false
	}
	for _, f := range firstLevel(o) {
		if f.Action == spec.FenceReboot {
			return h.off
		}
	}
	h.off = true
	return true
}

// fencedBy says which devices turned a host off: those of the first level.
func (l *Lab) fencedBy(o member.StartFence) (by string, uses []confdb.FenceUse) {
	if l == nil {
		return "power", []confdb.FenceUse{{Fence: "f0", OK: true}}
	}
	var names []string
	for _, f := range firstLevel(o) {
		names = append(names, f.Name)
		uses = append(uses, confdb.FenceUse{Fence: f.ID, Node: o.Node, OK: true})
	}
	return strings.Join(names, ", "), uses
}

func firstLevel(o member.StartFence) []spec.Fence {
	if len(o.Levels) == 0 {
		return nil
	}
	return o.Levels[0]
}

// NodeID is the id of the node with that name; "": there is none.
func (l *Lab) NodeID(name string) string {
	if h := l.host(name); h != nil {
		return h.nodeID
	}
	return ""
}

// GroupID is the id of the group with that name; "": there is none.
func (l *Lab) GroupID(name string) string {
	for id, g := range l.groups {
		if g.spec.Name == name {
			return id
		}
	}
	return ""
}
