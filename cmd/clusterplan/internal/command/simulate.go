package command

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
)

func (a *app) simulateCommand() *cobra.Command {
	var f planFlags
	var fail []string
	c := &cobra.Command{
		Use:   "simulate [DIR] --fail WHAT...",
		Short: "Show what would happen if something failed",
		Long: long(`
Simulate shows what becomes of quorum, groups and guarantees if nodes, zones or the
quorum device are lost, all of them at once. It asks the running cluster where groups
are now, and touches nothing. What it shows is the definition's cluster: apply first
what is not applied.`, helpDone+", whatever would happen", helpError, "3    a guarantee that covers what fails would not hold", helpInterrupted),
		Example: "  clusterplan simulate examples/quickstart --fail node.n1\n  clusterplan simulate --fail zone.east --json\n  clusterplan simulate --refresh=false --fail n1 --fail device",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			if len(fail) == 0 {
				return hint(errors.New("simulate needs something that fails"), "Name a node, a zone (zone.NAME) or the quorum device (device) with --fail, as often as you like.")
			}
			s, err := a.open(dirArg(args), &f)
			if err != nil {
				return err
			}
			defer s.Close()
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
	c.Flags().StringArrayVar(&fail, "fail", nil, "what is lost: a node's address or name, zone.NAME, device; may be given often, all at once")
	c.Flags().BoolVar(&f.refresh, "refresh", true, "ask the cluster where groups are; --refresh=false takes the definition alone")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object (docs/json.md)")
	_ = c.RegisterFlagCompletionFunc("fail", func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		all, only := a.complete(completeFlag)(cmd, args, part)
		return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, "node.") }), only
	})
	return c
}
