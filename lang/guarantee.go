package lang

import (
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// guarantees are the guarantee blocks as the planner sees them. They are shown
// in every plan, so that nothing in them may be sensitive.
func (d *Definition) guarantees() []spec.Guarantee {
	var out []spec.Guarantee
	for i := range d.Guarantees {
		o := &d.Guarantees[i]
		in := d.ev.byAddr.At(o.Addr)
		g := spec.Guarantee{}
		d.decoded(schema.DecodeKnown(o.Value, &g))
		g.Addr, g.Name = o.Addr, in.name
		switch {
		case schema.IsSensitive(o.Value):
			in.broken = true
			d.ev.add(errorAt(o.block.rng, "Sensitive guarantee", "What is guaranteed is shown in every plan, and an attribute of this one has a sensitive value. Put nonsensitive() around it."))
		case o.Value.IsWhollyKnown() && !o.Value.GetAttr("max_downtime").IsNull() && g.MaxDowntime == 0 && !in.broken:
			in.broken = true
			d.ev.add(errorAt(*o.rangeOf("max_downtime"), "Invalid value for max_downtime", "A failover takes some time. Leave max_downtime out where any is well."))
		}
		out = append(out, g)
	}
	return out
}
