package localstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
)

// elsewhere has the lock say that its holder is on another host.
func elsewhere(t *testing.T, s *Store, term time.Duration) Info {
	t.Helper()
	h, err := s.Holder()
	do(t, err)
	h.Boot, h.PID, h.TermMS = "another", 1, term.Milliseconds()
	data, _ := json.MarshalIndent(h, "", "  ")
	f, err := os.OpenFile(s.lock(), os.O_WRONLY|os.O_TRUNC, 0)
	do(t, err)
	_, err = f.Write(data)
	do(t, err, f.Close())
	return *h
}

// Of a holder on another host only its heartbeat is known, and that is watched by
// one's own clock: what time the file says, or this host's clock, is no matter.
func TestLockOfAnotherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, DefaultPath(t.TempDir()))
		l, err := s.take(context.Background(), statefile.LockRequest{Who: "anna@other", What: "apply"})
		do(t, err)
		elsewhere(t, s, time.Minute)
		told := 0
		watching := func(h statefile.LockInfo, term time.Duration) {
			if told++; h.Who != "anna@other" || term != time.Minute {
				t.Errorf("watching %+v for %v", h, term)
			}
		}
		for _, jump := range []time.Duration{-1000 * time.Hour, 1000 * time.Hour} {
			do(t, os.Chtimes(s.lock(), time.Time{}, time.Now().Add(jump)))
			began := time.Now()
			if _, err := s.take(context.Background(), statefile.LockRequest{Watching: watching}); !errors.Is(err, statefile.ErrLocked) {
				t.Fatal("a renewed lock was taken over", err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v to see a heartbeat", took)
			}
		}
		if told != 2 {
			t.Errorf("told %d times, not twice", told)
		}
		// Dead: no heartbeat any more. The file's time is jumped to now, and far off.
		l.stop()
		<-l.done
		do(t, os.Chtimes(s.lock(), time.Time{}, time.Now().Add(-1000*time.Hour)))
		began := time.Now()
		l2, err := s.take(context.Background(), statefile.LockRequest{Who: "ben@here", What: "plan"})
		do(t, err)
		if took := time.Since(began); took < time.Minute || took > 62*time.Second {
			t.Errorf("taken over after %v", took)
		}
		if from := l2.TookOver(); from == nil || l2.Info().Generation != from.Generation+1 {
			t.Errorf("took over %+v, now %+v", from, l2.Info())
		}
		if err := l.Append(begin("r")); !errors.Is(err, statefile.ErrLockLost) || !strings.Contains(err.Error(), "ben@here (plan") || !strings.Contains(err.Error(), "generation 2; this run's was 1") {
			t.Error(err)
		}
		if err := l.renew(); !errors.Is(err, statefile.ErrLockLost) {
			t.Error(err)
		}
		do(t, l.Release())
		if h, _ := s.Holder(); h == nil || h.ID != l2.Info().ID {
			t.Error("the old holder's release took the new one's lock")
		}
		do(t, l2.Release())
	})
}

// noFlock is a store on a file system whose flock fails, as NFS's does for directories.
func noFlock(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{Program: "0.1.0", Lease: 4 * time.Millisecond, Heartbeat: time.Millisecond})
	do(t, err)
	s.flock = func(int, int) error { return syscall.EBADF }
	return s
}

