package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/burst"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/confdb"
	"github.com/clusterplan/clusterplan/statefile"
)

// PlanOptions say how to plan.
type PlanOptions struct {
	Mode            string // planner.Mode*
	NoRefresh       bool   // the state is taken for the world
	Replace         []addr.Address
	Targets         []addr.Address // these and what they need alone
	Excludes        []addr.Address // all but these and what can't be without them
	AllowQuorumLoss bool
	// AllowBrokenGuarantee makes warnings of guarantees that would not hold.
	AllowBrokenGuarantee bool
	// AllowDelete lets a rollback delete groups.
	AllowDelete bool
	Pairs       bool // in the failure matrix, of more than 64 nodes too
	Parallelism int
	NoLock      bool
	LockTimeout time.Duration
	// GenerateOut is a file to write blocks to, for what import blocks name and
	// the definition doesn't have; "": none. It was looked at by CanGenerate.
	GenerateOut string
	// Only: the plan is shown or saved, and this run does not apply it.
	Only bool
}

// Planned is a plan with what an apply needs to carry it out.
type Planned struct {
	Plan       *planner.Plan
	Diags      hcl.Diagnostics // warnings; of the definition too
	Definition *lang.Definition
}

// Validate works the definition out without looking at any state.
func (s *Session) Validate() hcl.Diagnostics {
	_, diags := s.Config.Evaluate(nil)
	return append(s.Diags, diags...)
}

// Plan looks at the world and works out what an apply would do. It changes
// nothing, and holds the lock only while it reads. Errors of the definition are
// a *view.DiagnosticsError; the plan is then there too, if there is one.
func (s *Session) Plan(ctx context.Context, o PlanOptions) (*Planned, error) {
	if o.NoLock || !s.Store.Begun() {
		if err := s.ReadState(ctx); err != nil {
			return nil, err
		}
		return s.plan(ctx, o, func() error { return nil })
	}
	lock, err := s.lock(ctx, "plan", o.LockTimeout)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if err := s.ReadState(ctx); err != nil {
		return nil, err
	}
	return s.plan(ctx, o, lock.Release)
}

func (s *Session) lock(ctx context.Context, what string, wait time.Duration) (statefile.Lock, error) {
	return s.lockOf(ctx, s.Store, what, wait)
}

func (s *Session) lockOf(ctx context.Context, store statefile.Store, what string, wait time.Duration) (statefile.Lock, error) {
	l, err := store.Lock(ctx, statefile.LockRequest{Who: Who(), What: what, Timeout: wait, Watching: func(h statefile.LockInfo, term time.Duration) {
		s.opts.Tell(fmt.Sprintf("The state is locked by %s (%s, on %s). Whether that is alive can only be seen by its heartbeat: waiting for one, for up to %v.", h.Who, h.What, h.Host, term))
	}})
	if errors.Is(err, ErrLocked) {
		if ctx.Err() != nil {
			return nil, errors.Join(ErrInterrupted, err)
		}
		return nil, &view.Hint{Err: err, Hint: "Wait for it to end, with --lock-timeout=5m for example. If you know that it will never go on: clusterplan force-unlock with the lock's id."}
	}
	return l, interrupted(ctx, err)
}

