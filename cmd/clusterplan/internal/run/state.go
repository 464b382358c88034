package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
)

// Filter leaves only those objects in the session's view of the state that an
// address names, or that have the id. Without either all stay.
func (s *Session) Filter(which []addr.Address, id string) error {
	st := &s.Snap.State
	if len(which) > 0 {
		found := map[addr.Address]bool{}
		for _, a := range which {
			list := st.Select(a)
			if len(list) == 0 {
				return NotInState(st, a)
			}
			for _, f := range list {
				found[f] = true
			}
		}
		st.Objects = slices.DeleteFunc(slices.Clone(st.Objects), func(o statefile.Object) bool { return !found[o.Addr] })
	}
	if id != "" {
		st.Objects = slices.DeleteFunc(slices.Clone(st.Objects), func(o statefile.Object) bool { return o.ID != id })
	}
	return nil
}

// EditOptions say how the state is changed by hand.
type EditOptions struct {
	DryRun      bool // say what would be done, and do nothing
	Force       bool // of PushState: whatever is there, and whoever changed it
	LockTimeout time.Duration
}

// Edited is what became of it.
type Edited struct {
	Moved   []statefile.Move
	Removed []addr.Address
	// Imported are those that came into it.
	Imported []addr.Address
	State    statefile.State
	Backup   string // the state before it; "": there was none, or nothing was done
	Same     bool   // nothing had to be done
}

// MoveState gives an object of the state another address.
func (s *Session) MoveState(ctx context.Context, from, to addr.Address, o EditOptions) (*Edited, error) {
	return s.edit(ctx, "state mv", o, func(out *Edited, st statefile.State) (err error) {
		out.State, out.Moved, err = statefile.Rename(st, from, to)
		if err == nil { // a rollback takes it back with the rest
			out.State.AddMoves(statefile.Applied{Run: pki.NewID(), Time: time.Now().UTC(), Who: Who(), Action: "state mv", Definition: st.Definition, Outcome: statefile.OutcomeDone}, out.Moved)
		}
		return err
	})
}

// RemoveState forgets objects, which stay what they are.
func (s *Session) RemoveState(ctx context.Context, which []addr.Address, o EditOptions) (*Edited, error) {
	return s.edit(ctx, "state rm", o, func(out *Edited, st statefile.State) (err error) {
		out.State, out.Removed, err = statefile.Forget(st, which...)
		return err
	})
}

