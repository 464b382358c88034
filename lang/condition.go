package lang

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
)

// Kinds of conditions.
const (
	Assert        = "assert"        // of a check
	Precondition  = "precondition"  // of an object or an output
	Postcondition = "postcondition" // of an object
)

// What becomes of a condition.
const (
	Pass    = "pass"
	Fail    = "fail"
	Unknown = "unknown" // it asks for what an apply, or nobody now, knows
	Error   = "error"   // it can't be worked out
)

// Condition is a condition that was looked at.
type Condition struct {
	Kind    string
	Status  string
	Message string          // of one that fails or can't be worked out
	Diag    *hcl.Diagnostic // the same with its place; an error
	Range   hcl.Range       // of the condition itself
	Runtime bool            // it asks for what only the running cluster knows
	Refers  []addr.Address  // the objects that it names
}

// View is what conditions are looked at with. The zero value is what the
// definition was evaluated with.
type View struct {
	Known Known     // may only grow from call to call
	Live  Live      // nil: what only the running cluster knows is unknown
	Self  cty.Value // the object as it is; cty.NilVal: as the definition says
}

// Checked is a check block that was looked at.
type Checked struct {
	Module     string // "": the root
	Name       string
	Conditions []Condition
}

// condition is a precondition, postcondition or assert block.
type condition struct {
	kind            string
	condition, text *expr
	rng             hcl.Range
}

// checkDecl is a check block.
type checkDecl struct {
	name    string
	rng     hcl.Range
	asserts []condition
}

// conditionBlock reads what precondition, postcondition and assert blocks hold.
func (c *Config) conditionBlock(b *hcl.Block) (condition, hcl.Diagnostics) {
	c.root.conditions = true
	out := condition{kind: b.Type, rng: b.DefRange}
	content, diags := contentIn(b, conditionBody)
	if diags.HasErrors() {
		for _, d := range diags {
			for name, what := range map[string]string{"condition": "an expression that is true where all is well", "error_message": "what a person reads where the condition is false"} {
				if d.Summary == "Missing required argument" && strings.Contains(d.Detail, strconv.Quote(name)) {
					d.Summary, d.Detail, d.Subject = "Missing "+name, fmt.Sprintf("This %s block needs %s: %s.", b.Type, name, what), b.DefRange.Ptr()
				}
			}
		}
		return out, diags
	}
	out.condition, diags = c.compile(content.Attributes["condition"].Expr, true)
	if !out.condition.bad && len(out.condition.refs) == 0 {
		diags = append(diags, errorAt(out.condition.Range(), "Condition of nothing", "It refers to no object, variable or local value, so that it is always the same. Name what is to be checked."))
	}
	var more hcl.Diagnostics
	out.text, more = c.compile(content.Attributes["error_message"].Expr, false)
	return out, append(diags, more...)
}

// check reads a check block.
func (c *Config) check(b *hcl.Block) hcl.Diagnostics {
	name := b.Labels[0]
	if first, ok := c.checks[name]; ok {
		return hcl.Diagnostics{duplicate(b, "check."+name, first.rng)}
	}
	decl := &checkDecl{name: name, rng: b.DefRange}
	c.checks[name] = decl
	content, diags := contentIn(b, checkBody)
	asserts := 0
	for _, inner := range content.Blocks {
		if inner.Type == "data" {
			diags = append(diags, errorAt(inner.DefRange, "No data sources", "There are none to ask. Ask for group.NAME.state; whether an address or a URL answers, is_alive { tcp = ... } or is_alive { http = ... } of a resource says all the time."))
			continue
		}
		asserts++
		a, more := c.conditionBlock(inner)
		diags = append(diags, more...)
		if !more.HasErrors() {
			decl.asserts = append(decl.asserts, a)
		}
	}
	if asserts == 0 && !diags.HasErrors() {
		diags = append(diags, errorAt(b.DefRange, "Check without an assert", "It says nothing. Add assert { condition = ..., error_message = ... } on lines of their own."))
	}
	return diags
}

