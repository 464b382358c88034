package apply

import (
	"fmt"
	"slices"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// Two ways to write the journal. Where a write is cheap (a file), each intent is
// durable before its call and each result before its unit is done; who wants
// entries written while others are shares the next write with all who come by then.
//
// In a run ahead (Config.Ahead: a server, a git repository) a write is dear. All that
// the plan knows of intents is durable in one write, before the first effect: an
// object's intent has its id, by which what became of it is read back, in whatever
// phase the run dies. An intent is written on its own only where the plan could not
// know what it aims at (a machine's address), or for the second thing that is done at
// one address (a replacement's create). Results are durable before anything that
// waits for them starts, so that a unit which is done holds no slot and waits; a
// write is made once nothing else goes on, or the first one has waited for Config.Linger.
// What nothing waits for is left to the snapshot that ends the run.

// batch is entries that become durable by one write.
type batch struct {
	entries []statefile.Entry
	done    chan struct{} // closed once they are, or err says why not
	err     error
	timer   *time.Timer // of a run ahead: it is waited for until then
}

// append makes entries durable, in one write with those that others want written
// meanwhile: the disk syncs no faster for many than for few. After an error
// nothing more is begun. In a run ahead they are only noted: durable waits for them.
func (r *runner) append(entries ...statefile.Entry) error {
	r.mu.Lock()
	if r.fatal != nil {
		defer r.mu.Unlock()
		return r.fatal
	}
	for i := range entries {
		entries[i].Time = r.now().UTC()
	}
	b, first := r.next, r.next == nil
	if first {
		b = &batch{done: make(chan struct{})}
		r.next = b
	}
	b.entries = append(b.entries, entries...)
	if r.cfg.Ahead {
		defer r.mu.Unlock()
		r.entries = append(r.entries, entries...)
		return nil
	}
	r.mu.Unlock()
	if !first {
		<-b.done
		return b.err
	}
	r.write()
	return b.err
}

// write writes what there is by now.
func (r *runner) write() {
	r.disk.Lock()
	defer r.disk.Unlock()
	r.mu.Lock()
	b, err := r.next, r.fatal
	r.next, r.flying = nil, b // who comes now is too late for this one
	if b != nil && b.timer != nil {
		b.timer.Stop()
	}
	r.mu.Unlock()
	if b == nil {
		return
	}
	defer close(b.done)
	began := time.Now()
	if err == nil {
		if err = r.cfg.Journal.Append(b.entries...); err != nil {
			err = fmt.Errorf("write the journal: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying = nil
	switch {
	case err != nil:
		b.err, r.fatal = err, err
	case !r.cfg.Ahead:
		r.entries = append(r.entries, b.entries...)
	default:
		r.proved = began
	}
}

// held sees, before an effect, that the lock is still the run's own. Where each
// intent is written before its call, that write has just told. In a run ahead a
// write does that went well a moment ago; one that was suspended, and whose lock was
// broken meanwhile, so begins nothing once it wakes up: its write is refused.
func (r *runner) held() error {
	if r.cfg.Held != nil {
		if err := r.cfg.Held(); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.fatal == nil {
				r.fatal = err
			}
			return r.fatal
		}
	}
	if !r.cfg.Ahead {
		return nil
	}
	// A run may have been suspended while that write was under way: it went well before
	// that, and is as old as it was long. Then there is a second one. After that it is
	// the place that is slow, and nothing newer can be had.
	for range 2 {
		r.mu.Lock()
		age := max(time.Since(r.proved), time.Now().Round(0).Sub(r.proved.Round(0))) // one of the clocks goes on in a host that sleeps
		r.mu.Unlock()
		if age < r.cfg.Prove {
			return nil
		}
		if err := r.append(); err != nil { // what was noted, or nothing
			return err
		}
		r.writeSoon()
		if err := r.durable(false); err != nil {
			return err
		}
	}
	return nil
}

// intend makes an intent durable before its call, unless one by the same id is.
func (r *runner) intend(i statefile.Intent) error {
	id := ""
	if i.Object != nil {
		id = i.Object.ID
	}
	if !r.cfg.Ahead {
		return r.append(statefile.Entry{Intent: &i})
	}
	r.mu.Lock()
	have, written := r.ahead[i.Addr]
	if written = written && have == id; written {
		r.begun[i.Addr] = true
		defer r.mu.Unlock()
		return r.fatal
	}
	r.mu.Unlock()
	if err := r.append(statefile.Entry{Intent: &i}); err != nil {
		return err
	}
	r.writeSoon()
	if err := r.durable(false); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead[i.Addr], r.begun[i.Addr] = id, true
	return nil
}

// aimAhead writes the intents of all whose aims are known, and what was noted before.
func (r *runner) aimAhead() error {
	var entries []statefile.Entry
	for _, u := range r.work.Units {
		a := u.Key.Addr
		if _, is := r.ahead[a]; is || u.Action == "" || u.Action == "forget" || len(u.Adopt) > 0 {
			continue
		}
		r.ahead[a] = "none" // what comes second at an address is written when it comes
		if r.work.Destroy && u.Type == addr.TypeCluster {
			continue // nothing is done to it
		}
		i, ok := r.aimOf(u)
		if !ok {
			continue
		}
		if r.ahead[a] = ""; i.Object != nil {
			r.ahead[a] = i.Object.ID
		}
		entries = append(entries, statefile.Entry{Intent: &i})
	}
	if err := r.append(entries...); err != nil {
		return err
	}
	r.write()
	return r.fatal
}

// aimOf is a unit's first intent; false: what it aims at is not known yet, or is an
// error that comes with the unit.
func (r *runner) aimOf(u *planner.Unit) (statefile.Intent, bool) {
	i := statefile.Intent{Addr: u.Key.Addr, Action: u.Action}
	if u.Action == "delete" || u.Action == "replace" {
		if i.Object = u.Old; !oneCall(u) && len(u.Remove) > 0 {
			i.Phase = u.Remove[0]
		}
		return i, true
	}
	p, err := r.cfg.Providers.Provider(u.Provider)
	if err != nil {
		return i, false
	}
	types, config := p.Schema().Objects[u.Type], map[string]cty.Value{}
	if u.Config != cty.NilVal {
		config = u.Config.AsValueMap()
	}
	for name, v := range config { // what the provider works out itself is nobody's to know
		if attr, _ := types.Attribute(name); !attr.Computed && !v.IsWhollyKnown() {
			return i, false
		}
	}
	j := &job{u: u, provider: p, id: u.ID, prior: u.Prior}
	if err := r.aim(j); err != nil {
		return i, false
	}
	j.id = r.giveID(u.Key.Addr, u.ID)
	if len(u.Phases) > 0 {
		i.Phase = u.Phases[0]
	}
	i.Object = r.object(j, j.planned, private(j.prior), false)
	return i, true
}

// scribe writes, in a run ahead, when it is told to, until the function is called
// that it returns.
func (r *runner) scribe() (end func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	if !r.cfg.Ahead {
		return func() {}
	}
	go func() {
		defer close(gone)
		for {
			select {
			case <-r.nudge:
				r.write()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// writeSoon has the scribe write what there is.
func (r *runner) writeSoon() {
	select {
	case r.nudge <- struct{}{}:
	default: // it was told
	}
}

// durable waits until all that was noted is written. loosely: or until nothing
// waits for it any more.
func (r *runner) durable(loosely bool) error {
	r.mu.Lock()
	b, err := r.next, r.fatal
	if b == nil {
		b = r.flying
	} else if b.timer == nil {
		b.timer = time.AfterFunc(r.cfg.Linger, r.writeSoon)
	}
	r.mu.Unlock()
	if b == nil || err != nil {
		return err
	}
	var loose chan struct{}
	if loosely {
		loose = r.loose
	}
	select {
	case <-b.done:
		return b.err
	case <-loose:
		return nil
	}
}

// settleAhead takes back what was never begun. Where something was begun whose end
// nobody knows, the journal stays, and is told all.
func (r *runner) settleAhead() error {
	pending := make(map[addr.Address]bool, len(r.cfg.Pending))
	for i := range r.cfg.Pending {
		pending[r.cfg.Pending[i].Addr] = true
	}
	var never []statefile.Intent
	r.entries = slices.DeleteFunc(r.entries, func(e statefile.Entry) bool {
		i := e.Intent
		if i == nil || r.begun[i.Addr] || i.Action == planner.ActionImport {
			return false
		}
		never = append(never, *i)
		return true
	})
	state, open := r.folded()
	if len(open) == 0 || r.fatal != nil {
		return nil
	}
	known := make(map[addr.Address]string, len(state.Objects))
	for i := range state.Objects {
		known[state.Objects[i].Addr] = state.Objects[i].ID
	}
	var back []statefile.Entry
	for _, i := range never {
		// One of an earlier run may be half there, or known by an id of its own.
		if old, is := known[i.Addr]; !pending[i.Addr] && (!is || i.Object != nil && i.Object.ID == old) {
			back = append(back, statefile.Entry{Result: &statefile.Result{Addr: i.Addr, Gone: !is}})
		}
	}
	all := r.entries
	if err := r.append(back...); err != nil {
		return err
	}
	r.write()
	r.entries = all
	return r.fatal
}
