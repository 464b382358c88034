package confdbtest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Note is a command that leaves a trace: an event with that text.
func Note(id, text string) confdb.Command {
	return confdb.Command{ID: id, Event: &confdb.Event{Kind: "note", Text: text}}
}

// Notes are the texts of the events in a state, in order.
func Notes(s *confdb.State) []string {
	var out []string
	for _, e := range s.Events {
		out = append(out, e.Text)
	}
	return out
}

// Drivers is what any driver has to do as the only server of its cluster.
func Drivers(t *testing.T, open Make) {
	one := func(t *testing.T, seed uint64) (*World, *Server) {
		w := NewWorld(t, Config{Make: open, Seed: seed, Servers: 1, CompactEvery: 7})
		return w, w.Servers[0]
	}
	leads := func(s *Server) func() bool {
		return func() bool { return s.W.Leader() == s }
	}

	t.Run("waits outside", func(t *testing.T) {
		w, s := one(t, 1)
		w.Run(3 * time.Second)
		if st := s.Driver.Status(); st.Role != confdb.Outside || st.Term != 0 || st.Ready || len(st.Voters) != 0 {
			t.Errorf("a server that nobody bootstrapped: %+v", st)
		}
		if err := s.Propose(Note("a", "a")); !errors.Is(err, confdb.ErrOutside) {
			t.Errorf("a proposal outside: %v", err)
		}
		if s.Stored.HardState != nil || len(s.Stored.Entries) != 0 {
			t.Errorf("it persisted something: %+v", s.Stored)
		}
	})

	t.Run("bootstrap once", func(t *testing.T) {
		w, s := one(t, 2)
		w.Form()
		st := s.Driver.Status()
		if st.Self != 1 || st.Leader != 1 || st.Needed != 1 || len(st.Voters) != 1 || st.Voters[0] != 1 || st.Term == 0 || st.Applied != s.Applied {
			t.Errorf("status of a leader: %+v", st)
		}
		if err := s.Driver.Bootstrap(); !errors.Is(err, confdb.ErrBootstrap) {
			t.Errorf("bootstrapped twice: %v", err)
		}
		s.Crash()
		s.Start()
		if onDevice(s.Driver) {
			w.Run(100 * time.Millisecond) // it has to look at the device first
		}
		if err := s.Driver.Bootstrap(); !errors.Is(err, confdb.ErrBootstrap) {
			t.Errorf("bootstrapped again after a restart: %v", err)
		}
		if err := s.Driver.Remove(1); err == nil {
			t.Error("the last voter was removed")
		}
	})

	t.Run("order and results", func(t *testing.T) {
		w, s := one(t, 3)
		w.Form()
		var want []string
		for i := range 40 {
			text := fmt.Sprint("note ", i)
			want = append(want, text)
			if err := s.Propose(Note(text, text)); err != nil {
				t.Fatal(err)
			}
		}
		w.Must("all are applied", time.Second, func() bool { return len(s.Results) == 40 })
		if got := Notes(s.State); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("applied in another order: %v", got)
		}
		if err := s.Propose(confdb.Command{ID: "big", Event: &confdb.Event{Text: strings.Repeat("x", 2<<20)}}); err == nil {
			t.Error("a command of 2 MiB was taken")
		}
	})

	t.Run("one Ready at a time", func(t *testing.T) {
		d, _, _, err := open(1, 4, confdb.Stored{}, spec.Instant(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if onDevice(d) {
			t.Skip("what has to be durable goes to the quorum device, not into a Ready: its own tests look")
		}
		if err := d.Bootstrap(); err != nil {
			t.Fatal(err)
		}
		r, ok := d.Ready()
		if !ok || r.Persist.Empty {
			t.Fatalf("nothing to persist after bootstrap: %+v", r)
		}
		if _, ok := d.Ready(); ok {
			t.Error("a second Ready before Advance")
		}
		if st := d.Status(); st.Ready || st.Role == confdb.Leader {
			t.Errorf("it leads before anything is durable: %+v", st)
		}
	})

	t.Run("keeps what was applied, through crashes at any moment", func(t *testing.T) {
		for seed := range uint64(6) {
			w, s := one(t, 100+seed)
			w.Form()
			var acked []string
			next := 0
			lastTerm := uint64(0)
			for range 12 {
				for range 5 {
					id := fmt.Sprint("n", next)
					next++
					_ = s.Propose(Note(id, id)) // no leader yet, after some restarts
					w.Run(time.Duration(w.Rng.Int64N(int64(8 * time.Millisecond))))
				}
				for i := range next {
					id := fmt.Sprint("n", i)
					if r, ok := s.Results[id]; ok && r.Code == "" {
						acked = append(acked, id)
					}
				}
				s.Crash()
				w.Run(time.Duration(w.Rng.Int64N(int64(20 * time.Millisecond))))
				s.Start()
				w.Must("it leads again", 5*time.Second, leads(s))
				if term := s.Driver.Status().Term; term <= lastTerm {
					t.Fatalf("seed %d: term %d after term %d", seed, term, lastTerm)
				} else {
					lastTerm = term
				}
				have := map[string]bool{}
				for _, n := range Notes(s.State) {
					if have[n] {
						t.Fatalf("seed %d: %s was applied twice", seed, n)
					}
					have[n] = true
				}
				for _, id := range acked {
					if !have[id] {
						t.Fatalf("seed %d: %s was acknowledged and is lost", seed, id)
					}
				}
			}
			if len(acked) == 0 || s.Stored.Snapshot == nil && !onDevice(s.Driver) {
				t.Fatalf("seed %d: the test met no acknowledged command or no compaction", seed)
			}
		}
	})

	t.Run("a damaged store is refused", func(t *testing.T) {
		w, s := one(t, 5)
		if onDevice(s.Driver) {
			t.Skip("the store holds nothing: diskdb's own tests damage the device")
		}
		w.Form()
		for i := 0; s.Stored.Snapshot == nil || len(s.Stored.Entries) < 2; i++ {
			if i > 40 {
				t.Fatal("no compaction, or no log behind one")
			}
			_ = s.Propose(Note(fmt.Sprint(i), "x"))
			w.Run(20 * time.Millisecond)
		}
		for name, spoil := range map[string]func(*confdb.Stored){
			"a gap in the log": func(st *confdb.Stored) { st.Entries = st.Entries[1:] },
			"snapshot of garbage": func(st *confdb.Stored) {
				st.Snapshot = []byte("this is no snapshot at all, not in any version")
			},
			"half a snapshot":   func(st *confdb.Stored) { st.Snapshot = st.Snapshot[:len(st.Snapshot)/2] },
			"half a hard state": func(st *confdb.Stored) { st.HardState = st.HardState[:5] },
		} {
			st := s.Stored
			spoil(&st)
			if _, _, _, err := open(1, 1, st, w.Now); !errors.Is(err, confdb.ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// onDevice tells whether a driver keeps its log on a quorum device.
func onDevice(d confdb.Driver) bool {
	_, ok := d.(confdb.DeviceDriver)
	return ok
}
