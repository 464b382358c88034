package raftdb

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

const testNow = spec.Instant(time.Hour)

// stored is what a voter of three (1, 2, 3) has on disk: term 5, a log of
// entries 11 to 13 behind a snapshot.
func stored() confdb.Stored {
	state, err := confdb.Encode(confdb.NewState())
	if err != nil {
		panic(err)
	}
	snap := &pb.Snapshot{Data: state, Metadata: &pb.SnapshotMetadata{
		Index: new(uint64(10)), Term: new(uint64(4)), ConfState: &pb.ConfState{Voters: []uint64{1, 2, 3}}}}
	st := confdb.Stored{
		HardState: encodeHardState(&pb.HardState{Term: new(uint64(5)), Vote: new(uint64(0)), Commit: new(uint64(12))}),
		Snapshot:  encodeSnapshot(snap), SnapshotIndex: 10,
	}
	for i := range uint64(3) {
		st.Entries = append(st.Entries, encodeEntry(&pb.Entry{Index: new(11 + i), Term: new(uint64(5)), Type: pb.EntryNormal.Enum()}))
	}
	return st
}

func reopen(t testing.TB, st confdb.Stored) *Driver {
	t.Helper()
	d, _, _, err := New(Config{ServerID: 1, Seed: 1, Stored: st, Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	d.Tick(testNow) // the others know of nothing that it doesn't
	for _, id := range []uint64{2, 3} {
		tell(d, id, answer{nonce: d.nonce()})
	}
	return d
}

func (d *Driver) nonce() uint64 {
	if d.call == nil {
		return 0
	}
	return d.call.nonce
}

// tell is a server's answer to a roll call.
func tell(d *Driver, from uint64, a answer) {
	data := []byte{beatMark, callTells}
	for _, v := range append([]uint64{a.nonce, a.term, a.lead, a.log.term, a.log.index, a.promise.term, a.promise.index, a.applied.term, a.applied.index, uint64(len(a.voters))}, a.voters...) {
		data = binary.AppendUvarint(data, v)
	}
	d.Step(d.now, confdb.Message{From: from, To: d.id, InFrame: true, Data: data})
}

func step(d *Driver, m *pb.Message) {
	m.To = new(uint64(1))
	d.Step(d.now.Add(time.Millisecond), confdb.Message{From: m.GetFrom(), To: 1, Data: encoded(m)})
}

// encoded is a message as it goes over the wire.
func encoded(m *pb.Message) []byte {
	switch m.GetType() {
	case pb.MsgHeartbeat:
		return appendBeat(nil, beatAsks, m.GetTerm(), m.GetCommit())
	case pb.MsgHeartbeatResp:
		return appendBeat(nil, beatAnswers, m.GetTerm(), m.GetCommit())
	}
	return marshal(m)
}

func find(messages []confdb.Message, kind pb.MessageType) *pb.Message {
	for _, m := range messages {
		b, p := &beat{}, &pb.Message{}
		if b.decode(m) {
			p = &b.msg
		} else if proto.Unmarshal(m.Data, p) != nil {
			continue
		}
		if p.GetType() == kind {
			return p
		}
	}
	return nil
}

// drain finishes what is to be done, and returns all that was sent.
func drain(d *Driver, st *confdb.Stored) (sent []confdb.Message) {
	sent = append(sent, d.Now()...)
	for {
		r, ok := d.Ready()
		sent = append(sent, d.Now()...)
		if !ok {
			return sent
		}
		st.Write(r.Persist)
		sent = append(sent, r.Messages...)
		d.Advance(r)
	}
}

// A vote leaves with the Ready that makes it durable, and after a crash it is
// remembered: no second one in that term.
func TestAVoteIsDurableBeforeItLeaves(t *testing.T) {
	st := stored()
	d := reopen(t, st)
	drain(d, &st)
	ask := func(d *Driver, from uint64) {
		step(d, &pb.Message{Type: pb.MsgVote.Enum(), From: new(from), Term: new(uint64(6)), Index: new(uint64(20)), LogTerm: new(uint64(5))})
	}
	ask(d, 2)
	if find(d.Now(), pb.MsgVoteResp) != nil {
		t.Fatal("the vote left at once")
	}
	r, ok := d.Ready()
	if !ok || find(d.Now(), pb.MsgVoteResp) != nil {
		t.Fatal("the vote left with the Ready, before it was durable")
	}
	vote := find(r.Messages, pb.MsgVoteResp)
	if vote == nil || vote.GetReject() || vote.GetTerm() != 6 {
		t.Fatalf("no vote: %v", vote)
	}
	hs, err := decodeHardState(r.Persist.HardState)
	if err != nil || r.Persist.Empty || hs.GetTerm() != 6 || hs.GetVote() != 2 {
		t.Fatalf("the vote isn't persisted with it: %+v, %v, %v", r.Persist, hs, err)
	}
	if !d.Status().Unsaved {
		t.Error("a term that is not on disk yet counts as saved")
	}
	st.Write(r.Persist)
	again := reopen(t, st) // crashed before Advance
	if d.Advance(r); d.Status().Unsaved || again.Status().Unsaved {
		t.Error("a term that is on disk counts as unsaved")
	}
	ask(again, 3)
	vote = find(drain(again, &st), pb.MsgVoteResp)
	if vote == nil || !vote.GetReject() {
		t.Fatalf("a second vote in one term: %v", vote)
	}
	ask(again, 2)
	if vote = find(drain(again, &st), pb.MsgVoteResp); vote == nil || vote.GetReject() {
		t.Fatalf("the same vote asked for again: %v", vote)
	}
}

// An append is acknowledged once it is durable; a heartbeat is answered at
// once, also while a write is under way, unless it is of an older term.
func TestAnswers(t *testing.T) {
	st := stored()
	d := reopen(t, st)
	drain(d, &st)
	app := &pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(6)), Index: new(uint64(13)), LogTerm: new(uint64(5)), Commit: new(uint64(13)),
		Entries: []*pb.Entry{{Index: new(uint64(14)), Term: new(uint64(6)), Type: pb.EntryNormal.Enum(), Data: []byte("x")}}}
	step(d, app)
	if find(d.Now(), pb.MsgAppResp) != nil {
		t.Error("an append was acknowledged before it was durable")
	}
	r, ok := d.Ready()
	if !ok || len(r.Persist.Entries) != 1 || r.Persist.HardState == nil || find(r.Messages, pb.MsgAppResp) == nil {
		t.Fatalf("%+v", r)
	}
	d.Now()
	beat := func(term, commit uint64) bool {
		step(d, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(2)), Term: new(term), Commit: new(commit)})
		return find(d.Now(), pb.MsgHeartbeatResp) != nil
	}
	if !beat(6, 13) {
		t.Error("a heartbeat waits for the disk")
	}
	if beat(5, 13) {
		t.Error("an old leader's heartbeat was answered")
	}
	if beat(6, 999) {
		t.Error("a commit index past the log was taken")
	}
	d.Advance(r)
	if st := d.Status(); st.Term != 6 || st.Leader != 2 || st.Commit != 13 {
		t.Errorf("%+v", st)
	}
}

