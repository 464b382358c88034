package httpstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
)

// lockInfo is what Terraform's protocol says of a lock.
type lockInfo struct {
	ID        string
	Operation string
	Info      string
	Who       string
	Version   string
	Created   time.Time
	Path      string
}

func (i *lockInfo) public() *statefile.LockInfo {
	return &statefile.LockInfo{ID: i.ID, Who: i.Who, What: i.Operation, Since: i.Created}
}

// Lock is a statefile.Lock that the server holds.
type Lock struct {
	s    *Store
	info statefile.LockInfo
	text []byte // of the lock, as it was sent

	lost chan struct{}

	mu       sync.Mutex // guards the rest
	on       *envelope  // what the server has; nil: nothing
	pen      remote.Pen
	released bool
	ours     map[string]bool // writes
	doubt    bool            // an answer to a write was lost: it may come about later still
	why      error
	broken   error
}

// take asks for the lock once, and reads the state under it.
func (s *Store) take(ctx context.Context, r statefile.LockRequest) (*Lock, error) {
	l := &Lock{s: s, lost: make(chan struct{}), info: remote.NewLock(r)}
	var err error
	if l.text, err = json.Marshal(lockInfo{ID: l.info.ID, Operation: r.What, Who: r.Who, Version: s.opts.Program, Created: l.info.Since,
		Info: fmt.Sprintf("process %d on %s", l.info.PID, l.info.Host), Path: s.Path()}); err != nil {
		return nil, err
	}
	if err := s.raise(ctx, l); err != nil {
		return nil, err
	}
	// From here on nothing is left locked, whatever the person does meanwhile.
	e, _, err := s.get(ctx)
	var on *remote.Loaded
	if err == nil {
		on, err = s.decode(e)
	}
	if err != nil {
		return nil, errors.Join(err, l.Release())
	}
	l.info.Generation = on.Generation()
	l.on, l.pen = e, remote.Pen{Program: s.opts.Program, Keys: s.opts.Keys, Lock: l.info}
	l.pen.On(e.image(), on)
	return l, nil
}

func (s *Store) raise(ctx context.Context, l *Lock) error {
	r := request{method: s.set.LockMethod, url: s.set.LockAddress, body: l.text}
	doubt := false
	for try := 0; ; try++ {
		a, err := s.once(ctx, r)
		switch {
		case err == nil && a.done():
			return nil
		case err == nil && a.busy():
			h := holder(a)
			if doubt && h.ID == l.info.ID { // an earlier try got it, and its answer was lost
				return nil
			}
			held := error(&statefile.LockedError{Path: s.Path(), Holder: *h})
			if doubt && h.ID == "" {
				held = fmt.Errorf("%w; if the server gave it to this run, and the answer was lost: clusterplan force-unlock %s", held, l.info.ID)
			}
			return held
		case err == nil:
			err = a.refused()
		}
		final := a != nil && !a.passing()
		if final && !doubt {
			return fmt.Errorf("lock state %s: %w", s.Path(), err)
		}
		doubt = true
		var stop error
		if try < s.set.RetryMax && !final {
			if stop = s.opts.pause(ctx, s.wait(try)); stop == nil {
				continue
			}
		}
		// The server may have given it all the same.
		err = fmt.Errorf("lock state %s: %w", s.Path(), errors.Join(stop, err))
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if a, failed := s.once(end, request{method: s.set.UnlockMethod, url: s.set.UnlockAddress, body: l.text}); failed != nil || !a.done() {
			err = fmt.Errorf("%w; if the server gives the lock all the same, or yet: clusterplan force-unlock %s", err, l.info.ID)
		}
		return err
	}
}

// holder is who the server says holds the lock; of one that says nothing, nobody's name.
func holder(a *answer) *statefile.LockInfo {
	var i lockInfo
	_ = json.Unmarshal(a.body, &i) // Terraform's servers say it; what others say is told as unknown
	i.ID, i.Who, i.Operation = remote.Tame(i.ID), remote.Tame(i.Who), remote.Tame(i.Operation)
	return i.public()
}

// Info says how the lock is held.
func (l *Lock) Info() statefile.LockInfo { return l.info }

// TookOver is nobody: a server's lock is never taken over.
func (l *Lock) TookOver() *statefile.LockInfo { return nil }

// Follows is nobody: whether the last run is dead can't be seen.
func (l *Lock) Follows() string { return "" }

// Lost is closed once the server refuses a write for the lock's sake.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Why says how the lock was lost, also while a write is under way: nobody
// waits for a server to be told.
func (l *Lock) Why() error {
	select {
	case <-l.lost: // why does not change any more
		return l.why
	default:
		return nil
	}
}

