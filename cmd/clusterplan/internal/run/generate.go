package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/providers/local"
)

// CanGenerate tells whether blocks can be written to path: a new file that the
// definition in dir is read from.
func CanGenerate(dir, path string) error {
	const flag = "--generate-config-out"
	switch _, err := os.Lstat(path); {
	case err == nil:
		return &view.Hint{Err: fmt.Errorf("%s: %s is there already", flag, path), Hint: "Name a new file: nothing is written over."}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", flag, err)
	}
	name := filepath.Base(path)
	here, err := os.Stat(filepath.Dir(path))
	there, err2 := os.Stat(dir)
	if err != nil || err2 != nil || !os.SameFile(here, there) || strings.HasPrefix(name, ".") || len(name) == len(lang.Suffix) || !strings.HasSuffix(name, lang.Suffix) {
		return &view.Hint{Err: fmt.Errorf("%s: %s would be no file of the definition", flag, path),
			Hint: fmt.Sprintf("Name a file in its directory whose name ends in %s, as %s.", lang.Suffix, filepath.Join(dir, "generated"+lang.Suffix))}
	}
	return nil
}

// missing are the imports for whose objects the definition has no block.
func (s *Session) missing(def *lang.Definition) []lang.Import {
	var out []lang.Import
	for _, one := range def.Imports {
		if _, ok := def.Object(one.To); !ok && s.Snap.State.Find(one.To) == nil {
			out = append(out, one)
		}
	}
	return out
}

func (s *Session) lacks(def *lang.Definition) bool { return def != nil && len(s.missing(def)) > 0 }

// generate writes blocks for what import blocks name and the definition doesn't
// have, as it is found, and reads the definition again.
func (s *Session) generate(ctx context.Context, p *Planned, file string) error {
	def := p.Definition
	fail := func(diags hcl.Diagnostics) error {
		return &view.DiagnosticsError{Diags: append(p.Diags, diags...), Files: s.Config.Files()}
	}
	refused := func(to addr.Address, rng hcl.Range, why string) *hcl.Diagnostic {
		return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "No block is written for " + to.String(), Detail: planner.Sentence(why), Subject: &rng}
	}
	var diags hcl.Diagnostics
	var list []lang.Found
	var blocks []lang.Import
	for _, block := range s.missing(def) {
		one := planner.Import{To: block.To, ID: block.ID}
		provider := "confdb"
		if block.To.Type == addr.TypeNode {
			provider = local.Name
		}
		if s.Snap.State.Cluster == nil {
			one.Err = "The state knows no cluster that it could be part of. Bring the state back, or apply first."
		} else {
			refresh.Find(ctx, s.registry, &one, provider, cty.NilVal)
		}
		if ctx.Err() != nil {
			return ErrInterrupted
		}
		if one.Err != "" {
			diags = append(diags, refused(block.To, block.Range, one.Err))
			continue
		}
		found := lang.Found{Addr: one.To, Type: one.To.Type, Value: one.Object.Value}
		for _, r := range one.Resources {
			found.Resources = append(found.Resources, lang.Found{Addr: r.Addr, Type: r.Type, Value: r.Value})
		}
		list, blocks = append(list, found), append(blocks, block)
	}
	text, problems, more := def.Generate(list)
	diags = append(diags, more...)
	for i := range list {
		if why := problems[i]; why != nil {
			diags = append(diags, refused(blocks[i].To, blocks[i].Range, why.Error()))
		}
	}
	if diags.HasErrors() {
		return fail(diags)
	}
	if err := writeNew(file, text); err != nil {
		return err
	}
	what := "the block of 1 import"
	if len(list) > 1 {
		what = fmt.Sprintf("the blocks of %d imports", len(list))
	}
	s.opts.Tell(fmt.Sprintf("Wrote %s to %s. Review it.", what, file))
	if err := s.read(); err != nil {
		return err
	}
	return s.Check()
}

// writeNew writes a file that is not there yet.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("--generate-config-out: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return &view.Hint{Err: fmt.Errorf("--generate-config-out: %w", err), Hint: "Name a file on a disk that has room."}
	}
	return nil
}
