// Package httpstore keeps a state behind an HTTP address, as Terraform's HTTP
// backend does: GitLab and others serve it. Only what is encrypted is sent.
//
//	GET  address              the state; 404 or 204: there is none
//	POST address?ID=LOCK      writes it (update_method)
//	LOCK lock_address         takes the lock; 409 or 423, with who has it: locked
//	UNLOCK unlock_address     gives it back
//
// # What is sent
//
// One JSON object (envelope.go): the encrypted snapshot, and the encrypted journal of
// the run that is under way, the same bytes that localstore has in files. Its serial
// grows with each write, so that a server which keeps versions refuses an old one.
//
// # Guarantees
//
// Append and Finish write all of it, and what they wrote is durable when they
// return. A server can't append, so a record costs as much as the state is large;
// planner/apply writes all intents in one, and results together (apply.Config.Ahead). A write
// whose answer was lost is read back: it is there, or it is sent again; what is
// neither it nor what was there before is another's, and this lock is lost.
//
// The lock is the server's. It is never taken over: that its holder is dead can't be
// seen. The server has to refuse a write whose ID is not the lock's (Terraform's
// protocol): that is what keeps a run out whose lock was broken. Of a server that
// does not, a run sees only before its first write and its last that it was another's turn.
package httpstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

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
}

// Store is a state behind an address.
type Store struct {
	set    Settings
	opts   Options
	client *http.Client
}

var (
	_ statefile.Store = (*Store)(nil)
	_ statefile.Lock  = (*Lock)(nil)
)

// Open makes a store. Nothing is asked of the server yet.
func Open(set Settings, o Options) (*Store, error) {
	if !statefile.Seals(o.Keys) {
		return nil, errors.New(`backend "http": the state holds the cluster's keys, and is sent encrypted or not at all; add an encryption block to the clusterplan block`)
	}
	if err := set.check(); err != nil {
		return nil, fmt.Errorf(`backend "http": %w`, err)
	}
	s := &Store{set: set, opts: o, client: o.Client}
	if s.client == nil {
		var err error
		if s.client, err = set.client(); err != nil {
			return nil, fmt.Errorf(`backend "http": %w`, err)
		}
	}
	if s.opts.pause == nil {
		s.opts.pause = remote.Pause
	}
	return s, nil
}

// Path is the address, but for its query.
func (s *Store) Path() string { return shown(s.set.Address) }

// Begun is always true: only the server knows.
func (s *Store) Begun() bool { return true }

// InPlain is nothing: only what is encrypted was ever sent.
func (s *Store) InPlain() []string { return nil }

// Read reads the state.
func (s *Store) Read(ctx context.Context) (*statefile.Snapshot, error) {
	e, _, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	on, err := s.decode(e)
	if err != nil {
		return nil, err
	}
	return on.Snapshot(), nil
}

// get is what the server has; nil: nothing.
func (s *Store) get(ctx context.Context) (*envelope, []byte, error) {
	a, err := s.ask(ctx, request{method: http.MethodGet, url: s.set.Address})
	if err != nil {
		return nil, nil, fmt.Errorf("read state %s: %w", s.Path(), err)
	}
	switch a.code {
	case http.StatusNotFound, http.StatusNoContent:
		return nil, nil, nil
	case http.StatusOK:
		if len(a.body) == 0 {
			return nil, nil, nil
		}
		e, err := decodeEnvelope(a.body)
		if err != nil {
			return nil, nil, fmt.Errorf("state %s: %w; put a version back that the server has kept, or remove it there and clusterplan state push a backup", s.Path(), err)
		}
		return e, a.body, nil
	}
	return nil, nil, fmt.Errorf("read state %s: %w", s.Path(), a.refused())
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
