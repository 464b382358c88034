package lang

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// block works out all instances of a block that is no resource.
func (ev *evaluation) block(b *block) {
	a := addr.Address{Module: ev.path, Type: b.kind, Name: b.name}
	if b.kind == addr.TypeCluster {
		a = addr.Cluster()
	}
	is := ev.expand(b, a, nil)
	ev.blocks[b] = is
	if is.unknown {
		ev.broken[b] = true
	}
	for _, in := range is.list {
		if b.unmade {
			in.broken, in.ref = true, cty.DynamicVal
		} else {
			ev.object(in)
		}
		if in.broken {
			ev.broken[b] = true
		}
	}
	if b.kind == addr.TypeCluster {
		ev.clusterDone(is.list[0])
	}
}

// object works out one instance's attributes, and a group's resources.
func (ev *evaluation) object(in *instance) {
	b := in.block.body
	// Instances of a block share one map, in which only what differs is
	// written anew, unless more than one of them waits for its lists.
	if !in.alone() && (!b.lists || in.block.kind == rootResource && !in.block.repeated()) {
		in.attrs = ev.sharedValues(b, in)
	} else {
		in.attrs = ev.bodyValues(b, in, cty.NilVal)
	}
	ev.defaults(in)
	if !b.lists && in.block.kind != addr.TypeCluster { // its timings are still to come
		ev.seal(in)
	}
	if in.block.kind != addr.TypeGroup {
		return
	}
	in.resources = make(map[string]*instances, len(in.block.order))
	for _, rb := range in.block.order {
		is := ev.expand(rb, in.addr, in)
		in.resources[rb.name] = is
		if is.unknown {
			in.broken = true
		}
		for _, r := range is.list {
			ev.object(r)
			in.broken = in.broken || r.broken
		}
	}
	// What only orders resources can name any of them, also those below.
	for _, rb := range in.block.order {
		for _, r := range in.resources[rb.name].list {
			if r.attrs != nil {
				ev.lists(r)
				ev.seal(r)
			}
		}
	}
}

// alone tells whether the block has this instance and no other.
func (in *instance) alone() bool {
	return !in.block.repeated() && (in.parent == nil || !in.parent.block.repeated())
}

// seal makes the value of the attributes; of a resource that is the same in
// every instance of its group, once.
func (ev *evaluation) seal(in *instance) {
	b := in.block.body
	if in.alone() {
		in.value = ev.alike(in.block, in.attrs)
		ev.spare(b, in.attrs)
	} else if in.block.kind != rootResource || len(b.vary)+len(b.varyBlocks) > 0 || b.varyLists {
		in.value = ev.alike(in.block, in.attrs)
	} else if v, ok := ev.sealed[b]; ok {
		in.value = v
	} else {
		in.value = ev.alike(in.block, in.attrs)
		ev.sealed[b] = in.value
	}
	in.attrs = nil
}

// shared are the attributes of a body's instances, in a map that the next
// instance takes over.
type shared struct {
	attrs map[string]cty.Value
	deps  []Edge // of what is the same in every instance
	bad   bool
	// unknown: of what is the same in every instance, parts are.
	unknown bool
}

// sharedValues is bodyValues, working out again only what differs by instance.
func (ev *evaluation) sharedValues(b *body, in *instance) map[string]cty.Value {
	sh, ok := ev.shares[b]
	if !ok {
		out := ev.bodyValues(b, in, cty.NilVal)
		ev.shares[b] = &shared{attrs: out, deps: ev.constantEdges(b), bad: in.broken, unknown: ev.constantUnknown(b)}
		return out
	}
	in.broken = in.broken || sh.bad
	in.unknown = in.unknown || sh.unknown
	in.deps = append(in.deps, sh.deps...)
	for _, i := range b.vary {
		ev.put(sh.attrs, &b.attrs[i], in)
	}
	for _, i := range b.varyBlocks {
		n := &b.blocks[i]
		if len(n.all) > 0 {
			sh.attrs[n.Name] = ev.unfolded(n, in)
			continue
		}
		sh.attrs[n.Name] = ofType(n.deflt.Type(), ev.sharedValues(n.body, in))
	}
	return sh.attrs
}

