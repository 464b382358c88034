package lang

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// evaluation works out values. Vertices are evaluated in the order that their
// references ask for, each once; a value that isn't wholly known is worked out
// again when it is asked for and known has grown (Definition.Resolve).
//
// The contexts of expressions are small: an expression sees the variables, and
// of local values, nodes and groups only those that it names, so that the cost
// of an object doesn't depend on how many others there are. What is the same
// for all instances of a block is worked out once.
//
// There is one of each module instance, and the root's; what they share is the
// world.
type evaluation struct {
	*world
	c *Config

	// Of a module's instance: who calls it. Zero for the root.
	outer *evaluation
	call  *moduleCall
	inst  *instance // what the call's arguments see of for_each and count
	path  string    // module.m["k"], "" for the root

	root    *hcl.EvalContext
	memo    []memo                  // by expr.id
	vars    map[*variable]cty.Value // of a module
	locals  map[*local]cty.Value
	outputs map[*output]cty.Value // of a module; those that ask the running cluster are never kept
	blocks  map[*block]*instances // nodes, groups, cluster, machinery
	modules map[*moduleCall]*moduleInstances
	broken  map[vertex]bool // had an error; what hangs on it is unknown for no other reason

	varDeps    map[*variable][]Edge
	localDeps  map[*local][]Edge
	outputDeps map[*output][]Edge
	shares     map[*body]*shared
	sealed     map[*body]cty.Value
	spares     map[*attributeShape][]map[string]cty.Value // by a body's first attribute
	seen       map[vertex]map[string]cty.Value            // by a variable or local value: what expressions see that name it alone
}

// world is what the evaluations of all module instances share.
type world struct {
	known Known
	live  Live // runtime attributes, where the cluster was asked
	diags hcl.Diagnostics
	again bool // values that were unknown are being worked out again
	quiet bool // what is wrong was told before

	byAddr *addr.Index[instance]
	all    []*evaluation           // a module behind the one that calls it
	at     map[*site][]*evaluation // the same, by place

	timings  spec.Timings // the cluster's, complete
	hotSpare bool
	types    map[likeness]cty.Type // of the first value of each
	scratch  map[string]cty.Value  // attributes of which a value is made at once
}

// memo is what was worked out for an expression that is the same in every instance.
type memo struct {
	value   cty.Value // converted
	more    *links    // nil: it refers to nothing, as most do
	unknown bool      // not wholly known
	have    bool
	bad     bool
}

// links are what an evaluation knows of an expression's references.
type links struct {
	vars     map[string]cty.Value // of those to local values and whole blocks
	edges    []Edge
	ids      []addr.Address // the objects that a list names; nil once all is evaluated
	haveVars bool
	haveDeps bool
}

// links are m's, to be read and written.
func (m *memo) links() *links {
	if m.more == nil {
		m.more = new(links)
	}
	return m.more
}

// ids are the objects that a list names.
func (m *memo) ids() []addr.Address {
	if m.more == nil {
		return nil
	}
	return m.more.ids
}

// names keeps the objects that a list names.
func (m *memo) names(ids []addr.Address) {
	if len(ids) > 0 || m.more != nil {
		m.links().ids = ids
	}
}

// instances are those of one block.
type instances struct {
	list    []*instance
	byKey   map[addr.Key]*instance
	unknown bool // for_each failed
	whole   cty.Value
}

// instance is one object while it is worked out.
type instance struct {
	ev        *evaluation // that it belongs to
	block     *block
	addr      addr.Address
	name      string
	parent    *instance // a resource's group
	vars      map[string]cty.Value
	ctx       *hcl.EvalContext
	inner     *hcl.EvalContext     // of a group: what its resources see
	attrs     map[string]cty.Value // until value is made
	value     cty.Value
	ref       cty.Value // as other expressions see it
	deps      []Edge
	resources map[string]*instances
	eachDeps  []Edge
	haveEach  bool
	broken    bool
	unknown   bool     // parts of its value are
	dynamics  []string // blocks that stand once, and here by a dynamic block
}

func (ev *evaluation) add(d ...*hcl.Diagnostic) {
	if !ev.quiet {
		ev.diags = append(ev.diags, d...)
	}
}

// run evaluates everything in order.
func (ev *evaluation) run() {
	for _, p := range ev.c.order {
		for _, at := range ev.at[p.at] {
			switch v := p.v.(type) {
			case argument:
				at.variable(v.variable)
			case *variable:
				at.validate(v)
			case *local:
				at.local(v)
			case *moduleCall:
				at.module(v, p.at.inner[v.block.name])
			case *block:
				at.block(v)
			case *output:
				if at.outer != nil {
					at.output(v)
				}
			}
		}
	}
	ev.finish()
}

