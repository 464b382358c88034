package confdb

import (
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Bounds of what the state remembers. Both are part of the state machine: to
// change one is to change the format.
const (
	maxEvents = 2000
	maxDone   = 5000
)

// Apply carries out a committed command and returns what became of it. It is
// deterministic: it reads nothing but s and c. A command whose id is among the
// newest maxDone changes nothing and gets its first Result. s takes over what
// c points to; nothing in there is changed in place later on.
func (s *State) Apply(c Command) Result {
	if r, ok := s.Answered(c.ID); ok {
		return r
	}
	c.Time = plain(c.Time)
	s.Revision++
	r := s.do(c)
	r.Revision = s.Revision
	if c.Nothing && r.Code == "" {
		return r // whoever reads much may not push out what a retry needs
	}
	s.remember(Done{ID: c.ID, Result: r})
	return r
}

// Answered is what became of a command, if it is among the newest maxDone.
func (s *State) Answered(id string) (Result, bool) {
	if s.done == nil { // read from a snapshot, or new
		s.done, s.base = make(map[string]int, len(s.Done)), 0
		for i := range s.Done {
			s.done[s.Done[i].ID] = i
		}
	}
	if i, ok := s.done[id]; ok {
		return s.Done[i-s.base].Result, true
	}
	return Result{}, false
}

// remember adds a command to the newest, after Answered did not know it.
func (s *State) remember(d Done) {
	s.done[d.ID] = s.base + len(s.Done)
	s.Done = append(s.Done, d)
	if len(s.Done) > maxDone {
		delete(s.done, s.Done[0].ID)
		s.Done = s.Done[1:]
		s.base++
	}
}

// do checks first and changes after: a refused command leaves no trace but its
// place in Done.
func (s *State) do(c Command) Result {
	if err := c.check(); err != nil {
		return refuse(CodeInvalid, "the command is refused: %v", err)
	}
	if c.IfMatch != 0 && c.IfMatch != s.ConfigRevision {
		return refuse(CodeConflict, "the definition is at revision %d now, not %d: someone else changed it; plan again", s.ConfigRevision, c.IfMatch)
	}
	if r, refused := s.underChange(&c); refused {
		return r
	}
	switch {
	case c.PutCluster != nil:
		return s.putCluster(c)
	case c.PutNode != nil:
		return s.putNode(c)
	case c.DeleteNode != nil:
		return s.deleteNode(c)
	case c.NodeJoined != nil:
		return s.nodeJoined(c)
	case c.PauseNode != nil:
		return s.pauseNode(c)
	case c.ResumeNode != nil:
		return s.resumeNode(c)
	case c.PutGroup != nil:
		return s.putGroup(c)
	case c.DeleteGroup != nil:
		return s.deleteGroup(c)
	case c.SetWant != nil:
		return s.setWant(c)
	case c.MoveGroup != nil:
		return s.moveGroup(c)
	case c.Handover != nil:
		return s.handOver(c)
	case c.Assign != nil:
		return s.assign(c)
	case c.Report != nil:
		return s.report(c)
	case c.SetView != nil:
		return s.setView(c)
	case c.EvictNode != nil:
		return s.evictNode(c)
	case c.EndQuarantine != nil:
		return s.endQuarantine(c)
	case c.ConfirmTimings != nil:
		return s.confirmTimings(c)
	case c.TellLinks != nil:
		return s.tellLinks(c)
	case c.TellCert != nil:
		return s.tellCert(c)
	case c.QuorumLost != nil:
		return s.quorumLost(c)
	case c.RotateKey != nil:
		return s.rotateKey(c)
	case c.KeyPhase != nil:
		return s.keyPhase(c)
	case c.KV != nil:
		return s.kvWrite(c)
	case c.PutChunk != nil:
		return s.putChunk(c)
	case c.PutCheckpoint != nil:
		return s.putCheckpoint(c)
	case c.PutFence != nil:
		return s.putFence(c)
	case c.DeleteFence != nil:
		return s.deleteFence(c)
	case c.FenceNode != nil:
		return s.fenceNode(c)
	case c.NodeFenced != nil:
		return s.nodeFenced(c)
	case c.TakeChange != nil:
		return s.takeChange(c)
	case c.EndChange != nil:
		return s.endChange(c)
	case c.Event != nil:
		s.event(c, *c.Event)
	}
	return Result{} // an event, or a barrier
}

func refuse(code, format string, args ...any) Result {
	return Result{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// configured counts a change of the definition.
func (s *State) configured() { s.ConfigRevision = s.Revision }

// event appends e with the next id; time, cause and author are the command's
// where e has none.
func (s *State) event(c Command, e Event) {
	e.ID = s.LastEvent() + 1
	if e.Time = plain(e.Time); e.Time.IsZero() {
		e.Time = c.Time
	}
	if e.Cause == 0 {
		e.Cause = c.Cause
	}
	if e.Author == "" {
		e.Author = c.Author
	}
	s.Events = append(s.Events, e)
	if len(s.Events) > maxEvents {
		s.Events = s.Events[len(s.Events)-maxEvents:]
	}
}

// LastEvent is the id of the newest event, 0 if there is none yet.
func (s *State) LastEvent() uint64 {
	if len(s.Events) == 0 {
		return 0
	}
	return s.Events[len(s.Events)-1].ID
}

// EventsSince are the events after id that are still kept, oldest first. Who
// keeps them copies them.
func (s *State) EventsSince(id uint64) []Event {
	last := s.LastEvent()
	if id >= last {
		return nil
	}
	if n := last - id; n < uint64(len(s.Events)) {
		return s.Events[len(s.Events)-int(n):]
	}
	return s.Events
}

// NodeName is the name of the node with that id, or the id.
func (s *State) NodeName(id string) string {
	if n := s.Nodes[id]; n != nil {
		return n.Spec.Name
	}
	return id
}

func (c *Command) intent() *Intent {
	return &Intent{Author: c.Author, Reason: c.Reason, Time: c.Time}
}

// because ends an event's text with the reason that a person gave.
func (c *Command) because(text string) string {
	if c.Reason != "" {
		return text + ": " + c.Reason
	}
	return text
}

func (s *State) putCluster(c Command) Result {
	next := *c.PutCluster
	if s.Cluster.ID != "" && next.ID != s.Cluster.ID {
		return refuse(CodeInvalid, "this is cluster %s (id %s); its id never changes, and %q is another one's", s.Cluster.Name, s.Cluster.ID, next.ID)
	}
	if same(s.Cluster, next) {
		return Result{}
	}
	text := "the cluster's settings changed"
	switch was := s.Cluster.Quorum; {
	case s.Cluster.ID == "":
		text = "cluster " + next.Name + " was made"
	case was != next.Quorum:
		// The database follows what stands here (runtime/member): so never back.
		if why := spec.QuorumChange(was, next.Quorum); why != "" {
			return refuse(CodeInvalid, "%s", why)
		}
		text = fmt.Sprintf("the quorum model changed from %s to %s", was.Model, next.Quorum.Model)
	}
	s.retime(next)
	s.Cluster = next
	s.configured()
	s.event(c, Event{Object: "cluster", Kind: KindClusterChanged, Text: c.because(text)})
	return Result{}
}

func (s *State) setView(c Command) Result {
	v := c.SetView
	if v.From != s.View.Epoch {
		return refuse(CodeConflict, "the view is at epoch %d, not %d", s.View.Epoch, v.From)
	}
	var up []string
	for _, id := range v.Up {
		if s.Nodes[id] != nil {
			up = append(up, id)
		}
	}
	slices.Sort(up)
	up = slices.Compact(up)
	if slices.Equal(up, s.View.Up) {
		return Result{}
	}
	was := s.View.Up
	s.View = View{Epoch: s.View.Epoch + 1, Up: up}
	for _, id := range was {
		if _, ok := slices.BinarySearch(up, id); !ok {
			n := s.Nodes[id]
			s.event(c, Event{Node: n.Spec.Name, Object: n.Spec.Addr.String(), Kind: KindNodeDown, Text: c.because("node " + n.Spec.Name + " is down")})
			if !slices.Contains(v.Left, id) {
				s.lostNode(c, n)
			}
		}
	}
	for _, id := range up {
		if _, ok := slices.BinarySearch(was, id); !ok {
			n := s.Nodes[id]
			s.event(c, Event{Node: n.Spec.Name, Object: n.Spec.Addr.String(), Kind: KindNodeUp, Text: c.because("node " + n.Spec.Name + " is up"), Cause: s.backWithQuorum(n.Spec.Name)})
			for _, g := range s.Groups {
				g.forgive(id) // it is as good as another one
			}
		}
	}
	return Result{}
}

// plain is a time as a snapshot reads it back; one that JSON can't write (a
// year past 9999, by its zone) is none.
func plain(t time.Time) time.Time {
	t = t.UTC().Round(0)
	if y := t.Year(); y < 1 || y > 9999 {
		return time.Time{}
	}
	return t
}

// trim drops what is older than period before now.
func trim(times []time.Time, now time.Time, period time.Duration) []time.Time {
	var kept []time.Time
	for _, t := range times {
		if now.Sub(t) < period {
			kept = append(kept, t)
		}
	}
	return kept
}
