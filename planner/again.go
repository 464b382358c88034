package planner

import (
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Known is what is known of nodes' computed attributes once the plan is
// carried out, where that is not what def was evaluated with: a node that is
// made again or gets another address has another endpoint then. Whatever
// refers to it has to be evaluated and planned once more, with what this
// tells. nil: nothing differs. before is what def was evaluated with.
func (p *Plan) Known(def *lang.Definition, before lang.Known) lang.Known {
	if def == nil || p == nil {
		return nil
	}
	later := map[addr.Address]cty.Value{}
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Address.Type != addr.TypeNode || c.After == cty.NilVal {
			continue
		}
		o, ok := def.Object(c.Address)
		if !ok {
			continue
		}
		for _, a := range spec.NodeSchema().Attributes {
			if !a.Computed {
				continue
			}
			was, is := attribute(o.Value, a.Name), attribute(c.After, a.Name)
			if was != cty.NilVal && is != cty.NilVal && was.IsKnown() && !same(was, is) {
				later[c.Address] = c.After
			}
		}
	}
	if len(later) == 0 {
		return nil
	}
	return func(a addr.Address) (cty.Value, bool) {
		if v, ok := later[a]; ok {
			return v, true
		}
		if before == nil {
			return cty.NilVal, false
		}
		return before(a)
	}
}
