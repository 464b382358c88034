package planner

import (
	"reflect"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// What a create's attributes are, worked out when they are asked for, is what
// comparing it with nothing gives.
func TestDiffering(t *testing.T) {
	for name, s := range map[string]spec.Schema{"group": spec.GroupSchema(), "cluster": spec.ClusterSchema(), "node": spec.NodeSchema(), "generic_application": spec.ResourceTypes()["generic_application"].WithCommon()} {
		whole := shapeOf(s)
		value := schema.BlockDefault(spec.Block{Attributes: s.Attributes, Blocks: s.Blocks})
		values := []cty.Value{value, value.Mark(schema.Sensitive), cty.UnknownVal(value.Type()), cty.NullVal(value.Type()), cty.EmptyObjectVal}
		for one := range value.Type().AttributeTypes() {
			attrs := value.AsValueMap()
			for _, v := range []cty.Value{cty.UnknownVal(attrs[one].Type()), attrs[one].Mark(schema.Sensitive), cty.NullVal(attrs[one].Type()), cty.MapVal(map[string]cty.Value{"k": cty.StringVal("x")})} {
				attrs[one] = v
				values = append(values, cty.ObjectVal(attrs))
			}
			delete(attrs, one)
			values = append(values, cty.ObjectVal(attrs))
			attrs["foreign"] = cty.StringVal("x") // as many, and others
			values = append(values, cty.ObjectVal(attrs))
		}
		for _, v := range values {
			want := new(differ).diff(whole, cty.NilVal, v, cty.NilVal)
			got := (&Change{After: v, made: &whole}).Differing(nil)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %#v\n got %v\nwant %v", name, v, got, want)
			}
		}
	}
}