// The holder stands still just before its k-th effect, which no flock guards;
// its lock is taken over, the taker works, and then the holder goes on: it gets an
// error and changes nothing more, and nothing is lost that either was told is done.
func TestTakenOverAtAnyMoment(t *testing.T) {
	for _, finished := range []bool{true, false} {
		for k := 1; ; k++ {
			name := fmt.Sprintf("effect %d, the taker finished %v", k, finished)
			path := filepath.Join(t.TempDir(), "state.json")
			first := open(t, path)
			l0 := lock(t, first)
			do(t, run(l0, "r0", made("n0")), l0.Append(begin("cut"), made("c0")), l0.Release())

			s, taker := noFlock(t, path), noFlock(t, path)
			s.opts.Lease, s.opts.Heartbeat = time.Hour, time.Minute
			l := lock(t, s)
			var l2 *Lock
			at, n, where := k, 0, ""
			s.step = func(what string) {
				if n++; n != at {
					return
				}
				where = what
				elsewhere(t, s, time.Millisecond)
				var err error
				l2, err = taker.take(context.Background(), statefile.LockRequest{Who: "ben", What: "apply"})
				do(t, err)
				do(t, l2.Append(begin("taker"), made("t1")))
				if finished {
					snap, err := l2.Read(context.Background())
					do(t, err, l2.Finish(snap.State), l2.Append(begin("taker 2"), made("t2")))
				}
			}
			told := map[string]bool{"n0": true, "c0": true} // what somebody was told is durable
			err := func() error {
				if err := l.Append(begin("r1")); err != nil {
					return err
				}
				for _, name := range []string{"a", "b"} {
					if err := l.Append(made(name)); err != nil {
						return err
					}
					told[name] = true
				}
				snap, err := l.Read(context.Background())
				if err != nil {
					return err
				}
				if err := l.Finish(snap.State); err != nil {
					return err
				}
				if err := l.Append(begin("r2"), made("d")); err != nil {
					return err
				}
				told["d"] = true
				return l.Release()
			}()
			if l2 == nil {
				if k < 12 {
					t.Fatalf("only %d effects", k)
				}
				break
			}
			if err != nil && !errors.Is(err, statefile.ErrLockLost) {
				t.Fatalf("%s (%s): %v", name, where, err)
			}
			if err == nil && where != "unlock" && where != "finished" && where != "appended" {
				t.Fatalf("%s (%s): the holder went on", name, where)
			}
			do(t, l.Release(), l2.Append(made("t3")))
			told["t1"], told["t3"], told["t2"] = true, true, finished
			check := func(when string) {
				snap, err := first.Read(context.Background())
				if err != nil {
					t.Fatalf("%s (%s), %s: %v", name, where, when, err)
				}
				have := " " + describe(snap) + " "
				for name, durable := range told {
					if durable && !strings.Contains(have, " "+name+" ") {
						t.Fatalf("%s (%s), %s: %s is lost: %s", name, where, when, name, have)
					}
				}
			}
			check("the taker at work")
			snap, err := l2.Read(context.Background())
			do(t, err, l2.Finish(snap.State), l2.Release())
			check("the taker done")
			l3 := lock(t, first)
			do(t, run(l3, "after", made("z")), l3.Release())
			told["z"] = true
			check("another run")
		}
	}
}

