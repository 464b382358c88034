package confdb

import (
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// putGroup adds a group or changes its definition: the group with all its
// resources, as one.
func (s *State) putGroup(c Command) Result {
	next := *c.PutGroup
	if next.ID == "" || next.Name == "" {
		return refuse(CodeInvalid, "a group needs an id and a name")
	}
	if r := s.guardGroup(next); r.Code != "" {
		return r
	}
	want := next.PersistentState
	if want != spec.WantOffline {
		want = spec.WantOnline
	}
	g := s.Groups[next.ID]
	if g == nil {
		g = &Group{Spec: next, Want: want, State: spec.StateOffline}
		g.Resources = resourceStates(next, nil)
		s.Groups[next.ID] = g
		s.configured()
		s.event(c, s.aboutGroup(g, KindGroupAdded, c.because("group "+next.Name+" was added")))
		return Result{}
	}
	if g.Deleting != nil {
		return refuse(CodeConflict, "group %s is being deleted; wait until it is gone", g.Spec.Name)
	}
	if same(g.Spec, next) {
		return Result{}
	}
	if next.PersistentState != g.Spec.PersistentState {
		g.Want, g.WantBy = want, nil
	}
	if g.Owner.Node != "" && g.Spec.OutlivesLease() {
		g.Owner.Open = true // until the next owner: this one may not have heard of the change
	}
	g.Owner.Freeze = g.Owner.Node != "" && g.Freezes() // the same
	if g.Spec.Name != next.Name {
		s.renameGroup(g.Spec.Name, next.Name)
	}
	g.renameCheckpoints(next)
	g.Spec = next
	s.relyOnWatchdog(g)
	g.Resources = resourceStates(next, g.Resources)
	s.endUploads(next.ID)
	g.LeftFailed, g.GaveUp, g.GaveUpAt, g.FailedOn = "", false, time.Time{}, nil
	if len(next.PreferredOwners) == 0 && s.Nodes[g.HomeFrom] == nil {
		g.HomeFrom = "" // a node that is gone, and that no name stands for any more
	}
	s.configured()
	s.event(c, s.aboutGroup(g, KindGroupChanged, c.because("group "+next.Name+" changed")))
	return Result{}
}

// guardGroup holds what must be unique against a second writer who planned
// from an older revision without If-Match.
func (s *State) guardGroup(next spec.Group) Result {
	names := map[string]bool{}
	taken := map[string]string{} // address -> group
	for _, id := range s.groupIDs() {
		o := s.Groups[id]
		if id == next.ID {
			continue
		}
		if o.Spec.Name == next.Name {
			return refuse(CodeInvalid, "a group %s is there already (id %s); names are unique", next.Name, id)
		}
		for _, r := range o.Spec.Resources {
			if a := address(r); a != "" {
				taken[a] = o.Spec.Name
			}
		}
	}
	for _, r := range next.Resources {
		if r.Name == "" || names[r.Name] {
			return refuse(CodeInvalid, "group %s has two resources %q, or one without a name", next.Name, r.Name)
		}
		names[r.Name] = true
		a := address(r)
		if a == "" {
			continue
		}
		if other, ok := taken[a]; ok {
			return refuse(CodeInvalid, "address %s belongs to group %s already; one address can't be in two places", a, other)
		}
		taken[a] = next.Name
	}
	return Result{}
}

// resourceStates has one state for each of g's resources, in its order: the
// one that is known, else offline.
func resourceStates(g spec.Group, known []ResourceState) []ResourceState {
	states := make([]ResourceState, 0, len(g.Resources))
	for _, r := range g.Resources {
		i := slices.IndexFunc(known, func(k ResourceState) bool { return k.Name == r.Name })
		if i >= 0 {
			states = append(states, known[i])
		} else {
			states = append(states, ResourceState{Name: r.Name, State: spec.StateOffline})
		}
	}
	return states
}

func (s *State) deleteGroup(c Command) Result {
	id := c.DeleteGroup.Group
	g := s.Groups[id]
	if g == nil {
		return refuse(CodeNotFound, "no group has id %s", id)
	}
	switch {
	case g.Owner.Node == "":
		s.configured()
		s.removeGroup(c, id)
	case g.Deleting == nil:
		g.Deleting, g.Move = c.intent(), nil
		s.configured()
		s.event(c, s.aboutGroup(g, KindGroupDeleting, c.because("group "+g.Spec.Name+" is to be deleted: it is stopped first")))
	}
	return Result{}
}

func (s *State) removeGroup(c Command, id string) {
	g := s.Groups[id]
	delete(s.Groups, id)
	s.KV.drop(s.Revision, id)
	s.endUploads(id)
	s.event(c, s.aboutGroup(g, KindGroupRemoved, "group "+g.Spec.Name+" was removed"))
}

func (s *State) setWant(c Command) Result {
	g := s.Groups[c.SetWant.Group]
	want := c.SetWant.Want
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", c.SetWant.Group)
	case want != spec.WantOnline && want != spec.WantOffline:
		return refuse(CodeInvalid, "a group can be wanted online or offline, not %q", want)
	case g.Deleting != nil:
		return refuse(CodeConflict, "group %s is being deleted", g.Spec.Name)
	}
	// An online for a failed group is an order to try again from the start.
	if want == spec.WantOnline {
		g.LeftFailed, g.GaveUp, g.GaveUpAt, g.Failovers, g.FailedOn = "", false, time.Time{}, nil, nil
	} else {
		g.Move = nil
	}
	if g.Want == want && want == spec.WantOffline {
		return Result{}
	}
	g.Want, g.WantBy = want, c.intent()
	g.orderDone()
	s.event(c, s.aboutGroup(g, KindGroupWanted, c.because("group "+g.Spec.Name+" is wanted "+want)))
	return Result{}
}