// plan does it; read is called once the world has been looked at.
func (s *Session) plan(ctx context.Context, o PlanOptions, read func() error) (*Planned, error) {
	p, before := &Planned{}, s.Snap
	renames, err := s.rename(o.Mode)
	if err != nil {
		return nil, err
	}
	known := s.known()
	p.Definition, p.Diags = s.Config.Evaluate(known)
	if p.Definition != nil {
		blocks := p.Definition.Blocks()
		if o.Only && o.GenerateOut == "" {
			p.Definition.Settle()
		}
		burst.Evaluated(len(p.Definition.Objects), blocks)
	}
	p.Diags = append(s.Diags, p.Diags...)
	if p.Diags.HasErrors() {
		if o.Mode != planner.ModeDestroy {
			return nil, &view.DiagnosticsError{Diags: p.Diags, Files: s.Config.Files()}
		}
		// What there is can be taken down whatever became of its definition.
		p.Definition = nil
		p.Diags = hcl.Diagnostics{{Severity: hcl.DiagWarning, Summary: "The definition has errors",
			Detail: "Everything that the state knows is destroyed, with the providers' default settings. clusterplan validate shows the errors."}}
	}
	if o.GenerateOut == "" || !s.lacks(p.Definition) { // else there will be more
		if wrong := s.checkNamed(p.Definition, o); wrong.HasErrors() {
			return nil, &view.DiagnosticsError{Diags: append(p.Diags, wrong...), Files: s.Config.Files()}
		}
	}
	if err := s.configure(p.Definition); err != nil {
		return nil, err
	}
	if s.look != nil {
		if err := s.look(ctx); err != nil {
			return nil, interrupted(ctx, err)
		}
	}
	if o.GenerateOut != "" {
		file := o.GenerateOut
		if o.GenerateOut = ""; s.lacks(p.Definition) {
			if err := s.generate(ctx, p, file); err != nil {
				return nil, err
			}
			s.Snap = before
			return s.plan(ctx, o, read) // with what was written
		}
	}
	var imports []planner.Import
	if ofDefinition(o.Mode) {
		if imports, err = refresh.Import(ctx, refresh.Config{State: s.Snap.State, Pending: s.Snap.Pending, Definition: p.Definition, Providers: s.registry}); err != nil {
			return nil, interrupted(ctx, err)
		}
		if slices.ContainsFunc(imports, func(one planner.Import) bool {
			return (one.To.Type == addr.TypeNode || addr.Machinery(one.To.Type)) && one.Object != nil
		}) {
			// What refers to a node sees where it is.
			known = refresh.With(known, imports)
			if def, more := s.Config.Evaluate(known); !more.HasErrors() {
				p.Definition = def
			}
		}
	}
	in := planner.Input{
		Imports:    imports,
		Definition: p.Definition, State: s.Snap.State, Pending: s.Snap.Pending, Renames: renames, Providers: s.registry,
		Mode: o.Mode, Replace: o.Replace, Targets: o.Targets, Excludes: o.Excludes, AllowQuorumLoss: o.AllowQuorumLoss,
		AllowBrokenGuarantee: o.AllowBrokenGuarantee, Pairs: o.Pairs, Only: o.Only, Foreseen: burst.Foreseen,
	}
	var unclear hcl.Diagnostics
	in.Version, unclear = s.version()
	p.Diags = append(p.Diags, unclear...)
	if !ofDefinition(o.Mode) {
		in.Definition = nil // everything that is there goes, or is looked at, whatever the definition says by now
	}
	if !o.NoRefresh {
		var err error
		in.World, err = refresh.Run(ctx, refresh.Config{
			State: s.Snap.State, Pending: s.Snap.Pending, Definition: in.Definition, Providers: s.registry, Parallelism: o.Parallelism, Only: o.Only,
		})
		if err != nil {
			return nil, interrupted(ctx, err)
		}
		burst.Looked()
	}
	if err := read(); err != nil {
		return nil, err
	}
	plan, diags := planner.Build(in)
	// Nodes will have other endpoints than they had, machines other addresses: what
	// refers to them changes too, and so on. A network, a machine and its node are
	// three rounds.
	for range 4 {
		later := plan.Known(in.Definition, known)
		if later == nil {
			break
		}
		def, more := s.Config.Evaluate(later)
		if more.HasErrors() {
			break
		}
		known, p.Definition, in.Definition = later, def, def
		if !o.NoRefresh {
			err := refresh.Again(ctx, refresh.Config{State: s.Snap.State, Pending: s.Snap.Pending, Definition: def, Providers: s.registry}, in.World)
			if err != nil {
				return nil, interrupted(ctx, err)
			}
		}
		plan, diags = planner.Build(in)
	}
	burst.Planned()
	if wrong := checkPlanned(plan, o); wrong.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: append(p.Diags, wrong...), Files: s.Config.Files()}
	}
	p.Plan = plan
	p.Diags = append(p.Diags, diags...)
	p.Diags = append(p.Diags, s.deleted(plan, o)...)
	p.Diags = append(p.Diags, failedGroups(plan, in.World.Live)...)
	p.Diags = append(p.Diags, downNodes(plan, in.World)...)
	if p.Diags.HasErrors() {
		plan.Errored, plan.Applyable = true, false // not all of them are the planner's
		err := error(&view.DiagnosticsError{Diags: p.Diags, Files: s.Config.Files()})
		if why := refusedFor(p.Diags); why != nil {
			err = &refusal{err, why}
		}
		return p, err
	}
	return p, nil
}

// rename has the state that was read call its objects what the definition's
// moved blocks call them. What is on the disk follows with an apply.
func (s *Session) rename(mode string) ([]statefile.Move, error) {
	if !ofDefinition(mode) || s.Diags.HasErrors() {
		return nil, nil
	}
	before, open, back, err := s.moveBack()
	if err != nil {
		return nil, err
	}
	state, pending, moves, diags := planner.Rename(s.Config.Moves(), before, open)
	if diags.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: append(s.Diags, diags...), Files: s.Config.Files()}
	}
	moves = statefile.Then(back, moves)
	if len(moves) > 0 {
		snap := *s.Snap
		snap.State, snap.Pending = state, pending
		s.Snap = &snap
	}
	return moves, nil
}

