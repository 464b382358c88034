package raftdb_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

func world(t *testing.T, cfg confdbtest.Config) *confdbtest.World {
	t.Helper()
	cfg.Make = open
	w := confdbtest.NewWorld(t, cfg)
	w.Form()
	return w
}

// settle waits until every server that is up has applied the same.
func settle(w *confdbtest.World, limit time.Duration) {
	w.T.Helper()
	w.Must("all servers are equal", limit, func() bool {
		l := w.Leader()
		if l == nil {
			return false
		}
		for _, s := range w.Servers {
			if s.Driver != nil && (s.Applied != l.Applied || s.Driver.Status().Role == confdb.Outside) {
				return false
			}
		}
		return true
	})
}

func propose(w *confdbtest.World, id string) {
	w.T.Helper()
	i := 0
	w.Must("command "+id+" is applied", 10*time.Second, func() bool {
		l := w.Leader()
		if l == nil {
			return false
		}
		if _, ok := l.Results[id]; ok {
			return true
		}
		if i++; i%200 == 1 {
			_ = l.Propose(confdbtest.Note(id, id))
		}
		return false
	})
}

// The leader's crash is over in the time that the timings promise: suspicion,
// the first rank's delay, votes, the term's first commit.
func TestElectionAfterACrash(t *testing.T) {
	var took []time.Duration
	for seed := range uint64(30) {
		w := world(t, confdbtest.Config{Seed: seed, Servers: 3 + 2*int(seed%2), Disk: 25 * time.Millisecond})
		w.Run(time.Duration(w.Rng.Int64N(int64(200 * time.Millisecond))))
		old := w.Leader()
		old.Crash()
		start := w.Now
		w.Must("a new leader", 5*time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
		took = append(took, w.Now.Sub(start))
		// What the first rank is: the lowest id that is left.
		for _, s := range w.Servers {
			if s != old {
				if l := w.Leader(); l != s {
					t.Logf("seed %d: server %d leads after %v, not the first rank", seed, l.ID, took[len(took)-1])
				}
				break
			}
		}
	}
	slices.Sort(took)
	t.Logf("median %v, worst %v", took[len(took)/2], took[len(took)-1])
	if worst := took[len(took)-1]; worst > 470*time.Millisecond {
		t.Errorf("a change of leader took %v; leases count on 470ms (an unsplit one)", worst)
	}
}

// Nobody campaigns while the leader is heard, however lossy the network is
// within reason, and a server that comes back doesn't depose it.
func TestALeaderThatIsHeardStays(t *testing.T) {
	for seed := range uint64(10) {
		w := world(t, confdbtest.Config{Seed: seed})
		l := w.Leader()
		term := l.Driver.Status().Term
		w.Loss = 0.02
		other := w.Servers[1]
		for range 4 {
			w.Isolate(other.ID, true)
			w.Run(2 * time.Second)
			w.Isolate(other.ID, false)
			w.Run(time.Second)
		}
		other.Crash()
		w.Run(time.Second)
		other.Start()
		w.Run(time.Second)
		if now := w.Leader(); now != l || l.Driver.Status().Term != term {
			t.Errorf("seed %d: the leader changed without need", seed)
		}
	}
}

// A leader that sees no majority steps down by itself, and the others have one.
func TestIsolatedLeaderStepsDown(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 1})
	old := w.Leader()
	w.Isolate(old.ID, true)
	w.Must("the isolated leader steps down", time.Second, func() bool { return old.Driver.Status().Role != confdb.Leader })
	w.Must("another leads", time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
	propose(w, "meanwhile")
	w.Isolate(old.ID, false)
	settle(w, 5*time.Second)
	if got := confdbtest.Notes(old.State); !slices.Equal(got, []string{"meanwhile"}) {
		t.Errorf("it came back with %v", got)
	}
}

