package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

func (a *app) keysCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "keys",
		Short: "The key that nodes seal their frames with",
		Long: long(`
Nodes seal the frames that they exchange with a key of the cluster. Its subcommand
changes it.`, helpDone, helpError),
	}, a.keysRotateCommand())
}

func (a *app) keysRotateCommand() *cobra.Command {
	var reason, dir string
	var asJSON bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Change the key that nodes seal their frames with",
		Long: long(`
Rotate has the cluster take a new frame key, and waits until it is the only one.
The key is made by an agent and goes to nodes over mutual TLS alone. No group is
interrupted: first every node that answers gets it, then frames are sealed with it,
then the old one is refused. A node that is away meanwhile gets it when it comes
back, if it is still a member; one that was taken out is not heard any more.`,
			"0    the new key is the only one", "1    it could not be changed, or was not seen to be in time", helpInterrupted),
		Example: "  clusterplan keys rotate --reason 'n3 was taken out of service'",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			keys, err := s.RotateKeys(ctx, run.Order{Verb: "keys rotate", Reason: reason})
			if err != nil {
				return err
			}
			if asJSON {
				return view.JSON(a.out, keys)
			}
			_, err = fmt.Fprintf(a.out, "The frame key of generation %d is the only one.\n", keys.Generation)
			return err
		},
	}
	orderFlags(c, &reason, &dir, &asJSON)
	return c
}
