package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/providers/confdb"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// lostError says that a lock was lost while an apply was at work.
type lostError struct{ why error }

func (e *lostError) Error() string {
	return fmt.Sprintf("the apply was ended: %v; see who works on it now (clusterplan status), then apply again: it goes on from here", e.why)
}

// claim has the apply (or what it is) hold the cluster's change lease, under the
// id of its lock, from before it looks at the world until giveBack.
func (s *Session) claim(lock statefile.Lock, what string, wait time.Duration, end context.CancelCauseFunc) {
	s.confdb.Claim(confdb.Claim{
		ID: lock.Info().ID, What: what, From: lock.Follows(), Wait: wait,
		Watching: func(h client.Change) {
			s.opts.Tell(fmt.Sprintf("The cluster is being changed: %s. Waiting to see whether that is alive, for up to %v.", h.String(), time.Duration(h.TermMS)*time.Millisecond))
		},
		Lost: func(err error) { end(&lostError{err}) },
	})
	s.look = func(ctx context.Context) error {
		err := s.confdb.Hold(ctx)
		if errors.Is(err, ErrChanging) {
			return &view.Hint{Err: pki.Explain(err), Hint: "Nothing was changed. --lock-timeout=5m waits for it, for example."}
		}
		return err
	}
}

func (s *Session) giveBack(res *apply.Result, mode string) error {
	s.look = nil
	ended := mode == planner.ModeDestroy && res != nil && res.State.Cluster == nil
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.confdb.GiveBack(ctx, ended)
}

// evict takes a node out under the cluster's change lease.
func (s *Session) evict(ctx context.Context, node string, o client.Order) (client.Done, error) {
	id := pki.NewID()
	c, err := s.Client()
	if err != nil {
		return client.Done{}, err
	}
	defer c.Close()
	if !s.knowChanges(ctx, c) {
		return c.Evict(ctx, node, o)
	}
	h, err := client.HoldChange(ctx, client.HoldOptions{ID: id, What: "evict", Client: func() (*client.Client, error) { return c, nil }})
	if err != nil {
		return client.Done{}, err
	}
	under, err := s.clientUnder(id)
	if err != nil {
		return client.Done{}, err
	}
	defer under.Close()
	done, err := under.Evict(ctx, node, o)
	h.Close()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, _ = under.EndChange(end, id, "") // else its term ends it
	return done, err
}

// knowChanges tells whether all agents that answer know the change lease: an older
// one would stop at it.
func (s *Session) knowChanges(ctx context.Context, c *client.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, selfTimeout)
	defer cancel()
	nodes := s.Nodes()
	old := make([]bool, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			self, err := c.Self(ctx, n.Endpoint)
			old[i] = err == nil && !slices.Contains(self.Features, client.FeatureChange)
		})
	}
	wg.Wait()
	return !slices.Contains(old, true)
}

// Unlocked is what was broken.
type Unlocked struct {
	Lock   *statefile.LockInfo // nil: the state's lock was another
	Change bool                // the cluster's change lease
	Asked  error               // why the cluster could not be asked for its lease; its term ends that
}

// ForceUnlock breaks the state's lock with this id, and the cluster's change lease.
func (s *Session) ForceUnlock(ctx context.Context, id string) (Unlocked, error) {
	var out Unlocked
	lock, err := s.Store.ForceUnlock(ctx, id)
	if err != nil && !errors.Is(err, statefile.ErrNoLock) {
		return out, err
	}
	out.Lock = lock
	asked := s.breakChange(ctx, id)
	switch {
	case asked == nil:
		out.Change = true
		return out, nil
	case errors.Is(asked, errNoChange):
		return out, err
	case lock == nil:
		return out, &view.Hint{Err: err, Hint: fmt.Sprintf("If it is the id of the cluster's change lease: %v.", pki.Explain(asked))}
	}
	out.Asked = fmt.Errorf("the cluster could not be asked for the change lease of that run; another apply waits up to %v for it: %w", client.ChangeTerm, pki.Explain(asked))
	return out, nil
}

var errNoChange = errors.New("the cluster knows no such change lease")

// breakChange breaks the cluster's change lease id. errNoChange: it is not that,
// or there is no cluster that could have one.
func (s *Session) breakChange(ctx context.Context, id string) error {
	if err := s.ReadState(ctx); err != nil || s.Identity() == nil || len(s.Nodes()) == 0 {
		return errNoChange // and a state that can't be read says so with every other command
	}
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !s.knowChanges(ctx, c) {
		return errNoChange
	}
	_, err = c.EndChange(ctx, id, "")
	var e *client.Error
	if errors.As(err, &e) && e.Code == "not_found" {
		return errNoChange
	}
	return err
}
