package apply_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

// slow is a provider whose first calls take until they are let go, each after a
// word that it is under way. What it did for whom, it counts.
type slow struct {
	providers.Provider
	at    string // phase
	under chan addr.Address
	free  chan struct{}
	calls atomic.Int64
}

func (p *slow) Apply(ctx context.Context, req providers.ApplyRequest) (providers.ApplyResponse, error) {
	if req.Phase == p.at {
		p.under <- req.Addr
		<-p.free // as a process that is suspended: no cancelling reaches it
	}
	p.calls.Add(1)
	return p.Provider.Apply(ctx, req)
}

// A first apply is held up in the middle, its lock is broken, and another one is
// started and comes to its end. There is no cluster yet whose change lease would keep
// the first one out: it is its lock that does. It finishes the calls that it was in
// and begins no other, and nothing is made twice.
func TestForceUnlockedFirstApply(t *testing.T) {
	for name, open := range map[string]func(*testing.T) statefile.Store{
		"local": func(t *testing.T) statefile.Store {
			s, err := localstore.Open(filepath.Join(t.TempDir(), "state.json"), localstore.Options{Program: "0.1.0"})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"http": func(t *testing.T) statefile.Store { s, _ := webStore(t, ageKeys(t)); return s },
		"git":  func(t *testing.T) statefile.Store { s, _ := gitStore(t, ageKeys(t)); return s },
	} {
		t.Run(name, func(t *testing.T) {
			store := open(t)
			first := newLab(t)
			def := first.load(threeNodes)
			prepare := func(l *lab, p *slow) statefile.Lock {
				lock, all := l.takes(store), map[string]providers.Provider{}
				for _, n := range l.world.Registry().Names() {
					var err error
					if all[n], err = l.world.Registry().Provider(n); err != nil {
						t.Fatal(err)
					}
				}
				if p != nil {
					p.Provider = all["local"]
					all["local"] = p
				}
				l.ahead = name != "local"
				l.conf = func(c *apply.Config) {
					c.Providers, c.Journal, c.Held, c.Linger = providers.NewRegistry(all), lock, lock.Why, time.Hour
					c.Prove = time.Nanosecond // as after a long sleep
				}
				return lock
			}
			p := &slow{at: providers.PhaseInstall, under: make(chan addr.Address), free: make(chan struct{})}
			lock := prepare(first, p)
			type end struct {
				res *apply.Result
				err error
			}
			ended := make(chan end, 1)
			go func() {
				res, _, err := first.apply(def, "")
				ended <- end{res, err}
			}()
			for range 3 {
				<-p.under
			}
			if _, err := store.ForceUnlock(t.Context(), lock.Info().ID); err != nil {
				t.Fatal(err)
			}

			// The other one, in the same world, until the cluster is there.
			second := &lab{t: t, world: first.world, stop: make(chan struct{}), ids: 100}
			other := prepare(second, nil)
			if len(second.journal.entries) == 0 {
				t.Fatal("the second run knows nothing of what the first one has begun")
			}
			res := second.must(def, "")
			if err := other.Finish(res.State); err != nil {
				t.Fatal(err)
			}
			done := len(first.world.Calls)
			close(p.free)
			got := <-ended
			if !errors.Is(got.err, statefile.ErrLockLost) {
				t.Errorf("the first run ended with %v", got.err)
			}
			if n := p.calls.Load(); n > 3 {
				t.Errorf("the first run began %d calls after its lock was broken: %v", n-3, first.world.Calls[done:])
			}
			snap, err := store.Read(t.Context())
			if err != nil || len(snap.Pending) > 0 || len(snap.State.Objects) != 4 {
				t.Errorf("the state: %+v, %v", snap, err)
			}
			if err := errors.Join(lock.Release(), other.Release()); err != nil && !strings.Contains(err.Error(), "lock") {
				t.Error(err)
			}
			var ids []string
			for id := range first.world.Hosts {
				ids = append(ids, id)
			}
			if slices.Sort(ids); len(ids) != 3 || len(first.world.Members) != 3 {
				t.Errorf("hosts %v, %d members", ids, len(first.world.Members))
			}
		})
	}
}

// A run is suspended while the write is under way that is to prove its lock: that went
// well, and its answer waits. Meanwhile the lock is broken and another run comes to its
// end. The first one wakes up, reads the answer, and begins nothing all the same.
func TestSuspendedAsItProves(t *testing.T) {
	store, _ := webStore(t, ageKeys(t))
	first := newLab(t)
	def := first.load(threeNodes)
	lock, err := store.Lock(t.Context(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	local, err := first.world.Registry().Provider("local")
	if err != nil {
		t.Fatal(err)
	}
	db, err := first.world.Registry().Provider("confdb")
	if err != nil {
		t.Fatal(err)
	}
	p := &slow{Provider: local, at: "none"}
	asleep, woken := make(chan struct{}), make(chan struct{})
	writes := 0
	first.ahead = true
	first.conf = func(c *apply.Config) {
		c.Providers = providers.NewRegistry(map[string]providers.Provider{"local": p, "confdb": db})
		c.Held, c.Linger, c.Prove = lock.Why, time.Hour, time.Nanosecond
		c.Journal = journalFunc(func(entries ...statefile.Entry) error {
			err := lock.Append(entries...)
			if writes++; writes == 2 { // after that of all intents
				close(asleep)
				<-woken
			}
			return err
		})
	}
	ended := make(chan error, 1)
	go func() {
		res, _, err := first.apply(def, "")
		for _, f := range res.Failed {
			if strings.Count(f.Err.Error(), statefile.ErrLockLost.Error()) > 1 {
				t.Errorf("%s is told twice what was lost: %v", f.Addr, f.Err)
			}
		}
		ended <- err
	}()
	<-asleep
	if _, err := store.ForceUnlock(t.Context(), lock.Info().ID); err != nil {
		t.Fatal(err)
	}
	other, err := store.Lock(t.Context(), statefile.LockRequest{Who: "bob@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	close(woken)
	if err := <-ended; !errors.Is(err, statefile.ErrLockLost) {
		t.Errorf("the run ended with %v", err)
	}
	if n := p.calls.Load(); n > 0 {
		t.Errorf("it began %d calls after its lock was broken", n)
	}
	if err := errors.Join(lock.Release(), other.Release()); err != nil {
		t.Error(err)
	}
}