// orderDone forgets an operator's online once it is carried out and the
// definition says no other: nothing differs any more. (With priority 0 it is
// what lets the group start, so it stays.)
func (g *Group) orderDone() {
	if g.Want == spec.WantOnline && g.State == spec.StateOnline && g.Spec.PersistentState != spec.WantOffline && g.Spec.Priority > 0 {
		g.WantBy = nil
	}
}

// forgive takes a node out of those where the group failed.
func (g *Group) forgive(node string) {
	if i, ok := slices.BinarySearch(g.FailedOn, node); ok {
		g.FailedOn = slices.Concat(g.FailedOn[:i], g.FailedOn[i+1:])
	}
}

func (s *State) moveGroup(c Command) Result {
	m := c.MoveGroup
	g := s.Groups[m.Group]
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", m.Group)
	case g.Deleting != nil:
		return refuse(CodeConflict, "group %s is being deleted", g.Spec.Name)
	case g.Want == spec.WantOffline:
		return refuse(CodeInvalid, "group %s is wanted offline; bring it online first", g.Spec.Name)
	}
	text := "group " + g.Spec.Name + " is to move"
	if m.To != "" {
		n := s.Nodes[m.To]
		_, up := slices.BinarySearch(s.View.Up, m.To)
		switch {
		case n == nil:
			return refuse(CodeNotFound, "no node has id %s", m.To)
		case !g.Spec.MayOwn(n.Spec):
			return refuse(CodeInvalid, "node %s may not own group %s: see its possible_owners and the node's role", n.Spec.Name, g.Spec.Name)
		case n.Paused != nil:
			return refuse(CodeInvalid, "node %s is paused; resume it first", n.Spec.Name)
		case n.Quarantine != nil:
			return refuse(CodeInvalid, "node %s is quarantined; resume it first", n.Spec.Name)
		case !n.Joined || !up:
			return refuse(CodeInvalid, "node %s is not up", n.Spec.Name)
		case g.Owner.Node == m.To:
			g.Move = nil // there already, and it stays
			return Result{}
		}
		text += " to node " + n.Spec.Name
	}
	g.Move = &Move{To: m.To, Intent: *c.intent()}
	g.LeftFailed = ""
	s.event(c, s.aboutGroup(g, KindGroupMove, c.because(text)))
	return Result{}
}

// handOver has the owner stop the group. The owner stays the owner until an
// Assign: only its release, or the wait, lets another start.
func (s *State) handOver(c Command) Result {
	h := c.Handover
	g := s.Groups[h.Group]
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", h.Group)
	case g.Owner.Node == "" || h.From != g.Owner.Epoch:
		return refuse(CodeConflict, "group %s is at epoch %d, not %d, or nobody owns it", g.Spec.Name, g.Owner.Epoch, h.From)
	case h.To != "" && s.Nodes[h.To] == nil:
		return refuse(CodeNotFound, "no node has id %s", h.To)
	}
	g.Handover = &Handover{To: h.To, Why: h.Why}
	text := h.Text
	if text == "" {
		text = "group " + g.Spec.Name + " is stopped to go elsewhere"
	}
	s.event(c, s.aboutGroup(g, KindGroupHandover, text))
	return Result{}
}

// isHome tells whether a group's owner is the one that a failback ends at: the
// head of its preferred owners, else the node that it was taken from.
func (s *State) isHome(g *Group) bool {
	if len(g.Spec.PreferredOwners) > 0 {
		return s.NodeName(g.Owner.Node) == g.Spec.PreferredOwners[0]
	}
	return g.Owner.Node == g.HomeFrom
}

// relyOnWatchdog has a takeover from the group's owner wait for its watchdog, where
// the group relies on that. It is not taken back while the owner may not have heard.
func (s *State) relyOnWatchdog(g *Group) {
	if n := s.Nodes[g.Owner.Node]; n != nil {
		g.Owner.Watchdog = max(g.Owner.Watchdog, g.Spec.WatchdogOn(&n.Spec))
	}
}

