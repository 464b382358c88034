package localstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// errRaced: another one takes the lock at the same time.
var errRaced = errors.New("another process is taking the lock")

// Info is who holds a lock, as its file says it.
type Info struct {
	ID         string    `json:"id"`
	Generation uint64    `json:"generation"` // one more than that of the lock which it took over
	Who        string    `json:"who"`
	What       string    `json:"what"`
	Since      time.Time `json:"since"`
	process
	TermMS    int64  `json:"term_ms"`   // without a heartbeat for so long its holder is dead
	Heartbeat string `json:"heartbeat"` // a number that its holder counts up, in place; or released
}

// released stands for a heartbeat where the lock was given back and its file
// could not be removed without a doubt whose it is. As long as a heartbeat.
const released = "released--------"

// public is what others than this store are told.
func (i *Info) public() *statefile.LockInfo {
	return &statefile.LockInfo{ID: i.ID, Generation: i.Generation, Who: i.Who, What: i.What, Since: i.Since, Host: i.Host, PID: i.PID}
}

// Lock is a statefile.Lock on a state on disk.
type Lock struct {
	s    *Store
	info Info
	took *Info // whose lock was taken over, if one was

	cutOff string // the lock of the journal's last run, if that is dead
	lost   chan struct{}

	stop context.CancelFunc
	done chan struct{}
	beat uint64 // the heartbeat's own

	mu       sync.Mutex // guards the rest
	base     statefile.State
	format   string   // of the snapshot on the disk
	sealed   bool     // snapshot or journal on the disk are encrypted
	file     *os.File // the journal, open once there is something to append; nobody else's file
	chain    statefile.Chain
	begun    bool
	released bool
	broken   error // the journal's end is unknown after a failed write
}

// Lock takes the lock. That of a process that is no more is taken over; that
// of a live one is waited for as long as r.Timeout says, then a *statefile.LockedError is
// returned. Of a holder on another host it takes up to a heartbeat to see that it
// is alive, and a term to see that it is not, whatever r.Timeout says.
func (s *Store) Lock(ctx context.Context, r statefile.LockRequest) (statefile.Lock, error) {
	l, err := s.take(ctx, r)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (s *Store) take(ctx context.Context, r statefile.LockRequest) (*Lock, error) {
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, s.fileError("lock", err)
	}
	deadline := time.Now().Add(r.Timeout)
	var w watch
	told := false
	for {
		l, holder, err := s.tryLock(r, &w)
		if err == nil {
			l.keep()
			return l, nil
		}
		undecided := false
		if holder != nil && !holder.sameSystem() {
			undecided = !w.beats
			if undecided && !told && r.Watching != nil {
				r.Watching(*holder.public(), max(s.opts.Lease, time.Duration(holder.TermMS)*time.Millisecond))
			}
			told = told || undecided
		}
		raced := errors.Is(err, errRaced)
		if holder == nil && !raced || !undecided && !raced && !time.Now().Before(deadline) {
			return nil, err
		}
		pause := min(200*time.Millisecond, s.opts.Heartbeat/4+time.Millisecond)
		if !undecided && !raced {
			pause = min(pause, time.Until(deadline)+time.Millisecond)
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(context.Cause(ctx), err)
		case <-t.C:
		}
	}
}

