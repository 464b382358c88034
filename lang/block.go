package lang

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

type local struct {
	name string
	rng  hcl.Range
	expr *expr
}

type providerDecl struct {
	name string
	rng  hcl.Range
	body *body
}

// block is a cluster, node, group or resource block.
type block struct {
	kind   string // addr.TypeCluster, TypeNode, TypeFence, TypeGroup, TypeGuarantee, TypeMachine, TypeNetwork, TypeVolume, or "resource"
	name   string
	typ    string // a resource's type
	rng    hcl.Range
	schema *spec.Schema
	parent *block // a resource's group

	forEach, count *expr
	body           *body
	provider       string // the keyword of a node, or of machinery
	preventDestroy bool
	ignore         []cty.Path // ignore_changes
	triggers       []trigger  // replace_triggered_by
	conditions     []condition
	lifecycle      *hcl.Range // of the block
	providerRange  *hcl.Range // of its keyword
	dependsOn      []trigger  // of a node or of machinery
	unmade         bool       // of machinery: nobody knows its provider, which was told

	resources []*block // a group's, in the order of the file
	byName    map[string]*block
	order     []*block // resources in the order of their references to one another
}

// noSchema is that of what nobody knows the type of.
var noSchema spec.Schema

func (b *block) repeated() bool { return b.forEach != nil || b.count != nil }

// ref is how the block is written in an expression.
func (b *block) ref() string {
	if b.kind == rootResource {
		return "resource." + b.name
	}
	if b.kind == addr.TypeCluster {
		return "cluster"
	}
	return b.kind + "." + b.name
}

// body is the contents of a block by a schema: each attribute and each nested
// block of the schema has its place, given or not.
type body struct {
	attrs  []attribute
	blocks []nested

	// Worked out once the references are known (settle):
	vary       []int // attributes that differ by instance
	varyBlocks []int // nested blocks that have such
	lists      bool  // has lists that only order what runs
	varyLists  bool  // that differ by instance
}

// settle finds what differs by instance.
func (b *body) settle() {
	for i := range b.attrs {
		switch a := &b.attrs[i]; {
		case a.identity && a.expr != nil:
			b.lists = true
			b.varyLists = b.varyLists || a.expr.perInstance
		case a.identity:
		case a.Computed || a.expr != nil && a.expr.perInstance:
			b.vary = append(b.vary, i)
		}
	}
	for i := range b.blocks {
		varies := false
		for _, inner := range b.blocks[i].bodies() {
			inner.settle()
			varies = varies || len(inner.vary)+len(inner.varyBlocks) > 0
		}
		for _, l := range b.blocks[i].all {
			varies = varies || l.dynamic != nil
		}
		if varies {
			b.varyBlocks = append(b.varyBlocks, i)
		}
	}
}

// varying are the names of what differs by instance.
func (b *body) varying() []string {
	var names []string
	for _, i := range b.vary {
		names = append(names, b.attrs[i].Name)
	}
	for _, i := range b.varyBlocks {
		names = append(names, b.blocks[i].Name)
	}
	return names
}

// given are the names of what the definition gives, and of what a provider works out.
func (b *body) given() []string {
	var names []string
	for i := range b.attrs {
		if a := &b.attrs[i]; a.expr != nil || a.Computed {
			names = append(names, a.Name)
		}
	}
	for i := range b.blocks {
		if len(b.blocks[i].bodies()) > 0 {
			names = append(names, b.blocks[i].Name)
		}
	}
	return names
}

// defaults is the value of a body that gives nothing.
func (b *body) defaults() cty.Value {
	out := make(map[string]cty.Value, len(b.attrs)+len(b.blocks))
	for i := range b.attrs {
		out[b.attrs[i].Name] = b.attrs[i].deflt
	}
	for i := range b.blocks {
		out[b.blocks[i].Name] = b.blocks[i].deflt
	}
	return cty.ObjectVal(out)
}

type attribute struct {
	*attributeShape
	expr *expr // nil: not given
}

// labelled is one of a block that is repeated, or a dynamic block of any.
type labelled struct {
	label   string
	body    *body
	rng     hcl.Range
	dynamic *dynamic
}

// bodies are what stands in the definition, once or repeated.
func (n *nested) bodies() []*body {
	var out []*body
	if n.body != nil {
		out = append(out, n.body)
	}
	for _, l := range n.all {
		out = append(out, l.body)
	}
	return out
}

