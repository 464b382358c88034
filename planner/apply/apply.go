// Package apply carries a plan out: in parallel, within a bound, in the order
// that the plan's graph gives. Each object's intent is in the journal before
// its provider is called, and its result after, so that the next run knows
// what was done, what was begun and what was not, whatever moment this one
// dies at.
//
// One failed object stops what hangs on it (hard edges) and nothing else. A
// step that takes a node away looks at the votes again just before it does.
// Closing Config.Stop ends the run softly: what is under way is finished,
// nothing new is begun; cancelling the context ends it at once.
//
// Start reading at Run, then walk.go (who may start when) and unit.go (what is
// done to one object).
package apply

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/statefile"
)

// DefaultParallelism is how many units are worked on at once.
const DefaultParallelism = 10

// Journal is where entries become durable; statefile's stores have one. Append
// returns once they are on disk; after an error nothing more is begun.
type Journal interface {
	Append(entries ...statefile.Entry) error
}

// Config is a run. Plan, State, Providers and Journal must be set.
type Config struct {
	Plan *planner.Plan
	// Definition that the plan was made from: what it could not know is worked
	// out as objects become known. nil with a destroy.
	Definition *lang.Definition
	State      statefile.State // that the plan was made from
	Pending    []statefile.Pending
	Providers  *providers.Registry // configured
	Journal    Journal
	Begin      statefile.Begin // the first entry
	// Ahead is for a journal far away, each write to which takes long: all intents
	// that the plan knows are written at once before the first effect, and results
	// together (journal.go).
	Ahead bool
	// Linger is how long a result waits for others in a run ahead, while those go on.
	// Default 1 s.
	Linger time.Duration
	// Prove is, in a run ahead, for how long a write that went well stands for that
	// the lock is still the run's own: no effect begins later than that without another
	// one. Default 5 s.
	Prove time.Duration
	// Held tells whether the run's lock is still its own, from what is known without
	// asking anybody far away; nil: nobody knows.
	Held func() error

	Parallelism int             // 0: DefaultParallelism
	Stop        <-chan struct{} // closed: finish what is under way, begin nothing
	Events      func(Event)     // never called by two at once; nil: none
	// Identity is told the cluster's identity before anything else is done:
	// that of the state, or the new one.
	Identity func(*pki.Identity)
	// QuorumWait bounds how long the database steps wait for a quorum. Default 60 s.
	QuorumWait time.Duration
	Poll       time.Duration // between two looks at the quorum. Default 200 ms.
	// ConditionWait bounds how long a postcondition that asks the running cluster
	// may take to come true. Default 10 s.
	ConditionWait time.Duration
	NewID         func() string // default pki.NewID
	Now           func() time.Time
	// NewIdentity makes the cluster's identity at its first apply. Default pki.NewIdentity.
	NewIdentity func(name string) (*pki.Identity, error)
}

// Result is what became of a run. State is to be written by the store, also
// after a failure.
type Result struct {
	State   statefile.State
	Pending []statefile.Pending // begun by this run, and what became of it is not in the journal
	// Whole: all that was begun has come to an end that State knows, also where the
	// journal was not told any more (Config.Ahead).
	Whole       bool
	Done        planner.Summary // objects, resources on their own
	Failed      []Failure
	Cancelled   []Failure      // were under way when the context ended; the next run looks at what came of them
	Skipped     []Skip         // what hangs on a failure, in plan order
	NotStarted  []addr.Address // for the run was interrupted
	Interrupted bool
	Warnings    []Warning
}

// Warning is what a person should know of an object though nothing failed.
type Warning struct {
	Addr addr.Address
	Text string
}

// Failure is one unit that failed.
type Failure struct {
	Addr   addr.Address
	Action string
	Phase  string
	Err    error
}

// Skip is a unit that was not tried, for Because failed.
type Skip struct {
	Addr    addr.Address
	Because string
}

// runner is a run under way.
type runner struct {
	cfg  Config
	work *planner.Work
	now  func() time.Time
	was  []statefile.Object // the state's, as the journal finds them: before Deposes

	disk  sync.Mutex    // held by who writes to the journal; taken before mu
	nudge chan struct{} // of a run ahead: write what there is (journal.go)
	loose chan struct{} // of a run ahead: closed once nobody waits for the journal any more

	mu      sync.Mutex // guards all below, and orders events
	next    *batch     // to be written next, nil: nobody has any entries
	flying  *batch     // of a run ahead: that is written now
	entries []statefile.Entry
	ahead   map[addr.Address]string    // of a run ahead: the id of the intent that is durable
	begun   map[addr.Address]bool      // of a run ahead: something may have been done
	fatal   error                      // the journal can't be written, or the lock is another's
	proved  time.Time                  // of a run ahead: when the last write was begun that went well
	known   map[addr.Address]cty.Value // values of objects that are applied
	nodes   map[string]string          // node name -> id
	ids     map[addr.Address]string    // given in this run
	done    map[addr.Address][]string  // phases of creates
	ran     map[addr.Address]time.Time // nodes: when this run had started their agents
	taken   map[addr.Address]taken     // nodes whose votes it takes
	priors  map[addr.Address]*providers.Object
	started map[addr.Address]time.Time
	looked  map[addr.Address]bool // preconditions
	left    []addr.Address        // groups that end with their nodes
	summary planner.Summary
	cluster *statefile.Cluster

	warnings []Warning

	glance glance
}

