package httpstore

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
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
	base     statefile.State
	chain    statefile.Chain
	begun    bool
	released bool
	ours     map[string]bool // writes
	doubt    bool            // an answer to a write was lost: it may come about later still
	why      error
	broken   error
}

// take asks for the lock once, and reads the state under it.
func (s *Store) take(ctx context.Context, r statefile.LockRequest) (*Lock, error) {
	host, _ := os.Hostname()
	l := &Lock{s: s, lost: make(chan struct{}),
		info: statefile.LockInfo{ID: newID(), Who: r.Who, What: r.What, Since: time.Now().UTC().Truncate(time.Millisecond), Host: host, PID: os.Getpid()}}
	var err error
	if l.text, err = json.Marshal(lockInfo{ID: l.info.ID, Operation: r.What, Who: r.Who, Version: s.opts.Program, Created: l.info.Since,
		Info: fmt.Sprintf("process %d on %s", l.info.PID, host), Path: s.Path()}); err != nil {
		return nil, err
	}
	if err := s.raise(ctx, l); err != nil {
		return nil, err
	}
	// From here on nothing is left locked, whatever the person does meanwhile.
	e, _, err := s.get(ctx)
	var on *loaded
	if err == nil {
		on, err = s.decode(e)
	}
	if err != nil {
		return nil, errors.Join(err, l.Release())
	}
	for _, one := range on.journal.Entries {
		if one.Begin != nil {
			l.info.Generation = max(l.info.Generation, one.Begin.Generation)
		}
	}
	l.info.Generation++
	l.on, l.base, l.chain = e, on.base, on.journal.Chain
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
			return &statefile.LockedError{Path: s.Path(), Holder: *h}
		case err == nil && !a.passing():
			return fmt.Errorf("lock state %s: %w", s.Path(), a.refused())
		case err == nil:
			err = a.refused()
		}
		doubt = true
		var stop error
		if try < s.set.RetryMax {
			if stop = s.opts.pause(ctx, s.wait(try)); stop == nil {
				continue
			}
		}
		// The server may have given it all the same.
		err = fmt.Errorf("lock state %s: %w", s.Path(), errors.Join(stop, err))
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if a, failed := s.once(end, request{method: s.set.UnlockMethod, url: s.set.UnlockAddress, body: l.text}); failed != nil || a.passing() {
			err = fmt.Errorf("%w; if the server took the lock all the same: clusterplan force-unlock %s", err, l.info.ID)
		}
		return err
	}
}

// holder is who the server says holds the lock; of one that says nothing, nobody's name.
func holder(a *answer) *statefile.LockInfo {
	var i lockInfo
	_ = json.Unmarshal(a.body, &i) // Terraform's servers say it; what others say is told as unknown
	i.ID, i.Who, i.Operation = tame(i.ID), tame(i.Who), tame(i.Operation)
	return i.public()
}

// tame is what a server said as a line of an error: it moves no cursor, and ends.
func tame(text string) string {
	if len(text) > 200 {
		text = text[:200] + "..."
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, text)
}

// Info says how the lock is held.
func (l *Lock) Info() statefile.LockInfo { return l.info }

// TookOver is nobody: a server's lock is never taken over.
func (l *Lock) TookOver() *statefile.LockInfo { return nil }

// Follows is nobody: whether the last run is dead can't be seen.
func (l *Lock) Follows() string { return "" }

// Lost is closed once the server refuses a write for the lock's sake.
func (l *Lock) Lost() <-chan struct{} { return l.lost }

