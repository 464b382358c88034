package localstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clusterplan/clusterplan/internal/atomicfile"

	"github.com/clusterplan/clusterplan/statefile"
)

// Ways for a disk to fail at the k-th effect.
const (
	failsOnce  = "once"
	failsOn    = "from then on"
	failsLoses = "once, and what was to be synced is lost"
)

// failingDisk has the k-th effect below dir fail. count tells how many there were,
// where what failed.
func failingDisk(t *testing.T, dir, how string, k int) (count *int, where *string, heal func()) {
	t.Helper()
	var n int
	var at string
	sizes := map[string]int64{}
	heal = atomicfile.Inject(func(op, path string) error {
		if !strings.HasPrefix(path, dir) {
			return nil
		}
		if fi, err := os.Stat(path); op == "write" && err == nil {
			sizes[path] = fi.Size()
		}
		if n++; n < k || n > k && how != failsOn {
			return nil
		}
		if at == "" {
			at = op + " " + strings.TrimLeft(filepath.Base(path), "0123456789")
		}
		if how == failsLoses && op == "sync" {
			_ = os.Truncate(path, sizes[path])
		}
		return syscall.EIO
	})
	t.Cleanup(heal)
	return &n, &at, heal
}

// The disk fails at the k-th effect of a run, for once or for good. The error
// says what, where and what to do; what somebody was told is durable is there, and
// the next run goes on.
func TestFailingDiskAnywhere(t *testing.T) {
	base := tmpfs(t)
	failed := map[string]bool{}
	for _, how := range []string{failsOnce, failsOn, failsLoses} {
		for k := 1; ; k++ {
			home := filepath.Join(base, "home")
			s := open(t, filepath.Join(home, "state.json"))
			l0 := lock(t, s)
			do(t, run(l0, "r0", made("n0")), l0.Append(begin("cut"), made("c0")), l0.Release())
			told := map[string]bool{"n0": true, "c0": true}
			_, where, heal := failingDisk(t, home, how, k)
			err := func() (err error) {
				l, err := s.take(context.Background(), statefile.LockRequest{Who: "anna", What: "apply"})
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, l.Release()) }()
				if _, err := l.Keep(context.Background()); err != nil {
					return err
				}
				for i := range 2 {
					name := fmt.Sprint("m", i)
					for _, e := range []struct {
						name string
						err  error
					}{{"", l.Append(begin(fmt.Sprint("r", i)))}, {name, l.Append(made(name))}} {
						if e.err != nil {
							return errors.Join(e.err, check(l.Append(begin("again")) != nil, "it was written to after an error"))
						}
						told[e.name] = true
					}
					snap, err := l.Read(context.Background())
					if err != nil {
						return err
					}
					if err := l.Finish(snap.State); err != nil {
						return err
					}
				}
				return nil
			}()
			heal()
			if *where != "" {
				failed[strings.Fields(*where)[0]] = true
				if !errors.Is(err, syscall.EIO) || strings.Contains(err.Error(), "it was written") ||
					!strings.Contains(err.Error(), "the disk of "+home+" fails (see dmesg)") {
					t.Fatalf("fails %s at effect %d (%s): %v", how, k, *where, err)
				}
			}
			delete(told, "")
			look := func(when string) {
				t.Helper()
				snap, err := s.Read(context.Background())
				if err != nil {
					t.Fatalf("fails %s at effect %d (%s), %s: %v", how, k, *where, when, err)
				}
				have := " " + describe(snap) + " "
				for name := range told {
					if !strings.Contains(have, " "+name+" ") {
						t.Fatalf("fails %s at effect %d (%s), %s: %s is lost: %s", how, k, *where, when, name, have)
					}
				}
			}
			look("failed")
			// A lock that could not be given back is that of a process that is dead by then.
			if h, err := s.Holder(); err != nil {
				t.Fatal(err)
			} else if h != nil {
				if _, err := s.ForceUnlock(context.Background(), h.ID); err != nil {
					t.Fatalf("fails %s at effect %d (%s): %v", how, k, *where, err)
				}
			}
			l := lock(t, s)
			do(t, run(l, "after", made("z")), l.Release())
			told["z"] = true
			look("gone on")
			left, err := filepath.Glob(filepath.Join(home, atomicfile.Prefix+"*"))
			if err != nil || len(left) > 0 {
				t.Fatalf("fails %s at effect %d (%s): left behind: %v, %v", how, k, *where, left, err)
			}
			do(t, os.RemoveAll(home))
			if *where == "" {
				break
			}
		}
	}
	for _, op := range []string{"create", "write", "chmod", "sync", "close", "open", "link", "rename", "remove"} {
		if !failed[op] {
			t.Errorf("nothing failed at %q", op)
		}
	}
}
