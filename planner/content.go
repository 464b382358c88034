package planner

import (
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// content is what an object is but for its address, its name and what a
// provider works out, and but for what is secret in it: of a group with its
// resources. False: not all is known.
func (b *builder) content(it *item) (string, bool) {
	var out strings.Builder
	if !b.writeContent(&out, it) {
		return "", false
	}
	parts := slices.Clone(b.parts[it.addr()])
	slices.SortFunc(parts, func(x, y *item) int { return addr.Compare(x.addr(), y.addr()) })
	for _, p := range parts {
		out.WriteString("\n" + p.addr().DefaultName() + " ")
		if !b.writeContent(&out, p) {
			return "", false
		}
	}
	return out.String(), true
}

func (b *builder) writeContent(out *strings.Builder, it *item) bool {
	typ, provider, v := "", "", cty.NilVal
	switch {
	case it.want != nil:
		typ, provider, v = it.want.Type, it.want.Provider, it.want.config
	case it.old != nil:
		typ, provider, v = it.old.Type, it.old.Provider, b.attributes(it)
	}
	if v == cty.NilVal || v.IsNull() {
		return false
	}
	v, _ = v.Unmark()
	attrs := v.AsValueMap()
	shape := b.shapes[typ].attrs
	var hidden []string
	if it.old != nil {
		hidden = it.old.Sensitive
	}
	for name, e := range attrs {
		if e.ContainsMarked() || slices.Contains(hidden, name) {
			attrs[name] = cty.StringVal("(sensitive value)") // of what is gone, nobody knows it
			continue
		}
		e, _ = e.UnmarkDeep()
		attrs[name] = e
		if name == "name" || shape[name].Computed || isAbsent(e) {
			delete(attrs, name)
		} else if !e.IsWhollyKnown() {
			return false
		}
	}
	out.WriteString(typ + " " + provider)
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		text, err := schema.ToJSON(attrs[name])
		if err != nil {
			return false
		}
		out.WriteString(" " + name + "=")
		out.Write(text)
	}
	return true
}