// constantUnknown tells whether of what is the same in every instance of a
// body anything is unknown.
func (ev *evaluation) constantUnknown(b *body) bool {
	unknown := false
	b.each(func(a *attribute) {
		unknown = unknown || a.attributeShape != dynamicForEach && !a.identity && !a.expr.perInstance && ev.memo[a.expr.id].unknown
	})
	return unknown
}

// put works out one attribute.
func (ev *evaluation) put(out map[string]cty.Value, a *attribute, in *instance) {
	switch {
	case a.Computed:
		v := ev.computed(in, a)
		out[a.Name] = v
		in.unknown = in.unknown || !v.IsWhollyKnown()
	case a.expr == nil || a.identity: // a list is filled in by lists
		out[a.Name] = a.deflt
	default:
		v, ids, unknown, bad := ev.attribute(a, in)
		out[a.Name] = v
		in.broken = in.broken || bad
		in.unknown = in.unknown || unknown
		if !ev.again {
			in.deps = ev.attrEdges(in.deps, a, in, unknown, ids)
		}
	}
}

// bodyValues works out the attributes of a body. prev, if given, is the value
// from before: what is known in it stays.
func (ev *evaluation) bodyValues(b *body, in *instance, prev cty.Value) map[string]cty.Value {
	out := ev.fresh(b)
	for i := range b.attrs {
		a := &b.attrs[i]
		if prev != cty.NilVal {
			if old := prev.GetAttr(a.Name); old.IsWhollyKnown() {
				out[a.Name] = old
				continue
			}
		}
		ev.put(out, a, in)
	}
	for i := range b.blocks {
		n := &b.blocks[i]
		if n.body == nil && len(n.all) == 0 {
			out[n.Name] = n.deflt
			continue
		}
		old := cty.NilVal
		if prev != cty.NilVal {
			old = prev.GetAttr(n.Name)
			if old.IsWhollyKnown() {
				out[n.Name] = old
				continue
			}
		}
		if len(n.all) > 0 {
			out[n.Name] = ev.unfolded(n, in)
			continue
		}
		out[n.Name] = ev.nestedValue(n, in, old)
	}
	return out
}

// computed is what is known of an attribute that the provider works out.
func (ev *evaluation) computed(in *instance, a *attribute) cty.Value {
	if ev.known != nil {
		if obj, ok := ev.known(in.addr); ok && obj != cty.NilVal {
			obj, _ := obj.Unmark()
			if obj.IsKnown() && !obj.IsNull() && obj.Type().IsObjectType() && obj.Type().HasAttribute(a.Name) {
				// Of machinery, what the provider has not said there will never be.
				if v := obj.GetAttr(a.Name); v.Type().Equals(a.typ) && (!v.IsNull() || addr.Machinery(in.addr.Type)) {
					return v
				}
			}
		}
	}
	return cty.UnknownVal(a.typ)
}