// Where there is a flock, nobody gets between a look at the lock and the write
// that rests on it, however long that takes.
func TestGuardKeepsTakersOut(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s := open(t, path)
	l := lock(t, s)
	taker, err := Open(path, Options{Lease: 2 * time.Millisecond, Heartbeat: time.Millisecond, guard: time.Millisecond})
	do(t, err)
	tried := 0
	s.step = func(what string) {
		if tried++; tried == 1 {
			elsewhere(t, s, time.Millisecond)
		}
		if _, err := taker.take(context.Background(), statefile.LockRequest{}); !errors.Is(err, statefile.ErrLocked) || !strings.Contains(err.Error(), "in the middle of a write") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := taker.ForceUnlock(context.Background(), l.Info().ID); !errors.Is(err, statefile.ErrLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	do(t, run(l, "r1", made("n1")))
	if tried < 6 {
		t.Errorf("tried %d times", tried)
	}
}

// Many take one lock at once, and no flock helps them: one at a time has it.
func TestRaceForTheLock(t *testing.T) {
	path := DefaultPath(t.TempDir())
	l := lock(t, noFlock(t, path))
	do(t, run(l, "r0", made("n")), l.Release())
	var holders atomic.Int32
	var wg sync.WaitGroup
	for i := range 6 {
		s := noFlock(t, path)
		wg.Go(func() {
			for range 8 {
				l, err := s.take(context.Background(), statefile.LockRequest{Who: fmt.Sprint(i), Timeout: 30 * time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) != 1 {
					t.Error("two hold it at once")
				}
				if err := l.Append(begin("r"), made(fmt.Sprintf("n%d", i))); err != nil {
					t.Error(err)
				}
				holders.Add(-1)
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, open(t, path)); got != "n n0 n1 n2 n3 n4 n5" {
		t.Errorf("holds %s", got)
	}
}

// States and journals that earlier programs wrote (testdata/formats; one of each
// was killed at work) are read, gone on from, and kept as they were.
func TestOlderFormats(t *testing.T) {
	dirs, err := filepath.Glob("testdata/formats/*/*")
	if err != nil || len(dirs) < 4 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(strings.TrimPrefix(dir, "testdata/formats/"), func(t *testing.T) {
			to := t.TempDir()
			do(t, os.CopyFS(to, os.DirFS(dir)))
			path := filepath.Join(to, "state.json")
			before, err := os.ReadFile(path)
			do(t, err)
			format := strings.Split(filepath.Base(filepath.Dir(dir)), "-")[0]
			if !strings.Contains(string(before), `"format_version": "`+format+`"`) {
				t.Fatalf("it is not of format %s", format)
			}
			s := open(t, path)
			if filepath.Base(dir) == "cut" { // and on a file system without hard links
				s.link = func(old, name string) error {
					return &os.LinkError{Op: "link", Old: old, New: name, Err: syscall.EPERM}
				}
			}
			snap, err := s.Read(context.Background())
			do(t, err)
			if snap.State.FormatVersion != statefile.FormatVersion || snap.State.Cluster == nil || len(snap.State.Objects) < 5 {
				t.Fatalf("%+v", snap.State)
			}
			cut := filepath.Base(dir) == "cut"
			if cut != (snap.Unfinished > 0) || cut != (len(snap.Pending) > 0) {
				t.Errorf("%d records, %d pending", snap.Unfinished, len(snap.Pending))
			}
			l := lock(t, s)
			do(t, l.Append(begin("r")), l.Append(made("zz")))
			again, err := l.Read(context.Background())
			do(t, err)
			if len(again.State.Objects) != len(snap.State.Objects)+1 || len(again.Pending) != len(snap.Pending) {
				t.Errorf("%d objects and %d pending after one more, of %d and %d", len(again.State.Objects), len(again.Pending), len(snap.State.Objects), len(snap.Pending))
			}
			do(t, l.Finish(again.State), l.Release())
			after, err := os.ReadFile(path)
			if err != nil || !strings.Contains(string(after), `"format_version": "`+statefile.FormatVersion+`"`) {
				t.Errorf("written back as %.40s, %v", after, err)
			}
			if secret := regexp.MustCompile(`"command":\["sleep".*"sensitive":\["command"\]`); secret.Match(before) { // a copy has none of it
				if before, err = statefile.Redact(before); err != nil || secret.Match(before) || secret.Match(after) {
					t.Error("the secret is no digest", err)
				}
			} else if strings.Contains(dir, "1.1") {
				t.Error("there is no secret in it")
			}
			kept, err := os.ReadFile(fmt.Sprintf("%s.%d.format-%s.backup", path, snap.State.Serial, format))
			if err != nil || string(kept) != string(before) {
				t.Errorf("the older state was not kept: %v", err)
			}
			if backup, err := os.ReadFile(s.backup()); err != nil || string(backup) != string(before) {
				t.Errorf("the state before is not the backup: %v", err)
			}
		})
	}
}

// A run over a state of an older format may be killed before any of its effects: what was
// there is there, the state that it began with is kept once it is written anew, and the
// next run goes on.
func TestOlderFormatsKilled(t *testing.T) {
	dirs, err := filepath.Glob("testdata/formats/*/*")
	if err != nil || len(dirs) < 4 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		format := strings.Split(filepath.Base(filepath.Dir(dir)), "-")[0]
		path, copies := filepath.Join(t.TempDir(), "state.json"), t.TempDir()
		do(t, os.CopyFS(filepath.Dir(path), os.DirFS(dir)))
		s := open(t, path)
		first, err := s.Read(context.Background())
		do(t, err)
		var at []string
		s.step = func(what string) {
			to := filepath.Join(copies, fmt.Sprintf("%02d %s", len(at), what))
			do(t, os.CopyFS(to, os.DirFS(filepath.Dir(path))))
			at = append(at, to)
		}
		l := lock(t, s)
		do(t, l.Append(begin("r")), l.Append(made("zz")))
		snap, err := l.Read(context.Background())
		do(t, err, l.Finish(snap.State), l.Release())
		if len(at) < 8 {
			t.Fatalf("%s: %d effects", dir, len(at))
		}
		for _, to := range append(at, filepath.Dir(path)) {
			do(t, os.RemoveAll(filepath.Join(to, "state.json.lock"))) // of who was killed
			s := open(t, filepath.Join(to, "state.json"))
			l := lock(t, s)
			do(t, l.Append(begin("next")), l.Append(made("yy")))
			snap, err := l.Read(context.Background())
			do(t, err, l.Finish(snap.State), l.Release())
			if snap, err = s.Read(context.Background()); err != nil {
				t.Errorf("%s, %s: %v", dir, filepath.Base(to), err)
				continue
			}
			for _, o := range first.State.Objects {
				if now := snap.State.Find(o.Addr); now == nil || !reflect.DeepEqual(*now, o) {
					t.Errorf("%s, %s: %s was %+v and is %+v", dir, filepath.Base(to), o.Addr, o, now)
				}
			}
			if snap.State.Serial <= first.State.Serial || !reflect.DeepEqual(snap.State.Cluster, first.State.Cluster) || snap.State.Find(made("yy").Result.Addr) == nil {
				t.Errorf("%s, %s: %+v", dir, filepath.Base(to), snap.State)
			}
			if _, err := os.Stat(filepath.Join(to, fmt.Sprintf("state.json.%d.format-%s.backup", first.State.Serial, format))); err != nil {
				t.Errorf("%s, %s: %v", dir, filepath.Base(to), err)
			}
		}
	}
}