// One way is cut: the leader speaks and hears nothing. It must not hold office:
// for a suspicion (5 ticks of 50 ms) and one tick more, wherever between two of
// Raft's own looks it became deaf.
func TestDeafLeader(t *testing.T) {
	for phase := range time.Duration(12) {
		w := world(t, confdbtest.Config{Seed: 2})
		w.Run(phase * 25 * time.Millisecond)
		old := w.Leader()
		for _, s := range w.Servers {
			w.Cut(s.ID, old.ID, true)
		}
		w.Must("the deaf leader steps down", 310*time.Millisecond, func() bool { return old.Driver.Status().Role != confdb.Leader })
		w.Must("another leads", time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
	}
}

// A server that was away for long, or is new, gets the state and not the log.
func TestCatchesUpBySnapshot(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 3, CompactEvery: 100})
	away := w.Servers[2]
	if w.Leader() == away {
		away.Do(func(d confdb.Driver) { _ = d.Transfer(1) })
		w.Must("another leads", 5*time.Second, func() bool { return w.Leader() == w.Servers[0] })
	}
	away.Crash()
	for i := range 300 {
		propose(w, fmt.Sprint("n", i))
	}
	away.Start()
	if away.Applied > 250 {
		t.Fatal("it was not away")
	}
	settle(w, 10*time.Second)
	if n := len(confdbtest.Notes(away.State)); n != 300 {
		t.Errorf("it has %d of 300 events", n)
	}
	// The message with the snapshot is lost: it is sent again.
	away.Crash()
	for i := range 300 {
		propose(w, fmt.Sprint("m", i))
	}
	lost := 0
	w.Drop = func(m confdb.Message) bool {
		snapshot := !m.InFrame && m.To == away.ID && len(m.Data) > 20_000
		if snapshot && lost < 2 {
			lost++
			return true
		}
		return false
	}
	away.Start()
	settle(w, 20*time.Second)
	if lost != 2 {
		t.Errorf("%d snapshots were lost: the test meant two", lost)
	}
}

func TestMembership(t *testing.T) {
	w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: 4, Servers: 4})
	four := w.Servers[3]
	w.Servers[3].Crash() // not there yet
	w.Servers = w.Servers[:3]
	w.Form()
	l := w.Leader()
	d := l.Driver
	follower := w.Servers[1]
	for name, c := range map[string]struct {
		got  error
		want error
	}{
		"promote a stranger":          {d.Promote(77), confdb.ErrUnknown},
		"transfer to a stranger":      {d.Transfer(77), confdb.ErrUnknown},
		"add a learner on a follower": {follower.Driver.AddLearner(4), confdb.ErrNotLeader},
		"remove on a follower":        {follower.Driver.Remove(3), confdb.ErrNotLeader},
		"transfer on a follower":      {follower.Driver.Transfer(1), confdb.ErrNotLeader},
		"remove a stranger":           {d.Remove(77), nil},
		"promote a voter":             {d.Promote(2), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	// One at a time, and no vote before it has caught up.
	l.Do(func(d confdb.Driver) {
		if err := d.AddLearner(4); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(3); !errors.Is(err, confdb.ErrBusy) {
			t.Errorf("a second change at once: %v", err)
		}
	})
	w.Must("the learner is in", time.Second, func() bool { return slices.Equal(d.Status().Learners, []uint64{4}) })
	w.Run(2 * time.Second)
	if err := d.Promote(4); !errors.Is(err, confdb.ErrNotCaughtUp) {
		t.Errorf("promoted a server that doesn't run: %v", err)
	}
	if st := d.Status(); st.Needed != 2 || len(st.Voters) != 3 {
		t.Errorf("a learner counts: %+v", st)
	}
	w.Servers = append(w.Servers, four)
	four.Start()
	w.Must("it caught up", 10*time.Second, func() bool { return d.CaughtUp()[4] })
	l.Do(func(d confdb.Driver) { _ = d.Promote(4) })
	w.Must("it votes", time.Second, func() bool { st := d.Status(); return len(st.Voters) == 4 && st.Needed == 3 })

	// The leader removes itself: another leads, and it is outside.
	l.Do(func(d confdb.Driver) { _ = d.Remove(l.ID) })
	w.Must("another leads", 5*time.Second, func() bool { n := w.Leader(); return n != nil && n != l })
	w.Must("it is outside", 5*time.Second, func() bool { return l.Driver.Status().Role == confdb.Outside })
	if st := w.Leader().Driver.Status(); len(st.Voters) != 3 || slices.Contains(st.Voters, l.ID) {
		t.Errorf("after the removal: %+v", st)
	}
	term := w.Leader().Driver.Status().Term
	w.Run(5 * time.Second)
	if got := w.Leader().Driver.Status().Term; got != term {
		t.Errorf("the removed server went on disturbing: term %d, then %d", term, got)
	}
}

// A voter loses its vote and stays; it gets it back. Of a leader, another one leads
// then; the last vote stays.
func TestVoteTakenAway(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 3})
	l := w.Leader()
	lose := func(id uint64, left int) {
		w.Must("its vote is taken", 10*time.Second, func() bool {
			n := w.Leader()
			if n == nil {
				return false
			}
			n.Do(func(d confdb.Driver) { _ = d.AddLearner(id) })
			st := n.Driver.Status()
			return len(st.Voters) == left && slices.Contains(st.Learners, id) && st.Needed == left/2+1
		})
	}
	other := w.Servers[l.ID%3].ID
	lose(other, 2)
	w.Must("it votes again", 10*time.Second, func() bool {
		w.Leader().Do(func(d confdb.Driver) { _ = d.Promote(other) })
		return len(w.Leader().Driver.Status().Voters) == 3
	})
	lose(l.ID, 2)
	w.Must("another leads", 5*time.Second, func() bool { n := w.Leader(); return n != nil && n != l })
	lose(other, 1)
	last := w.Leader()
	last.Do(func(d confdb.Driver) {
		if err := d.AddLearner(last.ID); !errors.Is(err, confdb.ErrLastVoter) {
			t.Errorf("the last vote is taken: %v", err)
		}
	})
}

