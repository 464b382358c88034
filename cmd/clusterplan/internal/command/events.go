package command

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

func (a *app) eventsCommand() *cobra.Command {
	var asJSON, follow bool
	var last uint
	var why string
	c := &cobra.Command{
		Use:   "events [DIR]",
		Short: "Show what happened in the cluster, and why",
		Long: long(`
Events prints the cluster's event log, oldest first: who ordered what, which node
came and went, what was moved, and why. With --follow it goes on, and when the node
that it listens to dies or is cut off, with another one.

With --why it tells one story: how the newest event about a group, a resource or a
node came to be, from the root cause on, and what followed from it. The log keeps the
newest 2,000 events; a story whose beginning is gone says so.`, helpDone, helpError, helpInterrupted),
		Example: "  clusterplan events examples/quickstart --follow\n  clusterplan events --why group.web\n  clusterplan events --last 20 --json",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if why != "" && (follow || last > 0) {
				return errors.New("--why tells one story; leave out --follow and --last")
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.state(dirArg(args))
			if err != nil {
				return err
			}
			defer s.Close()
			if why != "" {
				story, err := s.Why(ctx, why)
				if err != nil {
					return err
				}
				if asJSON {
					return view.JSON(a.out, story)
				}
				return story.Write(a.out)
			}
			return s.Events(ctx, last, follow, func(e client.Event) error {
				if asJSON {
					return json.NewEncoder(a.out).Encode(e)
				}
				return a.style.Event(a.out, e)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line; with --why one object")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	c.Flags().UintVar(&last, "last", 0, "only the newest `N` events")
	c.Flags().StringVar(&why, "why", "", "tell how the newest event about `ADDR` came to be: group.web, node.n1, group.web.resource.server")
	return c
}
