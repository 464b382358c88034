package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Move is a moved block: what the state has at From is the definition's To.
type Move struct {
	From, To addr.Address
	Range    hcl.Range // the block's header

	site string // From and To are within the modules here
}

// within is an address in the module that a block stands in, as people write it.
type within struct {
	site string // without keys: it holds for all instances
	at   addr.Address
}

// Moves are a definition's moved blocks. The zero value moves nothing.
type Moves struct {
	list    []Move
	from    map[within]int // place in list
	modules []int          // those of whole modules
}

// None tells whether there are no moved blocks.
func (m *Moves) None() bool { return m == nil || len(m.list) == 0 }

// Final follows the blocks from a to where it is in the end. first is the
// block that moves it first, nil where it stays.
func (m *Moves) Final(a addr.Address) (to addr.Address, first *Move) {
	var seen []addr.Address
	for to = a; ; {
		next, by := m.step(to)
		if by == nil || slices.Contains(seen, next) { // a cycle is refused at load
			return to, first
		}
		if first == nil {
			first = by
		}
		seen = append(seen, to)
		to = next
	}
}

// step is one block's move. A block for all instances (no key on either side)
// keeps their keys; a group takes its resources along. What is said of one
// thing alone goes before what is said of all.
func (m *Moves) step(a addr.Address) (addr.Address, *Move) {
	to, by := a, (*Move)(nil)
	if len(m.list) == 0 {
		return to, nil
	}
	eachModule(a.Module, func(outer, rest string) bool {
		within := a
		within.Module = rest
		if to, by = m.stepIn(addr.WithoutModuleKeys(outer), within); by != nil {
			to = to.In(outer)
		}
		return by == nil
	})
	if by == nil {
		return a, nil
	}
	return to, by
}

// eachModule takes a module path apart at each of its modules, the root first,
// until f says no.
func eachModule(path string, f func(outer, rest string) bool) {
	if path == "" {
		f("", "")
		return
	}
	steps := addr.ModuleSteps(path)
	for i := range len(steps) + 1 {
		if !f(addr.ModulePath(steps[:i]), addr.ModulePath(steps[i:])) {
			return
		}
	}
}

// stepIn is step by the blocks of one module, in which a is.
func (m *Moves) stepIn(site string, a addr.Address) (addr.Address, *Move) {
	owner := a.Owner()
	bare := owner.WithoutKey()
	for _, o := range []addr.Address{owner, bare} {
		if !a.IsResource() {
			break
		}
		for _, key := range []addr.Key{a.ResourceKey, addr.NoKey} {
			i, ok := m.from[within{site, o.WithResource(a.Resource, key)}]
			if !ok {
				continue
			}
			to := m.list[i].To
			if o != owner {
				if !to.Key.IsNone() {
					continue
				}
				to.Key = a.Key
			}
			if key != a.ResourceKey {
				if !to.ResourceKey.IsNone() {
					continue
				}
				to.ResourceKey = a.ResourceKey
			}
			return to, &m.list[i]
		}
	}
	for _, o := range []addr.Address{owner, bare} {
		i, ok := m.from[within{site, o}]
		if !ok {
			continue
		}
		to := m.list[i].To
		if o != owner {
			if !to.Key.IsNone() {
				continue
			}
			to.Key = a.Key
		}
		return to.WithResource(a.Resource, a.ResourceKey), &m.list[i]
	}
	for _, i := range m.modules {
		move := &m.list[i]
		rest, ok := strings.CutPrefix(a.Module, move.From.Module)
		if move.site != site || !ok || !addr.ModuleCovers(move.From.Module, a.Module) {
			continue
		}
		if strings.HasPrefix(rest, "[") && strings.HasSuffix(move.To.Module, "]") {
			continue // of one instance of many
		}
		a.Module = move.To.Module + rest
		return a, move
	}
	return a, nil
}

// Moves are the moved blocks.
func (c *Config) Moves() *Moves { return &c.moves }

// Moves are the moved blocks.
func (d *Definition) Moves() *Moves { return &d.ev.c.moves }

