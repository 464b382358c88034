package diskdb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
)

func world(t testing.TB, seed uint64, servers int) *confdbtest.World {
	w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: seed, Servers: servers, CompactEvery: 20})
	w.Form()
	return w
}

func propose(w *confdbtest.World, s *confdbtest.Server, id string) {
	w.T.Helper()
	if err := s.Propose(confdbtest.Note(id, id)); err != nil {
		w.T.Fatalf("propose %s: %v", id, err)
	}
	w.Must(id+" is applied everywhere", 5*time.Second, func() bool {
		for _, s := range w.Servers {
			if s.Driver != nil && !s.Paused {
				if _, ok := s.Results[id]; !ok {
					return false
				}
			}
		}
		return true
	})
}

// Two servers: the owner is lost, the other goes on alone; it is lost too and
// comes back alone; the first catches up with what it missed.
func TestLastOneStanding(t *testing.T) {
	w := world(t, 1, 2)
	a, b := w.Servers[0], w.Servers[1]
	propose(w, a, "one")
	propose(w, b, "two") // by way of the owner
	a.Crash()
	w.Must("the survivor owns the device", 5*time.Second, func() bool { return w.Leader() == b })
	if st := b.Driver.Status(); st.OldLeases == 0 || st.OldLeases > w.Now || st.Authority == 0 {
		t.Errorf("status of a new owner: %+v", st)
	}
	for i := range 50 { // past compactions
		propose(w, b, fmt.Sprint("alone ", i))
	}
	b.Crash()
	w.Run(time.Second)
	b.Start()
	w.Must("it owns the device again", 5*time.Second, func() bool { return w.Leader() == b })
	a.Start()
	w.Must("the first one has caught up", 5*time.Second, func() bool { return b.Driver.CaughtUp()[1] })
	if got := confdbtest.Notes(a.State); len(got) != 52 || got[51] != "alone 49" {
		t.Errorf("after its return: %v", got)
	}
	b.Do(func(d confdb.Driver) {
		if err := d.Transfer(1); err != nil {
			t.Errorf("hand over: %v", err)
		}
	})
	at := w.Now
	w.Must("the device was handed over", 3*time.Second, func() bool { return w.Leader() == a })
	if took := w.Now.Sub(at); took > spec.DeviceLease(spec.DefaultDeviceIO.D()) {
		t.Errorf("the hand-over took %v, as long as if the owner had died", took)
	}
}

// A server that starts anew while entries follow one another without a pause
// catches up all the same.
func TestReturnUnderLoad(t *testing.T) {
	w := world(t, 3, 3)
	var owner, other *confdbtest.Server
	for _, s := range w.Servers {
		if s == w.Leader() {
			owner = s
		} else {
			other = s
		}
	}
	written := 0
	write := func(limit time.Duration, done func() bool) bool {
		for end := w.Now.Add(limit); w.Now < end; w.Run(7 * time.Millisecond) {
			if done() {
				return true
			}
			written++
			if err := owner.Propose(confdbtest.Note(fmt.Sprint("load ", written), "x")); err != nil {
				t.Fatal(err)
			}
		}
		return false
	}
	write(300*time.Millisecond, func() bool { return false })
	other.Crash()
	write(200*time.Millisecond, func() bool { return false }) // the owner still sends to it
	other.Start()
	if !write(3*time.Second, func() bool {
		return other.State != nil && other.State.Revision > 0 && owner.Driver.CaughtUp()[other.ID]
	}) {
		t.Fatalf("a server that came back has not caught up within 3 s of writes")
	}
}

// The device fails, hangs, and comes back: no authority meanwhile, everything
// by itself afterwards.
func TestDeviceLost(t *testing.T) {
	for name, lose := range map[string]func(*confdbtest.Device){
		"errors": func(d *confdbtest.Device) { d.Gone = true },
		"hangs":  func(d *confdbtest.Device) { d.Hangs = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t, 3, 2)
			propose(w, w.Servers[0], "before")
			lose(w.Device)
			lease := spec.DeviceLease(spec.DefaultDeviceIO.D())
			w.Must("nobody has authority", lease+10*time.Millisecond, func() bool {
				st := w.Servers[0].Driver.Status()
				return st.Role != confdb.Leader || w.Now >= st.AuthorityUntil
			})
			w.Run(10 * time.Second)
			for _, s := range w.Servers {
				st := s.Driver.Status()
				if st.Role == confdb.Leader || !strings.HasPrefix(st.DeviceProblem, "quorum device /dev/test: ") {
					t.Errorf("server %d without the device: %+v", s.ID, st)
				}
			}
			w.Device.Mend()
			w.Must("someone owns it again", 5*time.Second, func() bool { return w.Leader() != nil })
			propose(w, w.Leader(), "after")
			for _, s := range w.Servers {
				if st := s.Driver.Status(); st.DeviceProblem != "" {
					t.Errorf("server %d says, with the device back: %s", s.ID, st.DeviceProblem)
				}
			}
		})
	}
}

