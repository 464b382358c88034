package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// learn takes over what the state knows of nodes: their names and ids.
func (r *runner) learn() {
	for i := range r.cfg.State.Objects {
		o := &r.cfg.State.Objects[i]
		if o.Addr.Type == addr.TypeNode && o.Addr.Deposed() == "" {
			if v, err := r.stored(o); err == nil {
				r.learnNode(o.Addr, o.ID, v)
			}
		}
	}
	for _, m := range r.work.Deposes { // until its successor has an id, the name is its own
		if o := r.cfg.State.Find(m.To); o != nil && r.cfg.State.Find(m.From) == nil && m.From.Deposed() == "" {
			if v, err := r.stored(o); err == nil {
				r.learnNode(m.From, o.ID, v)
			}
		}
	}
}

func (r *runner) learnNode(a addr.Address, id string, v cty.Value) {
	name := a.DefaultName()
	if v != cty.NilVal && v.Type().HasAttribute("name") {
		if n := v.GetAttr("name"); n.IsKnown() && !n.IsNull() {
			name = n.AsString()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for old, have := range r.nodes {
		if have == id {
			delete(r.nodes, old) // renamed
		}
	}
	r.nodes[name] = id
	if v != cty.NilVal {
		r.known[a] = v
	}
}

// idOf is the unit's object's id: what it had, or what it was given.
func (r *runner) idOf(u *planner.Unit) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id := r.ids[u.Key.Addr]; id != "" {
		return id
	}
	if u.Key.Addr.Type == addr.TypeCluster && r.cluster != nil {
		return r.cluster.ID
	}
	return u.ID
}

// giveID gives an object its id, once.
func (r *runner) giveID(a addr.Address, had string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id := r.ids[a]; id != "" {
		return id
	}
	if a.Type == addr.TypeCluster && r.cluster != nil {
		had = r.cluster.ID
	}
	if had == "" {
		had = r.cfg.NewID()
	}
	r.ids[a] = had
	return had
}

// job is a unit with what doing it needs.
type job struct {
	u        *planner.Unit
	provider providers.Provider
	id       string
	prior    *providers.Object
	planned  cty.Value
	progress func(string)
	waits    func() // all that is left is to wait
	left     bool   // of a node that goes: the cluster has let it go
}

// oneCall tells whether the unit is one write to the cluster's database.
func oneCall(u *planner.Unit) bool {
	return u.Key.Addr.Type == addr.TypeGroup || u.Key.Addr.Type == addr.TypeFence
}

// unit does one unit, phase by phase. The phase that failed is returned.
func (r *runner) unit(ctx context.Context, u *planner.Unit, waits func()) (string, error) {
	if u.Action == "forget" {
		return "", r.forget(u)
	}
	if err := r.before(u); err != nil {
		return "", err
	}
	p, err := r.cfg.Providers.Provider(u.Provider)
	if err != nil {
		return "", err
	}
	j := &job{u: u, provider: p, id: u.ID, prior: u.Prior, waits: waits}
	j.progress = func(text string) {
		r.emit(Event{Type: EventProgress, Addr: u.Key.Addr, Action: r.action(u), ID: j.id, Text: text})
	}
	r.mu.Lock()
	if prior := r.priors[u.Key.Addr]; prior != nil {
		j.prior = prior // the unit before this one left it
	}
	r.mu.Unlock()
	if err := r.reachable(ctx, j); err != nil {
		return r.giveVote(ctx, j, err)
	}
	if u.Action == "delete" {
		return r.takeAway(ctx, j, u.Remove)
	}
	if u.Action == "replace" {
		if phase, err := r.takeAway(ctx, j, u.Remove); err != nil {
			return phase, err
		}
		j.prior, j.left, u.ID = nil, false, ""
	}
	j.id = r.giveID(u.Key.Addr, u.ID)
	if j.prior == nil && u.ID != "" && u.Action == "create" {
		// A create that was cut off may have come about all the same.
		seen, err := p.Read(ctx, providers.ReadRequest{Addr: u.Key.Addr, Type: u.Type, ID: j.id})
		if err == nil && seen.Object != nil {
			j.prior = seen.Object
		}
	}
	if err := r.aim(j); err != nil {
		return "", err
	}
	if oneCall(u) {
		return "", r.group(ctx, j)
	}
	if u.Type == addr.TypeNode || len(u.Phases) > 0 {
		if phase, err := r.phases(ctx, j); err != nil {
			return phase, err
		}
	} else if err := r.settled(j, "", true); err != nil { // only the state has to learn of it
		return "", err
	}
	if !u.Last {
		return "", nil
	}
	return "", r.after(ctx, j, map[addr.Address]cty.Value{u.Key.Addr: valueOf(j.prior, j.planned)})
}

// forget takes an object out of the state, a group with its resources.
func (r *runner) forget(u *planner.Unit) error {
	if err := r.append(statefile.Entry{Result: &statefile.Result{Addr: u.Key.Addr, Gone: true}}); err != nil {
		return err
	}
	r.count("forget")
	for range u.Gone {
		r.count("forget")
	}
	return nil
}

// aim works out what the object is to be, now that what it refers to is known.
func (r *runner) aim(j *job) error {
	config, err := r.resolve(j.u.Key.Addr, j.provider.Schema().Objects[j.u.Type], j.u.Config, j.u.Keep)
	if err != nil {
		return err
	}
	resp, err := j.provider.Plan(providers.PlanRequest{Addr: j.u.Key.Addr, Type: j.u.Type, Prior: j.prior, Config: config})
	if err != nil {
		return err
	}
	j.planned = resp.Planned
	if j.planned == cty.NilVal {
		j.planned = config
	}
	return nil
}

// phases does the unit's phases one after the other, each between its intent
// and its result.
func (r *runner) phases(ctx context.Context, j *job) (string, error) {
	u := j.u
	for i, phase := range u.Phases {
		if err := r.mayTake(ctx, j, phase); err != nil {
			return phase, err
		}
		target := r.object(j, j.planned, private(j.prior), false)
		if err := r.intend(statefile.Intent{Addr: u.Key.Addr, Action: u.Action, Phase: phase, Object: target}); err != nil {
			return phase, err
		}
		if u.Type == addr.TypeNode {
			j.progress(phase)
		}
		resp, err := r.call(ctx, j, phase, j.planned, nil)
		if err != nil {
			return phase, r.failedAt(j, phase, err)
		}
		if resp.Object != nil {
			j.prior = resp.Object
			r.mu.Lock()
			r.priors[u.Key.Addr] = resp.Object
			r.mu.Unlock()
		}
		r.mu.Lock()
		r.done[u.Key.Addr] = append(r.done[u.Key.Addr], phase)
		if u.Type == addr.TypeNode && phase == providers.PhaseStart {
			r.ran[u.Key.Addr] = r.now()
		}
		r.mu.Unlock()
		if err := r.settled(j, phase, i == len(u.Phases)-1); err != nil {
			return phase, err
		}
	}
	if len(u.Phases) == 0 {
		return "", r.settled(j, "", true)
	}
	return "", nil
}

// settled journals what is there after a phase. last: after the unit's last.
func (r *runner) settled(j *job, phase string, last bool) error {
	u := j.u
	whole := last && u.Last
	var o *statefile.Object
	switch {
	case whole || u.Action != "update" || u.Old == nil:
		// What is started to leave, and no state knows of yet, is no more whole than it was.
		o = r.object(j, valueOf(j.prior, j.planned), private(j.prior), !whole && (u.Action != "update" || u.Old == nil))
	default:
		// Halfway through an update the state keeps what was applied last, so
		// that what is still to be done shows in the next plan.
		kept := *u.Old
		o = &kept
	}
	if err := r.append(statefile.Entry{Result: &statefile.Result{Addr: u.Key.Addr, Phase: phase, Object: o}}); err != nil {
		return err
	}
	if u.Type == addr.TypeNode {
		r.learnNode(u.Key.Addr, j.id, valueOf(j.prior, j.planned))
	} else if whole {
		r.mu.Lock()
		r.known[u.Key.Addr] = valueOf(j.prior, j.planned)
		r.mu.Unlock()
	}
	switch {
	case whole && u.Instead:
		r.count("replace")
	case whole && (u.Action != "update" || r.changes(u.Key.Addr)):
		r.count(u.Action)
	}
	return nil
}

// failedAt journals a failure. The object stays as the last result has it; one
// that was to be made keeps its id, for some of it may be there; a node that has left
// has to join again, should it be wanted after all.
func (r *runner) failedAt(j *job, phase string, err error) error {
	res := &statefile.Result{Addr: j.u.Key.Addr, Phase: phase, Error: err.Error()}
	if j.planned != cty.NilVal && (j.u.Old == nil || j.u.Old.ID != j.id) {
		res.Object = r.object(j, valueOf(j.prior, j.planned), private(j.prior), true)
		if !slices.Contains(res.Object.Phases, planner.PhaseBegun) {
			res.Object.Phases = append([]string{planner.PhaseBegun}, res.Object.Phases...)
		}
	}
	if j.left && j.u.Old != nil {
		o := *j.u.Old
		o.Addr, o.Phases = j.u.Key.Addr, planner.Outside
		res.Object = &o
	}
	if journal := r.append(statefile.Entry{Result: res}); journal != nil && !errors.Is(err, journal) { // that may be why nothing was done
		return errors.Join(err, journal)
	}
	return err
}

// takeAway does the phases that take an object away.
func (r *runner) takeAway(ctx context.Context, j *job, phases []string) (string, error) {
	u := j.u
	if r.work.Destroy && u.Type == addr.TypeCluster {
		return "", r.leftovers(u.Key.Addr) // it is over with its last node
	}
	if oneCall(u) {
		phases = []string{""}
	}
	for _, phase := range phases {
		if err := r.mayTake(ctx, j, phase); err != nil {
			return phase, err
		}
		if err := r.intend(statefile.Intent{Addr: u.Key.Addr, Action: u.Action, Phase: phase, Object: u.Old}); err != nil {
			return phase, err
		}
		if phase != "" {
			j.progress(phase)
		}
		resp, err := r.call(ctx, j, phase, cty.NilVal, nil)
		if err != nil && r.work.Destroy && oneCall(u) && ctx.Err() == nil {
			// Nobody answers for the database: what runs of the group ends with its node.
			j.progress("ends with its node: " + err.Error())
			r.mu.Lock()
			r.left = append(r.left, u.Key.Addr)
			r.mu.Unlock()
			return "", nil
		}
		if err != nil && r.mayStayBehind(j, phase, err) {
			break
		}
		if err != nil {
			return phase, r.failedAt(j, phase, err)
		}
		if resp.Object != nil {
			j.prior = resp.Object
		}
		j.left = j.left || phase == providers.PhaseLeave
	}
	if err := r.append(statefile.Entry{Result: &statefile.Result{Addr: u.Key.Addr, Gone: true}}); err != nil {
		return "", err
	}
	if u.Type == addr.TypeNode {
		r.mu.Lock()
		maps.DeleteFunc(r.nodes, func(_, id string) bool { return id == j.id })
		r.mu.Unlock()
	}
	if u.Action == "delete" && !u.Instead {
		r.count("delete")
		for range u.Gone {
			r.count("delete")
		}
	}
	return "", nil
}

// mayStayBehind tells whether a node whose place another one takes may stay as it
// is on its host, for that can't be reached: it has left the cluster, which waited
// until nothing of it could run under a lease. What it is, a warning says.
func (r *runner) mayStayBehind(j *job, phase string, err error) bool {
	u := j.u
	if u.Ground && errors.Is(err, providers.ErrUnreachable) && (phase == providers.PhaseStop || phase == providers.PhaseRemove) {
		j.progress("ends with what it stands on: " + err.Error())
		return true
	}
	if u.Type != addr.TypeNode || u.Key.Addr.Deposed() == "" && u.Action != "replace" || !errors.Is(err, providers.ErrUnreachable) ||
		phase != providers.PhaseStop && phase != providers.PhaseRemove {
		return false
	}
	text := fmt.Sprintf("node %s has left the cluster and its place is taken, but its host can't be reached (%s): its agent may still run there, without a lease and so without groups, and its directory is there. What outlives a lease (the plan's \"not held\") may run on. Once the host is back, stop the agent and remove the directory, or make the host anew.", j.id, err)
	j.progress(text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, Warning{u.Key.Addr.Current(), text})
	return true
}

// leftovers ends what ended with the nodes: groups that the database could
// not be asked about, and the cluster itself.
func (r *runner) leftovers(more ...addr.Address) error {
	r.mu.Lock()
	gone := append(r.left, more...)
	r.left = nil
	r.mu.Unlock()
	var entries []statefile.Entry
	for _, a := range gone {
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: a, Gone: true}})
	}
	for i := range r.cfg.State.Objects { // a group's resources go with it
		if slices.Contains(gone, r.cfg.State.Objects[i].Addr.Owner()) {
			r.count("delete")
		}
	}
	if len(entries) == 0 {
		return nil
	}
	return r.append(entries...)
}

