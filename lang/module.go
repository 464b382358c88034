package lang

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A module is read once for each directory, however many blocks call it: its
// Config knows nothing of its callers. Where it stands in the definition is a
// site; a site has as many evaluations as its block has instances.

// Module is a module's directory.
type Module struct {
	FS fs.FS
	// Dir is its clean path from the root's directory: path.module. It tells
	// modules apart.
	Dir string
}

// Modules finds the module that a block with this source calls, in the module
// whose directory is from ("." is the root). Its error is a sentence or more,
// which ends with what to do.
type Modules func(source, from string) (Module, error)

// moduleCall is a module block.
type moduleCall struct {
	block     *block // for for_each and count
	source    string
	at        hcl.Range // of the source
	args      map[string]*expr
	names     map[string]hcl.Range // of the arguments
	dependsOn []trigger
	module    *Config // nil: it could not be read, which was told
}

// site is one place of a module in the definition.
type site struct {
	c     *Config
	path  string // module.a.module.b, "" for the root
	outer *site
	call  *moduleCall // nil: the root
	inner map[string]*site
}

// each visits a site and all within it.
func (at *site) each(f func(*site)) {
	f(at)
	for _, name := range sortedKeys(at.inner) {
		at.inner[name].each(f)
	}
}

// Arguments of a module block that are not the module's variables.
var moduleArguments = []string{"source", "version", "providers", "for_each", "count", "depends_on", "lifecycle"}

// moduleBlock reads a module block.
func (c *Config) moduleBlock(b *hcl.Block) hcl.Diagnostics {
	name := b.Labels[0]
	if first, ok := c.modules[name]; ok {
		return hcl.Diagnostics{duplicate(b, "module."+name, first.block.rng)}
	}
	call := &moduleCall{block: &block{kind: rootModule, name: name, rng: b.DefRange}, at: b.DefRange, args: map[string]*expr{}, names: map[string]hcl.Range{}}
	c.modules[name] = call
	attrs, diags := b.Body.JustAttributes()
	for _, arg := range sortedKeys(attrs) {
		a := attrs[arg]
		var more hcl.Diagnostics
		switch arg {
		case "source":
			call.at = a.Expr.Range()
			v, bad := constant(a.Expr)
			if bad.HasErrors() || v.IsNull() || v.Type() != cty.String || v.AsString() == "" {
				more = hcl.Diagnostics{errorAt(call.at, "Invalid source", `source is a literal string: a directory, as "./modules/web", or a git repository, as "git::https://example.com/modules.git//web?ref=v1.2.0". It is read before there are any values.`)}
			} else {
				call.source = v.AsString()
			}
		case "for_each":
			call.block.forEach, more = c.compile(a.Expr, true)
		case "count":
			call.block.count, more = c.compile(a.Expr, true)
		case "depends_on":
			call.dependsOn, more = moduleDependencies(a.Expr)
		case "version":
			more = hcl.Diagnostics{errorAt(a.NameRange, "No version here", "There is no registry of modules. Say which version with the source: git::URL//DIRECTORY?ref=v1.2.0.")}
		case "providers":
			more = hcl.Diagnostics{errorAt(a.NameRange, "No providers here", "A module uses the providers of the root. Remove this line.")}
		case "lifecycle":
			more = hcl.Diagnostics{errorAt(a.NameRange, "No lifecycle here", "A module has none. Put it into the module's blocks.")}
		default:
			call.args[arg], more = c.compile(a.Expr, true)
			call.names[arg] = a.NameRange
		}
		diags = append(diags, more...)
	}
	if _, ok := attrs["source"]; !ok {
		diags = append(diags, errorAt(b.DefRange, "Missing source", `A module block says where the module is: source = "./modules/`+name+`", or source = "git::URL//DIRECTORY?ref=v1.2.0".`))
	}
	if call.block.forEach != nil && call.block.count != nil {
		diags = append(diags, errorAt(call.block.count.Range(), "Both for_each and count", "A block is repeated by one of the two. Remove count, or for_each."))
		call.block.count = nil
	}
	return diags
}

