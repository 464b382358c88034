package core

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// Voters that joined since the term began, and heard nothing of older leaders,
// don't make old leases look older than they are.
func TestOldLeasesOfNewVoters(t *testing.T) {
	now := spec.Instant(10 * time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	now = now.Add(time.Hour)
	answer := func(from uint64, age time.Duration) {
		f := m.Frame(now, from)
		now = now.Add(time.Millisecond)
		m.Step(now, Heard{heartbeat.Frame{From: from, To: 1, Incarnation: 11 * from, Seq: 1, Term: 5, Leader: 1, AckIncarnation: 11, AckSeq: f.Seq, UpSince: 9 * time.Hour, OldTermAge: age}})
	}
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1, 2, 3}, Needed: 2}})
	if since := m.oldLeases(); since != now {
		t.Fatalf("before anyone told, %v before the term's start", now.Sub(since))
	}
	answer(2, 50*time.Millisecond)
	was := m.oldLeases()
	if age := now.Sub(was); age < 49*time.Millisecond || age > 50*time.Millisecond {
		t.Fatalf("n2 answered 50 ms ago, old leases are taken for %v old", age)
	}
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1, 2, 3, 4, 5}, Needed: 3}})
	answer(4, 9*time.Hour)
	answer(5, 9*time.Hour)
	if is := m.oldLeases(); is != was {
		t.Errorf("two new voters make old leases %v older", was.Sub(is))
	}
}