// group makes or changes a group and its resources, or a fence: one call, one
// intent.
func (r *runner) group(ctx context.Context, j *job) error {
	u := j.u
	parts := make([]providers.Resource, 0, len(u.Parts))
	types := j.provider.Schema().Resources
	for i := range u.Parts {
		p := &u.Parts[i]
		v, err := r.resolve(p.Addr, types[p.Type], p.Config, p.Keep)
		if err != nil {
			return err
		}
		parts = append(parts, providers.Resource{Addr: p.Addr, ID: r.giveID(p.Addr, p.ID), Type: p.Type, Value: v})
	}
	target := r.object(j, j.planned, private(j.prior), false)
	action := u.Action
	if len(u.Adopt) > 0 {
		action = planner.ActionImport
	}
	if err := r.intend(statefile.Intent{Addr: u.Key.Addr, Action: action, Object: target}); err != nil {
		return err
	}
	resp, failure := r.call(ctx, j, "", j.planned, parts)
	if failure != nil && resp.Object == nil {
		return r.failedAt(j, "", failure)
	}
	if resp.Object != nil {
		j.prior = resp.Object
	}
	entries := []statefile.Entry{{Result: &statefile.Result{Addr: u.Key.Addr, Object: r.object(j, valueOf(resp.Object, j.planned), private(resp.Object), false)}}}
	there := map[addr.Address]cty.Value{u.Key.Addr: valueOf(resp.Object, j.planned)}
	for i := range parts {
		value := parts[i].Value
		for k := range resp.Resources {
			if resp.Resources[k].ID == parts[i].ID && resp.Resources[k].Value != cty.NilVal {
				value = resp.Resources[k].Value
			}
		}
		p := &u.Parts[i]
		there[p.Addr] = value
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: p.Addr, Object: &statefile.Object{
			Addr: p.Addr, Type: p.Type, Provider: u.Provider, ID: parts[i].ID, Attributes: toJSON(value),
			DependsOn: p.Depends, PreventDestroy: p.Prevent, Sensitive: schema.SensitiveNames(p.Config),
		}}})
	}
	for _, a := range u.Gone {
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: a, Gone: true}})
	}
	if failure != nil {
		entries[0].Result.Error = failure.Error() // it is there as planned, but did not come up
	}
	if len(u.Adopt) > 0 {
		entries = append(entries[1:], entries[0]) // as adopted has it
		r.count(planner.ActionImport)
	}
	if err := r.append(entries...); err != nil {
		return errors.Join(failure, err)
	}
	if failure != nil {
		return failure
	}
	if u.Action != "update" || r.changes(u.Key.Addr) {
		r.count(u.Action)
	}
	for i := range u.Parts {
		if a := u.Parts[i].Change.Action(); a != "no-op" {
			r.count(a)
		}
	}
	for range u.Gone {
		r.count("delete")
	}
	return r.after(ctx, j, there)
}

