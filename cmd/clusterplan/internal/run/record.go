package run

import (
	"context"
	"reflect"
	"slices"

	"github.com/clusterplan/clusterplan/statefile"
)

// settle ends an apply that has nothing to change. It is recorded as any other
// where it would say something new of the definition: another revision, or other
// guarantees that may not hold. One that says nothing new leaves the state as it is,
// so that plans that were saved stay good.
func (s *Session) settle(lock statefile.Lock, out *Applied, begin statefile.Begin, mode string) error {
	switch {
	case len(s.Snap.Pending) > 0:
		return nil
	case ofDefinition(mode) && s.Snap.State.Lineage != "" && !sameDefinition(begin.Definition, s.Snap.State.Definition):
		if err := lock.Append(statefile.Entry{Begin: &begin}); err != nil {
			return err
		}
		snap, err := lock.Read(context.Background())
		if err != nil {
			return err
		}
		snap.State.EndRun(begin.Run, statefile.OutcomeDone)
		out.Recorded = &begin.Definition
		return lock.Finish(snap.State)
	case s.Snap.Unfinished > 0: // what an interrupted run had left open is settled now
		return lock.Finish(s.Snap.State)
	}
	return nil
}

func sameDefinition(a, b statefile.Definition) bool {
	same := slices.Equal(a.Broken, b.Broken)
	a.Broken, b.Broken = nil, nil
	return same && reflect.DeepEqual(a, b)
}