// tryLock takes the lock, or tells who holds it.
func (s *Store) tryLock(r statefile.LockRequest, w *watch) (l *Lock, holder *Info, err error) {
	unlock, exclusive, err := s.guard()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	old, err := s.file()
	if err != nil {
		return nil, nil, err
	}
	if old != nil && old.Heartbeat != released {
		gone := old.sameSystem() && !old.running()
		if !old.sameSystem() {
			gone = w.dead(s, old)
		}
		if !gone {
			return nil, old, &statefile.LockedError{Path: s.path, Holder: *old.public()}
		}
	}
	// Before anything is written: a state that can't be read is left alone.
	on, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	var generation uint64
	if old != nil {
		generation = old.Generation
	}
	for _, e := range on.journal.Entries {
		if e.Begin != nil {
			generation = max(generation, e.Begin.Generation)
		}
	}
	me, err := self()
	if err != nil {
		return nil, nil, err
	}
	l = &Lock{s: s, lost: make(chan struct{}),
		info: Info{ID: newID(), Generation: generation + 1, Who: r.Who, What: r.What, Since: time.Now().UTC().Truncate(time.Millisecond), process: me,
			TermMS: s.opts.Lease.Milliseconds(), Heartbeat: beatText(0)}}
	if old != nil && old.Heartbeat != released {
		l.took = old
	}
	if err := s.raise(l.info, old); err != nil {
		return nil, nil, err
	}
	if err := l.tidy(on, exclusive, old != nil || !exclusive || len(on.journal.Entries) > 0); err != nil {
		return nil, nil, errors.Join(err, l.giveBack(exclusive))
	}
	return l, nil, nil
}

