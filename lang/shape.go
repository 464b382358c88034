package lang

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// shape is what all blocks of one schema have in common. A definition may have
// thousands of blocks, so that it is worked out once.
type shape struct {
	want   *hcl.BodySchema // what may stand in the block
	wants  wants           // the same
	attrs  []attributeShape
	blocks []nestedShape
}

type attributeShape struct {
	spec.Attribute
	typ   cty.Type
	deflt cty.Value
	// identity: a list of groups or resources that orders what runs. Only who
	// they are counts, so that it is no need of their values.
	identity bool
}

type nestedShape struct {
	spec.Block
	deflt cty.Value // of an absent one
}

// shapeKey names a schema: its attributes, which are never written, and what
// the block is called. What stands beside the schema follows from the name.
type shapeKey struct {
	name  string
	first *spec.Attribute
}

// shapeOf finds the shape of a block called name, beside whose schema stands more.
func (c *Config) shapeOf(name string, attrs []spec.Attribute, blocks []spec.Block, more *hcl.BodySchema) *shape {
	if len(attrs) == 0 || name == "provider" { // those are few, and asked for again when c is complete
		return newShape(name, attrs, blocks, more)
	}
	key := shapeKey{name, &attrs[0]}
	s := c.shapes[key]
	if s == nil {
		s = newShape(name, attrs, blocks, more)
		c.shapes[key] = s
	}
	return s
}

func newShape(name string, attrs []spec.Attribute, blocks []spec.Block, more *hcl.BodySchema) *shape {
	want := &hcl.BodySchema{Attributes: more.Attributes, Blocks: more.Blocks}
	want.Attributes = want.Attributes[:len(want.Attributes):len(want.Attributes)]
	want.Blocks = append(want.Blocks[:len(want.Blocks):len(want.Blocks)], hcl.BlockHeaderSchema{Type: "dynamic", LabelNames: []string{"type"}})
	s := &shape{want: want, attrs: make([]attributeShape, len(attrs)), blocks: make([]nestedShape, len(blocks))}
	for i, a := range attrs {
		want.Attributes = append(want.Attributes, hcl.AttributeSchema{Name: a.Name, Required: a.Required})
		s.attrs[i] = attributeShape{
			Attribute: a, typ: schema.AttributeType(a.Type), deflt: schema.Default(a),
			identity: a.Type == spec.TypeGroupRefs || name == "resource" && (a.Name == "depends_on" || a.Name == "depends_on_any"),
		}
	}
	for i, b := range blocks {
		header := hcl.BlockHeaderSchema{Type: b.Name}
		if b.Label != "" {
			header.LabelNames = []string{b.Label}
		}
		want.Blocks = append(want.Blocks, header)
		s.blocks[i] = nestedShape{Block: b, deflt: schema.BlockDefault(b)}
	}
	for later := range laterAttributes[name] {
		want.Attributes = append(want.Attributes, hcl.AttributeSchema{Name: later})
	}
	for later := range laterBlocks[name] {
		want.Blocks = append(want.Blocks, hcl.BlockHeaderSchema{Type: later, LabelNames: []string{"name"}})
	}
	s.wants = wantsOf(want)
	return s
}

// schemas of objects, each made once.
type schemas struct {
	cluster, node, fence, group, guarantee *spec.Schema
	resources                              map[string]*spec.Schema // with what every resource has
	machinery                              map[string]map[string]spec.Schema
}

func schemasOf(o *Options) schemas {
	of := func(s spec.Schema) *spec.Schema { return &s } // every block points to its own
	s := schemas{cluster: of(spec.ClusterSchema()), node: of(spec.NodeSchema()), fence: of(spec.FenceSchema()), group: of(spec.GroupSchema()), guarantee: of(spec.GuaranteeSchema()), resources: make(map[string]*spec.Schema, len(o.ResourceTypes)), machinery: o.Machinery}
	for name, typ := range o.ResourceTypes {
		s.resources[name] = of(typ.WithCommon())
	}
	return s
}

// madeBy is the schema of a provider's machine, network or volume, an empty one
// where it has none.
func (s *schemas) madeBy(provider, kind string) *spec.Schema {
	one := s.machinery[provider][kind]
	return &one
}

// nested is a nested block of a schema, in a block.
type nested struct {
	*nestedShape
	*filling // absent of a block that is absent, as most are, and there are many
}

// filling is what the definition gives of a nested block.
type filling struct {
	body *body      // nil: absent, or repeated, or dynamic
	rng  hcl.Range  // of body
	all  []labelled // of a repeated block, and dynamic ones, in the order of the file
}

// absent is that of which the definition gives nothing. Never written.
var absent filling

// given is what n holds, to be written.
func (n *nested) given() *filling {
	if n.filling == &absent {
		n.filling = new(filling)
	}
	return n.filling
}
