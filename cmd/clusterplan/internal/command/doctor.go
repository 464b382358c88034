package command

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/planner"
)

func (a *app) doctorCommand() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "doctor [DIR]",
		Short: "Tell what hosts lack for a definition",
		Long: long(`
Doctor looks at everything that a definition needs, before anything is touched, and
tells of all of it at once: whether the state and the hosts can be reached and logged
into, and on them rights, disk space, architecture, clocks, ports, kernel features,
watchdogs, fence agents and the programs that resources run, with what to install or
allow where something is missing. It changes nothing and takes no lock.`,
			"0    nothing fails, though there may be warnings", "1    something fails, or another error", helpInterrupted),
		Example: "  clusterplan doctor\n  clusterplan doctor --json examples/quickstart",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.open(dirArg(args), &f)
			if err != nil {
				return err
			}
			defer s.Close()
			e, err := s.Doctor(ctx)
			var bad *view.DiagnosticsError
			if f.asJSON && errors.As(err, &bad) {
				return errors.Join(view.JSON(a.out, map[string]any{"format_version": planner.FormatVersion, "diagnostics": view.JSONDiagnostics(bad.Diags, bad.Files)}), status(exitError))
			}
			if err != nil {
				return err
			}
			if f.asJSON {
				err = view.JSON(a.out, e)
			} else {
				a.errStyle.Diagnostics(a.err, s.Diags, s.Config.Files())
				err = a.style.Examination(a.out, e)
			}
			if err == nil && !e.Healthy {
				return status(exitError)
			}
			return err
		},
	}
	f.vars.flags(c)
	c.Flags().BoolVar(&f.asJSON, "json", false, "print one JSON object (docs/json.md)")
	return c
}