// Run applies the plan. The error is about the run as a whole (the journal
// can't be written, there is nothing to apply); what became of objects is in
// the Result, which is there also with an error.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	work := cfg.Plan.Work()
	if work == nil || cfg.Plan.Errored {
		return &Result{State: cfg.State}, errors.New("apply: the plan has errors; mend them and plan again")
	}
	if cfg.Parallelism <= 0 {
		cfg.Parallelism = DefaultParallelism
	}
	if cfg.QuorumWait == 0 {
		cfg.QuorumWait = time.Minute
	}
	if cfg.Poll == 0 {
		cfg.Poll = 200 * time.Millisecond
	}
	if cfg.Linger == 0 {
		cfg.Linger = time.Second
	}
	if cfg.Prove == 0 {
		cfg.Prove = 5 * time.Second
	}
	if cfg.ConditionWait == 0 {
		cfg.ConditionWait = 10 * time.Second
	}
	if cfg.NewID == nil {
		cfg.NewID = pki.NewID
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NewIdentity == nil {
		cfg.NewIdentity = pki.NewIdentity
	}
	if cfg.Events == nil {
		cfg.Events = func(Event) {}
	}
	r := &runner{
		cfg: cfg, work: work, now: cfg.Now, was: cfg.State.Objects,
		known: map[addr.Address]cty.Value{}, nodes: map[string]string{}, ids: map[addr.Address]string{},
		done: map[addr.Address][]string{}, priors: map[addr.Address]*providers.Object{},
		started: map[addr.Address]time.Time{}, looked: map[addr.Address]bool{}, ran: map[addr.Address]time.Time{}, taken: map[addr.Address]taken{},
		glance: glance{turn: make(chan struct{}, 1)},
		nudge:  make(chan struct{}, 1), loose: make(chan struct{}), ahead: map[addr.Address]string{}, begun: map[addr.Address]bool{},
	}
	res := &Result{}
	err := r.begin()
	if err == nil {
		err = r.rename()
	}
	if err == nil {
		err = r.depose()
	}
	if err == nil {
		err = r.settle()
	}
	if err == nil {
		r.learn()
		r.announce()
		r.tellRereads()
		err = r.adopt()
	}
	if err == nil && cfg.Ahead {
		err = r.aimAhead()
	}
	if err == nil {
		end := r.scribe()
		r.walk(ctx, res)
		end()
		r.recheck(ctx, res)
		err = r.fatal
	}
	if err == nil && work.Destroy && len(res.Failed) == 0 && !res.Interrupted {
		err = r.leftovers()
	}
	res.Done, res.Warnings = r.summary, r.warnings
	if cfg.Ahead {
		err = errors.Join(err, r.settleAhead())
	}
	r.fold(ctx, res)
	res.Whole = err == nil && len(res.Pending) == 0
	r.emit(Event{Type: EventSummary, Summary: r.summary})
	return res, err
}

// begin opens the journal, and makes the cluster's identity durable before
// anything rests on it.
func (r *runner) begin() error {
	if r.cfg.State.DigestKey == "" {
		r.cfg.State.DigestKey = statefile.NewDigestKey()
	}
	begin := r.cfg.Begin
	begin.DigestKey = r.cfg.State.DigestKey
	if err := r.append(statefile.Entry{Begin: &begin}); err != nil {
		return err
	}
	r.cluster = r.cfg.State.Cluster
	if r.cluster == nil {
		if r.work.Destroy || r.work.Rereads {
			return nil
		}
		identity, err := r.cfg.NewIdentity(r.cfg.Plan.Cluster)
		if err != nil {
			return fmt.Errorf("make the cluster's identity: %w", err)
		}
		r.cluster = &statefile.Cluster{
			ID: identity.ID, Name: identity.Name, CACert: string(identity.CACert), CAKey: string(identity.CAKey),
			Key: base64.StdEncoding.EncodeToString(identity.Key),
		}
		if err := r.append(statefile.Entry{Cluster: r.cluster}); err != nil {
			return err
		}
		if r.cfg.Identity != nil {
			r.cfg.Identity(identity)
		}
		return nil
	}
	if r.cfg.Identity != nil {
		key, err := base64.StdEncoding.DecodeString(r.cluster.Key)
		if err != nil {
			return fmt.Errorf("the state's cluster key: %w", err)
		}
		r.cfg.Identity(&pki.Identity{
			ID: r.cluster.ID, Name: r.cluster.Name, CACert: []byte(r.cluster.CACert), CAKey: []byte(r.cluster.CAKey), Key: key,
		})
	}
	return nil
}

