package diskdb_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
)

// strangers are servers of clusters of their own: server 1 of "c1", 2 of "c2".
func strangers(t testing.TB, seed uint64, n int) *confdbtest.World {
	return confdbtest.NewWorld(t, confdbtest.Config{Seed: seed, Servers: n, Make: func(server, seed uint64, _ confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
		return diskdb.New(diskdb.Config{ServerID: server, ClusterID: fmt.Sprint("c", server), Device: "/dev/test", Seed: seed, Now: now})
	}})
}

func bootstrap(t testing.TB, s *confdbtest.Server) {
	t.Helper()
	s.Do(func(d confdb.Driver) {
		if err := d.Bootstrap(); err != nil {
			t.Errorf("bootstrap of server %d: %v", s.ID, err)
		}
	})
}

func leads(s *confdbtest.Server) bool {
	st := s.Driver.Status()
	return st.Role == confdb.Leader && st.Ready
}

// refused waits for the words that a bootstrap is refused with.
func refused(t testing.TB, w *confdbtest.World, s *confdbtest.Server, within time.Duration, words ...string) {
	t.Helper()
	w.Until(within, func() bool { return s.Driver.Status().BootRefused != "" })
	st := s.Driver.Status()
	for _, word := range words {
		if !strings.Contains(st.BootRefused, word) {
			t.Errorf("server %d: a bootstrap is refused with %q, without %q", s.ID, st.BootRefused, word)
		}
	}
	if st.Role != confdb.Outside {
		t.Errorf("server %d was refused and takes part: %+v", s.ID, st)
	}
}

// A device that holds something is refused at once, in words that say what to do;
// done, the next bootstrap of the same agent succeeds.
func TestUsedDeviceEmptied(t *testing.T) {
	const how = "empty it (remove the file, or write zeros to the block device's first MiB: dd if=/dev/zero of=/dev/test bs=1M count=1) and apply again"
	for name, c := range map[string]struct {
		use  func(w *confdbtest.World)
		says string
	}{
		"another cluster's": {func(w *confdbtest.World) {
			gone := strangers(w.T, w.Cfg.Seed, 2)
			bootstrap(w.T, gone.Servers[1])
			gone.Must("the first cluster leads", 5*time.Second, func() bool { return leads(gone.Servers[1]) })
			w.Device.Swap(gone.Device.Blocks)
		}, "it belongs to another cluster (id c2); if that is needed no more, "},
		"another server's of this cluster": {func(w *confdbtest.World) {
			w.Device.Blocks[0] = diskdb.Header("c1", 7)
		}, "it holds this cluster already, or what another bootstrap left"},
		"a file system": {func(w *confdbtest.World) { w.Device.Blocks[0] = append([]byte("ext4"), make([]byte, 4092)...) }, "it holds something else, which is not overwritten"},
		"data behind":   {func(w *confdbtest.World) { w.Device.Blocks[200] = append([]byte("data"), make([]byte, 4092)...) }, "it holds something else, which is not overwritten"},
	} {
		for way, empty := range map[string]func(*confdbtest.Device){"rm": (*confdbtest.Device).Remove, "dd": (*confdbtest.Device).Empty} {
			t.Run(name+", "+way, func(t *testing.T) {
				for seed := range uint64(8) {
					w := strangers(t, seed, 1)
					c.use(w)
					writes := w.Device.Writes
					s := w.Servers[0]
					for range 2 { // again, while it is as it was
						bootstrap(t, s)
						refused(t, w, s, time.Second, "quorum device /dev/test: ", c.says, how)
						w.Run(time.Duration(w.Rng.Int64N(int64(2 * time.Second))))
					}
					if w.Device.Writes != writes {
						t.Error("it was written")
					}
					empty(w.Device) // a read may be under way that began before
					bootstrap(t, s)
					w.Must("it leads on the emptied device", 3*time.Second, func() bool { return leads(s) })
					propose(w, s, "works")
					if p := s.Driver.Status().DeviceProblem; p != "" {
						t.Errorf("a problem: %s", p)
					}
				}
			})
		}
	}
}