// attribute works out one attribute that the definition gives; of one that is
// the same in every instance, once.
func (ev *evaluation) attribute(a *attribute, in *instance) (v cty.Value, ids []addr.Address, unknown, bad bool) {
	m := &ev.memo[a.expr.id]
	if m.have && !a.expr.perInstance && (!ev.again || !m.unknown) {
		return m.value, m.ids(), m.unknown, m.bad
	}
	if v, ids, ok := ev.named(a, in); ok {
		if !a.expr.perInstance {
			m.value, m.have = v, true
			m.names(ids)
		}
		return v, ids, false, false
	}
	v, bad = ev.eval(a.expr, in)
	if !bad || v != cty.DynamicVal {
		var d *hcl.Diagnostic
		v, ids, d = ev.canonical(a, v, in)
		if d != nil {
			ev.add(d)
			bad = true
		} else if unknown = !schema.Plain(v) && !v.IsWhollyKnown(); !bad && a.KnownAtPlan && unknown && !ev.c.unparsed {
			ev.add(errorAt(a.expr.Range(), "Value must be known when planning", fmt.Sprintf("%s decides what a plan does, and this hangs on something that only an apply will know%s. Use a literal, a variable, or an attribute that the definition gives.", a.Name, unknownCause(a.expr))))
			bad = true
		}
	}
	if bad && (v == cty.DynamicVal || v == cty.NilVal) {
		v, unknown = cty.UnknownVal(a.typ), true
	}
	if !a.expr.perInstance {
		m.value, m.unknown, m.bad, m.have = v, unknown, bad, true
		m.names(ids)
	}
	return v, ids, unknown, bad
}

func unknownCause(e *expr) string {
	for _, r := range e.refs {
		if isObject(r.root) {
			text := r.root + "." + r.name
			if r.attr != "" {
				text += "'s " + r.attr
			}
			return " (" + text + ")"
		}
	}
	return ""
}

// defaults fills in what an absent attribute takes from elsewhere.
func (ev *evaluation) defaults(in *instance) {
	b := in.block
	switch b.kind {
	case addr.TypeNode, addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
		in.attrs["provider"] = cty.StringVal(b.provider)
		in.nameAttr()
	case addr.TypeCluster:
		if v := in.attrs["name"]; v.IsKnown() && v.IsNull() {
			in.attrs["name"] = cty.StringVal(b.name)
		}
	case addr.TypeFence:
		in.nameAttr()
		in.guardParameters(in.attrs)
	case addr.TypeGroup:
		in.nameAttr()
		if v := in.attrs["stop_within"]; v.IsKnown() && v.IsNull() {
			in.attrs["stop_within"] = cty.StringVal(ev.timings.StopWithin.String())
		}
		for i := range b.body.blocks {
			n := &b.body.blocks[i]
			if n.Name != "failback" || !ev.hotSpare || in.gives(n, "mode") {
				continue
			}
			m := in.attrs["failback"].AsValueMap()
			m["mode"] = cty.StringVal(spec.FailbackImmediate)
			in.attrs["failback"] = cty.ObjectVal(m)
		}
	}
}

// gives tells whether a block stands in the definition and has an attribute.
func (in *instance) gives(n *nested, attr string) bool {
	if n.body != nil && n.body.attr(attr).expr != nil {
		return true
	}
	return slices.Contains(in.dynamics, n.Name) && slices.ContainsFunc(n.all, func(l labelled) bool { return l.body.attr(attr).expr != nil })
}

// guardParameters marks a fence's parameters that are never shown, and lists
// them for the agents, which know no marks.
func (in *instance) guardParameters(attrs map[string]cty.Value) {
	if a := in.block.body.attr("sensitive_parameters"); a.expr == nil {
		attrs[a.Name] = a.deflt // of an instance before this one
	}
	attrs["sensitive_parameters"] = sensitiveParameters(attrs["sensitive_parameters"], attrs["parameters"])
	attrs["parameters"] = hideSecrets(attrs["parameters"], attrs["sensitive_parameters"])
}

// sensitiveParameters are the names of a fence's parameters that are never
// shown: those that the definition names, those with sensitive values, and
// those that are secrets by their names.
func sensitiveParameters(given, parameters cty.Value) cty.Value {
	names := map[string]bool{}
	if v, _ := given.Unmark(); v.IsKnown() && !v.IsNull() {
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); e.IsKnown() && !e.IsNull() {
				e, _ = e.Unmark()
				names[e.AsString()] = true
			}
		}
	}
	v, marks := parameters.Unmark()
	if v.IsKnown() && !v.IsNull() {
		for it := v.ElementIterator(); it.Next(); {
			key, e := it.Element()
			key, _ = key.Unmark()
			if len(marks) > 0 || schema.IsSensitive(e) || spec.SecretParameter(key.AsString()) {
				names[key.AsString()] = true
			}
		}
	}
	list := make([]cty.Value, 0, len(names))
	for _, name := range sortedKeys(names) {
		list = append(list, cty.StringVal(name))
	}
	if len(list) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	return cty.ListVal(list)
}

