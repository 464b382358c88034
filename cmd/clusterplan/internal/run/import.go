package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// Import takes one object that is there into the state, for the definition's to.
// What somebody else manages is taken over in the cluster's database first; of
// what runs nothing is changed.
func (s *Session) Import(ctx context.Context, to addr.Address, id string, o EditOptions) (*Edited, error) {
	switch {
	case s.Diags.HasErrors():
		return nil, &view.DiagnosticsError{Diags: s.Validate(), Files: s.Config.Files()}
	case to.Type == addr.TypeCluster:
		return nil, &view.Hint{Err: errors.New("a cluster can't be imported: what opens it are its keys, and only its state holds these"),
			Hint: "Bring the state back: from a backup beside it, with clusterplan state push."}
	case to.IsResource():
		return nil, &view.Hint{Err: fmt.Errorf("%s can't be imported alone: the cluster holds a group and its resources as one", to),
			Hint: fmt.Sprintf("Import %s: its resources come with it.", to.Owner())}
	case !s.Store.Begun():
		return nil, &view.Hint{Err: fmt.Errorf("%w: there is no state %s", ErrNoCluster, s.Store.Path()), Hint: "Bring the state back, or apply first."}
	}
	lock, err := s.lockToWrite(ctx, "import", o.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if err := s.ReadState(ctx); err != nil {
		return nil, err
	}
	snap, err := s.settled(ctx, lock)
	if err != nil {
		return nil, err
	}
	if snap.State.Cluster == nil {
		return nil, &view.Hint{Err: fmt.Errorf("%w: the state %s knows none", ErrNoCluster, s.Store.Path()), Hint: "Bring the state back, or apply first."}
	}
	if snap.State.Find(to) != nil {
		return nil, &view.Hint{Err: fmt.Errorf("the state has %s already", to), Hint: "clusterplan plan shows how it differs from the definition."}
	}
	def, diags := s.Config.Evaluate(s.known())
	if diags.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: append(s.Diags, diags...), Files: s.Config.Files()}
	}
	object, ok := def.Object(to)
	if !ok {
		text := ""
		if near := lang.Nearest(to.String(), addressesOf(def)); near != "" {
			text = "Did you mean " + near + "? "
		}
		return nil, &view.Hint{Err: fmt.Errorf("the definition has no %s", to),
			Hint: text + "Write its block first. To have it written: an import block, and clusterplan plan --generate-config-out=NAME.cluster.hcl."}
	}
	if err := s.configure(def); err != nil {
		return nil, err
	}
	one := planner.Import{To: to, ID: id}
	config, _ := object.Value.UnmarkDeep()
	refresh.Find(ctx, s.registry, &one, object.Provider, config)
	if err := ctx.Err(); err != nil {
		return nil, ErrInterrupted
	}
	out := &Edited{Imported: []addr.Address{to}}
	if out.State, err = planner.Adopt(snap.State, def, &one); err != nil {
		return nil, fmt.Errorf("import %s: %w", to, err)
	}
	if one.Foreign() {
		if err := s.takeOver(ctx, lock, &one, o.LockTimeout); err != nil {
			return nil, err
		}
	}
	return out, s.write(ctx, lock, out, lock.Finish)
}

func addressesOf(def *lang.Definition) []string {
	var out []string
	for i := range def.Objects {
		out = append(out, def.Objects[i].Addr.String())
	}
	return out
}

// takeOver has the cluster's database say that clusterplan manages what was
// found, as it is, under the cluster's change lease. Where the state does not get
// to know of it, another import does.
func (s *Session) takeOver(ctx context.Context, lock statefile.Lock, one *planner.Import, wait time.Duration) (err error) {
	p, err := s.registry.Provider(one.Provider)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.claim(lock, "import", wait, cancel)
	defer func() { err = errors.Join(err, s.giveBack(nil, planner.ModeNormal)) }()
	if err := s.look(ctx); err != nil {
		return err
	}
	_, err = p.Apply(ctx, providers.ApplyRequest{Addr: one.To, Type: one.To.Type, ID: one.Object.ID, Prior: one.Object,
		Planned: one.Object.Value, Resources: one.Resources, Adopt: true})
	if err != nil {
		return fmt.Errorf("take %s over: %w", one.To, interrupted(ctx, err))
	}
	return nil
}
