package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/planner"
)

func (a *app) initCommand() *cobra.Command {
	var o run.Options
	var backend []string
	var how run.InitOptions
	var asJSON bool
	var vars variables
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Make a definition's directory ready",
		Long: long(`
Init checks that the definition can be read, that its providers are there, and that
the state can be. It fetches the modules that the definition has from git, and locks
them: .clusterplan.lock.hcl says which commit each is, and belongs into your repository.
No other command touches a repository; without modules from git, apply does all of
this by itself.
Where the definition has the state encrypted, init encrypts one that is in plain, and
has an encrypted one be for the present recipients. A backend other than a file needs
it, and so does one that was changed.`, helpDone, helpError, helpInterrupted),
		Example: "  clusterplan init examples/quickstart\n  clusterplan init --upgrade",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Migrate && o.Reconfigure {
				return errors.New("--migrate-state and --reconfigure: one of the two")
			}
			if o.Ref != "" && how.Upgrade {
				return hint(errors.New("--upgrade locks refs anew, and a revision's lock file stays as it is"), "Use one of --ref and --upgrade.")
			}
			if o.Ref != "" && (o.Migrate || o.Reconfigure || o.Decrypt || len(backend) > 0) {
				return hint(errors.New("--ref only fetches modules, and leaves the state as it is"), "Run init without --ref for the rest.")
			}
			var err error
			if o.BackendConfig, err = run.ParseBackendConfig(backend); err != nil {
				return err
			}
			inputs, err := vars.inputs(o.Ref != "")
			if err != nil {
				return err
			}
			o.Version, o.Vars, o.Init = Version, inputs, true
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, said, err := run.Init(ctx, dirArg(args), o, how)
			if s != nil {
				defer s.Close()
			}
			if asJSON && (err == nil || isDiagnostics(err)) {
				doc := view.InitJSON{Done: said}
				if err == nil {
					if doc = (view.InitJSON{Ready: true, Done: said, Encrypted: s.Encrypted()}); o.Ref == "" {
						doc.State = s.Store.Path()
					}
					doc.Diagnostics = view.JSONDiagnostics(s.Diags, s.Config.Files())
				}
				if perr := doc.Write(a.out, err); perr != nil || err == nil {
					return perr
				}
				return status(exitError)
			}
			for _, text := range said {
				fmt.Fprintln(a.out, text)
			}
			if err != nil {
				return err
			}
			a.errStyle.Diagnostics(a.err, s.Diags, s.Config.Files())
			if o.Ref != "" {
				_, err = fmt.Fprintf(a.out, "Ready: the modules of %s as of %s are there.\n", s.Dir, o.Ref)
				return err
			}
			if !s.Encrypted() {
				fmt.Fprintln(a.err, "The state is not encrypted: whoever can read its file has the cluster's keys. An encryption block in the definition's clusterplan block encrypts it.")
			}
			ready := "Ready"
			if s.Dir != "." {
				ready += ": " + s.Dir
			}
			_, err = fmt.Fprintf(a.out, "%s. The state lies in %s.\n", ready, s.Store.Path())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	c.Flags().BoolVar(&o.Migrate, "migrate-state", false, "the backend was changed: bring the state there")
	c.Flags().BoolVar(&o.Reconfigure, "reconfigure", false, "the backend was changed: use what is there, and leave the state where it was")
	c.Flags().StringArrayVar(&backend, "backend-config", nil, "`NAME=VALUE`: a setting of the backend that the definition leaves out; kept for later commands")
	c.Flags().BoolVar(&o.Decrypt, "decrypt-state", false, "the encryption block was taken out: write the encrypted state in plain from now on")
	c.Flags().BoolVar(&how.Upgrade, "upgrade", false, "take the refs of modules from git anew: lock what they are today")
	c.Flags().StringVar(&o.Ref, "ref", "", "only fetch the modules of the definition as of this git `REV`, for plan --ref and rollback")
	vars.flags(c)
	return c
}