// raise puts a lock in the place of old. Of several who try at once, at most one
// comes through, also where the guard keeps nobody out: each first makes its own
// temporary file, then takes those of all others away, and only then looks who
// holds the lock: whoever renames first had taken the other's file away, or is
// seen by it.
func (s *Store) raise(info Info, old *Info) error {
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	s.step("lock")
	err = atomicfile.WriteIf(s.lock(), append(data, '\n'), 0o600, func(tmp string) error {
		s.clearTemporary(s.lock(), tmp)
		s.step("raise")
		now, err := s.file()
		if err == nil && (now == nil) != (old == nil) || now != nil && old != nil && now.ID != old.ID {
			err = errRaced
		}
		s.step("rename lock")
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && exists(filepath.Dir(s.path)) { // another one took the temporary file away
		return errRaced
	}
	if err != nil && err != errRaced {
		return s.fileError("lock", err)
	}
	return err
}

// temporary is how the name of a temporary file goes on behind the path's, and not
// that of another state whose path goes on behind this one's.
var temporary = regexp.MustCompile(`^(\.lock|\.journal|(\.[0-9][^/]*)?\.backup)?-([0-9]+|backup)$`)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// clearTemporary takes away what crashes left of files whose names begin with
// path, and, with it, what a holder that lost its lock might still put in their place.
func (s *Store) clearTemporary(path, but string) {
	dir := filepath.Dir(path)
	left, _ := os.ReadDir(dir) // not a pattern: the directory may be called anything
	for _, e := range left {
		rest, of := strings.CutPrefix(e.Name(), atomicfile.Prefix+filepath.Base(path))
		if name := filepath.Join(dir, e.Name()); of && name != but && temporary.MatchString(rest) {
			os.Remove(name)
		}
	}
}

// tidy makes what an earlier run left this lock's own: a journal that is folded
// in already goes, any other becomes a new file without a torn end. Whoever has
// the old one open still writes into nothing from then on. again: somebody may
// have written since on was read.
func (l *Lock) tidy(on *loaded, exclusive, again bool) error {
	s := l.s
	s.clearTemporary(s.path, "")
	if again {
		var err error
		if on, err = s.load(); err != nil {
			return err
		}
	}
	l.base, l.format, l.sealed = on.base, on.format, on.sealed
	for _, e := range on.entries {
		if e.Begin == nil || e.Begin.Holder == nil {
			continue
		}
		h := e.Begin.Holder
		p := process{Host: h.Host, PID: h.PID, Started: h.Started, Boot: h.Boot, Namespace: h.Namespace}
		if l.cutOff = ""; p.sameSystem() && !p.running() {
			l.cutOff = h.Lock
		}
	}
	switch {
	case on.stale:
		s.step("remove stale journal")
		if !exclusive { // what stands under its name may be another's by now
			return l.newJournal(nil)
		}
		if err := atomicfile.Remove(s.journal()); err != nil {
			return s.fileError("lock", err)
		}
		return s.syncDir("lock")
	case len(on.journal.Entries) == 0 && (on.journal.Size > 0 || on.journal.Torn): // a key at most, and nothing written with it
		s.step("empty journal")
		return l.newJournal(nil)
	case on.journal.Size > 0:
		s.step("copy journal")
		if err := l.newJournal(on.raw[:on.journal.Size]); err != nil {
			return err
		}
		l.chain = on.journal.Chain
	}
	return nil
}

// Info says how the lock is held.
func (l *Lock) Info() statefile.LockInfo { return *l.info.public() }

// TookOver is who held the lock and died, or nil.
func (l *Lock) TookOver() *statefile.LockInfo {
	if l.took == nil {
		return nil
	}
	return l.took.public()
}

// Follows is the id of the lock under which the last run was that came to no end,
// if its process is known to be dead: whatever it held elsewhere by that id is
// nobody's any more. "": there is none, or nobody can know from here.
func (l *Lock) Follows() string {
	if l.took != nil && l.took.sameSystem() {
		return l.took.ID
	}
	return l.cutOff
}

// Lost is closed once the lock is seen to be another's, or gone.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Why says how the lock was lost; nil: it is ours.
func (l *Lock) Why() error { return l.mine() }

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
	unlock, exclusive, gerr := l.s.guard()
	if gerr != nil {
		if errors.Is(gerr, fs.ErrNotExist) {
			return err // the directory is gone, and the lock with it
		}
		return errors.Join(err, gerr)
	}
	defer unlock()
	if l.mine() != nil {
		return err // another's now
	}
	l.s.step("unlock")
	return errors.Join(err, l.giveBack(exclusive))
}

// giveBack ends a lock that is ours. Where the guard keeps nobody out, the file
// under the lock's name may be another's a moment after it was looked at, so it
// stays, and says that nobody holds it.
func (l *Lock) giveBack(exclusive bool) error {
	if exclusive {
		return l.s.removeLock()
	}
	return l.mark(released)
}

// mine checks that the lock is still ours.
func (l *Lock) mine() error {
	h, err := l.s.file()
	switch {
	case err != nil:
		return err
	case h == nil && !exists(filepath.Dir(l.s.path)):
		return fmt.Errorf("%w: the directory %s is gone, and the state with it", statefile.ErrLockLost, filepath.Dir(l.s.path))
	case h == nil:
		return fmt.Errorf("%w: %s is gone; nothing more is written by this run", statefile.ErrLockLost, l.s.lock())
	case h.ID != l.info.ID:
		return fmt.Errorf("%w by %s (%s, process %d on %s, generation %d; this run's was %d); nothing more is written by this run",
			statefile.ErrLockLost, h.Who, h.What, h.PID, h.Host, h.Generation, l.info.Generation)
	}
	return nil
}

// keep renews the lock until Release.
func (l *Lock) keep() {
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
			if err := l.renew(); errors.Is(err, statefile.ErrLockLost) {
				close(l.lost)
				return
			}
		}
	}()
}

func beatText(n uint64) string { return fmt.Sprintf("%016x", n) }

// renew counts the heartbeat up.
func (l *Lock) renew() error {
	l.beat++
	return l.mark(beatText(l.beat))
}

// mark writes the heartbeat in its place, and only if the lock is ours: the file
// is opened first, and what is opened is what is read and written, whatever
// stands under its name by then. It takes no room on the disk.
func (l *Lock) mark(text string) error {
	f, err := os.OpenFile(l.s.lock(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return statefile.ErrLockLost
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 8<<10)
	n, err := f.ReadAt(data, 0)
	if n == 0 {
		return err
	}
	data = data[:n]
	var h Info
	if err := json.Unmarshal(data, &h); err != nil {
		return err
	}
	if h.ID != l.info.ID {
		return statefile.ErrLockLost
	}
	const field = `"heartbeat": "`
	at := bytes.LastIndex(data, []byte(field))
	if at < 0 {
		return fmt.Errorf("the lock %s has no heartbeat", l.s.lock())
	}
	if err := atomicfile.Fault("write", f.Name()); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(text), int64(at+len(field))); err != nil {
		return err
	}
	return atomicfile.Sync(f)
}

