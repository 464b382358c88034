package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

func (a *app) statusCommand() *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use:   "status [DIR]",
		Short: "Show nodes, quorum, and what runs where",
		Long: long(`
Status asks the cluster for its state and every node for its processes. When no
agent answers it prints what the state knows, with every node unknown, and says why.`,
			helpDone, "1    no agent answers, or another error"),
		Example: "  clusterplan status examples/quickstart\n  clusterplan status --json | jq '.groups[] | {name, owner}'",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.state(dirArg(args))
			if err != nil {
				return err
			}
			defer s.Close()
			for {
				err = a.status(ctx, s, asJSON, watch)
				if !watch || errors.Is(err, run.ErrInterrupted) {
					return err
				}
				select {
				case <-ctx.Done():
					return run.ErrInterrupted
				case <-time.After(time.Second):
				}
			}
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	c.Flags().BoolVar(&watch, "watch", false, "go on, once a second, until interrupted")
	return c
}

func (a *app) status(ctx context.Context, s *run.Session, asJSON, watch bool) error {
	st, err := s.Status(ctx)
	if st == nil {
		return err
	}
	if asJSON {
		if watch { // a line each
			return errors.Join(json.NewEncoder(a.out).Encode(st), err)
		}
		return errors.Join(view.JSON(a.out, st), err)
	}
	if watch && a.style.Color {
		fmt.Fprint(a.out, "\x1b[H\x1b[2J")
	}
	if perr := a.style.Status(a.out, st); perr != nil {
		return perr
	}
	if err != nil && watch {
		fmt.Fprintln(a.out)
		a.style.Error(a.out, err)
	}
	return err
}

func (a *app) logsCommand() *cobra.Command {
	var follow, asJSON bool
	var bytes int64
	var dir string
	c := &cobra.Command{
		Use:   "logs GROUP[.RESOURCE]",
		Short: "Show what a group's programs print",
		Long: long(`
Logs prints the end of a resource's log from the node that owns the group. With
--follow it goes on, and goes with the group when that moves. Of a group with
several programs, name the resource: web.server.`, helpDone, helpError, helpInterrupted),
		Example: "  clusterplan logs web --follow\n  clusterplan --chdir examples/quickstart logs group.web.resource.server",
		Args:    exactly("GROUP or GROUP.RESOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			out := a.out
			if a.screen && !asJSON { // into a file or a program they go as they are
				out = view.TameWriter(out)
			}
			return s.Logs(ctx, args[0], bytes, follow, func(from run.LogSource) io.WriteCloser {
				if asJSON {
					return view.NewLogLines(out, from.Resource, from.Node)
				}
				return asIs{out}
			})
		},
		ValidArgsFunction: a.complete("group"),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	c.Flags().Int64Var(&bytes, "bytes", 64<<10, "begin with the last `N` bytes of the log")
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line (docs/json.md)")
	dirFlag(c, &dir)
	return c
}

// asIs is what a program prints, unchanged.
type asIs struct{ io.Writer }

func (asIs) Close() error { return nil }

// dirFlag is for commands whose arguments are names: --chdir would do as well.
func dirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", ".", "the definition's `DIR`")
}