// assign changes the owner: the one place where an epoch grows. It holds only
// for the epoch that the leader saw, and never against an operator's newer order.
func (s *State) assign(c Command) Result {
	a := c.Assign
	g := s.Groups[a.Group]
	n := s.Nodes[a.Node]
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", a.Group)
	case a.From != g.Owner.Epoch:
		return refuse(CodeConflict, "group %s is at epoch %d, not %d", g.Spec.Name, g.Owner.Epoch, a.From)
	case a.Node != "" && n == nil:
		return refuse(CodeNotFound, "no node has id %s", a.Node)
	case a.Node != "" && (g.Deleting != nil || g.Want == spec.WantOffline):
		return refuse(CodeConflict, "group %s is not to be online any more", g.Spec.Name)
	case a.Node != "" && !g.Spec.MayOwn(n.Spec):
		return refuse(CodeInvalid, "node %s may not own group %s", n.Spec.Name, g.Spec.Name)
	}
	was := g.Owner.Node
	g.Owner = Ownership{
		Node: a.Node, Epoch: a.From + 1, Since: c.Time,
		Lease: max(a.Timings.Lease, s.leaseOf(n)), StopWithin: a.Timings.StopWithin, Kill: a.Timings.Kill,
		Open: a.Node != "" && a.Timings.Open, Freeze: a.Node != "" && a.Timings.Freeze,
	}
	s.relyOnWatchdog(g)
	g.GaveUp, g.GaveUpAt, g.Handover = false, time.Time{}, nil
	g.LeftFailed = a.LeftFailed
	s.endUploads(a.Group)
	period := g.Spec.Failover.Period.D()
	if period == 0 {
		period = 6 * time.Hour
	}
	g.Failovers = trim(g.Failovers, c.Time, period)
	if a.Counts {
		g.Failovers = append(g.Failovers, c.Time)
		if i, ok := slices.BinarySearch(g.FailedOn, was); !ok && was != "" {
			g.FailedOn = slices.Insert(slices.Clone(g.FailedOn), i, was)
		}
	}
	if (a.Failover || a.Away) && g.HomeFrom == "" && was != a.Node {
		g.HomeFrom = was
	}
	e := Event{Node: s.NodeName(was), Kind: KindGroupReleased, Text: "group " + g.Spec.Name + " is offline: nobody owns it"}
	switch {
	case a.Node != "":
		// The new owner reports from the start; what the last one said is over.
		g.State, g.Resources = spec.StatePending, resourceStates(g.Spec, nil)
		if g.Move != nil || s.isHome(g) {
			g.HomeFrom = "" // an operator's choice, or home again
		}
		g.Move = nil
		e.Node, e.Kind, e.Text = n.Spec.Name, KindGroupAssigned, "group "+g.Spec.Name+" goes to node "+n.Spec.Name
		if a.Failover {
			e.Kind, e.Cause = KindGroupFailover, s.downSince(s.NodeName(was), c.Cause)
		}
	case a.LeftFailed != "":
		g.State = spec.StateFailed // resources keep what was wrong with them
		e.Kind, e.Text = KindGroupLeft, "group "+g.Spec.Name+" is left failed: "+a.LeftFailed
	default:
		g.State, g.Resources = spec.StateOffline, resourceStates(g.Spec, nil)
	}
	if a.Text != "" {
		e.Text = a.Text
	}
	e.Object = g.Spec.Addr.String()
	s.event(c, e)
	if a.Node == "" && g.Deleting != nil {
		s.removeGroup(c, a.Group)
	}
	return Result{}
}

// downSince is what a failover follows from: its node's going down, if that was
// written after what the leader knew when it decided, as it is where it asks for
// both at once; else that.
func (s *State) downSince(node string, known uint64) uint64 {
	for i := len(s.Events) - 1; i >= 0 && s.Events[i].ID > known; i-- {
		if e := &s.Events[i]; e.Node == node && (e.Kind == KindNodeDown || e.Kind == KindNodeFenced) {
			return e.ID
		}
	}
	return known
}

func (s *State) report(c Command) Result {
	r := c.Report
	g := s.Groups[r.Group]
	switch {
	case g == nil:
		return refuse(CodeNotFound, "no group has id %s", r.Group)
	case r.Epoch != g.Owner.Epoch || r.Node != g.Owner.Node:
		return refuse(CodeConflict, "group %s belongs to node %s under epoch %d, not to %s under %d",
			g.Spec.Name, s.NodeName(g.Owner.Node), g.Owner.Epoch, s.NodeName(r.Node), r.Epoch)
	}
	g.State = r.State
	g.Resources = resourceStates(g.Spec, r.Resources)
	if r.GiveUp && !g.GaveUp {
		g.GaveUp, g.GaveUpAt = true, c.Time
	}
	if g.State == spec.StateOnline {
		g.forgive(r.Node)
		g.orderDone()
	}
	if r.Text != "" {
		kind := r.Kind
		if kind == "" {
			kind = KindGroupState
		}
		e := s.aboutGroup(g, kind, r.Text)
		e.Node, e.Cause = s.NodeName(r.Node), s.causeWithoutQuorum(c)
		s.event(c, e)
	}
	return Result{}
}

func (s *State) aboutGroup(g *Group, kind, text string) Event {
	return Event{Object: g.Spec.Addr.String(), Kind: kind, Text: text, Node: s.ownerName(g)}
}

func (s *State) ownerName(g *Group) string {
	if g.Owner.Node == "" {
		return ""
	}
	return s.NodeName(g.Owner.Node)
}
