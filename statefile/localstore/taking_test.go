package localstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/statefile"
)

// onNFS is a store on a shared disk: the flock of a directory succeeds there, and
// keeps out nobody on other hosts.
func onNFS(t *testing.T, path string) *Store {
	t.Helper()
	s := noFlock(t, path)
	s.flock = func(int, int) error { return nil }
	s.fsType = func(int) (int64, error) { return unix.NFS_SUPER_MAGIC, nil }
	return s
}

// Somebody stands still just before the k-th effect of taking a lock, or of
// replacing a state without a journal, where no flock helps; another takes the
// lock over and works. Nothing that the taker was told is durable is lost, however
// the first one wakes up.
func TestTakenOverWhileTaking(t *testing.T) {
	for _, left := range []string{"nothing", "a cut off journal", "a journal that is folded in"} {
		for k := 1; ; k++ {
			path := filepath.Join(t.TempDir(), "prod[1]*", "state.json") // no pattern, a name
			first := open(t, path)
			l0 := lock(t, first)
			do(t, run(l0, "r0", made("n0")))
			if left != "nothing" {
				do(t, l0.Append(begin("cut"), made("c0")))
			}
			if left == "a journal that is folded in" {
				journal, err := os.ReadFile(first.journal())
				do(t, err)
				snap, err := l0.Read(context.Background())
				do(t, err, l0.Finish(snap.State), os.WriteFile(first.journal(), journal, 0o600))
			}
			do(t, l0.Release())

			s, taker := onNFS(t, path), onNFS(t, path)
			s.opts.Lease, s.opts.Heartbeat = time.Hour, time.Minute
			var l2 *Lock
			n, where := 0, ""
			s.step = func(what string) {
				if n++; n != k {
					return
				}
				where = what
				if h, err := s.Holder(); err != nil || h != nil {
					elsewhere(t, s, time.Millisecond)
				}
				var err error
				l2, err = taker.take(context.Background(), statefile.LockRequest{Who: "ben", What: "apply"})
				do(t, err, l2.Append(begin("taker"), made("t1")))
			}
			err := func() error {
				l, err := s.take(context.Background(), statefile.LockRequest{Who: "anna", What: "state push"})
				if err != nil {
					return err
				}
				defer l.Release()
				snap, err := l.Read(context.Background())
				if err != nil {
					return err
				}
				return l.Replace(snap.State)
			}()
			if l2 == nil {
				if k < 6 {
					t.Fatalf("only %d effects", k)
				}
				break
			}
			name := fmt.Sprintf("%s, effect %d (%s)", left, k, where)
			if err != nil && !errors.Is(err, statefile.ErrLockLost) && !errors.Is(err, statefile.ErrLocked) {
				t.Errorf("%s: %v", name, err)
			}
			do(t, l2.Append(made("t2")))
			snap, err := first.Read(context.Background())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			have := " " + describe(snap) + " "
			for _, one := range []string{"n0", "t1", "t2"} {
				if !strings.Contains(have, " "+one+" ") {
					t.Errorf("%s: %s is lost: %s", name, one, have)
				}
			}
			do(t, l2.Release())
		}
	}
}

// A process that can't be looked at now, as no more files can be opened, is not dead.
func TestProcessThatCantBeSeen(t *testing.T) {
	me, err := self()
	do(t, err)
	var was unix.Rlimit
	do(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	do(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}))
	running := me.running()
	_, unseen := os.ReadFile("/proc/self/stat")
	do(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	if !errors.Is(unseen, unix.EMFILE) || !running {
		t.Errorf("running: %v; it could be looked at: %v", running, unseen)
	}
	me.PID = 1 << 30
	if me.running() {
		t.Error("one that is not there runs")
	}
}

// States that share a directory leave each other's files alone, also where one is
// called as another begins.
func TestStatesInOneDirectory(t *testing.T) {
	dir := t.TempDir()
	one, other := onNFS(t, filepath.Join(dir, "prod-1")), onNFS(t, filepath.Join(dir, "prod"))
	l := lock(t, one)
	met := map[string]bool{}
	one.step = func(what string) {
		met[what] = true
		l, err := other.take(context.Background(), statefile.LockRequest{Who: "ben"})
		do(t, err, l.Append(begin("r")), l.Release())
	}
	do(t, run(l, "r1", made("n1")), run(l, "r2", made("n2")))
	if got := names(t, one); got != "n1 n2" || !met["rename journal"] || !met["rename snapshot"] {
		t.Errorf("%s; %v", got, met)
	}
}

// A clone of a running machine has its boot and its process ids, and not its processes.
func TestLockOfAClonedMachine(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s, err := Open(path, Options{Lease: 20 * time.Second, Heartbeat: time.Millisecond})
	do(t, err)
	l := lock(t, s)
	h := l.info
	h.Host, h.PID = "original", 1<<30 // dead here
	data, err := json.MarshalIndent(h, "", "  ")
	do(t, err, os.WriteFile(s.lock(), data, 0o600))
	if _, err := s.take(context.Background(), statefile.LockRequest{}); !errors.Is(err, statefile.ErrLocked) {
		t.Errorf("a live holder's lock was taken over: %v", err)
	}
}
