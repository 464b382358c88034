package command

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

// order is one operator's command: a write to the cluster's database with an
// author and a reason. That it is done means that it is committed.
func (a *app) order(use, short, text, example, kind, verb string) *cobra.Command {
	var reason, dir string
	var asJSON bool
	c := &cobra.Command{
		Use: use, Short: short,
		Long:    long(text, helpDone+": the order is committed", helpError),
		Example: example,
		Args:    exactly(map[string]string{"group": "a GROUP", "node": "a NODE"}[kind]),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := ""
			return a.give(cmd, run.Order{Verb: verb, Name: args[0], To: to, Reason: reason}, dir, asJSON)
		},
		ValidArgsFunction: a.complete(kind),
	}
	orderFlags(c, &reason, &dir, &asJSON)
	return c
}

func orderFlags(c *cobra.Command, reason, dir *string, asJSON *bool) {
	c.Flags().StringVar(reason, "reason", "", "why, for the event log and for plans")
	c.Flags().BoolVar(asJSON, "json", false, "print one JSON object")
	dirFlag(c, dir)
}

func (a *app) give(cmd *cobra.Command, o run.Order, dir string, asJSON bool) error {
	ctx, done := a.abortable(cmd.Context())
	defer done()
	s, err := a.state(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	answer, err := s.Give(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return view.JSON(a.out, answer)
	}
	_, err = fmt.Fprintf(a.out, "%s is committed as revision %d. To see what follows: clusterplan status\n", o, answer.Revision)
	return err
}

func (a *app) moveCommand() *cobra.Command {
	var reason, dir, confirmed string
	var asJSON bool
	c := &cobra.Command{
		Use:   "move GROUP [NODE]",
		Short: "Move a group to another node",
		Long: long(`
Move has a group go to NODE, or to the best of the others. The order is the
cluster's to carry out: the group is stopped where it is and started there.`, helpDone+": the order is committed", helpError),
		Example: "  clusterplan move web n2 --reason 'n1 gets new memory'",
		Args:    between("a GROUP", "a NODE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := run.Order{Verb: "move", Name: args[0], Reason: reason, ConfirmedOff: confirmed}
			if confirmed != "" && reason == "" {
				return errors.New("--confirmed-off is recorded with its reason; add --reason")
			}
			if len(args) == 2 {
				o.To = args[1]
			}
			return a.give(cmd, o, dir, asJSON)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			return a.complete([]string{"group", "node", ""}[min(len(args), 2)])(cmd, nil, part)
		},
	}
	orderFlags(c, &reason, &dir, &asJSON)
	c.Flags().StringVar(&confirmed, "confirmed-off", "", "the group's owner `NODE` is off: your word, recorded (see clusterplan fence)")
	return c
}

func (a *app) onlineCommand() *cobra.Command {
	return a.order("online GROUP", "Bring a group online", `
Online has a group run, also one that an operator took offline or that failed too often.`,
		"  clusterplan online web", "group", "online")
}

func (a *app) offlineCommand() *cobra.Command {
	return a.order("offline GROUP", "Take a group offline", `
Offline stops a group, first those that depend on it, until online is ordered.
A later apply keeps it offline unless the definition's persistent_state changes.`,
		"  clusterplan offline web --reason 'schema change'", "group", "offline")
}

func (a *app) pauseCommand() *cobra.Command {
	return a.order("pause NODE", "Let no group come to a node", `
Pause keeps a node from being given groups. Those that it has stay.`,
		"  clusterplan pause n2", "node", "pause")
}

func (a *app) drainCommand() *cobra.Command {
	return a.order("drain NODE", "Move everything away from a node", `
Drain pauses a node and moves its groups to others, one after the other.`,
		"  clusterplan drain n2 --reason 'kernel update'", "node", "drain")
}

func (a *app) resumeCommand() *cobra.Command {
	return a.order("resume NODE", "Give a paused or drained node groups again", `
Resume ends pause and drain: the node may be given groups again. Those that drain
moved away come back by their failback policy; where that is prevent (the
default), they stay and move brings them back.`,
		"  clusterplan resume n2", "node", "resume")
}

func (a *app) evictCommand() *cobra.Command {
	return a.order("evict NODE", "Take a dead or drained node out of the cluster for good", `
Evict takes a node that is down, or that was drained and owns nothing any more,
out of the cluster's membership: others take its groups as in any failover, then
its vote and its record go. It never takes the cluster below its quorum. What is
left on the node's host never votes again, should it come back.

The definition is not changed: take the node out of it as well, or the next apply
joins it again (a host that was replaced joins with an empty data directory, under
the same name or another).`,
		"  clusterplan evict n3 --reason 'its disk is gone'", "node", "evict")
}