// movedBlock reads a moved block.
func (c *Config) movedBlock(b *hcl.Block) hcl.Diagnostics {
	content, diags := contentIn(b, movedBody)
	m := Move{Range: b.DefRange}
	for _, end := range []struct {
		name string
		into *addr.Address
	}{{"from", &m.From}, {"to", &m.To}} {
		if a, ok := content.Attributes[end.name]; ok {
			address, more := literalAddress(end.name, a.Expr)
			diags = append(diags, more...)
			*end.into = address
		}
	}
	if diags.HasErrors() {
		return diags
	}
	switch {
	case m.From == m.To:
		return append(diags, errorAt(m.Range, "Moved to itself", fmt.Sprintf("from and to are both %s. Remove the block, or mend one of the two.", m.From)))
	case m.From.IsModule() && addr.ModuleCovers(m.From.Module, m.To.Module) && len(addr.ModuleSteps(m.From.Module)) < len(addr.ModuleSteps(m.To.Module)):
		return append(diags, errorAt(m.Range, "Moved into itself", fmt.Sprintf("%s lies within %s. Remove the block, or mend one of the two.", m.To, m.From)))
	case m.From.Type != m.To.Type || m.From.IsResource() != m.To.IsResource():
		return append(diags, errorAt(m.Range, "Moved to another type", fmt.Sprintf("%s is a %s, and %s is a %s. What changes its type is deleted and created: remove the block.", m.From, kindOf(m.From), m.To, kindOf(m.To))))
	}
	for i := range c.moved {
		switch other := &c.moved[i]; {
		case other.From == m.From:
			return append(diags, errorAt(m.Range, "Moved twice", fmt.Sprintf("By the block at %s, %s has moved to %s. Keep one of the two; for a name that changed again, move from %s.", other.Range, m.From, other.To, other.To)))
		case other.To == m.To:
			return append(diags, errorAt(m.Range, "Two are moved to one address", fmt.Sprintf("By the block at %s, %s has moved to %s as well, and only one can. Remove one of the two.", other.Range, other.From, m.To)))
		}
	}
	c.moved = append(c.moved, m)
	return diags
}

// gatherMoves makes one of the moved blocks of all modules.
func (c *Config) gatherMoves() {
	c.moves.from = map[within]int{}
	c.top.each(func(at *site) {
		for _, m := range at.c.moved {
			m.site = at.path
			c.moves.from[within{m.site, m.From}] = len(c.moves.list)
			if m.From.IsModule() {
				c.moves.modules = append(c.moves.modules, len(c.moves.list))
			}
			c.moves.list = append(c.moves.list, m)
		}
	})
}

func kindOf(a addr.Address) string {
	switch {
	case a.IsResource():
		return rootResource
	case a.IsModule():
		return rootModule
	}
	return a.Type
}

// checkMoves finds what is wrong with the moved blocks taken together.
func (c *Config) checkMoves() hcl.Diagnostics {
	var diags hcl.Diagnostics
	told := map[addr.Address]bool{} // stands in a cycle that was told
	for i := range c.moves.list {
		m := &c.moves.list[i]
		first := m.From.In(m.site)
		path, at := []addr.Address{first}, []*Move{}
		for {
			next, by := c.moves.step(path[len(path)-1])
			if by == nil {
				break
			}
			at = append(at, by)
			if next == first {
				if !slices.ContainsFunc(path, func(a addr.Address) bool { return told[a] }) {
					diags = append(diags, moveCycle(path, at))
				}
				for _, a := range path {
					told[a] = true
				}
				break
			}
			if slices.Contains(path, next) {
				break // told by one that stands in it
			}
			path = append(path, next)
		}
		if !m.From.IsResource() {
			continue
		}
		from, _ := c.moves.Final(m.From.In(m.site).Owner())
		if to, _ := c.moves.Final(m.To.In(m.site).Owner()); from != to {
			diags = append(diags, errorAt(m.Range, "Resource moved to another group", fmt.Sprintf("A resource stays in its group, which is applied as a whole and runs on one node: %s can't go to %s. Remove the block: the resource is deleted in the one group and created in the other. Where the whole group has another address, move the group.", m.From, m.To.Owner())))
		}
	}
	return diags
}

func moveCycle(path []addr.Address, at []*Move) *hcl.Diagnostic {
	var b strings.Builder
	b.WriteString("These moved blocks lead back to where they begin:\n")
	for i, a := range path {
		fmt.Fprintf(&b, "  %s to %s, at %s\n", a, path[(i+1)%len(path)], at[i].Range)
	}
	b.WriteString("Remove the ones that are over. To have two objects change places, do it in two applies, by way of a third address.")
	return errorAt(at[0].Range, "Cycle of moved blocks", b.String())
}

// checkMoved refuses blocks whose from the definition still has.
func (d *Definition) checkMoved() hcl.Diagnostics {
	moves := &d.ev.c.moves
	if moves.None() {
		return nil
	}
	there := declared(d.Objects)
	var diags hcl.Diagnostics
	for _, ev := range d.ev.all {
		for i := range ev.c.moved {
			m := &ev.c.moved[i]
			from, to := m.From.In(ev.path), m.To.In(ev.path)
			if m.From.IsModule() {
				all := !strings.HasSuffix(to.Module, "]")
				for _, other := range d.ev.all {
					if path := other.path; path == from.Module || all && withoutLastKey(path) == from.Module {
						diags = append(diags, errorAt(m.Range, "Moved module is still there", fmt.Sprintf("The definition has %s still, at %s, and by this block it has moved to %s. Remove one of the two.", path, other.call.block.rng, to)))
						break
					}
				}
				continue
			}
			all := m.To.Key.IsNone() && m.To.ResourceKey.IsNone()
			if o := there.find(from, all); o != nil {
				diags = append(diags, errorAt(m.Range, "Moved object is still there", fmt.Sprintf("The definition has %s still, at %s, and by this block it has moved to %s. Remove one of the two.", o.Addr, o.block.rng, to)))
			}
		}
	}
	return diags
}

