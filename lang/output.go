package lang

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
)

type output struct {
	name, description string
	rng               hcl.Range
	expr              *expr // nil after an error
	sensitive         bool
	preconditions     []condition
	dependsOn         []trigger // objects
	runtime           bool      // asks for what only the running cluster knows
}

func (c *Config) output(b *hcl.Block) hcl.Diagnostics {
	name := b.Labels[0]
	if first, ok := c.outputs[name]; ok {
		return hcl.Diagnostics{duplicate(b, "output."+name, first.rng)}
	}
	o := &output{name: name, rng: b.DefRange}
	c.outputs[name] = o
	content, diags := contentIn(b, outputBody)
	if a, ok := content.Attributes["value"]; ok {
		e, more := c.compile(a.Expr, false)
		diags = append(diags, more...)
		o.expr = e
	}
	literal := func(name string, ty cty.Type, want string) (v cty.Value, ok bool) {
		a, ok := content.Attributes[name]
		if !ok {
			return v, false
		}
		v, more := constant(a.Expr)
		if diags = append(diags, more...); more.HasErrors() {
			return v, false
		}
		if v.IsNull() || v.Type() != ty {
			diags = append(diags, errorAt(a.Expr.Range(), "Invalid value", want))
			return v, false
		}
		return v, true
	}
	if v, ok := literal("description", cty.String, "description is a literal string."); ok {
		o.description = v.AsString()
	}
	if v, ok := literal("sensitive", cty.Bool, "sensitive is true or false, literally."); ok {
		o.sensitive = v.True()
	}
	if a, ok := content.Attributes["depends_on"]; ok {
		diags = append(diags, o.dependencies(a.Expr)...)
	}
	for _, inner := range content.Blocks {
		cond, more := c.conditionBlock(inner)
		if diags = append(diags, more...); !more.HasErrors() {
			o.preconditions = append(o.preconditions, cond)
		}
	}
	return diags
}

// dependencies reads depends_on.
func (o *output) dependencies(e hcl.Expression) hcl.Diagnostics {
	elems, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		return hcl.Diagnostics{errorAt(e.Range(), "Invalid depends_on", "depends_on of an output is a list of objects: [group.web, node.n1].")}
	}
	for _, elem := range elems {
		t, more := hcl.AbsTraversalForExpr(elem)
		if more.HasErrors() {
			diags = append(diags, errorAt(elem.Range(), "Not an object", `depends_on of an output names objects of the definition, written out: node.n["a"], group.web.`))
			continue
		}
		at, why := addressOf(t)
		if why != "" {
			diags = append(diags, errorAt(elem.Range(), "Not an object", why))
			continue
		}
		o.dependsOn = append(o.dependsOn, trigger{Trigger{Addr: at}, elem.Range()})
	}
	return diags
}

func (d *Definition) outputs() {
	var there declaredObjects
	for _, name := range sortedKeys(d.ev.c.outputs) {
		o := d.ev.c.outputs[name]
		out := Output{Name: name, Sensitive: o.sensitive, Description: o.description, Range: o.rng, Value: cty.DynamicVal}
		if o.expr != nil {
			v, _ := d.ev.outputValue(o)
			marked := schema.IsSensitive(v)
			v, _ = v.UnmarkDeep()
			out.Value = v
			if schema.TooDeep(v.Type()) {
				d.ev.add(errorAt(o.expr.Range(), "Output nested too deep", fmt.Sprintf("Lists and objects of an output lie in one another %d levels deep at most: a state keeps no more. Take a part of the value, or encode it with jsonencode().", schema.MaxDepth)))
				out.Value = cty.DynamicVal
			}
			if marked && !o.sensitive {
				d.ev.add(errorAt(o.expr.Range(), "Output of a sensitive value", "The value has sensitive parts, and outputs are printed. Add sensitive = true to the output, or use nonsensitive() on what may be shown."))
				out.Sensitive = true
			}
			out.Runtime = o.runtime
		}
		for _, dep := range o.dependsOn {
			if dep.Addr.IsModule() {
				for _, e := range d.ev.dependEdges(nil, dep.Addr) {
					out.DependsOn = append(out.DependsOn, e.To)
				}
				continue
			}
			if there.one == nil {
				there = declared(d.Objects)
			}
			if there.find(dep.Addr, true) == nil {
				d.ev.add(errorAt(dep.rng, "No such object", fmt.Sprintf("The definition has no %s.", dep.Addr)))
			}
			out.DependsOn = append(out.DependsOn, dep.Addr)
		}
		d.Outputs = append(d.Outputs, out)
	}
}

// outputValue works out an output. Where it asks for runtime attributes,
// nodes and groups have them, unknown.
func (ev *evaluation) outputValue(o *output) (cty.Value, bool) {
	v, bad := ev.outputSeen(o)
	return withoutIdentity(v), bad
}

// outputSeen is an output's value with who nodes and groups are.
func (ev *evaluation) outputSeen(o *output) (cty.Value, bool) {
	if !o.runtime {
		return ev.eval(o.expr, nil)
	}
	if o.expr.bad {
		return cty.DynamicVal, true
	}
	ctx, ok := ev.sight(o.expr, nil, cty.NilVal)
	if !ok {
		return cty.DynamicVal, true
	}
	v, diags := o.expr.Value(ctx)
	if diags.HasErrors() && !ev.tainted(o.expr) {
		ev.add(discreet(diags, o.expr, ctx)...)
		return cty.DynamicVal, true
	}
	return v, diags.HasErrors()
}
