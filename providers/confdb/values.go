package confdb

import (
	"sync"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// shape is a schema with its type, both made once: there are many groups.
type shape struct {
	spec.Schema
	typ cty.Type
}

var (
	groupShape     = sync.OnceValue(func() shape { return shapeOf(spec.GroupSchema()) })
	resourceTypes  = sync.OnceValue(spec.ResourceTypes)
	resourceShapes = sync.OnceValue(func() map[string]shape { // with what every resource has
		out := map[string]shape{}
		for name, s := range resourceTypes() {
			out[name] = shapeOf(s.WithCommon())
		}
		return out
	})
)

func shapeOf(s spec.Schema) shape { return shape{s, schema.Type(s)} }

// encode is the canonical value of x, one of spec's types: as the definition
// would have it, with the defaults of s where Go has a zero.
func encode(x any, s shape) (cty.Value, error) {
	v, err := schema.Encode(x, s.typ)
	if err != nil {
		return cty.NilVal, err
	}
	return canonical(v, s.Attributes, s.Blocks), nil
}

func encodeResource(r spec.Resource, s shape) (cty.Value, error) {
	v, err := schema.EncodeResource(r, s.typ)
	if err != nil {
		return cty.NilVal, err
	}
	return canonical(v, s.Attributes, s.Blocks), nil
}

// canonical undoes what Go's types can't tell apart: a zero that JSON leaves
// out and an attribute that a definition leaves out, which has its default.
func canonical(v cty.Value, attrs []spec.Attribute, blocks []spec.Block) cty.Value {
	if v.IsNull() {
		return schema.BlockDefault(spec.Block{Attributes: attrs, Blocks: blocks})
	}
	out := v.AsValueMap()
	for _, a := range attrs {
		have := out[a.Name]
		switch {
		case have.IsNull() && zeroIsDefault(a):
			out[a.Name] = schema.Default(a)
		case have.IsNull() && a.Type == spec.TypeNumber && a.Default != nil:
			out[a.Name] = cty.Zero
		case have.IsNull() && a.Type == spec.TypeBool && a.Default != nil:
			out[a.Name] = cty.False
		case !have.IsNull() && a.Type == spec.TypeDuration && a.Default == nil && have.AsString() == "0s":
			out[a.Name] = schema.Absent(cty.String)
		}
	}
	for _, b := range blocks {
		if !b.Repeated {
			out[b.Name] = canonical(out[b.Name], b.Attributes, b.Blocks)
			continue
		}
		if list := out[b.Name]; !list.IsNull() && list.LengthInt() > 0 {
			elems := list.AsValueSlice()
			for i := range elems {
				elems[i] = canonical(elems[i], b.Attributes, b.Blocks)
			}
			out[b.Name] = cty.ListVal(elems)
		}
	}
	if v, ok := schema.ObjectOf(v.Type(), out); ok { // all of a schema share one type
		return v
	}
	return cty.ObjectVal(out)
}

// zeroIsDefault tells whether what is absent in JSON means the default.
func zeroIsDefault(a spec.Attribute) bool {
	switch d := a.Default.(type) {
	case nil:
		return true
	case bool:
		return !d
	case int64:
		return d == 0 || a.Name == "max_unavailable"
	case string:
		return true
	}
	return false
}