// withoutLastKey is a module's path without the key of its own instance.
func withoutLastKey(path string) string {
	steps := addr.ModuleSteps(path)
	if len(steps) > 0 {
		steps[len(steps)-1].Key = addr.NoKey
	}
	return addr.ModulePath(steps)
}

// declaredObjects finds objects by address, and some instance by the address of its block.
type declaredObjects struct{ one, some map[addr.Address]*Object }

func declared(objects []Object) declaredObjects {
	d := declaredObjects{make(map[addr.Address]*Object, len(objects)), make(map[addr.Address]*Object, len(objects))}
	for i := range objects {
		o := &objects[i]
		d.one[o.Addr] = o
		d.some[o.Addr.WithoutKey()] = o
		if bare := o.Addr.WithoutKey(); bare.IsResource() {
			bare.Key = addr.NoKey
			d.some[bare] = o
		}
	}
	return d
}

// find is the object at a, or with all any instance of the block at a.
func (d declaredObjects) find(a addr.Address, all bool) *Object {
	if o := d.one[a]; o != nil {
		return o
	}
	if all {
		return d.some[a]
	}
	return nil
}

// literalAddress reads an object's address, which stands literally.
func literalAddress(name string, e hcl.Expression) (addr.Address, hcl.Diagnostics) {
	t, diags := hcl.AbsTraversalForExpr(e)
	if diags.HasErrors() {
		return addr.Address{}, hcl.Diagnostics{errorAt(e.Range(), "Not an address", name+` is the address of an object, written out: node.n1, node.n["a"], group.sql or group.sql.resource.vip.`)}
	}
	a, why := addressOf(t)
	if why != "" {
		return a, hcl.Diagnostics{errorAt(e.Range(), "Not an address", why)}
	}
	return a, nil
}

// addressOf is the address that a traversal names, or what is wrong with it.
// Of a whole module, the type is "".
func addressOf(t hcl.Traversal) (a addr.Address, why string) {
	a.Type = t.RootName()
	for a.Type == rootModule {
		name, key, rest, ok := nameAndKey(t[1:])
		if !ok {
			return a, `Behind module stands a name, and a key in brackets where there are several: module.NAME, module.NAME["KEY"].`
		}
		a.Module = addr.JoinModules(a.Module, addr.ModuleStep{Name: name, Key: key}.String())
		if len(rest) == 0 {
			a.Type = ""
			return a, ""
		}
		next, ok := rest[0].(hcl.TraverseAttr)
		if !ok {
			return a, fmt.Sprintf("Behind %s stands what is meant in it: node, fence, group, machine, network, volume, or a module.", a.Module)
		}
		a.Type, t = next.Name, rest
	}
	switch a.Type {
	case addr.TypeNode, addr.TypeFence, addr.TypeGroup, addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
	case addr.TypeCluster:
		return a, "There is one cluster, and its address is always the same. Change its label or its name in place."
	case rootResource:
		return a, "A resource's address begins with its group's: group.NAME.resource.NAME."
	default:
		return a, fmt.Sprintf("%q is no type of object. An address begins with node, fence, group, machine, network or volume.", a.Type)
	}
	rest := t[1:]
	var ok bool
	if a.Name, a.Key, rest, ok = nameAndKey(rest); !ok {
		return a, fmt.Sprintf("Behind %s stands a name, and a key in brackets where there are several: %s.NAME, %s.NAME[\"KEY\"].", a.Type, a.Type, a.Type)
	}
	if len(rest) == 0 {
		return a, ""
	}
	if word, isAttr := rest[0].(hcl.TraverseAttr); !isAttr || word.Name != rootResource || a.Type != addr.TypeGroup {
		return a, fmt.Sprintf("Nothing can follow %s here but, for a group, .resource.NAME.", a)
	}
	if a.Resource, a.ResourceKey, rest, ok = nameAndKey(rest[1:]); !ok || len(rest) > 0 {
		return a, "A resource's address is group.NAME.resource.NAME, with a key in brackets where there are several."
	}
	return a, ""
}

func nameAndKey(t hcl.Traversal) (name string, key addr.Key, rest hcl.Traversal, ok bool) {
	if len(t) == 0 {
		return "", key, nil, false
	}
	attr, ok := t[0].(hcl.TraverseAttr)
	if !ok {
		return "", key, nil, false
	}
	name, rest = attr.Name, t[1:]
	if len(rest) == 0 {
		return name, key, rest, true
	}
	index, isIndex := rest[0].(hcl.TraverseIndex)
	if !isIndex {
		return name, key, rest, true
	}
	switch index.Key.Type() {
	case cty.String:
		key = addr.StringKey(index.Key.AsString())
	case cty.Number:
		n, accuracy := index.Key.AsBigFloat().Int64()
		if accuracy != 0 || n < 0 || n > maxInstances {
			return name, key, rest, false
		}
		key = addr.IntKey(int(n))
	default:
		return name, key, rest, false
	}
	return name, key, rest[1:], true
}
