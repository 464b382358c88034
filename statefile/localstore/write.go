package localstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// Read reads the state under the lock: what it says stays so but for Append and Finish.
func (l *Lock) Read() (*Snapshot, error) { return l.s.Read() }

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
	var data []byte
	var err error
	sum, begun, lineage := l.sum, l.begun, l.base.Lineage
	for _, e := range entries {
		if e.Time.IsZero() {
			e.Time = time.Now().UTC()
		}
		if e.Begin != nil {
			if lineage == "" {
				lineage = newID()
			}
			b := *e.Begin
			b.Serial, b.Lineage, b.Generation = l.base.Serial, lineage, l.info.Generation
			e.Begin, begun = &b, true
		}
		if !begun {
			return errors.New("write journal: a run begins with Begin")
		}
		if data, sum, err = statefile.AppendEntry(data, &e, sum); err != nil {
			return err
		}
	}
	unlock, err := l.s.guard()
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.mine(); err != nil {
		return err
	}
	if err := l.write(data); err != nil {
		l.broken = err
		return err
	}
	l.sum, l.begun, l.base.Lineage = sum, begun, lineage
	return nil
}

func (l *Lock) usable() error {
	switch {
	case l.released:
		return errors.New("write journal: the lock was released")
	case l.broken != nil:
		return fmt.Errorf("write journal: not after an earlier error: %w", l.broken)
	}
	return nil
}

func (l *Lock) write(data []byte) error {
	if l.file == nil {
		l.s.step("open journal")
		f, err := os.OpenFile(l.s.journal(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return l.s.fileError("write journal of", err)
		}
		l.file = f
		if err := atomicfile.SyncDir(filepath.Dir(l.s.path)); err != nil {
			return err
		}
	}
	l.s.step("append")
	if _, err := l.file.Write(data); err != nil {
		return l.s.fileError("write journal of", err)
	}
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		return fmt.Errorf("sync journal %s: %w", l.s.journal(), err)
	}
	l.s.step("appended")
	return nil
}

// Finish makes st the snapshot and ends the journal. FormatVersion, Program,
// Serial and Lineage are filled in; what st says of them does not matter.
// Another run may begin under the same lock.
func (l *Lock) Finish(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Serial, st.Lineage = l.base.Serial, l.base.Lineage
	return l.finish(st)
}

// Replace is Finish with a state that comes from elsewhere and brings its
// lineage with it. Its serial becomes one more than it and what is there have.
func (l *Lock) Replace(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	data, err := statefile.Marshal(&st)
	if err != nil {
		return err
	}
	unlock, err := l.s.guard()
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.mine(); err != nil {
		return err
	}
	if err := l.s.keepBackup(); err != nil {
		return err
	}
	l.s.step("snapshot")
	if err := atomicfile.Write(l.s.path, data, 0o600); err != nil {
		l.broken = err // whether it is there by now, only the disk knows
		return l.s.fileError("write", err)
	}
	// From here on the journal is folded in, and is known for that by its serial.
	l.base, l.sum, l.begun = st, 0, false
	l.s.step("end journal")
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if err := os.Remove(l.s.journal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.broken = err
		return l.s.fileError("end journal of", err)
	}
	l.s.step("finished")
	return atomicfile.SyncDir(filepath.Dir(l.s.path))
}

// Keep writes what is known, with the journal folded in, beside the state under
// a name that nothing else uses or takes, and returns that: for what changes the
// state by a person's word. It is the state again when it is copied over it, or
// pushed. "": there is no state yet.
func (l *Lock) Keep() (string, error) {
	snap, err := l.Read()
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
			if err := atomicfile.Write(name, data, 0o600); err != nil {
				return "", l.s.fileError("keep a backup of", err)
			}
			return name, nil
		}
		if err != nil {
			return "", l.s.fileError("keep a backup of", err)
		}
		if bytes.Equal(old, data) {
			return name, nil
		}
	}
}

// keepBackup gives the present snapshot its second name, which replaces that of
// the one before in one step.
func (s *Store) keepBackup() error {
	tmp := filepath.Join(filepath.Dir(s.path), atomicfile.Prefix+filepath.Base(s.path)+"-backup")
	os.Remove(tmp)
	s.step("link backup")
	err := os.Link(s.path, tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fileError("keep a backup of", err)
	}
	s.step("rename backup")
	if err := os.Rename(tmp, s.backup()); err != nil {
		return s.fileError("keep a backup of", err)
	}
	return nil
}
