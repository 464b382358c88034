package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Found is an object as a provider found it, for which a block is to be
// written. Value is of the type of its schema; Resources are a group's.
type Found struct {
	Addr      addr.Address
	Type      string
	Value     cty.Value
	Resources []Found
}

// GeneratedBy begins a file of generated blocks.
const GeneratedBy = "# Written by clusterplan plan --generate-config-out. Review it, and move the blocks\n# to where they belong.\n"

// Generate writes blocks for what was found, with the attributes that are not
// at their defaults. What they refer to has to be in the definition, or among
// them. The problems, by the object's place in list, are of those that can't
// be written; the text is of all others.
func (d *Definition) Generate(list []Found) ([]byte, map[int]error, hcl.Diagnostics) {
	g := &generator{d: d, nodes: map[string]addr.Address{}, groups: map[string]addr.Address{}, problems: map[int]error{},
		machinery: map[string]map[string]addr.Address{addr.TypeMachine: {}, addr.TypeNetwork: {}, addr.TypeVolume: {}}}
	for i := range d.Objects {
		if o := &d.Objects[i]; addr.Machinery(o.Addr.Type) {
			g.machinery[o.Addr.Type][d.ev.nameOf(o.Addr)] = o.Addr
		}
	}
	for i := range d.spec.Nodes {
		g.nodes[d.spec.Nodes[i].Name] = d.spec.Nodes[i].Addr
	}
	for i := range d.spec.Groups {
		g.groups[d.spec.Groups[i].Name] = d.spec.Groups[i].Addr
	}
	for _, f := range list {
		switch name := textOf(f.Value, "name"); f.Addr.Type {
		case addr.TypeNode:
			g.nodes[name] = f.Addr
		case addr.TypeGroup:
			g.groups[name] = f.Addr
		case addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
			g.machinery[f.Addr.Type][name] = f.Addr
		}
	}
	var out strings.Builder
	out.WriteString(GeneratedBy)
	for i, f := range list {
		g.b = new(strings.Builder)
		if err := g.object(f); err != nil {
			g.problems[i] = err
			continue
		}
		out.WriteString("\n" + g.b.String())
	}
	text, diags := Format([]byte(out.String()), "generated"+hclSuffix)
	return text, g.problems, diags
}

type generator struct {
	d             *Definition
	b             *strings.Builder
	nodes, groups map[string]addr.Address            // by name
	machinery     map[string]map[string]addr.Address // by type, by name
	problems      map[int]error
}

func textOf(v cty.Value, name string) string {
	if e := v.GetAttr(name); e.IsKnown() && !e.IsNull() {
		return e.AsString()
	}
	return ""
}

func (g *generator) object(f Found) error {
	if !f.Addr.Key.IsNone() {
		return fmt.Errorf("%s is one instance of a block that is repeated, which only a person can write: its for_each or count is not known", f.Addr)
	}
	s, ok := map[string]*spec.Schema{addr.TypeNode: g.d.ev.c.schemas.node, addr.TypeFence: g.d.ev.c.schemas.fence, addr.TypeGroup: g.d.ev.c.schemas.group}[f.Addr.Type]
	if addr.Machinery(f.Addr.Type) {
		s = g.d.ev.c.schemas.madeBy(textOf(f.Value, "provider"), f.Addr.Type)
		ok = s.Name != ""
	}
	if !ok {
		return fmt.Errorf("no block is written for a %s", f.Addr.Type)
	}
	if f.Addr.Type == addr.TypeFence {
		var fence spec.Fence
		if err := schema.DecodeKnown(f.Value, &fence); err != nil {
			return err
		}
		for name := range fence.Parameters {
			if fence.IsSensitive(name) {
				return fmt.Errorf("its parameter %s is secret: agents never tell it, and it would stand in a file; write the block", name)
			}
		}
	}
	fmt.Fprintf(g.b, "%s %q {\n", f.Addr.Type, f.Addr.Name)
	given, err := g.body(f.Addr, f.Value, g.sealed(f.Addr, s.Attributes), g.sealedBlocks(f.Addr, s.Blocks), "")
	if err != nil {
		return err
	}
	for i, r := range f.Resources {
		if !r.Addr.ResourceKey.IsNone() {
			return fmt.Errorf("its resource %s is one instance of a block that is repeated, which only a person can write", r.Addr)
		}
		typ, ok := g.d.ev.c.schemas.resources[r.Type]
		if !ok {
			return fmt.Errorf("there is no resource type %q", r.Type)
		}
		if given || i > 0 {
			g.b.WriteString("\n")
		}
		fmt.Fprintf(g.b, "resource %q %q {\n", r.Type, r.Addr.Resource)
		if _, err := g.body(r.Addr, r.Value, typ.Attributes, typ.Blocks, ""); err != nil {
			return err
		}
		g.b.WriteString("}\n")
	}
	g.b.WriteString("}\n")
	return nil
}

// sealed are the attributes with the defaults that they have in this cluster.
func (g *generator) sealed(a addr.Address, attrs []spec.Attribute) []spec.Attribute {
	out := make([]spec.Attribute, len(attrs))
	for i, attr := range attrs {
		switch {
		case attr.Name == "name":
			attr.Default = a.DefaultName()
		case a.Type == addr.TypeGroup && attr.Name == "stop_within":
			attr.Default = g.d.ev.timings.StopWithin.String()
		}
		out[i] = attr
	}
	return out
}

