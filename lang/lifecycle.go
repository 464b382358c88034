package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Trigger names what makes an object anew when it changes: another object, or
// one attribute of it. Without a key it means all instances.
type Trigger struct {
	Addr      addr.Address
	Attribute string // "": any
}

// lifecycle reads a block's lifecycle block.
func (c *Config) lifecycle(b *block, src *hcl.Block) hcl.Diagnostics {
	if b.lifecycle != nil {
		return hcl.Diagnostics{errorAt(src.DefRange, "Duplicate lifecycle block", fmt.Sprintf("A lifecycle block stands here already, at %s. Put both into one.", *b.lifecycle))}
	}
	b.lifecycle = &src.DefRange
	content, diags := contentIn(src, lifecycleBody)
	for _, inner := range content.Blocks {
		cond, more := c.conditionBlock(inner)
		if diags = append(diags, more...); !more.HasErrors() {
			b.conditions = append(b.conditions, cond)
		}
	}
	literal := func(name string) (bool, *hcl.Attribute) {
		a, ok := content.Attributes[name]
		if !ok {
			return false, nil
		}
		v, more := constant(a.Expr)
		diags = append(diags, more...)
		if more.HasErrors() {
			return false, nil
		}
		if v.IsNull() || v.Type() != cty.Bool {
			diags = append(diags, errorAt(a.Expr.Range(), "Invalid value", name+" is true or false, literally."))
			return false, nil
		}
		return v.True(), a
	}
	b.preventDestroy, _ = literal("prevent_destroy")
	if before, a := literal("create_before_destroy"); before {
		diags = append(diags, errorAt(a.Expr.Range(), "Can't be there twice", b.notTwice()))
	}
	if a, ok := content.Attributes["ignore_changes"]; ok {
		diags = append(diags, b.ignoreChanges(a.Expr)...)
	}
	if a, ok := content.Attributes["replace_triggered_by"]; ok {
		diags = append(diags, b.replaceTriggeredBy(a)...)
	}
	return diags
}

// notTwice says why an object of this kind can't be made before the old one
// is gone, and what to do instead.
func (b *block) notTwice() string {
	switch b.kind {
	case addr.TypeNode:
		return "A node's name and address are unique in the cluster, so that the new one can't join under them before the old one has left. Give the new node a label of its own and remove the old one's block: an apply has new nodes join before old ones leave."
	case addr.TypeCluster:
		return "A cluster is never made anew in place. Leave the line out."
	case rootResource:
		return "A resource runs on one node at a time, its group's owner, and holds what only one can hold. Leave the line out; what changes in it is stopped, then started."
	}
	return fmt.Sprintf("A %s's name is unique in the cluster, and what it holds can't be held twice. Leave the line out, or give the new one a label of its own.", b.kind)
}

// ignoreChanges reads what the definition says at create and never again.
func (b *block) ignoreChanges(e hcl.Expression) hcl.Diagnostics {
	if hcl.ExprAsKeyword(e) == "all" {
		for _, a := range b.schema.Attributes {
			if !a.Computed && !fixed(a.Name) {
				b.ignore = append(b.ignore, cty.GetAttrPath(a.Name))
			}
		}
		for _, inner := range b.schema.Blocks {
			b.ignore = append(b.ignore, cty.GetAttrPath(inner.Name))
		}
		return nil
	}
	elems, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		return hcl.Diagnostics{errorAt(e.Range(), "Invalid ignore_changes", "ignore_changes is a list of attributes, without quotes: [description, labels[\"rack\"], failover.mode]; or all.")}
	}
	for _, elem := range elems {
		t, more := hcl.RelTraversalForExpr(elem)
		if more.HasErrors() {
			diags = append(diags, errorAt(elem.Range(), "Not an attribute", "ignore_changes names attributes of the block, without quotes, as description, labels[\"rack\"] or failover.mode."))
			continue
		}
		path, why := b.attributePath(t)
		if why != "" {
			diags = append(diags, errorAt(elem.Range(), "Can't be ignored", why))
			continue
		}
		b.ignore = append(b.ignore, path)
	}
	return diags
}

// fixed are attributes that say who or where an object is: others go by them.
func fixed(name string) bool { return name == "name" || name == "provider" }

