package localstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// Errors of locks, wrapped.
var (
	ErrLocked   = errors.New("the state is locked")
	ErrLockLost = errors.New("the lock was taken over or broken")
	ErrNoLock   = errors.New("no such lock")
)

// LockRequest says who locks, and for what.
type LockRequest struct {
	Who     string        // user@host
	What    string        // "apply"
	Timeout time.Duration // wait so long for a live holder to go
}

// Info is who holds a lock.
type Info struct {
	ID         string    `json:"id"`
	Generation uint64    `json:"generation"` // one more than that of the lock which it took over
	Who        string    `json:"who"`
	What       string    `json:"what"`
	Since      time.Time `json:"since"`
	process
}

// LockedError says who holds the lock. It is ErrLocked.
type LockedError struct {
	Path   string
	Holder Info
}

func (e *LockedError) Error() string {
	h := e.Holder
	return fmt.Sprintf("%v: %s by %s since %s (%s, process %d on %s, lock %s)",
		ErrLocked, e.Path, h.Who, h.Since.Local().Format("2006-01-02 15:04:05"), h.What, h.PID, h.Host, h.ID)
}

func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Lock is the right to change a state. Append and Finish may be called by many
// at once.
type Lock struct {
	s    *Store
	info Info
	took *Info // whose lock was taken over, if one was
	lost chan struct{}

	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex // guards the rest
	base     statefile.State
	file     *os.File // the journal, open once there is something to append
	sum      uint32
	begun    bool
	released bool
	broken   error // the journal's end is unknown after a failed write
}

// Lock takes the lock. That of a process that is no more is taken over; that
// of a live one is waited for as long as r.Timeout says, then a *LockedError is
// returned.
func (s *Store) Lock(ctx context.Context, r LockRequest) (*Lock, error) {
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, s.fileError("lock", err)
	}
	deadline := time.Now().Add(r.Timeout)
	for {
		l, err := s.tryLock(r)
		var locked *LockedError
		if err == nil {
			l.beat()
			return l, nil
		}
		if !errors.As(err, &locked) || !time.Now().Before(deadline) {
			return nil, err
		}
		t := time.NewTimer(min(200*time.Millisecond, time.Until(deadline)+time.Millisecond))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(context.Cause(ctx), err)
		case <-t.C:
		}
	}
}

func (s *Store) tryLock(r LockRequest) (*Lock, error) {
	unlock, err := s.guard()
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := s.Holder()
	if err != nil {
		return nil, err
	}
	var generation uint64
	if old != nil {
		if alive, err := s.alive(old); err != nil || alive {
			return nil, errors.Join(err, &LockedError{Path: s.path, Holder: *old})
		}
		generation = old.Generation
	}
	// Before anything is written: a state that can't be read is left alone.
	on, err := s.load()
	if err != nil {
		return nil, err
	}
	for _, e := range on.journal.Entries {
		if e.Begin != nil {
			generation = max(generation, e.Begin.Generation)
		}
	}
	me, err := self()
	if err != nil {
		return nil, err
	}
	l := &Lock{s: s, took: old, base: on.base, sum: on.journal.Sum, lost: make(chan struct{}),
		info: Info{ID: newID(), Generation: generation + 1, Who: r.Who, What: r.What, Since: time.Now().UTC().Truncate(time.Millisecond), process: me}}
	data, err := json.MarshalIndent(l.info, "", "  ")
	if err != nil {
		return nil, err
	}
	s.step("lock")
	if err := atomicfile.Write(s.lock(), append(data, '\n'), 0o600); err != nil {
		return nil, s.fileError("lock", err)
	}
	if err := s.tidy(on); err != nil {
		return nil, errors.Join(err, s.removeLock())
	}
	if on.stale {
		l.sum = 0
	}
	return l, nil
}

// tidy removes what crashes left: temporary files, a journal that is folded in
// already, a torn end.
func (s *Store) tidy(on *loaded) error {
	dir := filepath.Dir(s.path)
	left, _ := filepath.Glob(filepath.Join(dir, atomicfile.Prefix+filepath.Base(s.path)+"*"))
	for _, name := range left {
		os.Remove(name)
	}
	switch {
	case on.stale:
		s.step("remove stale journal")
		if err := os.Remove(s.journal()); err != nil {
			return s.fileError("lock", err)
		}
		return atomicfile.SyncDir(dir)
	case on.journal.Torn:
		s.step("cut torn journal")
		if err := os.Truncate(s.journal(), on.journal.Size); err != nil {
			return s.fileError("lock", err)
		}
	}
	return nil
}

