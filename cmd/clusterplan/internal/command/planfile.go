package command

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/shell"
)

// planFileArg tells whether the argument of apply or show is a plan file:
// whatever is there and is no directory.
func planFileArg(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	info, err := os.Stat(args[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", hint(fmt.Errorf("there is no directory and no plan file %s", args[0]), "Name the directory that holds the definition (*.cluster.hcl), or a file that plan --out wrote.")
	case err != nil:
		return "", err
	case info.IsDir():
		return "", nil
	}
	return args[0], nil
}

// ofApply are the flags that go with a plan file: all others say how to plan,
// and that was said when it was made.
var ofApply = []string{"auto-approve", "allow-broken-guarantee", "chdir", "help", "input", "json", "lock", "lock-timeout", "no-color", "parallelism"}

// applyFile carries a plan file out. The file is the approval: nothing is asked.
func (a *app) applyFile(cmd *cobra.Command, path string, f *planFlags) error {
	var given []string
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if !slices.Contains(ofApply, flag.Name) {
			given = append(given, "--"+flag.Name)
		}
	})
	if len(given) > 0 {
		return hint(fmt.Errorf("%s can't be used with a plan file", strings.Join(given, ", ")),
			"What is planned stands in the file. Give %s to plan --out, and apply what that writes.", strings.Join(given, ", "))
	}
	file, err := run.ReadPlan(path)
	if err != nil {
		return err
	}
	o, err := run.FromFile(file)
	if err != nil {
		return err
	}
	o.Parallelism, o.LockTimeout, o.AllowBrokenGuarantee = f.parallelism, f.lockTimeout, f.broken
	s, err := run.OpenPlan(file, run.Options{Version: Version, Stop: a.stop, Tell: a.tell})
	if err != nil {
		return err
	}
	defer s.Close()
	return a.apply(cmd, s, run.ApplyOptions{PlanOptions: o, File: file}, f.asJSON, true)
}

// save writes the plan that was just shown to a file.
func (a *app) save(s *run.Session, p *run.Planned, o run.PlanOptions, path string, asJSON bool) error {
	var text bytes.Buffer
	if err := (view.Style{Color: true}).Plan(&text, p.Plan); err != nil {
		return err
	}
	if err := s.Save(path, p, o, text.String()); err != nil || asJSON {
		return err
	}
	path = a.fromStart(path)
	_, err := fmt.Fprintf(a.out, "\nSaved to %s. To do exactly this:\n  %s apply %s\n", path, program(), shell.Quote(path))
	return err
}

// showFile shows a plan file as plan showed it.
func (a *app) showFile(path string, asJSON bool) error {
	f, err := run.ReadPlan(path)
	if err != nil {
		return err
	}
	if asJSON {
		return view.PlanFileJSON(a.out, f)
	}
	if err := a.errStyle.PlanFileWarnings(a.err, f); err != nil {
		return err
	}
	return a.style.PlanFile(a.out, f)
}
