package raftdb_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

// A directory is put back to before an update that this server and the leader
// have, and a third lacks. Whatever follows, the update isn't lost: the leader
// lives on, dies after it was asked, or has itself started anew and forgotten
// what it was promised; all start at once.
func TestAnOlderDirectoryLosesNothing(t *testing.T) {
	for _, c := range []string{"the leader lives", "the leader dies", "the leader forgot", "all start", "the leader is another then"} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(c, " ", seed), func(t *testing.T) {
				w := world(t, confdbtest.Config{Seed: seed})
				propose(w, "before")
				settle(w, 5*time.Second)
				leader := w.Leader()
				older, behind := w.Servers[leader.ID%3], w.Servers[(leader.ID+1)%3]
				backup := older.Stored
				w.Isolate(behind.ID, true)
				for i := range 5 {
					propose(w, fmt.Sprint("update", i))
				}
				w.Run(100 * time.Millisecond)
				older.Crash()
				older.Stored = backup
				if c == "the leader forgot" || c == "all start" {
					leader.Crash()
				}
				if c == "all start" {
					behind.Crash()
					behind.Start()
				}
				// The leader's log comes to nobody for now: it has to be waited for.
				w.Drop = func(m confdb.Message) bool { return m.From == leader.ID && !m.InFrame }
				w.Isolate(behind.ID, false)
				if leader.Driver == nil {
					leader.Start()
				}
				older.Start()
				w.Until(time.Second, func() bool { return !older.Driver.Status().Starting })
				switch c {
				case "the leader dies":
					leader.Crash()
				case "the leader is another then":
					leader.Pause()
				}
				w.Run(1500 * time.Millisecond)
				if l := w.Leader(); l != nil && l != leader {
					if _, ok := l.State.Answered("update4"); !ok {
						t.Fatalf("server %d leads without what was acknowledged", l.ID)
					}
				}
				w.Drop = nil
				if leader.Paused {
					leader.Resume()
				} else if leader.Driver == nil {
					leader.Start()
				}
				if older.Driver.Status().Older { // an operator empties it; here two of three are enough
					older.Crash()
				}
				w.Must("all that was acknowledged is there", 10*time.Second, func() bool {
					l := w.Leader()
					if l == nil {
						return false
					}
					_, ok := l.State.Answered("update4")
					return ok
				})
				propose(w, "after")
				settle(w, 10*time.Second)
			})
		}
	}
}

// After the loss of power the cluster comes up by itself, with all of its
// servers or just a majority, and soon.
func TestPowerLoss(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for _, missing := range []int{0, (n - 1) / 2} {
			w := world(t, confdbtest.Config{Servers: n, Seed: uint64(n)})
			propose(w, "before")
			settle(w, 5*time.Second)
			for _, s := range w.Servers {
				s.Crash()
			}
			for _, s := range w.Servers[missing:] {
				w.Run(20 * time.Millisecond)
				s.Start()
			}
			w.Must(fmt.Sprintf("a leader of %d servers, %d missing", n, missing), 1500*time.Millisecond, func() bool { return w.Leader() != nil })
			propose(w, "after")
			for _, s := range w.Servers[:missing] {
				s.Start()
			}
			settle(w, 5*time.Second)
		}
	}
}

// One starts while the leader dies: the two that are left elect.
func TestStartsWhileTheLeaderDies(t *testing.T) {
	for seed := range uint64(8) {
		w := world(t, confdbtest.Config{Seed: seed})
		propose(w, "before")
		settle(w, 5*time.Second)
		leader := w.Leader()
		other := w.Servers[leader.ID%3]
		other.Crash()
		w.Run(time.Duration(seed) * 40 * time.Millisecond)
		leader.Crash()
		other.Start()
		w.Must("a leader", 1500*time.Millisecond, func() bool { return w.Leader() != nil })
		propose(w, "after")
	}
}

// A voter starts again and again, in the middle of its roll call too, while
// others do, and voters come and go: all goes on, and nothing is lost.
func TestStartsInTheMiddle(t *testing.T) {
	for seed := range uint64(4) {
		w := world(t, confdbtest.Config{Servers: 4, Seed: seed})
		for i := range 12 {
			for range 3 {
				s := w.Servers[w.Rng.IntN(4)]
				s.Crash()
				s.Start()
				w.Run(time.Duration(w.Rng.IntN(4000)) * time.Microsecond)
			}
			if l := w.Leader(); l != nil {
				other := w.Servers[l.ID%4]
				l.Do(func(d confdb.Driver) {
					if i%2 == 0 {
						_ = d.Remove(other.ID)
					} else if d.CaughtUp()[other.ID] {
						_ = d.Promote(other.ID)
					} else {
						_ = d.AddLearner(other.ID)
					}
				})
			}
			propose(w, fmt.Sprint("update", i))
			w.Run(time.Duration(w.Rng.IntN(300)) * time.Millisecond)
		}
		for _, s := range w.Servers {
			if s.Driver.Status().Older {
				t.Errorf("seed %d: server %d counts as older, and isn't", seed, s.ID)
			}
		}
	}
}
