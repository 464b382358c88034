package raftdb

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

const (
	maxRank      = 5
	stuckAfter   = time.Second     // a leader that commits nothing for so long hands over
	snapshotLost = 3 * time.Second // a snapshot without an answer is sent again
	homeRetry    = 2 * time.Second // before each of a witness's tries to hand over
)

// stuck watches that a leader gets on.
type stuck struct {
	since  spec.Instant
	commit uint64
	ready  *raft.Ready
}

// Step takes a message. What isn't well-formed, not for this server, or can't
// be true of the log that is here is dropped: Raft would panic on it.
func (d *Driver) Step(now spec.Instant, in confdb.Message) {
	d.now = max(d.now, now)
	if d.callStep(in) {
		return
	}
	m, ok := d.accept(in)
	if !ok {
		return
	}
	d.heard[m.GetFrom()] = d.now
	if m.GetTerm() == d.seen.term {
		d.answered[m.GetFrom()] = d.ticks
	}
	d.promised(m)
	if m.GetType() == pb.MsgTimeoutNow && m.GetTerm() == d.seen.term && d.applied < d.seen.commit {
		// Raft drops it while a change of membership waits to be applied.
		d.called, d.calledAt = &pb.Message{Type: pb.MsgTimeoutNow.Enum(), To: new(d.id), From: new(m.GetFrom()), Term: new(m.GetTerm())}, d.now
		return
	}
	if !d.knows(m) {
		_ = d.rn.Step(m) // from a server that is no member (any more), or a proposal in vain: nothing is promised
		d.watch()
	}
	if d.seen.lead == m.GetFrom() && m.GetTerm() == d.seen.term {
		switch m.GetType() {
		case pb.MsgApp, pb.MsgSnap, pb.MsgHeartbeat:
			d.lastHeard = d.now
			d.suspectAt = d.now.Add(d.set.Suspicion)
		}
		if m.GetType() == pb.MsgHeartbeat {
			d.sendBeat(beatAnswers, m.GetFrom(), 0)
		}
	}
}

// knows tells whether a message is a heartbeat of the leader that this server
// follows, with nothing new in it: Raft would only make an answer, which is
// made here.
func (d *Driver) knows(m *pb.Message) bool {
	return m.GetType() == pb.MsgHeartbeat && d.seen.state == raft.StateFollower &&
		m.GetTerm() == d.seen.term && m.GetFrom() == d.seen.lead && m.GetCommit() <= d.seen.commit
}

// Tick suspects a silent leader, and campaigns.
func (d *Driver) Tick(now spec.Instant) {
	d.now = max(d.now, now)
	if d.older {
		return
	}
	if d.call != nil {
		d.callTick()
		return
	}
	if d.suspectAt != 0 && d.now >= d.suspectAt {
		// From here on this server grants votes: Raft refuses them, without a
		// word, while it knows a leader.
		_ = d.rn.ForgetLeader()
		d.suspectAt = 0
		if d.isVoter(d.id) {
			d.campaignAt = d.now.Add(d.rank())
		}
	}
	if d.campaignAt != 0 && d.now >= d.campaignAt {
		d.campaignAt = d.now.Add(d.again())
		if !d.belowFloor(d.end()) {
			_ = d.rn.Campaign()
		}
	}
	d.watch()
}

// Deadline is when Tick is due.
func (d *Driver) Deadline() spec.Instant {
	if d.older {
		return 0
	}
	if d.call != nil {
		return d.call.next
	}
	if d.suspectAt == 0 || d.campaignAt != 0 && d.campaignAt < d.suspectAt {
		return d.campaignAt
	}
	return d.suspectAt
}

// rank is how long this server lets others go first: the voters less the
// silent leader in id order, witnesses last, no more than maxRank. Even the
// first waits once, so that the others have missed the leader too.
func (d *Driver) rank() time.Duration {
	rank := 1
	mine := d.isWitness(d.id)
	for _, id := range d.status.Voters {
		if id == d.id || id == d.lastLeader {
			continue
		}
		if w := d.isWitness(id); w == mine && id < d.id || mine && !w {
			rank++
		}
	}
	return time.Duration(min(rank, maxRank)) * d.set.RankDelay
}