// lose says that the lock is another's.
func (l *Lock) lose(how string) error {
	if l.why == nil {
		l.why = fmt.Errorf("%w: %s; nothing more is written by this run", statefile.ErrLockLost, how)
		close(l.lost)
	}
	return l.why
}

// Read reads the state.
func (l *Lock) Read(ctx context.Context) (*statefile.Snapshot, error) { return l.s.Read(ctx) }

func (l *Lock) usable() error {
	switch {
	case l.released:
		return errors.New("write state: the lock was released")
	case l.broken != nil:
		return fmt.Errorf("write state: not after an earlier error: %w", l.broken)
	}
	return nil
}

// Append writes entries; they are durable when it returns.
func (l *Lock) Append(entries ...statefile.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.usable()
	if err == nil && remote.Begins(entries) {
		err = l.look()
	}
	if err != nil {
		return err
	}
	return l.pen.Append(entries, l.put)
}

// Finish makes st the snapshot and ends the journal.
func (l *Lock) Finish(st statefile.State) error { return l.finish(st, l.pen.Finish) }

// Replace is Finish with a state that brings its lineage with it.
func (l *Lock) Replace(st statefile.State) error { return l.finish(st, l.pen.Replace) }

func (l *Lock) finish(st statefile.State, write func(statefile.State, func(*remote.Image) error) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.usable()
	if err == nil {
		err = l.look()
	}
	if err != nil {
		return err
	}
	return write(st, l.put)
}

// Reseal writes all anew for those whom the keys name now. Nothing was ever in plain.
func (l *Lock) Reseal(all bool) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !all {
		return false, nil
	}
	if err := l.usable(); err != nil {
		return false, err
	}
	return l.pen.Reseal(all, l.put)
}

// Keep writes what is known to a file of its own on this machine.
func (l *Lock) Keep(ctx context.Context) (string, error) {
	snap, err := l.Read(ctx)
	if err != nil {
		return "", err
	}
	return remote.Keep(snap, l.s.opts.Keys, l.s.opts.Dir, "http", l.s.Path())
}

// Release gives the lock back.
func (l *Lock) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released || l.why != nil {
		l.released = true
		return nil
	}
	l.released = true
	err := l.confirm()
	if l.why != nil {
		return err
	}
	if failed := l.s.unlock(l.text); failed != nil {
		err = errors.Join(err, fmt.Errorf("unlock state %s: %w; it stays locked until: clusterplan force-unlock %s", l.s.Path(), failed, l.info.ID))
	}
	return err
}

// unlock gives a lock back. That it is another's by now, or nobody's, is no error.
func (s *Store) unlock(text []byte) error {
	a, err := s.ask(context.Background(), request{method: s.set.UnlockMethod, url: s.set.UnlockAddress, body: text})
	switch {
	case err != nil:
		return err
	case a.done(), a.busy(), a.code == 404:
		return nil
	}
	return a.refused()
}

// ForceUnlock breaks the lock with this id. Who has it only the server's answer to
// somebody who wants it tells, so it is asked for.
func (s *Store) ForceUnlock(ctx context.Context, id string) (*statefile.LockInfo, error) {
	probe := &Lock{s: s, info: statefile.LockInfo{ID: remote.NewID()}, lost: make(chan struct{})}
	var err error
	if probe.text, err = json.Marshal(lockInfo{ID: probe.info.ID, Operation: "force-unlock", Created: time.Now().UTC(), Version: s.opts.Program}); err != nil {
		return nil, err
	}
	var locked *statefile.LockedError
	err = s.raise(ctx, probe)
	switch {
	case err == nil:
		return nil, errors.Join(fmt.Errorf("%w: the state %s is not locked", statefile.ErrNoLock, s.Path()), probe.Release())
	case !errors.As(err, &locked):
		return nil, err
	}
	h := locked.Holder
	if h.ID != "" && h.ID != id {
		return nil, fmt.Errorf("%w: the state %s is held by the lock %s (%s, %s), not %s", statefile.ErrNoLock, s.Path(), h.ID, h.Who, h.What, id)
	}
	text, err := json.Marshal(lockInfo{ID: id, Operation: h.What, Who: h.Who, Created: h.Since})
	if err != nil {
		return nil, err
	}
	a, err := s.ask(ctx, request{method: s.set.UnlockMethod, url: s.set.UnlockAddress, body: text})
	switch {
	case err != nil:
		return nil, fmt.Errorf("unlock state %s: %w", s.Path(), err)
	case a.busy():
		return nil, fmt.Errorf("%w: the server says that the state %s is held by another lock than %s", statefile.ErrNoLock, s.Path(), id)
	case !a.done():
		return nil, fmt.Errorf("unlock state %s: %w", s.Path(), a.refused())
	}
	return &h, nil
}
