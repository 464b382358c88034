package planner

import (
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
)

// Known is what is known of the computed attributes of nodes and machinery once the plan is
// carried out, where that is not what def was evaluated with: a node that is
// made again or gets another address has another endpoint then, a machine that is
// made anew another address. Whatever
// refers to it has to be evaluated and planned once more, with what this
// tells. nil: nothing differs. before is what def was evaluated with.
func (p *Plan) Known(def *lang.Definition, before lang.Known) lang.Known {
	if def == nil || p == nil {
		return nil
	}
	later := map[addr.Address]cty.Value{}
	look := func(a addr.Address, value cty.Value) {
		o, ok := def.Object(a)
		if a.Type != addr.TypeNode && !addr.Machinery(a.Type) || value == cty.NilVal || !ok {
			return
		}
		for _, name := range o.Computed() {
			was, is := attribute(o.Value, name), attribute(value, name)
			if was != cty.NilVal && is != cty.NilVal && was.IsKnown() && !same(was, is) {
				later[a] = value
			}
		}
	}
	for i := range p.Changes {
		look(p.Changes[i].Address, p.Changes[i].After)
	}
	if p.work != nil { // what was read differs from the state's, and nothing is done about it
		for _, k := range p.work.Kept {
			if addr.Machinery(k.Addr.Type) {
				look(k.Addr, k.Value)
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
