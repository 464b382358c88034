package apply_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// fullDisk is a journal on a disk that has no room from its k-th append on.
type fullDisk struct {
	t     *testing.T
	lock  statefile.Lock
	known *journal // what somebody was told is durable
	dir   string
	k, n  int
	full  bool
}

func (j *fullDisk) Append(entries ...statefile.Entry) error {
	if j.n++; j.n == j.k {
		j.full = true
		f, err := os.Create(filepath.Join(j.dir, "filler"))
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		// A record that fits into the last page has room still: take that as well.
		if fi, serr := os.Stat(filepath.Join(j.dir, "state.json.journal")); serr == nil {
			entries[0].Intent = padded(entries[0].Intent, 4096-int(fi.Size()%4096))
		}
		f.Close()
	}
	if err := j.lock.Append(entries...); err != nil {
		return err
	}
	return j.known.Append(entries...)
}

// padded is an intent of at least n bytes more.
func padded(i *statefile.Intent, n int) *statefile.Intent {
	if i == nil || i.Object == nil {
		return i
	}
	in := *i
	o := *i.Object
	o.Tainted = strings.Repeat("x", n)
	in.Object = &o
	return &in
}

// The disk fills up at any write of an apply. Nothing is begun that is not
// written; what was told is durable is on the disk; and with room again the next
// apply comes to the end that it would have come to.
func TestFullDiskAtEveryWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k,mode=700"); err != nil {
		t.Skip("can't mount a tmpfs here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	want, failed := "", 0
	for k := 0; ; k++ { // 0: there is always room
		l := newLab(t)
		def := l.load(threeNodes + twoGroups)
		home := filepath.Join(dir, "s")
		store, err := localstore.Open(filepath.Join(home, "state.json"), localstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		lock, err := store.Lock(context.Background(), statefile.LockRequest{Who: "anna", What: "apply"})
		if err != nil {
			t.Fatal(err)
		}
		j := &fullDisk{t: t, lock: lock, known: &l.journal, dir: home, k: k}
		l.conf = func(c *apply.Config) { c.Parallelism, c.Journal = 1, j }
		res, _, err := l.apply(def, "")
		calls := len(l.world.Calls)
		if err != nil {
			failed++
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room on the disk of "+home) {
				t.Fatalf("write %d: %v", k, err)
			}
			if calls > j.n {
				t.Fatalf("write %d: %d calls after %d writes", k, calls, j.n)
			}
			if err := lock.Release(); err != nil {
				t.Fatalf("write %d: %v", k, err)
			}
			snap, err := store.Read(context.Background())
			if err != nil {
				t.Fatalf("write %d: %v", k, err)
			}
			state, pending := l.current()
			byAddr := cmp.Comparer(func(a, b addr.Address) bool { return a == b })
			if diff := cmp.Diff(state.Objects, snap.State.Objects, byAddr, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("write %d: the disk has something else than was told:\n%s", k, diff)
			}
			if len(pending) != len(snap.Pending) || len(pending) != len(res.Pending) {
				t.Fatalf("write %d: %d pending, on the disk %d, told %d", k, len(pending), len(snap.Pending), len(res.Pending))
			}
			l.conf = nil
			l.must(def, "")
		} else if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
		l.settled(def)
		if got := l.summary(); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("write %d:\n%s\nwant:\n%s", k, got, want)
		}
		if err := os.RemoveAll(home); err != nil {
			t.Fatal(err)
		}
		if k > 0 && !j.full {
			break
		}
	}
	if failed < 3 {
		t.Errorf("only %d applies met a full disk", failed)
	}
}

// The disk fails at any effect of an apply, from its lock to its end, once or from
// then on. The error says so; nothing is begun that is not written; what was told
// is durable is there; and on a disk that works the next apply comes to the end
// that it would have come to.
func TestFailingDiskAtEveryWrite(t *testing.T) {
	if raced {
		t.Skip("run without the race detector")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=700"); err != nil {
		t.Skip("can't mount a tmpfs here:", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	home := filepath.Join(dir, "s")
	store, err := localstore.Open(filepath.Join(home, "state.json"), localstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, hit := "", 0
	for _, once := range []bool{true, false} {
		for k := 0; ; k++ { // 0: the disk works
			l := newLab(t)
			def := l.load(threeNodes + twoGroups)
			n := 0
			heal := atomicfile.Inject(func(op, path string) error {
				if strings.HasPrefix(path, home) {
					if n++; k > 0 && (n == k || n > k && !once) {
						return syscall.EIO
					}
				}
				return nil
			})
			err := l.applyOnDisk(store, def)
			heal()
			if reached := k > 0 && n >= k; reached {
				hit++
				if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "the disk of "+home+" fails (see dmesg)") {
					t.Fatalf("effect %d, once %v: %v", k, once, err)
				}
				if h, err := store.Holder(); err != nil {
					t.Fatal(err)
				} else if h != nil { // its process would be dead
					if _, err := store.ForceUnlock(context.Background(), h.ID); err != nil {
						t.Fatal(err)
					}
				}
				snap, err := store.Read(context.Background())
				if err != nil {
					t.Fatalf("effect %d, once %v: %v", k, once, err)
				}
				told, _ := l.current()
				for _, o := range told.Objects {
					if snap.State.Find(o.Addr) == nil {
						t.Fatalf("effect %d, once %v: %s is lost", k, once, o.Addr)
					}
				}
				if err := l.applyOnDisk(store, def); err != nil {
					t.Fatalf("effect %d, once %v, the next apply: %v", k, once, err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			l.settled(def)
			if got := l.summary(); want == "" {
				want = got
			} else if got != want {
				t.Fatalf("effect %d, once %v:\n%s\nwant:\n%s", k, once, got, want)
			}
			if err := os.RemoveAll(home); err != nil {
				t.Fatal(err)
			}
			if n < k {
				break
			}
		}
	}
	if hit < 100 {
		t.Errorf("only %d applies met a failing disk", hit)
	}
}

// applyOnDisk is one apply with its state and journal in a store.
func (l *lab) applyOnDisk(store statefile.Store, def *lang.Definition) (err error) {
	lock, err := store.Lock(context.Background(), statefile.LockRequest{Who: "anna", What: "apply"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	snap, err := lock.Read(context.Background())
	if err != nil {
		return err
	}
	pending := make([]statefile.Entry, len(snap.Pending))
	for i := range snap.Pending {
		pending[i].Intent = &snap.Pending[i].Intent
	}
	if snap.State.Lineage != "" {
		l.state = snap.State
	}
	l.journal = journal{entries: pending}
	l.conf = func(c *apply.Config) {
		c.Parallelism, c.Journal = 1, &fullDisk{lock: lock, known: &l.journal, k: -1}
	}
	defer func() { l.conf = nil }()
	res, _, err := l.apply(def, "")
	if err != nil {
		return err
	}
	return lock.Finish(res.State)
}