// ofDefinition tells whether a plan makes what the definition says.
func ofDefinition(mode string) bool { return mode == "" || mode == planner.ModeNormal }

// refusedFor is ErrQuorum or ErrGuarantee where nothing else is wrong: any other
// error comes first among the exit codes.
func refusedFor(diags hcl.Diagnostics) (why error) {
	for _, d := range diags {
		switch {
		case d.Severity != hcl.DiagError:
		case d.Summary == planner.QuorumLost:
			why = ErrQuorum
		case d.Summary != planner.GuaranteeBroken:
			return nil
		case why == nil:
			why = ErrGuarantee
		}
	}
	return why
}

// refusal is ErrQuorum or ErrGuarantee with the plan's own words.
type refusal struct {
	error
	why error
}

func (e *refusal) Is(target error) bool { return target == e.why }
func (e *refusal) Unwrap() error        { return e.error }

// known gives the definition what applied objects know of themselves.
func (s *Session) known() lang.Known { return s.knownOf(&s.Snap.State) }

func (s *Session) knownOf(state *statefile.State) lang.Known {
	types := map[string]cty.Type{}
	for provider, sch := range s.registry.Schemas() {
		for name, shape := range sch.Objects {
			types[provider+"/"+name] = schema.Type(shape)
		}
	}
	// Only nodes and machinery have such attributes; each is asked for several of them.
	nodes := map[addr.Address]cty.Value{}
	for i := range state.Objects {
		o := &state.Objects[i]
		if t, ok := types[o.Provider+"/"+o.Type]; ok && (o.Addr.Type == addr.TypeNode || addr.Machinery(o.Addr.Type) && len(o.Phases) == 0) {
			if v, err := schema.FromJSON(state.Known(o), t); err == nil {
				nodes[o.Addr] = v
			}
		}
	}
	return func(a addr.Address) (cty.Value, bool) {
		v, ok := nodes[a]
		return v, ok
	}
}

// configure hands every provider its block and what this run gives to all.
func (s *Session) configure(def *lang.Definition) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	return s.configureOnce(def)
}

// reach configures the providers for a command that only talks to the nodes, by
// the definition as it is.
func (s *Session) reach() error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if s.configured {
		return nil
	}
	known := func(addr.Address) (cty.Value, bool) { return cty.NilVal, false }
	if s.Snap != nil {
		known = s.knownOf(&s.Snap.State)
	}
	def, diags := s.Config.Evaluate(known)
	if diags.HasErrors() {
		return &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	}
	return s.configureOnce(def)
}

func (s *Session) configureOnce(def *lang.Definition) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	env := providers.Env{
		DataDir: s.dataDir(), Program: program, Version: s.opts.Version,
		Identity: s.Identity, Cluster: s.confdb, Nodes: s.nodes, Log: s.opts.Log, Defined: map[addr.Address]cty.Value{},
	}
	config := map[string]cty.Value{}
	if def != nil {
		for i := range def.Objects {
			if o := &def.Objects[i]; o.Addr.Type == addr.TypeNode {
				env.Order = append(env.Order, o.Addr)
				if o.Value != cty.NilVal {
					env.Defined[o.Addr], _ = o.Value.UnmarkDeep()
				}
			}
		}
		env.Links = []spec.Link{}
		if d := def.Spec(); d != nil {
			env.Links = append(env.Links, d.Cluster.Links...)
		}
		for _, p := range def.Providers {
			config[p.Name] = p.Config
		}
	}
	for name, sch := range s.registry.Schemas() {
		v, ok := config[name]
		if !ok {
			v = schema.BlockDefault(spec.Block{Attributes: sch.Config.Attributes, Blocks: sch.Config.Blocks})
		}
		p, err := s.registry.Provider(name)
		if err != nil {
			return err
		}
		if err := p.Configure(v, env); err != nil {
			return fmt.Errorf("provider %s: %w", name, err)
		}
	}
	s.configured = true
	return nil
}

// Shape is the definition's objects and what they depend on, for drawing.
func (s *Session) Shape() (*lang.Definition, error) {
	def, diags := s.Config.Evaluate(nil)
	diags = append(s.Diags, diags...)
	if diags.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	}
	return def, nil
}

var _ providers.Cluster = (*confdb.Provider)(nil)

// empty tells whether there is nothing in a state that a destroy could take away.
func empty(st statefile.State, pending []statefile.Pending) bool {
	return len(st.Objects) == 0 && len(pending) == 0 && st.Cluster == nil
}
