package lang

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// Import is one object of an import block: what is there by ID, and the state
// doesn't have, becomes the definition's To.
type Import struct {
	To    addr.Address
	ID    string
	Range hcl.Range // the block's header
}

// importBlock is an import block that was read.
type importBlock struct {
	scope *block       // of its expressions: it has the for_each
	to    addr.Address // without the key that is worked out
	key   *expr        // nil: to has its own, or none
	id    *expr
	rng   hcl.Range
}

// importBlock reads an import block.
func (c *Config) importBlock(b *hcl.Block) hcl.Diagnostics {
	content, diags := contentIn(b, importBody)
	if a, ok := content.Attributes["provider"]; ok {
		diags = append(diags, errorAt(a.NameRange, "No provider here", "An import goes through the provider that its object has. Remove this line."))
	}
	if diags.HasErrors() {
		return diags
	}
	in := &importBlock{scope: &block{kind: "import", rng: b.DefRange}, rng: b.DefRange}
	var more hcl.Diagnostics
	in.id, more = c.compile(content.Attributes["id"].Expr, false)
	diags = append(diags, more...)
	if a, ok := content.Attributes["for_each"]; ok {
		in.scope.forEach, more = c.compileOver(a.Expr)
		diags = append(diags, more...)
	}
	to := content.Attributes["to"].Expr
	native, more := compile(to, true)
	diags = append(diags, more...)
	if diags.HasErrors() {
		return diags
	}
	at, key := target(native)
	if at == nil {
		return append(diags, errorAt(to.Range(), "Not an address", `to is the address of an object, written out: node.n1, node.n["a"], group.sql; with for_each its key may be each.key.`))
	}
	why := ""
	if in.to, why = importTo(at, key != nil); why == "" && key != nil && in.scope.forEach == nil {
		why = "Its key is worked out, which only a block with for_each may do. Write the key out."
	}
	if why != "" {
		return append(diags, errorAt(to.Range(), "Can't be imported", why))
	}
	if key != nil {
		in.key = &expr{Expression: key, id: c.exprs, refs: findRefs(key)}
		c.exprs++
	}
	c.imports = append(c.imports, in)
	return diags
}

// target takes the to of a block apart: an address, and behind it perhaps a key
// that has to be worked out.
func target(e hclsyntax.Expression) (hcl.Traversal, hclsyntax.Expression) {
	switch e := e.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		return e.Traversal, nil
	case *hclsyntax.IndexExpr:
		if at, ok := e.Collection.(*hclsyntax.ScopeTraversalExpr); ok {
			return at.Traversal, e.Key
		}
	}
	return nil, nil
}

// importTo is the address that an import goes to, or what is wrong with it.
func importTo(t hcl.Traversal, keyed bool) (addr.Address, string) {
	if t.RootName() == addr.TypeCluster {
		return addr.Cluster(), "What opens a cluster are its keys, and only its state holds these. Bring the state back: from a backup beside it, or with clusterplan state push."
	}
	a, why := addressOf(t)
	switch {
	case why != "":
	case a.IsModule():
		why = fmt.Sprintf("A module is no object. Import what is in it, one by one: %s.node.NAME, %s.group.NAME.", a, a)
	case a.IsResource():
		why = fmt.Sprintf("The cluster holds a group and its resources as one. Import %s: its resources come with it.", a.Owner())
	case keyed && !a.Key.IsNone():
		why = fmt.Sprintf("%s has a key already.", a)
	}
	return a, why
}

// checkImports checks what import blocks refer to: they are worked out before
// anything is known of the objects.
func (c *Config) checkImports() hcl.Diagnostics {
	var diags hcl.Diagnostics
	check := func(e *expr, s scope) {
		if e == nil || e.bad {
			return
		}
		for i := range e.refs {
			r := &e.refs[i]
			d := c.checkRef(r, s)
			if !slices.Contains([]string{rootVar, rootLocal, rootPath, rootEach, rootCount}, r.root) {
				d = errorAt(r.rng, "Reference not allowed here", "What is imported has to be known before anything else: an import block sees variables, local values and, with for_each, each.")
			}
			if d != nil {
				diags = append(diags, d)
				e.bad = true
			}
			e.perInstance = e.perInstance || r.root == rootEach
		}
	}
	for _, in := range c.imports {
		check(in.scope.forEach, scope{block: in.scope, forEach: true})
		check(in.key, scope{block: in.scope})
		check(in.id, scope{block: in.scope})
	}
	return diags
}

// imports works the import blocks out.
func (d *Definition) imports() {
	at := map[addr.Address]hcl.Range{}
	for _, ev := range d.ev.all {
		d.importsOf(ev, at)
	}
	slices.SortFunc(d.Imports, func(x, y Import) int { return addr.Compare(x.To, y.To) })
}

// importsOf works out those of one module; at are the blocks by what they import.
func (d *Definition) importsOf(ev *evaluation, at map[addr.Address]hcl.Range) {
	for _, b := range ev.c.imports {
		instances := []*instance{{ev: ev, block: b.scope}}
		if e := b.scope.forEach; e != nil {
			v, bad := ev.eval(e, nil)
			if bad {
				continue
			}
			keys, values, problem := forEachItems(b.scope, v)
			if problem != nil {
				ev.add(problem)
				continue
			}
			instances = nil
			for i, k := range keys {
				instances = append(instances, &instance{ev: ev, block: b.scope, vars: map[string]cty.Value{
					rootEach: cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(k), "value": values[i]})}})
			}
		}
		for _, in := range instances {
			one := Import{To: b.to.In(ev.path), Range: b.rng}
			if b.key != nil {
				key, ok := ev.importText(b.key, in, "key of to")
				if !ok {
					break
				}
				one.To.Key = addr.StringKey(key)
			}
			var ok bool
			if one.ID, ok = ev.importText(b.id, in, "id"); !ok {
				break
			}
			if first, twice := at[one.To]; twice {
				ev.add(errorAt(b.rng, "Imported twice", fmt.Sprintf("An import block for %s stands at %s already. Keep one of the two; where for_each repeats a block, its to needs a key that each gives.", one.To, first)))
				break
			}
			at[one.To] = b.rng
			d.Imports = append(d.Imports, one)
		}
	}
}

// importText is a text of an import block, which is shown in plans.
func (ev *evaluation) importText(e *expr, in *instance, what string) (string, bool) {
	v, bad := ev.eval(e, in)
	if bad {
		return "", false
	}
	if schema.IsSensitive(v) {
		ev.add(errorAt(e.Range(), "Sensitive import", fmt.Sprintf("The %s is shown in plans, and this is a sensitive value. Put nonsensitive() around it.", what)))
		return "", false
	}
	v, err := convert.Convert(v, cty.String)
	switch {
	case err != nil || v.IsKnown() && (v.IsNull() || v.AsString() == ""):
		ev.add(errorAt(e.Range(), "Invalid import", fmt.Sprintf("The %s is a text, and not an empty one.", what)))
		return "", false
	case !v.IsKnown():
		ev.add(errorAt(e.Range(), "Unknown import", fmt.Sprintf("The %s has to be known when planning. Use one that the definition itself knows.", what)))
		return "", false
	}
	return v.AsString(), true
}
