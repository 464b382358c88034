package lang

import (
	"fmt"
	"sort"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

const rootOutput = "output"

// Ask works out a line of a console. It sees what the definition's outputs see,
// and the outputs of the last apply as output.NAME. The address of a resource,
// which no expression can name from outside of its group, is the resource. The
// value has its marks. The second result says that the line asks for its type alone, with
// type(...), a function that only a console has.
func (d *Definition) Ask(line, file string, outputs map[string]cty.Value) (cty.Value, bool, hcl.Diagnostics) {
	var v cty.Value
	var onlyType bool
	var diags hcl.Diagnostics
	if !until(d.ev.c.opts.Stop, func() { v, onlyType, diags = d.ask(line, file, outputs) }) {
		return cty.DynamicVal, false, interrupted()
	}
	return v, onlyType, diags
}

func (d *Definition) ask(line, file string, outputs map[string]cty.Value) (v cty.Value, onlyType bool, diags hcl.Diagnostics) {
	if a, err := addr.Parse(line); err == nil && a.IsResource() {
		if o, ok := d.Object(a); ok {
			return o.Value, false, nil
		}
	}
	if d := numberBeyond([]byte(line), file, hcl.InitialPos, hclsyntax.LexExpression); d != nil {
		return cty.DynamicVal, false, hcl.Diagnostics{d}
	}
	e, diags := parseExpression([]byte(line), file, hcl.InitialPos)
	if diags.HasErrors() {
		return cty.DynamicVal, false, diags
	}
	loops(e, []byte(line), file)
	if call, ok := e.(*hclsyntax.FunctionCallExpr); ok && call.Name == "type" {
		if len(call.Args) != 1 || call.ExpandFinal {
			return cty.DynamicVal, false, hcl.Diagnostics{errorAt(call.Range(), "One argument", "type(...) takes one expression, and shows its type.")}
		}
		e, onlyType = call.Args[0], true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &expr{Expression: e, id: len(d.ev.memo)}
	for _, r := range findRefs(e) {
		if r.root != rootOutput {
			x.refs = append(x.refs, r)
			if bad := d.ev.c.checkRef(&x.refs[len(x.refs)-1], scope{}); bad != nil {
				diags = append(diags, bad)
			}
		} else if _, ok := outputs[r.name]; !ok && r.name != "" {
			diags = append(diags, errorAt(r.rng, "Unknown output", fmt.Sprintf("The last apply left no output %q.%s", r.name, didYouMean("output.", r.name, sortedKeys(outputs)))))
		}
	}
	if diags.HasErrors() {
		return cty.DynamicVal, false, diags
	}
	d.ev.memo = append(d.ev.memo, memo{})
	d.ev.root.Variables[rootOutput] = cty.ObjectVal(outputs)
	defer func() {
		d.ev.memo = d.ev.memo[:x.id]
		delete(d.ev.root.Variables, rootOutput)
	}()
	d.ev.diags = nil
	v, _ = d.ev.eval(x, nil)
	diags = d.ev.diags
	d.ev.diags = nil
	return withoutIdentity(v), onlyType, tidy(diags)
}

// Words are what a line of a console can begin with, in order: names of the
// definition, and functions with their opening bracket.
func (d *Definition) Words() []string {
	words := []string{"path.module", "path.root", "type("}
	for _, name := range FunctionNames() {
		words = append(words, name+"(")
	}
	for _, v := range d.Variables {
		words = append(words, rootVar+"."+v.Name)
	}
	for name := range d.ev.c.locals {
		words = append(words, rootLocal+"."+name)
	}
	for _, o := range d.Objects {
		if isObject(o.Addr.Type) {
			words = append(words, o.Addr.String())
		}
	}
	sort.Strings(words)
	return words
}
