package core

import (
	"slices"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/placement"
)

// plan is one answer of placement's, on its way to be carried out. Its steps take
// time (a takeover's wait, a stop), and asked anew in the middle of them placement
// could send the rest elsewhere than it said first, and than the failure matrix
// shows. So the answer stands until all of it is done, or something happens that
// is no step of it.
type plan struct {
	board    *placement.Board // of the definition that it was made for
	nodes    []nodeFacts
	groups   []groupFacts
	outcomes []placement.Outcome
}

type nodeFacts struct{ up, paused, drained, quarantined bool }

// groupFacts are what placement was told of a group, and its owner's name in the database.
type groupFacts struct {
	at, owner, want, last, home, moveTo       string
	asked, failed, leftFailed, move, failback bool
	noHome                                    []string
}

func factsOfNode(n *placement.Node) nodeFacts {
	return nodeFacts{n.Up, n.Paused, n.Drained, n.Quarantined}
}

func (m *Machine) factsOfGroup(g *confdb.Group, p *placement.Group) groupFacts {
	return groupFacts{
		at: m.state.NodeName(g.Owner.Node), owner: p.Owner, want: p.Want, last: p.Last, home: p.Home, moveTo: p.MoveTo,
		asked: p.Asked, failed: p.Failed, leftFailed: p.LeftFailed, move: p.Move, failback: p.Failback, noHome: p.NoHome,
	}
}

func (f *groupFacts) same(o *groupFacts) bool {
	return f.at == o.at && f.owner == o.owner && f.want == o.want && f.last == o.last && f.home == o.home && f.moveTo == o.moveTo &&
		f.asked == o.asked && f.failed == o.failed && f.leftFailed == o.leftFailed && f.move == o.move && f.failback == o.failback && slices.Equal(f.noHome, o.noHome)
}

// settled is where every group should rest: by the plan under way, or a new one.
func (m *Machine) settled() []placement.Outcome {
	b, l := m.board(), m.lead
	if l.plan == nil || !m.goesOn(l.plan, b) {
		p := &plan{board: b, outcomes: b.Settle()}
		if l.plan != nil { // its memory: fresh one costs more than all the rest here
			p.nodes, p.groups = l.plan.nodes[:0], l.plan.groups[:0]
		}
		p.nodes, p.groups = slices.Grow(p.nodes, len(m.ix.nodes)), slices.Grow(p.groups, len(m.ix.groups))
		for i := range m.ix.nodes {
			p.nodes = append(p.nodes, factsOfNode(b.Node(i)))
		}
		for i, g := range m.ix.groups {
			p.groups = append(p.groups, m.factsOfGroup(g, b.Group(i)))
		}
		l.plan = p
	}
	return l.plan.outcomes
}

// goesOn tells whether a plan has steps left, and all that has changed since it
// was made are steps of it. What has arrived is noted.
func (m *Machine) goesOn(p *plan, b *placement.Board) bool {
	if p.board != b {
		return false
	}
	for i := range p.nodes {
		if p.nodes[i] != factsOfNode(b.Node(i)) {
			return false
		}
	}
	left := false
	for i, g := range m.ix.groups {
		was, now, o := &p.groups[i], m.factsOfGroup(g, b.Group(i)), &p.outcomes[i]
		moves := o.To != was.at
		switch {
		case now.same(was):
			left = left || moves
			continue
		case !moves, now.want != was.want, now.asked != was.asked, now.leftFailed != was.leftFailed:
			return false
		case now.at == o.To:
			if g.Handover != nil || now.failed || now.move || now.failback {
				return false
			}
		case now.at == was.at && g.Handover != nil && m.state.NodeName(g.Handover.To) == o.To && now.failed == was.failed:
			left = true
		case now.at == "" && o.Why == WhyShed:
			left = true
		default:
			return false
		}
		o.From = now.at
	}
	return left
}