func (ev *evaluation) validate(v *variable) {
	for _, check := range v.validations {
		ok, bad := ev.eval(check.condition, nil)
		if bad {
			continue
		}
		ok, _ = ok.Unmark()
		ok, err := convert.Convert(ok, cty.Bool)
		if err != nil || ok.IsNull() {
			ev.add(errorAt(check.condition.Range(), "Invalid condition", "The condition of a validation is true or false."))
			continue
		}
		if !ok.IsKnown() || ok.True() {
			continue
		}
		text := "The value doesn't meet the condition."
		if msg, bad := ev.eval(check.message, nil); !bad {
			switch m, err := convert.Convert(msg, cty.String); {
			case err != nil || !m.IsWhollyKnown() || m.IsNull():
			case schema.IsSensitive(m):
				text = "The error message has a sensitive value, so it isn't shown."
			default:
				text = m.AsString()
			}
		}
		ev.add(errorAt(v.rng, "Invalid value for a variable", fmt.Sprintf("%s\n\nThis was checked by the validation at %s.", text, check.rng)))
	}
}

// local is a local value; unknown after an error.
func (ev *evaluation) local(l *local) cty.Value {
	v, ok := ev.locals[l]
	if ok && (!ev.again || v.IsWhollyKnown()) {
		return v
	}
	if !ok && ev.again {
		return cty.DynamicVal // stands in a cycle
	}
	ev.locals[l] = cty.DynamicVal // a cycle ends here
	v, bad := ev.eval(l.expr, nil)
	if bad {
		ev.broken[l] = true
	}
	ev.locals[l] = v
	return v
}

// eval works out an expression in an instance's context (nil: none). bad says
// that it is unknown because of an error.
func (ev *evaluation) eval(e *expr, in *instance) (v cty.Value, bad bool) {
	if e.bad {
		return cty.DynamicVal, true
	}
	ctx, ok := ev.context(e, in)
	if !ok {
		return cty.DynamicVal, true
	}
	v, diags := e.Value(ctx)
	if diags.HasErrors() {
		if ev.tainted(e) {
			return cty.DynamicVal, true
		}
		ev.add(discreet(diags, e, ctx)...)
		return cty.DynamicVal, true
	}
	ev.add(discreet(diags, e, ctx)...)
	return v, ev.tainted(e) && !v.IsWhollyKnown()
}

// discreet takes the values out of the diagnostics of an expression that
// refers to sensitive ones: functions quote their arguments, and writers of
// diagnostics show what is in the context.
func discreet(diags hcl.Diagnostics, e *expr, ctx *hcl.EvalContext) hcl.Diagnostics {
	if len(diags) == 0 {
		return nil
	}
	if !secret(e, ctx) {
		return diags
	}
	out := make(hcl.Diagnostics, len(diags))
	for i, d := range diags {
		c := *d
		c.Detail = "The expression has sensitive values, so what is wrong isn't shown in particular. Look at them yourself, or try the expression with others."
		c.Expression, c.EvalContext = nil, nil
		out[i] = &c
	}
	return out
}

// tainted tells whether an expression refers to something that had an error.
func (ev *evaluation) tainted(e *expr) bool {
	if len(ev.broken) == 0 && len(ev.c.modules) == 0 {
		return false
	}
	if e.iterated && len(ev.broken) > 0 {
		return true // its element may be
	}
	for i := range e.refs {
		switch r := &e.refs[i]; r.root {
		case rootVar:
			if ev.broken[ev.c.vars[r.name]] {
				return true
			}
		case rootLocal:
			if ev.broken[ev.c.locals[r.name]] {
				return true
			}
		case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
			if ev.broken[ev.c.objects(r.root)[r.name]] {
				return true
			}
		case rootModule:
			if ev.moduleBroken(r) {
				return true
			}
		case rootResource, rootEach, rootGroupEach, rootSelf:
			if len(ev.broken) > 0 {
				return true // told where it broke
			}
		}
	}
	return false
}

// blockVars gives the values of all of an expression's references under one
// root: whole blocks, or of a for_each block only the instances that are named.
func (ev *evaluation) blockVars(e *expr, root string, ctx *hcl.EvalContext, in *instance) (map[string]cty.Value, bool) {
	var out map[string]cty.Value
	var parts map[string]map[string]cty.Value
	ok := true
	for i := range e.refs {
		r := &e.refs[i]
		if r.root != root {
			continue
		}
		if out == nil {
			out = map[string]cty.Value{}
		}
		if _, whole := out[r.name]; whole {
			continue
		}
		b, is := ev.target(r, in)
		if is == nil || is.unknown {
			out[r.name] = cty.DynamicVal
			continue
		}
		if b.forEach == nil || r.key == cty.NilVal && r.keyExpr == nil {
			out[r.name] = ev.whole(b, is)
			continue
		}
		target, state := ev.keyed(r, b, is, ctx)
		switch state {
		case keyWrong:
			ok = false
		case keyUnknown:
			out[r.name] = ev.whole(b, is)
		case keyFound:
			if parts == nil {
				parts = map[string]map[string]cty.Value{}
			}
			if parts[r.name] == nil {
				parts[r.name] = map[string]cty.Value{}
			}
			parts[r.name][target.addrKey().Plain()] = ev.refValue(target)
		}
	}
	for name, insts := range parts {
		if _, whole := out[name]; !whole {
			out[name] = cty.ObjectVal(insts)
		}
	}
	return out, ok
}

