package diskdb_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
)

// A server dies after each of the first writes of a bootstrap, again and again:
// bootstrapped again where it doesn't go on by itself, it leads.
func TestKilledWhileBootstrapped(t *testing.T) {
	for kill := 1; kill <= 14; kill++ {
		w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: uint64(kill), Servers: 1})
		s := w.Servers[0]
		begin := func() { s.Do(func(d confdb.Driver) { _ = d.Bootstrap() }) }
		begin()
		w.Until(3*time.Second, func() bool { return w.Device.Writes >= kill })
		s.Crash()
		w.Run(time.Duration(w.Rng.Int64N(int64(10 * time.Millisecond))))
		s.Start()
		w.Run(500 * time.Millisecond)
		begin() // refused where it is a member
		w.Must(fmt.Sprintf("it leads after a kill at write %d", kill), 5*time.Second, func() bool { return w.Leader() == s })
		propose(w, s, "works")
	}
}

// A server whose directory was emptied is another: it takes nothing over by
// itself, neither as a member nor by another bootstrap.
func TestEmptiedDirectory(t *testing.T) {
	w := world(t, 5, 2)
	propose(w, w.Servers[0], "kept")
	for _, s := range w.Servers {
		s.Crash()
	}
	stranger := w.Servers[0]
	stranger.ID = 7
	stranger.Start()
	w.Run(time.Second)
	stranger.Do(func(d confdb.Driver) { _ = d.Bootstrap() })
	w.Run(5 * time.Second)
	if st := stranger.Driver.Status(); st.Role != confdb.Outside || st.DeviceProblem == "" && len(st.Voters) > 0 {
		t.Errorf("an emptied directory: %+v", st)
	}
	w.Servers[1].Start()
	w.Must("the other member leads", 5*time.Second, func() bool { return w.Leader() == w.Servers[1] })
	if got := confdbtest.Notes(w.Servers[1].State); len(got) != 1 {
		t.Errorf("its notes: %v", got)
	}
}

// The last slot is given out once: after it a join is refused, in words.
func TestSlotsRunOut(t *testing.T) {
	w := world(t, 6, 1)
	s := w.Servers[0]
	for id := uint64(100); ; id++ {
		var err error
		s.Do(func(d confdb.Driver) { err = d.AddLearner(id) })
		if err != nil {
			if id != 131 {
				t.Errorf("server %d was refused: %v", id, err)
			}
			break
		}
		w.Must("it is in", time.Second, func() bool { return len(s.Driver.Status().Learners) == 1 })
		s.Do(func(d confdb.Driver) { err = d.Remove(id) })
		if err != nil {
			t.Fatal(err)
		}
		w.Must("it is out", time.Second, func() bool { return len(s.Driver.Status().Learners) == 0 })
	}
}

// A server that was removed and is taken in again has its slot still: it goes on
// there, whether it was restarted in between or not, and also when no slot is left.
func TestRemovedServerComesBack(t *testing.T) {
	for seed := range uint64(10) {
		w := world(t, seed, 3)
		owner := w.Leader()
		back := w.Servers[0]
		if back == owner {
			back = w.Servers[1]
		}
		do := func(what string, fn func(d confdb.Driver) error, done func(st confdb.Status) bool) {
			t.Helper()
			owner.Do(func(d confdb.Driver) {
				if err := fn(d); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, what, err)
				}
			})
			w.Must(what, 2*time.Second, func() bool { return done(owner.Driver.Status()) })
		}
		if seed%2 == 0 {
			back.Crash()
		}
		do("removed", func(d confdb.Driver) error { return d.Remove(back.ID) }, func(st confdb.Status) bool { return len(st.Voters) == 2 })
		for id := uint64(100); id < 100+diskdb.Slots-3; id++ {
			do("another is in", func(d confdb.Driver) error { return d.AddLearner(id) }, func(st confdb.Status) bool { return len(st.Learners) == 1 })
			do("and out", func(d confdb.Driver) error { return d.Remove(id) }, func(st confdb.Status) bool { return len(st.Learners) == 0 })
		}
		if seed%2 == 0 {
			back.Start()
			w.Run(2 * time.Second)
		}
		do("taken in again", func(d confdb.Driver) error { return d.AddLearner(back.ID) }, func(st confdb.Status) bool { return len(st.Learners) == 1 })
		w.Must("it is caught up", 5*time.Second, func() bool { return owner.Driver.(interface{ CaughtUp() map[uint64]bool }).CaughtUp()[back.ID] })
		do("promoted", func(d confdb.Driver) error { return d.Promote(back.ID) }, func(st confdb.Status) bool { return len(st.Voters) == 3 })
		propose(w, owner, "kept")
		for _, s := range w.Servers {
			if s != back {
				s.Crash()
			}
		}
		w.Must("it goes on alone", 10*time.Second, func() bool { return w.Leader() == back })
		if got := confdbtest.Notes(back.State); len(got) != 1 {
			t.Errorf("seed %d: its notes: %v", seed, got)
		}
	}
}

