package localstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// Reseal has snapshot and backup lie there as the keys would write them now: what
// is in plain is encrypted, or, with Options.Decrypt, the other way. With all it
// does so also with what is encrypted already, for its recipients may have changed.
// What they say, also the serial, stays. So it does with a journal, which would
// otherwise go on as it is. done: something was written.
func (l *Lock) Reseal(all bool) (done bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seals := statefile.Seals(l.s.opts.Keys)
	if !seals && !l.sealed {
		return false, nil
	}
	if err := l.usable(); err != nil {
		return false, err
	}
	if l.chain.Sealed() && !seals {
		return false, errors.New("an apply was cut off, and its journal is encrypted; apply once more with the encryption block in the definition, then take it out")
	}
	if done, err = l.resealJournal(seals, all); err != nil {
		return done, err
	}
	for _, path := range []string{l.s.path, l.s.backup()} {
		data, err := l.s.readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return done, l.s.fileError("read", err)
		}
		if statefile.Sealed(data) == seals && !(seals && all) {
			continue
		}
		if data, err = statefile.Open(l.s.opts.Keys, data); err == nil {
			data, err = l.s.seal(data)
		}
		if err != nil && path == l.s.backup() {
			continue // for somebody else alone; it is replaced with the next write
		}
		if err != nil {
			return done, fmt.Errorf("state %s: %w", path, err)
		}
		if err := l.reseal(path, data); err != nil {
			return done, err
		}
		done = true
	}
	l.sealed = seals
	return done, nil
}

// resealJournal encrypts a journal that is gone on from: one in plain, and with all
// also one whose key is for those who could read it when it was begun.
func (l *Lock) resealJournal(seals, all bool) (bool, error) {
	if !seals || l.chain.Sealed() && !all || l.chain == (statefile.Chain{}) {
		return false, nil
	}
	unlock, _, err := l.s.guard()
	if err != nil {
		return false, l.raced(err)
	}
	defer unlock()
	_, j, err := l.s.readJournal()
	if err != nil {
		return false, err
	}
	raw, chain, err := statefile.Recode(j.Entries, cmp.Or(l.base.DigestKey, j.Chain.DigestKey()), l.s.opts.Keys)
	if err != nil {
		return false, err
	}
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if err := l.newJournal(raw); err != nil {
		l.broken = err
		return false, err
	}
	l.chain = chain
	return true, nil
}

func (l *Lock) reseal(path string, data []byte) error {
	unlock, _, err := l.s.guard()
	if err != nil {
		return l.raced(err)
	}
	defer unlock()
	l.s.step("reseal")
	if err := atomicfile.WriteIf(path, data, 0o600, func(string) error {
		err := l.mine()
		l.s.step("rename resealed")
		return err
	}); err != nil {
		return l.raced(l.s.fileError("write", err))
	}
	return nil
}

// InPlain are the files beside the state that clusterplan has left there by name
// and that are not encrypted: older states that a person or another version may
// want to go back to.
func (s *Store) InPlain() []string {
	names, _ := filepath.Glob(filepath.Join(escaped(filepath.Dir(s.path)), escaped(filepath.Base(s.path))+".*backup"))
	return slices.DeleteFunc(names, func(name string) bool {
		data, err := s.readFile(name)
		return err != nil || statefile.Sealed(data)
	})
}

// escaped is a pattern that only name itself fits.
func escaped(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}