// suspended has an owner's guest suspended, its clock too, with an update on its
// way to the device, while the other server takes over. It tells whether the
// former owner acknowledged the update, and whether it is lost.
func suspended(t testing.TB) (acked, lost bool) {
	w := world(t, 7, 2)
	a, b := w.Servers[0], w.Servers[1]
	w.Device.Late = func(server uint64, op confdb.DeviceOp) time.Duration {
		if server == 1 && op.Data != nil && op.Offset >= 1<<20 {
			return 5 * time.Second
		}
		return 0
	}
	if err := a.Propose(confdbtest.Note("late", "late")); err != nil {
		t.Fatal(err)
	}
	w.Run(time.Millisecond)
	a.Pause()
	w.Isolate(1, true) // or b's heartbeats would tell it
	from := w.Now
	w.Must("the other one owns the device", 4*time.Second, func() bool { return w.Leader() == b })
	w.Run(from.Add(6 * time.Second).Sub(w.Now))
	a.Stood = w.Now.Sub(from)
	a.OnApply = func(c confdb.Command, r confdb.Result) {
		acked = acked || c.ID == "late" && r.Code == "" && a.Driver.Status().Role == confdb.Leader
	}
	a.Resume()
	w.Run(3 * time.Second)
	return acked, len(confdbtest.Notes(b.State)) == 0
}

// What rests on clocks a suspended guest can break; what was acknowledged can't
// be lost even so, since each record is followed by a look at who owns the device.
func TestSuspendedGuestLosesNothing(t *testing.T) {
	if acked, lost := suspended(t); acked && lost {
		t.Error("an update was acknowledged and is lost")
	} else if !lost {
		t.Error("the update landed in the new owner's log: the test shows nothing")
	}
}

// What can't be read is damage, told and never taken for a shorter log.
func TestDamagedLog(t *testing.T) {
	for name, spoil := range map[string]func(w *confdbtest.World, blocks []int64){
		"the snapshot":           func(w *confdbtest.World, b []int64) { w.Device.Blocks[b[0]][66] ^= 1 },
		"a record in the middle": func(w *confdbtest.World, b []int64) { w.Device.Blocks[b[2]][70] ^= 1 },
		"the last record":        func(w *confdbtest.World, b []int64) { w.Device.Blocks[b[len(b)-1]][70] ^= 1 },
		"the end is gone":        func(w *confdbtest.World, b []int64) { delete(w.Device.Blocks, b[len(b)-1]) },
	} {
		t.Run(name, func(t *testing.T) {
			w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: 11, Servers: 1, CompactEvery: 1000})
			w.Form()
			s := w.Servers[0]
			for i := range 5 {
				propose(w, s, fmt.Sprint("n", i))
			}
			w.Run(time.Second) // a renewal has told how far the log goes
			s.Crash()
			var blocks []int64
			for n := range w.Device.Blocks {
				if n >= 256 {
					blocks = append(blocks, n)
				}
			}
			slices.Sort(blocks)
			spoil(w, blocks)
			s.Start()
			w.Run(5 * time.Second)
			if st := s.Driver.Status(); st.Role == confdb.Leader || !strings.Contains(st.DeviceProblem, "damaged") {
				t.Errorf("it goes on: %+v", st)
			}
		})
	}
}

