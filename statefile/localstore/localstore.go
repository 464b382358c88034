// Package localstore keeps a state on this machine's disk: a snapshot, the
// journal beside it, a backup of the last good snapshot, and the lock.
//
//	state.json           the snapshot
//	state.json.backup    the one before it
//	state.json.7.backup  the one of serial 7, from before a person changed it by hand
//	state.json.7.format-1.0.backup  the one of serial 7, as an older program wrote it
//	state.json.journal   what was done since; gone when a run has finished
//	state.json.lock      who is changing it; gone when nobody is
//
// # Use
//
// Open, then Read for a look that needs no lock. To change: Lock; Read again;
// Append a Begin, intents and results, each durable when Append returns; Finish
// with the state at the end; Release. A run that can't finish just releases (or
// dies): the next Read folds its journal in.
//
// # Guarantees
//
// Between any two writes the files say the truth: the snapshot is replaced as
// a whole, and a journal names the snapshot that it rests on, so one that was
// folded in already is known for that and not folded in twice. Append costs the
// same however large the state is. A run whose lock was taken over or broken,
// whatever it was in the middle of, can't change anything any more (ErrLockLost),
// and nothing that it was told is durable is lost. A snapshot of an older format
// keeps its bytes in a file of its own before it is replaced. All files are 0600.
//
// # Encryption
//
// With Options.Keys that seal, snapshot, journal and all backups are encrypted. A
// state in plain is read all the same, and encrypted when it is next written, or
// by Reseal. What is encrypted is never replaced by what is not, unless
// Options.Decrypt says so: whoever has lost a block of the definition, or its keys,
// gets an error. The lock, which says who works here, is in plain.
//
// # The lock
//
// A lock is a lease with a generation, one more than that of the lock before it.
// Whether its holder is alive is known exactly on one system: a process that is
// there, also suspended, keeps its lock, one that is not is dead at once. Of
// another host's, or a container's, only a heartbeat is seen: a number in the lock
// that the holder counts up. It is dead once that stood still for a whole term
// of the taker's own monotonic clock. No two clocks are compared, and no time of
// day is asked for, so that a clock which jumps gives nobody a lock.
//
// On one host a flock on the directory, which dies with its process, makes a look
// at the lock and the write that rests on it one step. A shared directory has
// no such lock, or (NFS) one that only this host sees, and its holder may stand still
// between any two system calls while another host takes its lock over. So each write
// is safe without it, wherever the directory is not on a local file system:
//
//   - Taking: make an own temporary file; remove those of all others who try;
//     look at the lock again; rename. Of two, whoever renames has removed the
//     other's file before, or is seen by the other's look.
//   - The taker raises the generation first; then it removes all temporary files,
//     reads snapshot and journal, and makes the journal a new file of its own.
//   - A snapshot, or a new journal: temporary file; look at the lock; rename. A
//     look from before the takeover means that the temporary file was there by
//     then: the taker removed it, and the rename fails; or the rename came first,
//     and the taker read what it brought.
//   - A record is written to the file that was made under this lock, then the
//     lock is looked at again. A takeover before the write is seen by that
//     look; one after it reads the record. Written into a file that the taker
//     has replaced already, it is nowhere, and Append says so: nothing rests on it.
//   - What would be removed by name may be another's by then. So, without a flock,
//     a journal is emptied in the own file, one that is folded in already is replaced
//     by an own empty one, and a lock says in it that it is given back.
//
// What a provider is in the middle of when its apply is suspended is not fenced by
// this: its intent is in the journal, the taker reads back what became of it, and
// the cluster's database has a change lease of its own.
package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/statefile"
)

// DefaultPath is where the state of the definition in dir lies.
func DefaultPath(dir string) string { return filepath.Join(dir, ".clusterplan", "state.json") }

// Options of a store. The zero value is the default.
type Options struct {
	Program   string        // version that is written into the snapshot
	Lease     time.Duration // a lock of another host whose heartbeat stood still for so long is dead; default 60s
	Heartbeat time.Duration // how often a lock is renewed; default 10s

	Keys statefile.Keys // encrypt and decrypt; nil: everything is in plain
	// ReadSealed reads what is encrypted also where Keys do not seal, but does not write then.
	ReadSealed bool
	// Decrypt is ReadSealed that writes, in plain.
	Decrypt bool

	guard time.Duration // how long another process may be in the middle of a write; default 10s
}

func (o *Options) validate() error {
	if o.Lease == 0 {
		o.Lease = time.Minute
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 10 * time.Second
	}
	if o.guard == 0 {
		o.guard = 10 * time.Second
	}
	if o.Heartbeat < 0 || o.Lease < 2*o.Heartbeat {
		return fmt.Errorf("the lock's lease %v has to be at least two heartbeats of %v", o.Lease, o.Heartbeat)
	}
	return nil
}

var (
	_ statefile.Store = (*Store)(nil)
	_ statefile.Lock  = (*Lock)(nil)
)

