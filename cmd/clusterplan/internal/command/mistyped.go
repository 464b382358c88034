package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clusterplan/clusterplan/lang"
)

// elsewhere says what does here what a command of Terraform's does.
var elsewhere = map[string]string{
	"workspace": "There are no workspaces. An environment is a directory of its own that calls a module: docs/language.md (Modules) and examples/environments.",
	"taint":     "To have an object made anew: clusterplan plan --replace ADDRESS, then apply with the same flag.",
	"untaint":   "What an apply left broken is made anew by the next one, as plan says. Nothing else is marked so.",
	"refresh":   "To have the state take over what is there: clusterplan plan --refresh-only, then apply with the same flag.",
	"get":       "Modules are fetched by clusterplan init, their refs anew with --upgrade.",
	"providers": "Providers are built in: local, ssh and libvirt. clusterplan schema provider describes them.",
	"test":      "Scenarios are tests of what a cluster does when things fail: clusterplan simulate --scenario FILE. Definitions have check and guarantee blocks.",
	"metadata":  "clusterplan schema --json has the language and its functions.",
	"login":     "Nothing is logged into beforehand. docs/state.md says which environment variables have the password of a state elsewhere.",
	"logout":    "Nothing is logged into beforehand. docs/state.md says which environment variables have the password of a state elsewhere.",

	"state replace-provider": "A node's provider is changed in its block: plan shows what that does.",
}

// subcommand is for commands that do nothing themselves: an argument is the name
// of a command that is not there.
func subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	todo := "See: " + cmd.CommandPath() + " --help"
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	_, below, _ := strings.Cut(cmd.CommandPath()+" "+args[0], " ")
	if there, ok := elsewhere[below]; ok {
		todo = there
	} else if name := lang.Nearest(args[0], names); name != "" {
		todo = fmt.Sprintf("Did you mean %s %s? %s", cmd.CommandPath(), name, todo)
	}
	return hint(err, "%s", todo)
}

// group makes c a command that only has others below it.
func group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.Args, c.RunE, c.DisableFlagsInUseLine = subcommand, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }, true
	c.AddCommand(below...)
	return c
}

// flagError puts pflag's words for a flag that is wrong into ours.
func flagError(cmd *cobra.Command, err error) error {
	todo := fmt.Sprintf("See: %s --help", cmd.CommandPath())
	var missing *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &missing):
		dashes, name := "--", missing.GetSpecifiedName()
		if short := missing.GetSpecifiedShortnames(); short != "" { // one dash, as Terraform writes them
			dashes = "-"
			name, _, _ = strings.Cut(short, "=")
		}
		err = fmt.Errorf("unknown flag: %s%s", dashes, name)
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if name == "dir" && strings.Contains(cmd.Use, "[DIR") {
			todo = fmt.Sprintf("The directory is an argument: %s DIR", cmd.CommandPath())
		} else if like := lang.Nearest(name, names); like != "" && len(name) > 1 {
			todo = fmt.Sprintf("Did you mean --%s? %s", like, todo)
		}
	case errors.As(err, &invalid):
		takes := map[string]string{"bool": "true or false", "int": "a whole number", "duration": "a number and a unit, such as 30s or 5m"}
		if what := takes[invalid.GetFlag().Value.Type()]; what != "" {
			err = fmt.Errorf("--%s takes %s, not %q", invalid.GetFlag().Name, what, invalid.GetValue())
		}
	}
	return hint(err, "%s", todo)
}

// counted is a number of arguments in words.
func counted(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