// hideSecrets marks the parameters with these names.
func hideSecrets(parameters, names cty.Value) cty.Value {
	v, marks := parameters.Unmark()
	if !v.IsKnown() || v.IsNull() || v.LengthInt() == 0 {
		return parameters
	}
	secret := map[string]bool{}
	for it := names.ElementIterator(); it.Next(); {
		_, e := it.Element()
		secret[e.AsString()] = true
	}
	m := v.AsValueMap()
	for name, e := range m {
		if secret[name] && !e.IsMarked() {
			m[name] = e.Mark(schema.Sensitive)
		}
	}
	return cty.MapVal(m).WithMarks(marks)
}

func (in *instance) nameAttr() {
	v, _ := in.attrs["name"].Unmark()
	switch {
	case !v.IsKnown(): // told
	case v.IsNull(), in.block.body.attr("name").expr == nil:
		in.attrs["name"] = cty.StringVal(in.name)
	default:
		in.name = v.AsString()
	}
}

// onDevice tells whether a cluster's quorum is a device.
func onDevice(in *instance) bool {
	var q spec.Quorum
	v := in.attrs["quorum"]
	return v.IsWhollyKnown() && !v.IsNull() && schema.Decode(v, &q) == nil && q.Model == spec.SingleQuorum
}

// clusterDone completes the cluster's timings, which groups take defaults from.
func (ev *evaluation) clusterDone(in *instance) {
	if hb := in.attrs["heartbeat"]; hb.IsWhollyKnown() {
		var t spec.Timings
		if err := schema.Decode(hb, &t); err == nil {
			if t.DeviceIO == 0 && onDevice(in) {
				t.DeviceIO = spec.DefaultDeviceIO
			}
			ev.timings = t.WithDefaults()
			if v, err := schema.Encode(ev.timings, hb.Type()); err == nil {
				in.attrs["heartbeat"] = v
			}
		}
	}
	conf, _ := in.attrs["configuration"].Unmark()
	ev.hotSpare = conf.IsKnown() && !conf.IsNull() && conf.AsString() == spec.HotSpare
	ev.seal(in)
}

// lists works out the lists that only order what runs: of a group, other
// groups; of a resource, resources of its group.
func (ev *evaluation) lists(in *instance) {
	for i := range in.block.body.attrs {
		a := &in.block.body.attrs[i]
		if !a.identity || a.expr == nil {
			continue
		}
		m := &ev.memo[a.expr.id]
		var ids []addr.Address
		if m.have && !a.expr.perInstance {
			ids = m.ids()
			in.attrs[a.Name] = m.value
		} else if v, named, ok := ev.named(a, in); ok {
			ids = named
			in.attrs[a.Name] = v
			m.have, m.value = true, v
			m.names(ids)
		} else {
			v, bad := ev.eval(a.expr, in)
			var d *hcl.Diagnostic
			if !bad {
				if v, ids, d = ev.canonical(a, v, in); d != nil {
					ev.add(d)
					bad = true
				} else if !v.IsWhollyKnown() {
					kind := in.block.kind
					if a.Type == spec.TypeGroupRefs {
						kind = addr.TypeGroup
					}
					if !ev.c.root.unparsed { // else that is why
						ev.add(errorAt(a.expr.Range(), "Value must be known when planning", fmt.Sprintf("%s decides what a plan does. Name the %ss themselves.", a.Name, kind)))
					}
					bad = true
				}
			}
			if bad {
				v, in.broken = a.deflt, true
			}
			in.attrs[a.Name] = v
			m.have, m.value = true, v
			m.names(ids)
		}
		if a.Name == "keep_apart" || a.Name == "keep_apart_soft" {
			continue // no order
		}
		for _, id := range ids {
			if in.parent != nil { // the same resource of this instance of the group
				id = in.parent.addr.WithResource(id.Resource, id.ResourceKey)
			}
			in.deps = append(in.deps, Edge{To: id, Hard: true})
		}
	}
}