// rename has the state on the disk call objects what the plan calls them. That
// they are so in the cluster too comes with their units; where this run does
// not get there, the next plan sees the difference.
func (r *runner) rename() error {
	if len(r.work.Renames) == 0 {
		return nil
	}
	if err := r.append(statefile.Entry{Moved: &statefile.Moved{Moves: r.work.Renames}}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.summary.Move = len(r.work.Renames)
	return nil
}

// depose has the state on the disk know the nodes whose places others take by the
// addresses under which they leave, before the others are begun: from here on
// each is finished, or deleted, by whatever run comes next.
func (r *runner) depose() error {
	if len(r.work.Deposes) == 0 {
		return nil
	}
	if err := r.append(statefile.Entry{Moved: &statefile.Moved{Moves: r.work.Deposes}}); err != nil {
		return err
	}
	r.cfg.State, r.cfg.Pending = statefile.Relabel(r.cfg.State, r.cfg.Pending, r.work.Deposes)
	return nil
}

// settle ends what an earlier run began with objects that were found as they
// should be: nothing is done to them, so nothing else would.
func (r *runner) settle() error {
	pending := make(map[addr.Address]bool, len(r.cfg.Pending))
	for _, p := range r.cfg.Pending {
		pending[p.Addr] = true
	}
	var entries []statefile.Entry
	for _, a := range r.work.Dropped {
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: a, Gone: true}})
	}
	for _, k := range r.work.Kept {
		if !pending[k.Addr] {
			continue
		}
		o := *r.cfg.State.Find(k.Addr) // what is kept was in the state
		o.Attributes, o.Sensitive, o.DependsOn = toJSON(k.Value), k.Sensitive, k.DependsOn
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: k.Addr, Object: &o}})
	}
	for _, a := range r.work.Gone {
		entries = append(entries, statefile.Entry{Result: &statefile.Result{Addr: a, Gone: true}})
		r.count("forget")
	}
	if len(entries) == 0 {
		return nil
	}
	return r.append(entries...)
}

// fold makes the new state out of the old one and what was journaled.
func (r *runner) fold(ctx context.Context, res *Result) {
	res.State, res.Pending = r.folded()
	r.keep(&res.State)
	if r.cfg.Definition != nil && !r.work.Destroy && !r.work.KeepOutputs {
		res.State.Outputs = r.outputs(ctx, res)
	}
	if r.work.Destroy && len(res.State.Objects) == 0 && len(res.Failed) == 0 && !res.Interrupted {
		res.State.Cluster, res.State.Outputs = nil, nil
	}
}

// folded is the state that the run began with, and what was journaled, as the next
// one would find it.
func (r *runner) folded() (statefile.State, []statefile.Pending) {
	state := r.cfg.State
	state.Objects, state.Cluster = r.was, r.cluster
	return statefile.Fold(state, r.entries)
}

// keep has the state say what is known beyond the journal of this run: what
// was read of objects that nothing was done to, and what an earlier run began
// and this one did not come to. The journal goes; nothing may be lost with it.
func (r *runner) keep(state *statefile.State) {
	state.Objects = slices.Clone(state.Objects)
	at := make(map[addr.Address]int, len(state.Objects))
	for i := range state.Objects {
		at[state.Objects[i].Addr] = i
	}
	for _, k := range r.work.Kept {
		if i, ok := at[k.Addr]; ok {
			o := &state.Objects[i]
			o.PreventDestroy, o.Sensitive, o.DependsOn = k.Prevent, k.Sensitive, k.DependsOn
			if text := toJSON(k.Value); !bytes.Equal(text, o.Attributes) {
				o.Attributes = text
			}
		}
	}
	settled := map[addr.Address]bool{}
	for i := range r.entries {
		if res := r.entries[i].Result; res != nil && res.Gone {
			settled[res.Addr] = true
		}
	}
	for _, p := range r.cfg.Pending {
		if _, known := at[p.Addr]; known || settled[p.Addr] || p.Object == nil {
			continue
		}
		o := *p.Object
		o.Phases = []string{planner.PhaseBegun}
		state.Objects = append(state.Objects, o)
	}
	slices.SortFunc(state.Objects, func(a, b statefile.Object) int { return addr.Compare(a.Addr, b.Addr) })
}
