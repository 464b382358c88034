package command

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/burst"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lsp"
)

func (a *app) lspCommand() *cobra.Command {
	var stdio bool
	c := &cobra.Command{
		Use:   "lsp",
		Short: "Serve an editor",
		Long: long(`
Lsp is the language server: an editor starts it and speaks the Language Server
Protocol 3.17 to it over stdin and stdout. It tells what is wrong with a
definition while it is typed, completes, explains, finds, renames and formats.
docs/editors.md says how to set editors up.`, "0    the editor has ended it", helpError, helpInterrupted),
		Example: "  clusterplan lsp",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			burst.Begin(burst.Floor) // it stays, but at each keystroke it works as a command does, and somebody waits
			ctx, done := a.abortable(cmd.Context())
			defer done()
			err := lsp.Serve(ctx, lsp.Config{
				Language: run.Language(Version),
				Module:   run.LocateModule,
				Log:      slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
			}, a.in, noClose{a.out})
			if err != nil && ctx.Err() != nil {
				return run.ErrInterrupted
			}
			if errors.Is(err, lsp.ErrNoShutdown) {
				return hint(err, "Lsp is for editors, which start it themselves: docs/editors.md says how.")
			}
			return err
		},
	}
	c.Flags().BoolVar(&stdio, "stdio", false, "speak over stdin and stdout; it always does, and some editors say so")
	return c
}

// noClose keeps stdout open for what is said behind the server's last word.
type noClose struct{ io.Writer }

func (noClose) Close() error { return nil }

func (a *app) schemaCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "schema [BLOCK]",
		Short: "Describe the language",
		Long: long(`
Schema describes the blocks of a definition: their labels, attributes and blocks,
with types, defaults, what a change does, and what each is for; with --json also
the functions. BLOCK is one of them, by its path: group, group.failover,
group.resource.ip_address, provider.local.`, helpDone, helpError),
		Example: "  clusterplan schema group.failover\n  clusterplan schema --json",
		Args:    atMost(1, "a block"),
		RunE: func(_ *cobra.Command, args []string) error {
			blocks := lang.Language(run.Language(Version))
			if len(args) > 0 {
				b, err := blockAt(blocks, args[0])
				if err != nil {
					return err
				}
				blocks = []lang.BlockType{*b}
				if !asJSON {
					return view.Block(a.out, a.style, b)
				}
			}
			if asJSON {
				return view.SchemaJSON(a.out, blocks, lang.Functions())
			}
			return view.Schema(a.out, a.style, blocks)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var out []string
			if len(args) == 0 {
				for _, b := range lang.Language(run.Language(Version)) {
					out = append(out, b.Name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// blockAt finds a block by its path.
func blockAt(all []lang.BlockType, path string) (*lang.BlockType, error) {
	var at *lang.BlockType
	in, where := all, "the language"
	for _, name := range strings.Split(path, ".") {
		var names []string
		var next *lang.BlockType
		for i := range in {
			names = append(names, in[i].Name)
			if in[i].Name == name {
				next = &in[i]
			}
		}
		if at != nil {
			for _, t := range at.Types {
				names = append(names, t.Name)
				if t.Name == name && next == nil {
					next = at.Of(name)
					next.Name += " \"" + name + "\""
				}
			}
		}
		if next == nil {
			if len(names) == 0 {
				return nil, hint(fmt.Errorf("%s has no block %q", where, name), "There is none in it.")
			}
			near := lang.Nearest(name, names)
			if near != "" {
				near = fmt.Sprintf("Did you mean %s? ", near)
			}
			return nil, hint(fmt.Errorf("%s has no block %q", where, name), "%sThere are %s.", near, strings.Join(names, ", "))
		}
		at, in, where = next, next.Blocks, next.Name
	}
	return at, nil
}
