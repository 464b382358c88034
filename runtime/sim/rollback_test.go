package sim

import (
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// Disks are put back to older states, terms' writes are cut short, nodes die for
// good and are replaced: never two owners, and nothing acknowledged is lost.
func TestOlderDisks(t *testing.T) {
	var putBack, older, evicted int
	for seed := range few(24) {
		r := Run(Config{Seed: uint64(3000 + seed), Nodes: 3 + seed%3, For: 40 * time.Second,
			Mix: map[string]int{"older-disk": 6, "slow-disk": 1, "crash-in-term": 2, "lost-disk": 1}})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		putBack, older, evicted = putBack+r.PutBack, older+r.Older, evicted+r.Evicted
	}
	t.Logf("%d disks were put back, %d nodes said so, %d were evicted", putBack, older, evicted)
	if n := few(24); putBack < n || older < n/4 || n == 24 && evicted == 0 {
		t.Error("too tame to prove anything")
	}
}

// No vote is taken from one of three nodes while another's disk is put back to an
// older state, or its server has said so and was not emptied yet: the third alone, the only one left with what was committed, is no
// majority, and nothing could bring the cluster back. These seeds had it so.
func TestNoVoteIsTakenFromTheLastThatKnow(t *testing.T) {
	for _, cfg := range []Config{{Seed: 1079308572, Nodes: 3, Fence: true}, {Seed: 663189352, Nodes: 3, Fence: true}, {Seed: 1405713365, Nodes: 3, Witnesses: 1}} {
		cfg.For = time.Minute
		if r := Run(cfg); len(r.Violations) > 0 {
			fail(t, r)
		}
	}
}

// A new machine is judged by its own leases, not by those of the one before it, which
// may have been longer. This seed had it so.
func TestNewMachineHasNoOldLease(t *testing.T) {
	if r := Run(Config{Seed: 603005561, Nodes: 5, Witnesses: 1, For: time.Minute}); len(r.Violations) > 0 {
		fail(t, r)
	}
}

// A crash loses every write that was not synced, in order: the one under way is
// there, whole, or not, and none after it.
func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	landed := 0
	for seed := range 40 {
		w := newWorld(Config{Seed: uint64(seed), Nodes: 1, Model: spec.MajorityNodeSet})
		h := w.hosts[0]
		a := h.agent
		for i := range 3 {
			a.writing = append(a.writing, member.Persist{N: uint64(100 + i), What: confdb.Persist{Entries: []confdb.LogEntry{{Index: uint64(1 + i), Term: 1, Data: []byte{0}}}}})
		}
		a.write()
		h.killAgent()
		w.runUntil(int64(time.Second))
		switch n := len(h.disk.stored.Entries); n {
		case 0:
		case 1:
			landed++
		default:
			t.Fatalf("%d writes are there, and one was begun", n)
		}
	}
	if landed == 0 || landed == 40 {
		t.Errorf("the write under way was there in %d of 40 crashes", landed)
	}
}
