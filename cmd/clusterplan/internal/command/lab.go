package command

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/netlab"
)

func (a *app) labCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "lab COMMAND",
		Short: "Cut links and kill nodes of a network lab",
		Long: long(`
Lab works on nodes that are in network namespaces (provider "local" with
mode = "netns"): cuts the links between them, loses frames, kills or stops what
runs on a node, runs a command there. Root is needed.

A node is given by its name; "client" is the namespace beside them, from which
to look at the cluster as its users do. The CLI itself reaches nodes from inside
of their own namespaces, whatever is cut.

A cluster whose definition has several links gives each node a network interface
on each: cuts and losses are on all of them, or with --network on one. "clusterplan
lab status" lists their names; the nodes' own network is called after the link
that it is, else "main".`, helpDone, helpError),
		Example: "  clusterplan lab isolate n1\n  clusterplan lab exec client -- curl -s http://10.77.0.100/\n  clusterplan lab heal",
	},
		a.labCutCommand(), a.labIsolateCommand(), a.labLossCommand(), a.labHealCommand(), a.labStatusCommand(), a.labExecCommand(),
		a.labSignalCommand("kill NODE", "Kill every process on a node at once", `
Kill sends SIGKILL to every process in the node's namespace: agent, monitor and
all that runs there, as when a host loses its power. Apply starts it again.`, "killed", syscall.SIGKILL),
		a.labSignalCommand("hang NODE", "Stop every process on a node, as when a host hangs", `
Hang sends SIGSTOP to every process in the node's namespace. Wake ends it. A
monitor whose lease ends meanwhile is killed by the kernel.`, "stopped; clusterplan lab wake has them go on", syscall.SIGSTOP),
		a.labSignalCommand("wake NODE", "Have a node that hangs go on", `
Wake sends SIGCONT to every process in the node's namespace.`, "told to go on", syscall.SIGCONT))
}

// lab opens the definition's network lab and has do work on it.
func (a *app) lab(dir string, do func(*run.Lab) error) error {
	s, err := a.state(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := s.Lab()
	if err != nil {
		return err
	}
	return do(l)
}

// labFlags are the flags of what is done to a lab.
type labFlags struct {
	dir, network string
	asJSON       bool
}

func (f *labFlags) register(c *cobra.Command) {
	dirFlag(c, &f.dir)
	c.Flags().BoolVar(&f.asJSON, "json", false, "print the lab as it is then, one JSON object (docs/json.md)")
}

// done tells what was done to a lab: words, or with --json the lab as it is now.
func (a *app) done(l *run.Lab, f *labFlags, words string, err error) error {
	if !f.asJSON {
		_, werr := fmt.Fprint(a.out, words)
		return errors.Join(err, werr)
	}
	if err != nil {
		return err
	}
	look, err := l.Look()
	if err != nil {
		return err
	}
	return view.JSON(a.out, look)
}

// inflict adds faults and tells them.
func (a *app) inflict(flags *labFlags, faults ...netlab.Fault) error {
	return a.lab(flags.dir, func(l *run.Lab) error {
		done, err := l.Inflict(faults...)
		var words strings.Builder
		for _, f := range done {
			fmt.Fprintln(&words, f)
		}
		return a.done(l, flags, words.String(), err)
	})
}

func (a *app) labCutCommand() *cobra.Command {
	var oneWay bool
	var f labFlags
	c := &cobra.Command{
		Use:   "cut A B",
		Short: "Have nothing get from one node to another",
		Long: long(`
Cut drops every frame between A and B on the switch, both ways, or with --one-way
those from A to B only. Other nodes still reach both. Either may be "client".`, helpDone, helpError),
		Example: "  clusterplan lab cut n1 n2\n  clusterplan lab cut n1 n3 --one-way\n  clusterplan lab cut n1 n2 --network spare",
		Args:    exactly("a node A", "a node B"),
		RunE: func(_ *cobra.Command, args []string) error {
			faults := []netlab.Fault{{Kind: netlab.FaultCut, From: args[0], To: args[1], Network: f.network}}
			if !oneWay {
				faults = append(faults, netlab.Fault{Kind: netlab.FaultCut, From: args[1], To: args[0], Network: f.network})
			}
			return a.inflict(&f, faults...)
		},
		ValidArgsFunction: a.completeSeats(2),
	}
	c.Flags().BoolVar(&oneWay, "one-way", false, "only what A sends to B")
	networkFlag(c, &f.network)
	f.register(c)
	return c
}

// networkFlag is where a fault is.
func networkFlag(c *cobra.Command, network *string) {
	c.Flags().StringVar(network, "network", "", "on this network alone (default: on all)")
}

func (a *app) labIsolateCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use:   "isolate NODE",
		Short: "Have nothing get to a node and nothing from it",
		Long: long(`
Isolate drops every frame from and to a node on the switch, also those of the
client. The node sees its link up.`, helpDone, helpError),
		Example: "  clusterplan lab isolate n1\n  clusterplan lab isolate n1 --network spare",
		Args:    exactly("a NODE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.inflict(&f, netlab.Fault{Kind: netlab.FaultIsolate, From: args[0], Network: f.network})
		},
		ValidArgsFunction: a.completeSeats(1),
	}
	networkFlag(c, &f.network)
	f.register(c)
	return c
}

