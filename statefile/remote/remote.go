// Package remote is what the stores have in common that lie elsewhere (httpstore,
// gitstore): what is kept there is an Image, encrypted, and is written as a whole.
// They bring the image there and back, and hold the lock; what stands in it, and
// what is to be written next, is worked out here.
package remote

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/statefile"
)

// Image is what a store has of a state. State and journal are encrypted.
type Image struct {
	Lineage string // the state's
	State   []byte // nil: there was no run yet that came to its end
	Journal []byte // of runs that did not
}

// Loaded is what an image says.
type Loaded struct {
	Base    statefile.State
	Journal *statefile.Journal
}

// Load opens an image; of nil, the empty state.
func Load(i *Image, keys statefile.Keys) (*Loaded, error) {
	l := &Loaded{Journal: new(statefile.Journal)}
	if i == nil {
		return l, nil
	}
	if len(i.State) > 0 {
		if !statefile.Sealed(i.State) {
			return nil, fmt.Errorf("%w: what is there is not encrypted", statefile.ErrDamaged)
		}
		data, err := statefile.Open(keys, i.State)
		if err != nil {
			return nil, err
		}
		st, _, err := statefile.Upgrade(data)
		if err != nil {
			return nil, err
		}
		l.Base = *st
	}
	if len(i.Journal) > 0 {
		if err := l.journal(i.Journal, keys); err != nil {
			return nil, err
		}
	}
	if i.Lineage != l.Base.Lineage { // what stands outside says what stands inside
		return nil, fmt.Errorf("%w: it is kept as %s, and is of %s", statefile.ErrLineage, i.Lineage, l.Base.Lineage)
	}
	return l, nil
}

func (l *Loaded) journal(data []byte, keys statefile.Keys) (err error) {
	if l.Journal, err = statefile.DecodeJournal(data, keys); err != nil {
		return fmt.Errorf("its journal: %w", err)
	}
	if j := l.Journal; j.Torn || !j.Chain.Sealed() || len(j.Entries) == 0 || j.Entries[0].Begin == nil {
		return fmt.Errorf("%w: its journal is not whole", statefile.ErrDamaged)
	}
	for i, one := range l.Journal.Entries {
		b := one.Begin
		if b == nil {
			continue
		}
		if l.Base.Lineage == "" && b.Serial == 0 {
			l.Base.Lineage = b.Lineage
		}
		if b.Serial != l.Base.Serial || b.Lineage != l.Base.Lineage {
			return fmt.Errorf("%w in record %d of its journal: that run rests on another state", statefile.ErrDamaged, i+1)
		}
	}
	return nil
}

// Snapshot is what is known.
func (l *Loaded) Snapshot() *statefile.Snapshot {
	snap := &statefile.Snapshot{Unfinished: len(l.Journal.Entries)}
	snap.State, snap.Pending = statefile.Fold(l.Base, l.Journal.Entries)
	return snap
}

// Generation is the next lock's.
func (l *Loaded) Generation() uint64 {
	var last uint64
	for _, one := range l.Journal.Entries {
		if one.Begin != nil {
			last = max(last, one.Begin.Generation)
		}
	}
	return last + 1
}

// Keep writes what is known to a file of its own in dir, a directory of this
// machine: place is the state's, kind the backend's name. "": there is no state yet.
func Keep(snap *statefile.Snapshot, keys statefile.Keys, dir, kind, place string) (string, error) {
	if snap.State.Lineage == "" {
		return "", nil
	}
	if len(snap.Pending) > 0 {
		return "", fmt.Errorf("keep a backup of state %s: what an apply has begun would be missing in it", place)
	}
	data, err := statefile.Marshal(&snap.State)
	if err == nil {
		data, err = keys.Seal(data)
	}
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keep a backup of state %s: %w", place, err)
	}
	for n := 1; ; n++ {
		name := filepath.Join(dir, fmt.Sprintf("state.%s.%d-%d.backup", kind, snap.State.Serial, n))
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := atomicfile.Write(name, data, 0o600); err != nil {
			return "", fmt.Errorf("keep a backup of state %s: %w", place, err)
		}
		return name, nil
	}
}

// NewID is one that nobody else has.
func NewID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// NewLock is a lock for r, held by this process.
func NewLock(r statefile.LockRequest) statefile.LockInfo {
	host, _ := os.Hostname()
	return statefile.LockInfo{ID: NewID(), Who: r.Who, What: r.What, Since: time.Now().UTC().Truncate(time.Millisecond), Host: host, PID: os.Getpid()}
}

// Wait takes a lock with take; another's is waited for as long as timeout says.
func Wait(ctx context.Context, timeout time.Duration, pause func(context.Context, time.Duration) error, take func() error) error {
	deadline := time.Now().Add(timeout)
	for wait := time.Second; ; wait = min(2*wait, 8*time.Second) {
		err := take()
		left := time.Until(deadline)
		if !errors.Is(err, statefile.ErrLocked) || left <= 0 {
			return err
		}
		if stop := pause(ctx, min(wait, left)); stop != nil {
			return errors.Join(stop, err)
		}
	}
}

// Pause waits, unless ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Tame is what a server said as a line of an error: it moves no cursor, and ends.
func Tame(text string) string {
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
