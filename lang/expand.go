package lang

import (
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// expand finds the instances of a block, in the order of their keys.
func (ev *evaluation) expand(b *block, at addr.Address, group *instance) *instances {
	is := &instances{}
	one := func(key addr.Key, vars map[string]cty.Value) {
		in := &instance{ev: ev, block: b, addr: at, parent: group, vars: vars}
		if b.kind == rootResource {
			in.addr = at.WithResource(b.name, key)
			switch {
			case !group.block.repeated():
			case vars == nil: // as every other resource of the group that isn't repeated
				in.vars, in.ctx = ev.resourceVars(group)
			default:
				in.vars[rootGroupEach] = group.groupEach()
			}
		} else {
			in.addr.Key = key
		}
		in.name = in.addr.DefaultName()
		is.list = append(is.list, in)
		if b.repeated() {
			is.byKey[key] = in
		}
		ev.byAddr.Put(in)
	}
	if b.repeated() {
		is.byKey = map[addr.Key]*instance{}
	}
	is.unknown = !ev.repeat(b, ev.asker(b, group), one) || ev.c.torn.has(b.rng) // there may be others
	return is
}

// asker is who works out a block's for_each or count: a resource's sees its group as
// group_each.
func (ev *evaluation) asker(b *block, group *instance) *instance {
	if group == nil {
		return nil
	}
	in := &instance{ev: ev, block: b, parent: group}
	if group.block.repeated() {
		in.vars, in.ctx = ev.resourceVars(group)
	}
	return in
}

// repeat calls one for each instance of a block, in the order of their keys,
// with what its expressions see of for_each or count. False: how many there
// are isn't known, which was told.
func (ev *evaluation) repeat(b *block, asker *instance, one func(addr.Key, map[string]cty.Value)) bool {
	switch {
	case b.forEach != nil:
		v, bad := ev.once(b.forEach, asker)
		if bad {
			return false
		}
		keys, values, d := forEachItems(b, v)
		if d != nil {
			ev.add(d)
			return false
		}
		for i, k := range keys {
			one(addr.StringKey(k), map[string]cty.Value{rootEach: cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(k), "value": values[i]})})
		}
	case b.count != nil:
		v, bad := ev.once(b.count, asker)
		if bad {
			return false
		}
		n, d := countOf(b, v)
		if d != nil {
			ev.add(d)
			return false
		}
		for i := range n {
			one(addr.IntKey(i), map[string]cty.Value{rootCount: cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(int64(i))})})
		}
	default:
		one(addr.NoKey, nil)
	}
	return true
}

// once is eval of a for_each or count, which is kept where it is the same in
// every instance of what is around it: the lists may be long.
func (ev *evaluation) once(e *expr, in *instance) (v cty.Value, bad bool) {
	if e.perInstance || e.resources {
		return ev.eval(e, in)
	}
	m := &ev.memo[e.id]
	if !m.have || ev.again && !m.value.IsWhollyKnown() {
		m.value, m.bad = ev.eval(e, in)
		m.have = true
	}
	return m.value, m.bad
}

// resourceVars are what the resources of a group's instance see of it.
func (ev *evaluation) resourceVars(group *instance) (map[string]cty.Value, *hcl.EvalContext) {
	if group.inner == nil {
		group.inner = ev.root.NewChild()
		group.inner.Variables = map[string]cty.Value{rootGroupEach: group.groupEach()}
	}
	return group.inner.Variables, group.inner
}

// groupEach is what a group's instance is to its resources.
func (in *instance) groupEach() cty.Value {
	if each, ok := in.vars[rootEach]; ok {
		return each
	}
	index := in.vars[rootCount].GetAttr("index")
	return cty.ObjectVal(map[string]cty.Value{"key": index, "value": index})
}

// whatToTarget says how to come to know what a block is repeated by.
func whatToTarget(e *expr) string {
	var first []string
	for _, r := range e.refs {
		if isObject(r.root) || r.root == rootModule {
			first = append(first, "--target "+r.root+"."+r.name)
		}
	}
	if len(first) == 0 {
		return "Use keys that the definition itself knows."
	}
	return fmt.Sprintf("Use keys that the definition itself knows, or apply first with %s.", strings.Join(first, " "))
}

const maxInstances = 1_000_000

func forEachItems(b *block, v cty.Value) ([]string, []cty.Value, *hcl.Diagnostic) {
	e := b.forEach
	if schema.IsSensitive(v) {
		top, _ := v.Unmark()
		if v.HasMark(schema.Sensitive) || top.Type().IsSetType() {
			return nil, nil, errorAt(e.Range(), "Sensitive for_each", "Keys stand in addresses, which are shown. Use nonsensitive() for the keys, or other keys.")
		}
	}
	v, _ = v.Unmark()
	t := v.Type()
	if v.IsNull() {
		return nil, nil, errorAt(e.Range(), "Invalid for_each", "for_each is null. Use an empty map for no instance.")
	}
	if t == cty.DynamicPseudoType || !v.IsKnown() {
		return nil, nil, errorAt(e.Range(), "Unknown for_each", "How many instances there are must be known when planning. "+whatToTarget(e))
	}
	switch {
	case t.IsMapType(), t.IsObjectType():
		m := v.AsValueMap()
		keys := sortedKeys(m)
		if t.IsObjectType() {
			if a, ok := identityOf(v); ok {
				return nil, nil, errorAt(e.Range(), "Invalid for_each", fmt.Sprintf("%s is one object and no collection. Use { KEY = %s }.", a, a))
			}
		}
		values := make([]cty.Value, len(keys))
		for i, k := range keys {
			values[i] = m[k]
		}
		return keys, values, nil
	case t.IsSetType():
		if v.LengthInt() > 0 && !t.ElementType().Equals(cty.String) {
			return nil, nil, errorAt(e.Range(), "Invalid for_each", "A set in for_each holds strings. Use a map, whose keys name the instances.")
		}
		var keys []string
		var values []cty.Value
		for it := v.ElementIterator(); it.Next(); {
			_, elem := it.Element()
			if !elem.IsKnown() || elem.IsNull() {
				return nil, nil, errorAt(e.Range(), "Unknown for_each", "Every key must be known when planning, and none null. "+whatToTarget(e))
			}
			keys = append(keys, elem.AsString())
		}
		sort.Strings(keys)
		for _, k := range keys {
			values = append(values, cty.StringVal(k))
		}
		return keys, values, nil
	}
	return nil, nil, errorAt(e.Range(), "Invalid for_each", fmt.Sprintf("for_each is a map or a set of strings, and this is of type %s. For a list of strings, write toset(...).", t.FriendlyNameForConstraint()))
}

func countOf(b *block, v cty.Value) (int, *hcl.Diagnostic) {
	e := b.count
	v, _ = v.Unmark()
	v, err := convert.Convert(v, cty.Number)
	switch {
	case err != nil || v.IsNull():
		return 0, errorAt(e.Range(), "Invalid count", "count is a whole number from 0.")
	case !v.IsKnown():
		return 0, errorAt(e.Range(), "Unknown count", "How many instances there are must be known when planning. "+whatToTarget(e))
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != 0 || n < 0 || n > maxInstances {
		return 0, errorAt(e.Range(), "Invalid count", fmt.Sprintf("count is a whole number from 0 to %d.", maxInstances))
	}
	return int(n), nil
}
