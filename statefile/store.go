package statefile

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store is where a state is kept. Errors of what is read wrap ErrDamaged, ErrNewer,
// ErrLineage or ErrSealed.
type Store interface {
	// Path says where, for people.
	Path() string
	// Begun tells whether something may be there. Where it says no, a look at the
	// state leaves no trace.
	Begun() bool
	// Read reads the state. It needs no lock: what a run is writing meanwhile is
	// seen up to some record of it. Where nothing is there it is the empty state.
	Read(context.Context) (*Snapshot, error)
	// Lock takes the right to change the state. ErrLocked: another one has it.
	Lock(context.Context, LockRequest) (Lock, error)
	// ForceUnlock breaks the lock with this id, whoever holds it. ErrNoLock: it is
	// not there, or another is.
	ForceUnlock(ctx context.Context, id string) (*LockInfo, error)
	// InPlain names what this store has left beside the state and is not encrypted.
	InPlain() []string
}

// Lock is the right to change a state. Append and Finish may be called by many at
// once. Whatever moment it ends at, with Release or without: the next Read tells all
// that Append and Finish said is durable.
type Lock interface {
	// Info says how the lock is held.
	Info() LockInfo
	// TookOver is who held the lock and died, or nil.
	TookOver() *LockInfo
	// Follows is the id of the lock under which the last run was that came to no
	// end, if its process is known to be dead: whatever it held elsewhere by that id
	// is nobody's any more. "": there is none, or nobody can know from here.
	Follows() string
	// Lost is closed once the lock is seen to be another's, or gone.
	Lost() <-chan struct{}
	// Why says how the lock was lost; nil: it is ours.
	Why() error

	// Read reads the state under the lock: it stays so but for Append and Finish.
	Read(context.Context) (*Snapshot, error)
	// Append writes entries to the journal; they are durable when it returns. The
	// first entry of a run is its Begin, whose Serial, Lineage and Generation are
	// filled in here, as is a Time that is zero. After an error that leaves the
	// journal's end unknown nothing more can be appended under this lock.
	Append(...Entry) error
	// Finish makes st the snapshot and ends the journal. FormatVersion, Program,
	// Serial and Lineage are filled in. Another run may begin under the same lock.
	Finish(st State) error
	// Replace is Finish with a state that comes from elsewhere and brings its
	// lineage with it. Its serial becomes one more than it and what is there have.
	Replace(st State) error
	// Keep puts what is known aside, under a name that nothing else uses or takes,
	// and returns that. "": there is no state yet.
	Keep(context.Context) (string, error)
	// Reseal has all lie there as the keys would write it now; with all also what
	// is encrypted already. done: something was written.
	Reseal(all bool) (done bool, err error)

	// Release gives the lock back. What was appended stays; a second call does nothing.
	Release() error
}

// Snapshot is what is known: the state with the journal folded in.
type Snapshot struct {
	State   State
	Pending []Pending // begun by a run that did not finish, and its end unknown
	// Unfinished is the number of journal records of runs that did not finish.
	Unfinished int
}

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
	// Watching is told once when the lock of a holder that can't be looked at
	// from here is watched for signs of life, for up to term. nil: nobody.
	Watching func(holder LockInfo, term time.Duration)
}

// LockInfo is who holds a lock.
type LockInfo struct {
	ID         string    `json:"id"`
	Generation uint64    `json:"generation"` // one more than that of the lock which it took over
	Who        string    `json:"who"`
	What       string    `json:"what"`
	Since      time.Time `json:"since"`
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
}

// LockedError says who holds the lock. It is ErrLocked.
type LockedError struct {
	Path   string
	Holder LockInfo
}

func (e *LockedError) Error() string {
	h := e.Holder
	if h.ID == "" {
		return fmt.Sprintf("%v: %s; who holds the lock is not told", ErrLocked, e.Path)
	}
	at := ""
	if h.PID != 0 {
		at = fmt.Sprintf("process %d on %s, ", h.PID, h.Host)
	}
	return fmt.Sprintf("%v: %s by %s since %s (%s, %slock %s)",
		ErrLocked, e.Path, h.Who, h.Since.Local().Format("2006-01-02 15:04:05"), h.What, at, h.ID)
}

// Is tells that it is ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }
