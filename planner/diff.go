package planner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// impacts from the weakest to the strongest.
var impacts = []spec.Impact{
	"", spec.ImpactNone, spec.ImpactTimings, spec.ImpactMembership, spec.ImpactRestartResource,
	spec.ImpactRestartGroup, spec.ImpactRestartAgent, spec.ImpactReboot, spec.ImpactReplace,
}

// stronger is the stronger of two impacts.
func stronger(a, b spec.Impact) spec.Impact {
	if slices.Index(impacts, a) >= slices.Index(impacts, b) {
		return a
	}
	return b
}

// shape tells impact and sensitivity by an attribute's top-level path.
type shape struct {
	attrs  map[string]spec.Attribute
	blocks map[string]*shape
	hides  bool     // something in it is sensitive
	names  []string // of all of them, in order
	paths  []string // theirs
}

func shapeOf(s spec.Schema) shape { return shapeOfBlock("", s.Attributes, s.Blocks) }

func shapeOfBlock(prefix string, attrs []spec.Attribute, blocks []spec.Block) shape {
	out := shape{attrs: make(map[string]spec.Attribute, len(attrs)), blocks: make(map[string]*shape, len(blocks))}
	for _, a := range attrs {
		out.attrs[a.Name] = a
		out.hides = out.hides || a.Sensitive
	}
	for _, b := range blocks {
		if b.Repeated { // a list, as an attribute's
			list := listOf(b)
			out.attrs[b.Name] = list
			out.hides = out.hides || list.Sensitive
			continue
		}
		inner := shapeOfBlock(prefix+b.Name+".", b.Attributes, b.Blocks)
		out.blocks[b.Name] = &inner
		out.hides = out.hides || inner.hides
	}
	for name := range out.attrs {
		out.names = append(out.names, name)
	}
	for name := range out.blocks {
		out.names = append(out.names, name)
	}
	slices.Sort(out.names)
	for _, name := range out.names {
		out.paths = append(out.paths, prefix+name)
	}
	return out
}

// Differing lists the attributes that differ: Attributes, or, of an object that is
// to be made, all that are set, worked out now: in a first plan there are many, and
// nobody looks at more than one object's at a time. It appends them to out.
func (c *Change) Differing(out []AttributeChange) []AttributeChange {
	if c.made == nil {
		return append(out, c.Attributes...)
	}
	d := differ{out: out}
	d.made(c.made, "", c.After)
	return d.out
}

// made is object where nothing is there before.
func (d *differ) made(s *shape, prefix string, after cty.Value) {
	if after == cty.NilVal || !after.Type().IsObjectType() || len(after.Type().AttributeTypes()) != len(s.names) {
		d.object(*s, strings.TrimSuffix(prefix, "."), cty.NilVal, after, cty.NilVal)
		return
	}
	start := len(d.out)
	for i, name := range s.names {
		v, ok := schema.Attribute(after, name)
		if !ok { // of another schema
			d.out = d.out[:start]
			d.object(*s, strings.TrimSuffix(prefix, "."), cty.NilVal, after, cty.NilVal)
			return
		}
		if block, ok := s.blocks[name]; ok {
			if !isAbsent(v) {
				d.made(block, s.paths[i]+".", v)
			}
			continue
		}
		if !isAbsent(v) {
			attr := s.attrs[name]
			d.value(s.paths[i], attr, attr.Sensitive, false, cty.NilVal, v, cty.NilVal)
		}
	}
}

// listOf is a repeated block as an attribute: what its strongest attribute does.
func listOf(b spec.Block) spec.Attribute {
	out := spec.Attribute{Name: b.Name, Impact: spec.ImpactNone}
	for _, a := range b.Attributes {
		out.Impact = stronger(out.Impact, a.Impact)
		out.Sensitive = out.Sensitive || a.Sensitive
	}
	return out
}

// diff lists the attributes in which before and after differ, in the order of
// their names. applied is what the last apply left (cty.NilVal: unknown): an
// attribute that is there as it should be after, and isn't now, has drifted.
func (d *differ) diff(s shape, before, after, applied cty.Value) []AttributeChange {
	d.out = d.out[:0]
	d.object(s, "", before, after, applied)
	if len(d.out) == 0 {
		return nil
	}
	return slices.Clone(d.out)
}

// differ keeps its memory from one object to the next.
type differ struct {
	out   []AttributeChange
	names []string
}

func (d *differ) object(s shape, prefix string, before, after, applied cty.Value) {
	start := len(d.names)
	d.names = appendAttributeNames(d.names, before, after)
	names := d.names[start:]
	for _, name := range names {
		path := name
		if prefix != "" {
			path = prefix + "." + name
		}
		b, a, p := attribute(before, name), attribute(after, name), attribute(applied, name)
		if block, ok := s.blocks[name]; ok {
			if same(b, a) {
				continue
			}
			d.object(*block, path, b, a, p)
			continue
		}
		attr := s.attrs[name]
		d.value(path, attr, attr.Sensitive, p != cty.NilVal, b, a, p)
	}
	d.names = d.names[:start]
}