// Info says how the lock is held.
func (l *Lock) Info() Info { return l.info }

// TookOver is who held the lock and died, or nil.
func (l *Lock) TookOver() *Info { return l.took }

// Lost is closed once the lock is seen to be another's, or gone.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Release gives the lock back. What was appended stays; a second call does nothing.
func (l *Lock) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	l.released = true
	l.stop()
	<-l.done
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	unlock, gerr := l.s.guard()
	if gerr != nil {
		return errors.Join(err, gerr)
	}
	defer unlock()
	if l.mine() != nil {
		return err // another's now
	}
	l.s.step("unlock")
	return errors.Join(err, l.s.removeLock())
}

// mine checks that the lock is still ours. Call it under guard.
func (l *Lock) mine() error {
	h, err := l.s.Holder()
	if err != nil {
		return err
	}
	if h == nil {
		return fmt.Errorf("%w: %s is gone; nothing more is written by this run", ErrLockLost, l.s.lock())
	}
	if h.ID != l.info.ID {
		return fmt.Errorf("%w by %s (%s, process %d on %s); nothing more is written by this run", ErrLockLost, h.Who, h.What, h.PID, h.Host)
	}
	return nil
}

// beat renews the lock until Release.
func (l *Lock) beat() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.done = stop, make(chan struct{})
	go func() {
		defer close(l.done)
		t := time.NewTicker(l.s.opts.Heartbeat)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if err := l.renew(); errors.Is(err, ErrLockLost) {
				close(l.lost)
				return
			}
		}
	}()
}

// renew sets the lock file's time, and only if it is ours: the file is opened
// first, and what is opened is what is read and touched.
func (l *Lock) renew() error {
	f, err := os.OpenFile(l.s.lock(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrLockLost
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var h Info
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		return err
	}
	if h.ID != l.info.ID {
		return ErrLockLost
	}
	return unix.Futimes(int(f.Fd()), nil)
}

// Holder is who holds the lock, dead or alive; nil: nobody.
func (s *Store) Holder() (*Info, error) {
	data, err := os.ReadFile(s.lock())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.fileError("read lock of", err)
	}
	var h Info
	if err := json.Unmarshal(data, &h); err != nil || h.ID == "" {
		return nil, fmt.Errorf("the lock %s can't be read; if no clusterplan works on this state, remove that file", s.lock())
	}
	return &h, nil
}

// ForceUnlock breaks the lock with this id, whoever holds it. ErrNoLock: it is
// not there, or another is.
func (s *Store) ForceUnlock(id string) (*Info, error) {
	unlock, err := s.guard()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the state %s is not locked", ErrNoLock, s.path)
	}
	if err != nil {
		return nil, err
	}
	defer unlock()
	h, err := s.Holder()
	if err != nil {
		return nil, err
	}
	if h == nil {
		return nil, fmt.Errorf("%w: the state %s is not locked", ErrNoLock, s.path)
	}
	if h.ID != id {
		return nil, fmt.Errorf("%w: the state %s is held by the lock %s (%s, %s), not %s", ErrNoLock, s.path, h.ID, h.Who, h.What, id)
	}
	s.step("force unlock")
	return h, s.removeLock()
}

func (s *Store) removeLock() error {
	if err := os.Remove(s.lock()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fileError("unlock", err)
	}
	return atomicfile.SyncDir(filepath.Dir(s.path))
}

// guard makes what follows one step to all other processes on this machine:
// looking at the lock and acting on it. The kernel frees it when we die.
func (s *Store) guard() (unlock func(), err error) {
	d, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return nil, s.fileError("lock", err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(end) {
			d.Close()
			if err == unix.EWOULDBLOCK {
				return nil, fmt.Errorf("%w: another process has been in the middle of a write to %s for 10s; see that it is not suspended", ErrLocked, s.path)
			}
			return nil, fmt.Errorf("lock directory %s: %w", filepath.Dir(s.path), err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// newID is the id of a lock or a lineage.
func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
