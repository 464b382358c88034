package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/burst"
	"github.com/clusterplan/clusterplan/internal/shell"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
)

// planFlags are those that plan, apply and destroy share.
type planFlags struct {
	vars        variables
	refresh     bool
	refreshOnly bool
	replace     []string
	target      []string
	exclude     []string
	quorumLoss  bool
	broken      bool // guarantees may be
	pairs       bool
	parallelism int
	lock        bool
	lockTimeout time.Duration
	asJSON      bool
	record      bool // the plan is to be saved
	ref         string
}

func (f *planFlags) register(c *cobra.Command, destroy bool) {
	f.vars.flags(c)
	c.Flags().BoolVar(&f.refresh, "refresh", true, "look at what is there; --refresh=false takes the state for it")
	if !destroy {
		c.Flags().StringArrayVar(&f.replace, "replace", nil, "make the object at `ADDRESS` again; may be given often")
		c.Flags().StringArrayVar(&f.target, "target", nil, "only the object at `ADDRESS` and what it needs; may be given often")
		c.Flags().StringArrayVar(&f.exclude, "exclude", nil, "all but the object at `ADDRESS` and what can't be without it; may be given often")
		c.Flags().BoolVar(&f.refreshOnly, "refresh-only", false, "change nothing but the state: it takes over what is there")
		c.Flags().BoolVar(&f.quorumLoss, "allow-quorum-loss", false, "allow steps that leave the cluster without quorum")
		f.pairsFlag(c)
	}
	c.Flags().IntVar(&f.parallelism, "parallelism", 10, "work on `N` things at once")
	c.Flags().BoolVar(&f.lock, "lock", true, "lock the state; plan --lock=false reads without")
	c.Flags().DurationVar(&f.lockTimeout, "lock-timeout", 0, "wait so long for a locked state, `5m` for example")
}

func (f *planFlags) pairsFlag(c *cobra.Command) {
	c.Flags().BoolVar(&f.pairs, "pairs", false, "work out the loss of each pair of nodes also where there are more than 64 nodes")
}

func (f *planFlags) options(mode string) (run.PlanOptions, error) {
	o := run.PlanOptions{Mode: mode, NoRefresh: !f.refresh, AllowQuorumLoss: f.quorumLoss, AllowBrokenGuarantee: f.broken, Pairs: f.pairs, Parallelism: f.parallelism,
		NoLock: !f.lock, LockTimeout: f.lockTimeout}
	if f.parallelism < 1 {
		return o, fmt.Errorf("--parallelism is at least 1, not %d", f.parallelism)
	}
	for _, list := range []struct {
		flag  string
		texts []string
		into  *[]addr.Address
	}{{"--replace", f.replace, &o.Replace}, {"--target", f.target, &o.Targets}, {"--exclude", f.exclude, &o.Excludes}} {
		for _, text := range list.texts {
			parse := addr.ParseTarget
			if list.flag == "--replace" {
				parse = addr.Parse
			}
			at, err := parse(text)
			if err != nil {
				return o, fmt.Errorf("%s: %w", list.flag, err)
			}
			*list.into = append(*list.into, at)
		}
	}
	if f.refreshOnly {
		o.Mode = planner.ModeRefreshOnly
	}
	partly := len(o.Targets)+len(o.Excludes) > 0
	switch {
	case len(o.Targets) > 0 && len(o.Excludes) > 0:
		return o, hint(errors.New("--target and --exclude can't be used together"), "Name what is to be done, or what is to be left.")
	case partly && mode == planner.ModeDestroy:
		return o, hint(errors.New("--destroy takes the whole cluster down: --target and --exclude can't be used with it"),
			"To take a part away, take its blocks out of the definition, and plan with --target.")
	case len(o.Replace) > 0 && mode == planner.ModeDestroy:
		return o, errors.New("--replace can't be used with --destroy: what is taken down is not made again")
	case f.refreshOnly && mode == planner.ModeDestroy:
		return o, errors.New("--refresh-only can't be used with --destroy: one changes nothing, the other takes everything down")
	case f.refreshOnly && !f.refresh:
		return o, errors.New("--refresh-only can't be used with --refresh=false: it would do nothing")
	case f.refreshOnly && len(o.Replace) > 0:
		return o, errors.New("--refresh-only can't be used with --replace: it changes nothing but the state")
	}
	return o, nil
}