// The same where this server itself formatted the device and was killed half way.
func TestInterruptedBootstrapEmptied(t *testing.T) {
	w := strangers(t, 1, 1)
	s := w.Servers[0]
	bootstrap(t, s)
	w.Until(time.Second, func() bool { return w.Device.Blocks[0] != nil })
	s.Crash()
	w.Run(time.Second)
	s.Start()
	w.Run(time.Second) // it has read its header
	if st := s.Driver.Status(); st.Role != confdb.Outside || len(w.Device.Blocks) != 1 {
		t.Fatalf("%+v, %d blocks", st, len(w.Device.Blocks))
	}
	w.Device.Swap(map[int64][]byte{0: diskdb.Header("other", 9)})
	w.Run(time.Second)
	bootstrap(t, s)
	refused(t, w, s, time.Second, "it belongs to another cluster (id other); if that is needed no more")
	w.Device.Remove()
	bootstrap(t, s)
	w.Must("it leads on a new file", 3*time.Second, func() bool { return leads(s) })
}

// A bootstrap is killed at any moment, again and again, and its device may be emptied
// as it starts anew or is up again: in the end it leads, by what an apply asks for.
func TestBootstrapKilled(t *testing.T) {
	cut := 0
	for seed := range uint64(300) {
		w := strangers(t, seed, 1)
		s := w.Servers[0]
		w.Device.Absent = seed%2 == 0
		empty := []func(*confdbtest.Device){func(*confdbtest.Device) {}, (*confdbtest.Device).Empty, (*confdbtest.Device).Remove}[seed%3]
		soon := seed%4 < 2
		for range 1 + seed%5 {
			_ = s.Driver.Bootstrap() // or it is under way by itself
			s.Do(func(confdb.Driver) {})
			w.Run(time.Duration(w.Rng.Int64N(int64(1500 * time.Millisecond))))
			if len(s.Driver.Status().Voters) > 0 {
				break // it is a cluster by now, and emptying its device ends it
			}
			cut++
			s.Crash()
			w.Run(time.Duration(w.Rng.Int64N(int64(50 * time.Millisecond))))
			if soon {
				empty(w.Device)
			}
			s.Start()
			w.Run(time.Duration(w.Rng.Int64N(int64(500 * time.Millisecond))))
			if len(s.Driver.Status().Voters) > 0 {
				break
			}
			if !soon {
				empty(w.Device)
			}
		}
		for tries := 0; !leads(s); tries++ {
			if tries == 3 {
				t.Errorf("seed %d: %+v", seed, s.Driver.Status())
				break
			}
			_ = s.Driver.Bootstrap()
			s.Do(func(confdb.Driver) {})
			w.Until(6*time.Second, func() bool { return leads(s) || s.Driver.Status().BootRefused != "" })
		}
	}
	if cut < 300 {
		t.Errorf("too tame: %d were cut off", cut)
	}
}

// A device that can't be used for seconds ends a bootstrap, with the reason; it
// isn't made later, by itself.
func TestBootstrapWithoutDevice(t *testing.T) {
	for name, c := range map[string]struct {
		fails func(*confdbtest.Device, confdb.DeviceOp)
		says  string
	}{
		"all fails":          {func(d *confdbtest.Device, _ confdb.DeviceOp) { d.Gone = true }, "input/output error"},
		"can't be written":   {func(d *confdbtest.Device, _ confdb.DeviceOp) { d.Full = true }, "no space left on device"},
		"a bad block behind": {func(d *confdbtest.Device, op confdb.DeviceOp) { d.Gone = op.Length >= 1<<20 }, "input/output error"},
	} {
		for _, absent := range []bool{false, true} {
			if absent && name == "a bad block behind" {
				continue
			}
			t.Run(fmt.Sprintf("%s, absent %v", name, absent), func(t *testing.T) {
				w := strangers(t, 2, 1)
				s := w.Servers[0]
				w.Device.Absent = absent
				w.Device.Late = func(_ uint64, op confdb.DeviceOp) time.Duration {
					c.fails(w.Device, op)
					return 0
				}
				bootstrap(t, s)
				refused(t, w, s, 4*time.Second, c.says)
				w.Device.Late, w.Device.Full = nil, false
				w.Device.Mend()
				w.Run(10 * time.Second)
				if w.Device.Writes > 0 || s.Driver.Status().Role != confdb.Outside {
					t.Fatalf("it was made afterwards: %+v", s.Driver.Status())
				}
				bootstrap(t, s)
				w.Must("it leads", 3*time.Second, func() bool { return leads(s) })
			})
		}
	}
}