// Names that the language has and this version doesn't run, by block.
var (
	laterAttributes = map[string]map[string]string{}
	laterBlocks     = map[string]map[string]string{
		"cluster": {"fence": "Leave it out; leases alone keep two nodes from owning a group."},
		"node":    {"fence": "Leave it out."},
		"group":   {"fence": "Leave it out."},
	}
)

// compileBody reads a block's contents by a schema. What stands beside the
// schema (for_each, lifecycle, resource) is named in more, and returned.
func (c *Config) compileBody(name string, in hcl.Body, attrs []spec.Attribute, blocks []spec.Block, more *hcl.BodySchema) (*body, *content, hcl.Diagnostics) {
	shape := c.shapeOf(name, attrs, blocks, more)
	content, diags := shape.contentOf(in)
	for i, d := range diags {
		diags[i] = explain(d, name, attrs)
	}
	for _, later := range sortedKeys(laterAttributes[name]) {
		if _, rng, ok := content.attr(later); ok {
			diags = append(diags, notYet(rng, later, laterAttributes[name][later]))
		}
	}
	out := &body{attrs: make([]attribute, len(attrs)), blocks: make([]nested, len(blocks))}
	for i, a := range attrs {
		at := attribute{attributeShape: &shape.attrs[i]}
		if src, rng, ok := content.attr(a.Name); ok {
			if a.Computed {
				diags = append(diags, errorAt(rng, "Attribute can't be set", fmt.Sprintf("%s is worked out by an apply. Remove this line.", a.Name)))
			} else if a.Name != "provider" || !hasProvider(name) { // a keyword
				refers, _ := a.Type.Refers()
				wantRef := at.identity || refers != ""
				e, more := c.compile(src, wantRef)
				diags = append(diags, more...)
				if list, ok := src.(*hclsyntax.TupleConsExpr); ok {
					e.Expression = c.leave(list, e)
				}
				at.expr = e
			}
		}
		out.attrs[i] = at
	}
	for i := range blocks {
		out.blocks[i] = nested{&shape.blocks[i], &absent}
	}
	for _, src := range content.blocks {
		if src.Type == addr.TypeFence && name != "provider" {
			diags = append(diags, errorAt(src.DefRange, "Fence in the wrong place", "A fence block stands at the root, beside nodes and groups: fence \"NAME\" { agent = ..., nodes = [node.NAME] }. Move it there."))
			continue
		}
		if instead, ok := laterBlocks[name][src.Type]; ok {
			diags = append(diags, notYet(src.DefRange, "The "+src.Type+" block", instead))
			continue
		}
		if src.Type == "dynamic" {
			diags = append(diags, c.dynamicBlock(name, out, src)...)
			continue
		}
		for i := range out.blocks {
			n := &out.blocks[i]
			if n.Name != src.Type {
				continue
			}
			if n.Repeated {
				diags = append(diags, c.repeatedBlock(n, src)...)
				continue
			}
			if n.body != nil {
				diags = append(diags, errorAt(src.DefRange, "Duplicate "+src.Type+" block", fmt.Sprintf("A %s block stands here already, at %s. Put both into one.", src.Type, n.rng)))
				continue
			}
			inner, _, more := c.compileBody(src.Type, src.Body, n.Attributes, n.Blocks, &hcl.BodySchema{})
			diags = append(diags, more...)
			given := n.given()
			given.body, given.rng = inner, src.DefRange
		}
	}
	return out, content, diags
}

// repeatedBlock reads one of a block that may stand several times.
func (c *Config) repeatedBlock(n *nested, src *hcl.Block) hcl.Diagnostics {
	l := labelled{rng: src.DefRange}
	if n.Label != "" {
		l.label = src.Labels[0]
		for _, other := range n.all {
			if other.label == l.label && other.dynamic == nil {
				return hcl.Diagnostics{errorAt(src.DefRange, "Duplicate "+src.Type+" block", fmt.Sprintf("%s %q stands here already, at %s. Rename one of the two.", src.Type, l.label, other.rng))}
			}
		}
	}
	var diags hcl.Diagnostics
	l.body, _, diags = c.compileBody(src.Type, src.Body, unlabelled(n.Block), n.Blocks, &hcl.BodySchema{})
	n.given().all = append(n.all, l)
	return diags
}