func (a *app) planCommand() *cobra.Command {
	var f planFlags
	var detailed, destroy bool
	var out, generate string
	c := &cobra.Command{
		Use:   "plan [DIR]",
		Short: "Show what an apply would do",
		Long: long(`
Plan compares the definition with the state and with what the machines really are,
and shows what would change, in which order, and what that does to quorum and
availability. It touches nothing. With --out it saves the plan: apply FILE then does
exactly that, or refuses because the world has moved on.`, helpDone+"; with --detailed-exitcode: nothing to do", helpError, helpChanges, helpGuarantee, helpLocked, helpQuorum, helpInterrupted),
		Example: "  clusterplan plan examples/quickstart\n  clusterplan plan --json --detailed-exitcode\n  clusterplan plan --out change.plan && clusterplan apply change.plan",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			mode := planner.ModeNormal
			if destroy {
				mode = planner.ModeDestroy
			}
			o, err := f.options(mode)
			if err != nil {
				return err
			}
			if f.record = out != ""; f.record {
				if err := run.CanSave(out); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("ref") && f.ref == "" {
				return hint(errors.New("--ref is empty"), "Name a branch, a tag or a commit.")
			}
			if o.GenerateOut = generate; generate != "" {
				if f.ref != "" {
					return errors.New("--generate-config-out can't be used with --ref: it writes into the directory, which is another version")
				}
				if destroy || f.refreshOnly {
					return errors.New("--generate-config-out can't be used with --destroy and --refresh-only: they import nothing")
				}
				if err := run.CanGenerate(dirArg(args), generate); err != nil {
					return err
				}
			}
			s, err := a.open(dirArg(args), &f)
			if err != nil {
				return err
			}
			defer s.Close()
			if f.ref != "" && !f.asJSON {
				a.asOf(f.ref, s)
			}
			burst.Planning(s.Config.Size())
			o.Only = true
			p, err := s.Plan(ctx, o)
			return a.planned(s, p, o, err, planOutput{out, f.asJSON, detailed})
		},
	}
	f.register(c, false)
	a.completeAddresses(c)
	c.Flags().BoolVar(&destroy, "destroy", false, "plan to take everything down")
	c.Flags().BoolVar(&detailed, "detailed-exitcode", false, "exit with 2 where there are changes or drift")
	c.Flags().StringVar(&f.ref, "ref", "", "plan the definition as of `REV`, a revision of its git repository: a branch, a tag, a commit, HEAD~2")
	c.Flags().StringVar(&out, "out", "", "save the plan to `FILE`, for apply FILE and show FILE")
	c.Flags().StringVar(&generate, "generate-config-out", "", "write blocks for what import blocks name and the definition doesn't have to `FILE`, a new one of the definition")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object (docs/json.md)")
	return c
}

// planOutput is what is to become of a plan.
type planOutput struct {
	out      string // file to save it to; "": none
	asJSON   bool
	detailed bool // exit with 2 where there is something to do
}

// planned shows a plan, and saves it. err is what was wrong with it.
func (a *app) planned(s *run.Session, p *run.Planned, o run.PlanOptions, err error, to planOutput) error {
	if to.asJSON {
		if perr := a.planJSON(s, p, err); perr != nil {
			return perr
		}
		if err != nil && isDiagnostics(err) {
			return status(exitCode(err, false))
		}
	} else if p != nil && p.Plan != nil {
		if err == nil {
			a.errStyle.Diagnostics(a.err, p.Diags, s.Config.Files())
		}
		if perr := a.style.Plan(a.out, p.Plan); perr != nil {
			return perr
		}
	}
	if err != nil {
		return err
	}
	if to.out != "" {
		complete(s, p)
		if err := a.save(s, p, o, to.out, to.asJSON); err != nil {
			return err
		}
	}
	if to.detailed && (p.Plan.Summary.Any() || len(p.Plan.OutputChanges) > 0 || len(p.Plan.Drift) > 0) {
		return status(exitChanges)
	}
	return nil
}

// completeAddresses has the shell complete the flags that take an address.
func (a *app) completeAddresses(c *cobra.Command) {
	for _, flag := range []string{"replace", "target", "exclude"} {
		_ = c.RegisterFlagCompletionFunc(flag, a.complete(completeFlag))
	}
}

func isDiagnostics(err error) bool {
	var d *view.DiagnosticsError
	return errors.As(err, &d)
}

// planJSON writes a plan; of one that could not be made its diagnostics, or what
// else was in the way.
func (a *app) planJSON(s *run.Session, p *run.Planned, err error) error {
	if p != nil && p.Plan != nil {
		complete(s, p)
		return view.JSON(a.out, p.Plan)
	}
	if err == nil {
		return nil
	}
	diags := []planner.Diagnostic{view.ErrorDiagnostic(err)}
	var d *view.DiagnosticsError
	if errors.As(err, &d) {
		diags = view.JSONDiagnostics(d.Diags, d.Files)
	}
	return view.JSON(a.out, map[string]any{"format_version": planner.FormatVersion, "complete": false, "applyable": false, "errored": true,
		"diagnostics": diags})
}

