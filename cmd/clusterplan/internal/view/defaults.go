package view

import (
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
)

// defaults tells which attributes of an object that is to be made are what
// they are without a word in the definition: who reviews a plan reads what was
// written. The spans of heartbeat follow its interval, and a group's
// stop_within the cluster's.
type defaults struct {
	types   map[string]map[string]cty.Value // by type and path
	cluster spec.Timings
	// Of the object that is being shown; their memory is the next one's.
	changes []planner.AttributeChange
	list    []shownAttribute
}

func newDefaults(p *planner.Plan) *defaults {
	d := &defaults{types: map[string]map[string]cty.Value{}}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Address.Type == addr.TypeCluster && (c.After != cty.NilVal || c.Before != cty.NilVal) {
			value := c.After
			if value == cty.NilVal { // it goes
				value = c.Before
			}
			var cluster struct {
				Heartbeat spec.Timings `json:"heartbeat"`
			}
			if schema.DecodeKnown(value, &cluster) == nil {
				d.cluster = cluster.Heartbeat
			}
		}
	}
	return d
}

// is tells whether value is the default of the attribute path of c's object.
func (d *defaults) is(c *planner.Change, path string, value cty.Value) bool {
	def, ok := d.of(c)[path]
	if !ok || value == cty.NilVal || value.IsMarked() || !schema.Plain(value) && !value.IsWhollyKnown() || value.IsNull() {
		return false
	}
	if def.Type() == cty.String && value.Type() == cty.String {
		return def.AsString() == value.AsString()
	}
	if def.Type() == cty.Number && value.Type() == cty.Number && def.IsKnown() && !def.IsNull() {
		return !def.LessThan(value).True() && !value.LessThan(def).True() // without a copy of either
	}
	return def.Type().Equals(value.Type()) && def.RawEquals(value)
}

func (d *defaults) of(c *planner.Change) map[string]cty.Value {
	if m, ok := d.types[c.Type]; ok {
		return m
	}
	m := map[string]cty.Value{}
	d.types[c.Type] = m
	switch {
	case c.Address.IsResource():
		if s, ok := spec.ResourceTypes()[c.Type]; ok {
			s = s.WithCommon()
			add(m, "", s.Attributes, s.Blocks)
		}
	case c.Type == addr.TypeCluster:
		s := spec.ClusterSchema()
		add(m, "", s.Attributes, s.Blocks)
		t := spec.Timings{Interval: d.cluster.Interval, Probes: d.cluster.Probes}
		if d.cluster.Profile != spec.ProfileCustom {
			t = spec.Timings{Profile: d.cluster.Profile} // which gives them all
		}
		t = t.WithDefaults()
		for name, span := range map[string]spec.Duration{"suspicion": t.Suspicion, "rank_delay": t.RankDelay, "reply_within": t.ReplyWithin, "lease": t.Lease,
			"stop_within": t.StopWithin, "kill": t.Kill} {
			m["heartbeat."+name] = cty.StringVal(span.String())
		}
		if m["heartbeat.interval"] = cty.StringVal(spec.Timings{}.WithDefaults().Interval.String()); d.cluster.Profile == spec.ProfileMSCS {
			m["heartbeat.interval"] = cty.StringVal(t.Interval.String())
			if probes, err := schema.Encode(t, schema.Type(spec.Schema{Blocks: heartbeatBlocks(s)})); err == nil {
				m["heartbeat.probe"] = probes.GetAttr("probe")
			}
		}
	case c.Type == addr.TypeNode:
		s := spec.NodeSchema()
		add(m, "", s.Attributes, s.Blocks)
	case c.Type == addr.TypeFence:
		s := spec.FenceSchema()
		add(m, "", s.Attributes, s.Blocks)
	case c.Type == addr.TypeGroup:
		s := spec.GroupSchema()
		add(m, "", s.Attributes, s.Blocks)
		if d.cluster.StopWithin != 0 {
			m["stop_within"] = cty.StringVal(d.cluster.StopWithin.String())
		}
	}
	return m
}

// heartbeatBlocks are the blocks within the heartbeat block.
func heartbeatBlocks(s spec.Schema) []spec.Block {
	for _, b := range s.Blocks {
		if b.Name == "heartbeat" {
			return b.Blocks
		}
	}
	return nil
}

func add(m map[string]cty.Value, prefix string, attrs []spec.Attribute, blocks []spec.Block) {
	for _, a := range attrs {
		if a.Default != nil {
			m[prefix+a.Name] = schema.Default(a)
		}
	}
	for _, b := range blocks {
		if b.Repeated {
			continue // each one was written
		}
		add(m, prefix+b.Name+".", b.Attributes, b.Blocks)
	}
}

// attributeText is a value of an attribute, and what it means where that can't
// be seen.
func attributeText(c *planner.Change, path string, v cty.Value) string {
	text := ctyText(v)
	switch {
	case c.Type == addr.TypeGroup && path == "failover.threshold" && text == "0":
		return "0 (nodes - 1)"
	case c.Type == addr.TypeNode && path == "program":
		return shortDigest(text)
	}
	return text
}

// shortDigest keeps the beginning of a quoted digest: enough to tell two apart.
func shortDigest(text string) string {
	const keep = 12
	if hex := strings.Trim(text, `"`); len(hex) == 64 && len(text) == 66 {
		return `"` + hex[:keep] + `..."`
	}
	return text
}