func (a *app) validateCommand() *cobra.Command {
	var asJSON bool
	var vars variables
	c := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Check a definition",
		Long: long(`
Validate reads a definition and tells everything that is wrong with it, all at
once. It looks at no state and no machine.`, "0    it is valid", "1    it is not, or another error"),
		Example: "  clusterplan validate examples/quickstart",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			inputs, err := vars.inputs(false)
			if err != nil {
				return err
			}
			s, err := run.Open(dirArg(args), run.Options{Version: Version, Stop: a.stop, Vars: inputs})
			if err != nil && asJSON { // the answer is always a document
				return errors.Join(view.ValidateJSON(a.out, []planner.Diagnostic{view.ErrorDiagnostic(err)}), status(exitError))
			}
			if err != nil {
				return err
			}
			defer s.Close()
			diags := s.Validate()
			if lang.Interrupted(diags) {
				return run.ErrInterrupted
			}
			if asJSON {
				if err := view.ValidateJSON(a.out, view.JSONDiagnostics(diags, s.Config.Files())); err != nil {
					return err
				}
			} else {
				a.errStyle.Diagnostics(a.err, diags, s.Config.Files())
			}
			switch {
			case diags.HasErrors():
				return status(exitError)
			case !asJSON:
				_, err = fmt.Fprintf(a.out, "%s The definition is valid.\n", a.style.Green("Success."))
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	vars.flags(c)
	return c
}

func (a *app) fmtCommand() *cobra.Command {
	var check, diff, asJSON bool
	c := &cobra.Command{
		Use:   "fmt [PATH...]",
		Short: "Write definitions in the canonical style",
		Long: long(`
Fmt lays out *.cluster.hcl, *.vars.hcl and *.scenario.hcl files as everybody's are, in PATH or the
present directory and those below, and prints the names of those that it changed.
With - it reads stdin and writes stdout.`, helpDone, helpError, "3    with --check: something would change"),
		Example: "  clusterplan fmt\n  clusterplan fmt --check --diff examples",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			if asJSON && slices.Contains(args, "-") {
				return hint(errors.New("--json tells which files change, and stdin is none"), "Leave --json out: what is printed is the text in the canonical style.")
			}
			if len(args) == 1 && args[0] == "-" {
				src, err := io.ReadAll(a.in)
				if err != nil {
					return err
				}
				out, diags := lang.Format(src, "<stdin>")
				if diags.HasErrors() {
					return &view.DiagnosticsError{Diags: diags}
				}
				if check && string(out) != string(src) {
					return status(exitGuarantee)
				}
				_, err = a.out.Write(out)
				return err
			}
			changed, files := 0, []view.FormattedJSON{}
			err := run.Format(args, !check, func(f run.Formatted) error {
				changed++
				if asJSON {
					one := view.FormattedJSON{File: f.Name}
					if diff {
						var b strings.Builder
						if err := view.Diff(&b, f.Name, f.Before, f.After); err != nil {
							return err
						}
						one.Diff = b.String()
					}
					files = append(files, one)
					return nil
				}
				if _, err := fmt.Fprintln(a.out, f.Name); err != nil {
					return err
				}
				if diff {
					return view.Diff(a.out, f.Name, f.Before, f.After)
				}
				return nil
			})
			if asJSON && (err == nil || isDiagnostics(err)) {
				if perr := view.FormatJSON(a.out, files, err); perr != nil {
					return perr
				}
				if err != nil {
					return status(exitError)
				}
			}
			if check && changed > 0 && err == nil {
				return status(exitGuarantee)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	c.Flags().BoolVar(&check, "check", false, "change nothing; exit with 3 where something would change")
	c.Flags().BoolVar(&diff, "diff", false, "show what changes")
	return c
}

func (a *app) graphCommand() *cobra.Command {
	var format, kind string
	var asJSON bool
	var vars variables
	c := &cobra.Command{
		Use:   "graph [DIR]",
		Short: "Draw what depends on what",
		Long: long(`
Graph prints the objects of a definition, or the steps of a plan, and what each
needs: for Graphviz (dot), as Mermaid, or as an SVG picture, which needs no other
program; or with --json for programs. Dashed lines order and nothing else.`, helpDone, helpError),
		Example: "  clusterplan graph --format svg examples/quickstart > graph.svg\n  clusterplan graph --type plan --format mermaid",
		Args:    atMost(1, "the definition's directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(view.GraphFormats, format) {
				return hint(fmt.Errorf("there is no format %q", format), "There are dot, mermaid and svg.")
			}
			if asJSON && cmd.Flags().Changed("format") {
				return errors.New("--json and --format can't be used together: --json is for programs, a format for pictures")
			}
			if asJSON {
				format = view.GraphJSON
			}
			inputs, err := vars.inputs(false)
			if err != nil {
				return err
			}
			ctx, done := a.abortable(cmd.Context())
			defer done()
			s, err := run.Open(dirArg(args), run.Options{Version: Version, Stop: a.stop, Vars: inputs})
			if err != nil {
				return err
			}
			defer s.Close()
			var text string
			switch kind {
			case "definition":
				def, err := s.Shape()
				if err != nil {
					return err
				}
				text, err = view.DefinitionGraph(def, format)
				if err != nil {
					return err
				}
			case "plan":
				p, err := s.Plan(ctx, run.PlanOptions{})
				if err != nil {
					return err
				}
				text, err = view.PlanGraph(p.Plan, format)
				if err != nil {
					return err
				}
			default:
				return hint(fmt.Errorf("there is no graph of type %q", kind), "There are definition and plan.")
			}
			_, err = io.WriteString(a.out, text)
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "dot", "dot, mermaid or svg")
	c.Flags().StringVar(&kind, "type", "definition", "definition or plan")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	vars.flags(c)
	for flag, values := range map[string][]string{"format": view.GraphFormats, "type": {"definition", "plan"}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

// variables are --var and --var-file, in the order in which they were given.
type variables struct{ list []lang.VarInput }

func (v *variables) flags(c *cobra.Command) {
	c.Flags().Var(&varFlag{v, false}, "var", "a variable's value, `NAME=VALUE`; may be given often")
	c.Flags().Var(&varFlag{v, true}, "var-file", "a `FILE` with values (*.vars.hcl); may be given often")
}

// inputs reads their files. A file that is not there is left to a revision
// (asOf), which may have it.
func (v *variables) inputs(asOf bool) ([]lang.VarInput, error) {
	for i := range v.list {
		in := &v.list[i]
		if in.File == "" {
			continue
		}
		src, err := os.ReadFile(in.File)
		if asOf && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("--var-file: %w", err)
		}
		in.Src = src
	}
	return v.list, nil
}

// varFlag is one of the two; both append to one list, for order matters.
type varFlag struct {
	v    *variables
	file bool
}

func (f *varFlag) String() string { return "" }
func (f *varFlag) Type() string   { return "value" }
func (f *varFlag) Set(text string) error {
	if f.file {
		if text == "" {
			return errors.New("name a file")
		}
		f.v.list = append(f.v.list, lang.VarInput{File: text, Source: "--var-file"})
		return nil
	}
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return fmt.Errorf("write it as NAME=VALUE, not %q", text)
	}
	f.v.list = append(f.v.list, lang.VarInput{Name: name, Text: value, Source: "--var"})
	return nil
}