// A snapshot older than the last change of membership serves nobody.
func TestNoSnapshotOfOldMembership(t *testing.T) {
	st := stored()
	d := reopen(t, st)
	drain(d, &st)
	if _, err := d.log.Snapshot(); err == nil || !d.Status().SnapshotWanted {
		t.Fatalf("a snapshot from nowhere: %v", err)
	}
	state, _ := confdb.Encode(confdb.NewState())
	if _, err := d.Compact(d.applied, state); err != nil {
		t.Fatal(err)
	}
	if s, err := d.log.Snapshot(); err != nil || s.GetMetadata().GetIndex() != d.applied {
		t.Fatalf("the snapshot that was wanted: %v, %v", s, err)
	}
	d.log.confIndex = d.applied + 1
	if _, err := d.log.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable || !d.Status().SnapshotWanted {
		t.Errorf("one without the newest member: %v", err)
	}
	if _, err := d.Compact(d.applied+5, state); err == nil {
		t.Error("compacted what isn't applied")
	}
}

func TestRanks(t *testing.T) {
	d := reopen(t, stored())
	d.status.Voters = []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9}
	for name, c := range map[string]struct {
		id, leader uint64
		witnesses  []uint64
		want       time.Duration
	}{
		"first":                     {1, 9, nil, 1},
		"second":                    {2, 9, nil, 2},
		"the leader doesn't count":  {2, 1, nil, 1},
		"capped":                    {8, 9, nil, maxRank},
		"a witness goes last":       {1, 9, []uint64{1, 2}, maxRank},
		"members before witnesses":  {3, 9, []uint64{1, 2}, 1},
		"not all know their leader": {2, 0, nil, 2},
	} {
		d.id, d.lastLeader, d.set.Witnesses = c.id, c.leader, c.witnesses
		if got := d.rank(); got != c.want*d.set.RankDelay {
			t.Errorf("%s: %v, want rank %d", name, got, c.want)
		}
	}
}

