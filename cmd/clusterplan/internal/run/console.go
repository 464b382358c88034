package run

import (
	"context"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// Console answers expressions about a definition, as it is with what the state
// knows. It locks nothing and asks no node.
type Console struct {
	Diags hcl.Diagnostics // warnings of the definition
	// Words are what an expression can begin with.
	Words []string

	def     *lang.Definition
	files   map[string]*hcl.File
	outputs map[string]cty.Value
}

// Console works the definition out. Errors of it are a *view.DiagnosticsError.
func (s *Session) Console(ctx context.Context) (*Console, error) {
	if err := s.ReadState(ctx); err != nil {
		return nil, err
	}
	if _, err := s.rename(""); err != nil {
		return nil, err
	}
	def, diags := s.Config.Evaluate(s.known())
	diags = append(s.Diags, diags...)
	if diags.HasErrors() {
		return nil, &view.DiagnosticsError{Diags: diags, Files: s.Config.Files()}
	}
	c := &Console{Diags: diags, Words: def.Words(), def: def, files: s.Config.Files(), outputs: map[string]cty.Value{}}
	for name, o := range s.Snap.State.Outputs {
		v := cty.DynamicVal
		if o.Sensitive { // the state doesn't keep it
			v = v.Mark(schema.Sensitive)
		} else if known, err := schema.Stored(o.Type, o.Value); err == nil {
			v = known
		}
		c.outputs[name] = v
		c.Words = append(c.Words, "output."+name)
	}
	return c, nil
}

// Ask works out one line. Its errors are a *view.DiagnosticsError.
func (c *Console) Ask(line string) (v cty.Value, onlyType bool, err error) {
	const name = "<console>"
	v, onlyType, diags := c.def.Ask(line, name, c.outputs)
	if diags.HasErrors() {
		files := map[string]*hcl.File{name: {Bytes: []byte(line)}}
		for other, f := range c.files {
			files[other] = f
		}
		return v, false, &view.DiagnosticsError{Diags: diags, Files: files}
	}
	return v, onlyType, nil
}
