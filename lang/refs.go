package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Runtime attributes: only the running cluster knows them, and only checks,
// postconditions and outputs may ask for them.
var runtimeAttributes = map[string][]string{
	rootGroup: {"state", "owner"},
	rootNode:  {"state"},
}

// scope is where an expression stands.
type scope struct {
	block    *block // cluster, node, group or resource; nil: at the root
	forEach  bool   // it is the block's own for_each or count
	identity bool   // see attribute.identity
	runtime  bool   // an output, a check or a postcondition
	only     string // what else may not be referred to, "" or why
	// Of a condition:
	condition string            // its kind
	self      bool              // self may be named
	refuse    map[string]string // roots that may not be named, and why
}

// checkRefs checks every reference of the definition against what there is,
// and works out which expressions have a value for each instance.
func (c *Config) checkRefs() hcl.Diagnostics {
	var diags hcl.Diagnostics
	check := func(e *expr, s scope) {
		if e == nil || e.bad {
			return
		}
		for i := range e.refs {
			r := &e.refs[i]
			if d := c.checkRef(r, s); d != nil {
				if !strings.HasPrefix(d.Summary, "Unknown ") || !c.torn.mayGive(r.name) {
					diags = append(diags, d)
				}
				e.bad = true
			}
			switch r.root {
			case rootEach, rootGroupEach, rootCount:
				e.perInstance = true
			case rootResource:
				e.resources = true
				// Of one that isn't repeated, the name is the same in every instance.
				e.perInstance = e.perInstance || !s.identity || s.block.parent != nil && s.block.parent.byName[r.name] != nil && s.block.parent.byName[r.name].repeated()
			}
		}
	}
	literalOnly := func(why string) scope { return scope{only: why} }
	for _, name := range sortedKeys(c.modules) {
		call := c.modules[name]
		check(call.block.forEach, scope{block: call.block, forEach: true})
		check(call.block.count, scope{block: call.block, forEach: true})
		for _, arg := range sortedKeys(call.args) {
			check(call.args[arg], scope{block: call.block})
		}
		diags = append(diags, c.checkArguments(call)...)
	}
	for _, name := range sortedKeys(c.vars) {
		for _, v := range c.vars[name].validations {
			check(v.condition, literalOnly("A validation sees variables and local values only."))
			check(v.message, literalOnly("A validation sees variables and local values only."))
		}
	}
	for _, name := range sortedKeys(c.locals) {
		check(c.locals[name].expr, scope{})
	}
	for _, name := range sortedKeys(c.providers) {
		c.providers[name].body.each(func(a *attribute) {
			check(a.expr, literalOnly("A provider is configured before anything is applied, from variables and local values."))
		})
	}
	c.eachBlock(func(b *block) {
		check(b.forEach, scope{block: b, forEach: true})
		check(b.count, scope{block: b, forEach: true})
		b.body.each(func(a *attribute) {
			check(a.expr, scope{block: b, identity: a.identity})
		})
		b.body.settle()
		for _, dep := range b.dependsOn {
			if d := c.checkDepends(dep); d != nil {
				diags = append(diags, d)
			}
		}
		b.eachCondition(func(cond *condition) {
			check(cond.condition, conditionScope(b, cond.kind))
			check(cond.text, conditionScope(b, cond.kind))
		})
	})
	for _, name := range sortedKeys(c.outputs) {
		o := c.outputs[name]
		check(o.expr, scope{runtime: true})
		o.runtime = o.expr != nil && c.asksRuntime(o.expr)
		for _, dep := range o.dependsOn {
			if dep.Addr.IsModule() || c != c.root { // the root's are looked up among the objects
				if d := c.checkDepends(dep); d != nil {
					diags = append(diags, d)
				}
			}
		}
		for _, cond := range c.outputs[name].preconditions {
			check(cond.condition, scope{runtime: true})
			check(cond.text, scope{runtime: true})
		}
	}
	for _, name := range sortedKeys(c.checks) {
		for _, cond := range c.checks[name].asserts {
			check(cond.condition, scope{runtime: true})
			check(cond.text, scope{runtime: true})
		}
	}
	return diags
}

// eachBlock visits the blocks that are objects, resources behind their group,
// and guarantees.
func (c *Config) eachBlock(f func(*block)) {
	if c.cluster != nil {
		f(c.cluster)
	}
	for _, kind := range []string{addr.TypeNetwork, addr.TypeVolume, addr.TypeMachine} {
		for _, name := range sortedKeys(c.machinery[kind]) {
			f(c.machinery[kind][name])
		}
	}
	for _, name := range sortedKeys(c.nodes) {
		f(c.nodes[name])
	}
	for _, name := range sortedKeys(c.fences) {
		f(c.fences[name])
	}
	for _, name := range sortedKeys(c.groups) {
		f(c.groups[name])
		for _, r := range c.groups[name].resources {
			f(r)
		}
	}
	for _, name := range sortedKeys(c.guarantees) {
		f(c.guarantees[name])
	}
}

