package lang

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Removed is a removed block: what becomes of what the state has at From, and
// the definition doesn't have any more.
type Removed struct {
	From    addr.Address
	Destroy bool      // false: it goes on, and the state forgets it
	Range   hcl.Range // the block's header

	site string // From is within the modules here
}

// removals are a definition's removed blocks.
type removals struct {
	list []Removed
	from map[within]int // place in list
}

// Removed is the removed block for an object that the definition doesn't have:
// its own, that of all instances of its block, or of a resource its group's.
// nil: there is none.
func (d *Definition) Removed(a addr.Address) *Removed {
	all := &d.ev.c.removals
	var found *Removed
	if len(all.list) == 0 {
		return nil
	}
	eachModule(a.Module, func(outer, rest string) bool {
		site, a := addr.WithoutModuleKeys(outer), a
		a.Module = rest
		for _, from := range []addr.Address{a, a.WithoutKey(), a.Owner(), a.Owner().WithoutKey()} {
			if i, ok := all.from[within{site, from}]; ok {
				found = &all.list[i]
				return false
			}
		}
		for i := range all.list {
			if r := &all.list[i]; r.site == site && r.From.IsModule() && r.From.Covers(a) {
				found = r
				return false
			}
		}
		return true
	})
	return found
}

// removedBlock reads a removed block, with destroy in a lifecycle block, as
// Terraform has it, or as its own attribute.
func (c *Config) removedBlock(b *hcl.Block) hcl.Diagnostics {
	content, diags := contentIn(b, removedBody)
	r := Removed{Destroy: true, Range: b.DefRange}
	if a, ok := content.Attributes["from"]; ok {
		var more hcl.Diagnostics
		r.From, more = literalAddress("from", a.Expr)
		diags = append(diags, more...)
	}
	given := content.Attributes["destroy"]
	for _, inner := range content.Blocks {
		lc, more := contentIn(inner, removedDestroy)
		diags = append(diags, more...)
		a, ok := lc.Attributes["destroy"]
		if ok && given != nil {
			diags = append(diags, errorAt(a.NameRange, "Duplicate destroy", fmt.Sprintf("destroy stands at %s already. Write it once.", given.NameRange)))
		} else if ok {
			given = a
		}
	}
	if given != nil {
		v, more := constant(given.Expr)
		diags = append(diags, more...)
		switch {
		case more.HasErrors():
		case v.IsNull() || v.Type() != cty.Bool:
			diags = append(diags, errorAt(given.Expr.Range(), "Invalid value", "destroy is true or false, literally: true deletes the object, false has it go on and only forgets it."))
		default:
			r.Destroy = v.True()
		}
	}
	if diags.HasErrors() {
		return diags
	}
	if r.From.IsResource() && !r.Destroy {
		return append(diags, errorAt(r.Range, "A resource can't be forgotten alone", fmt.Sprintf("%s is applied as a whole with its resources, so that what its block doesn't have stops. Forget the group, or leave the resource in it.", r.From.Owner())))
	}
	for i := range c.removed {
		if c.removed[i].From == r.From {
			return append(diags, errorAt(r.Range, "Removed twice", fmt.Sprintf("A removed block for %s stands at %s already. Remove one of the two.", r.From, c.removed[i].Range)))
		}
	}
	c.removed = append(c.removed, r)
	return diags
}

// gatherRemovals makes one of the removed blocks of all modules.
func (c *Config) gatherRemovals() {
	c.removals.from = map[within]int{}
	c.top.each(func(at *site) {
		for _, r := range at.c.removed {
			r.site = at.path
			c.removals.from[within{r.site, r.From}] = len(c.removals.list)
			c.removals.list = append(c.removals.list, r)
		}
	})
}

// checkRemovals finds what is both moved and removed.
func (c *Config) checkRemovals() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for i := range c.removals.list {
		r := &c.removals.list[i]
		if k, ok := c.moves.from[within{r.site, r.From}]; ok {
			m := &c.moves.list[k]
			diags = append(diags, errorAt(r.Range, "Both moved and removed", fmt.Sprintf("By the block at %s, %s has moved to %s. Remove one of the two blocks; to have it removed from there, name %s here.", m.Range, r.From, m.To, m.To)))
		}
	}
	return diags
}

// checkRemoved refuses blocks whose from the definition still has.
func (d *Definition) checkRemoved() hcl.Diagnostics {
	if len(d.ev.c.removals.list) == 0 {
		return nil
	}
	there := declared(d.Objects)
	var diags hcl.Diagnostics
	for _, ev := range d.ev.all {
		for i := range ev.c.removed {
			r := &ev.c.removed[i]
			from := r.From.In(ev.path)
			if from.IsModule() {
				if k := slices.IndexFunc(d.ev.all, func(other *evaluation) bool {
					return from.Module == other.path || from.Module == withoutLastKey(other.path)
				}); k >= 0 {
					diags = append(diags, errorAt(r.Range, "Removed module is still there", fmt.Sprintf("The definition has %s, at %s. Remove that block, or this one.", d.ev.all[k].path, d.ev.all[k].call.block.rng)))
				}
			} else if o := there.find(from, true); o != nil {
				diags = append(diags, errorAt(r.Range, "Removed object is still there", fmt.Sprintf("The definition has %s, at %s. Remove that block, or this one.", o.Addr, o.block.rng)))
			}
		}
	}
	return diags
}
