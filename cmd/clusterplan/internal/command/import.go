package command

import (
	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/lang/addr"
)

func (a *app) importCommand() *cobra.Command {
	var e editing
	c := &cobra.Command{
		Use:   "import ADDRESS ID",
		Short: "Take into the state what is there",
		Long: long(`
Import takes an object that is there, and that the state does not have, into the
state: as ADDRESS, whose block the definition has to have. It keeps its id. A group
or a fence is found in the cluster's database by its name or its id, a group comes
with its resources; a node by its id, its directory, its address or its name. What
somebody else manages is clusterplan's from then on. Nothing that runs is touched:
clusterplan plan shows what an apply would change. The state as it was is kept beside
it. An import block in the definition does the same as a part of plan and apply.`, helpDone, helpError, helpLocked, helpInterrupted),
		Example: "  clusterplan import group.web web\n  clusterplan import 'node.n[\"a\"]' 127.0.0.1:21007",
		Args:    exactly("an ADDRESS", "an ID"),

		ValidArgsFunction: a.complete(completeImport),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := addr.Parse(args[0])
			if err != nil {
				return err
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			return a.edited(cmd, &e, func(s *run.Session) (*run.Edited, error) { return s.Import(ctx, to, args[1], e.options()) })
		},
	}
	e.flags(c)
	e.vars.flags(c)
	return c
}