// Holder is who holds the lock, dead or alive; nil: nobody.
func (s *Store) Holder() (*Info, error) {
	h, err := s.file()
	if h != nil && h.Heartbeat == released {
		h = nil
	}
	return h, err
}

// file is what the lock's file says, also of a lock that was given back.
func (s *Store) file() (*Info, error) {
	data, err := s.readFile(s.lock())
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

// ForceUnlock breaks the lock with this id, whoever holds it. statefile.ErrNoLock: it is
// not there, or another is. It needs no room on the disk.
func (s *Store) ForceUnlock(_ context.Context, id string) (*statefile.LockInfo, error) {
	unlock, _, err := s.guard()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the state %s is not locked", statefile.ErrNoLock, s.path)
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
		return nil, fmt.Errorf("%w: the state %s is not locked", statefile.ErrNoLock, s.path)
	}
	if h.ID != id {
		return nil, fmt.Errorf("%w: the state %s is held by the lock %s (%s, %s), not %s", statefile.ErrNoLock, s.path, h.ID, h.Who, h.What, id)
	}
	s.step("force unlock")
	if err := s.removeLock(); err != nil {
		return h.public(), err
	}
	s.clearTemporary(s.path, "")
	return h.public(), nil
}

func (s *Store) removeLock() error {
	if err := atomicfile.Remove(s.lock()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fileError("unlock", err)
	}
	return s.syncDir("unlock")
}

// guard makes what follows one step to all other processes on this machine:
// looking at the lock and acting on it. The kernel frees it when we die. exclusive:
// to those on others as well. A file system that has no such locks, or whose locks
// of a directory are this host's alone, is left with the protocol in the package
// comment, which needs none.
func (s *Store) guard() (unlock func(), exclusive bool, err error) {
	d, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return nil, false, s.fileError("lock", err)
	}
	for end := time.Now().Add(s.opts.guard); ; {
		err := s.flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { d.Close() }, s.oneHost(int(d.Fd())), nil
		case err == unix.EWOULDBLOCK || err == unix.EINTR:
			if time.Now().After(end) {
				d.Close()
				return nil, false, fmt.Errorf("%w: another process has been in the middle of a write to %s for %v; see that it is not suspended, or end it", statefile.ErrLocked, s.path, s.opts.guard)
			}
			time.Sleep(2 * time.Millisecond)
		case err == unix.EIO:
			d.Close()
			return nil, false, s.fileError("lock", err)
		default: // EBADF, ENOTSUP, ENOLCK, EINVAL, ENOSYS: some network file systems
			return func() { d.Close() }, false, nil
		}
	}
}

// oneHost tells whether the file system is one that a single host works on, so that
// its flock keeps everybody out. The flock of a directory on NFS, SMB, 9p or FUSE
// succeeds and is seen by this host alone; of what is not known as much is said.
func (s *Store) oneHost(fd int) bool {
	kind, err := s.fsType(fd)
	return err == nil && slices.Contains(oneHostTypes, kind)
}

var oneHostTypes = []int64{
	unix.EXT4_SUPER_MAGIC, // ext2 and ext3, too
	unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC, // its upper layer is on none that is shared
	0x2fc12fc1,                 // ZFS
	0xca451a4e,                 // bcachefs
}

// fsType is the kind of file system that a file is on, as statfs(2) numbers them.
func fsType(fd int) (int64, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(fd, &st)
	return int64(uint32(st.Type)), err
}

// newID is the id of a lock or a lineage.
func newID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
