package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/planfile"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers/local"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// ApplyOptions say how to apply.
type ApplyOptions struct {
	PlanOptions
	// File, where there is one: exactly what it shows is done, or ErrStale. The
	// session is OpenPlan's, PlanOptions are FromFile's.
	File *planfile.File
	// Approve is shown the plan and says whether to go on. Not called when
	// there is nothing to do.
	Approve func(*Planned) (bool, error)
	// Events is told the progress, never by two at once.
	Events func(apply.Event)
	// Stop, closed: finish what is under way, begin nothing.
	Stop <-chan struct{}
}

// Applied is what became of an apply.
type Applied struct {
	Planned *Planned
	Result  *apply.Result // nil: nothing was done
	Refused bool          // Approve said no
	Nothing bool          // there was nothing to do
	// Recorded is what the state says of the definition since, where there was
	// nothing to do and that is new.
	Recorded *statefile.Definition
	Took     string // whose lock was taken over, "" nobody's
	InPlain  bool   // the cluster's keys were made and lie in the state in plain
	Kept     error  // the cluster's change lease could not be given back

	// Checks are the check blocks as they are once all is done, CheckDiags the
	// warnings of those that fail.
	Checks     []planner.Check
	CheckDiags hcl.Diagnostics

	// Unsettled are groups that are still on their way after all was done well.
	Unsettled []client.StatusGroup
}

