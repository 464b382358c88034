package core

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// phase of a run.
type phase int

const (
	phaseDown     phase = iota // nothing of it is on this host, and that is proven
	phaseUp                    // its resources come up, or are up
	phaseStopping              // they go down in order
	phaseEnding                // EndGroup is under way; GroupDown proves it
)

// run is one group on this node under one epoch.
type run struct {
	id         string
	name       string
	epoch      uint64
	stopWithin spec.Duration // as recorded with the ownership: W counts with it
	kill       spec.Duration
	stopBound  time.Duration // how long it may take to stop; what runs may be of an earlier definition, with longer times
	object     string        // address, for events
	revision   uint64        // ConfigRevision that resources are of
	freezes    bool          // it is the freezer's: as no_quorum was when it was started

	phase     phase
	wanted    bool // by the state, as last looked at
	resources []resource
	old       []resource // no longer defined; they only go down
	gone      bool       // no longer this node's under this epoch
	gaveUp    bool
	told      bool // and said so once: who wants another try has taken that back, and it is not said again
	released  bool // never started again under this epoch
	endAt     spec.Instant
	stopAt    spec.Instant // when it began to stop
	froze     bool         // frozen when last looked at
	stuck     bool
	held      bool // a script's stop keeps it here, and that was told
	unfenced  bool // so it does, or a freezer that isn't back, for want of a fence
	answered  bool // the monitor has said something of it since its end was ordered
	dirty     bool
	deadline  spec.Instant

	notes  []note
	report struct {
		inflight string // command id
		giveUp   bool   // it says so
		last     string // what was last applied, as text
		sent     string
	}
}

type note struct {
	kind, text string
	root       bool // it follows from nothing that is in the log
}

// resource is one resource of a run.
type resource struct {
	spec     spec.Resource
	state    string
	reason   string
	since    spec.Instant   // of the last sign of progress while pending
	starts   []spec.Instant // restarts within the period
	retryAt  spec.Instant   // when it is started again after a failure
	resting  bool           // past its restarts; the group stays
	failed   bool           // failed and not online since
	timedOut string         // it is stopped because it came online too slowly, or failed while the group was frozen: why
	failing  string         // it has failed, and is StateFailed once its stop has come to an end: why
	stop     time.Duration  // stop_timeout as it was started with; a change counts from the next start on
	late     string         // it failed while the group was frozen: why
}

func (r *resource) set(state, reason string) { r.state, r.reason, r.failing = state, reason, "" }

func newRun(id string, g *confdb.Group) *run {
	r := &run{id: id, name: g.Spec.Name, epoch: g.Owner.Epoch, stopWithin: g.Owner.StopWithin, kill: g.Owner.Kill, object: g.Spec.Addr.String()}
	r.define(g)
	return r
}

// define takes over the group's definition and tells whether its resources
// differ. What runs and changed is stopped and started again.
func (r *run) define(g *confdb.Group) bool {
	r.name, r.object = g.Spec.Name, g.Spec.Addr.String()
	r.stopBound = max(r.stopBound, g.Spec.StopBound())
	next := make([]resource, 0, len(g.Spec.Resources))
	changed := len(g.Spec.Resources) != len(r.resources)
	for _, s := range g.Spec.Resources {
		n := resource{spec: s, state: spec.StateOffline}
		if i := slices.IndexFunc(r.resources, func(x resource) bool { return x.spec.Name == s.Name }); i >= 0 {
			was := r.resources[i]
			switch {
			case sameResource(was.spec, s):
				was.spec = s
				n = was
			case isDown(was.state):
				changed = true
			default: // the old one goes down first; both have one name at the monitor
				changed = true
				was.spec.DependsOn, was.spec.DependsOnAny = nil, nil
				r.old = append(r.old, was)
			}
		}
		next = append(next, n)
	}
	for _, was := range r.resources {
		if !isDown(was.state) && !slices.ContainsFunc(next, func(x resource) bool { return x.spec.Name == was.spec.Name }) {
			changed = true
			r.old = append(r.old, was)
		}
	}
	r.resources = next
	return changed
}

// sameResource tells whether a change from a to b can wait for the next start:
// by the type's schema no attribute differs that takes a restart, as the plan
// has shown.
func sameResource(a, b spec.Resource) bool {
	if a.ID != b.ID || a.Type != b.Type || a.SeparateMonitor != b.SeparateMonitor {
		return false // another id: it is made anew
	}
	schema, known := spec.ResourceTypes()[a.Type]
	if !known {
		return reflect.DeepEqual(a.Attributes, b.Attributes)
	}
	for _, attr := range schema.Attributes {
		if attr.Impact != spec.ImpactNone && !reflect.DeepEqual(a.Attributes[attr.Name], b.Attributes[attr.Name]) {
			return false
		}
	}
	return true
}