// complete gives a plan's JSON all diagnostics, the definition's as well.
func complete(s *run.Session, p *run.Planned) {
	p.Plan.Diagnostics = view.JSONDiagnostics(p.Diags, s.Config.Files())
	p.Plan.Errored = p.Diags.HasErrors()
}

func (a *app) open(dir string, f *planFlags) (*run.Session, error) {
	inputs, err := f.vars.inputs(f.ref != "")
	if err != nil {
		return nil, err
	}
	return run.Open(dir, run.Options{Version: Version, Stop: a.stop, Tell: a.tell, Passphrase: a.passphrase(), Vars: inputs, Record: f.record, Ref: f.ref})
}

// tell says what a command waits for.
func (a *app) tell(text string) { fmt.Fprintln(a.err, view.Tame(text)) }

func (a *app) applyCommand() *cobra.Command {
	return a.applying("apply [DIR or PLANFILE]", "Do what plan shows", `
Apply plans, asks, and does it, as much at once as can be. What is done is written
down step by step: an apply that is interrupted, or killed, is gone on with by the
next. The first Ctrl-C finishes what is under way, the second cancels it. Hosts that
lack something are told of before anything is touched, all at once, as doctor does.

With a file that plan --out wrote, apply does what that plan showed and asks
nothing. It reads no directory of a definition. Where the state or the cluster is
another one by now, it changes nothing and exits with 5.`,
		"  clusterplan apply examples/quickstart\n  clusterplan apply --auto-approve --json\n  clusterplan apply change.plan", planner.ModeNormal)
}

func (a *app) destroyCommand() *cobra.Command {
	return a.applying("destroy [DIR]", "Take everything down", `
Destroy stops the cluster's groups and agents and removes all that apply has made.
To take down a part, take its blocks out of the definition, and apply.`,
		"  clusterplan destroy examples/quickstart", planner.ModeDestroy)
}

func (a *app) applying(use, short, text, example, mode string) *cobra.Command {
	var f planFlags
	var auto, destroy bool
	what := "the definition's directory"
	codes := []string{helpDone, helpError + "; what was done before it is kept", helpLocked, helpQuorum, helpInterrupted + ", what was under way is told"}
	if mode == planner.ModeNormal {
		what += ", or a plan file"
		codes = slices.Insert(codes, 3, helpStale)
		codes = slices.Insert(codes, 2, helpGuarantee)
	}
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Long: long(text, codes...),
		Args: atMost(1, what),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode := mode
			if destroy {
				mode = planner.ModeDestroy
			}
			o, err := f.options(mode)
			if err != nil {
				return err
			}
			if o.NoLock {
				return fmt.Errorf("--lock=false is for plan only: two applies at once would undo one another")
			}
			if cmd.Flags().Lookup("destroy") != nil { // destroy takes no file
				if file, err := planFileArg(args); err != nil {
					return err
				} else if file != "" {
					return a.applyFile(cmd, file, &f)
				}
			}
			s, err := a.open(dirArg(args), &f)
			if err != nil {
				return err
			}
			defer s.Close()
			if !auto && !a.canAsk() {
				return hint(fmt.Errorf("%s asks before it does anything, and there is no terminal to ask on", cmd.CommandPath()),
					"Use --auto-approve to go on without a question.")
			}
			if f.asJSON && !auto {
				return hint(fmt.Errorf("--json can't ask"), "Use --auto-approve with it.")
			}
			return a.apply(cmd, s, run.ApplyOptions{PlanOptions: o}, f.asJSON, auto)
		},
	}
	f.register(c, mode == planner.ModeDestroy)
	if mode != planner.ModeDestroy {
		a.completeAddresses(c)
		c.Flags().BoolVar(&destroy, "destroy", false, "take everything down, as destroy does")
		c.Flags().BoolVar(&f.broken, "allow-broken-guarantee", false, "apply although a guarantee does not hold after it; the state records which")
	}
	c.Flags().BoolVar(&auto, "auto-approve", false, "don't ask")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print a JSON object an event; asks for --auto-approve")
	return c
}