func (a *app) labLossCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use:   "loss PERCENT [A B]",
		Short: "Lose some of the frames",
		Long: long(`
Loss drops each frame with a probability: of all frames on the switch, or of those
between A and B, both ways.`, helpDone, helpError),
		Example: "  clusterplan lab loss 20\n  clusterplan lab loss 5 n1 n2\n  clusterplan lab loss 20 --network spare",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 && len(args) != 3 {
				return hint(fmt.Errorf("the command %s takes a PERCENT and perhaps two nodes A and B, not %d arguments", cmd.CommandPath(), len(args)), "See: %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			percent, err := strconv.ParseFloat(strings.TrimSuffix(args[0], "%"), 64)
			if err != nil || !(percent > 0 && percent <= 100) {
				return hint(fmt.Errorf("%q is no loss", args[0]), "Give a number above 0, at most 100. clusterplan lab heal ends a loss.")
			}
			if len(args) == 1 {
				return a.inflict(&f, netlab.Fault{Kind: netlab.FaultLoss, Percent: percent, Network: f.network})
			}
			return a.inflict(&f, netlab.Fault{Kind: netlab.FaultLoss, From: args[1], To: args[2], Percent: percent, Network: f.network},
				netlab.Fault{Kind: netlab.FaultLoss, From: args[2], To: args[1], Percent: percent, Network: f.network})
		},
	}
	networkFlag(c, &f.network)
	f.register(c)
	return c
}

func (a *app) labHealCommand() *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use:     "heal",
		Short:   "End all cuts and losses",
		Long:    long("Heal has every frame get to where it should again, on all networks.", helpDone, helpError),
		Example: "  clusterplan lab heal",
		Args:    none,
		RunE: func(*cobra.Command, []string) error {
			return a.lab(f.dir, func(l *run.Lab) error {
				if err := l.Heal(); err != nil {
					return err
				}
				return a.done(l, &f, "Nothing is cut and nothing is lost.\n", nil)
			})
		},
	}
	f.register(c)
	return c
}

func (a *app) labStatusCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "status [DIR]",
		Short:   "Show the namespaces, and what is cut",
		Long:    long("Status shows the lab's networks and namespaces with their addresses and processes, and what is cut or lost between them.", helpDone, helpError),
		Example: "  clusterplan lab status examples/netns",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.lab(dirArg(args), func(l *run.Lab) error {
				look, err := l.Look()
				if err != nil {
					return err
				}
				if asJSON {
					return view.JSON(a.out, look)
				}
				return a.style.Lab(a.out, look)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	return c
}

func (a *app) labExecCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "exec NODE -- COMMAND [ARGUMENTS]",
		Short: "Run a command in a node's network",
		Long: long(`
Exec runs a command in the namespace of a node, or of "client": it sees that
network alone. Files are those of this machine.`, "0    done; else the command's own exit code (128 and the signal's number, if one ended it)", helpError+"; also that the command can't be run"),
		Example: "  clusterplan lab exec client -- ping -c 3 10.77.0.100\n  clusterplan lab exec n1 -- ip address",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && args[1] == "--" { // not cobra's to take away: it stands after the node
				args = slices.Delete(slices.Clone(args), 1, 2)
			}
			if len(args) < 2 {
				return hint(fmt.Errorf("the command %s takes a NODE and a COMMAND, not %d arguments", cmd.CommandPath(), len(args)), "See: %s --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if args[1] == "--" {
				args = slices.Delete(slices.Clone(args), 1, 2)
			}
			return a.lab(dir, func(l *run.Lab) error {
				code, err := l.Exec(args[0], args[1:], a.in, a.out, a.err)
				if err == nil && code != 0 {
					err = passed(code)
				}
				return err
			})
		},
		ValidArgsFunction: a.completeSeats(1),
	}
	c.Flags().SetInterspersed(false) // what follows the node is the command's
	dirFlag(c, &dir)
	return c
}

func (a *app) labSignalCommand(use, short, text, done string, sig syscall.Signal) *cobra.Command {
	var f labFlags
	c := &cobra.Command{
		Use: use, Short: short,
		Long:    long(text, helpDone, helpError),
		Example: "  clusterplan lab " + strings.Replace(use, "NODE", "n1", 1),
		Args:    exactly("a NODE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.lab(f.dir, func(l *run.Lab) error {
				n, err := l.Signal(args[0], sig)
				if err != nil {
					return err
				}
				return a.done(l, &f, fmt.Sprintf("%d processes of %s were %s.\n", n, args[0], done), nil)
			})
		},
		ValidArgsFunction: a.completeSeats(1),
	}
	f.register(c)
	return c
}

// completeSeats offers nodes and the client for the first n arguments.
func (a *app) completeSeats(n int) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		names, only := a.complete("node")(cmd, nil, part)
		return append(names, netlab.Client), only
	}
}