// moduleDependencies reads depends_on of a module.
func moduleDependencies(e hcl.Expression) ([]trigger, hcl.Diagnostics) {
	elems, diags := hcl.ExprList(e)
	if diags.HasErrors() {
		return nil, hcl.Diagnostics{errorAt(e.Range(), "Invalid depends_on", "depends_on of a module is a list of objects and modules: [group.web, module.network].")}
	}
	var out []trigger
	for _, elem := range elems {
		at, more := literalAddress("depends_on", elem)
		switch {
		case more.HasErrors():
			diags = append(diags, more...)
		case at.Module != "" && at.Type != "":
			diags = append(diags, errorAt(elem.Range(), "Not an address", fmt.Sprintf("What is in a module is its own affair. Name the whole: %s.", at.Module)))
		case at.IsResource():
			diags = append(diags, errorAt(elem.Range(), "Not an address", fmt.Sprintf("A group is applied as a whole with its resources. Name the group: %s.", at.Owner())))
		default:
			out = append(out, trigger{Trigger{Addr: at}, elem.Range()})
		}
	}
	return out, diags
}

// readModules reads the modules that c calls. through are the directories of c
// and of those that call it, the root's first.
func (c *Config) readModules(through []string) hcl.Diagnostics {
	var diags hcl.Diagnostics
	var calls []*moduleCall
	for _, name := range sortedKeys(c.modules) {
		if call := c.modules[name]; call.source != "" {
			calls = append(calls, call)
		}
	}
	found := make([]foundModule, len(calls))
	begun := 0
	for i, call := range calls {
		for ; begun < len(calls) && begun < i+lookahead; begun++ {
			found[begun] = c.findModule(calls[begun].source)
		}
		diags = append(diags, c.readModule(call, found[i], through)...)
		if call.module == nil {
			c.root.unsound = true
		}
	}
	c.root.parts = append(c.root.parts, c)
	return diags
}

// foundModule is what Modules says of a call.
type foundModule struct {
	Module
	err error
}

// findModule finds a module, and has its files parsed while others are looked at.
func (c *Config) findModule(source string) foundModule {
	if c.opts.Modules == nil {
		return foundModule{}
	}
	m, err := c.opts.Modules(source, c.dir)
	if err != nil {
		return foundModule{err: err}
	}
	m.Dir = path.Clean(m.Dir)
	_, known := c.root.dirs[m.Dir]
	if r := c.root.reader; !known && r.ahead[m.Dir] == nil {
		o := c.moduleOptions(m)
		r.ahead[m.Dir] = openFiles(&o, r)
	}
	return foundModule{Module: m}
}

// moduleOptions are those that a module is read with.
func (c *Config) moduleOptions(m Module) Options {
	o := c.opts
	o.FS, o.Dir, o.Env, o.Vars = m.FS, path.Join(c.root.opts.Dir, m.Dir), nil, nil
	return o
}

