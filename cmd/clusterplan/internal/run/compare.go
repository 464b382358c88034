package run

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/planner"
)

// Compare puts two revisions of the definition in dir side by side. No state is
// read, and no machine. The diagnostics are warnings.
func Compare(dir, from, to string, o Options) (*planner.Comparison, hcl.Diagnostics, error) {
	a, one, err := versionOf(dir, from, o)
	if err != nil {
		return nil, nil, err
	}
	defer a.Close()
	b, other, err := versionOf(dir, to, o)
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	c := planner.Compare(one, other, b.registry)
	c.From.Revision, c.From.Git = from, a.At().Hash
	c.To.Revision, c.To.Git = to, b.At().Hash
	c.Diagnostics = view.JSONDiagnostics(b.Diags, b.Config.Files())
	return c, b.Diags, nil
}

// versionOf is the definition in dir as of a revision.
func versionOf(dir, rev string, o Options) (*Session, *lang.Definition, error) {
	o.Ref = rev
	declared, err := Open(dir, Options{Version: o.Version, Stop: o.Stop, Ref: rev})
	if err != nil {
		return nil, nil, err
	}
	names := map[string]bool{}
	for _, v := range declared.Config.Variables() {
		names[v.Name] = true
	}
	declared.Close()
	var vars []lang.VarInput
	for _, v := range o.Vars { // the other version may be the one that has it
		if v.File != "" || names[v.Name] {
			vars = append(vars, v)
		}
	}
	o.Vars = vars
	s, err := Open(dir, o)
	if err != nil {
		return nil, nil, err
	}
	def, diags := s.Config.Evaluate(nil)
	if diags = append(s.Diags, diags...); diags.HasErrors() {
		s.Close()
		return nil, nil, fmt.Errorf("revision %s (%.12s): %w", rev, s.At().Hash, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()})
	}
	return s, def, nil
}