// Why says how the lock was lost.
func (l *Lock) Why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
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
	if err := l.usable(); err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e statefile.Entry) bool { return e.Begin != nil }) {
		if err := l.look(); err != nil {
			return err
		}
	}
	chain, begun, lineage := l.chain, l.begun, l.base.Lineage
	var data []byte
	if l.on != nil {
		data = append(data, l.on.Journal...)
	}
	var err error
	for _, e := range entries {
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
			b.Holder = &statefile.Holder{Lock: l.info.ID, Host: l.info.Host, PID: l.info.PID}
			e.Begin, begun = &b, true
		}
		if !begun {
			return errors.New("write journal: a run begins with Begin")
		}
		if data, err = chain.Append(data, &e, l.s.opts.Keys); err != nil {
			return err
		}
	}
	var state []byte
	if l.on != nil {
		state = l.on.State
	}
	if err := l.put(&envelope{Lineage: lineage, State: state, Journal: data}); err != nil {
		return err
	}
	l.chain, l.begun, l.base.Lineage, l.base.DigestKey = chain, begun, lineage, chain.DigestKey()
	return nil
}

// Finish makes st the snapshot and ends the journal.
func (l *Lock) Finish(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Serial, st.Lineage = l.base.Serial, l.base.Lineage
	st.DigestKey = cmp.Or(l.base.DigestKey, l.chain.DigestKey(), st.DigestKey)
	return l.finish(st)
}

// Replace is Finish with a state that brings its lineage with it.
func (l *Lock) Replace(st statefile.State) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	st.Serial = max(st.Serial, l.base.Serial)
	return l.finish(st)
}

func (l *Lock) finish(st statefile.State) error {
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.look(); err != nil {
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
		data, err = l.s.opts.Keys.Seal(data)
	}
	if err != nil {
		return err
	}
	if err := l.put(&envelope{Lineage: st.Lineage, State: data}); err != nil {
		return err
	}
	l.base, l.begun, l.chain = st, false, statefile.Chain{}
	return nil
}

// Reseal writes all anew for those whom the keys name now. Nothing was ever in plain.
func (l *Lock) Reseal(all bool) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !all || l.on == nil {
		return false, nil
	}
	if err := l.usable(); err != nil {
		return false, err
	}
	e := envelope{Lineage: l.on.Lineage}
	if len(l.on.State) > 0 {
		data, err := statefile.Open(l.s.opts.Keys, l.on.State)
		if err == nil {
			e.State, err = l.s.opts.Keys.Seal(data)
		}
		if err != nil {
			return false, err
		}
	}
	var chain statefile.Chain
	if len(l.on.Journal) > 0 {
		j, err := statefile.DecodeJournal(l.on.Journal, l.s.opts.Keys)
		if err != nil {
			return false, err
		}
		for i := range j.Entries {
			if e.Journal, err = chain.Append(e.Journal, &j.Entries[i], l.s.opts.Keys); err != nil {
				return false, err
			}
		}
	}
	if err := l.put(&e); err != nil {
		return false, err
	}
	l.chain = chain
	return true, nil
}

// Keep writes what is known to a file of its own on this machine.
func (l *Lock) Keep(ctx context.Context) (string, error) {
	snap, err := l.Read(ctx)
	if err != nil || snap.State.Lineage == "" {
		return "", err
	}
	if len(snap.Pending) > 0 {
		return "", fmt.Errorf("keep a backup of state %s: what an apply has begun would be missing in it", l.s.Path())
	}
	data, err := statefile.Marshal(&snap.State)
	if err == nil {
		data, err = l.s.opts.Keys.Seal(data)
	}
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(l.s.opts.Dir, 0o700); err != nil {
		return "", fmt.Errorf("keep a backup of state %s: %w", l.s.Path(), err)
	}
	for n := 1; ; n++ {
		name := filepath.Join(l.s.opts.Dir, fmt.Sprintf("state.http.%d-%d.backup", snap.State.Serial, n))
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := atomicfile.Write(name, data, 0o600); err != nil {
			return "", fmt.Errorf("keep a backup of state %s: %w", l.s.Path(), err)
		}
		return name, nil
	}
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
	probe := &Lock{s: s, info: statefile.LockInfo{ID: newID()}, lost: make(chan struct{})}
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
