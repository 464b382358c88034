package localstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// Read reads the state under the lock: what it says stays so but for Append and Finish.
func (l *Lock) Read(ctx context.Context) (*statefile.Snapshot, error) { return l.s.Read(ctx) }

// Append writes entries to the journal; they are durable when it returns. The
// first entry of a run is its Begin, whose Serial, Lineage and Generation are
// filled in here, as is a Time that is zero. After an error of the disk nothing
// more can be appended under this lock: what lies there is known again to the
// next Lock.
func (l *Lock) Append(entries ...statefile.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	chain, begun, lineage := l.chain, l.begun, l.base.Lineage
	entries = slices.Clone(entries)
	for i, e := range entries {
		if e.Time.IsZero() {
			e.Time = time.Now().UTC()
		}
		if e.Begin != nil {
			if lineage == "" {
				lineage = newID()
			}
			b := *e.Begin
			b.Format, b.Serial, b.Lineage, b.Generation = statefile.FormatVersion, l.base.Serial, lineage, l.info.Generation
			b.DigestKey = cmp.Or(l.base.DigestKey, chain.DigestKey(), b.DigestKey)
			p := l.info.process
			b.Holder = &statefile.Holder{Lock: l.info.ID, Host: p.Host, PID: p.PID, Started: p.Started, Boot: p.Boot, Namespace: p.Namespace}
			e.Begin, begun = &b, true
		}
		if !begun {
			return errors.New("write journal: a run begins with Begin")
		}
		entries[i] = e
	}
	data, err := chain.AppendAll(nil, entries, l.s.opts.Keys)
	if err != nil {
		return err
	}
	unlock, _, err := l.s.guard()
	if err != nil {
		return l.raced(err)
	}
	defer unlock()
	if err := l.mine(); err != nil {
		return err
	}
	if err := l.write(data); err != nil {
		l.broken = err
		return err
	}
	// Where the guard keeps nobody out the lock may have been taken over meanwhile:
	// then the taker may have read the journal without this. Nothing may rest on it.
	if err := l.mine(); err != nil {
		l.broken = err
		return err
	}
	l.chain, l.begun, l.base.Lineage, l.base.DigestKey = chain, begun, lineage, chain.DigestKey()
	return nil
}

func (l *Lock) usable() error {
	switch {
	case l.released:
		return errors.New("write journal: the lock was released")
	case l.broken != nil:
		return fmt.Errorf("write journal: not after an earlier error: %w", l.broken)
	case l.sealed && !statefile.Seals(l.s.opts.Keys) && !l.s.opts.Decrypt:
		return fmt.Errorf("write state %s: it is %w, and whether and for whom the definition has it so is not known; mend the definition first", l.s.path, statefile.ErrSealed)
	}
	return nil
}

func (l *Lock) write(data []byte) error {
	if l.file == nil {
		l.s.step("open journal")
		if err := l.newJournal(data); err != nil {
			return err
		}
		l.s.step("appended")
		return nil
	}
	l.s.step("append")
	if err := atomicfile.Append(l.file, data); err != nil {
		return l.s.fileError("write journal of", err)
	}
	if err := atomicfile.Sync(l.file); err != nil {
		return l.s.fileError("write journal of", err)
	}
	l.s.step("appended")
	return nil
}