func unknownName(r *ref, what string, known []string, detail string) *hcl.Diagnostic {
	return errorAt(r.rng, "Unknown "+what, fmt.Sprintf("The definition has no %s.%s.%s%s", r.root, r.name, didYouMean(r.root+".", r.name, known), detail))
}

// checkRef finds what is wrong with one reference, and settles what its steps mean.
func (c *Config) checkRef(r *ref, s scope) *hcl.Diagnostic {
	incomplete := func(example string) *hcl.Diagnostic {
		return errorAt(r.rng, "Incomplete reference", fmt.Sprintf("%q alone is nothing; name what is meant, as %s.", r.root, example))
	}
	if s.only != "" && r.root != rootVar && r.root != rootLocal && r.root != rootPath {
		return errorAt(r.rng, "Reference not allowed here", s.only)
	}
	if why := s.refuse[r.root]; why != "" {
		return errorAt(r.rng, "Reference not allowed here", why)
	}
	switch r.root {
	case rootVar:
		if r.name == "" {
			return incomplete("var.NAME")
		}
		if _, ok := c.vars[r.name]; !ok {
			return unknownName(r, "variable", sortedKeys(c.vars), fmt.Sprintf(" To declare it, add variable %q {}.", r.name))
		}
	case rootLocal:
		if r.name == "" {
			return incomplete("local.NAME")
		}
		if _, ok := c.locals[r.name]; !ok {
			return unknownName(r, "local value", sortedKeys(c.locals), "")
		}
	case rootPath:
		if r.name != "module" && r.name != "root" {
			return errorAt(r.rng, "Unknown reference", "There are path.module and path.root.")
		}
	case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
		if r.name == "" {
			return incomplete(r.root + ".NAME")
		}
		all := c.objects(r.root)
		b, ok := all[r.name]
		if !ok {
			return unknownName(r, r.root, sortedKeys(all), "")
		}
		if d := s.ofItself(r, b); d != nil {
			return d
		}
		return c.checkSteps(r, b, s)
	case rootModule:
		return c.checkModuleRef(r, s)
	case rootResource:
		g := s.block
		if g != nil && g.kind == rootResource {
			g = g.parent
		}
		if g == nil || g.kind != addr.TypeGroup || s.block == g {
			return errorAt(r.rng, "Reference not allowed here", "resource.NAME means a resource of the same group, and stands within the group's resource blocks only.")
		}
		if r.name == "" {
			return incomplete("resource.NAME")
		}
		b, ok := g.byName[r.name]
		if !ok {
			return errorAt(r.rng, "Unknown resource", fmt.Sprintf("Group %s has no resource.%s.%s A resource and what it depends on are in one group.%s", g.name, r.name, didYouMean("resource.", r.name, sortedKeys(g.byName)), c.elsewhere(g, r.name)))
		}
		return c.checkSteps(r, b, s)
	case rootEach, rootCount:
		if s.block == nil || s.forEach {
			return errorAt(r.rng, "Reference not allowed here", fmt.Sprintf("%s means the instance of a block that has for_each or count.", r.root))
		}
		if r.root == rootEach && s.block.forEach == nil {
			hint := "Add for_each, or remove this."
			if s.block.parent != nil && s.block.parent.forEach != nil {
				hint = "For the group's, write group_each."
			}
			return errorAt(r.rng, "No for_each here", fmt.Sprintf("each means the instance of a block with for_each, and this %s has none. %s", s.block.kind, hint))
		}
		if r.root == rootCount && s.block.count == nil {
			return errorAt(r.rng, "No count here", fmt.Sprintf("count.index means the instance of a block with count, and this %s has none. Add count, or remove this.", s.block.kind))
		}
		if r.root == rootEach && r.name != "key" && r.name != "value" {
			return errorAt(r.rng, "Unknown reference", "each has each.key and each.value.")
		}
		if r.root == rootCount && r.name != "index" {
			return errorAt(r.rng, "Unknown reference", "count has count.index.")
		}
	case rootSelf:
		return s.checkSelf(r)
	case rootGroupEach:
		if s.block == nil || s.block.parent == nil || !s.block.parent.repeated() {
			return errorAt(r.rng, "Reference not allowed here", "group_each means the instance of the group that a resource stands in, where the group has for_each or count.")
		}
		if r.name != "key" && r.name != "value" {
			return errorAt(r.rng, "Unknown reference", "group_each has group_each.key and group_each.value.")
		}
	default:
		return c.unknownRoot(r)
	}
	return nil
}