// conditionScope is where the conditions of a block stand.
func conditionScope(b *block, kind string) scope {
	s := scope{block: b, runtime: kind == Postcondition, self: kind == Postcondition, condition: kind, refuse: map[string]string{}}
	switch b.kind {
	case addr.TypeCluster:
		s.refuse[rootNode] = "The cluster is made before its nodes have joined. Its conditions see variables and local values, and a postcondition self; put this one into the node, or into a check."
		s.refuse[rootGroup] = "Groups come after the cluster. Put the condition into the group, or into a check."
	case addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume:
		for _, later := range []string{rootNode, rootGroup} {
			s.refuse[later] = fmt.Sprintf("The %ss that there are come after every %s. Put the condition into the %s, or into a check.", later, b.kind, later)
		}
	case addr.TypeNode, addr.TypeFence:
		s.refuse[rootGroup] = fmt.Sprintf("Groups come after every %s. Put the condition into the group, or into a check.", b.kind)
	}
	return s
}

// eachCondition visits the conditions of a block.
func (b *block) eachCondition(f func(*condition)) {
	for i := range b.conditions {
		f(&b.conditions[i])
	}
}

// checkConditions looks at every condition once, for what is wrong with it
// whatever the values are, and for what its object has to wait for.
func (ev *evaluation) checkConditions() {
	if !ev.c.root.conditions {
		return
	}
	look := func(c *condition, in *instance) Condition {
		got := ev.look(c, in, cty.NilVal)
		if got.Status == Error {
			ev.add(got.Diag)
		}
		return got
	}
	ev.c.eachBlock(func(b *block) {
		for _, in := range ev.instancesOf(b) {
			b.eachCondition(func(c *condition) {
				got := look(c, in)
				for _, e := range append(slices.Clone(ev.exprEdges(c.condition, in)), ev.exprEdges(c.text, in)...) {
					if e.To.Owner() == in.addr.Owner() {
						continue // they are made together
					}
					// A node that fails takes no group with it, unless the condition
					// can't be worked out without it.
					e.Hard = e.To.Type != addr.TypeNode || e.Hard && got.Status == Unknown
					in.deps = append(in.deps, e)
				}
			})
		}
	})
	for _, name := range sortedKeys(ev.c.outputs) {
		for i := range ev.c.outputs[name].preconditions {
			look(&ev.c.outputs[name].preconditions[i], nil)
		}
	}
	for _, name := range sortedKeys(ev.c.checks) {
		for i := range ev.c.checks[name].asserts {
			look(&ev.c.checks[name].asserts[i], nil)
		}
	}
}

// instancesOf are all instances of a block; of a resource, in all groups.
func (ev *evaluation) instancesOf(b *block) []*instance {
	if len(b.conditions) == 0 {
		return nil
	}
	if b.kind != rootResource {
		if is := ev.blocks[b]; is != nil {
			return is.list
		}
		return nil
	}
	var out []*instance
	if groups := ev.blocks[b.parent]; groups != nil {
		for _, g := range groups.list {
			if is := g.resources[b.name]; is != nil {
				out = append(out, is.list...)
			}
		}
	}
	return out
}

// HasConditions tells whether there is a condition or a check anywhere.
func (d *Definition) HasConditions() bool { return d.ev.c.conditions }