func isDown(state string) bool { return state == spec.StateOffline || state == spec.StateFailed }

func (r *run) find(name string) *resource {
	for i := range r.resources {
		if r.resources[i].spec.Name == name {
			return &r.resources[i]
		}
	}
	return nil
}

func (r *run) allDown(reason string) {
	r.phase, r.stuck, r.held, r.unfenced, r.old = phaseDown, false, false, false, nil
	for i := range r.resources {
		switch x := &r.resources[i]; {
		case x.failing != "":
			x.set(spec.StateFailed, x.failing)
		case x.state != spec.StateFailed:
			x.set(spec.StateOffline, reason)
		}
	}
}

// stepRun takes a group's next steps.
func (m *Machine) stepRun(r *run) {
	g := m.state.Groups[r.id]
	mine := g != nil && !r.gone
	r.wanted = mine && m.toRun(r, g)
	if r.phase == phaseDown && mine {
		r.freezes = g.Spec.NoQuorum == spec.NoQuorumFreeze
	}
	up := r.wanted && m.monitor && m.hosted(r) && m.hasLease() && !m.closing
	switch r.phase {
	case phaseDown:
		if up {
			r.phase, r.froze = phaseUp, false
			for i := range r.resources {
				x := &r.resources[i]
				x.set(spec.StateOffline, "")
				x.resting, x.retryAt, x.starts, x.failed, x.timedOut, x.late = false, 0, nil, false, "", ""
			}
			m.driveUp(r)
		} else if mine && !r.released && m.monitor && (m.closing || !r.wanted) {
			// Not for a lost lease alone: with the next one it starts again,
			// and a release may never be followed by a start.
			r.released = true
			m.owner.released = append(m.owner.released, r)
			if m.lead == nil && m.drv.Leader != 0 {
				m.emit(Send{m.drv.Leader}) // who waits for it need not wait for the next frame
			}
			m.leadDirty()
		}
	case phaseUp:
		switch {
		case m.frozen(r):
			if !r.froze {
				r.froze = true
				m.say("warn", "a group is frozen: it goes on as it is until there is a lease again", "group", r.name, "epoch", r.epoch)
			}
		case !up && !(r.freezes && m.freezer.up && r.wanted && !m.closing):
			r.stopAt = m.now
			m.stopRun(r)
		case up:
			if r.froze {
				r.froze = false
				m.say("info", "a frozen group has a lease again", "group", r.name, "epoch", r.epoch)
			}
			m.lateFailures(r)
			if r.phase == phaseUp {
				m.driveUp(r)
			}
		}
	case phaseStopping:
		m.driveDown(r)
	case phaseEnding:
		m.watchEnd(r)
	}
	if mine {
		m.reportRun(r, g)
	}
}

// driveUp starts what can start, in parallel, along the dependencies; stops
// what stands on something that is down; and restarts by policy.
func (m *Machine) driveUp(r *run) {
	for i := range r.old {
		m.stopOne(r, &r.old[i], "no longer defined so")
	}
	for i := range r.resources {
		x := &r.resources[i]
		switch x.state {
		case spec.StateOffline, spec.StateFailed:
			if x.retryAt != 0 && m.now < x.retryAt {
				earliest(&r.deadline, x.retryAt)
				continue
			}
			if x.state == spec.StateFailed && x.retryAt == 0 {
				continue
			}
			if !r.supported(x) || r.goesFirst(&x.spec) || r.dependentsUp(x) {
				continue
			}
			if why := m.unwatched(r, x); why != "" {
				m.giveUp(r, x, why)
				return
			}
			x.retryAt, x.resting = 0, false
			x.set(spec.StateOnlinePending, "")
			x.since, x.stop = m.now, x.spec.StopTimeout()
			m.emit(StartResource{Group: r.id, GroupName: r.name, Epoch: r.epoch, StopWithin: r.stopWithin, Resource: x.spec, Freezer: r.freezes})
			m.pendingDeadline(r, x)
		case spec.StateOnlinePending:
			if timeout := x.spec.PendingTimeout.D(); timeout > 0 && m.now >= x.since.Add(timeout) {
				x.timedOut = fmt.Sprintf("no progress for %s while coming online (pending_timeout)", x.spec.PendingTimeout)
				m.stopOne(r, x, x.timedOut) // it has failed once it is down
				continue
			}
			m.pendingDeadline(r, x)
		case spec.StateOfflinePending:
			if !x.spec.Restart.AffectGroup {
				break
			}
			end := x.stopEnd(stopSlack)
			if end != 0 && m.now >= end {
				took, what := spec.Duration(end.Sub(x.since)), "failed"
				if x.failing == "" && x.timedOut == "" {
					what = "went down with what it depends on"
				}
				r.gaveUp = true
				r.note(KindGroupFailed, fmt.Sprintf("resource %s of group %s %s, and its stop has not come to an end for %s: %s; group %s gives up on this node", x.spec.Name, r.name, what, took, x.reason, r.name))
				m.stopRun(r)
				return
			}
			earliest(&r.deadline, end)
		}
		// Something it stands on went down: down first, up again after it.
		if (x.state == spec.StateOnline || x.state == spec.StateOnlinePending) && !r.supported(x) {
			m.stopOne(r, x, "what it depends on went down")
		}
	}
}