// patience is how long to wait for others where no leader is known: five rounds,
// however long a silent leader is trusted.
func (d *Driver) patience() time.Duration { return min(d.set.Suspicion, 5*d.set.Round) }

// again is the wait before the next campaign, should this one win nothing.
func (d *Driver) again() time.Duration {
	return d.patience()/2 + d.jitter(4*d.set.RankDelay)
}

// jitter is from 0 to below.
func (d *Driver) jitter(below time.Duration) time.Duration {
	return time.Duration(d.random() % uint64(below))
}

// random is from the server's own seed (splitmix64).
func (d *Driver) random() uint64 {
	d.rng += 0x9e3779b97f4a7c15
	z := d.rng
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// yield lets the server that just got this one's (pre-)vote win first.
func (d *Driver) yield(vote bool) {
	wait := 2 * d.set.RankDelay
	if vote {
		wait = d.again()
	}
	if d.campaignAt != 0 && d.seen.vote != d.id {
		d.campaignAt = max(d.campaignAt, d.now.Add(wait))
	}
}

func (d *Driver) isWitness(id uint64) bool { return slices.Contains(d.set.Witnesses, id) }

// watch looks at what the last call did to Raft's state, and plans what this
// server does about it.
func (d *Driver) watch() {
	b := d.rn.BasicStatus()
	was := d.seen
	d.seen = seen{term: b.GetTerm(), vote: b.GetVote(), lead: b.Lead, commit: b.GetCommit(), state: b.RaftState}
	leads := d.seen.state == raft.StateLeader
	if leads != (was.state == raft.StateLeader) || d.seen.term != was.term {
		d.confPending, d.losing, d.muted = false, 0, false
		d.stuck = stuck{since: d.now, commit: d.seen.commit}
		d.tickAt, d.ticks = d.now, 0
		clear(d.snapSent)
		clear(d.answered)
	}
	switch {
	case leads:
		d.suspectAt, d.campaignAt, d.lastLeader = 0, 0, d.id
		if was.state != raft.StateLeader {
			// A witness that was elected first decides what waits: for a new term all
			// takeovers would wait anew.
			d.triedHome = d.now
		}
		return
	case d.seen.lead != 0:
		if d.seen.lead != was.lead || d.suspectAt == 0 {
			d.lastHeard, d.lastLeader = d.now, d.seen.lead
			d.suspectAt = d.now.Add(d.set.Suspicion)
		}
		d.campaignAt = 0
		return
	}
	d.suspectAt = 0
	switch {
	case !d.isVoter(d.id):
		d.campaignAt = 0
	case len(d.status.Voters) == 1:
		// Nobody to wait for; but what is committed has to be applied first.
		if d.seen.state == raft.StateFollower && d.applied == d.seen.commit && !d.belowFloor(d.end()) {
			d.campaignAt = d.now
		} else if d.campaignAt == 0 {
			d.campaignAt = d.now.Add(d.again())
		}
	case was.state == raft.StateLeader:
		// It was deposed, or saw no majority: others go first.
		d.campaignAt = d.now.Add(d.patience() + d.rank())
	case d.seen.state == raft.StateCandidate && d.seen.term != was.term:
		d.campaignAt = d.now.Add(d.again())
	case d.seen.term != was.term && d.seen.vote != 0:
		d.campaignAt = d.now.Add(d.again() + d.rank()) // someone has this server's vote
	case d.seen.term != was.term:
		d.campaignAt = d.now.Add(d.rank() + d.jitter(d.set.RankDelay))
	case d.campaignAt == 0:
		d.campaignAt = d.now.Add(d.patience() + d.rank())
	}
}

// Beat is a leader's tick: heartbeats, and its chores.
func (d *Driver) Beat(now spec.Instant) {
	d.now = max(d.now, now)
	if d.seen.state != raft.StateLeader {
		return
	}
	d.tick()
	if d.seen.state != raft.StateLeader {
		return
	}
	d.getOn()
	if !d.muted {
		d.beats()
	}
	for _, id := range d.unanswered() {
		d.rn.ReportSnapshot(id, raft.SnapshotFailure)
		delete(d.snapSent, id)
	}
	if d.isWitness(d.id) && d.now.Sub(d.triedHome) >= homeRetry {
		if to := d.heir(false); to != 0 {
			d.triedHome = d.now
			d.rn.TransferLeader(to)
		}
	}
	d.watch()
}

// beats asks each member for an answer, and tells it what is committed: never more
// than it is known to have, for it would panic.
func (d *Driver) beats() {
	if d.level.term == d.seen.term && d.level.commit == d.seen.commit { // as nearly always
		for _, members := range [...][]uint64{d.status.Voters, d.status.Learners} {
			for _, id := range members {
				if id != d.id {
					d.sendBeat(beatAsks, id, d.seen.commit)
				}
			}
		}
		return
	}
	d.level.term, d.level.commit = d.seen.term, d.seen.commit
	d.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) {
		if id == d.id {
			return
		}
		if pr.Match < d.seen.commit {
			d.level.term = 0
		}
		d.sendBeat(beatAsks, id, min(pr.Match, d.seen.commit))
	})
}

