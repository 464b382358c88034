// Package gitstore keeps a state in a ref of a git repository behind a network: any
// server that takes a push, over https or ssh. Only what is encrypted is pushed.
//
// # What is pushed
//
// The ref is at a commit whose tree has (tree.go)
//
//	clusterplan.json  the form's version, and the state's lineage
//	state             the encrypted snapshot, as localstore has it in a file
//	journal/000001    the encrypted journal of a run that is under way, in pieces
//	lock              who has the state locked; not there: nobody
//
// and each commit's parent is what the ref was at before: what was there is kept,
// and no server that refuses to have history rewritten refuses a write.
//
// # Guarantees
//
// Every change is one push that names the commit which the ref has to be at: the
// server changes the ref if it is, and else refuses (compare and swap). The lock is
// in the same ref as the state. So of two that lock at once one does, and whoever
// lost the lock, awake or suspended, can write nothing more: what it names is not
// there any more. A push whose answer was lost is looked for: the ref is at its
// commit, or still at the one before, and it is sent again, or is elsewhere, and the
// lock is lost. One that comes about late finds the ref moved, and does nothing.
//
// Append and Finish are durable when they return. An appended record costs a commit
// of its own size, the state is not sent with it, and planner/apply makes few of them
// (apply.Config.Ahead). The lock is never taken over: that
// its holder is dead can't be seen.
package gitstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/clusterplan/clusterplan/internal/gitremote"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
)

// Options of a store.
type Options struct {
	Program string
	Keys    statefile.Keys // have to seal
	Dir     string         // of what Keep puts aside
	Client  *http.Client   // nil: Settings.client's

	pause func(context.Context, time.Duration) error // between two tries; nil: as long
	// patience is how long a repository's first answer is waited for; 0: 30 s. All
	// of an exchange has ten times as long.
	patience time.Duration
}

// Store is a state in a ref.
type Store struct {
	set    Settings
	opts   Options
	ref    plumbing.ReferenceName
	end    *transport.Endpoint
	client transport.Transport

	mu   sync.Mutex
	auth transport.AuthMethod // nil: not asked for yet, or nobody's
	last *tip                 // that was seen; nil: none yet
}

var (
	_ statefile.Store = (*Store)(nil)
	_ statefile.Lock  = (*Lock)(nil)
)

// Open makes a store. Nothing is asked of the repository yet.
func Open(set Settings, o Options) (*Store, error) {
	if !statefile.Seals(o.Keys) {
		return nil, errors.New(`backend "git": the state holds the cluster's keys, and is pushed encrypted or not at all; add an encryption block to the clusterplan block`)
	}
	s := &Store{set: set, opts: o, ref: plumbing.ReferenceName(set.Ref)}
	if s.opts.pause == nil {
		s.opts.pause = remote.Pause
	}
	if s.opts.patience == 0 {
		s.opts.patience = 30 * time.Second
	}
	err := set.check()
	if err == nil {
		s.end, err = transport.NewEndpoint(set.Repository)
	}
	if err == nil {
		s.client, err = set.client(o.Client)
	}
	if err != nil {
		return nil, fmt.Errorf(`backend "git": %w`, err)
	}
	return s, nil
}

// Path is the repository and the ref.
func (s *Store) Path() string { return s.set.Shown() }

// Begun is always true: only the repository knows.
func (s *Store) Begun() bool { return true }

// InPlain is nothing: only what is encrypted was ever pushed.
func (s *Store) InPlain() []string { return nil }

// retries is how often what failed is tried again.
const retries = 2

func wait(try int) time.Duration { return time.Second << try }

// Read reads the state.
func (s *Store) Read(ctx context.Context) (*statefile.Snapshot, error) {
	t, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	on, err := s.load(t)
	if err != nil {
		return nil, err
	}
	return on.Snapshot(), nil
}

// get is what the ref is at, asked again where the repository or the way to it fails.
func (s *Store) get(ctx context.Context) (*tip, error) {
	for try := 0; ; try++ {
		t, err := s.fetch(ctx)
		if err == nil {
			return t, nil
		}
		last := try == retries || gitremote.Refused(err) || errors.Is(err, statefile.ErrDamaged) || errors.Is(err, statefile.ErrNewer) || ctx.Err() != nil
		if !last {
			if stop := s.opts.pause(ctx, wait(try)); stop == nil {
				continue
			}
		}
		if errors.Is(err, statefile.ErrDamaged) || errors.Is(err, statefile.ErrNewer) {
			return nil, fmt.Errorf("state %s: %w", s.Path(), err)
		}
		return nil, fmt.Errorf("read state %s: %w", s.Path(), s.explain(ctx, err))
	}
}

func (s *Store) load(t *tip) (*remote.Loaded, error) {
	on, err := remote.Load(t.image, s.opts.Keys)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", s.Path(), err)
	}
	return on, nil
}

// explain says what to do about an error of the repository.
func (s *Store) explain(ctx context.Context, err error) error {
	return gitremote.Explain(ctx, s.set.Repository, fmt.Sprintf("Set %sUSERNAME and %sPASSWORD to those of somebody who may push there", EnvPrefix, EnvPrefix),
		err, "run the command again")
}

// Lock takes the lock; another's is waited for as long as r.Timeout says.
func (s *Store) Lock(ctx context.Context, r statefile.LockRequest) (statefile.Lock, error) {
	var l *Lock
	if err := remote.Wait(ctx, r.Timeout, s.opts.pause, func() (err error) {
		l, err = s.take(ctx, r)
		return err
	}); err != nil {
		return nil, err
	}
	return l, nil
}

// ForceUnlock breaks the lock with this id.
func (s *Store) ForceUnlock(ctx context.Context, id string) (*statefile.LockInfo, error) {
	broken, err := s.unlock(ctx, id, fmt.Sprintf("force-unlock %s", id))
	if err == nil && broken == nil {
		err = fmt.Errorf("%w: the state %s is not locked", statefile.ErrNoLock, s.Path())
	}
	var other *statefile.LockedError
	if errors.As(err, &other) {
		h := other.Holder
		err = fmt.Errorf("%w: the state %s is held by the lock %s (%s, %s), not %s", statefile.ErrNoLock, s.Path(), h.ID, h.Who, h.What, id)
	}
	return broken, err
}