// Conditions looks at an object's conditions of one kind.
func (d *Definition) Conditions(a addr.Address, kind string, v View) []Condition {
	if !d.ev.c.conditions {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.ev.byAddr.At(a)
	if in == nil || in.value == cty.NilVal {
		return nil
	}
	defer d.ev.with(v)()
	var out []Condition
	if kind == Precondition {
		out = in.outputsUsed()
	}
	in.block.eachCondition(func(c *condition) {
		if c.kind == kind {
			got := in.ev.look(c, in, v.Self)
			got.tell(in.addr.String())
			out = append(out, got)
		}
	})
	return out
}

// OutputConditions looks at an output's preconditions, and at those of the
// modules' outputs that it hangs on.
func (d *Definition) OutputConditions(name string, v View) []Condition {
	o := d.ev.c.outputs[name]
	if o == nil || !d.ev.c.conditions {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.ev.with(v)()
	u := usedOutputs{seen: map[any]bool{}}
	if o.expr != nil {
		u.expr(d.ev, o.expr)
	}
	return append(u.look(), d.ev.lookAll(o.preconditions, "output."+name)...)
}

// Checks looks at all check blocks, by name, the root's first.
func (d *Definition) Checks(v View) []Checked {
	if !d.ev.c.conditions {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.ev.with(v)()
	var out []Checked
	for _, ev := range d.ev.all {
		for _, name := range sortedKeys(ev.c.checks) {
			out = append(out, Checked{ev.path, name, ev.lookAll(ev.c.checks[name].asserts, addr.JoinModules(ev.path, "check."+name))})
		}
	}
	return out
}

func (ev *evaluation) lookAll(list []condition, of string) []Condition {
	out := make([]Condition, len(list))
	for i := range list {
		out[i] = ev.look(&list[i], nil, cty.NilVal)
		out[i].tell(of)
	}
	return out
}

// tell puts in front of the words whose condition it is.
func (c *Condition) tell(of string) {
	if c.Diag != nil {
		c.Diag.Detail = of + ": " + c.Diag.Detail
	}
}

// with sets what values are worked out with, until what it returns is called.
func (ev *evaluation) with(v View) func() {
	if v.Known != nil {
		ev.known, ev.again = v.Known, true
	}
	ev.live = v.Live
	return func() { ev.live = nil }
}

// look works a condition out.
func (ev *evaluation) look(c *condition, in *instance, self cty.Value) Condition {
	out := Condition{Kind: c.kind, Status: Unknown, Range: c.condition.Range(), Runtime: ev.c.asksRuntime(c.condition)}
	for _, e := range ev.exprEdges(c.condition, in) {
		out.Refers = append(out.Refers, e.To)
	}
	told := ev.diags
	ev.diags = nil
	defer func() { ev.diags = told }()
	wrong := func(detail string) {
		out.Status, out.Message = Error, detail
		out.Diag = errorAt(out.Range, "Invalid condition", detail)
	}
	v, ctx, diags := ev.value(c.condition, in, self)
	if diags.HasErrors() {
		out.Status, out.Diag = Error, diags[0]
		out.Message = diags[0].Summary + ": " + diags[0].Detail
		return out
	}
	was, _ := v.Unmark()
	v, err := convert.Convert(was, cty.Bool)
	switch {
	case err != nil:
		wrong(fmt.Sprintf("A condition is true or false, and this is a value of type %s.", plainType(was.Type()).FriendlyName()))
	case v.IsNull():
		wrong("A condition is true or false, and this is null.")
	case !v.IsKnown():
	case v.True():
		out.Status = Pass
	default:
		out.Status, out.Message = Fail, ev.message(c, in, self)
		out.Diag = errorAt(out.Range, summaries[c.kind], out.Message)
		out.Diag.Expression, out.Diag.EvalContext = c.condition, ctx
		if secret(c.condition, ctx) {
			out.Diag.Expression, out.Diag.EvalContext = nil, nil
		}
	}
	return out
}

var summaries = map[string]string{Assert: "Check failed", Precondition: "Precondition failed", Postcondition: "Postcondition failed"}

// message is a condition's error_message, as far as it may be shown.
func (ev *evaluation) message(c *condition, in *instance, self cty.Value) string {
	v, _, diags := ev.value(c.text, in, self)
	v, err := convert.Convert(v, cty.String)
	switch {
	case diags.HasErrors() || err != nil:
		return "The condition isn't met, and its error_message can't be worked out."
	case schema.IsSensitive(v):
		return "The condition isn't met. Its error_message has a sensitive value, so it isn't shown."
	}
	if v, _ = v.Unmark(); !v.IsKnown() || v.IsNull() || v.AsString() == "" {
		return "The condition isn't met."
	}
	return v.AsString()
}

// value works out an expression that may ask for self and for what only the
// running cluster knows.
func (ev *evaluation) value(e *expr, in *instance, self cty.Value) (cty.Value, *hcl.EvalContext, hcl.Diagnostics) {
	if e.bad {
		return cty.DynamicVal, nil, nil
	}
	ctx, ok := ev.sight(e, in, self)
	if !ok {
		return cty.DynamicVal, nil, ev.diags
	}
	v, diags := e.Value(ctx)
	if diags.HasErrors() {
		if ev.tainted(e) || in != nil && in.broken {
			return cty.DynamicVal, ctx, nil // told where it broke
		}
		return cty.DynamicVal, ctx, discreet(diags, e, ctx)
	}
	return v, ctx, nil
}

// sight is what such an expression sees.
func (ev *evaluation) sight(e *expr, in *instance, self cty.Value) (*hcl.EvalContext, bool) {
	ctx, ok := ev.context(e, in)
	if !ok {
		return nil, false
	}
	vars := map[string]cty.Value{}
	if in != nil && slices.ContainsFunc(e.refs, func(r ref) bool { return r.root == rootSelf }) {
		vars[rootSelf] = ev.selfValue(in, self)
	}
	if ev.c.asksRuntime(e) {
		for root, names := range runtimeAttributes {
			// What variables and modules have of nodes and groups are those themselves.
			for _, name := range []string{root, rootVar, rootModule, rootSelf} {
				v, ok := vars[name]
				if !ok {
					v, ok = seen(ctx, name)
				}
				if ok {
					vars[name] = withRuntime(v, root, names, ev.live)
				}
			}
		}
	}
	if len(vars) == 0 {
		return ctx, true
	}
	child := ctx.NewChild()
	child.Variables = vars
	return child, true
}

// seen is a variable of a context or of one around it.
func seen(ctx *hcl.EvalContext, name string) (cty.Value, bool) {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[name]; ok {
			return v, true
		}
	}
	return cty.NilVal, false
}

// selfValue is an object as its own postcondition sees it. What the definition
// says of what is sensitive holds for what is there as well.
func (ev *evaluation) selfValue(in *instance, is cty.Value) cty.Value {
	ref := ev.refValue(in)
	if is == cty.NilVal || ref == cty.DynamicVal {
		return ref
	}
	is, _ = is.Unmark()
	if !is.IsKnown() || is.IsNull() || !is.Type().IsObjectType() {
		return ref
	}
	attrs := maps.Clone(ref.AsValueMap())
	for name, said := range attrs {
		if !is.Type().HasAttribute(name) {
			continue
		}
		v := is.GetAttr(name)
		a, _ := in.block.schema.Attribute(name)
		if (said.ContainsMarked() || a.Sensitive) && !v.ContainsMarked() {
			v = v.Mark(schema.Sensitive)
		}
		attrs[name] = v
	}
	return cty.ObjectVal(attrs)
}

// secret tells whether an expression refers to something sensitive.
func secret(e *expr, ctx *hcl.EvalContext) bool {
	for _, t := range e.Variables() {
		if v, _ := t.TraverseAbs(ctx); schema.IsSensitive(v) {
			return true
		}
	}
	return false
}

// ofItself refuses conditions that name their own block, which is not there
// before it, and is called self after.
func (s scope) ofItself(r *ref, b *block) *hcl.Diagnostic {
	if s.condition == "" || s.block != b && s.block.parent != b {
		return nil
	}
	detail := fmt.Sprintf("A precondition is checked before its object is made. To check what comes of it, use a postcondition with self in the place of %s.", b.ref())
	switch {
	case s.block != b:
		detail = fmt.Sprintf("A group and its resources are applied as one. Put the condition into the lifecycle of %s, with self in its place.", b.ref())
	case s.condition == Postcondition:
		detail = fmt.Sprintf("In a postcondition, its own object is self. Write self in the place of %s.", b.ref())
	}
	return errorAt(r.rng, "Condition of its own block", detail)
}

// checkSelf checks what stands behind self.
func (s scope) checkSelf(r *ref) *hcl.Diagnostic {
	if !s.self {
		return errorAt(r.rng, "Reference not allowed here", "self is the object that a postcondition stands in, and can be named nowhere else. Refer to the object by its address.")
	}
	b := s.block
	if r.name == "" {
		return errorAt(r.rng, "Incomplete reference", `"self" alone is nothing; name what is meant, as self.name.`)
	}
	known := append(referable(b), runtimeAttributes[b.kind]...)
	if slices.Contains(known, r.name) || b.schema.Name == "" {
		return nil
	}
	return errorAt(r.rng, "Unknown attribute", fmt.Sprintf("This %s has no attribute %q.%s It has: %s.", b.kind, r.name, didYouMean("self.", r.name, known), strings.Join(known, ", ")))
}