// A device so slow that the default device_io is too short for it: all servers
// start anew, without the definition that says so, and one owns it again.
func TestSlowDeviceAfterRestart(t *testing.T) {
	w := world(t, 8, 2)
	for _, s := range w.Servers {
		s.Do(func(d confdb.Driver) { d.Configure(confdb.Settings{DeviceIO: time.Second}) })
	}
	w.Run(2 * time.Second) // the sectors say so
	w.Device.Late = func(uint64, confdb.DeviceOp) time.Duration { return 350 * time.Millisecond }
	for _, s := range w.Servers {
		s.Crash()
	}
	for _, s := range w.Servers {
		s.Start()
	}
	w.Must("one owns the device", 20*time.Second, func() bool { return w.Leader() != nil })
}

// Whatever the database may hold fits an area, of the smallest device too: one
// that outgrew it would have no owner any more. A smaller device is refused.
func TestDeviceSize(t *testing.T) {
	if room := diskdb.AreaRoom; room < confdb.MaxKV+confdb.MaxCheckpoints+8<<20 {
		t.Errorf("an area has room for %d MiB at least; keys and checkpoints may take %d", room>>20, (confdb.MaxKV+confdb.MaxCheckpoints)>>20)
	}
	for size, want := range map[int64]string{4 << 30: "", 1 << 30: "1024 MiB, and 3969 are needed", 130 << 20: "130 MiB, and 3969 are needed"} {
		w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: 1, Servers: 1})
		w.Device.Size = size
		s := w.Servers[0]
		s.Do(func(d confdb.Driver) { _ = d.Bootstrap() })
		w.Run(3 * time.Second)
		st := s.Driver.Status()
		if leads := st.Role == confdb.Leader; leads != (want == "") || !strings.Contains(st.BootRefused, want) || !leads && w.Device.Writes > 0 {
			t.Errorf("a device of %d MiB: %+v, %d writes", size>>20, st, w.Device.Writes)
		}
	}
}

// On a device that takes its time, within D_io, an owner stays the owner while it
// writes updates, and each takes no longer than the plan says.
func TestSlowDeviceKeepsItsOwner(t *testing.T) {
	for name, late := range map[string]time.Duration{"counts at the end": 180 * time.Millisecond, "counts at any moment": 0} {
		t.Run(name, func(t *testing.T) { keepsOwner(t, late) })
	}
}

func keepsOwner(t *testing.T, late time.Duration) {
	w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: 9, Servers: 1, CompactEvery: 1000})
	w.Form()
	s := w.Servers[0]
	if w.Device.Slow = 16 * time.Millisecond; late > 0 { // now and then ten times as much
		w.Device.Slow, w.Device.Late = 0, func(uint64, confdb.DeviceOp) time.Duration { return late }
	}
	io, longest := spec.DefaultDeviceIO.D(), time.Duration(0)
	for i := range 100 {
		w.Run(time.Duration(w.Rng.Int64N(int64(time.Second))))
		from := w.Now
		propose(w, s, fmt.Sprint("n", i))
		longest = max(longest, w.Now.Sub(from))
	}
	if st := s.Driver.Status(); st.Term != 1 || longest > 2*io {
		t.Errorf("term %d; the longest of 100 updates took %v, with operations of at most %v", st.Term, longest, io)
	}
}