func (m *Machine) pendingDeadline(r *run, x *resource) {
	if timeout := x.spec.PendingTimeout.D(); timeout > 0 {
		earliest(&r.deadline, x.since.Add(timeout))
	}
}

// supported tells whether what x depends on is online.
func (r *run) supported(x *resource) bool {
	for _, name := range x.spec.DependsOn {
		if d := r.find(name); d != nil && d.state != spec.StateOnline {
			return false
		}
	}
	if len(x.spec.DependsOnAny) == 0 {
		return true
	}
	for _, name := range x.spec.DependsOnAny {
		if d := r.find(name); d != nil && d.state == spec.StateOnline {
			return true
		}
	}
	return false
}

func (r *run) oldOf(name string) bool {
	return slices.ContainsFunc(r.old, func(x resource) bool { return x.spec.Name == name })
}

// goesFirst tells whether the resource runs still as it was before, perhaps
// under another name: that goes down first.
func (r *run) goesFirst(s *spec.Resource) bool {
	return slices.ContainsFunc(r.old, func(x resource) bool { return x.spec.Name == s.Name || s.ID != "" && x.spec.ID == s.ID })
}

// dependentsUp tells whether something that stands on x alone is not down
// yet: x starts again only under nothing.
func (r *run) dependentsUp(x *resource) bool {
	for i := range r.resources {
		if d := &r.resources[i]; !isDown(d.state) && (slices.Contains(d.spec.DependsOn, x.spec.Name)) {
			return true
		}
	}
	return false
}

// needed tells whether something that stands on x is not down yet.
func (r *run) needed(x *resource) bool {
	for i := range r.resources {
		d := &r.resources[i]
		if !isDown(d.state) && (slices.Contains(d.spec.DependsOn, x.spec.Name) || slices.Contains(d.spec.DependsOnAny, x.spec.Name)) {
			return true
		}
	}
	for i := range r.old {
		d := &r.old[i]
		if !isDown(d.state) && (slices.Contains(d.spec.DependsOn, x.spec.Name) || slices.Contains(d.spec.DependsOnAny, x.spec.Name)) {
			return true
		}
	}
	return false
}

