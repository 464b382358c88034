package raftdb

import (
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// What an idle leader of three costs for each beat: twenty a second.
func BenchmarkIdleBeat(b *testing.B) {
	st := stored()
	d := reopen(b, st)
	drain(d, &st)
	_ = d.rn.Campaign()
	d.watch()
	drain(d, &st)
	for _, kind := range []pb.MessageType{pb.MsgPreVoteResp, pb.MsgVoteResp} {
		step(d, &pb.Message{Type: kind.Enum(), From: new(uint64(3)), Term: new(uint64(6))})
		drain(d, &st)
	}
	step(d, &pb.Message{Type: pb.MsgAppResp.Enum(), From: new(uint64(3)), Term: new(uint64(6)), Index: new(d.lastIndex)})
	drain(d, &st)
	if !d.Status().Ready {
		b.Fatal("no leader")
	}
	b.ReportAllocs()
	for b.Loop() {
		d.Beat(d.now.Add(50 * time.Millisecond))
		d.Now()
		for _, id := range []uint64{2, 3} {
			step(d, &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(id), Term: new(uint64(6))})
		}
		if _, ok := d.Ready(); ok {
			b.Fatal("idle, and something to do")
		}
		d.Status()
	}
}