func (in *instance) addrKey() addr.Key {
	if in.addr.IsResource() {
		return in.addr.ResourceKey
	}
	return in.addr.Key
}

// target finds the block that a reference means, and its instances; nil before
// they were worked out, which only a cycle leads to.
func (ev *evaluation) target(r *ref, in *instance) (*block, *instances) {
	switch r.root {
	case rootNode, rootGroup, rootMachine, rootNetwork, rootVolume:
		b := ev.c.objects(r.root)[r.name]
		return b, ev.blocks[b]
	case rootResource:
		g := in
		if g.parent != nil {
			g = g.parent
		}
		return g.block.byName[r.name], g.resources[r.name]
	}
	return nil, nil
}

type keyState int

const (
	keyFound keyState = iota
	keyUnknown
	keyWrong // told
)

// keyed finds the instance that a reference with a key means.
func (ev *evaluation) keyed(r *ref, b *block, is *instances, ctx *hcl.EvalContext) (*instance, keyState) {
	key := r.key
	if r.keyExpr != nil {
		var diags hcl.Diagnostics
		if key, diags = r.keyExpr.Value(ctx); diags.HasErrors() {
			return nil, keyUnknown // the expression around it says the same
		}
	}
	hidden := schema.IsSensitive(key)
	key, _ = key.Unmark()
	if !key.IsKnown() {
		return nil, keyUnknown
	}
	k, ok := keyOf(b, key)
	if !ok {
		why := "%s has count, so its keys are numbers from 0."
		if b.forEach != nil {
			why = "%s has for_each, so its keys are strings."
		}
		ev.add(errorAt(r.rng, "Invalid key", fmt.Sprintf(why, b.ref())))
		return nil, keyWrong
	}
	if target, ok := is.byKey[k]; ok {
		return target, keyFound
	}
	keys := make([]string, 0, min(len(is.list), 1000))
	for _, in := range is.list[:min(len(is.list), 1000)] {
		keys = append(keys, in.addrKey().String())
	}
	has := "It has none."
	if len(keys) > 0 {
		has = "It has: " + strings.Join(keys[:min(len(keys), 10)], ", ")
		if len(keys) > 10 {
			has += fmt.Sprintf(" and %d more", len(is.list)-10)
		}
		has += "."
	}
	if hidden {
		ev.add(errorAt(r.rng, "Unknown instance", fmt.Sprintf("%s has no instance of this key, which is sensitive and isn't shown. %s", b.ref(), has)))
		return nil, keyWrong
	}
	ev.add(errorAt(r.rng, "Unknown instance", fmt.Sprintf("%s has no instance %s.%s %s", b.ref(), k, didYouMean(b.ref(), k.String(), keys), has)))
	return nil, keyWrong
}

// keyOf is the key of one of a block's instances that a value means.
func keyOf(b *block, v cty.Value) (addr.Key, bool) {
	want := cty.Number
	if b.forEach != nil {
		want = cty.String
	}
	v, _ = v.Unmark()
	v, err := convert.Convert(v, want)
	if err != nil || !v.IsKnown() || v.IsNull() {
		return addr.NoKey, false
	}
	if b.forEach != nil {
		return addr.StringKey(v.AsString()), true
	}
	i, _ := v.AsBigFloat().Int64()
	return addr.IntKey(int(i)), true
}

// whole is a block as expressions see it: its instance, or an object (for_each)
// or a tuple (count) of its instances.
func (ev *evaluation) whole(b *block, is *instances) cty.Value {
	if is.whole != cty.NilVal && (!ev.again || is.whole.IsWhollyKnown()) {
		return is.whole
	}
	is.whole = combine(b, is, ev.refValue)
	return is.whole
}

func combine(b *block, is *instances, value func(*instance) cty.Value) cty.Value {
	switch {
	case b.forEach != nil:
		attrs := make(map[string]cty.Value, len(is.list))
		for _, in := range is.list {
			attrs[in.addrKey().Plain()] = value(in)
		}
		return cty.ObjectVal(attrs)
	case b.count != nil:
		elems := make([]cty.Value, len(is.list))
		for i, in := range is.list {
			elems[i] = value(in)
		}
		return cty.TupleVal(elems)
	}
	if len(is.list) == 0 {
		return cty.DynamicVal
	}
	return value(is.list[0])
}