// newJournal has the journal begin with data, in a file that nobody else has
// open, and keeps it open.
func (l *Lock) newJournal(data []byte) error {
	if err := atomicfile.WriteIf(l.s.journal(), data, 0o600, func(tmp string) (err error) {
		if err := l.mine(); err != nil {
			return err
		}
		l.s.step("rename journal")
		if err := atomicfile.Fault("open", tmp); err != nil {
			return err
		}
		l.file, err = os.OpenFile(tmp, os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	}); err != nil {
		if l.file != nil {
			l.file.Close()
			l.file = nil
		}
		return l.raced(l.s.fileError("write journal of", err))
	}
	return nil
}

// raced is err, or that the lock was lost where that is why something is not
// there: its taker has taken a temporary file away, or the directory is gone.
func (l *Lock) raced(err error) error {
	if lost := l.mine(); errors.Is(err, fs.ErrNotExist) && lost != nil {
		return lost
	}
	return err
}

// Finish makes st the snapshot and ends the journal. FormatVersion, Program,
// Serial and Lineage are filled in; what st says of them does not matter.
// Another run may begin under the same lock.
func (l *Lock) Finish(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Serial, st.Lineage = l.base.Serial, l.base.Lineage
	st.DigestKey = cmp.Or(l.base.DigestKey, l.chain.DigestKey(), st.DigestKey)
	return l.finish(st)
}

// Replace is Finish with a state that comes from elsewhere and brings its
// lineage with it. Its serial becomes one more than it and what is there have.
func (l *Lock) Replace(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if st.Lineage != l.base.Lineage {
		// A crash may leave the journal beside the new snapshot. Of another lineage it
		// would not be known for one that counts no more, so it is folded in first.
		snap, err := l.s.Read(context.Background())
		if err == nil && snap.Unfinished > 0 {
			err = l.finish(snap.State)
		}
		if err != nil {
			return err
		}
	}
	st.Serial = max(st.Serial, l.base.Serial)
	return l.finish(st)
}

// finish writes st, with the next serial.
func (l *Lock) finish(st statefile.State) error {
	if err := l.usable(); err != nil {
		return err
	}
	st.Program, st.Serial = l.s.opts.Program, st.Serial+1
	if st.Lineage == "" {
		st.Lineage = newID()
	}
	if st.DigestKey == "" {
		st.DigestKey = statefile.NewDigestKey()
	}
	data, err := statefile.Marshal(&st)
	if err == nil {
		data, err = l.s.seal(data)
	}
	if err != nil {
		return err
	}
	unlock, exclusive, err := l.s.guard()
	if err != nil {
		return l.raced(err)
	}
	defer unlock()
	if err := l.mine(); err != nil {
		return err
	}
	if err := l.keepOlder(); err != nil {
		return l.raced(err)
	}
	if err := l.s.keepBackup(l.redacts()); err != nil {
		return l.raced(err)
	}
	l.s.step("snapshot")
	if err := atomicfile.WriteIf(l.s.path, data, 0o600, func(string) error {
		err := l.mine()
		l.s.step("rename snapshot")
		return err
	}); err != nil {
		l.broken = err // whether it is there by now, only the disk knows
		return l.raced(l.s.fileError("write", err))
	}
	// From here on the journal is folded in, and is known for that by its serial.
	l.base, l.format, l.begun, l.chain = st, statefile.FormatVersion, false, statefile.Chain{}
	l.sealed = statefile.Seals(l.s.opts.Keys)
	return l.endJournal(exclusive)
}

// endJournal takes the journal away, or, where the guard keeps nobody out and the
// file under that name may be another's by now, what stands in our own.
func (l *Lock) endJournal(exclusive bool) error {
	l.s.step("end journal")
	if !exclusive {
		if l.file == nil { // there is none: Lock would have made it this lock's own
			l.s.step("finished")
			return nil
		}
		if err := errors.Join(atomicfile.Fault("truncate", l.file.Name()), l.file.Truncate(0), atomicfile.Sync(l.file)); err != nil {
			l.broken = err
			return l.s.fileError("end journal of", err)
		}
		l.s.step("finished")
		return nil
	}
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if err := atomicfile.Remove(l.s.journal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.broken = err
		return l.s.fileError("end journal of", err)
	}
	l.s.step("finished")
	return l.s.syncDir("end journal of")
}

func (s *Store) syncDir(what string) error {
	if err := atomicfile.SyncDir(filepath.Dir(s.path)); err != nil {
		return s.fileError(what, err)
	}
	return nil
}

// keepOlder gives a snapshot of an older format, which is about to be replaced
// by one of today's, a name for good: the program that wrote it can go back to it.
func (l *Lock) keepOlder() error {
	if l.format == "" || l.format == statefile.FormatVersion {
		return nil
	}
	l.s.step("keep older format")
	name := fmt.Sprintf("%s.%d.format-%s.backup", l.s.path, l.base.Serial, l.format)
	err := l.s.second(name, l.redacts())
	if noLinks(err) {
		if err = fs.ErrExist; !exists(name) {
			err = l.s.copyTo(name, l.redacts())
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return l.s.fileError("keep a backup of", err)
	}
	return nil
}

// redacts tells whether the snapshot is of an older format and has sensitive values
// in plain, which no copy of it keeps.
func (l *Lock) redacts() bool {
	return l.format != "" && l.format != statefile.FormatVersion && l.base.Secrets()
}

// Keep writes what is known, with the journal folded in, beside the state under
// a name that nothing else uses or takes, and returns that: for what changes the
// state by a person's word. It is the state again when it is copied over it, or
// pushed. "": there is no state yet.
func (l *Lock) Keep(ctx context.Context) (string, error) {
	snap, err := l.Read(ctx)
	if err != nil || snap.State.Lineage == "" {
		return "", err
	}
	if len(snap.Pending) > 0 {
		return "", fmt.Errorf("keep a backup of state %s: what an apply has begun would be missing in it", l.s.path)
	}
	data, err := statefile.Marshal(&snap.State)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.%d.backup", l.s.path, snap.State.Serial)
		if n > 1 {
			name = fmt.Sprintf("%s.%d-%d.backup", l.s.path, snap.State.Serial, n)
		}
		old, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			l.s.step("keep")
			if data, err = l.s.seal(data); err != nil {
				return "", err
			}
			if err := atomicfile.Write(name, data, 0o600); err != nil {
				return "", l.s.fileError("keep a backup of", err)
			}
			return name, nil
		}
		if err != nil {
			return "", l.s.fileError("keep a backup of", err)
		}
		if plain, err := statefile.Open(l.s.opts.Keys, old); err == nil && bytes.Equal(plain, data) && (statefile.Sealed(old) || !statefile.Seals(l.s.opts.Keys)) {
			return name, nil
		}
	}
}