// unlabelled are the attributes that stand in the block's body.
func unlabelled(b spec.Block) []spec.Attribute {
	if b.Label == "" {
		return b.Attributes
	}
	var out []spec.Attribute
	for _, a := range b.Attributes {
		if a.Name != b.Label {
			out = append(out, a)
		}
	}
	return out
}

// explain says what the words of hcl's own diagnostics leave open.
func explain(d *hcl.Diagnostic, name string, attrs []spec.Attribute) *hcl.Diagnostic {
	if d.Summary == "Missing required argument" {
		for _, a := range attrs {
			if a.Required && strings.Contains(d.Detail, fmt.Sprintf("%q", a.Name)) {
				d.Summary = "Missing " + a.Name
				d.Detail = fmt.Sprintf("This %s block needs %s: %s", name, a.Name, a.Doc)
			}
		}
	}
	if d.Summary == "Unsupported argument" && !strings.Contains(d.Detail, "Did you mean") && len(attrs) > 0 {
		var names []string
		for _, a := range attrs {
			if !a.Computed {
				names = append(names, a.Name)
			}
		}
		d.Detail += fmt.Sprintf(" This %s block takes: %s.", name, strings.Join(names, ", "))
	}
	return d
}

// ranges lists where the attributes and blocks of a block stand, by path:
// "command", "failover", "failover.mode". Only what is wrong asks for it.
func (b *block) ranges() map[string]hcl.Range {
	out := map[string]hcl.Range{}
	rangesOf(b.body, "", out)
	if b.forEach != nil {
		out["for_each"] = b.forEach.Range()
	}
	if b.count != nil {
		out["count"] = b.count.Range()
	}
	if b.providerRange != nil {
		out["provider"] = *b.providerRange
	}
	return out
}

// rangesOf adds those of a body, whose path is prefix.
func rangesOf(b *body, prefix string, into map[string]hcl.Range) {
	for _, a := range b.attrs {
		if a.expr != nil {
			into[prefix+a.Name] = a.expr.Range()
		}
	}
	for _, n := range b.blocks {
		if n.body != nil {
			into[prefix+n.Name] = n.rng
			rangesOf(n.body, prefix+n.Name+".", into)
		}
		for _, l := range n.all {
			if _, ok := into[prefix+n.Name]; !ok {
				into[prefix+n.Name] = l.rng
			}
			if l.dynamic != nil && !n.Repeated {
				rangesOf(l.body, prefix+n.Name+".", into)
			}
			if l.label != "" {
				into[prefix+n.Name+"."+l.label] = l.rng
			}
		}
	}
}

func (b *body) each(f func(*attribute)) {
	if b == nil {
		return
	}
	for i := range b.attrs {
		if b.attrs[i].expr != nil {
			f(&b.attrs[i])
		}
	}
	for i := range b.blocks {
		for _, inner := range b.blocks[i].bodies() {
			inner.each(f)
		}
		for _, l := range b.blocks[i].all {
			if l.dynamic != nil {
				l.dynamic.each(f)
			}
		}
	}
}

func (b *body) attr(name string) *attribute {
	for i := range b.attrs {
		if b.attrs[i].Name == name {
			return &b.attrs[i]
		}
	}
	return nil
}

func (c *Config) localsBlock(b *hcl.Block) hcl.Diagnostics {
	attrs, diags := b.Body.JustAttributes()
	for _, name := range sortedKeys(attrs) {
		a := attrs[name]
		if first, ok := c.locals[name]; ok {
			diags = append(diags, errorAt(a.NameRange, "Duplicate local value", fmt.Sprintf("local.%s is already defined at %s. Rename one of the two.", name, first.rng)))
			continue
		}
		e, more := c.compile(a.Expr, false)
		diags = append(diags, more...)
		c.locals[name] = &local{name: name, rng: a.NameRange, expr: e}
	}
	return diags
}

func (c *Config) provider(b *hcl.Block) hcl.Diagnostics {
	name := b.Labels[0]
	s, ok := c.opts.Providers[name]
	if !ok {
		return hcl.Diagnostics{c.unknownProvider(name, b.LabelRanges[0])}
	}
	if first, ok := c.providers[name]; ok {
		return hcl.Diagnostics{duplicate(b, "provider "+name, first.rng)}
	}
	body, _, diags := c.compileBody("provider", b.Body, s.Attributes, s.Blocks, &hcl.BodySchema{})
	c.providers[name] = &providerDecl{name: name, rng: b.DefRange, body: body}
	return diags
}