// attributePath finds a traversal's steps in the block's schema.
func (b *block) attributePath(t hcl.Traversal) (path cty.Path, why string) {
	attrs, blocks := b.schema.Attributes, b.schema.Blocks
	for i, step := range t {
		s, ok := step.(hcl.TraverseAttr)
		if !ok {
			return nil, "Only an element of a map can be named: labels[\"rack\"]. Of a list, ignore the whole."
		}
		path = append(path, cty.GetAttrStep{Name: s.Name})
		if k := slices.IndexFunc(blocks, func(n spec.Block) bool { return n.Name == s.Name }); k >= 0 {
			if blocks[k].Repeated && i < len(t)-1 {
				return nil, fmt.Sprintf("%s can stand several times. Ignore all of them: %s.", s.Name, s.Name)
			}
			attrs, blocks = blocks[k].Attributes, blocks[k].Blocks
			continue
		}
		k := slices.IndexFunc(attrs, func(a spec.Attribute) bool { return a.Name == s.Name })
		switch {
		case k < 0:
			var known []string
			for _, a := range attrs {
				known = append(known, a.Name)
			}
			for _, n := range blocks {
				known = append(known, n.Name)
			}
			return nil, fmt.Sprintf("There is no attribute %s here.%s It has: %s.", s.Name, didYouMean("", s.Name, known), strings.Join(known, ", "))
		case attrs[k].Computed:
			return nil, fmt.Sprintf("%s is worked out by an apply; the definition says nothing of it that could be ignored.", s.Name)
		case i == 0 && fixed(s.Name):
			return nil, fmt.Sprintf("By its %s others find the object, so that it has to be what the definition says.", s.Name)
		}
		rest := t[i+1:]
		if len(rest) == 0 {
			return path, ""
		}
		key, ok := rest[0].(hcl.TraverseIndex)
		if !ok || len(rest) > 1 || key.Key.Type() != cty.String || attrs[k].Type != spec.TypeStringMap && attrs[k].Type != spec.TypeQuantities {
			return nil, fmt.Sprintf("Behind %s can only stand the key of a map, in brackets and quotes. Of a list, ignore the whole.", s.Name)
		}
		return append(path, cty.IndexStep{Key: key.Key}), ""
	}
	return path, ""
}

// replaceTriggeredBy reads what has the object made anew when it changes.
func (b *block) replaceTriggeredBy(a *hcl.Attribute) hcl.Diagnostics {
	if b.kind == addr.TypeCluster {
		return hcl.Diagnostics{errorAt(a.NameRange, "Can't be replaced", "A cluster is never made anew in place. Leave the line out.")}
	}
	elems, diags := hcl.ExprList(a.Expr)
	if diags.HasErrors() {
		return hcl.Diagnostics{errorAt(a.Expr.Range(), "Invalid replace_triggered_by", "replace_triggered_by is a list of objects, or of their attributes: [group.web, node.n1.zone].")}
	}
	for _, elem := range elems {
		wrong := func(why string) {
			diags = append(diags, errorAt(elem.Range(), "Not an object or attribute", why))
		}
		t, more := hcl.AbsTraversalForExpr(elem)
		if more.HasErrors() {
			wrong(`replace_triggered_by names objects of the definition, or an attribute of one, written out: node.n["a"], group.web, group.web.description.`)
			continue
		}
		tr := Trigger{}
		// An attribute stands last, where no resource's name does.
		if last, ok := t[len(t)-1].(hcl.TraverseAttr); ok && len(t) > 2 && !namesResource(t) {
			tr.Attribute, t = last.Name, t[:len(t)-1]
		}
		var why string
		if tr.Addr, why = addressOf(t); why == "" && tr.Addr.Module != "" {
			why = "What is in a module is its own affair. Name an object of this directory."
		}
		if why != "" {
			wrong(why)
			continue
		}
		b.triggers = append(b.triggers, trigger{tr, elem.Range()})
	}
	return diags
}

// namesResource tells whether a traversal ends in group.NAME.resource.NAME.
func namesResource(t hcl.Traversal) bool {
	at := len(t) - 2
	if at < 2 || t.RootName() != addr.TypeGroup {
		return false
	}
	word, ok := t[at].(hcl.TraverseAttr)
	return ok && word.Name == rootResource && (at == 2 || at == 3)
}

// trigger is a Trigger with where it stands.
type trigger struct {
	Trigger
	rng hcl.Range
}

// checkTriggers finds triggers that name nothing of the definition.
func (d *Definition) checkTriggers() hcl.Diagnostics {
	var diags hcl.Diagnostics
	var there declaredObjects
	for _, ev := range d.ev.all {
		diags = append(diags, d.checkTriggersIn(ev, &there)...)
	}
	return diags
}

func (d *Definition) checkTriggersIn(ev *evaluation, there *declaredObjects) hcl.Diagnostics {
	var diags hcl.Diagnostics
	ev.c.eachBlock(func(b *block) {
		for _, tr := range b.triggers {
			if there.one == nil {
				*there = declared(d.Objects)
			}
			tr.Addr = tr.Addr.In(ev.path)
			o := there.find(tr.Addr, true)
			if o == nil {
				diags = append(diags, errorAt(tr.rng, "No such object", fmt.Sprintf("The definition has no %s.", tr.Addr)))
				continue
			}
			if tr.Attribute != "" && !o.Value.Type().HasAttribute(tr.Attribute) {
				var known []string
				for name := range o.Value.Type().AttributeTypes() {
					known = append(known, name)
				}
				slices.Sort(known)
				diags = append(diags, errorAt(tr.rng, "No such attribute", fmt.Sprintf("%s has no attribute %s.%s", tr.Addr, tr.Attribute, didYouMean("", tr.Attribute, known))))
			}
		}
	})
	return diags
}
