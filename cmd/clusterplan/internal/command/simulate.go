package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
)

func (a *app) simulateCommand() *cobra.Command {
	var f planFlags
	var fail, scenarios []string
	var junit string
	c := &cobra.Command{
		Use:   "simulate [DIR] {--fail WHAT... | --scenario FILE...}",
		Short: "Show what would happen if something failed",
		Long: long(`
Simulate shows what becomes of quorum, groups and guarantees if nodes, zones or the
quorum device are lost, all of them at once. It asks the running cluster where groups
are now, and touches nothing. What it shows is the definition's cluster: apply first
what is not applied.

With --scenario it carries out the scenarios of files (*.scenario.hcl): faults,
repairs, waits and an operator's orders, one after the other, with what has to be
true after each. They run in virtual time on a simulated cluster of the definition,
by the code that the agents run; the running cluster is not asked. docs/scenarios.md
has the language.`, helpDone+", whatever would happen", helpError+"; an expectation of a scenario was not met", "3    a guarantee that covers what fails would not hold", helpInterrupted),
		Example: "  clusterplan simulate examples/quickstart --fail node.n1\n  clusterplan simulate --fail zone.east --json\n  clusterplan simulate --refresh=false --fail n1 --fail device\n  clusterplan simulate --scenario tests/ --junit scenarios.xml",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			switch {
			case len(scenarios) > 0 && len(fail) > 0:
				return hint(errors.New("--fail and --scenario can't be used together"), "A scenario says itself what fails: lose = [node.NAME].")
			case len(scenarios) == 0 && junit != "":
				return hint(errors.New("--junit is about scenarios"), "Name them with --scenario.")
			case len(fail) == 0 && len(scenarios) == 0:
				return hint(errors.New("simulate needs something that fails"), "Name a node, a zone (zone.NAME) or the quorum device (device) with --fail, as often as you like; or a scenario file with --scenario.")
			}
			s, err := a.open(dirArg(args), &f)
			if err != nil {
				return err
			}
			defer s.Close()
			if len(scenarios) > 0 {
				return a.simulateScenarios(ctx, s, scenarios, junit, f.asJSON)
			}
			sim, diags, err := s.Simulate(ctx, run.SimulateOptions{Fail: fail, NoRefresh: !f.refresh})
			var bad *view.DiagnosticsError
			if f.asJSON && errors.As(err, &bad) {
				return errors.Join(view.JSON(a.out, map[string]any{"format_version": planner.FormatVersion, "diagnostics": view.JSONDiagnostics(bad.Diags, bad.Files)}), status(exitError))
			}
			if err != nil {
				return err
			}
			if f.asJSON {
				err = view.JSON(a.out, sim)
			} else {
				a.errStyle.Diagnostics(a.err, diags, s.Config.Files())
				err = a.style.Simulation(a.out, sim)
			}
			if err == nil && sim.Broken() {
				return status(exitGuarantee)
			}
			return err
		},
	}
	f.vars.flags(c)
	c.Flags().StringArrayVar(&scenarios, "scenario", nil, "a scenario `FILE`, or a directory with *.scenario.hcl; may be given often")
	c.Flags().StringVar(&junit, "junit", "", "write the scenarios' results to `FILE`, as JUnit's XML")
	c.Flags().StringArrayVar(&fail, "fail", nil, "`WHAT` is lost: a node's address or name, zone.NAME, device; may be given often, all at once")
	c.Flags().BoolVar(&f.refresh, "refresh", true, "ask the cluster where groups are; --refresh=false takes the definition alone")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object (docs/json.md)")
	_ = c.RegisterFlagCompletionFunc("fail", func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		all, only := a.complete(completeFlag)(cmd, args, part)
		return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, "node.") }), only
	})
	return c
}

// simulateScenarios is simulate --scenario.
func (a *app) simulateScenarios(ctx context.Context, s *run.Session, paths []string, junit string, asJSON bool) error {
	results, diags, err := s.Scenarios(ctx, paths)
	var bad *view.DiagnosticsError
	if asJSON && errors.As(err, &bad) {
		return errors.Join(view.JSON(a.out, map[string]any{"format_version": planner.FormatVersion, "diagnostics": view.JSONDiagnostics(bad.Diags, bad.Files)}), status(exitError))
	}
	if err != nil {
		return err
	}
	if junit != "" {
		text, err := results.JUnit()
		if err != nil {
			return fmt.Errorf("write %s: %w", junit, err)
		}
		if err := os.WriteFile(junit, text, 0o666); err != nil {
			return fmt.Errorf("write JUnit file: %w", err)
		}
	}
	if asJSON {
		err = view.JSON(a.out, results)
	} else {
		a.errStyle.Diagnostics(a.err, diags, s.Config.Files())
		err = a.style.Scenarios(a.out, results)
	}
	if err == nil && results.Summary.Failed > 0 {
		return status(exitError)
	}
	return err
}