func (c *Config) unknownProvider(name string, rng hcl.Range) *hcl.Diagnostic {
	known := sortedKeys(c.opts.Providers)
	if name == "libvirt" {
		return notYet(rng, "Provider "+name, "Use "+strings.Join(known, ", ")+".")
	}
	return errorAt(rng, "Unknown provider", fmt.Sprintf("There is no provider %q.%s This version has: %s.", name, didYouMean("", name, known), strings.Join(known, ", ")))
}

// object reads a cluster, node, fence, group or guarantee block.
func (c *Config) object(src *hcl.Block) hcl.Diagnostics {
	b := &block{kind: src.Type, name: src.Labels[0], rng: src.DefRange}
	switch b.kind {
	case addr.TypeCluster:
		if c.cluster != nil {
			return hcl.Diagnostics{errorAt(src.DefRange, "More than one cluster", fmt.Sprintf("A definition is one cluster, and cluster %q stands at %s. Put the other one into a directory of its own.", c.cluster.name, c.cluster.rng))}
		}
		b.schema, c.cluster = c.schemas.cluster, b
	case addr.TypeNode:
		if first, ok := c.nodes[b.name]; ok {
			return hcl.Diagnostics{duplicate(src, "node."+b.name, first.rng)}
		}
		b.schema, c.nodes[b.name] = c.schemas.node, b
	case addr.TypeFence:
		if first, ok := c.fences[b.name]; ok {
			return hcl.Diagnostics{duplicate(src, "fence."+b.name, first.rng)}
		}
		b.schema, c.fences[b.name] = c.schemas.fence, b
	case addr.TypeGroup:
		if first, ok := c.groups[b.name]; ok {
			return hcl.Diagnostics{duplicate(src, "group."+b.name, first.rng)}
		}
		b.schema, c.groups[b.name] = c.schemas.group, b
	case addr.TypeGuarantee:
		if first, ok := c.guarantees[b.name]; ok {
			return hcl.Diagnostics{duplicate(src, "guarantee."+b.name, first.rng)}
		}
		b.schema, c.guarantees[b.name] = c.schemas.guarantee, b
	default:
		if first, ok := c.machinery[b.kind][b.name]; ok {
			return hcl.Diagnostics{duplicate(src, b.ref(), first.rng)}
		}
		c.machinery[b.kind][b.name] = b
		return append(c.machinerySchema(b, src), c.objectBody(b, src)...)
	}
	return c.objectBody(b, src)
}

// hasProvider tells whether blocks of a kind name their provider.
func hasProvider(kind string) bool { return kind == addr.TypeNode || addr.Machinery(kind) }

// machinerySchema finds the schema of a machine, network or volume, by its provider.
func (c *Config) machinerySchema(b *block, src *hcl.Block) hcl.Diagnostics {
	known := c.root.opts.madeBy(b.kind)
	content, _, _ := src.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "provider"}}})
	a, given := content.Attributes["provider"]
	var diags hcl.Diagnostics
	if given {
		b.providerRange = a.Expr.Range().Ptr()
		diags = c.providerOf(b, a.Expr, known)
	} else if len(known) > 0 {
		b.schema = c.schemas.madeBy(known[0], b.kind) // that it lacks one is told with the rest
		return nil
	} else {
		diags = hcl.Diagnostics{errorAt(b.rng, "No provider", fmt.Sprintf("No provider of this version has a %s.", b.kind))}
	}
	b.schema = c.schemas.madeBy(b.provider, b.kind)
	b.unmade = b.schema.Name == ""
	return diags
}

