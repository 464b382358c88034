package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
)

func (a *app) logCommand() *cobra.Command {
	var dir string
	var asJSON bool
	var last int
	c := &cobra.Command{
		Use:   "log",
		Short: "Show which revisions were applied, by whom and when",
		Long: long(`
Log lists the applies that the state knows of, the newest first: when, who, which
git revision of the definition (+changes: with files that were not committed), how
many objects each set out to change, and what became of it. The state keeps the
last 1,000.`, helpDone, helpError),
		Example: "  clusterplan log\n  clusterplan log --last 5 --json --dir infra/prod",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 0 {
				return fmt.Errorf("--last is at least 0, not %d", last)
			}
			s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop})
			if err != nil {
				return err
			}
			defer s.Close()
			ctx, done := a.abortable(cmd.Context())
			defer done()
			list, err := s.Log(ctx)
			if err != nil {
				return err
			}
			if last > 0 && len(list) > last {
				list = list[:last]
			}
			if asJSON {
				return view.LogJSON(a.out, list)
			}
			return a.style.Log(a.out, list)
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "the definition's `DIR`")
	c.Flags().IntVar(&last, "last", 0, "show the newest `N` only; 0: all")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	return c
}

func (a *app) diffCommand() *cobra.Command {
	var dir string
	var asJSON bool
	var vars variables
	c := &cobra.Command{
		Use:   "diff REV1 REV2",
		Short: "Put two revisions of a definition side by side",
		Long: long(`
Diff reads the definition as of two git revisions and shows in which objects they
differ, and which failures of nodes, zones and the quorum device do something else.
It looks at no state and no machine.`, helpDone, helpError),
		Example: "  clusterplan diff v1.2 HEAD\n  clusterplan diff HEAD~1 HEAD --dir infra/prod --json",
		Args:    exactly("the older revision", "the newer one"),
		RunE: func(_ *cobra.Command, args []string) error {
			inputs, err := vars.inputs(true)
			if err != nil {
				return err
			}
			c, diags, err := run.Compare(dir, args[0], args[1], run.Options{Version: Version, Stop: a.stop, Vars: inputs, Tell: a.tell})
			if err != nil {
				return err
			}
			if asJSON {
				return view.JSON(a.out, c)
			}
			a.errStyle.Diagnostics(a.err, diags, nil)
			return a.style.Compare(a.out, c)
		},
	}
	c.Flags().StringVar(&dir, "dir", ".", "the definition's `DIR`")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	vars.flags(c)
	return c
}

func (a *app) rollbackCommand() *cobra.Command {
	var f planFlags
	var dir, out string
	var auto, allowDelete bool
	c := &cobra.Command{
		Use:   "rollback REV",
		Short: "Go back to a revision that was applied before",
		Long: long(`
Rollback plans the definition as of a git revision that was applied to this cluster
before, with the variables of that apply, shows the plan, asks, and does it. Objects
that were renamed since (moved blocks, state mv) get their old addresses and keep
their ids. Sensitive variables have to be given again. Groups that came since are
deleted only with --allow-delete. The directory's files stay as they are: the next
apply goes forward again, unless git revert comes before it.`,
			helpDone, helpError+"; what was done before it is kept", helpGuarantee, helpLocked, helpQuorum, helpInterrupted),
		Example: "  clusterplan log\n  clusterplan rollback HEAD~1\n  clusterplan rollback v1.4 --out back.plan && clusterplan apply back.plan",
		Args:    exactly("the revision to go back to"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(planner.ModeNormal)
			if err != nil {
				return err
			}
			o.AllowDelete = allowDelete
			if f.record = out != ""; f.record {
				if err := run.CanSave(out); err != nil {
					return err
				}
			} else if o.NoLock {
				return errors.New("--lock=false is for --out only: two applies at once would undo one another")
			}
			inputs, err := f.vars.inputs(true)
			if err != nil {
				return err
			}
			looks, looked := a.abortable(cmd.Context())
			s, err := run.Rollback(looks, dir, args[0], run.Options{Version: Version, Stop: a.stop, Tell: a.tell, Vars: inputs, Record: f.record})
			looked()
			if err != nil {
				return err
			}
			defer s.Close()
			if !f.asJSON {
				a.asOf(args[0], s)
			}
			if out == "" {
				if !auto && !a.canAsk() {
					return hint(fmt.Errorf("%s asks before it does anything, and there is no terminal to ask on", cmd.CommandPath()),
						"Use --auto-approve to go on without a question, or --out to save the plan.")
				}
				if f.asJSON && !auto {
					return hint(errors.New("--json can't ask"), "Use --auto-approve with it.")
				}
				return a.apply(cmd, s, run.ApplyOptions{PlanOptions: o}, f.asJSON, auto)
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			p, err := s.Plan(ctx, o)
			return a.planned(s, p, o, err, planOutput{out: out, asJSON: f.asJSON})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&dir, "dir", ".", "the definition's `DIR`")
	c.Flags().BoolVar(&f.quorumLoss, "allow-quorum-loss", false, "allow steps that leave the cluster without quorum")
	f.pairsFlag(c)
	c.Flags().BoolVar(&f.broken, "allow-broken-guarantee", false, "go back although a guarantee does not hold after it; the state records which")
	c.Flags().BoolVar(&allowDelete, "allow-delete", false, "delete groups that came since")
	c.Flags().StringVar(&out, "out", "", "save the plan to `FILE` and do nothing; apply FILE does it")
	c.Flags().BoolVar(&auto, "auto-approve", false, "don't ask")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print a JSON object an event, or with --out the plan's; without --out asks for --auto-approve")
	return c
}

// asOf says which revision a plan is of. What a commit is called others say.
func (a *app) asOf(rev string, s *run.Session) {
	at := s.At()
	fmt.Fprintf(a.out, "The definition as of %s: %.12s %s\n\n", rev, at.Hash, view.Tame(at.Subject))
}