// Store is a state on disk.
type Store struct {
	path string
	opts Options
	step func(string) // called before each effect; tests look at the disk there

	flock  func(fd, how int) error     // the kernel's; a test takes it away, as some file systems do
	fsType func(fd int) (int64, error) // likewise: a test says that the directory is shared
	link   func(old, name string) error
}

// Open makes a store of the snapshot at path. Nothing has to be there yet, and
// nothing is made before Lock.
func Open(path string, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	// A state that is reached by a symbolic link is where that leads to: what lies
	// beside it, and what replaces it, belongs there.
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	} else if to, err := os.Readlink(abs); err == nil {
		return nil, fmt.Errorf("open state: %s is a symbolic link to %s, which can't be reached; bring that back, or remove the link to begin anew", abs, to)
	}
	if fi, err := os.Stat(abs); err == nil && !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("open state: %s is not a file", abs)
	}
	return &Store{path: abs, opts: o, step: func(string) {}, flock: unix.Flock, fsType: fsType, link: link}, nil
}

func link(old, name string) error {
	if err := atomicfile.Fault("link", name); err != nil {
		return err
	}
	return os.Link(old, name)
}

// Path of the snapshot.
func (s *Store) Path() string { return s.path }

// Begun tells whether the state's directory is there.
func (s *Store) Begun() bool { return exists(filepath.Dir(s.path)) }

func (s *Store) backup() string  { return s.path + ".backup" }
func (s *Store) journal() string { return s.path + ".journal" }
func (s *Store) lock() string    { return s.path + ".lock" }

// Read reads the state. It needs no lock: what a run is writing meanwhile is
// seen up to some record of it. Without any file it is the empty state. Errors
// wrap statefile.ErrDamaged, ErrNewer, ErrLineage, or fs.ErrPermission.
func (s *Store) Read(context.Context) (*statefile.Snapshot, error) {
	l, err := s.load()
	if err != nil {
		return nil, err
	}
	snap := &statefile.Snapshot{Unfinished: len(l.entries)}
	snap.State, snap.Pending = statefile.Fold(l.base, l.entries)
	return snap, nil
}

// loaded is what lies on disk.
type loaded struct {
	base    statefile.State
	entries []statefile.Entry // resting on base
	format  string            // of the snapshot; "": there is none
	sealed  bool              // snapshot or journal
	journal *statefile.Journal
	raw     []byte // the journal's
	stale   bool   // the journal rests on an older snapshot: it is folded in already
}

func (s *Store) load() (*loaded, error) {
	// The journal first: when a run finishes in between, it is the journal that
	// is too old then, which is seen; the other way round records would be lost.
	raw, j, err := s.readJournal()
	if err != nil {
		return nil, err
	}
	base, format, sealed, err := s.readSnapshot(j)
	if err != nil {
		return nil, err
	}
	l := &loaded{base: *base, format: format, sealed: sealed || j.Chain.Sealed(), journal: j, raw: raw}
	if len(j.Entries) == 0 {
		return l, nil
	}
	first := j.Entries[0].Begin
	if first == nil {
		return nil, fmt.Errorf("journal %s: %w in record 1: it is not the begin of a run", s.journal(), statefile.ErrDamaged)
	}
	for i, e := range j.Entries {
		if b := e.Begin; b != nil && (b.Lineage != first.Lineage || b.Serial != first.Serial) {
			return nil, fmt.Errorf("journal %s: %w in record %d: that run rests on another state than the first", s.journal(), statefile.ErrDamaged, i+1)
		}
	}
	switch {
	case base.Lineage != "" && base.Lineage != first.Lineage:
		return nil, fmt.Errorf("state %s: %w: it is %s, the journal beside it was written for %s; one of the two was copied here from elsewhere: put the right one back",
			s.path, statefile.ErrLineage, base.Lineage, first.Lineage)
	case first.Serial < base.Serial:
		l.stale = true
	case first.Serial > base.Serial:
		return nil, fmt.Errorf("state %s: %w: it has serial %d, but the journal beside it rests on serial %d; an older state was put back. Put the newer one back, or move %s away to go on from the older one (objects made since are then unknown)",
			s.path, statefile.ErrDamaged, base.Serial, first.Serial, s.journal())
	default:
		l.entries = j.Entries
	}
	return l, nil
}

func (s *Store) readJournal() ([]byte, *statefile.Journal, error) {
	data, err := s.readFile(s.journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, new(statefile.Journal), nil
	}
	if err != nil {
		return nil, nil, s.fileError("read", err)
	}
	j, err := statefile.DecodeJournal(data, s.opts.Keys)
	if err == nil && j.Chain.Sealed() {
		err = s.allowed()
	}
	if err != nil && !errors.Is(err, statefile.ErrDamaged) {
		return nil, nil, fmt.Errorf("journal %s: %w", s.journal(), err)
	}
	if err != nil {
		what, _ := s.describe(s.path)
		return nil, nil, fmt.Errorf("journal %s: %w. Mend it from a copy, or move it away to go on from the snapshot (%s); what was made since is then unknown",
			s.journal(), err, what)
	}
	return data, j, nil
}

