package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/burst"
)

const (
	groupMain    = "main"
	groupCluster = "cluster"
	groupState   = "state"
	groupOther   = "other"
)

func (a *app) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "clusterplan",
		Short: "Plan, build and run failover clusters",
		Long: `clusterplan turns a definition of a failover cluster (*.cluster.hcl) into a
running one, and keeps it so: plan shows what would change and what that does to
quorum and availability, apply does it, status shows the cluster's own life.`,
		Example:       "  clusterplan apply examples/quickstart\n  clusterplan status examples/quickstart",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case cmd.Name() == "validate" && cmd.GroupID == groupMain: // time is all that counts
				burst.Begin(burst.Room())
			case cmd.GroupID == groupMain: // they work on a whole definition, and end
				burst.Begin(burst.Floor)
			}
			a.style, a.errStyle = view.StyleOf(a.out, a.noColor), view.StyleOf(a.err, a.noColor)
			a.screen = view.Terminal(a.out)
			a.outlive(cmd)
			if a.chdir != "" {
				if err := os.Chdir(a.chdir); err != nil {
					var failed *os.PathError
					if errors.As(err, &failed) {
						err = failed.Err
					}
					return hint(fmt.Errorf("can't change into %s: %w", a.chdir, err), "Name a directory that is there with --chdir.")
				}
			}
			return nil
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	c.PersistentFlags().StringVar(&a.chdir, "chdir", "", "change to this `DIR` before anything else")
	c.PersistentFlags().BoolVar(&a.noColor, "no-color", false, "no colours (also: NO_COLOR in the environment)")
	c.PersistentFlags().BoolVar(&a.input, "input", true, "ask where something has to be decided; --input=false never does")
	c.AddGroup(
		&cobra.Group{ID: groupMain, Title: "From a definition to a cluster:"},
		&cobra.Group{ID: groupCluster, Title: "The running cluster:"},
		&cobra.Group{ID: groupState, Title: "The state:"},
		&cobra.Group{ID: groupOther, Title: "Other:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, sub := range cmds {
			sub.GroupID = group
			c.AddCommand(sub)
		}
	}
	add(groupMain, a.initCommand(), a.validateCommand(), a.fmtCommand(), a.planCommand(), a.applyCommand(), a.destroyCommand(),
		a.showCommand(), a.outputCommand(), a.consoleCommand(), a.graphCommand(), a.simulateCommand(), a.doctorCommand(),
		a.diffCommand(), a.logCommand(), a.rollbackCommand())
	add(groupCluster, a.statusCommand(), a.eventsCommand(), a.logsCommand(), a.moveCommand(), a.onlineCommand(), a.offlineCommand(),
		a.pauseCommand(), a.drainCommand(), a.resumeCommand(), a.evictCommand(), a.fenceCommand(), a.keysCommand())
	add(groupState, a.stateCommand(), a.importCommand(), a.forceUnlockCommand())
	add(groupOther, a.labCommand(), a.agentCommand(), a.demoCommand(), a.schemaCommand(), a.lspCommand(), a.versionCommand(), completionCommand())
	c.SetHelpCommandGroupID(groupOther)
	c.SetFlagErrorFunc(flagError)
	group(c)
	c.InitDefaultHelpCmd()
	helps(c)
	return c
}

// helps has cobra's help command refuse what there is no help about.
func helps(root *cobra.Command) {
	c, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // cobra has it
	}
	c.Use, c.Short = "help [COMMAND]", "Describe a command and its flags"
	c.Long = long("Help prints the help of a command, as its --help does; without one it lists all.", helpDone, helpError)
	c.Example = "  clusterplan help plan\n  clusterplan help state mv"
	c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error {
		about, rest, err := root.Find(args)
		if err != nil {
			return err
		}
		if err := subcommand(about, rest); err != nil {
			return err
		}
		return about.Help()
	}
}

// long is a command's help: what it does, and its exit codes.
func long(text string, codes ...string) string {
	return strings.TrimSpace(text) + "\n\nExit codes:\n  " + strings.Join(codes, "\n  ")
}

// Exit codes as the helps tell them.
const (
	helpDone        = "0    done"
	helpError       = "1    an error, told on stderr"
	helpInterrupted = "130  interrupted"
	helpLocked      = "4    the state is locked by somebody else"
	helpStale       = "5    the plan file is stale: the state or the cluster is another one by now"
	helpQuorum      = "6    the plan would leave the cluster without quorum"
	helpGuarantee   = "3    the plan would break a guarantee"
	helpChanges     = "2    with --detailed-exitcode: there are changes or drift"
)

// dirArg is the positional DIR, by default the present directory.
func dirArg(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// look says where to look, or how the directory is given where a command that
// takes none as an argument got one.
func look(cmd *cobra.Command, args []string) string {
	if len(args) > 0 && cmd.Flags().Lookup("dir") != nil {
		last := args[len(args)-1]
		if info, err := os.Stat(last); err == nil && info.IsDir() {
			rest := append([]string{cmd.CommandPath(), "--dir", last}, args[:len(args)-1]...)
			return "The directory is given with --dir: " + strings.Join(rest, " ")
		}
	}
	return "See: " + cmd.CommandPath() + " --help"
}

// atMost and exactly check positional arguments, in our words.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return hint(fmt.Errorf("the command %s takes at most %d argument (%s), not %d", cmd.CommandPath(), n, what, len(args)), "%s", look(cmd, args))
		}
		return nil
	}
}

func exactly(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(what) {
			return hint(fmt.Errorf("the command %s takes %s, not %s", cmd.CommandPath(), strings.Join(what, " and "), counted(len(args))), "%s", look(cmd, args))
		}
		return nil
	}
}

// between says what a command takes where something may be left out: of what,
// at least the first.
func between(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > len(what) {
			return hint(fmt.Errorf("the command %s takes %s, not %s", cmd.CommandPath(), strings.Join(what, " and perhaps "), counted(len(args))), "%s", look(cmd, args))
		}
		return nil
	}
}

// none is for commands without arguments.
func none(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return hint(fmt.Errorf("the command %s takes no argument, not %q", cmd.CommandPath(), args[0]), "%s", look(cmd, args))
	}
	return nil
}

// state opens the definition in dir and reads its state.
func (a *app) state(dir string) (*run.Session, error) {
	s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop})
	if err != nil {
		return nil, err
	}
	ctx, done := a.abortable(context.Background())
	defer done()
	return s, s.ReadState(ctx)
}

// twoDashes lets long flags be written with one dash, as Terraform has it:
// -out=FILE is --out=FILE. Arguments after -- are left alone. A --version alone is
// the command of that name, as everywhere.
func twoDashes(root *cobra.Command, args []string) []string {
	known := map[string]bool{"help": true, "version": true}
	var learn func(c *cobra.Command)
	learn = func(c *cobra.Command) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		}
		for _, sub := range c.Commands() {
			learn(sub)
		}
	}
	learn(root)
	out := slices.Clone(args)
	for i, arg := range out {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && len(name) > 1 && known[name] {
			out[i] = "-" + arg
		}
	}
	if len(out) == 1 && out[0] == "--version" {
		return []string{"version"}
	}
	return out
}
