package command

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang/addr"
)

func (a *app) stateCommand() *cobra.Command {
	return group(&cobra.Command{Use: "state", Short: "Look into the state, and change it by hand"},
		a.stateListCommand(), a.stateShowCommand(), a.stateMvCommand(), a.stateRmCommand(), a.statePullCommand(), a.statePushCommand())
}

func (a *app) stateListCommand() *cobra.Command {
	var asJSON bool
	var dir, id string
	c := &cobra.Command{
		Use:   "list [ADDRESS...]",
		Short: "List the objects in the state",
		Long: long(`
List prints the address of every object that the state knows, or of those that an
ADDRESS names: an object, a group with its resources, all instances of a block.`, helpDone, helpError),
		Example: "  clusterplan --chdir examples/quickstart state list\n  clusterplan state list group.web node.n",

		ValidArgsFunction: a.complete(completeSome),
		RunE: func(_ *cobra.Command, args []string) error {
			which, err := parseAll(args)
			if err != nil {
				return err
			}
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Filter(which, id); err != nil {
				return err
			}
			if asJSON {
				return view.StateJSON(a.out, s.Snap, nil)
			}
			for _, o := range s.Snap.State.Objects {
				if _, err := fmt.Fprintln(a.out, o.Addr); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, without secrets")
	c.Flags().StringVar(&id, "id", "", "only the object with this `ID`")
	dirFlag(c, &dir)
	return c
}

func (a *app) stateShowCommand() *cobra.Command {
	var asJSON bool
	var dir string
	c := &cobra.Command{
		Use:     "show ADDRESS",
		Short:   "Show one object of the state",
		Long:    long("Show prints what the state knows of one object.", helpDone, helpError),
		Example: "  clusterplan state show group.web\n  clusterplan state show 'node.n[\"a\"]'",
		Args:    exactly("an ADDRESS"),

		ValidArgsFunction: a.complete(completeOne),
		RunE: func(_ *cobra.Command, args []string) error {
			at, err := addr.Parse(args[0])
			if err != nil {
				return err
			}
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			o := s.Snap.State.Find(at)
			if o == nil {
				return run.NotInState(&s.Snap.State, at)
			}
			if asJSON {
				return view.JSON(a.out, view.Object(o))
			}
			return a.style.Object(a.out, o)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	dirFlag(c, &dir)
	return c
}

func (a *app) showCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show [DIR or PLANFILE]",
		Short: "Show all that the state knows, or a plan file",
		Long: long(`
Show prints every object of the state, the outputs, and what an interrupted apply
left open. Of a file that plan --out wrote it prints the plan, as plan did.`, helpDone, helpError),
		Example: "  clusterplan show examples/quickstart --json\n  clusterplan show change.plan",
		Args:    atMost(1, "the definition's directory, or a plan file"),
		RunE: func(_ *cobra.Command, args []string) error {
			if file, err := planFileArg(args); err != nil {
				return err
			} else if file != "" {
				return a.showFile(file, asJSON)
			}
			s, err := a.state(dirArg(args))
			if err != nil {
				return err
			}
			defer s.Close()
			if asJSON {
				return view.StateJSON(a.out, s.Snap, s.Snap.State.Outputs)
			}
			return a.style.State(a.out, s.Snap)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, without secrets")
	return c
}

func (a *app) outputCommand() *cobra.Command {
	var asJSON, raw bool
	var dir string
	c := &cobra.Command{
		Use:     "output [NAME]",
		Short:   "Print the outputs of the last apply",
		Long:    long("Output prints one output or all. --raw prints a string without quotes, for scripts.", helpDone, helpError),
		Example: "  clusterplan --chdir examples/quickstart output --raw url",
		Args:    atMost(1, "an output's name"),

		ValidArgsFunction: a.complete(completeOutput),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := a.state(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			outputs := s.Snap.State.Outputs
			if len(args) == 0 {
				if raw {
					return fmt.Errorf("--raw prints one output: name it")
				}
				if asJSON {
					return view.OutputsJSON(a.out, outputs)
				}
				return a.style.Outputs(a.out, outputs)
			}
			o, ok := outputs[args[0]]
			switch {
			case !ok && len(outputs) == 0:
				return hint(fmt.Errorf("there is no output %q", args[0]), "The state has none. An output block in the definition makes one, once it is applied.")
			case !ok:
				return hint(fmt.Errorf("there is no output %q", args[0]), "There are: %s. One that is new in the definition is there once it is applied.", view.Names(outputs))
			case raw && o.Sensitive:
				return hint(fmt.Errorf("the output %q is sensitive, and the state does not keep its value", args[0]), "Read it where the definition has it from.")
			case raw:
				var text string
				if json.Unmarshal(o.Value, &text) != nil {
					var scalar any
					if json.Unmarshal(o.Value, &scalar) != nil || !view.Scalar(scalar) {
						return hint(fmt.Errorf("the output %q is no string, number or bool", args[0]), "Use --json for other values.")
					}
					text = string(o.Value)
				}
				_, err = fmt.Fprint(a.out, text)
				return err
			case asJSON:
				_, err = fmt.Fprintf(a.out, "%s\n", o.Value)
				return err
			}
			_, err = fmt.Fprintln(a.out, view.Value(o))
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&raw, "raw", false, "print a string as it is, without quotes and new line")
	dirFlag(c, &dir)
	return c
}

func (a *app) forceUnlockCommand() *cobra.Command {
	var dir string
	var force, asJSON bool
	c := &cobra.Command{
		Use:   "force-unlock ID",
		Short: "Break a lock on the state",
		Long: long(`
Force-unlock breaks the lock with this id, which the error of a locked state tells,
and the cluster's change lease with it, which the state's lock gives its id.
A run that dies gives its lock up by itself; break one only if you know that its
holder, on another host perhaps, will never go on. One that does can't write any more.`, helpDone, helpError),
		Example: "  clusterplan force-unlock 5f0c2a9be1d37746",
		Args:    exactly("the lock's ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop})
			if err != nil {
				return err
			}
			defer s.Close()
			if asJSON && !force {
				return hint(errors.New("--json can't ask"), "Use --force with it.")
			}
			if !force {
				ok, err := a.confirm(fmt.Sprintf("Break the lock %s of %s?", args[0], s.Store.Path()), "--force")
				if err != nil {
					return err
				}
				if !ok {
					return fmt.Errorf("not unlocked: only yes is taken for yes")
				}
			}
			ctx, end := a.abortable(cmd.Context())
			defer end()
			done, err := s.ForceUnlock(ctx, args[0])
			if asJSON && err == nil {
				return view.UnlockedJSON(a.out, done.Lock, done.Change, done.Asked)
			}
			if h := done.Lock; h != nil {
				fmt.Fprintf(a.out, "The lock of %s (%s, since %s) is broken.\n", h.Who, h.What, h.Since.Local().Format("2006-01-02 15:04:05"))
			}
			if done.Asked != nil {
				fmt.Fprintf(a.err, "Warning: %v\n", done.Asked)
			}
			if done.Change {
				fmt.Fprintf(a.out, "The cluster's change lease %s is broken.\n", args[0])
			}
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "don't ask")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object; asks for --force")
	dirFlag(c, &dir)
	return c
}