// tick has Raft check that a majority answered within a suspicion, which it
// counts in electionTick steps, however often the leader beats.
func (d *Driver) tick() {
	step := d.set.Suspicion / electionTick
	if d.now < d.tickAt.Add(-step/10) { // a beat may come a little early
		return
	}
	if d.tickAt = d.tickAt.Add(step); d.tickAt <= d.now {
		d.tickAt = d.now.Add(step)
	}
	d.rn.Tick()
	d.ticks++
	if !d.heardByMajority() {
		// Raft looks only once in electionTick of them, and takes one answer since
		// its last look for enough: up to twice the time, for which followers go on
		// answering, and every takeover after it waits longer (runtime/core).
		for i := 0; i < 2*electionTick && d.rn.BasicStatus().RaftState == raft.StateLeader; i++ {
			d.rn.Tick()
		}
	}
	d.watch()
}

// heardByMajority tells whether a majority, this server with it, has answered in
// this term within the last electionTick whole ticks. Counted in ticks, a pause
// of this process is no silence of the others.
func (d *Driver) heardByMajority() bool {
	n := 0
	for _, id := range d.status.Voters {
		if id == d.id || d.answered[id]+electionTick >= d.ticks {
			n++
		}
	}
	return n >= len(d.status.Voters)/2+1
}

// unanswered are the servers that got a snapshot long ago, in id order. Those
// that answered are forgotten here.
func (d *Driver) unanswered() []uint64 {
	if len(d.snapSent) == 0 {
		return nil
	}
	var late []uint64
	d.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr progress) {
		at, sent := d.snapSent[id]
		switch {
		case !sent:
		case pr.PendingSnapshot == 0:
			delete(d.snapSent, id)
		case d.now.Sub(at) >= snapshotLost:
			late = append(late, id)
		}
	})
	return late
}

// getOn hands over when nothing was committed for long although something
// waits: proposals, or a disk that doesn't answer. If there is no heir, or it
// didn't take over, the leader falls silent, and the others elect.
func (d *Driver) getOn() {
	waits := d.ready != nil || d.lastIndex > d.seen.commit
	if !waits || d.stuck.commit != d.seen.commit || d.stuck.ready != d.ready || len(d.status.Voters) < 2 {
		d.stuck = stuck{since: d.now, commit: d.seen.commit, ready: d.ready}
		return
	}
	long := d.now.Sub(d.stuck.since)
	if long < stuckAfter {
		return
	}
	if long >= stuckAfter+2*d.patience() {
		d.muted = true
		return
	}
	if d.ready == nil {
		if to := d.heir(true); to != 0 {
			d.rn.TransferLeader(to)
		}
	}
}