// changes tells whether the object itself changes, not only its parts.
func (r *runner) changes(a addr.Address) bool {
	i, ok := slices.BinarySearchFunc(r.cfg.Plan.Changes, a, func(c planner.Change, a addr.Address) int { return addr.Compare(c.Address, a) })
	return ok && r.cfg.Plan.Changes[i].Action() != "no-op"
}

// call asks the provider, again for a while where it says that this may help.
func (r *runner) call(ctx context.Context, j *job, phase string, planned cty.Value, parts []providers.Resource) (providers.ApplyResponse, error) {
	r.mu.Lock()
	nodes := maps.Clone(r.nodes)
	r.mu.Unlock()
	req := providers.ApplyRequest{
		Addr: j.u.Key.Addr, Type: j.u.Type, ID: j.id, Phase: phase, Prior: j.prior, Planned: planned,
		Resources: parts, Adopt: len(j.u.Adopt) > 0, Beside: j.u.Beside, Nodes: nodes, Progress: j.progress,
	}
	if phase == providers.PhaseStop {
		r.stops(j.u.Key.Addr)
		req.ComesBack = planned != cty.NilVal && !slices.ContainsFunc(r.work.Units, func(u *planner.Unit) bool {
			return u.Key.Addr == j.u.Key.Addr && slices.Contains(u.Phases, providers.PhaseJoin)
		})
	}
	wait := r.cfg.Poll
	for try := 1; ; try++ {
		if try > 1 || r.cfg.Ahead {
			if err := r.held(); err != nil {
				return providers.ApplyResponse{}, err
			}
		}
		resp, err := j.provider.Apply(ctx, req)
		if err == nil || !errors.Is(err, providers.ErrRetry) || try == 6 || ctx.Err() != nil {
			return resp, err
		}
		j.progress("again: " + err.Error())
		if !sleep(ctx, wait) {
			return resp, err
		}
		wait *= 2
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (r *runner) count(action string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch action {
	case "create":
		r.summary.Create++
	case "update":
		r.summary.Update++
	case "replace":
		r.summary.Replace++
	case "delete":
		r.summary.Delete++
	case "forget":
		r.summary.Forget++
	case planner.ActionImport:
		r.summary.Import++
	}
}

// object is the unit's object as the state keeps it. partly: with the phases
// of its create that are done.
func (r *runner) object(j *job, v cty.Value, private []byte, partly bool) *statefile.Object {
	u := j.u
	o := &statefile.Object{
		Addr: u.Key.Addr, Type: u.Type, Provider: u.Provider, ID: j.id, Attributes: toJSON(v), Private: private,
		DependsOn: u.DependsOn, PreventDestroy: u.Prevent, Sensitive: schema.SensitiveNames(u.Config),
	}
	if partly {
		r.mu.Lock()
		defer r.mu.Unlock()
		if u.Old != nil && u.Old.ID == j.id { // else those are another's, which is gone
			o.Phases = slices.Clone(u.Old.Phases)
		}
		for _, p := range r.done[u.Key.Addr] {
			if !slices.Contains(o.Phases, p) {
				o.Phases = append(o.Phases, p)
			}
		}
	}
	return o
}

func valueOf(o *providers.Object, planned cty.Value) cty.Value {
	if o != nil && o.Value != cty.NilVal {
		return o.Value
	}
	return planned
}

func private(o *providers.Object) []byte {
	if o == nil {
		return nil
	}
	return o.Private
}

// toJSON is a value as the state keeps it; parts that are not known yet are
// left out.
func toJSON(v cty.Value) []byte {
	if v == cty.NilVal {
		return []byte("{}")
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		v, _ = cty.Transform(v, func(_ cty.Path, e cty.Value) (cty.Value, error) {
			if !e.IsKnown() {
				return schema.Absent(e.Type()), nil
			}
			return e, nil
		})
	}
	text, err := schema.ToJSON(v)
	if err != nil {
		return []byte("{}") // cannot be: all is known by now
	}
	return text
}