// Leadership goes to nobody whose vote is being taken: it would end once that is applied,
// and the others would wait a suspicion for it.
func TestNoTransferToWhoLosesItsVote(t *testing.T) {
	for _, remove := range []bool{false, true} {
		w := world(t, confdbtest.Config{Seed: 3})
		l := w.Leader()
		loses, stays := w.Servers[l.ID%3].ID, w.Servers[(l.ID+1)%3].ID
		l.Do(func(d confdb.Driver) {
			take := d.AddLearner
			if remove {
				take = d.Remove
			}
			if err := take(loses); err != nil {
				t.Fatal(err)
			}
			if err := d.Transfer(loses); !errors.Is(err, confdb.ErrNotCaughtUp) || d.CaughtUp()[loses] {
				t.Errorf("remove %v: a transfer to it: %v", remove, err)
			}
		})
		w.Must("the other one leads", time.Second, func() bool {
			n := w.Leader()
			if n != nil && n.ID == loses {
				t.Fatal("it leads")
			}
			if n == l { // whom it asks before that has applied the change does not campaign
				l.Do(func(d confdb.Driver) { _ = d.Transfer(0) })
			}
			return n != nil && n.ID == stays
		})
	}
}

// A leader that loses its own vote names who is to lead, so that nobody has to miss it.
func TestLeaderLosesItsVote(t *testing.T) {
	for seed := range uint64(10) {
		for _, remove := range []bool{false, true} {
			w := world(t, confdbtest.Config{Seed: seed})
			l := w.Leader()
			l.Do(func(d confdb.Driver) {
				take := d.AddLearner
				if remove {
					take = d.Remove
				}
				if err := take(l.ID); err != nil {
					t.Fatal(err)
				}
			})
			w.Must("its vote is taken", time.Second, func() bool { return !slices.Contains(l.Driver.Status().Voters, l.ID) })
			start := w.Now
			w.Must("another leads", time.Second, func() bool { n := w.Leader(); return n != nil && n != l })
			if took := w.Now.Sub(start); took > 100*time.Millisecond {
				t.Errorf("seed %d, remove %v: another led after %v", seed, remove, took)
			}
		}
	}
}