// Two clusters are made on one device at the same moment: one has it, and the
// other is told. Where operations take longer than they may, it may be none. (That both
// led, in one term, the world would see.)
func TestTwoClustersOnOneDevice(t *testing.T) {
	won := map[uint64]int{}
	for seed := range uint64(300) {
		w := strangers(t, seed, 2)
		slow := seed%3 == 0
		if slow {
			w.Device.Late = func(uint64, confdb.DeviceOp) time.Duration {
				return time.Duration(w.Rng.Int64N(int64(2 * time.Second)))
			}
		}
		if seed%2 == 0 {
			w.Device.Absent = true
		}
		bootstrap(t, w.Servers[0])
		w.Run(time.Duration(w.Rng.Int64N(int64(12 * time.Millisecond))))
		bootstrap(t, w.Servers[1])
		led := map[uint64]bool{}
		watch := func(span time.Duration) {
			for end := w.Now.Add(span); w.Now < end; w.Run(10 * time.Millisecond) {
				for _, s := range w.Servers {
					led[s.ID] = led[s.ID] || leads(s)
				}
			}
		}
		if watch(4 * time.Second); slow {
			watch(6 * time.Second)
			w.Device.Late = nil
			watch(10 * time.Second)
		}
		for _, s := range w.Servers {
			st := s.Driver.Status()
			switch {
			case led[s.ID]:
				won[s.ID]++
				if !leads(s) {
					t.Errorf("seed %d: server %d led, and does no more: %+v", seed, s.ID, st)
				}
			case st.BootRefused == "" || st.Role != confdb.Outside:
				t.Errorf("seed %d: server %d was not told: %+v", seed, s.ID, st)
			case !slow && !strings.Contains(st.BootRefused, "it belongs to another cluster"):
				t.Errorf("seed %d: %s", seed, st.BootRefused)
			}
		}
		if !slow && !led[1] && !led[2] {
			t.Errorf("seed %d: none of the two has the device", seed)
		}
		if led[1] || led[2] {
			continue
		}
		w.Device.Remove()
		bootstrap(t, w.Servers[1])
		w.Must("one has it once it is emptied", 3*time.Second, func() bool { return leads(w.Servers[1]) })
	}
	t.Logf("won: %v", won)
	if won[1] < 20 || won[2] < 20 {
		t.Errorf("too tame: %v", won)
	}
}

// A device is emptied while it is being made: the header that is written anew is
// held as the first one was, so that one of two clusters has it still.
func TestEmptiedAmidTwoBootstraps(t *testing.T) {
	for seed := range uint64(200) {
		w := strangers(t, seed, 2)
		one, two := w.Servers[0], w.Servers[1]
		bootstrap(t, one)
		w.Until(time.Second, func() bool { return w.Device.Blocks[0] != nil })
		w.Run(time.Duration(w.Rng.Int64N(int64(spec.DeviceHold(spec.DefaultDeviceIO.D())))))
		w.Device.Empty()
		formed := w.Device.Writes
		w.Until(time.Second, func() bool { return w.Device.Writes > formed })
		bootstrap(t, two)
		w.Run(5 * time.Second)
		if leads(one) == leads(two) {
			t.Errorf("seed %d: %+v, %+v", seed, one.Driver.Status(), two.Driver.Status())
		}
	}
}

