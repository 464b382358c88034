package confdb

import (
	"fmt"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// QuorumLost is a new leader's word that nobody could lead for longer than
// leases last: the database could not be told then, so it is after the fact.
type QuorumLost struct {
	For     spec.Duration `json:"for"`               // from the end of the last possible lease to the command's time
	Leader  string        `json:"leader"`            // name
	Missing []string      `json:"missing,omitempty"` // nodes that were taken for up then and are not there, or not since then: name and why
}

// quorumLost writes both events: the loss, as of when it was, and the return,
// which follows from it.
func (s *State) quorumLost(c Command) Result {
	q := c.QuorumLost
	round := spec.Duration(q.For.D().Round(10 * time.Millisecond))
	text := "no majority of the votes could talk to each other for " + round.String() + ": groups stopped when their leases ended"
	if len(q.Missing) > 0 {
		text += "; " + strings.Join(q.Missing, ", ")
	}
	s.event(c, Event{Object: "cluster", Kind: KindQuorumLost, Text: text, Time: c.Time.Add(-q.For.D())})
	s.event(c, Event{Object: "cluster", Kind: KindQuorumReturned, Node: q.Leader, Cause: s.LastEvent(),
		Text: fmt.Sprintf("a majority is back after %s, led by node %s", round, q.Leader)})
	return Result{}
}

// causeWithoutQuorum is what a report follows from: what the reporter knew, unless it
// is of a time without a quorum, or since its end: the events about that were
// written only when there was one again.
func (s *State) causeWithoutQuorum(c Command) uint64 {
	for i := len(s.Events) - 1; i >= 0; i-- {
		back := &s.Events[i]
		if back.ID <= c.Cause {
			break
		}
		if back.Kind != KindQuorumReturned {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			if lost := &s.Events[j]; lost.ID == back.Cause && !c.Time.Before(lost.Time) {
				if c.Time.Before(back.Time) {
					return lost.ID
				}
				return back.ID
			}
		}
		break
	}
	return c.Cause
}

// lossView is how long before a loss a node may have gone down for it: the last
// leader noticed while it still had leases, and could not commit it any more.
const lossView = 2 * time.Second

// backWithQuorum is the return of the quorum that a node's coming up follows
// from, where it went down with the quorum; else 0.
func (s *State) backWithQuorum(node string) uint64 {
	var back, lost, down *Event
	for i := len(s.Events) - 1; i >= 0 && (lost == nil || down == nil); i-- {
		switch e := &s.Events[i]; {
		case down == nil && e.Kind == KindNodeDown && e.Node == node:
			down = e
		case back == nil && e.Kind == KindQuorumReturned:
			back = e
		case back != nil && lost == nil && e.ID == back.Cause:
			lost = e
		}
	}
	if down == nil || lost == nil || down.ID > back.ID || down.Time.Before(lost.Time.Add(-lossView)) {
		return 0
	}
	return back.ID
}