func (a *app) apply(cmd *cobra.Command, s *run.Session, o run.ApplyOptions, asJSON, auto bool) error {
	progress := view.NewProgress(a.out, a.style, asJSON)
	progress.Version(Version)
	go progress.Run()
	defer progress.Close()
	go a.tellInterrupt(cmd)
	o.Stop, o.Events = a.stop, progress.Event
	o.Approve = func(p *run.Planned) (bool, error) {
		a.warn(p.Diags, s, progress, asJSON)
		if asJSON {
			return true, nil
		}
		if o.File != nil { // it was reviewed; what is done is told as it is done
			_, err := fmt.Fprintln(a.out, a.style.Summary(p.Plan))
			return true, err
		}
		if err := a.style.Plan(a.out, p.Plan); err != nil {
			return false, err
		}
		fmt.Fprintln(a.out)
		if auto {
			return true, nil
		}
		question := "Do this?"
		switch o.Mode {
		case planner.ModeDestroy:
			question = "Destroy all of this? It can't be undone."
		case planner.ModeRefreshOnly:
			question = "Have the state say so? Nothing else is changed."
		}
		return a.confirm(question, "--auto-approve")
	}
	applied, err := s.Apply(cmd.Context(), o)
	if applied != nil && applied.InPlain {
		fmt.Fprintf(a.err, "The cluster's keys lie in %s, which its owner alone can read, and are not encrypted. An encryption block in the definition encrypts them.\n", s.Store.Path())
	}
	if applied != nil && applied.Took != "" {
		fmt.Fprintf(a.err, "The lock of a run by %s that ended without giving it back was taken over.\n", view.Tame(applied.Took))
	}
	if applied != nil && applied.Kept != nil {
		fmt.Fprintf(a.err, "Warning: %s\n", view.Tame(applied.Kept.Error()))
	}
	switch {
	case err != nil && isDiagnostics(err):
		if asJSON {
			var d *view.DiagnosticsError
			errors.As(err, &d)
			for _, one := range view.JSONDiagnostics(d.Diags, d.Files) {
				progress.Diagnostic(one)
			}
			return status(exitCode(err, false))
		}
		if applied != nil && applied.Planned != nil && applied.Planned.Plan != nil {
			_ = a.style.Plan(a.out, applied.Planned.Plan)
		}
		return err
	case applied == nil || applied.Result == nil && err != nil:
		if asJSON && err != nil {
			progress.Diagnostic(view.ErrorDiagnostic(err))
		}
		return err
	case applied.Refused:
		if err == nil {
			err = errors.New("not done: only yes is taken for yes")
		}
		return err
	case applied.Nothing:
		return a.nothing(applied, s, progress, asJSON, o.Mode)
	}
	return errors.Join(a.outcome(applied, s, progress, asJSON, o.Mode), err)
}

func (a *app) warn(diags hcl.Diagnostics, s *run.Session, progress *view.Progress, asJSON bool) {
	if !asJSON {
		a.errStyle.Diagnostics(a.err, diags, s.Config.Files())
		return
	}
	for _, one := range view.JSONDiagnostics(diags, s.Config.Files()) {
		progress.Diagnostic(one)
	}
}

// nothing ends an apply that had nothing to do.
func (a *app) nothing(applied *run.Applied, s *run.Session, progress *view.Progress, asJSON bool, mode string) error {
	if applied.Planned != nil {
		a.warn(applied.Planned.Diags, s, progress, asJSON)
	}
	if asJSON {
		summary := planner.Summary{}
		if applied.Planned != nil {
			summary = applied.Planned.Plan.Summary
		}
		progress.Event(apply.Event{Type: apply.EventSummary, Time: time.Now(), Summary: summary})
		if applied.Planned != nil {
			progress.Checks(slices.DeleteFunc(slices.Clone(applied.Planned.Plan.Checks), func(c planner.Check) bool { return c.Kind != planner.CheckBlock }))
		}
		progress.Outputs(view.OutputValues(s.Snap.State.Outputs))
		return nil
	}
	if applied.Planned == nil || mode == planner.ModeDestroy && !applied.Planned.Plan.Summary.Any() {
		_, err := fmt.Fprintln(a.out, "There is nothing to destroy.")
		return err
	}
	if err := a.style.Plan(a.out, applied.Planned.Plan); err != nil {
		return err
	}
	if d := applied.Recorded; d != nil {
		text := "The state records this apply."
		if len(d.Broken) > 0 {
			text = "The state records this apply, and that it did not hold then: guarantee " + strings.Join(d.Broken, ", guarantee ") + "."
		}
		_, err := fmt.Fprintf(a.out, "\n%s\n", text)
		return err
	}
	return nil
}