// resourceChanged takes the monitor's word on a resource.
func (m *Machine) resourceChanged(ev ResourceChanged) {
	r := m.owner.runs[ev.Group]
	if r == nil || r.epoch != ev.Epoch || r.phase == phaseDown {
		return
	}
	r.dirty, m.owner.dirty = true, true
	r.answered = true
	down := isDown(ev.State) && !ev.Stopping
	if down {
		if i := slices.IndexFunc(r.old, func(x resource) bool { return x.spec.Name == ev.Resource }); i >= 0 {
			r.old = slices.Delete(r.old, i, i+1)
			return
		}
	} else if r.oldOf(ev.Resource) {
		return
	}
	x := r.find(ev.Resource)
	if x == nil {
		return
	}
	if x.timedOut != "" && down {
		why := x.timedOut
		x.timedOut = ""
		switch {
		case m.frozen(r):
			x.late = why
			x.set(spec.StateFailed, why)
			return
		case r.phase == phaseUp:
			m.failed(r, x, why, false)
			return
		}
	}
	switch ev.State {
	case spec.StateOnlinePending:
		x.since = m.now // a sign of progress
		if x.state == spec.StateOnlinePending {
			x.reason = ev.Reason
		}
	case spec.StateOnline:
		if x.state != spec.StateOnlinePending {
			return // stopped in between
		}
		x.set(spec.StateOnline, ev.Reason)
		if x.failed {
			x.failed = false
			r.note(KindResourceRestart, fmt.Sprintf("resource %s of group %s is online again", x.spec.Name, r.name))
		}
	case spec.StateOfflinePending:
		if x.state != spec.StateOfflinePending || ev.Reason == "" {
			return
		}
		x.reason = ev.Reason // its stop has failed, and is tried again
		if x.failing != "" {
			x.reason = x.failing + "; " + ev.Reason
		}
	case spec.StateOffline:
		if r.phase == phaseUp && (x.state == spec.StateOnline || x.state == spec.StateOnlinePending) {
			if !m.hasLease() {
				x.set(spec.StateOffline, ev.Reason)
				if m.frozen(r) {
					x.late = orElse(ev.Reason, "it went offline by itself")
				}
				return
			}
			m.failed(r, x, orElse(ev.Reason, "it went offline by itself"), false)
			return
		}
		switch {
		case x.failing != "":
			x.set(spec.StateFailed, x.failing)
		case x.state == spec.StateOfflinePending:
			x.set(spec.StateOffline, "")
		}
	case spec.StateFailed:
		switch {
		case isDown(x.state):
		case ev.Stopping && x.state == spec.StateOfflinePending: // a word follows when it is down
		case m.frozen(r) && ev.Stopping:
			x.timedOut = orElse(ev.Reason, "it failed")
			x.set(spec.StateOfflinePending, x.timedOut)
			x.since = m.now
		case m.frozen(r) && x.state != spec.StateOfflinePending:
			x.late = orElse(ev.Reason, "it failed")
			x.set(spec.StateFailed, x.late)
		case r.phase == phaseUp && x.state != spec.StateOfflinePending && m.hasLease():
			m.failed(r, x, orElse(ev.Reason, "it failed"), ev.Stopping)
		case ev.Stopping:
			x.set(spec.StateOfflinePending, ev.Reason)
			x.since = m.now
		default:
			x.set(spec.StateOffline, ev.Reason) // on its way down anyway
		}
	}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// failed applies the restart policy. What is stopping still is not down, so that
// nothing it stands on is stopped, nor itself started, before it is.
func (m *Machine) failed(r *run, x *resource, reason string, stopping bool) {
	was := x.state
	x.set(spec.StateFailed, reason)
	if stopping {
		x.set(spec.StateOfflinePending, reason)
		x.since, x.failing = m.now, reason
	}
	x.failed = true
	policy := x.spec.Restart
	period := policy.Period.D()
	x.starts = slices.DeleteFunc(x.starts, func(t spec.Instant) bool { return period > 0 && m.now.Sub(t) >= period })
	what := fmt.Sprintf("resource %s of group %s failed: %s", x.spec.Name, r.name, reason)
	// What was online and fails for the first time began it; what fails on its way
	// up follows from why it was started.
	defer func(first bool) {
		if n := len(r.notes); first && n > 0 {
			r.notes[n-1].root = true
		}
	}(was == spec.StateOnline && len(x.starts) == 0)
	switch {
	case policy.Action != spec.RestartNone && len(x.starts) < policy.Threshold:
		x.starts = append(x.starts, m.now)
		x.retryAt = max(m.now.Add(policy.Delay.D()), 1)
		r.note(KindResourceFailed, fmt.Sprintf("%s; restart %d of %d", what, len(x.starts), policy.Threshold))
	case policy.AffectGroup:
		r.gaveUp = true
		r.note(KindGroupFailed, fmt.Sprintf("%s; group %s gives up on this node", what, r.name))
		m.stopRun(r)
	default:
		x.resting = true
		x.starts = nil
		x.retryAt = m.now.Add(retryFailed)
		r.note(KindResourceFailed, fmt.Sprintf("%s; it is tried again in %s", what, spec.Duration(retryFailed)))
	}
}

// giveUp has the group go elsewhere, since x can't be on this node.
func (m *Machine) giveUp(r *run, x *resource, reason string) {
	x.set(spec.StateFailed, reason)
	r.gaveUp = true
	n := len(r.notes)
	r.note(KindGroupFailed, fmt.Sprintf("resource %s of group %s is not started: %s; group %s gives up on this node", x.spec.Name, r.name, reason, r.name))
	r.notes[n].root = true
	m.stopRun(r)
}
