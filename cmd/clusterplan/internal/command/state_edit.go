package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// editing are the flags of what changes the state by hand.
type editing struct {
	dir    string
	asJSON bool
	wait   time.Duration
	dry    bool
	force  bool
	vars   variables // of import only: the others read no definition
}

func (e *editing) flags(c *cobra.Command) {
	dirFlag(c, &e.dir)
	c.Flags().BoolVar(&e.asJSON, "json", false, "print one JSON object")
	c.Flags().DurationVar(&e.wait, "lock-timeout", 0, "wait so long for a locked state, `5m` for example")
}

func (e *editing) options() run.EditOptions {
	return run.EditOptions{DryRun: e.dry, Force: e.force, LockTimeout: e.wait}
}

// edited opens the state's directory, has edit done, and shows what became of it.
func (a *app) edited(cmd *cobra.Command, e *editing, edit func(*run.Session) (*run.Edited, error)) error {
	inputs, err := e.vars.inputs(false)
	if err != nil {
		return err
	}
	s, err := run.Open(e.dir, run.Options{Version: Version, Stop: a.stop, Vars: inputs, Tell: a.tell})
	if err != nil {
		return err
	}
	defer s.Close()
	out, err := edit(s)
	if err != nil {
		return err
	}
	done := view.StateEdit{Moved: out.Moved, Removed: out.Removed, Imported: out.Imported, Serial: out.State.Serial, Objects: len(out.State.Objects),
		Backup: out.Backup, DryRun: e.dry, Same: out.Same, Pushed: cmd.Name() == "push"}
	if e.asJSON {
		return done.JSON(a.out)
	}
	return a.style.StateEdit(a.out, done)
}

func (a *app) stateMvCommand() *cobra.Command {
	var e editing
	c := &cobra.Command{
		Use:   "mv SOURCE DESTINATION",
		Short: "Give an object of the state another address",
		Long: long(`
Mv tells the state that the definition calls an object otherwise now: the next
apply goes on with it instead of deleting it and making another. It keeps its id.
A group takes its resources with it; a block with instances takes all of them;
a module takes all that it holds.
Nothing that runs is touched. The state as it was is kept beside it.`, helpDone, helpError, helpLocked),
		Example: "  clusterplan state mv group.web group.site\n  clusterplan state mv node.n1 'node.n[\"a\"]'\n  clusterplan state mv --dry-run node.n node.member",
		Args:    exactly("a SOURCE", "a DESTINATION"),

		ValidArgsFunction: a.complete(completeMove),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := addr.ParseTarget(args[0])
			if err != nil {
				return err
			}
			to, err := addr.ParseTarget(args[1])
			if err != nil {
				return err
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			return a.edited(cmd, &e, func(s *run.Session) (*run.Edited, error) { return s.MoveState(ctx, from, to, e.options()) })
		},
	}
	e.flags(c)
	c.Flags().BoolVar(&e.dry, "dry-run", false, "say what would be moved, and do nothing")
	return c
}

func (a *app) stateRmCommand() *cobra.Command {
	var e editing
	c := &cobra.Command{
		Use:   "rm ADDRESS...",
		Short: "Have the state forget objects",
		Long: long(`
Rm has the state forget objects, which go on as they are: nothing manages them any
more. To take something down, take it out of the definition and apply. A group is
forgotten with its resources. The state as it was is kept beside it; clusterplan
state push --force brings it back.`, helpDone, helpError, helpLocked),
		Example: "  clusterplan state rm group.web\n  clusterplan state rm --dry-run 'node.n[\"a\"]' 'node.n[\"b\"]'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return hint(fmt.Errorf("the command %s takes one ADDRESS or more", cmd.CommandPath()), "clusterplan state list shows what there is.")
			}
			return nil
		},
		ValidArgsFunction: a.complete(completeSome),
		RunE: func(cmd *cobra.Command, args []string) error {
			which, err := parseAll(args)
			if err != nil {
				return err
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			return a.edited(cmd, &e, func(s *run.Session) (*run.Edited, error) { return s.RemoveState(ctx, which, e.options()) })
		},
	}
	e.flags(c)
	c.Flags().BoolVar(&e.dry, "dry-run", false, "say what would be forgotten, and do nothing")
	return c
}

func parseAll(args []string) ([]addr.Address, error) {
	var out []addr.Address
	for _, arg := range args {
		at, err := addr.ParseTarget(arg)
		if err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

func (a *app) statePullCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "pull",
		Short: "Print the state as it is stored",
		Long: long(`
Pull prints the whole state as JSON, with the cluster's keys: whoever has that may
give the cluster orders. It is what push takes. Of what an interrupted apply did,
all that is known is in it.`, helpDone, helpError),
		Example: "  clusterplan state pull > state.json",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop, Tell: a.tell})
			if err != nil {
				return err
			}
			defer s.Close()
			data, snap, err := s.PullState(ctx)
			if err != nil {
				return err
			}
			switch {
			case data == nil:
				fmt.Fprintf(a.err, "There is no state yet in %s.\n", s.Store.Path())
			case len(snap.Pending) > 0:
				fmt.Fprintf(a.err, "%s An apply was cut off, and what became of %s (%d in all) is not known: that is not in what is printed. clusterplan apply settles it.\n",
					a.errStyle.Yellow("Warning:"), snap.Pending[0].Addr, len(snap.Pending))
			}
			_, err = a.out.Write(data)
			return err
		},
	}
	dirFlag(c, &dir)
	return c
}

func (a *app) statePushCommand() *cobra.Command {
	var e editing
	c := &cobra.Command{
		Use:   "push FILE",
		Short: "Take a file for the state",
		Long: long(`
Push makes a file that pull has printed, or a backup, the state; - reads stdin. It
has to continue the state that is there: of the same lineage, and not older. One
that was changed since it was written is refused; --force takes any state that can
be used. The state as it was is kept beside it.`, helpDone, helpError, helpLocked),
		Example: "  clusterplan state push state.json\n  clusterplan state push --force .clusterplan/state.json.7.backup",
		Args:    exactly("a FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, data, err := run.ReadPushed(args[0], a.in)
			if err != nil {
				return err
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			return a.edited(cmd, &e, func(s *run.Session) (*run.Edited, error) { return s.PushState(ctx, name, data, e.options()) })
		},
	}
	e.flags(c)
	c.Flags().BoolVar(&e.force, "force", false, "replace the state whatever its lineage and serial are, also by one that was edited")
	return c
}
