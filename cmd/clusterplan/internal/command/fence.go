package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

func (a *app) fenceCommand() *cobra.Command {
	var reason, dir string
	var asJSON, confirmed bool
	c := &cobra.Command{
		Use:   "fence NODE",
		Short: "Turn a node off by its fence, or say that it is off",
		Long: long(`
Fence has the cluster's leader turn a node off by the fence blocks that cover it,
and waits until that is verified or has failed. What the node owned is free then.

With --confirmed-off it is your word that the node is off: you have seen it
without power, or its programs ended. Nothing checks that; a node that runs all the
same makes two owners. It counts only for a node that is not up, and is recorded
with your name and --reason, which it needs.`, "0    the node is off", "1    it could not be fenced, or another error", helpInterrupted),
		Example: "  clusterplan fence n2\n  clusterplan fence n2 --confirmed-off --reason 'pulled both power cords'",
		Args:    exactly("a NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if confirmed && reason == "" {
				return errors.New("--confirmed-off is recorded with its reason; add --reason")
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			o := run.Order{Verb: "fence", Name: args[0], Reason: reason, Confirmed: confirmed}
			event, err := s.Fence(ctx, o)
			if err != nil {
				return err
			}
			if asJSON {
				return view.JSON(a.out, event)
			}
			_, err = fmt.Fprintln(a.out, view.Tame(event.Text))
			return err
		},
		ValidArgsFunction: a.complete("node"),
	}
	orderFlags(c, &reason, &dir, &asJSON)
	c.Flags().BoolVar(&confirmed, "confirmed-off", false, "the node is off: your word, recorded")
	return c
}
