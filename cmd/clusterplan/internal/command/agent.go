package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/demo"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api"
)

func (a *app) agentCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "agent --dir DIR",
		Short: "Run a node's agent; apply does this",
		Long: long(`
Agent is the process of one node. Apply installs and starts it; run it by hand only
to see what it says. On SIGTERM it stops the groups that it owns, hands leadership
over, and exits.`, helpDone+": ended as it was told", helpError),
		Example: "  clusterplan agent --dir examples/quickstart/.clusterplan/nodes/n1",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() {
				<-a.stop
				cancel()
			}()
			return agent.Run(ctx, agent.Config{Dir: dir, API: api.Handler, Version: Version, Program: nodeProgram(dir)})
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "the node's `DIR`, which apply made")
	_ = c.MarkFlagRequired("dir")
	return c
}

// nodeProgram is the program by the name under which it is installed on the
// node: resources find `clusterplan` in the directory that it lies in. "" where
// it is not installed there.
func nodeProgram(dir string) string {
	abs, err := filepath.Abs(filepath.Join(dir, "bin", "clusterplan"))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(abs); err != nil {
		return ""
	}
	return abs
}

func (a *app) demoCommand() *cobra.Command {
	var listen string
	web := &cobra.Command{
		Use:     "web --listen ADDR",
		Short:   "Answer HTTP with the name of the node",
		Long:    long("Web answers every request with CLUSTERPLAN_NODE, the node that it runs on.", helpDone+": ended by a signal", helpError),
		Example: "  clusterplan demo web --listen 127.77.0.10:8077",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := a.untilStop(cmd.Context())
			defer done()
			return demo.Web(ctx, listen, a.out)
		},
	}
	web.Flags().StringVar(&listen, "listen", "127.0.0.1:8077", "`HOST:PORT` to answer at")
	worker := &cobra.Command{
		Use:     "worker",
		Short:   "Ask $URL once a second",
		Long:    long("Worker asks URL (from the environment) once a second and prints when the answer changes.\nWithout URL it waits: a program for groups that only have to be somewhere.", helpDone+": ended by a signal", helpError),
		Example: "  URL=http://127.77.0.10:8077/ clusterplan demo worker",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := a.untilStop(cmd.Context())
			defer done()
			return demo.Worker(ctx, os.Getenv("URL"), a.out)
		},
	}
	return group(&cobra.Command{Use: "demo", Short: "Small programs to try a cluster with"}, web, worker)
}

// untilStop is for programs whose end by a signal is their ordinary one.
func (a *app) untilStop(ctx context.Context) (context.Context, func()) {
	ctx, done := a.abortable(ctx)
	return ctx, done
}

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print this program's version",
		Long:    long("Version prints the version, the commit that it was built from, and the platform.", helpDone),
		Example: "  clusterplan version --json",
		Args:    none,
		RunE: func(*cobra.Command, []string) error {
			revision, modified := build()
			if asJSON {
				return view.JSON(a.out, map[string]any{"format_version": "1.0", "version": Version, "revision": revision, "modified": modified,
					"platform": runtime.GOOS + "_" + runtime.GOARCH, "go": runtime.Version()})
			}
			text := "clusterplan " + Version
			if revision != "" {
				text += " (" + revision[:min(12, len(revision))]
				if modified {
					text += ", modified"
				}
				text += ")"
			}
			_, err := fmt.Fprintf(a.out, "%s on %s_%s, %s\n", text, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
