package gitstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
)

// Lock is a statefile.Lock that stands in the ref.
type Lock struct {
	s    *Store
	info statefile.LockInfo
	lost chan struct{}

	mu       sync.Mutex // guards the rest
	on       *tip       // that the ref is at
	pen      remote.Pen
	released bool
	why      error
	broken   error
}

// rounds is how often something is begun anew because the ref has moved meanwhile.
const rounds = 5

// take takes the lock if nobody has it.
func (s *Store) take(ctx context.Context, r statefile.LockRequest) (*Lock, error) {
	l := &Lock{s: s, lost: make(chan struct{}), info: remote.NewLock(r)}
	for round := 0; ; round++ {
		t, err := s.get(ctx)
		if err != nil {
			return nil, err
		}
		if t.lock != nil && t.lock.ID != l.info.ID {
			return nil, &statefile.LockedError{Path: s.Path(), Holder: *t.lock}
		}
		on, err := s.load(t)
		if err != nil {
			return nil, err
		}
		l.info.Generation = on.Generation()
		if t.lock != nil { // a push came about whose answer was lost
			return l.holds(t, on), nil
		}
		info := l.info
		c, err := t.next(t.image, &info, r.Who, fmt.Sprintf("%s by %s: lock", remote.Tame(r.What), remote.Tame(r.Who)))
		if err != nil {
			return nil, err
		}
		err = s.push(ctx, t, c)
		if err == nil {
			return l.holds(c.to, on), nil
		}
		if errors.Is(err, errMoved) && round < rounds {
			continue // most likely another has locked it, whom the next round tells of
		}
		err = fmt.Errorf("lock state %s: %w", s.Path(), err)
		if c.sent {
			err = s.takeBack(ctx, l.info.ID, t, err)
		}
		return nil, err
	}
}

// holds has l go on from t, which has its lock.
func (l *Lock) holds(t *tip, on *remote.Loaded) *Lock {
	l.on, l.pen = t, remote.Pen{Program: l.s.opts.Program, Keys: l.s.opts.Keys, Lock: l.info}
	l.pen.On(t.image, on)
	return l
}

// takeBack gives a lock back that a push on top of t may have taken, or may still
// take: where that is not sure to be over, err says how to break it.
func (s *Store) takeBack(ctx context.Context, id string, t *tip, err error) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	broken, failed := s.unlock(end, id, "give the lock back")
	var other *statefile.LockedError
	if broken != nil || errors.As(failed, &other) {
		return err
	}
	if now := s.seen(nil); failed == nil && now != nil && now.commit != t.commit {
		return err // what it rests on is not there any more
	}
	return fmt.Errorf("%w; if it is taken all the same, or yet: clusterplan force-unlock %s", err, id)
}

// unlock takes the lock with this id away; nil: nobody has locked it. Another's lock
// is a LockedError.
func (s *Store) unlock(ctx context.Context, id, message string) (*statefile.LockInfo, error) {
	for range rounds {
		t, err := s.get(ctx)
		switch {
		case err != nil:
			return nil, err
		case t.lock == nil:
			return nil, nil
		case t.lock.ID != id:
			return nil, &statefile.LockedError{Path: s.Path(), Holder: *t.lock}
		}
		c, err := t.next(t.image, nil, t.lock.Who, message)
		if err != nil {
			return nil, err
		}
		if err = s.push(ctx, t, c); err == nil {
			return t.lock, nil
		}
		if !errors.Is(err, errMoved) {
			return nil, fmt.Errorf("unlock state %s: %w", s.Path(), err)
		}
	}
	return nil, fmt.Errorf("unlock state %s: %w, again and again; try it once more", s.Path(), errMoved)
}

// Info says how the lock is held.
func (l *Lock) Info() statefile.LockInfo { return l.info }

// TookOver is nobody: a lock in a ref is never taken over.
func (l *Lock) TookOver() *statefile.LockInfo { return nil }

// Follows is nobody: whether the last run is dead can't be seen.
func (l *Lock) Follows() string { return "" }

// Lost is closed once a push finds the ref elsewhere.
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

// Read reads the state.
func (l *Lock) Read(ctx context.Context) (*statefile.Snapshot, error) { return l.s.Read(ctx) }

// put pushes i. After an error nothing more is written under this lock: what the
// ref has is known to the next one.
func (l *Lock) put(i *remote.Image) error {
	ctx := context.Background() // what is done has to be told, whoever gave up meanwhile
	what := "state"
	if len(i.Journal) > 0 {
		what = "journal"
	}
	info := l.info
	c, err := l.on.next(i, &info, l.info.Who, fmt.Sprintf("%s by %s: %s", remote.Tame(l.info.What), remote.Tame(l.info.Who), what))
	if err == nil {
		err = l.s.push(ctx, l.on, c)
	}
	switch {
	case errors.Is(err, errMoved):
		l.lose(ctx)
		l.broken = l.why
	case err != nil:
		l.broken = fmt.Errorf("write state %s: %w", l.s.Path(), err)
	default:
		l.on = c.to
	}
	return l.broken
}

// lose says that the lock is another's, and whose.
func (l *Lock) lose(ctx context.Context) {
	how := "the ref was changed"
	if t, err := l.s.get(ctx); err == nil {
		switch h := t.lock; {
		case h == nil:
			how = "it was broken, and nobody has it now"
		case h.ID != l.info.ID:
			how = fmt.Sprintf("it is the lock %s of %s (%s) now", h.ID, h.Who, h.What)
		}
	}
	l.why = fmt.Errorf("%w: %s; nothing more is written by this run", statefile.ErrLockLost, how)
	close(l.lost)
}

func (l *Lock) usable() error {
	switch {
	case l.released:
		return errors.New("write state: the lock was released")
	case l.why != nil:
		return l.why
	case l.broken != nil:
		return fmt.Errorf("write state: not after an earlier error: %w", l.broken)
	}
	return nil
}

// Append writes entries; they are durable when it returns.
func (l *Lock) Append(entries ...statefile.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.pen.Append(entries, l.put)
}

// Finish makes st the snapshot and ends the journal.
func (l *Lock) Finish(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.pen.Finish(st, l.put)
}

// Replace is Finish with a state that brings its lineage with it.
func (l *Lock) Replace(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.pen.Replace(st, l.put)
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
	return remote.Keep(snap, l.s.opts.Keys, l.s.opts.Dir, "git", l.s.Path())
}

// Release gives the lock back, whatever of this lock's the ref is at: a push whose
// answer was lost may have come about.
func (l *Lock) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released || l.why != nil {
		l.released = true
		return nil
	}
	l.released = true
	var other *statefile.LockedError
	_, err := l.s.unlock(context.Background(), l.info.ID, fmt.Sprintf("%s by %s: unlock", remote.Tame(l.info.What), remote.Tame(l.info.Who)))
	if err != nil && !errors.As(err, &other) {
		return fmt.Errorf("%w; it stays locked until: clusterplan force-unlock %s", err, l.info.ID)
	}
	return nil
}
