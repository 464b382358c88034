package gitstore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/statefile"
)

// A repository that looks at a push and does not take it is told of as that, at once,
// with what it says; nothing stays locked, and nothing is said of the network.
func TestDeclined(t *testing.T) {
	k := keys(t)
	for name, want := range map[string]string{"pre-receive": "pre-receive hook declined", "update": "hook declined"} {
		srv := serve(t)
		hook := filepath.Join(srv.dir, "hooks", name)
		do(t, os.MkdirAll(filepath.Dir(hook), 0o755), os.WriteFile(hook, []byte("#!/bin/sh\nprintf 'Frozen \\033[31mtill Monday' >&2\nexit 1\n"), 0o755))
		s := srv.open(t, k)
		srv.set(nil)
		_, err := s.Lock(t.Context(), statefile.LockRequest{Who: "ann@host", What: "apply"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "it says: Frozen") || !strings.Contains(err.Error(), "[31mtill Monday") ||
			strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), "network") || strings.Contains(err.Error(), "force-unlock") {
			t.Errorf("%s: %v", name, err)
		}
		pushes := 0
		for _, kind := range srv.asked {
			if kind == doWrite {
				pushes++
			}
		}
		if pushes != 1 {
			t.Errorf("%s: pushed %d times", name, pushes)
		}
		do(t, os.Remove(hook))
		l := take(t, s)
		do(t, os.WriteFile(hook, []byte("#!/bin/sh\nexit 1\n"), 0o755))
		if err := l.Append(begin("r")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.Release(); err == nil || !strings.Contains(err.Error(), "force-unlock "+l.Info().ID) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDeclinedInDoubt: a push is declined after one whose answer was lost, and which
// comes about late: the error says how to break the lock that it takes.
func TestDeclinedInDoubt(t *testing.T) {
	k := keys(t)
	for _, name := range []string{"hooks/pre-receive", ref + ".lock"} {
		srv := serve(t)
		s := srv.open(t, k)
		do(t, take(t, s).Release())
		stop := filepath.Join(srv.dir, name)
		srv.set(func(kind string, n int) fault {
			switch {
			case kind == doWrite && n == 1:
				return delayed
			case kind == greetWrite && n == 2:
				do(t, os.MkdirAll(filepath.Dir(stop), 0o755), os.WriteFile(stop, []byte("#!/bin/sh\nexit 1\n"), 0o755))
			}
			return sound
		})
		_, err := s.Lock(t.Context(), statefile.LockRequest{Who: "ann@host", What: "apply"})
		srv.set(nil)
		do(t, os.Remove(stop))
		for _, late := range srv.late {
			late()
		}
		after := srv.open(t, k)
		now, failed := after.get(t.Context())
		do(t, failed)
		if err == nil || !strings.Contains(err.Error(), "does not take the push") || now.lock == nil {
			t.Fatalf("%s: %v, %v", name, err, now.lock)
		}
		if !strings.Contains(err.Error(), "force-unlock "+now.lock.ID) {
			t.Errorf("%s: the error does not say how to unlock: %v", name, err)
		}
	}
}