func TestTransfer(t *testing.T) {
	for seed := range uint64(10) {
		w := world(t, confdbtest.Config{Seed: seed})
		l := w.Leader()
		if err := l.Propose(confdbtest.Note("a", "a")); err != nil {
			t.Fatal(err)
		}
		l.Do(func(d confdb.Driver) {
			if err := d.Transfer(0); err != nil {
				t.Fatal(err)
			}
		})
		start := w.Now
		w.Must("another leads", time.Second, func() bool { n := w.Leader(); return n != nil && n != l })
		if took := w.Now.Sub(start); took > 100*time.Millisecond {
			t.Errorf("seed %d: handing over took %v", seed, took)
		}
		settle(w, time.Second)
	}
}

// A witness leads only while none else can.
func TestWitnessLeadsLast(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 6})
	for _, s := range w.Servers {
		s.Do(func(d confdb.Driver) { d.Configure(confdb.Settings{Witnesses: []uint64{1}}) })
	}
	w.Must("the witness hands over", 5*time.Second, func() bool { l := w.Leader(); return l != nil && l.ID != 1 })
	two := w.Leader()
	two.Crash()
	w.Must("the other member leads", 5*time.Second, func() bool { l := w.Leader(); return l != nil && l != two })
	if l := w.Leader(); l.ID == 1 {
		t.Error("the witness went first")
	}
}

// The leader's disk answers no more: another leads within a few seconds,
// although the old one's heartbeats would go on.
func TestStuckLeaderHandsOver(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 7})
	old := w.Leader()
	w.Run(10 * time.Second) // idle is not stuck
	if w.Leader() != old {
		t.Fatal("an idle leader handed over")
	}
	old.Broken = true
	if err := old.Propose(confdbtest.Note("a", "a")); err != nil {
		t.Fatal(err)
	}
	w.Must("another leads", 4*time.Second, func() bool { l := w.Leader(); return l != nil && l != old })
	propose(w, "b")
}

// Heartbeats don't stand behind the disk: a follower whose disk takes a second
// stays a follower, and so does a leader's office.
func TestHeartbeatsPassASlowDisk(t *testing.T) {
	w := world(t, confdbtest.Config{Seed: 8})
	l := w.Leader()
	term := l.Driver.Status().Term
	w.Servers[1].Broken, w.Servers[2].Broken = true, true
	if err := l.Propose(confdbtest.Note("a", "a")); err != nil {
		t.Fatal(err)
	}
	w.Run(900 * time.Millisecond) // longer than two suspicions, shorter than a hand-over
	for _, s := range w.Servers {
		if st := s.Driver.Status(); st.Term != term || st.Leader != l.ID {
			t.Errorf("server %d: %+v", s.ID, st)
		}
	}
}

