package raftdb

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// elected has server 3 elect d, in the next term.
func elected(t *testing.T, d *Driver, st *confdb.Stored) {
	t.Helper()
	_ = d.rn.Campaign()
	d.watch()
	drain(d, st)
	term := d.seen.term + 1
	for _, kind := range []pb.MessageType{pb.MsgPreVoteResp, pb.MsgVoteResp} {
		step(d, &pb.Message{Type: kind.Enum(), From: new(uint64(3)), Term: new(term)})
		drain(d, st)
	}
	if d.seen.state != raft.StateLeader || d.seen.term != term {
		t.Fatalf("%v in term %d, not the leader of %d", d.seen.state, d.seen.term, term)
	}
}

func looks(t *testing.T, d *Driver, st *confdb.Stored) {
	t.Helper()
	for range 2 { // the second goes by what the first one found
		if err := d.CheckedBeat(d.now.Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		drain(d, st)
	}
}

// What a leader knows of the others is of one term: elected again, with nothing
// committed in between, it knows nothing of them yet.
func TestALeaderBeginsAnew(t *testing.T) {
	st := stored()
	d := reopen(t, st)
	drain(d, &st)
	elected(t, d, &st)
	looks(t, d, &st)
	for _, id := range []uint64{2, 3} {
		step(d, &pb.Message{Type: pb.MsgAppResp.Enum(), From: new(id), Term: new(d.seen.term), Index: new(d.lastIndex)})
		drain(d, &st)
		looks(t, d, &st)
	}
	was := d.seen
	if d.level != (level{was.term, was.commit}) || was.commit != d.lastIndex {
		t.Fatalf("all have %d, the leader knows of %+v", was.commit, d.level)
	}
	for i := 0; d.seen.state == raft.StateLeader; i++ { // nobody answers
		if i > 1000 {
			t.Fatal("it leads on, alone")
		}
		looks(t, d, &st)
	}
	elected(t, d, &st)
	if d.seen.commit != was.commit {
		t.Fatalf("%d is committed, was %d", d.seen.commit, was.commit)
	}
	looks(t, d, &st)
}