// keepBackup gives the present snapshot its second name, which replaces that of
// the one before in one step.
func (s *Store) keepBackup(redact bool) error {
	tmp := filepath.Join(filepath.Dir(s.path), atomicfile.Prefix+filepath.Base(s.path)+"-backup")
	os.Remove(tmp)
	s.step("link backup")
	err := s.second(tmp, redact)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if noLinks(err) {
		if err = s.copyTo(s.backup(), redact); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return s.fileError("keep a backup of", err)
	}
	s.step("rename backup")
	if err := atomicfile.Rename(tmp, s.backup()); err != nil {
		return s.fileError("keep a backup of", err)
	}
	os.Remove(tmp) // renaming one name of a file to another of its names leaves both
	return nil
}

// noLinks tells whether a file can't have a second name: not every network file
// system knows of that.
func noLinks(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EMLINK)
}

// second gives the snapshot a second name. What is in plain gets none where what
// is written is encrypted, or what is to be redacted: it would be left over.
func (s *Store) second(name string, redact bool) error {
	if redact {
		return unix.ENOTSUP // copyTo does
	}
	if statefile.Seals(s.opts.Keys) {
		begin := make([]byte, 64)
		f, err := os.Open(s.path)
		if err != nil {
			return err
		}
		n, _ := io.ReadFull(f, begin)
		f.Close()
		if !statefile.Sealed(begin[:n]) {
			return unix.ENOTSUP // copyTo encrypts
		}
	}
	return s.link(s.path, name)
}

// copyTo writes what the snapshot says to a file of its own.
func (s *Store) copyTo(name string, redact bool) error {
	data, err := s.readFile(s.path)
	if err == nil && redact {
		if data, err = statefile.Open(s.opts.Keys, data); err == nil {
			data, err = statefile.Redact(data)
		}
	}
	if err == nil && !statefile.Sealed(data) {
		data, err = s.seal(data)
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(name, data, 0o600)
}
