package raftdb

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// calling is server 1 of stored, just started.
func calling(t *testing.T, st confdb.Stored) *Driver {
	t.Helper()
	d, _, _, err := New(Config{ServerID: 1, Seed: 1, Stored: st, Now: testNow})
	if err != nil {
		t.Fatal(err)
	}
	d.Tick(testNow)
	return d
}

func (d *Driver) tells(from uint64, a answer) {
	a.nonce = d.nonce()
	tell(d, from, a)
}

// votes tells whether a candidate with that log gets this server's vote.
func votes(d *Driver, term uint64, log position) bool {
	d.Now()
	var st confdb.Stored
	drain(d, &st)
	step(d, &pb.Message{Type: pb.MsgVote.Enum(), From: new(uint64(2)), Term: new(term), LogTerm: new(log.term), Index: new(log.index)})
	m := find(drain(d, &st), pb.MsgVoteResp)
	return m != nil && !m.GetReject() && m.GetTerm() == term
}

func asked(messages []confdb.Message) (ids []uint64) {
	for _, m := range messages {
		if len(m.Data) > 1 && m.Data[0] == beatMark && m.Data[1] == callAsks {
			ids = append(ids, m.To)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Until the roll call is over nothing is granted, acknowledged or answered, and
// no term told, whatever comes.
func TestStartingTakesNoPart(t *testing.T) {
	st := stored()
	d := calling(t, st)
	drain(d, &st)
	for range 3 {
		for _, m := range []*pb.Message{
			{Type: pb.MsgVote.Enum(), Term: new(uint64(9)), Index: new(uint64(99)), LogTerm: new(uint64(8))},
			{Type: pb.MsgPreVote.Enum(), Term: new(uint64(9)), Index: new(uint64(99)), LogTerm: new(uint64(8))},
			{Type: pb.MsgHeartbeat.Enum(), Term: new(uint64(9)), Commit: new(uint64(13))},
			{Type: pb.MsgApp.Enum(), Term: new(uint64(9)), Index: new(uint64(13)), LogTerm: new(uint64(5)), Commit: new(uint64(13))},
			{Type: pb.MsgTimeoutNow.Enum(), Term: new(uint64(5))},
		} {
			m.From = new(uint64(2))
			step(d, m)
		}
		d.Tick(d.now.Add(time.Second))
		for _, m := range drain(d, &st) {
			if len(m.Data) < 2 || m.Data[0] != beatMark || m.Data[1] != callAsks {
				t.Fatalf("it says %v", m)
			}
		}
		if s := d.Status(); !s.Starting || s.Term != 0 || s.Leader != 0 || s.Role != confdb.Follower || d.seen.term != 5 {
			t.Fatalf("%+v, term %d", s, d.seen.term)
		}
	}
	tell(d, 2, answer{nonce: d.nonce() + 1})
	tell(d, 3, answer{nonce: d.nonce() + 1})
	if !d.Status().Starting {
		t.Error("answers to another life end the roll call")
	}
	d.tells(2, answer{})
	if d.Status().Starting {
		t.Error("long after its start one answer of two is not enough for three voters")
	}
	if s := d.Status(); s.Term != 5 || s.Older {
		t.Errorf("%+v", s)
	}
}

// Who is too old, and who isn't.
func TestOlderByAnAnswer(t *testing.T) {
	for _, c := range []struct {
		promise position
		older   bool
	}{{position{5, 13}, false}, {position{5, 14}, true}, {position{6, 0}, true}, {position{4, 99}, false}} {
		d := calling(t, stored())
		d.tells(2, answer{term: 9, promise: c.promise})
		if d.Status().Older != c.older {
			t.Errorf("%+v was promised: older is %v", c.promise, !c.older)
		}
		if c.older && (d.Deadline() != 0 || votes(d, 12, position{9, 99})) {
			t.Error("it is older, and takes part")
		}
	}
	// Of one or two voters each has acknowledged whatever is committed.
	for _, others := range []uint64{0, 1, 2} {
		d, _, _, err := New(Config{ServerID: 1, Seed: 1, Now: testNow})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Bootstrap(); err != nil {
			t.Fatal(err)
		}
		var st confdb.Stored
		drain(d, &st)
		for i := range others {
			last := st.Entries[len(st.Entries)-1].Index
			cc := &pb.ConfChange{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(2 + i)}
			st.Entries = append(st.Entries, encodeEntry(&pb.Entry{Index: new(last + 1), Term: new(uint64(1)), Type: pb.EntryConfChange.Enum(), Data: marshal(cc)}))
		}
		d = calling(t, st)
		if v := d.call.voters; len(v) != int(others)+1 {
			t.Fatalf("voters %v", v)
		}
		d.Step(d.now, confdb.Message{From: 3, To: 1, InFrame: true}) // a frame without a word of the database
		if !slices.Contains(asked(d.Now()), 3) {
			t.Error("who speaks isn't asked")
		}
		d.tells(3, answer{term: 3, applied: position{3, 50}, log: position{3, 50}, voters: []uint64{1, 2, 3}})
		if d.Status().Older != (others < 2) {
			t.Errorf("with %d other voters in its log, older is %v", others, d.Status().Older)
		}
	}
}

// What the others know binds: their term, what they have applied, and for a
// while the longest of their logs.
func TestHeedsTheAnswers(t *testing.T) {
	d := calling(t, stored())
	d.tells(2, answer{term: 9, log: position{8, 30}, applied: position{7, 20}, voters: []uint64{1, 2, 3}})
	d.tells(3, answer{term: 8, log: position{7, 40}})
	if s := d.Status(); s.Starting || s.Term != 9 || !s.Unsaved {
		t.Fatalf("%+v", s)
	}
	if votes(d, 9, position{8, 30}) {
		t.Error("a vote in a term in which it may have voted")
	}
	if votes(d, 10, position{7, 40}) {
		t.Error("a vote for a log that lacks what another has")
	}
	if !votes(d, 11, position{8, 30}) {
		t.Error("no vote for the newest log")
	}
	d.now = d.now.Add(floorRounds * d.set.Round)
	if votes(d, 12, position{7, 19}) {
		t.Error("a vote for a log that lacks what is committed")
	}
	if !votes(d, 13, position{7, 20}) {
		t.Error("who has the longest log is gone: no vote for who has all that is committed")
	}
	for range 20 {
		d.Tick(d.now.Add(time.Second))
		if d.seen.state != 0 {
			t.Fatal("it campaigns with a log that lacks what is committed")
		}
	}
}

// Who has answered is judged by the newest membership; the leader of the newest
// term has to, as long as anyone follows it.
func TestWhoHasToAnswer(t *testing.T) {
	d := calling(t, stored())
	if got := asked(d.Now()); !slices.Equal(got, []uint64{2, 3}) {
		t.Fatalf("asks %v", got)
	}
	d.tells(2, answer{term: 5, applied: position{5, 50}, voters: []uint64{1, 4, 6}})
	d.tells(3, answer{term: 5, applied: position{5, 50}, voters: []uint64{1, 4, 6}})
	if !d.Status().Starting {
		t.Fatal("those who vote no more have answered, and that is enough")
	}
	d.Tick(d.now.Add(d.set.Round))
	if got := asked(d.Now()); !slices.Equal(got, []uint64{4, 6}) {
		t.Errorf("asks %v", got)
	}
	d.Tick(d.now.Add(graceRounds * d.set.Round))
	d.tells(4, answer{term: 6, lead: 6})
	if !d.Status().Starting {
		t.Error("the leader has not answered")
	}
	d.tells(4, answer{term: 6})
	if d.Status().Starting {
		t.Error("the leader is gone, and it waits for it still")
	}
}

// Who was killed while it joined knows and hears the leader alone: that is
// enough, once it leads still after the grace.
func TestTheLeaderAnswersAlone(t *testing.T) {
	d := calling(t, stored())
	a := answer{term: 6, lead: 4, applied: position{5, 50}, voters: []uint64{2, 3, 4, 6, 7}}
	d.tells(4, a)
	if d.Tick(d.now.Add(graceRounds * d.set.Round)); !d.Status().Starting {
		t.Error("what the leader said before is enough")
	}
	if d.tells(4, a); d.Status().Starting {
		t.Error("it waits for those whom it can't reach")
	}
}

// A change of membership that was never committed stands at the end of a log, and
// the others' log is shorter, and newer: theirs says who votes.
func TestAChangeThatNeverWas(t *testing.T) {
	for _, c := range []struct {
		kind pb.ConfChangeType
		node uint64
	}{{pb.ConfChangeAddNode, 4}, {pb.ConfChangeRemoveNode, 3}} {
		st := stored()
		cc := &pb.ConfChange{Type: c.kind.Enum(), NodeId: new(c.node)}
		st.Entries = append(st.Entries, encodeEntry(&pb.Entry{Index: new(uint64(14)), Term: new(uint64(5)), Type: pb.EntryConfChange.Enum(), Data: marshal(cc)}))
		d := calling(t, st)
		d.tells(2, answer{term: 6, log: position{6, 13}, applied: position{6, 13}, voters: []uint64{1, 2, 3}})
		if !d.Status().Starting {
			t.Errorf("%v: server 3 votes, and was not asked", c.kind)
		}
		if d.Tick(d.now.Add(d.set.Round)); !slices.Contains(asked(d.Now()), 3) {
			t.Errorf("%v: server 3 is not asked", c.kind)
		}
		if d.Tick(d.now.Add(graceRounds * d.set.Round)); d.Status().Starting {
			t.Errorf("%v: one of two others has answered, and it waits for ever", c.kind)
		}
	}
}

// Two of five die, one after the other: the leader, and one that had answered and
// said whom it follows. The two others and this server are enough.
func TestWhoSaysWhoLeadsIsGoneToo(t *testing.T) {
	d := calling(t, stored())
	five := []uint64{1, 2, 3, 4, 6}
	d.tells(2, answer{term: 5, lead: 6, applied: position{5, 50}, voters: five})
	end := d.now.Add(5 * time.Second)
	for ; d.Status().Starting && d.now < end; d.Tick(d.now.Add(d.set.Round)) {
		for _, id := range asked(d.Now()) {
			if id == 3 || id == 4 {
				d.tells(id, answer{term: 5, applied: position{5, 50}, voters: five})
			}
		}
		if d.now < testNow.Add((graceRounds+silentRounds)*d.set.Round) && !d.Status().Starting {
			t.Fatalf("after %v it doesn't wait for the leader any more", d.now.Sub(testNow))
		}
	}
	if d.Status().Starting {
		t.Error("it waits for ever")
	}
}

// To one who asks, a leader names itself only once a majority without that one
// has answered it since: with long heartbeats it leads on for seconds after the last.
func TestALeaderIsSureOfItself(t *testing.T) {
	st := stored()
	d := reopen(t, st)
	d.Configure(confdb.Settings{Suspicion: 7 * time.Second, Round: 200 * time.Millisecond, RankDelay: 40 * time.Millisecond})
	drain(d, &st)
	_ = d.rn.Campaign()
	d.watch()
	for _, kind := range []pb.MessageType{pb.MsgPreVoteResp, pb.MsgVoteResp} {
		drain(d, &st)
		step(d, &pb.Message{Type: kind.Enum(), From: new(uint64(3)), Term: new(uint64(6))})
	}
	drain(d, &st)
	if d.seen.state != raft.StateLeader {
		t.Fatal("no leader")
	}
	lead := func(nonce uint64) uint64 {
		t.Helper()
		d.Step(d.now, confdb.Message{From: 2, To: 1, InFrame: true, Data: binary.AppendUvarint([]byte{beatMark, callAsks}, nonce)})
		for _, m := range d.Now() {
			if len(m.Data) > 1 && m.Data[0] == beatMark && m.Data[1] == callTells {
				if a, ok := decodeAnswer(m.Data[2:]); ok && a.nonce == nonce {
					return a.lead
				}
			}
		}
		t.Fatal("no answer")
		return 0
	}
	beats := func(from uint64) {
		for range 20 { // 4 s
			d.Beat(d.now.Add(d.set.Round))
			if from != 0 {
				step(d, &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(from), Term: new(uint64(6))})
			}
			drain(d, &st)
		}
	}
	beats(3)
	if step(d, &pb.Message{Type: pb.MsgAppResp.Enum(), From: new(uint64(2)), Term: new(uint64(6)), Index: new(d.lastIndex)}); !d.CaughtUp()[2] {
		t.Error("it has all of the log and answers, and has not caught up")
	}
	if lead(7); d.CaughtUp()[2] {
		t.Error("who asks takes no part, and counts as caught up: it would get a vote, or the lead")
	}
	for _, from := range []uint64{0, 2} { // nobody, or who asks
		if beats(from); d.seen.state != raft.StateLeader || lead(7) != 0 {
			t.Error("it names itself, and may be deposed")
		}
	}
	if beats(3); lead(7) != 1 {
		t.Error("it leads, and doesn't say so")
	}
	if lead(8) != 0 {
		t.Error("what it knew before another life's question is enough")
	}
}

// A lone voter waits a while whether it is alone, then leads by itself. A
// blank directory has nothing to ask about, and no vote.
func TestAloneAndBlank(t *testing.T) {
	d, _, _, _ := New(Config{ServerID: 1, Seed: 1, Now: testNow})
	if d.Status().Starting || votes(d, 3, position{2, 5}) {
		t.Error("a blank directory asks, or votes")
	}
	if d, _, _, _ = New(Config{ServerID: 1, Seed: 1, Now: testNow}); d.Bootstrap() != nil {
		t.Fatal("no cluster")
	}
	var st confdb.Stored
	drain(d, &st)
	d = calling(t, st)
	for d.Status().Starting {
		if d.now > testNow.Add(10*time.Second) {
			t.Fatal("it waits for ever")
		}
		d.Tick(d.Deadline())
	}
	if waited := d.now.Sub(testNow); waited < loneRounds*d.set.Round {
		t.Errorf("it waited %v only", waited)
	}
	for range 5 {
		drain(d, &st)
		d.Tick(max(d.Deadline(), d.now))
	}
	if d.Status().Role != confdb.Leader {
		t.Errorf("%+v", d.Status())
	}
}

func FuzzAnswer(f *testing.F) {
	d, _, _, _ := New(Config{ServerID: 1, Seed: 1, Stored: stored(), Now: testNow})
	f.Add(d.answerTo(2, 7).Data[2:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, ok := decodeAnswer(data); ok && (len(a.voters) > maxVoters || slices.Contains(a.voters, 0)) {
			t.Errorf("%+v", a)
		}
		d, _, _, _ := New(Config{ServerID: 1, Seed: 1, Stored: stored(), Now: testNow})
		d.Step(spec.Instant(time.Hour), confdb.Message{From: 2, To: 1, InFrame: true, Data: append([]byte{beatMark, callTells}, data...)})
	})
}
