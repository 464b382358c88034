package raftdb

import (
	"encoding/binary"
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// A server that starts from a log can't tell whether its directory is as it
// left it, or was put back to an older state: then it has forgotten votes, terms
// and entries that others count on. So it takes no part at first. It asks the
// other voters what they know (roll call), and from their answers
//   - ends, if one has had a newer promise of it than its disk holds (Status.Older);
//   - takes over the newest term that any of them has, and votes in no term up to it;
//   - grants no vote to, and is no candidate with, a log that lacks what any of
//     them has applied; for a while also one that is older than the newest of
//     theirs. Both until its own has caught up with that.
//
// DESIGN.md says why that is enough, and what it can't do.
const (
	graceRounds  = 10 // for all to answer; then those who have must do
	loneRounds   = 40 // for a lone voter to be spoken to, should it not be alone any more
	floorRounds  = 40 // for a leader to bring up a log that is older than another's
	slowRounds   = 5  // between two questions once the grace is over
	silentRounds = 40 // after which nobody is waited for any more because of what one said who answered once
	maxVoters    = 255
)

// position is how far a log or a promise goes: positions of one log compare by
// term, then index.
type position struct{ term, index uint64 }

func (p position) before(q position) bool {
	return p.term < q.term || p.term == q.term && p.index < q.index
}

// answer is one server's to a roll call.
type answer struct {
	nonce   uint64
	term    uint64
	lead    uint64   // whom it follows in term, 0: nobody; a leader itself, once it leads for sure (leadsSince)
	log     position // the end of its log on disk
	promise position // the newest that the asker has told it: a term, and up to where its log agreed in that
	applied position // up to where it is committed for sure, and voters are as of there
	voters  []uint64
	at      spec.Instant // when it came
}

// rollCall is one under way.
type rollCall struct {
	nonce   uint64
	since   spec.Instant
	next    spec.Instant
	asked   map[uint64]spec.Instant
	answers map[uint64]answer
	spoke   []uint64 // who made itself heard, sorted
	voters  []uint64 // of the newest change of membership in the own log, committed or not; sorted
	end     position // of it
	needed  bool     // by all memberships in it nothing could be committed without this server
	max     position // what the own disk knows to have promised
}

// floor is what the roll call has left to heed.
type floor struct {
	noVote uint64   // no vote in a term up to this
	log    position // no vote for a log that ends before, until then; zero: any
	until  spec.Instant
	sure   position // nor ever for one that ends before this: it lacks what is committed
}

// callRoll begins one, if there is a past to ask about.
func (d *Driver) callRoll() {
	if d.lastIndex == 0 && d.seen.term == 0 {
		return
	}
	d.call = &rollCall{
		nonce: d.random(), since: d.now, next: d.now, end: d.end(),
		asked: map[uint64]spec.Instant{}, answers: map[uint64]answer{},
		max: position{d.seen.term, d.lastIndex},
	}
	d.call.voters, d.call.needed = d.votersInLog()
}

// votersInLog are the voters by the newest change in the log; needed tells
// whether this server was one of two at most, always.
func (d *Driver) votersInLog() (voters []uint64, needed bool) {
	voters = slices.Clone(d.log.conf.GetVoters())
	needed = true
	look := func() {
		needed = needed && (len(voters) == 0 || len(voters) <= 2 && slices.Contains(voters, d.id))
	}
	look()
	first, _ := d.log.FirstIndex()
	if d.lastIndex >= first {
		entries, _ := d.log.Entries(first, d.lastIndex+1, math.MaxUint64)
		for _, e := range entries {
			if e.GetType() != pb.EntryConfChange || e.GetIndex() <= d.log.snapIndex {
				continue
			}
			if cc, ok := decodeChange(e.GetData()); ok {
				voters = slices.DeleteFunc(voters, func(v uint64) bool { return v == cc.GetNodeId() })
				if cc.GetType() == pb.ConfChangeAddNode {
					voters = append(voters, cc.GetNodeId())
				}
				look()
			}
		}
	}
	slices.Sort(voters)
	return voters, needed && len(voters) > 0
}

// end is where the log on disk ends.
func (d *Driver) end() position {
	last, _ := d.log.LastIndex()
	term, _ := d.log.Term(last)
	return position{term, last}
}

// promised remembers what a server must have on its disk: its term, which it
// writes before it says anything in it but an answer to a heartbeat, and the
// entries that it acknowledged.
func (d *Driver) promised(m *pb.Message) {
	var p position
	switch m.GetType() {
	case pb.MsgVote, pb.MsgVoteResp, pb.MsgApp, pb.MsgSnap, pb.MsgHeartbeat:
		p.term = m.GetTerm()
	case pb.MsgAppResp:
		if p.term = m.GetTerm(); !m.GetReject() {
			p.index = m.GetIndex()
		}
	default:
		return
	}
	if d.promises[m.GetFrom()].before(p) {
		d.promises[m.GetFrom()] = p
	}
}

// callTick asks those who have not answered. The roll call is over with it, maybe.
func (d *Driver) callTick() {
	c := d.call
	if d.endCall(); d.call == nil || d.now < c.next {
		return
	}
	grace := d.now < d.graceEnd()
	for _, id := range c.electorate() {
		if _, ok := c.answers[id]; !ok || !grace {
			d.ask(id)
		}
	}
	if c.next = d.now.Add(d.set.Round); !grace {
		c.next = d.now.Add(slowRounds * d.set.Round)
	}
}

// graceEnd is until when all others have to answer.
func (d *Driver) graceEnd() spec.Instant {
	if v := d.call.newest(); len(v) == 1 && v[0] == d.id {
		return d.call.since.Add(loneRounds * d.set.Round)
	}
	return d.call.since.Add(graceRounds * d.set.Round)
}

func (d *Driver) ask(id uint64) {
	if id == d.id {
		return
	}
	d.call.asked[id] = d.now
	data := binary.AppendUvarint([]byte{beatMark, callAsks}, d.call.nonce)
	d.urgent = append(d.urgent, confdb.Message{To: id, From: d.id, InFrame: true, Data: data})
}

// electorate is whom to ask: the voters by the newest membership known, those
// of the own log, and who spoke.
func (c *rollCall) electorate() []uint64 {
	ids := slices.Concat(c.newest(), c.voters, c.spoke)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// newest is the newest membership known. What was committed in a newer term than
// the own log's last counts for more than whatever that ends with: a change in
// there that the others don't have by then never comes to be.
func (c *rollCall) newest() []uint64 {
	voters, at := c.voters, c.end
	for _, a := range c.answers {
		if at.before(a.applied) {
			voters, at = a.voters, a.applied
		}
	}
	return voters
}

// callStep takes a message of a roll call, another's or the own one; and while
// there is one here, all messages. It tells whether it did.
func (d *Driver) callStep(in confdb.Message) bool {
	if d.older || in.From == 0 || in.From == d.id || in.To != d.id {
		return false // accept drops it
	}
	kind := byte(0)
	if len(in.Data) > 1 && in.Data[0] == beatMark {
		kind = in.Data[1]
	}
	if kind == callAsks {
		if nonce, n := binary.Uvarint(in.Data[2:]); n > 0 && n == len(in.Data)-2 {
			d.urgent = append(d.urgent, d.answerTo(in.From, nonce))
		}
		// It takes no part yet, whatever its log held when it was last heard: it is not
		// caught up, and a vote that it had now would count against those of the others.
		delete(d.heard, in.From)
	}
	c := d.call
	if c == nil {
		return kind == callAsks || kind == callTells
	}
	if i, ok := slices.BinarySearch(c.spoke, in.From); !ok {
		c.spoke = slices.Insert(c.spoke, i, in.From)
	}
	if kind == callTells {
		if a, ok := decodeAnswer(in.Data[2:]); ok && a.nonce == c.nonce {
			a.at = d.now
			c.answers[in.From] = a
			if d.older = c.needed && a.applied.index > c.end.index || c.max.before(a.promise); !d.older {
				d.endCall()
			}
			return true
		}
	}
	if _, ok := c.answers[in.From]; !ok && d.now >= c.asked[in.From].Add(d.set.Round) {
		d.ask(in.From)
	}
	// A leader's heartbeat may show by itself that this log is too old.
	return kind != beatAsks
}

// endCall ends the roll call if who has answered is enough: all other voters, or
// after a while so many that a majority needs one more at most, with the leader that
// they follow. A lone voter waits whether somebody knows better.
func (d *Driver) endCall() {
	c := d.call
	voters := c.newest()
	heard, votes := 0, slices.Contains(voters, d.id)
	var top answer
	for id, a := range c.answers {
		if slices.Contains(voters, id) {
			heard++
		}
		if d.now >= max(a.at, d.graceEnd()).Add(silentRounds*d.set.Round) {
			a.lead = 0 // it is asked again and again, and says no more
		}
		if a.term > top.term || a.term == top.term && a.lead > top.lead {
			top.term, top.lead = a.term, a.lead
		}
		if top.log.before(a.log) {
			top.log = a.log
		}
		if top.applied.before(a.applied) {
			top.applied = a.applied
		}
	}
	others := len(voters)
	if votes {
		others--
	}
	if heard < others || others == 0 {
		q := len(voters)/2 + 1
		need := q - 1
		if !votes {
			need = len(voters) - q + 1 // as many as no majority can do without
		}
		leader, answers := c.answers[top.lead]
		silent := top.lead != 0 && top.lead != d.id && !answers
		// It has a majority without this server, since this one has asked.
		leads := answers && leader.lead == top.lead && leader.term == top.term && leader.at >= d.graceEnd()
		if len(voters) == 0 || d.now < d.graceEnd() || !leads && (heard < need || silent) {
			return
		}
	}
	d.call = nil
	d.floor = floor{noVote: max(top.term, d.seen.term), until: d.now.Add(floorRounds * d.set.Round)}
	if d.seen.vote != 0 && top.term <= d.seen.term {
		d.floor.noVote = d.seen.term - 1 // the one vote of that term is on the disk
	}
	d.floor.log, d.floor.sure = top.log, top.applied
	d.belowFloor(d.end())
	if top.term > d.seen.term {
		// A follower without a leader has nothing to do about this one, and takes its term.
		_ = d.rn.Step(&pb.Message{Type: pb.MsgReadIndex.Enum(), From: new(d.id), To: new(d.id), Term: new(top.term)})
	}
	d.watch()
	if d.campaignAt != 0 && others > 0 {
		d.campaignAt = max(d.campaignAt, d.now.Add(d.rank()))
	}
}

// belowFloor tells whether a log ends before one that the roll call showed, and
// that this server's own has not reached since.
func (d *Driver) belowFloor(log position) bool {
	f := &d.floor
	if f.log == (position{}) && f.sure == (position{}) {
		return false
	}
	end := d.end()
	if d.now >= f.until || !end.before(f.log) {
		f.log = position{}
	}
	if !end.before(f.sure) {
		f.sure = position{}
	}
	return log.before(f.log) || log.before(f.sure)
}

// mayVote tells whether a (pre-)vote may be granted as far as this server's own
// past goes; Raft's own conditions come on top. A blank directory has no vote.
func (d *Driver) mayVote(m *pb.Message) bool {
	if d.lastIndex == 0 || m.GetType() == pb.MsgVote && m.GetTerm() <= d.floor.noVote {
		return false
	}
	return !d.belowFloor(position{m.GetLogTerm(), m.GetIndex()})
}

// caller is a server in a roll call, as its leader sees it: when it asked first.
type caller struct{ nonce, term, ticks uint64 }

// leadsSince tells whether this leader has been answered by a majority without
// that server since that asked first, in its life. Counted in own ticks: how long a
// leader may go on without a majority is its settings' matter, which who asks may
// not know, and may be longer than any grace.
func (d *Driver) leadsSince(id, nonce uint64) bool {
	c, ok := d.callers[id]
	if !ok || c.nonce != nonce || c.term != d.seen.term {
		d.callers[id] = caller{nonce, d.seen.term, d.ticks}
		return false
	}
	n := 0
	for _, v := range d.status.Voters {
		if v == d.id || v != id && d.answered[v] > c.ticks {
			n++
		}
	}
	return n >= len(d.status.Voters)/2+1
}

func (d *Driver) answerTo(id, nonce uint64) confdb.Message {
	log, p, lead := d.end(), d.promises[id], d.seen.lead
	if d.seen.state == raft.StateLeader && !d.leadsSince(id, nonce) {
		lead = 0
	}
	data := append(make([]byte, 0, 128), beatMark, callTells)
	voters := d.status.Voters[:min(len(d.status.Voters), maxVoters)]
	for _, v := range [...]uint64{nonce, d.seen.term, lead, log.term, log.index, p.term, p.index, d.appliedTerm, d.applied, uint64(len(voters))} {
		data = binary.AppendUvarint(data, v)
	}
	for _, v := range voters {
		data = binary.AppendUvarint(data, v)
	}
	return confdb.Message{To: id, From: d.id, InFrame: true, Data: data}
}

func decodeAnswer(data []byte) (a answer, ok bool) {
	next := func() uint64 {
		v, n := binary.Uvarint(data)
		if ok = ok && n > 0; ok {
			data = data[n:]
		}
		return v
	}
	ok = true
	for _, v := range [...]*uint64{&a.nonce, &a.term, &a.lead, &a.log.term, &a.log.index, &a.promise.term, &a.promise.index, &a.applied.term, &a.applied.index} {
		*v = next()
	}
	n := next()
	if !ok || n > maxVoters {
		return a, false
	}
	for range n {
		a.voters = append(a.voters, next())
	}
	return a, ok && len(data) == 0 && !slices.Contains(a.voters, 0) && !raft.IsLocalMsgTarget(a.lead)
}