func (c *Config) readModule(call *moduleCall, m foundModule, through []string) hcl.Diagnostics {
	if c.opts.Modules == nil {
		return hcl.Diagnostics{errorAt(call.at, "No modules here", fmt.Sprintf("The module %q can't be read in this place, which has one directory only.", call.source))}
	}
	if m.err != nil {
		return hcl.Diagnostics{errorAt(call.at, "Module not found", fmt.Sprintf("%s: %s.", call.block.ref(), strings.TrimSuffix(m.err.Error(), ".")))}
	}
	if i := slices.Index(through, m.Dir); i >= 0 {
		var b strings.Builder
		b.WriteString("A module can't hold itself, for there would be no end of it:\n")
		around := append(slices.Clone(through[i:]), m.Dir)
		for k := range around[1:] {
			fmt.Fprintf(&b, "  %s calls %s\n", around[k], around[k+1])
		}
		fmt.Fprintf(&b, "Remove %s, or have it call another module.", call.block.ref())
		return hcl.Diagnostics{errorAt(call.at, "Cycle of modules", b.String())}
	}
	if known, ok := c.root.dirs[m.Dir]; ok {
		call.module = known
		return nil
	}
	inner := newConfig(c.moduleOptions(m.Module))
	inner.root, inner.dir = c.root, m.Dir
	inner.files, inner.schemas, inner.shapes = c.files, c.schemas, c.shapes
	inner.functions = moduleFunctions(c.root.opts.FS, m.Module)
	ahead := c.root.reader.ahead
	diags := inner.read(ahead[m.Dir])
	delete(ahead, m.Dir)
	for _, d := range diags {
		if d.Subject == nil { // of the directory as a whole
			d.Subject = call.at.Ptr()
		}
	}
	call.module = inner
	c.root.dirs[m.Dir] = inner
	return append(diags, inner.readModules(append(slices.Clip(through), m.Dir))...)
}

// maxSites bounds how many places of modules a definition may have: a few
// files that call one another twice each are soon too many to count.
const maxSites = 100_000

// place finds the sites of the whole tree.
func (c *Config) place() hcl.Diagnostics {
	count := 0
	var place func(m *Config, outer *site, call *moduleCall) *site
	place = func(m *Config, outer *site, call *moduleCall) *site {
		count++
		at := &site{c: m, outer: outer, call: call, inner: map[string]*site{}}
		if call != nil {
			at.path = addr.JoinModules(outer.path, call.block.ref())
		}
		for _, name := range sortedKeys(m.modules) {
			if inner := m.modules[name]; inner.module != nil && count < maxSites {
				at.inner[name] = place(inner.module, at, inner)
			}
		}
		return at
	}
	c.top = place(c, nil, nil)
	if count < maxSites {
		return nil
	}
	c.unsound = true
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Too many modules", Detail: fmt.Sprintf("The definition has more than %d places of modules, each counted in every place of the module that calls it. Have fewer modules call others.", maxSites)}}
}

// onlyRoot are the blocks that a module can't have.
var onlyRoot = map[string]string{
	"clusterplan": "It says what holds for the whole definition.",
	"provider":    "A module uses the providers of the root.",
	"cluster":     "A definition is one cluster.",
}

// checkArguments compares a call's arguments with the module's variables.
func (c *Config) checkArguments(call *moduleCall) hcl.Diagnostics {
	m := call.module
	if m == nil || m.unparsedOwn {
		return nil
	}
	var diags hcl.Diagnostics
	for _, name := range sortedKeys(call.args) {
		if m.vars[name] == nil {
			known := append(sortedKeys(m.vars), moduleArguments...)
			has := "It has none."
			if len(m.vars) > 0 {
				has = "It has: " + strings.Join(sortedKeys(m.vars), ", ") + "."
			}
			diags = append(diags, errorAt(call.names[name], "Unknown argument", fmt.Sprintf("The module in %s has no variable %q.%s %s", m.opts.Dir, name, didYouMean("", name, known), has)))
		}
	}
	var missing []string
	for _, name := range sortedKeys(m.vars) {
		if v := m.vars[name]; v.deflt == cty.NilVal && call.args[name] == nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		first := m.vars[missing[0]]
		diags = append(diags, errorAt(call.block.rng, "Missing argument", fmt.Sprintf("The module in %s needs a value for %s (%s). Add %s = ... to this block.", m.opts.Dir, strings.Join(missing, ", "), first.rng, missing[0])))
	}
	for _, dep := range call.dependsOn {
		if d := c.checkDepends(dep); d != nil {
			diags = append(diags, d)
		}
	}
	return diags
}