func (c *Config) unknownRoot(r *ref) *hcl.Diagnostic {
	for _, known := range []struct {
		root   string
		exists bool
	}{
		{rootNode, c.nodes[r.root] != nil}, {rootGroup, c.groups[r.root] != nil}, {rootMachine, c.machinery[rootMachine][r.root] != nil},
		{rootNetwork, c.machinery[rootNetwork][r.root] != nil}, {rootVolume, c.machinery[rootVolume][r.root] != nil},
		{rootVar, c.vars[r.root] != nil}, {rootLocal, c.locals[r.root] != nil}, {rootModule, c.modules[r.root] != nil},
	} {
		if known.exists && r.name == "" {
			return errorAt(r.rng, "Unknown reference", fmt.Sprintf("%q alone means nothing. Did you mean %s.%s?", r.root, known.root, r.root))
		}
	}
	switch r.root {
	case "fence":
		return errorAt(r.rng, "Reference to a fence", "Nothing refers to a fence: it names the nodes that it covers, with nodes = [node.NAME].")
	case "data":
		return errorAt(r.rng, "No data sources", "There are none to ask. What only the running cluster knows are group.NAME.state, group.NAME.owner and node.NAME.state.")
	case "guarantee":
		return errorAt(r.rng, "Reference to a guarantee", "Nothing refers to a guarantee: it names the groups that it is about, with groups = [group.NAME].")
	}
	return errorAt(r.rng, "Unknown reference", fmt.Sprintf("Nothing is called %q.%s References start with %s; text needs quotes.", r.root, didYouMean("", r.root, roots), strings.Join(roots, ", ")))
}

// checkSteps checks what stands behind node.NAME, group.NAME, resource.NAME.
func (c *Config) checkSteps(r *ref, b *block, s scope) *hcl.Diagnostic {
	if c.torn.has(b.rng) {
		return nil // nobody knows what it has
	}
	hasKey := r.key != cty.NilVal || r.keyExpr != nil
	if hasKey && !b.repeated() {
		return errorAt(r.rng, "No instances", fmt.Sprintf("%s has no for_each and no count, so it takes no key. Write %s.", b.ref(), b.ref()))
	}
	if r.attr == "" {
		return nil
	}
	known := referable(b)
	if b.repeated() && !hasKey {
		for _, name := range known {
			if name == r.attr {
				return errorAt(r.rng, "Which instance?", fmt.Sprintf("%s has many instances. Write %s[KEY].%s, or [for x in %s : x.%s].", b.ref(), b.ref(), r.attr, b.ref(), r.attr))
			}
		}
		if b.forEach != nil { // node.n.a is node.n["a"]
			r.key, r.attr = cty.StringVal(r.attr), ""
		}
		return nil
	}
	if s.identity && (r.root == rootGroup || r.root == rootResource) {
		return errorAt(*r.attrRng, "Reference to an attribute", fmt.Sprintf("A list of %ss names the %ss themselves. Write %s without .%s.", b.kind, b.kind, b.ref(), r.attr))
	}
	for _, name := range runtimeAttributes[r.root] {
		if name == r.attr {
			if s.runtime {
				return nil
			}
			return errorAt(*r.attrRng, "Runtime attribute", fmt.Sprintf("Only the running cluster knows the %s of a %s. It can stand in a check, a postcondition or an output, nowhere else.", r.attr, b.kind))
		}
	}
	for _, name := range known {
		if name == r.attr {
			return nil
		}
	}
	if b.schema.Name == "" {
		return nil // of an unknown type, which was told
	}
	return errorAt(*r.attrRng, "Unknown attribute", fmt.Sprintf("%s has no attribute %q.%s It has: %s.", b.ref(), r.attr, didYouMean("", r.attr, known), strings.Join(known, ", ")))
}

// referable are the attributes and blocks that an expression may ask for:
// all but the lists that only order what runs.
func referable(b *block) []string {
	var names []string
	for _, a := range b.schema.Attributes {
		if !orders(b, a) {
			names = append(names, a.Name)
		}
	}
	for _, n := range b.schema.Blocks {
		names = append(names, n.Name)
	}
	return names
}

func orders(b *block, a spec.Attribute) bool {
	return a.Type == spec.TypeGroupRefs || b.kind == rootResource && (a.Name == "depends_on" || a.Name == "depends_on_any")
}

// elsewhere says what to do with a resource that is in another group than g.
func (c *Config) elsewhere(g *block, name string) string {
	for _, other := range sortedKeys(c.groups) {
		if o := c.groups[other]; o != g && o.byName[name] != nil {
			return fmt.Sprintf(" Group %s has one of this name: move one of the two resources, or have the group wait for that one with depends_on = [%s] beside its resources.", o.name, o.ref())
		}
	}
	return ""
}