// A header lands on the device when another cluster runs there long since: neither
// has it then, and both are told.
func TestHeaderLandsLate(t *testing.T) {
	w := strangers(t, 4, 2)
	w.Device.Late = func(server uint64, op confdb.DeviceOp) time.Duration {
		if server == 2 && op.Create {
			return 5 * time.Second
		}
		return 0
	}
	one, two := w.Servers[0], w.Servers[1]
	bootstrap(t, two)
	w.Run(20 * time.Millisecond) // it has seen an empty device
	bootstrap(t, one)
	w.Must("the one leads", 3*time.Second, func() bool { return leads(one) })
	refused(t, w, two, 10*time.Second, "what another bootstrap left that was cut off or went on at the same time", "if no cluster ever ran on it, empty it")
	w.Must("the one stops", time.Second, func() bool { return one.Driver.Status().Role != confdb.Leader })
	if st := one.Driver.Status(); !strings.Contains(st.DeviceProblem, "it belongs to another cluster (id c2)") {
		t.Errorf("%+v", st)
	}
}

// What failed is opened anew, and may be another file by then: it is looked at
// before anything is written.
func TestLookAfterAFailedWrite(t *testing.T) {
	for seed := range uint64(40) {
		w := world(t, seed, 2)
		owner := w.Leader()
		for i := range 30 {
			if err := owner.Propose(confdbtest.Note(fmt.Sprint("n", i), "")); err != nil {
				t.Fatal(err)
			}
		}
		w.Run(time.Duration(w.Rng.Int64N(int64(300 * time.Millisecond))))
		w.Device.Full = true
		if err := owner.Propose(confdbtest.Note("last", "")); err != nil {
			t.Fatal(err)
		}
		w.Until(time.Second, func() bool { return w.Device.Failed > 0 })
		w.Device.Full = false
		w.Device.Swap(map[int64][]byte{0: diskdb.Header("other", 9)})
		w.Run(5 * time.Second)
		if n := len(w.Device.Blocks); n != 1 {
			t.Errorf("seed %d: another cluster's device was written: it has %d blocks", seed, n)
		}
	}
}

// The same for the image that a new owner begins with.
func TestLookAfterAFailedImage(t *testing.T) {
	w := strangers(t, 1, 1)
	w.Device.Late = func(_ uint64, op confdb.DeviceOp) time.Duration {
		w.Device.Full = op.Data != nil && op.Offset >= 1<<20
		return 0
	}
	bootstrap(t, w.Servers[0])
	w.Must("the image can't be written", 3*time.Second, func() bool { return w.Device.Failed > 0 })
	w.Device.Late, w.Device.Full = nil, false
	w.Device.Swap(map[int64][]byte{0: diskdb.Header("other", 9)})
	if w.Run(5 * time.Second); len(w.Device.Blocks) != 1 {
		t.Errorf("another cluster's device was written: it has %d blocks", len(w.Device.Blocks))
	}
}

// A bootstrap has its slot, and the device is taken away before anything was
// committed: this server belongs to no cluster, and may be the first of one again.
func TestDeviceTakenFromABootstrap(t *testing.T) {
	for name, take := range map[string]func(*confdbtest.World){
		"removed":           func(w *confdbtest.World) { w.Device.Remove() },
		"emptied":           func(w *confdbtest.World) { w.Device.Empty() },
		"another cluster's": func(w *confdbtest.World) { w.Device.Swap(map[int64][]byte{0: diskdb.Header("other", 9)}) },
	} {
		taken := 0
		for seed := range uint64(20) {
			w := strangers(t, seed, 1)
			s := w.Servers[0]
			bootstrap(t, s)
			w.Until(3*time.Second, func() bool { return s.Driver.Status().Role != confdb.Outside })
			w.Run(time.Duration(w.Rng.Int64N(int64(500 * time.Millisecond))))
			if len(s.Driver.Status().Voters) > 0 {
				continue // it is a cluster by now
			}
			taken++
			take(w)
			refused(t, w, s, 5*time.Second, "it was taken away while the cluster was made")
			w.Device.Remove()
			bootstrap(t, s)
			w.Must(name+": it leads", 3*time.Second, func() bool { return leads(s) })
		}
		if taken < 5 {
			t.Errorf("%s: %d of 20 bootstraps were under way still", name, taken)
		}
	}
}