// Equal seeds give equal runs: Raft's own random source decides nothing.
func TestDeterministic(t *testing.T) {
	run := func(seed uint64) [32]byte {
		w := world(t, confdbtest.Config{Seed: seed, Servers: 5, CompactEvery: 10})
		w.Loss = 0.05
		for i := range 30 {
			for _, s := range w.Servers {
				_ = s.Propose(confdbtest.Note(fmt.Sprint(s.ID, i), "x"))
			}
			w.Run(time.Duration(w.Rng.Int64N(int64(300 * time.Millisecond))))
			s := w.Servers[w.Rng.IntN(5)]
			if s.Driver == nil {
				s.Start()
			} else {
				s.Crash()
			}
		}
		return w.Trace()
	}
	for seed := range uint64(4) {
		if first, second := run(seed), run(seed); first != second {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
	if run(1) == run(2) {
		t.Error("different seeds give the same run: the test sees nothing")
	}
}

// A server that got its vote counts when all start anew, also where nothing was written
// after that: any two of the three lead. Who started with the membership before wanted
// the one that is gone.
func TestVoteGivenLast(t *testing.T) {
	for gone := range 3 {
		w := world(t, confdbtest.Config{Seed: 5})
		w.Run(2 * time.Second) // nothing is proposed
		for _, s := range w.Servers {
			s.Crash()
		}
		for i, s := range w.Servers {
			if i != gone {
				s.Start()
			}
		}
		w.Must("the others elect", 10*time.Second, func() bool { return w.Leader() != nil })
	}
}

// All are killed at every moment after a change of votes, and those that start anew are a
// majority: they elect. What is left: all are killed within a beat of the change, and a
// server that is gone had a vote before.
func TestKilledAfterAChange(t *testing.T) {
	for _, c := range []struct {
		what    string
		servers int
		do      func(confdb.Driver, uint64) error
	}{
		{"promote", 2, confdb.Driver.Promote}, {"promote", 3, confdb.Driver.Promote}, {"promote", 4, confdb.Driver.Promote},
		{"demote", 2, confdb.Driver.AddLearner}, {"demote", 3, confdb.Driver.AddLearner}, {"demote", 4, confdb.Driver.AddLearner},
		{"remove", 2, confdb.Driver.Remove}, {"remove", 3, confdb.Driver.Remove}, {"remove", 4, confdb.Driver.Remove},
	} {
		t.Run(fmt.Sprintf("%s one of %d", c.what, c.servers), func(t *testing.T) {
			t.Parallel()
			ask := func(w *confdbtest.World, do func(confdb.Driver, uint64) error) {
				var err error
				w.Leader().Do(func(d confdb.Driver) { err = do(d, w.Servers[c.servers-1].ID) })
				if err != nil {
					t.Fatal(err)
				}
			}
			// after is the cluster so many events after the change was asked for, the voters
			// before and by that, and for how long the leader has known these.
			after := func(events int) (w *confdbtest.World, before, voters []uint64, known time.Duration, more bool) {
				w = world(t, confdbtest.Config{Seed: 1, Servers: c.servers})
				l := w.Leader()
				if l != w.Servers[0] {
					t.Fatal("the first server doesn't lead")
				}
				if c.what == "promote" {
					ask(w, confdb.Driver.AddLearner)
				}
				w.Run(time.Second)
				before = slices.Clone(l.Driver.Status().Voters)
				ask(w, c.do)
				if voters = before[:len(before)-1]; c.what == "promote" {
					voters = append(slices.Clone(before), uint64(c.servers))
				}
				changed := w.Now
				more = w.Until(3*w.Cfg.Interval, func() bool {
					if !slices.Equal(l.Driver.Status().Voters, voters) {
						changed = w.Now
					}
					events--
					return events < 0
				})
				return w, before, voters, w.Now.Sub(changed), more
			}
			for events := 0; ; events++ {
				w, before, voters, known, more := after(events)
				if !more {
					break
				}
				for up := range 1 << c.servers {
					starts := func(v uint64) bool { return up>>(v-1)&1 == 1 }
					most := func(voters []uint64) bool {
						n := 0
						for _, v := range voters {
							if starts(v) {
								n++
							}
						}
						return n > len(voters)/2
					}
					lost := slices.ContainsFunc(voters, func(v uint64) bool { return slices.Contains(before, v) && !starts(v) })
					if !most(voters) || known == 0 && !most(before) || known <= w.Cfg.Interval && lost {
						continue
					}
					w, _, _, _, _ := after(events)
					for _, s := range w.Servers {
						s.Crash()
					}
					for i, s := range w.Servers {
						if up>>i&1 == 1 {
							s.Start()
						}
					}
					if !w.Until(10*time.Second, func() bool { return w.Leader() != nil }) {
						t.Errorf("after %d events, and %v as voters %v: %b start anew and don't elect", events, known, voters, up)
					}
				}
			}
		})
	}
}