// checkDepends finds a depends_on that names nothing.
func (c *Config) checkDepends(dep trigger) *hcl.Diagnostic {
	if dep.Addr.Type == "" {
		steps := addr.ModuleSteps(dep.Addr.Module)
		switch name := steps[0].Name; {
		case len(steps) > 1:
			return errorAt(dep.rng, "Not an address", fmt.Sprintf("What is in a module is its own affair. Name the whole: %s.", steps[0]))
		case c.modules[name] == nil && !c.torn.mayGive(name):
			return errorAt(dep.rng, "Unknown module", fmt.Sprintf("The definition has no module.%s.%s", name, didYouMean("module.", name, sortedKeys(c.modules))))
		}
		return nil
	}
	if c.blockAt(dep.Addr) == nil && !c.torn.mayGive(dep.Addr.Name) {
		return errorAt(dep.rng, "No such object", fmt.Sprintf("The definition has no %s.", dep.Addr))
	}
	return nil
}

// blockAt is the block of an address of this module, whatever its keys.
func (c *Config) blockAt(a addr.Address) *block {
	var b *block
	switch a.Type {
	case addr.TypeNode:
		b = c.nodes[a.Name]
	case addr.TypeFence:
		b = c.fences[a.Name]
	case addr.TypeGroup:
		b = c.groups[a.Name]
	case addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
		b = c.machinery[a.Type][a.Name]
	}
	if b != nil && a.IsResource() {
		return b.byName[a.Resource]
	}
	return b
}

// checkModuleRef finds what is wrong with module.NAME.OUTPUT.
func (c *Config) checkModuleRef(r *ref, s scope) *hcl.Diagnostic {
	if r.name == "" {
		return errorAt(r.rng, "Incomplete reference", `"module" alone is nothing; name what is meant, as module.NAME.OUTPUT.`)
	}
	call, ok := c.modules[r.name]
	if !ok {
		return unknownName(r, "module", sortedKeys(c.modules), "")
	}
	m := call.module
	if m == nil || c.torn.has(call.block.rng) {
		return nil // told where it is called
	}
	hasKey := r.key != cty.NilVal || r.keyExpr != nil
	repeated := call.block.repeated()
	switch {
	case hasKey && !repeated:
		return errorAt(r.rng, "No instances", fmt.Sprintf("%s has no for_each and no count, so it takes no key. Write %s.", call.block.ref(), call.block.ref()))
	case r.attr == "":
		return nil
	case repeated && !hasKey:
		if m.outputs[r.attr] != nil {
			return errorAt(r.rng, "Which instance?", fmt.Sprintf("%s has many instances. Write %s[KEY].%s, or [for m in %s : m.%s].", call.block.ref(), call.block.ref(), r.attr, call.block.ref(), r.attr))
		}
		if call.block.forEach != nil { // module.m.a is module.m["a"]
			r.key, r.attr = cty.StringVal(r.attr), ""
		}
		return nil
	}
	o := m.outputs[r.attr]
	switch {
	case o == nil && m.unparsedOwn:
		return nil
	case o == nil:
		has := " It has no outputs; what is in a module can be reached through them only."
		if len(m.outputs) > 0 {
			has = " It has: " + strings.Join(sortedKeys(m.outputs), ", ") + "."
		}
		return errorAt(*r.attrRng, "Unknown output", fmt.Sprintf("The module in %s has no output %q.%s%s", m.opts.Dir, r.attr, didYouMean("", r.attr, sortedKeys(m.outputs)), has))
	case o.runtime && !s.runtime:
		return errorAt(*r.attrRng, "Runtime attribute", fmt.Sprintf("The output %s of %s is something that only the running cluster knows. It can stand in a check, a postcondition or an output, nowhere else.", r.attr, call.block.ref()))
	}
	return nil
}

// outputsOf are the outputs that a reference to this module asks for.
func (c *Config) outputsOf(r *ref) []*output {
	if r.attr != "" {
		if o := c.outputs[r.attr]; o != nil {
			return []*output{o}
		}
	}
	out := make([]*output, 0, len(c.outputs))
	for _, name := range sortedKeys(c.outputs) {
		out = append(out, c.outputs[name])
	}
	return out
}
