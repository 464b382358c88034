package lang

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// ValueOf works out an expression of a file that goes with the definition (a
// scenario): var, local, node and group mean what they mean in the definition's
// outputs. What is wrong with it is told as it would be there.
func (d *Definition) ValueOf(e hclsyntax.Expression) (cty.Value, hcl.Diagnostics) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := &expr{Expression: e, id: len(d.ev.memo), refs: findRefs(e)}
	d.ev.memo = append(d.ev.memo, memo{})
	defer func() { d.ev.memo = d.ev.memo[:x.id] }()
	var diags hcl.Diagnostics
	for i := range x.refs {
		if bad := d.ev.c.checkRef(&x.refs[i], scope{}); bad != nil {
			diags = append(diags, bad)
		}
	}
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	d.ev.diags = nil
	v, _ := d.ev.eval(x, nil)
	diags = d.ev.diags
	d.ev.diags = nil
	return v, tidy(diags)
}

// NamedIn lists the objects that a value is, or holds: a node, a list of
// groups, all instances of a block. False: it holds something else as well.
func NamedIn(v cty.Value) ([]addr.Address, bool) {
	v, _ = v.Unmark()
	if a, ok := identityOf(v); ok {
		return []addr.Address{a}, true
	}
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return nil, false
	}
	var out []addr.Address
	for it := v.ElementIterator(); it.Next(); {
		_, elem := it.Element()
		some, ok := NamedIn(elem)
		if !ok {
			return nil, false
		}
		out = append(out, some...)
	}
	return out, true
}