func (g *generator) sealedBlocks(a addr.Address, blocks []spec.Block) []spec.Block {
	out := make([]spec.Block, len(blocks))
	for i, b := range blocks {
		b.Attributes = append([]spec.Attribute(nil), b.Attributes...)
		for k := range b.Attributes {
			attr := &b.Attributes[k]
			switch {
			case a.Type != addr.TypeGroup || attr.Name != "mode":
			case b.Name == "failback" && g.d.ev.hotSpare:
				attr.Default = spec.FailbackImmediate
			case b.Name == "failover" && g.d.spec.Cluster.Configuration == spec.Hybrid:
				attr.Default = nil // each group states its own
			}
		}
		out[i] = b
	}
	return out
}

// body writes what of a block is not at its default. given: there is something.
func (g *generator) body(a addr.Address, v cty.Value, attrs []spec.Attribute, blocks []spec.Block, within string) (given bool, err error) {
	for _, attr := range attrs {
		e := v.GetAttr(attr.Name)
		if attr.Computed || attr.Sensitive || schema.IsAbsent(e) || e.RawEquals(schema.Default(attr)) {
			continue
		}
		text, err := g.value(a, attr, e)
		if err != nil {
			return given, fmt.Errorf("%s%s: %w", within, attr.Name, err)
		}
		fmt.Fprintf(g.b, "%s = %s\n", attr.Name, text)
		given = true
	}
	for _, b := range blocks {
		elems := []cty.Value{v.GetAttr(b.Name)}
		if b.Repeated {
			elems = nil
			if !v.GetAttr(b.Name).IsNull() {
				elems = v.GetAttr(b.Name).AsValueSlice()
			}
		}
		for _, e := range elems {
			if e.IsNull() {
				continue
			}
			outer := g.b
			g.b = new(strings.Builder)
			inner := b.Attributes
			label := ""
			if b.Label != "" {
				label = fmt.Sprintf(" %q", textOf(e, b.Label))
				inner = nil
				for _, attr := range b.Attributes {
					if attr.Name != b.Label {
						inner = append(inner, attr)
					}
				}
			}
			some, err := g.body(a, e, inner, b.Blocks, within+b.Name+".")
			text := g.b.String()
			g.b = outer
			if err != nil {
				return given, err
			}
			if !some && !b.Repeated {
				continue
			}
			if given {
				g.b.WriteString("\n")
			}
			fmt.Fprintf(g.b, "%s%s {\n%s}\n", b.Name, label, text)
			given = true
		}
	}
	return given, nil
}

// value writes an attribute's value: references for what the value has by name.
func (g *generator) value(a addr.Address, attr spec.Attribute, v cty.Value) (string, error) {
	switch {
	case attr.Name == "provider" && hasProvider(a.Type):
		return v.AsString(), nil
	case attr.Type == spec.TypeNodeRefs:
		return references(v, func(name string) (string, error) { return addressOfName(g.nodes, addr.TypeNode, name) })
	case attr.Type == spec.TypeNetworkRef || attr.Type == spec.TypeVolumeRef:
		kind, _ := attr.Type.Refers()
		return addressOfName(g.machinery[kind], kind, v.AsString())
	case attr.Type == spec.TypeNetworkRefs || attr.Type == spec.TypeVolumeRefs:
		kind, _ := attr.Type.Refers()
		return references(v, func(name string) (string, error) { return addressOfName(g.machinery[kind], kind, name) })
	case attr.Type == spec.TypeGroupRefs:
		return references(v, func(name string) (string, error) { return addressOfName(g.groups, addr.TypeGroup, name) })
	case a.IsResource() && (attr.Name == "depends_on" || attr.Name == "depends_on_any"):
		return references(v, func(name string) (string, error) {
			if !hclsyntax.ValidIdentifier(name) {
				return "", fmt.Errorf("%q is no name of a resource", name)
			}
			return "resource." + name, nil
		})
	case attr.Type == spec.TypeQuantities:
		attrs := map[string]cty.Value{}
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			n, _ := e.AsBigFloat().Int64()
			switch {
			case k.AsString() == "cpu": // in thousandths
				attrs["cpu"] = cty.NumberFloatVal(float64(n) / 1000)
			case n >= 1<<10 && n%(1<<10) == 0:
				attrs[k.AsString()] = cty.StringVal(spec.FormatSize(n))
			default:
				attrs[k.AsString()] = e
			}
		}
		v = cty.ObjectVal(attrs)
	}
	return literal(v), nil
}

// literal is a value as a definition has it.
func literal(v cty.Value) string {
	if t := v.Type(); !v.IsKnown() || v.IsNull() || !t.IsMapType() && !t.IsObjectType() || v.LengthInt() == 0 {
		return string(hclwrite.TokensForValue(v).Bytes())
	}
	out := "{\n"
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		name := k.AsString()
		if !hclsyntax.ValidIdentifier(name) || name == "for" { // which begins another kind of expression
			name = literal(k)
		}
		out += name + " = " + literal(e) + "\n"
	}
	return out + "}"
}

// Written is an address as a definition has it: String's, but for keys with
// characters that are written otherwise there, or would be a template.
func Written(a addr.Address) string {
	key := func(k addr.Key) string {
		if s, ok := k.Str(); ok {
			return "[" + literal(cty.StringVal(s)) + "]"
		}
		return k.String()
	}
	out := a.Owner().WithoutKey().String() + key(a.Key)
	if a.IsResource() {
		out += ".resource." + a.Resource + key(a.ResourceKey)
	}
	return out
}

func references(v cty.Value, of func(name string) (string, error)) (string, error) {
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		text, err := of(e.AsString())
		if err != nil {
			return "", err
		}
		out = append(out, text)
	}
	return "[" + strings.Join(out, ", ") + "]", nil
}

// addressOfName is the address of what is called name.
func addressOfName(by map[string]addr.Address, kind, name string) (string, error) {
	a, ok := by[name]
	if !ok {
		return "", fmt.Errorf("the definition has no %s called %q; write its block, or import it too", kind, name)
	}
	return Written(a), nil
}
