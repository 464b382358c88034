package e2e

import (
	"strings"
	"testing"
)

// idOf is a node's id, as the state has it.
func (l *lab) idOf(address string) string {
	l.t.Helper()
	for _, o := range l.state().Objects {
		if o.Addr.String() == address {
			return o.ID
		}
	}
	l.t.Fatalf("the state has no %s", address)
	return ""
}

// A node that owns a group is made anew while its clients look: the new one has
// joined, and votes, before the old one leaves, and the service is away no longer
// than for a move.
func TestNodeMadeAnew(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	l.up(3, 3)
	before, pid := l.idOf("node.n1"), l.node("n1").PID
	l.must(2, "plan", "--detailed-exitcode", "--replace", "node.n1").wants(t, "+/- node.n1", "(deposed "+before+")")
	p := l.probe()
	l.must(0, "apply", "--auto-approve", "--replace", "node.n1")
	l.served("n1") // it goes back by its failback policy, to the new node by its old name
	if worst := p.worst(); worst > outage {
		t.Errorf("no answer for %s", worst)
	}
	after := l.idOf("node.n1")
	if after == before || l.node("n1").PID == pid {
		t.Errorf("n1 was %s (pid %d) and is %s", before, pid, after)
	}
	events := l.must(0, "events").out
	joined, drained := strings.Index(events, "node n1-"+after+" has caught up"), strings.Index(events, "node n1 is drained")
	left := strings.Index(events, "node n1 was removed")
	if joined < 0 || drained < joined || left < drained {
		t.Errorf("joined at %d, drained at %d, left at %d of the events:\n%s", joined, drained, left, events)
	}
	l.up(3, 3)
	l.settled()
	l.destroyed()
}

// A node whose agent was killed is made anew in one apply, without an evict first.
func TestDeadNodeMadeAnew(t *testing.T) {
	l := newLab(t)
	l.apply()
	l.served("n1")
	before := l.idOf("node.n1")
	l.kill("n1")
	l.served("!n1")
	p := l.probe()
	l.must(0, "apply", "--auto-approve", "--replace", "node.n1")
	l.served("n1")
	if worst := p.worst(); worst > outage {
		t.Errorf("no answer for %s", worst)
	}
	if after := l.idOf("node.n1"); after == before {
		t.Errorf("n1 is %s still", after)
	}
	l.up(3, 3)
	l.settled()
	l.must(0, "state", "list").wants(t, "node.n1")
	l.destroyed()
}