// readFile reads one of the store's files: a regular one (to open a pipe may take
// for ever) of no more bytes than any that is written.
func (s *Store) readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file", path)
	case fi.Size() > statefile.Limit:
		return nil, fmt.Errorf("%s: %w: it has %d bytes, and none that clusterplan writes has more than %d", path, statefile.ErrDamaged, fi.Size(), int64(statefile.Limit))
	}
	return os.ReadFile(path)
}

func (s *Store) readSnapshot(j *statefile.Journal) (st *statefile.State, format string, sealed bool, err error) {
	data, err := s.readFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		fresh := len(j.Entries) == 0 || j.Entries[0].Begin != nil && j.Entries[0].Begin.Serial == 0
		if _, err := os.Stat(s.backup()); err == nil || !fresh {
			return nil, "", false, fmt.Errorf("state %s: %w: it is missing, though there was one. %s. To begin anew, take down what it knew, and then move backup and journal away",
				s.path, statefile.ErrDamaged, s.wayBack())
		}
		st = new(statefile.State)
		if len(j.Entries) > 0 {
			st.Lineage = j.Entries[0].Begin.Lineage
		}
		return st, "", false, nil
	}
	if err != nil {
		return nil, "", false, s.fileError("read", err)
	}
	if sealed = statefile.Sealed(data); sealed {
		data, err = s.plain(data)
	}
	if err == nil {
		st, format, err = statefile.Upgrade(data)
	}
	if errors.Is(err, statefile.ErrDamaged) {
		return nil, "", false, fmt.Errorf("state %s: %w. %s", s.path, err, s.wayBack())
	}
	if err != nil {
		return nil, "", false, fmt.Errorf("state %s: %w", s.path, err)
	}
	return st, format, sealed, nil
}

// allowed is an error where nothing encrypted should be: the block of the
// definition that says so may have been lost.
func (s *Store) allowed() error {
	if statefile.Seals(s.opts.Keys) || s.opts.ReadSealed || s.opts.Decrypt {
		return nil
	}
	return fmt.Errorf("%w, but the definition has no encryption block; put that back, or, to have the state in plain from now on: clusterplan init --decrypt-state", statefile.ErrSealed)
}

// plain decrypts what is sealed.
func (s *Store) plain(data []byte) ([]byte, error) {
	if err := s.allowed(); err != nil {
		return nil, err
	}
	return statefile.Open(s.opts.Keys, data)
}

// seal is data as it is written.
func (s *Store) seal(data []byte) ([]byte, error) {
	if !statefile.Seals(s.opts.Keys) {
		return data, nil
	}
	return s.opts.Keys.Seal(data)
}

// wayBack says which good state there is in place of a damaged one, and how to take it.
func (s *Store) wayBack() string {
	_, err := os.Stat(s.backup())
	what, ok := s.describe(s.backup())
	switch {
	case ok:
		return fmt.Sprintf("The last good one is the backup (%s); to go back to it: cp %s %s", what, shell.Quote(s.backup()), shell.Quote(s.path))
	case errors.Is(err, fs.ErrNotExist):
		what = "There is no backup beside it: that comes with the second apply"
	default:
		what = "The backup can't be used as it is (" + what + ")"
	}
	return what + ". If you have kept a copy, put it there. Without one, what it knew can only be ended by hand, for it had the cluster's keys"
}

// describe says what a snapshot holds, in a few words; false: why it can't be used.
func (s *Store) describe(path string) (string, bool) {
	data, err := s.readFile(path)
	if err != nil {
		return filepath.Base(path) + ": none can be read", false
	}
	if data, err = statefile.Open(s.opts.Keys, data); err != nil {
		return filepath.Base(path) + ": " + err.Error(), false
	}
	st, err := statefile.Unmarshal(data)
	if err != nil {
		return filepath.Base(path) + ": " + err.Error(), false
	}
	when := ""
	if fi, err := os.Stat(path); err == nil {
		when = ", written " + fi.ModTime().UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s: serial %d, %d objects%s", filepath.Base(path), st.Serial, len(st.Objects), when), true
}

// fileError says what to do where the cause is known.
func (s *Store) fileError(what string, err error) error {
	dir := filepath.Dir(s.path)
	todo := ""
	switch {
	case errors.Is(err, statefile.ErrLockLost):
		return err
	case errors.Is(err, fs.ErrPermission):
		todo = fmt.Sprintf("run as the user that owns %s, or give it to uid %d", dir, os.Geteuid())
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		todo = fmt.Sprintf("make room on the disk of %s and run it again: what was written before is whole, and is gone on from", dir)
	case errors.Is(err, unix.EROFS):
		todo = fmt.Sprintf("mount the file system of %s so that it can be written, and run it again", dir)
	case errors.Is(err, unix.EIO):
		todo = fmt.Sprintf("the disk of %s fails (see dmesg): copy that directory to another one while it can be read, and go on there", dir)
	}
	if todo == "" {
		return fmt.Errorf("%s state: %w", what, err)
	}
	return fmt.Errorf("%s state: %w; %s", what, err, todo)
}