// finish works out what needs all groups to be there.
func (ev *evaluation) finish() {
	for _, p := range ev.c.order {
		b, ok := p.v.(*block)
		if !ok || b.kind != addr.TypeGroup && b.kind != addr.TypeGuarantee {
			continue
		}
		for _, at := range ev.at[p.at] {
			if is := at.blocks[b]; is != nil {
				at.finishBlock(b, is)
			}
		}
	}
}

func (ev *evaluation) finishBlock(b *block, is *instances) {
	for _, in := range is.list {
		if in.attrs == nil {
			continue
		}
		ev.lists(in)
		if in.broken {
			ev.broken[b] = true
		}
		ev.seal(in)
	}
}

// refValue is an object as expressions see it: its attributes but for the
// lists that only order what runs, and its identity.
func (ev *evaluation) refValue(in *instance) cty.Value {
	if in.ref != cty.NilVal && (!ev.again || in.ref.IsWhollyKnown()) {
		return in.ref
	}
	if in.attrs == nil && in.value == cty.NilVal {
		return cty.DynamicVal // being worked out: a cycle ends here
	}
	if ev.again && !in.value.IsWhollyKnown() {
		in.ev.refresh(in)
	}
	clear(ev.scratch)
	attrs := ev.scratch
	get := func(name string) cty.Value {
		if in.attrs != nil {
			return in.attrs[name]
		}
		return in.value.GetAttr(name)
	}
	for _, a := range in.block.schema.Attributes {
		if !orders(in.block, a) {
			attrs[a.Name] = get(a.Name)
		}
	}
	for _, n := range in.block.schema.Blocks {
		attrs[n.Name] = get(n.Name)
	}
	attrs[identityAttr] = identityVal(&in.addr)
	in.ref = ev.likeOthers(likeness{in.block.kind, in.block.typ, true}, attrs)
	return in.ref
}

// refresh works out again what was unknown in an object.
func (ev *evaluation) refresh(in *instance) {
	ev.freshen(in)
	prev := in.value
	attrs := ev.bodyValues(in.block.body, in, prev)
	for i := range in.block.body.attrs {
		if a := &in.block.body.attrs[i]; a.identity {
			attrs[a.Name] = prev.GetAttr(a.Name)
		}
	}
	if in.block.kind == addr.TypeFence {
		in.guardParameters(attrs)
	}
	in.value = cty.ObjectVal(attrs)
}

// freshen works out again what was unknown in each.value.
func (ev *evaluation) freshen(in *instance) {
	if in.parent != nil {
		ev.freshen(in.parent)
		if inner := in.parent.inner; inner != nil {
			inner.Variables[rootGroupEach] = in.parent.groupEach()
		}
		if _, ok := in.vars[rootGroupEach]; ok {
			in.vars[rootGroupEach] = in.parent.groupEach()
		}
	}
	each, ok := in.vars[rootEach]
	if !ok || each.IsWhollyKnown() {
		return
	}
	m := each.AsValueMap()
	if a, ok := identityOf(m["value"]); ok && ev.byAddr.At(a) != nil {
		m["value"] = ev.refValue(ev.byAddr.At(a))
	} else if v, bad := ev.eval(in.block.forEach, ev.asker(in.block, in.parent)); !bad {
		keys, values, d := forEachItems(in.block, v)
		for i, k := range keys {
			if d == nil && k == in.addrKey().Plain() {
				m["value"] = values[i]
			}
		}
	}
	in.vars[rootEach] = cty.ObjectVal(m)
}