// A running cluster never takes an emptied device, nor another one in its place,
// for its own, nor writes there; nor does a former member that starts over it.
func TestDeviceSwappedUnderACluster(t *testing.T) {
	const inPlace = "zeros over its first MiB"
	other := map[int64][]byte{0: diskdb.Header("other", 9)}
	for name, c := range map[string]struct {
		swap func(*confdbtest.Device)
		says string // of a member that was there
	}{
		"removed":                    {(*confdbtest.Device).Remove, "there is no such file"},
		"another file, empty":        {func(d *confdbtest.Device) { d.Swap(map[int64][]byte{}) }, "not formatted"},
		inPlace:                      {(*confdbtest.Device).Empty, "not formatted"},
		"another cluster's":          {func(d *confdbtest.Device) { d.Swap(maps.Clone(other)) }, "it belongs to another cluster (id other)"},
		"formatted for it once more": {func(d *confdbtest.Device) { d.Swap(map[int64][]byte{0: diskdb.Header("test", 1)}) }, "it is another quorum device than it was"},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(6) {
				member := map[uint64]bool{}
				w := confdbtest.NewWorld(t, confdbtest.Config{Seed: seed, Servers: 2, CompactEvery: 20, Make: func(server, seed uint64, _ confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error) {
					return diskdb.New(diskdb.Config{ServerID: server, ClusterID: "test", Device: "/dev/test", Member: member[server], Seed: seed, Now: now})
				}})
				w.Form()
				propose(w, w.Leader(), "kept")
				busy := w.Leader()
				for i := range 20 { // updates are under way
					if err := busy.Propose(confdbtest.Note(fmt.Sprint("n", i), "")); err != nil {
						t.Fatal(err)
					}
				}
				w.Run(time.Duration(w.Rng.Int64N(int64(20 * time.Millisecond))))
				file := w.Device.Blocks
				was := maps.Clone(file)
				c.swap(w.Device)
				there := maps.Clone(w.Device.Blocks)
				// What was zeroed in place is still written by whoever looked at it before.
				w.Run(spec.DefaultDeviceIO.D())
				writes := w.Device.Writes
				if w.Run(spec.DefaultDeviceIO.D() + 50*time.Millisecond); !w.Device.Absent && busy.Driver.Status().Role == confdb.Leader {
					t.Errorf("the owner goes on until its lease is over: %+v", busy.Driver.Status())
				}
				w.Run(20 * time.Second)
				if w.Device.Writes != writes {
					t.Errorf("%d writes, long after the device was swapped", w.Device.Writes-writes)
				}
				for _, s := range w.Servers {
					st := s.Driver.Status()
					if st.Role == confdb.Leader || st.AuthorityUntil > w.Now || !strings.Contains(st.DeviceProblem, c.says) {
						t.Errorf("server %d: %+v", s.ID, st)
					}
					if err := s.Driver.Bootstrap(); !errors.Is(err, confdb.ErrBootstrap) {
						t.Errorf("server %d may begin anew: %v", s.ID, err)
					}
				}
				if name != inPlace && !maps.EqualFunc(w.Device.Blocks, there, bytes.Equal) {
					t.Errorf("what was put in its place was written: %d blocks, %d before", len(w.Device.Blocks), len(there))
				}
				// All start again, and know their device no more.
				for _, s := range w.Servers {
					s.Crash()
					member[s.ID] = true
				}
				w.Run(time.Second)
				for _, s := range w.Servers {
					s.Start()
				}
				w.Run(time.Second)
				bootstrap(t, w.Servers[0])
				refused(t, w, w.Servers[0], time.Second, "")
				w.Run(5 * time.Second)
				if st := w.Servers[0].Driver.Status(); st.BootRefused == "" || w.Device.Writes != writes {
					t.Errorf("a former member takes the device: %+v, %d writes", st, w.Device.Writes-writes)
				}
				for n := range int64(1 << 20 / diskdb.Block) { // what dd took away
					if file[n] == nil && was[n] != nil {
						file[n] = was[n]
					}
				}
				w.Device.Swap(file)
				w.Must("the cluster goes on with its own", 10*time.Second, func() bool { return w.Leader() != nil })
				if got := confdbtest.Notes(w.Leader().State); len(got) == 0 || got[0] != "kept" {
					t.Errorf("it has %q", got)
				}
			}
		})
	}
}
