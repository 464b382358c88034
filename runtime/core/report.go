package core

import (
	"fmt"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What an owner tells the database of its groups.

func (r *run) note(kind, text string) { r.notes = append(r.notes, note{kind: kind, text: text}) }

// summary is the group's state as its resources make it.
func (r *run) summary() string {
	if r.gaveUp {
		return spec.StateFailed
	}
	online, pending, failed := 0, 0, 0
	for i := range r.resources {
		switch x := &r.resources[i]; x.state {
		case spec.StateOnline:
			online++
		case spec.StateOnlinePending, spec.StateOfflinePending:
			pending++
		case spec.StateFailed:
			if x.resting {
				failed++
			} else {
				pending++
			}
		default:
			if r.phase == phaseUp {
				pending++
			}
		}
	}
	switch {
	case r.phase == phaseStopping || r.phase == phaseEnding:
		return spec.StatePending
	case r.phase == phaseDown && r.wanted:
		return spec.StatePending // it waits for a lease or the monitor
	case r.phase == phaseDown:
		return spec.StateOffline
	case online == len(r.resources):
		return spec.StateOnline
	case failed == len(r.resources):
		return spec.StateFailed
	case failed > 0 && online > 0:
		return spec.StatePartialOnline
	case pending > 0:
		return spec.StatePending
	}
	return spec.StatePartialOnline
}

// reportRun commits what changed, one report at a time, until it is applied.
func (m *Machine) reportRun(r *run, g *confdb.Group) {
	if r.report.inflight != "" {
		return
	}
	state := r.summary()
	text := state
	for i := range r.resources {
		x := &r.resources[i]
		text += "\x00" + x.state + "\x00" + x.reason
	}
	if r.report.last == "" && state == g.State && r.phase == phaseDown && r.wanted && len(r.notes) == 0 {
		return // a new owner is pending: the state says so already
	}
	if text == r.report.last && len(r.notes) == 0 {
		return
	}
	if r.report.last == text || state != g.State || len(r.notes) > 0 {
		switch {
		case len(r.notes) > 0:
		case state == spec.StateOnline:
			r.note(KindGroupOnline, fmt.Sprintf("group %s is online on node %s", r.name, m.cfg.Name))
		case state == spec.StateOffline && r.report.last != "":
			r.note(KindGroupOffline, fmt.Sprintf("group %s is offline on node %s", r.name, m.cfg.Name))
		}
	}
	rep := &confdb.Report{Group: r.id, Epoch: r.epoch, Node: m.cfg.Node, State: state, GiveUp: r.gaveUp && !r.told}
	for i := range r.resources {
		x := &r.resources[i]
		rep.Resources = append(rep.Resources, confdb.ResourceState{Name: x.spec.Name, State: x.state, Reason: x.reason})
	}
	c := confdb.Command{Report: rep}
	if len(r.notes) > 0 {
		rep.Kind, rep.Text = r.notes[0].kind, r.notes[0].text
		if !r.notes[0].root {
			c.Cause = m.reportCause(r)
		}
		r.notes = r.notes[1:]
	}
	c = m.command(c)
	r.report.inflight, r.report.sent, r.report.giveUp = c.ID, text, rep.GiveUp
	m.owner.reports[c.ID] = r
	m.emit(Propose{Command: c})
}

// reportDone lets the next report follow.
func (m *Machine) reportDone(ev Proposed) {
	r := m.owner.reports[ev.ID]
	if r == nil {
		return
	}
	delete(m.owner.reports, ev.ID)
	if m.owner.runs[r.id] == r {
		r.report.inflight, r.report.last = "", r.report.sent
		r.told = r.told || r.report.giveUp && ev.Result.Code == ""
		r.dirty, m.owner.dirty = true, true
	}
}
