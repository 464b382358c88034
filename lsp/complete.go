package lsp

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// completions collects what can stand at a place.
type completions struct {
	*server
	spot
	place
	items []completionItem
	seen  map[string]bool
}

func (s *server) completion(at spot) (*completionList, error) {
	c := &completions{server: s, spot: at, place: placeAt(at.doc, at.offset), items: []completionItem{}, seen: map[string]bool{}}
	switch {
	case isVars(at.path):
		c.vars()
	case c.kind == atItem:
		c.item()
	case c.kind == atLabel:
		c.labels()
	case c.kind == atValue:
		c.value()
	}
	return &completionList{Items: c.items}, nil
}

func isVars(path string) bool { return strings.HasSuffix(path, varsSuffix) }

// add offers text in place of the word at the cursor. Items are shown in the
// order of rank, then of their names.
func (c *completions) add(rank int, i completionItem, text string) {
	if c.seen[i.Label] {
		return
	}
	c.seen[i.Label] = true
	w := c.word
	if c.quoted {
		w = c.str
	}
	i.SortText = fmt.Sprintf("%d%s", rank, i.Label)
	i.TextEdit = &textEdit{c.doc.textRange(w.start, w.end, c.enc), text}
	c.items = append(c.items, i)
}

// item offers attributes and blocks that the block can still have.
func (c *completions) item() {
	t := c.typeOf(c.path, c.block)
	if t == nil || strings.HasSuffix(c.path, scenarioSuffix) {
		return
	}
	taken := map[string]bool{}
	for _, a := range c.block.attrs {
		if a.name.start != c.word.start {
			taken[a.name.text] = true
		}
	}
	for _, b := range c.block.blocks {
		if b.start != c.word.start {
			taken[b.typ] = true
		}
	}
	rest := lineRest(c.doc, c.word.end)
	bare := strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, "{") || strings.HasPrefix(rest, `"`) // only the name is to be changed
	for _, a := range t.Attributes {
		if taken[a.Name] || a.Computed {
			continue
		}
		rank, text := 1, a.Name+" = "
		if a.Required {
			rank = 0
		}
		if bare {
			text = a.Name
		}
		c.add(rank, completionItem{Label: a.Name, Kind: itemProperty, Detail: typeText(&a), Documentation: markdown(attributeText(&a))}, text)
	}
	for _, b := range t.Blocks {
		if taken[b.Name] && !b.Repeated {
			continue
		}
		i := completionItem{Label: b.Name, Kind: itemKeyword, Detail: "block", Documentation: markdown(b.Doc)}
		text := b.Name
		switch {
		case bare:
		case c.snippets:
			i.Format = 2
			for n, label := range b.Labels {
				text += fmt.Sprintf(` "${%d:%s}"`, n+1, label)
			}
			text += " {\n  $0\n}"
		default:
			for range b.Labels {
				text += ` ""`
			}
			text += " {\n}"
		}
		c.add(2, i, text)
	}
}

// lineRest is what follows on the line, without blanks before it.
func lineRest(d *document, from int) string {
	end := d.lineEnd(int(d.position(from, utf8s).Line))
	return strings.TrimLeft(string(d.text[from:max(from, end)]), " \t")
}

// labels offers the types that a block's first label chooses among.
func (c *completions) labels() {
	if c.block.parent == nil || c.label != 0 {
		return
	}
	around := c.typeOf(c.path, c.block.parent)
	if around == nil {
		return
	}
	if t := around.Block(c.block.typ); t != nil {
		for _, typ := range t.Types {
			c.add(0, completionItem{Label: typ.Name, Kind: itemValue, Detail: c.block.typ + " type", Documentation: markdown(typ.Doc)}, typ.Name)
		}
	}
}