// Whatever comes in, whether in the middle of an election, as a follower or as
// the leader: it is dropped, or harmless. Raft panics on much of it.
func FuzzStep(f *testing.F) {
	u := func(v uint64) *uint64 { return &v }
	for _, m := range []*pb.Message{
		{Type: pb.MsgHeartbeat.Enum(), Commit: u(13)},
		{Type: pb.MsgHeartbeat.Enum(), Commit: u(1 << 60)},
		{Type: pb.MsgApp.Enum(), Index: u(13), LogTerm: u(5), Commit: u(14), Entries: []*pb.Entry{{Index: u(14), Term: u(6)}}},
		{Type: pb.MsgApp.Enum(), Index: u(1), LogTerm: u(1), Commit: u(1 << 40)},
		{Type: pb.MsgApp.Enum(), Index: u(13), LogTerm: u(5), Entries: []*pb.Entry{{Index: u(14), Term: u(6), Type: pb.EntryConfChange.Enum(), Data: []byte{0xff}}}},
		{Type: pb.MsgAppResp.Enum(), Index: u(13)}, {Type: pb.MsgAppResp.Enum(), Index: u(1 << 50)},
		{Type: pb.MsgAppResp.Enum(), Index: u(13), Reject: proto.Bool(true), RejectHint: u(1 << 50), LogTerm: u(3)},
		{Type: pb.MsgSnap.Enum()}, {Type: pb.MsgSnap.Enum(), Snapshot: &pb.Snapshot{Data: []byte("{}"), Metadata: &pb.SnapshotMetadata{Index: u(50), Term: u(6), ConfState: &pb.ConfState{Voters: []uint64{1, 2}}}}},
		{Type: pb.MsgSnap.Enum(), Snapshot: &pb.Snapshot{Data: []byte("{}"), Metadata: &pb.SnapshotMetadata{Index: u(50), Term: u(6), ConfState: &pb.ConfState{Voters: []uint64{1, 1}, Learners: []uint64{1}}}}},
		{Type: pb.MsgVote.Enum(), Index: u(13), LogTerm: u(5)}, {Type: pb.MsgVoteResp.Enum()}, {Type: pb.MsgPreVote.Enum(), Index: u(13), LogTerm: u(5)}, {Type: pb.MsgPreVoteResp.Enum()},
		{Type: pb.MsgTimeoutNow.Enum()}, {Type: pb.MsgProp.Enum()}, {Type: pb.MsgProp.Enum(), Entries: []*pb.Entry{{Data: []byte("x")}}},
		{Type: pb.MsgHup.Enum()}, {Type: pb.MsgStorageAppendResp.Enum(), Index: u(99)}, {Type: pb.MsgTransferLeader.Enum()}, {Type: pb.MsgReadIndex.Enum()},
	} {
		m.From, m.To = u(2), u(1)
		for _, term := range []uint64{0, 5, 6} {
			m.Term = u(term)
			f.Add(encoded(m), encoded(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: u(2), To: u(1), Term: u(6), Commit: u(13)}))
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, as := range []raft.StateType{raft.StateFollower, raft.StateCandidate, raft.StateLeader} {
			st := stored()
			d := reopen(t, st)
			drain(d, &st)
			if as != raft.StateFollower {
				_ = d.rn.Campaign()
				d.watch()
				drain(d, &st)
				step(d, &pb.Message{Type: pb.MsgPreVoteResp.Enum(), From: u(3), Term: u(6)})
				drain(d, &st)
			}
			if as == raft.StateLeader {
				step(d, &pb.Message{Type: pb.MsgVoteResp.Enum(), From: u(3), Term: u(6)})
				drain(d, &st)
			}
			if d.seen.state != as {
				t.Fatalf("%v, not %v", d.seen.state, as)
			}
			for _, data := range [][]byte{first, second} {
				for _, from := range []uint64{2, 3} {
					d.Step(d.now.Add(time.Millisecond), confdb.Message{From: from, To: 1, Data: slices.Clone(data)})
					drain(d, &st)
					d.Beat(d.now.Add(50 * time.Millisecond))
					d.Tick(d.now.Add(time.Millisecond))
					drain(d, &st)
				}
			}
			reopen(t, st) // what it persisted can be read
		}
	})
}
