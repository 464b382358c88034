package core

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A node confirms shorter leases only with one in hand. After the end of a
// longer one its groups may still take S and K to stop, and a takeover counts
// with the lease that was confirmed.
func TestConfirmsWithALeaseInHand(t *testing.T) {
	now := spec.Instant(time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	state := confdb.NewState()
	state.Cluster = spec.Cluster{ID: "c", Heartbeat: spec.Timings{Lease: spec.Duration(900 * time.Millisecond)}.WithDefaults()}
	state.Nodes["n1"] = &confdb.Node{ServerID: 1, Lease: spec.Duration(1200 * time.Millisecond)}
	state.Revision, state.TimingsRevision, state.ShorterRevision = 9, 9, 9
	confirms := func() bool {
		for _, e := range m.Step(now, StateChanged{state}) {
			if p, ok := e.(Propose); ok && p.Command.ConfirmTimings != nil {
				return true
			}
		}
		return false
	}
	m.leaseEnd, m.retimed.leaseOf = now.Add(time.Second), 4
	if confirms() {
		t.Error("it confirms while it holds a lease of before")
	}
	if now = now.Add(1100 * time.Millisecond); confirms() {
		t.Error("it confirms when that lease is over, and its groups may still be stopping")
	}
	m.leaseEnd, m.retimed.leaseOf = now.Add(time.Second), 9
	if confirms() {
		t.Error("it confirms while a lease of its host's last incarnation may last")
	}
	now = now.Add(time.Second)
	m.leaseEnd, m.retimed.leaseOf = now.Add(time.Second), 9
	m.drv.Unsaved = true
	if confirms() {
		t.Error("it confirms in a term that it would forget in a crash, and then obey an older leader")
	}
	m.drv.Unsaved = false
	if !confirms() {
		t.Error("it doesn't confirm with a shorter lease in hand")
	}
}

// What is due but may not be looked at yet is a deadline ahead, not one in the
// past, for which the machine would be called without a pause.
func TestNoDeadlineInThePast(t *testing.T) {
	now := spec.Instant(time.Hour)
	m := New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0)}, now, nil)
	now = now.Add(time.Second)
	m.Step(now, Agreement{confdb.Status{Self: 1, Term: 5, Role: confdb.Leader, Leader: 1, Voters: []uint64{1}, Needed: 1, Ready: true}})
	m.lead.dirty, m.lead.manageAt, m.lead.notBefore = true, now, now.Add(50*time.Millisecond)
	m.Step(now, Tick{})
	if next := m.NextDeadline(); next <= now {
		t.Errorf("it wants to be called at once again (%v), and does nothing for 50 ms", next.Sub(now))
	}
}