func (c *Config) objectBody(b *block, src *hcl.Block) hcl.Diagnostics {
	if b.kind == addr.TypeGroup {
		b.byName = map[string]*block{}
	}
	body, content, diags := c.compileBody(b.kind, src.Body, b.schema.Attributes, b.schema.Blocks, besideBodies()[b.kind])
	if b.unmade { // nobody knows what may stand in it
		var partial *hcl.BodyContent
		partial, _, diags = src.Body.PartialContent(besideBodies()[b.kind])
		content = contentFrom(partial)
	}
	b.body = body
	if list, _, ok := content.attr("depends_on"); ok && waits(b.kind) {
		var more hcl.Diagnostics
		b.dependsOn, more = moduleDependencies(list)
		diags = append(diags, more...)
	}
	for _, r := range []struct {
		name string
		into **expr
	}{{"for_each", &b.forEach}, {"count", &b.count}} {
		if src, _, ok := content.attr(r.name); ok {
			e, more := c.compileOver(src)
			diags = append(diags, more...)
			*r.into = e
		}
	}
	if b.forEach != nil && b.count != nil {
		diags = append(diags, errorAt(b.count.Range(), "Both for_each and count", "A block is repeated by one of the two. Remove count, or for_each."))
		b.count = nil
	}
	switch b.kind {
	case addr.TypeCluster:
		if b.body.blocks[0].body == nil { // quorum
			diags = append(diags, errorAt(b.rng, "Missing quorum", `A cluster says who may run it. Add quorum { model = "majority_node_set" }, or model = "single_node" for one node.`))
		}
	case addr.TypeNode:
		if src, _, ok := content.attr("provider"); ok {
			b.providerRange = src.Range().Ptr()
			diags = append(diags, c.providerOf(b, src, sortedKeys(c.opts.Providers))...)
		}
		if b.count != nil {
			diags = append(diags, warningAt(b.count.Range(), "Nodes by count", "Taking one out of the middle renumbers those behind it, which deletes and creates nodes. Use for_each with a key for each node."))
		}
	}
	for _, inner := range content.blocks {
		switch inner.Type {
		case "lifecycle":
			diags = append(diags, c.lifecycle(b, inner)...)
		case "resource":
			diags = append(diags, c.resource(b, inner)...)
		}
	}
	return diags
}

// providerOf reads the provider of a block, which is one of known.
func (c *Config) providerOf(b *block, e hcl.Expression, known []string) hcl.Diagnostics {
	name := hcl.ExprAsKeyword(e)
	if name == "" {
		if v, diags := e.Value(nil); !diags.HasErrors() && v.Type() == cty.String && !v.IsNull() {
			return hcl.Diagnostics{errorAt(e.Range(), "Provider is a keyword", fmt.Sprintf("Write provider = %s, without quotes.", v.AsString()))}
		}
		return hcl.Diagnostics{errorAt(e.Range(), "Provider is a keyword", fmt.Sprintf("The provider of a %s is the bare name of one of: %s.", b.kind, strings.Join(known, ", ")))}
	}
	if _, ok := c.opts.Providers[name]; !ok {
		return hcl.Diagnostics{c.unknownProvider(name, e.Range())}
	}
	if !slices.Contains(known, name) {
		which := "None has any."
		if len(known) > 0 {
			which = "Use " + strings.Join(known, ", ") + "."
		}
		return hcl.Diagnostics{errorAt(e.Range(), "Wrong provider", fmt.Sprintf("Provider %s has no %ss. %s", name, b.kind, which))}
	}
	b.provider = name
	return nil
}

// Resource types that are to come; to be told from typing errors.
var laterResources = []string{"network_name", "generic_service", "systemd_unit", "file_system", "physical_disk", "file_share"}

func (c *Config) resource(group *block, src *hcl.Block) hcl.Diagnostics {
	typ, name := src.Labels[0], src.Labels[1]
	if !ValidName(name) {
		return hcl.Diagnostics{errorAt(src.LabelRanges[1], "Invalid name", fmt.Sprintf("%q can't stand in an address. A name is a letter or _, then letters, digits, _ and -.", name))}
	}
	var diags hcl.Diagnostics
	b := &block{kind: rootResource, name: name, typ: typ, rng: src.DefRange, parent: group, schema: &noSchema}
	if first, ok := group.byName[name]; ok {
		return hcl.Diagnostics{errorAt(src.DefRange, "Duplicate resource", fmt.Sprintf("resource.%s is already defined in this group at %s; names count whatever the type. Rename one of the two.", name, first.rng))}
	}
	group.byName[name] = b
	s, ok := c.schemas.resources[typ]
	if !ok {
		known := sortedKeys(c.opts.ResourceTypes)
		for _, later := range laterResources {
			if typ == later {
				return hcl.Diagnostics{notYet(src.LabelRanges[0], "Resource type "+typ, "This version has: "+strings.Join(known, ", ")+".")}
			}
		}
		return hcl.Diagnostics{errorAt(src.LabelRanges[0], "Unknown resource type", fmt.Sprintf("There is no resource type %q.%s This version has: %s.", typ, didYouMean("", typ, known), strings.Join(known, ", ")))}
	}
	b.schema = s
	group.resources = append(group.resources, b)
	return append(diags, c.objectBody(b, src)...)
}