// Apply plans under the lock, asks, and does it. What was done is in the state
// when it returns, whatever the error. Result tells of failed objects; they are
// no error of Apply's own.
func (s *Session) Apply(ctx context.Context, o ApplyOptions) (applied *Applied, err error) {
	// What can't come to anything leaves no trace.
	switch {
	case o.Mode != planner.ModeDestroy && s.Diags.HasErrors():
		diags := s.Validate()
		return nil, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	case o.File != nil && !s.Store.Begun(): // else it is asked with the lock held: a locked state comes first
		if err := s.ReadState(ctx); err != nil { // of a place on this machine
			return nil, err
		}
		if err := s.staleState(o.File); err != nil {
			return nil, err
		}
	case o.Mode == planner.ModeDestroy && !s.Store.Begun():
		return &Applied{Nothing: true}, s.ReadState(ctx)
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	looks, end := whileLooking(ctx, o.Stop)
	defer end()
	lock, err := s.lockToWrite(looks, verb(o.Mode), o.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if o.Mode == planner.ModeDestroy {
		defer func() {
			if err == nil && (applied.Nothing || applied.Result != nil) {
				err = s.clear()
			}
		}()
	}
	out := &Applied{}
	if from := lock.TookOver(); from != nil {
		out.Took = from.Who
	}
	if err := s.ReadState(looks); err != nil {
		return out, err
	}
	if err := s.staleState(o.File); err != nil {
		return out, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.Mode != planner.ModeRefreshOnly { // which changes nothing in the cluster
		s.claim(lock, verb(o.Mode), o.LockTimeout, cancel)
	}
	defer func() { out.Kept = s.giveBack(out.Result, o.Mode) }()
	if o.Mode == planner.ModeDestroy && empty(s.Snap.State, s.Snap.Pending) {
		out.Nothing = true
		return out, nil
	}
	looks, end = whileLooking(ctx, o.Stop)
	defer end()
	out.Planned, err = s.plan(looks, o.PlanOptions, func() error { return nil })
	if err = stalePlan(o.File, out.Planned, err); err != nil {
		return out, err
	}
	if interruptedBy(o.Stop) {
		return out, ErrInterrupted
	}
	if !out.Planned.Plan.Applyable {
		out.Nothing = true
		begin, err := s.begin(out.Planned.Plan, o.Mode)
		if err != nil {
			return out, err
		}
		return out, s.settle(lock, out, begin, o.Mode)
	}
	if ofDefinition(o.Mode) {
		if err := s.ready(looks, out.Planned); err != nil {
			return out, err
		}
	}
	if ok, err := o.Approve(out.Planned); err != nil || !ok {
		out.Refused = true
		return out, err
	}
	go func() {
		select {
		case <-lock.Lost():
			cancel(&lostError{cmp.Or(lock.Why(), statefile.ErrLockLost)})
		case <-ctx.Done():
		}
	}()
	def := out.Planned.Definition
	if !ofDefinition(o.Mode) {
		def = nil // as in the plan
	}
	begin, err := s.begin(out.Planned.Plan, o.Mode)
	if err != nil {
		return out, err
	}
	res, runErr := apply.Run(ctx, apply.Config{
		Plan: out.Planned.Plan, Definition: def, State: s.Snap.State, Pending: s.Snap.Pending, Providers: s.registry,
		Journal: lock, Held: lock.Why, Begin: begin, Ahead: s.remote(),
		Parallelism: o.Parallelism, Stop: o.Stop, Events: o.Events, Identity: s.setIdentity,
	})
	out.Result = res
	out.InPlain = s.Snap.State.Cluster == nil && res != nil && res.State.Cluster != nil && !s.keys.Seals()
	var lost *lostError
	if errors.As(context.Cause(ctx), &lost) {
		runErr = errors.Join(lost, runErr)
	}
	if res != nil {
		res.State.EndRun(begin.Run, outcome(ctx, res, runErr))
	}
	finishErr := s.finish(lock, res)
	if runErr != nil && errors.Is(context.Cause(ctx), context.Canceled) && res != nil {
		res.Interrupted = true
	}
	if runErr == nil && finishErr == nil && ofDefinition(o.Mode) && len(res.Failed) == 0 && !res.Interrupted {
		out.Unsettled = s.Unsettled(ctx, o.Stop)
	}
	if def != nil && !res.Interrupted {
		s.checks(ctx, def, out)
	}
	return out, s.rescue(res, errors.Join(runErr, finishErr))
}

// checks looks at the definition's check blocks after an apply.
func (s *Session) checks(ctx context.Context, def *lang.Definition, out *Applied) {
	if !slices.ContainsFunc(out.Planned.Plan.Checks, func(c planner.Check) bool { return c.Kind == planner.CheckBlock }) {
		return
	}
	var world planner.World
	refresh.Live(ctx, s.registry, &world)
	out.Checks, out.CheckDiags = out.Planned.Plan.ChecksAfter(def, lang.View{Known: s.knownOf(&out.Result.State), Live: planner.Runtime(world.Live)})
}

// clear takes away what a destroy leaves that no state tells of, once the
// state is empty.
func (s *Session) clear() error {
	snap, err := s.Store.Read(context.Background()) // also of a run that was interrupted, as in finish
	if err != nil || !empty(snap.State, snap.Pending) {
		return err
	}
	return local.Clear(s.dataDir())
}

// journal is what finish needs of a lock.
type journal interface {
	Finish(statefile.State) error
}

// finish folds the run into the snapshot, unless something is left whose end
// nobody knows: that is only in the journal, which then has to stay.
func (s *Session) finish(lock journal, res *apply.Result) error {
	snap, err := s.Store.Read(context.Background())
	if err != nil {
		return fmt.Errorf("the apply's end: %w", err)
	}
	s.remember(snap.State.Lineage)
	if res == nil || len(snap.Pending) > 0 && !res.Whole {
		return nil
	}
	// A run that could not even begin has nothing to write.
	if st := withPending(res); snap.State.Lineage == "" && len(st.Objects) > 0 {
		return lock.Finish(st) // the journal is gone
	}
	if snap.Unfinished == 0 {
		return nil
	}
	return lock.Finish(res.State)
}

// whileLooking is a context that the first interrupt ends: nothing was begun yet
// that would have to come to its end.
func whileLooking(ctx context.Context, stop <-chan struct{}) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

func interruptedBy(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

func verb(mode string) string {
	if mode == planner.ModeDestroy {
		return "destroy"
	}
	return "apply"
}

// prepare makes the directory for state and nodes ready.
func (s *Session) prepare() error {
	if err := s.ownDir(); err != nil {
		return err
	}
	return s.recordLocal()
}

// ownDir makes the directory for state, nodes and modules. It holds secrets, so
// git is kept from it.
func (s *Session) ownDir() error {
	dir := filepath.Join(s.abs, ".clusterplan")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &view.Hint{Err: fmt.Errorf("make the directory for the state: %w", err), Hint: "The definition's directory has to be writable: state and nodes lie in it."}
	}
	ignore := filepath.Join(dir, ".gitignore")
	if _, err := os.Stat(ignore); err == nil {
		return nil
	}
	return atomicfile.Write(ignore, []byte("# Keys and states: not for a repository.\n*\n"), 0o644)
}

// Init makes a definition's directory ready for an apply. It says what it did beyond that.
func (s *Session) Init(ctx context.Context) (said []string, err error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if said, err = s.setBackend(ctx); err != nil {
		return said, err
	}
	more, err := s.reseal(ctx, 0)
	if said = append(said, more...); err != nil {
		return said, err
	}
	return said, s.ReadState(ctx)
}