// edit changes the state under its lock, and keeps what was there before.
func (s *Session) edit(ctx context.Context, what string, o EditOptions, change func(*Edited, statefile.State) error) (*Edited, error) {
	out := new(Edited)
	change = nearest(change)
	if o.DryRun || !s.Store.Begun() {
		snap, err := s.Store.Read(ctx)
		if err == nil {
			err = s.expected(snap.State.Lineage)
		}
		if err != nil {
			return nil, err
		}
		return out, change(out, snap.State)
	}
	lock, err := s.lockToWrite(ctx, what, o.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	snap, err := s.settled(ctx, lock)
	if err == nil {
		err = s.expected(snap.State.Lineage)
	}
	if err != nil {
		return nil, err
	}
	if err := change(out, snap.State); err != nil {
		return nil, err
	}
	return out, s.write(ctx, lock, out, lock.Finish)
}

// nearest is change, whose error of an address that the state doesn't have names
// the one that may have been meant.
func nearest(change func(*Edited, statefile.State) error) func(*Edited, statefile.State) error {
	return func(out *Edited, st statefile.State) error {
		err := change(out, st)
		var missing *statefile.MissingError
		if errors.As(err, &missing) {
			return NotInState(&st, missing.Addr)
		}
		return err
	}
}

// settled reads the state, and refuses one that says of something only that it
// was begun: what became of that would be forgotten.
func (s *Session) settled(ctx context.Context, lock statefile.Lock) (*statefile.Snapshot, error) {
	snap, err := lock.Read(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(snap.Pending); n > 0 {
		return nil, &view.Hint{
			Err:  fmt.Errorf("an apply was cut off: what became of %s (%d in all) is not known, and would be forgotten", snap.Pending[0].Addr, n),
			Hint: "clusterplan apply finds out, and goes on from there. Change the state after it."}
	}
	return snap, nil
}

// write makes out.State the state; finish is the lock's way to do it.
func (s *Session) write(ctx context.Context, lock statefile.Lock, out *Edited, finish func(statefile.State) error) (err error) {
	if out.Backup, err = lock.Keep(ctx); err != nil {
		return err
	}
	if err := finish(out.State); err != nil {
		return err
	}
	snap, err := lock.Read(context.WithoutCancel(ctx)) // it is done
	if err == nil {
		s.remember(snap.State.Lineage)
		out.State = snap.State
	}
	return err
}

// PullState is the state as a snapshot, with its secrets; nil: there is none.
func (s *Session) PullState(ctx context.Context) (data []byte, snap *statefile.Snapshot, err error) {
	if snap, err = s.Store.Read(ctx); err != nil || snap.State.Lineage == "" {
		return nil, snap, interrupted(ctx, err)
	}
	data, err = statefile.Marshal(&snap.State)
	return data, snap, err
}

// PushState takes a snapshot that was pulled for the state. name is what it is
// called in errors.
func (s *Session) PushState(ctx context.Context, name string, data []byte, o EditOptions) (*Edited, error) {
	if statefile.Sealed(data) && !s.keys.Seals() { // checked before all else: nobody meant to have it in plain
		if s.Encrypted() {
			return nil, s.Check()
		}
		return nil, &view.Hint{Err: fmt.Errorf("%s is encrypted, and would be written in plain: the definition has no encryption block that can be read", name),
			Hint: "Put the block into the definition. If the state is to be in plain: age --decrypt FILE, and push what that prints. Nothing was changed."}
	}
	data, err := openFile(name, data)
	if err != nil {
		return nil, err
	}
	st, err := statefile.UnmarshalForeign(data)
	if errors.Is(err, statefile.ErrEdited) && o.Force {
		err = nil
	}
	if errors.Is(err, statefile.ErrEdited) {
		return nil, &view.Hint{Err: fmt.Errorf("%s: its checksum is wrong: %w, or lost a part", name, err),
			Hint: "Pull it again. If it was changed on purpose, and is whole: --force."}
	}
	if err != nil {
		return nil, &view.Hint{Err: fmt.Errorf("%s: %w", name, err), Hint: "Push what clusterplan state pull has printed, or a backup. Nothing was changed."}
	}
	if c := st.Cluster; c != nil {
		if _, err := pki.ParseIdentity(c.ID, c.Name, c.CACert, c.CAKey, c.Key); err != nil {
			return nil, &view.Hint{Err: fmt.Errorf("%s: %w", name, err), Hint: "Without its keys nothing opens the cluster. Push a state that has them. Nothing was changed."}
		}
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	lock, err := s.lockToWrite(ctx, "state push", o.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	snap, err := s.settled(ctx, lock)
	if err != nil {
		return nil, err
	}
	out := &Edited{State: *st}
	if !o.Force {
		if out.Same, err = s.follows(name, st, &snap.State); err != nil || out.Same {
			return out, err
		}
	}
	return out, s.write(ctx, lock, out, lock.Replace)
}

// follows tells whether next may take the place of now: it continues the same
// state, and is no older. same: it is what is there.
func (s *Session) follows(name string, next, now *statefile.State) (same bool, err error) {
	switch {
	case now.Lineage == "":
		return false, nil
	case next.Lineage != now.Lineage:
		return false, &view.Hint{Err: fmt.Errorf("%s has the lineage %s, the state %s has %s: they are states of different clusters", name, next.Lineage, s.Store.Path(), now.Lineage),
			Hint: "Push it where it belongs. --force replaces the state all the same; what the present one knows is then only in a backup beside it."}
	case next.Serial < now.Serial:
		return false, &view.Hint{Err: fmt.Errorf("%s has serial %d, the state %s has %d: it is older", name, next.Serial, s.Store.Path(), now.Serial),
			Hint: "What was made since would be forgotten. Pull again, and change that; or --force to go back."}
	case next.Serial > now.Serial:
		return false, nil
	}
	a, b := *next, *now
	a.Program = b.Program
	one, err := statefile.Marshal(&a)
	if err != nil {
		return false, err
	}
	other, err := statefile.Marshal(&b)
	if err != nil {
		return false, err
	}
	if string(one) != string(other) {
		return false, &view.Hint{Err: fmt.Errorf("%s and the state %s both have serial %d, and differ", name, s.Store.Path(), now.Serial),
			Hint: "Either of the two was changed. Raise the serial in the file by one if that is the one to go on with, or --force."}
	}
	return true, nil
}