// value offers what an expression can go on with.
func (c *completions) value() {
	a := c.attributeOf(c.path, c.block, c.attr.name.text)
	if c.quoted {
		if a != nil {
			for _, v := range a.Values {
				c.add(0, completionItem{Label: v, Kind: itemValue, Detail: a.Name}, v)
			}
		}
		return
	}
	if len(c.steps) > 0 {
		c.reference(a)
		return
	}
	all := c.names(filepath.Dir(c.path))
	wanted := c.wanted(a)
	if a != nil {
		for _, v := range a.Values {
			c.add(0, completionItem{Label: v, Kind: itemValue, Detail: a.Name, FilterText: v}, `"`+v+`"`)
		}
		switch a.Type {
		case spec.TypeBool:
			for _, v := range []string{"true", "false"} {
				c.add(0, completionItem{Label: v, Kind: itemKeyword}, v)
			}
		case lang.TypeText:
			for _, v := range typeWords {
				c.add(0, completionItem{Label: v, Kind: itemKeyword, Detail: "type"}, v)
			}
			return
		case lang.TypeNames:
			c.attributeNames()
			return
		}
		if a.Name == "provider" && c.block.typ != "provider" {
			for _, name := range sortedNames(c.conf.Language.Providers) {
				c.add(0, completionItem{Label: name, Kind: itemKeyword, Detail: "provider", Documentation: markdown(c.conf.Language.Providers[name].Doc)}, name)
			}
			return
		}
	}
	group := c.block.within("group")
	for i := range all {
		d := &all[i]
		rank := slices.Index(wanted, d.Kind)
		text := d.Kind + "." + d.Name
		switch {
		case rank < 0:
			continue
		case d.Kind == "resource" && a != nil && (a.Type == lang.TypeAddress || a.Type == lang.TypeAddrs):
			text = "group." + d.Group + "." + text
		case d.Kind == "resource" && (group == nil || d.Group != group.label(len(group.labels)-1) || d.block == objectOf(c.block)):
			continue
		case d.block == objectOf(c.block) && d.Kind != "var" && d.Kind != "local":
			continue // nothing refers to itself
		}
		c.add(1+rank, c.named(d, text), text)
	}
	if a != nil && a.Type == lang.TypeAddress {
		return
	}
	for _, root := range c.roots() {
		c.add(7, completionItem{Label: root.name, Kind: itemKeyword, Documentation: markdown(root.doc)}, root.name)
	}
	for _, f := range lang.Functions() {
		text := f.Name + "("
		if strings.HasPrefix(lineRest(c.doc, c.word.end), "(") {
			text = f.Name
		}
		c.add(8, completionItem{Label: f.Name, Kind: itemFunction, Detail: f.Signature, Documentation: markdown(f.Doc)}, text)
	}
}

var typeWords = []string{"string", "number", "bool", "any", "list(string)", "set(string)", "map(string)", "object({})", "tuple([])", "optional(string)", "node", "group", "network", "machine", "volume"}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

// wanted are the kinds of names that an attribute takes, best first.
func (c *completions) wanted(a *spec.Attribute) []string {
	plain := []string{"var", "local", "module"}
	if a == nil {
		return plain
	}
	switch a.Type {
	case spec.TypeNodeRefs:
		return append([]string{"node"}, plain...)
	case spec.TypeGroupRefs:
		return append([]string{"group"}, plain...)
	case lang.TypeAddress:
		return []string{"group", "node", "fence", "resource", "machine", "network", "volume"}
	case lang.TypeAddrs:
		return []string{"group", "node", "fence", "resource", "machine", "network", "volume"}
	}
	if kind, _ := a.Type.Refers(); kind != "" {
		return append([]string{kind}, plain...)
	}
	if c.block.typ == "resource" && strings.HasPrefix(a.Name, "depends_on") {
		return []string{"resource"}
	}
	return plain
}

func (c *completions) named(d *declared, label string) completionItem {
	i := completionItem{Label: label, Kind: itemReference, Detail: d.title(), Documentation: markdown(d.about())}
	if d.Kind == "var" || d.Kind == "local" {
		i.Kind = itemVariable
	}
	if d.Kind == "module" {
		i.Kind = itemModule
	}
	return i
}

// attributeNames offers the attributes of the object around a lifecycle block.
func (c *completions) attributeNames() {
	if o := objectOf(c.block); o != nil {
		if t := c.typeOf(c.path, o); t != nil {
			for _, a := range t.Attributes {
				if !a.Computed && a.Name != "name" && a.Name != "provider" && a.Name != "for_each" && a.Name != "count" {
					c.add(0, completionItem{Label: a.Name, Kind: itemProperty, Documentation: markdown(attributeText(&a))}, a.Name)
				}
			}
		}
	}
	c.add(1, completionItem{Label: "all", Kind: itemKeyword}, "all")
}

type root struct{ name, doc string }

// roots are the words that references can begin with here.
func (c *completions) roots() []root {
	out := []root{
		{"var", "Variables: var.NAME."}, {"local", "Local values: local.NAME."},
		{"node", "Nodes: node.NAME, node.NAME[\"KEY\"]."}, {"group", "Groups: group.NAME."},
		{"machine", "Machines: machine.NAME, machine.NAME[\"KEY\"]."}, {"network", "Networks of machines: network.NAME."}, {"volume", "Volumes of machines: volume.NAME."},
		{"module", "Outputs of modules: module.NAME.OUTPUT."}, {"path", "path.module, path.root."},
	}
	object := objectOf(c.block)
	if object == nil {
		if c.block.attr("for_each") != nil {
			out = append(out, root{"each", "The instance: each.key, each.value."})
		}
		return out
	}
	if object.attr("for_each") != nil {
		out = append(out, root{"each", "The instance: each.key, each.value."})
	}
	if object.attr("count") != nil {
		out = append(out, root{"count", "The instance: count.index."})
	}
	if object.typ == "resource" {
		out = append(out, root{"resource", "Resources of the same group: resource.NAME."})
		if g := object.parent; g.attr("for_each") != nil || g.attr("count") != nil {
			out = append(out, root{"group_each", "The group's instance: group_each.key, group_each.value."})
		}
	}
	if c.block.typ == "postcondition" {
		out = append(out, root{"self", "The object itself."})
	}
	return out
}

