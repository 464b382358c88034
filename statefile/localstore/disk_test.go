package localstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
)

// tmpfs mounts a small file system of memory.
func tmpfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700"); err != nil {
		t.Skip("can't mount a tmpfs here:", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all room; what it returns gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	do(t, err)
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	do(t, f.Close())
	return func() { do(t, os.Remove(name)) }
}

// The disk is full from before the k-th effect on. What can't be written is an
// error that says where and what to do; what somebody was told is durable is
// there, and once there is room the next run goes on.
func TestFullDiskAnywhere(t *testing.T) {
	dir := tmpfs(t)
	failed := map[string]bool{}
	for k := 1; ; k++ {
		home := filepath.Join(dir, fmt.Sprint(k))
		path := filepath.Join(home, "state.json")
		s := open(t, path)
		l0 := lock(t, s)
		do(t, run(l0, "r0", made("n0")), l0.Append(begin("cut"), made("c0")), l0.Release())
		n, where := 0, ""
		free := func() {}
		s.step = func(what string) {
			if n++; n == k {
				where, free = what, fill(t, dir)
			}
		}
		told := map[string]bool{"n0": true, "c0": true}
		err := func() error {
			l, err := s.take(context.Background(), statefile.LockRequest{Who: "anna", What: "apply"})
			if err != nil {
				return err
			}
			defer l.Release()
			if _, err := l.Keep(context.Background()); err != nil {
				return err
			}
			for i := range 3 {
				big := made(fmt.Sprint("m", i))
				big.Result.Object.Tainted = strings.Repeat("x", 3000) // more than what is left of a page
				if err := l.Append(begin(fmt.Sprint("r", i)), big); err != nil {
					return errors.Join(err, check(l.Append(begin("again")) != nil, "it was written to after an error"))
				}
				told[fmt.Sprint("m", i)] = true
				snap, err := l.Read(context.Background())
				if err != nil {
					return err
				}
				if err := l.Finish(snap.State); err != nil {
					return err
				}
			}
			return l.Release()
		}()
		full := where != ""
		if err != nil {
			failed[where] = true
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room on the disk of "+home) || strings.Contains(err.Error(), "it was written") {
				t.Fatalf("effect %d (%s): %v", k, where, err)
			}
		}
		look := func(when string) {
			t.Helper()
			snap, err := s.Read(context.Background())
			if err != nil {
				t.Fatalf("effect %d (%s), %s: %v", k, where, when, err)
			}
			have := " " + describe(snap) + " "
			for name := range told {
				if !strings.Contains(have, " "+name+" ") {
					t.Fatalf("effect %d (%s), %s: %s is lost: %s", k, where, when, name, have)
				}
			}
		}
		look("full")
		if h, err := s.Holder(); h != nil || err != nil {
			t.Fatalf("effect %d (%s): the lock stays: %+v, %v", k, where, h, err)
		}
		free()
		s.step = func(string) {}
		l := lock(t, s)
		do(t, run(l, "after", made("z")), l.Release())
		told["z"] = true
		look("with room again")
		do(t, os.RemoveAll(home))
		if !full {
			break
		}
	}
	for _, where := range []string{"lock", "copy journal", "keep", "append", "open journal", "snapshot"} {
		if !failed[where] {
			t.Errorf("nothing failed at %q", where)
		}
	}
}

func check(ok bool, words string) error {
	if ok {
		return nil
	}
	return errors.New(words)
}

// To break a lock takes no room, nor does its heartbeat.
func TestUnlockOnAFullDisk(t *testing.T) {
	dir := tmpfs(t)
	s := open(t, filepath.Join(dir, "state.json"))
	l := lock(t, s)
	free := fill(t, dir)
	do(t, l.renew())
	_, err := s.ForceUnlock(context.Background(), l.Info().ID)
	do(t, err)
	if err := l.Append(begin("r")); !errors.Is(err, statefile.ErrLockLost) {
		t.Error(err)
	}
	free()
	l2 := lock(t, s)
	do(t, run(l2, "r", made("n")))
}

func TestReadOnlyDisk(t *testing.T) {
	dir := tmpfs(t)
	s := open(t, filepath.Join(dir, "state.json"))
	l := lock(t, s)
	do(t, run(l, "r0", made("n")), l.Append(begin("r1"), made("m")), l.Release())
	do(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if got := names(t, s); got != "m n" {
		t.Errorf("reads %s", got)
	}
	_, err := s.take(context.Background(), statefile.LockRequest{})
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "mount the file system of "+dir+" so that it can be written") {
		t.Error(err)
	}
	do(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""))
	l2 := lock(t, s)
	do(t, run(l2, "r2", made("k")), l2.Release())
	if got := names(t, s); got != "k m n" {
		t.Errorf("holds %s", got)
	}
}

// The directory goes while a run is at work: it is told, and nothing is made in
// its place.
func TestDirectoryRemoved(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s, err := Open(path, Options{Heartbeat: time.Millisecond})
	do(t, err)
	l := lock(t, s)
	do(t, l.Append(begin("r"), made("n")))
	do(t, os.RemoveAll(filepath.Dir(path)))
	select {
	case <-l.Lost():
	case <-time.After(20 * time.Second):
		t.Error("not seen")
	}
	snap := statefile.Snapshot{}
	for _, err := range []error{l.Append(made("m")), l.Finish(snap.State), l.Why()} {
		if !errors.Is(err, statefile.ErrLockLost) || !strings.Contains(err.Error(), "the directory "+filepath.Dir(path)+" is gone") {
			t.Error(err)
		}
	}
	do(t, l.Release())
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Error("the directory is back")
	}
}

// A crash kept pages of the last write, of several records, from the disk: what was
// told to be durable is there, that write is not, and the next run goes on.
func TestTornWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	s := open(t, path)
	l := lock(t, s)
	do(t, run(l, "r0", made("n0")), l.Append(begin("cut")), l.Append(made("n1"), made("n2")))
	durable, err := os.Stat(s.journal())
	do(t, err, l.Append(made("n3"), made("n4"), made("n5")), l.Release())
	whole, err := os.ReadFile(s.journal())
	do(t, err)
	for from := int(durable.Size()); from < len(whole); from += 64 {
		bad := bytes.Clone(whole)
		clear(bad[from:min(from+64, len(bad))])
		do(t, os.WriteFile(s.journal(), bad, 0o600))
		if got := names(t, s); got != "n0 n1 n2" {
			t.Fatalf("zeros from %d: holds %s", from, got)
		}
	}
	l = lock(t, s)
	do(t, l.Append(begin("next")), l.Append(made("n6"), made("n7")), l.Release())
	if got := names(t, s); got != "n0 n1 n2 n6 n7" {
		t.Errorf("holds %s", got)
	}
}
