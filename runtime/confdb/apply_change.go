package confdb

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Change is the change lease: who changes the cluster's definition now, so that
// there is one apply at a time, whatever state or host it comes from.
//
// No clock decides about it. Its holder renews it, which counts Renewed up; who
// wants it and is not told that the holder is dead watches that number by its own
// clock, and takes the lease over with the number that stood still for a whole
// term (TakeChange.Seen). The takeover counts only while that is still the number:
// of a holder that renews at the same moment and a taker, the log's order lets
// one win, and the other hears so. A command under a lease that is over (Command.Change)
// is refused, so that an apply that was suspended can't go on.
type Change struct {
	ID      string        `json:"id"` // of the holder: the id of its lock on its state
	Author  string        `json:"author"`
	What    string        `json:"what"` // apply, destroy, evict
	Since   time.Time     `json:"since"`
	Renewed uint64        `json:"renewed"` // Revision of the newest renewal
	At      time.Time     `json:"at"`      // of it, by its sender's clock; for people
	Term    spec.Duration `json:"term"`    // without a renewal for so long it may be taken over
}

// TakeChange takes or renews the change lease.
type TakeChange struct {
	ID    string        `json:"id"`
	What  string        `json:"what,omitempty"`
	Term  spec.Duration `json:"term,omitempty"`
	Renew bool          `json:"renew,omitempty"` // only if it is ID's
	// From is the holder whose place this one takes: the same state's, and its
	// process is known to be dead. "": nobody's.
	From string `json:"from,omitempty"`
	// Seen is a Renewed that stood still for a whole term; 0: none.
	Seen uint64 `json:"seen,omitempty"`
}

// EndChange gives the lease back or, where the command is not under it
// (Command.Change), breaks it.
type EndChange struct {
	ID string `json:"id"`
}

// CodeLocked: someone else holds the change lease.
const CodeLocked = "locked"

// definition tells whether a command changes the definition or the membership,
// or would cross what an apply does: those are for the holder of the change
// lease, if there is one. Orders that bring service back or end it (move, online,
// offline, pause, resume, fence) are not: nobody may have to wait with them.
func (c *Command) definition() bool {
	return c.PutCluster != nil || c.PutNode != nil || c.DeleteNode != nil || c.EvictNode != nil ||
		c.PutGroup != nil || c.DeleteGroup != nil || c.PutFence != nil || c.DeleteFence != nil ||
		c.PauseNode != nil && c.PauseNode.Drain
}

// underChange refuses what the change lease does not allow.
func (s *State) underChange(c *Command) (r Result, refused bool) {
	switch {
	case c.Change != "" && c.EndChange == nil && (s.Change == nil || s.Change.ID != c.Change):
		now := "nobody has it now"
		if s.Change != nil {
			now = s.Change.String() + " has it now"
		}
		return refuse(CodeLocked, "the change lease %s is over: it was taken over or broken, and %s; nothing more is changed under it", c.Change, now), true
	case c.Change == "" && s.Change != nil && c.definition():
		return refuse(CodeLocked, "the cluster is being changed: %s", s.Change), true
	}
	return Result{}, false
}

func (h *Change) String() string {
	return h.What + " by " + h.Author + " since " + h.Since.Format(time.RFC3339) + " (change lease " + h.ID + ")"
}

func (s *State) takeChange(c Command) Result {
	t := c.TakeChange
	if t.ID == "" || !t.Renew && (t.What == "" || t.Term <= 0) {
		return refuse(CodeInvalid, "a change lease needs an id, a word for what it is, and a term")
	}
	was := s.Change
	mine := was != nil && was.ID == t.ID
	switch {
	case t.Renew && !mine:
		if was == nil {
			return refuse(CodeLocked, "the change lease %s is over: it was taken over or broken", t.ID)
		}
		return refuse(CodeLocked, "the change lease %s is over: %s has it now", t.ID, was)
	case was == nil, mine:
	case t.From != "" && t.From == was.ID:
		s.event(c, Event{Object: "cluster", Kind: KindChangeTaken, Text: "the change lease was taken over from " + was.String() + ": that process is dead"})
	case t.Seen != 0 && t.Seen == was.Renewed:
		s.event(c, Event{Object: "cluster", Kind: KindChangeTaken, Text: "the change lease was taken over from " + was.String() + ": it was not renewed for " + was.Term.String()})
	default:
		return refuse(CodeLocked, "the cluster is being changed: %s", was)
	}
	next := Change{ID: t.ID, Author: c.Author, What: t.What, Since: c.Time, Renewed: s.Revision, At: c.Time, Term: t.Term}
	if mine {
		next.Author, next.What, next.Since, next.Term = was.Author, was.What, was.Since, was.Term
	}
	s.Change = &next
	return Result{}
}

func (s *State) endChange(c Command) Result {
	switch was := s.Change; {
	case was == nil || was.ID != c.EndChange.ID:
		return refuse(CodeNotFound, "nobody holds the change lease %s", c.EndChange.ID)
	case c.Change != was.ID:
		s.event(c, Event{Object: "cluster", Kind: KindChangeBroken, Text: c.because("the change lease of " + was.String() + " was broken")})
	}
	s.Change = nil
	return Result{}
}