// reference goes on with the names that stand before the cursor.
func (c *completions) reference(a *spec.Attribute) {
	all := c.names(filepath.Dir(c.path))
	fields := func(names ...string) {
		for _, name := range names {
			c.add(0, completionItem{Label: name, Kind: itemField}, name)
		}
	}
	first := c.steps[0]
	address := a != nil && (a.Type == lang.TypeAddress || a.Type == lang.TypeAddrs)
	if len(c.steps) == 1 {
		switch first {
		case "each", "group_each":
			fields("key", "value")
			return
		case "count":
			fields("index")
			return
		case "path":
			fields("module", "root")
			return
		case "self":
			if o := objectOf(c.block); o != nil {
				c.attributes(o.typ, c.typeOf(c.path, o), true)
			}
			return
		}
		group := c.block.within("group")
		for i := range all {
			d := &all[i]
			if d.Kind != first || d.Kind == "resource" && (group == nil || d.Group != group.label(len(group.labels)-1)) || d.attr == nil && d.block == objectOf(c.block) {
				continue
			}
			c.add(0, c.named(d, d.Name), d.Name)
		}
		return
	}
	symbol := lang.Symbol{Kind: first, Name: c.steps[1]}
	if first == "resource" {
		if g := c.block.within("group"); g != nil {
			symbol.Group = g.label(len(g.labels) - 1)
		}
	}
	d := find(all, symbol)
	if d == nil {
		return
	}
	switch {
	case first == "module" && len(c.steps) == 2:
		dir := c.moduleDir(filepath.Dir(d.path), d.doc, d.block)
		if dir == "" || !c.serves(dir) {
			return
		}
		for _, o := range c.names(dir) {
			if o.Kind == "output" {
				c.add(0, completionItem{Label: o.Name, Kind: itemField, Detail: o.title(), Documentation: markdown(o.about())}, o.Name)
			}
		}
	case first == "group" && len(c.steps) == 3 && c.steps[2] == "resource":
		for i := range all {
			if all[i].Kind == "resource" && all[i].Group == d.Name {
				c.add(0, c.named(&all[i], all[i].Name), all[i].Name)
			}
		}
	case first == "node" || first == "group" || first == "resource" || first == "machine" || first == "network" || first == "volume":
		t := c.typeOf(d.path, d.block)
		for _, step := range c.steps[2:] {
			if t != nil {
				t = t.Block(step)
			}
		}
		if address && first == "group" && len(c.steps) == 2 {
			fields("resource")
		}
		c.attributes(first, t, len(c.steps) == 2)
	}
}

// attributes offers what can be asked of an object or a block in it.
func (c *completions) attributes(kind string, t *lang.BlockType, whole bool) {
	if t == nil {
		return
	}
	for _, a := range t.Attributes {
		if a.Type == spec.TypeGroupRefs || a.Name == "for_each" || a.Name == "count" || kind == "resource" && strings.HasPrefix(a.Name, "depends_on") {
			continue
		}
		c.add(0, completionItem{Label: a.Name, Kind: itemField, Detail: typeText(&a), Documentation: markdown(attributeText(&a))}, a.Name)
	}
	for _, b := range t.Blocks {
		if b.Name != "lifecycle" && b.Name != "resource" {
			c.add(1, completionItem{Label: b.Name, Kind: itemField, Documentation: markdown(b.Doc)}, b.Name)
		}
	}
	if !whole || c.block.within("output") == nil && c.block.within("check") == nil && c.block.within("postcondition") == nil {
		return
	}
	for _, name := range lang.RuntimeAttributes(kind) {
		c.add(0, completionItem{Label: name, Kind: itemField, Detail: "string", Documentation: markdown("Known to the running cluster only.")}, name)
	}
}

// vars offers, in a file of values, the variables that have none there yet.
func (c *completions) vars() {
	if c.kind == atItem && c.block.parent == nil {
		for _, d := range c.names(filepath.Dir(c.path)) {
			if d.Kind == "var" && (c.block.attr(d.Name) == nil || c.block.attr(d.Name).name.start == c.word.start) {
				text := d.Name + " = "
				if strings.HasPrefix(lineRest(c.doc, c.word.end), "=") {
					text = d.Name
				}
				c.add(0, completionItem{Label: d.Name, Kind: itemVariable, Detail: string(variableType(&d)), Documentation: markdown(d.about())}, text)
			}
		}
	}
	if c.kind == atValue && c.block.parent == nil && !c.quoted {
		d := find(c.names(filepath.Dir(c.path)), lang.Symbol{Kind: "var", Name: c.attr.name.text})
		if d != nil && variableType(d) == spec.TypeBool {
			for _, v := range []string{"true", "false"} {
				c.add(0, completionItem{Label: v, Kind: itemKeyword}, v)
			}
		}
	}
}
