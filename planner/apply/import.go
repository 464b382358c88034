package apply

import (
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// adopt has the state on the disk know what is imported and nobody else
// manages: that is all there is to do to it. What changes of it comes after,
// with its units.
func (r *runner) adopt() error {
	for _, a := range r.work.Adoptions {
		own := a.Objects[len(a.Objects)-1]
		r.emit(Event{Type: EventStart, Addr: a.Addr, Action: planner.ActionImport, ID: own.ID})
		if err := r.append(statefile.Entry{Intent: &statefile.Intent{Addr: a.Addr, Action: planner.ActionImport, Object: &own}}); err != nil {
			return err
		}
		if err := r.append(adopted(a.Objects)...); err != nil {
			return err
		}
		if a.Addr.Type == addr.TypeNode {
			v, err := r.stored(&own)
			if err != nil {
				return err
			}
			r.learnNode(a.Addr, own.ID, v)
		}
		r.count(planner.ActionImport)
		r.emit(Event{Type: EventComplete, Addr: a.Addr, Action: planner.ActionImport, ID: own.ID})
	}
	return nil
}

// adopted says what is there of what is imported: a group after its resources,
// for where the state has it, the import is over.
func adopted(objects []statefile.Object) []statefile.Entry {
	entries := make([]statefile.Entry, len(objects))
	for i := range objects {
		entries[i] = statefile.Entry{Result: &statefile.Result{Addr: objects[i].Addr, Object: &objects[i]}}
	}
	return entries
}

// action is what an event calls what a unit does: taking over what is as it
// should be is an import and nothing else.
func (r *runner) action(u *planner.Unit) string {
	if len(u.Adopt) > 0 && !r.changes(u.Key.Addr) {
		return planner.ActionImport
	}
	return u.Action
}