// value compares two values of one attribute; maps by key, lists of one
// length by element, all else as a whole. known: what was applied is known,
// if only that it was nothing.
func (d *differ) value(path string, attr spec.Attribute, sensitive, known bool, before, after, applied cty.Value) {
	if same(before, after) {
		return
	}
	sensitive = sensitive || marked(before) || marked(after)
	b, a, p := unmark(before), unmark(after), unmark(applied)
	if b != cty.NilVal && a != cty.NilVal && b.IsKnown() && a.IsKnown() && !b.IsNull() && !a.IsNull() {
		if b.Type().IsMapType() && a.Type().IsMapType() {
			bm, am := b.AsValueMap(), a.AsValueMap()
			var pm map[string]cty.Value
			if p != cty.NilVal && p.IsKnown() && !p.IsNull() && p.Type().IsMapType() {
				pm = p.AsValueMap()
			}
			for _, k := range sortedKeys(bm, am) {
				d.value(path+"["+strconv.Quote(k)+"]", attr, sensitive, pm != nil || known, element(bm, k), element(am, k), element(pm, k))
			}
			return
		}
		if b.Type().IsListType() && a.Type().IsListType() && b.LengthInt() == a.LengthInt() {
			for i, n := 0, b.LengthInt(); i < n; i++ {
				idx := cty.NumberIntVal(int64(i))
				pv := cty.NilVal
				if p != cty.NilVal && p.IsKnown() && !p.IsNull() && p.LengthInt() == n {
					pv = p.Index(idx)
				}
				d.value(path+"["+strconv.Itoa(i)+"]", attr, sensitive, pv != cty.NilVal, b.Index(idx), a.Index(idx), pv)
			}
			return
		}
	}
	cause := CauseDefinition
	if attr.Computed && before != cty.NilVal || known && same(applied, after) {
		cause = CauseDrift
	}
	impact := attr.Impact
	if impact == "" {
		impact = spec.ImpactNone
	}
	d.out = append(d.out, AttributeChange{
		Path: path, Before: mask(before, sensitive), After: mask(after, sensitive),
		Sensitive: sensitive, Impact: impact, Cause: cause,
	})
}

// mask marks a sensitive value, so that it is never printed.
func mask(v cty.Value, sensitive bool) cty.Value {
	if v == cty.NilVal || !sensitive {
		return v
	}
	return v.Mark(schema.Sensitive)
}

// guard marks what the schema calls sensitive within an object's value.
func (s shape) guard(v cty.Value) cty.Value {
	if v == cty.NilVal || !s.hides || !v.IsKnown() || v.IsNull() {
		return v
	}
	u, marks := v.Unmark()
	attrs := u.AsValueMap()
	for name, e := range attrs {
		if s.attrs[name].Sensitive && !e.IsNull() {
			attrs[name] = e.Mark(schema.Sensitive)
		}
		if block, ok := s.blocks[name]; ok {
			attrs[name] = block.guard(e)
		}
	}
	return cty.ObjectVal(attrs).WithMarks(marks)
}

// likeMarks gives v the marks that like has, for what a definition calls
// sensitive is so in the value before as well.
func likeMarks(v, like cty.Value) cty.Value {
	if v == cty.NilVal || like == cty.NilVal || !marked(like) {
		return v
	}
	_, pvm := like.UnmarkDeepWithPaths()
	out, _ := cty.Transform(v, func(path cty.Path, e cty.Value) (cty.Value, error) {
		for _, pm := range pvm {
			if pm.Path.Equals(path) {
				return e.WithMarks(pm.Marks), nil
			}
		}
		return e, nil
	})
	return out
}

func same(a, b cty.Value) bool {
	if a == cty.NilVal || b == cty.NilVal {
		return isAbsent(a) && isAbsent(b)
	}
	if a.RawEquals(b) {
		return true
	}
	if marked(a) {
		a, _ = a.UnmarkDeep()
	}
	if marked(b) {
		b, _ = b.UnmarkDeep()
	}
	return a.RawEquals(b) || isAbsent(a) && isAbsent(b)
}

// isAbsent: "nothing" can be written in several ways.
func isAbsent(v cty.Value) bool {
	if v == cty.NilVal {
		return true
	}
	v, _ = v.Unmark()
	if !v.IsKnown() {
		return false
	}
	if v.IsNull() {
		return true
	}
	ty := v.Type()
	return ty == cty.String && v.AsString() == "" || (ty.IsListType() || ty.IsMapType()) && v.LengthInt() == 0
}

// marked tells whether v or a part of it is marked.
func marked(v cty.Value) bool {
	return v != cty.NilVal && !schema.Plain(v) && v.ContainsMarked()
}

func unmark(v cty.Value) cty.Value {
	if !marked(v) {
		return v
	}
	v, _ = v.UnmarkDeep()
	return v
}

func attribute(v cty.Value, name string) cty.Value {
	if v == cty.NilVal {
		return cty.NilVal
	}
	if a, ok := schema.Attribute(v, name); ok {
		return a
	}
	u, marks := v.Unmark()
	if !u.Type().IsObjectType() || !u.Type().HasAttribute(name) {
		return cty.NilVal
	}
	if u.IsNull() {
		return cty.NilVal
	}
	return u.GetAttr(name).WithMarks(marks)
}

func element(m map[string]cty.Value, key string) cty.Value {
	if v, ok := m[key]; ok {
		return v
	}
	return cty.NilVal
}

// appendAttributeNames appends the names of the attributes that any of these
// objects has, in their order.
func appendAttributeNames(names []string, values ...cty.Value) []string {
	start := len(names)
	for _, v := range values {
		if v == cty.NilVal || !v.Type().IsObjectType() {
			continue
		}
		for name := range v.Type().AttributeTypes() {
			names = append(names, name)
		}
	}
	slices.Sort(names[start:])
	return names[:start+len(slices.Compact(names[start:]))]
}

func sortedKeys(maps ...map[string]cty.Value) []string {
	var keys []string
	for _, m := range maps {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
