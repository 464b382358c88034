package apply

import (
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
)

// Types of events, as `apply --json` names them.
const (
	EventPlanned  = "planned_change"
	EventStart    = "apply_start"
	EventProgress = "apply_progress"
	EventComplete = "apply_complete"
	EventErrored  = "apply_errored"
	EventSkipped  = "apply_skipped"
	EventWaiting  = "apply_waiting" // of no object: for a quorum
	EventSummary  = "change_summary"
)

// Event is one step of a run's progress.
type Event struct {
	Type    string
	Time    time.Time
	Addr    addr.Address
	Action  string // create | update | replace | delete | forget | read | import; of EventPlanned also move
	Phase   string // of a node or the cluster
	Text    string // for people: what is going on, why it was skipped
	ID      string // of the object, once it is given
	Elapsed time.Duration
	Err     error
	Summary planner.Summary // of EventSummary

	// Of EventPlanned: why, as the plan has it, and the address before.
	Reason   string
	Previous *addr.Address
}

func (r *runner) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = r.now()
	r.cfg.Events(e)
}

// tellRereads tells what the state takes over of a refresh-only plan: there is
// nothing else to do.
func (r *runner) tellRereads() {
	if !r.work.Rereads {
		return
	}
	for i := range r.cfg.Plan.Changes {
		if c := &r.cfg.Plan.Changes[i]; c.Action() != "no-op" {
			r.emit(Event{Type: EventStart, Addr: c.Address, Action: c.Action()})
			r.emit(Event{Type: EventComplete, Addr: c.Address, Action: c.Action()})
		}
	}
}

// announce tells the changes before the first of them.
func (r *runner) announce() {
	for i := range r.cfg.Plan.Changes {
		c := &r.cfg.Plan.Changes[i]
		if c.Importing != nil {
			r.emit(Event{Type: EventPlanned, Addr: c.Address, Action: planner.ActionImport, Previous: c.PreviousAddress})
		}
		action := c.Action()
		if action == "no-op" && c.PreviousAddress != nil {
			action = "move"
		}
		if action != "no-op" {
			r.emit(Event{Type: EventPlanned, Addr: c.Address, Action: action, Reason: c.Reason, Previous: c.PreviousAddress})
		}
	}
}