// A device that holds anything else is never written.
func TestForeignDevice(t *testing.T) {
	for name, spoil := range map[string]func(*confdbtest.World){
		"another cluster's": func(w *confdbtest.World) {
			other, _, _, _ := diskdb.New(diskdb.Config{ServerID: 9, ClusterID: "other", Now: w.Now})
			s := w.Servers[1]
			s.Driver = other
			s.Do(func(d confdb.Driver) { _ = d.Bootstrap() })
			w.Run(2 * time.Second)
			s.Crash()
		},
		"a file system": func(w *confdbtest.World) { w.Device.Blocks[0] = append([]byte("ext4"), make([]byte, 4092)...) },
		"data behind":   func(w *confdbtest.World) { w.Device.Blocks[200] = append([]byte("data"), make([]byte, 4092)...) },
	} {
		w := confdbtest.NewWorld(t, confdbtest.Config{Make: open, Seed: 1, Servers: 2})
		spoil(w)
		writes := w.Device.Writes
		s := w.Servers[0]
		s.Do(func(d confdb.Driver) { _ = d.Bootstrap() })
		w.Run(3 * time.Second)
		if st := s.Driver.Status(); st.Role != confdb.Outside || st.DeviceProblem == "" {
			t.Errorf("%s: %+v", name, st)
		}
		if w.Device.Writes != writes {
			t.Errorf("%s: it was written over", name)
		}
	}
}

// Crashes, pauses, cuts, a device that is slow, hangs or fails, hand-overs: the
// world checks that all apply the same, in one order; here: that nothing that
// was acknowledged is lost, and that the device has an owner again.
func TestFaults(t *testing.T) {
	owners := map[uint64]bool{}
	all := 0
	for seed := range uint64(12) {
		owner, acked := faults(t, seed)
		owners[owner] = true
		all += acked
	}
	t.Logf("%d proposals were acknowledged", all)
	if len(owners) < 2 || all < 12*60 {
		t.Errorf("%d owners in the end, %d proposals acknowledged: too tame", len(owners), all)
	}
}

func faults(t testing.TB, seed uint64) (owner uint64, acknowledged int) {
	make := func(server, seed uint64, stored confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
		return open(server, seed+server, stored, now)
	}
	w := confdbtest.NewWorld(t, confdbtest.Config{Make: make, Seed: seed, Servers: 3, CompactEvery: 15})
	w.Form()
	acked := map[string]bool{}
	n := 0
	for range 60 {
		s := w.Servers[w.Rng.IntN(3)]
		if l := w.Leader(); l != nil && w.Rng.IntN(2) == 0 {
			s = l
		}
		span := time.Duration(w.Rng.Int64N(int64(2 * time.Second)))
		switch w.Rng.IntN(8) {
		case 0, 1:
			s.Crash()
			w.After(span, func() {
				if s.Driver == nil {
					s.Start()
				}
			})
		case 2, 3:
			s.Pause()
			w.After(span, func() {
				if s.Driver != nil {
					s.Resume()
				}
			})
		case 4:
			w.Isolate(s.ID, true)
			w.After(span, func() { w.Isolate(s.ID, false) })
		case 5:
			w.Device.Slow = time.Duration(w.Rng.Int64N(int64(600 * time.Millisecond)))
			w.After(span, func() { w.Device.Slow = 0 })
		case 6:
			if w.Rng.IntN(2) == 0 {
				w.Device.Gone = true
			} else {
				w.Device.Hangs = true
			}
			w.After(span, w.Device.Mend)
		case 7:
			if l := w.Leader(); l != nil {
				l.Do(func(d confdb.Driver) { _ = d.Transfer(uint64(1 + w.Rng.IntN(3))) })
			}
		}
		for range 6 {
			id := fmt.Sprint("n", n)
			n++
			_ = w.Servers[w.Rng.IntN(3)].Propose(confdbtest.Note(id, id))
			w.Run(time.Duration(w.Rng.Int64N(int64(400 * time.Millisecond))))
		}
		for _, s := range w.Servers {
			for id, r := range s.Results {
				acked[id] = acked[id] || r.Code == ""
			}
		}
	}
	w.Run(3 * time.Second)
	w.Device.Mend()
	for _, s := range w.Servers {
		switch {
		case s.Driver == nil:
			s.Start()
		case s.Paused:
			s.Resume()
		}
	}
	w.Must("the device has an owner and all follow", 20*time.Second, func() bool {
		l := w.Leader()
		return l != nil && len(l.Driver.CaughtUp()) == 3
	})
	have := map[string]bool{}
	for _, text := range confdbtest.Notes(w.Leader().State) {
		if have[text] {
			t.Fatalf("seed %d: %s was applied twice", seed, text)
		}
		have[text] = true
	}
	for id := range acked {
		if !have[id] {
			t.Fatalf("seed %d: %s was acknowledged and is lost", seed, id)
		}
	}
	return w.Leader().ID, len(acked)
}
