package command

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/lang/addr"
)

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print a script for the shell's completion",
		Long:      long("Completion prints a script that has the shell complete commands, flags, groups and nodes.", helpDone, helpError),
		Example:   "  source <(clusterplan completion bash)",
		Args:      exactly("a shell (bash, zsh, fish or powershell)"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			write, ok := map[string]func(io.Writer) error{
				"bash":       func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"zsh":        root.GenZshCompletion,
				"fish":       func(w io.Writer) error { return root.GenFishCompletion(w, true) },
				"powershell": root.GenPowerShellCompletionWithDesc,
			}[args[0]]
			if !ok {
				return hint(fmt.Errorf("there is no completion for %q", args[0]), "There is for bash, zsh, fish and powershell.")
			}
			return write(out)
		},
	}
}

// What complete offers besides the names of groups and nodes.
const (
	completeOne    = "an address in the state"
	completeSome   = "addresses in the state"
	completeMove   = "an address in the state, and one that the definition has and the state lacks"
	completeImport = "an address that the definition has and the state lacks"
	completeFlag   = "an address for a flag, of the state or the definition, of a command with a DIR"
	completeOutput = "an output"
)

// complete offers names and addresses. An order is for what an apply has made, so
// that names of groups and nodes are the state's; where no state can be read, or
// there is none, the definition's.
func (a *app) complete(kind string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const only = cobra.ShellCompDirectiveNoFileComp
		most := map[string]int{"": 0, completeMove: 2, completeSome: 1 << 10, completeFlag: 1 << 10}
		if n, ok := most[kind]; ok && len(args) >= n || !ok && len(args) > 0 {
			return nil, only
		}
		dir := "."
		if f := cmd.Flags().Lookup("dir"); f != nil {
			dir = f.Value.String()
		} else if kind == completeFlag {
			dir = dirArg(args)
		}
		if a.chdir != "" && os.Chdir(a.chdir) != nil {
			return nil, only
		}
		s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop})
		if err != nil {
			return nil, only
		}
		defer s.Close()
		known := s.ReadState(cmd.Context()) == nil
		inState := func() []string {
			var all []string
			if known {
				for _, o := range s.Snap.State.Objects {
					all = append(all, o.Addr.String())
				}
			}
			return all
		}
		lacking := func() []string {
			have := map[string]bool{}
			for _, address := range inState() {
				have[address] = true
			}
			var all []string
			for _, at := range s.Defined() {
				if kind == completeImport && (at.IsResource() || at.Type == addr.TypeCluster) {
					continue // which come with their group, and are never imported
				}
				if address := at.String(); !have[address] {
					all = append(all, address)
				}
			}
			return all
		}
		var out []string
		switch kind {
		case completeOne, completeSome:
			out = inState()
		case completeMove:
			if out = inState(); len(args) == 1 {
				out = lacking()
			}
		case completeImport:
			out = lacking()
		case completeFlag:
			return slices.Concat(inState(), lacking()), only
		case completeOutput:
			if known {
				out = slices.Sorted(maps.Keys(s.Snap.State.Outputs))
			}
		default:
			if known {
				out = s.Names(kind)
			}
			if len(out) == 0 {
				out = s.DefinedNames(kind)
			}
		}
		return slices.DeleteFunc(out, func(one string) bool { return slices.Contains(args, one) }), only
	}
}