// outcome tells what became of an apply, and what can be done next.
func (a *app) outcome(applied *run.Applied, s *run.Session, progress *view.Progress, asJSON bool, mode string) error {
	res := applied.Result
	var errs []error
	for _, failed := range res.Failed {
		var conditions *apply.ConditionError
		if errors.As(failed.Err, &conditions) { // they say where they stand
			for _, d := range view.JSONDiagnostics(conditions.Diags, s.Config.Files()) {
				progress.Diagnostic(d)
			}
			errs = append(errs, &view.DiagnosticsError{Diags: conditions.Diags, Files: s.Config.Files()})
			continue
		}
		what := failed.Action
		if failed.Phase != "" {
			what += ", " + failed.Phase
		}
		if failed.Addr.Type == "" { // the way there, not an object
			errs = append(errs, failed.Err)
			continue
		}
		if failed.Action == "" { // no object's: the wait for a quorum
			errs = append(errs, failed.Err)
			continue
		}
		errs = append(errs, fmt.Errorf("%s (%s): %w", failed.Addr, what, failed.Err))
	}
	if asJSON {
		for _, d := range view.JSONDiagnostics(applied.CheckDiags, s.Config.Files()) {
			progress.Diagnostic(d)
		}
		progress.Checks(applied.Checks)
		if res.Interrupted {
			progress.Diagnostic(view.ErrorDiagnostic(hint(run.ErrInterrupted, "What is done is kept. Apply again to go on from here.")))
		}
		progress.Outputs(view.OutputValues(res.State.Outputs))
	} else {
		out, style := a.out, a.style
		if a.unread() {
			out, style = a.err, a.errStyle
			fmt.Fprintln(out, "Nobody read what this run printed any more. It went on to its end.")
		}
		style.Outcome(out, res, mode)
		style.Unsettled(out, applied.Unsettled)
		a.errStyle.Diagnostics(a.err, applied.CheckDiags, s.Config.Files())
	}
	if res.Interrupted {
		a.told("Cut off, to be looked at by the next apply", addresses(res.Cancelled))
		a.told("Not begun", res.NotStarted)
		errs = append(errs, run.ErrInterrupted)
	}
	if len(res.Failed) == 0 && !res.Interrupted && !asJSON {
		if mode != planner.ModeNormal {
			return nil
		}
		return a.next(s)
	}
	if len(errs) == 0 {
		return nil
	}
	for _, err := range errs[:len(errs)-1] {
		if !errors.Is(err, run.ErrInterrupted) {
			a.errStyle.Error(a.err, err)
		}
	}
	last := errs[len(errs)-1]
	if errors.Is(last, run.ErrInterrupted) && len(res.Failed) > 0 {
		return status(exitError)
	}
	if !errors.Is(last, run.ErrInterrupted) {
		return hint(last, "What is done is kept. Mend the cause and apply again: it goes on from here.")
	}
	return hint(last, "What is done is kept. Apply again to go on from here.")
}

func addresses(failures []apply.Failure) []addr.Address {
	var list []addr.Address
	for _, f := range failures {
		list = append(list, f.Addr)
	}
	return list
}

// told lists what an interrupted run leaves.
func (a *app) told(what string, left []addr.Address) {
	if len(left) == 0 {
		return
	}
	names := make([]string, len(left))
	for i := range left {
		names[i] = left[i].String()
	}
	fmt.Fprintf(a.err, "%s: %s\n", what, strings.Join(names, ", "))
}

// next says how to look at the cluster, break it and remove it.
func (a *app) next(s *run.Session) error {
	dir := a.fromStart(s.Dir)
	if dir == "." {
		dir = ""
	}
	return a.style.Next(a.out, program(), dir, s.Victim())
}

// fromStart is a path as it is called where the command was started, which
// --chdir has left since.
func (a *app) fromStart(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(a.chdir, path)
}

// program is how this program was called, for texts to be copied.
func program() string {
	if strings.Contains(os.Args[0], "/go-build") {
		return "go run ./cmd/clusterplan"
	}
	if !strings.Contains(os.Args[0], "/") || len(os.Args[0]) > 40 {
		return "clusterplan"
	}
	return shell.Quote(os.Args[0])
}

// tellInterrupt tells what the first interrupt does, until the command ends.
func (a *app) tellInterrupt(cmd *cobra.Command) {
	select {
	case <-a.stop:
		fmt.Fprintln(a.err, "\nInterrupted: finishing what is under way, nothing new is begun. Once more cancels that, too.")
	case <-cmd.Context().Done():
	}
}
