package lang

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// expr is an expression of the definition, with what it refers to.
type expr struct {
	hclsyntax.Expression
	id   int // slot in an evaluation's memory
	refs []ref
	// perInstance: its value is another one for each instance of its block.
	perInstance bool
	resources   bool // refers to resources of its group
	iterated    bool // refers to the element of a dynamic block
	// bad: something is wrong that was reported at load; it evaluates to an
	// unknown value, and nothing more is said about it.
	bad bool
}

// compile makes one kind of expression of both syntaxes. In JSON a string is a
// template; where wantRef is set, a string without ${ is an expression, so
// that "resource.vip" and "node.n[\"a\"]" are references.
func compile(e hcl.Expression, wantRef bool) (hclsyntax.Expression, hcl.Diagnostics) {
	if native, ok := e.(hclsyntax.Expression); ok {
		return native, nil
	}
	rng := e.Range()
	if elems, diags := hcl.ExprList(e); !diags.HasErrors() {
		tuple := &hclsyntax.TupleConsExpr{SrcRange: rng, OpenRange: e.StartRange()}
		var all hcl.Diagnostics
		for _, elem := range elems {
			c, diags := compile(elem, wantRef)
			all = append(all, diags...)
			tuple.Exprs = append(tuple.Exprs, c)
		}
		return tuple, all
	}
	if pairs, diags := hcl.ExprMap(e); !diags.HasErrors() {
		obj := &hclsyntax.ObjectConsExpr{SrcRange: rng, OpenRange: e.StartRange()}
		var all hcl.Diagnostics
		for _, pair := range pairs {
			k, diags := compile(pair.Key, false)
			all = append(all, diags...)
			v, diags := compile(pair.Value, wantRef)
			all = append(all, diags...)
			obj.Items = append(obj.Items, hclsyntax.ObjectConsItem{KeyExpr: k, ValueExpr: v})
		}
		return obj, all
	}
	v, diags := e.Value(nil) // literally
	if diags.HasErrors() {
		return &hclsyntax.LiteralValueExpr{Val: cty.DynamicVal, SrcRange: rng}, diags
	}
	if !v.IsKnown() || v.IsNull() || v.Type() != cty.String {
		return &hclsyntax.LiteralValueExpr{Val: v, SrcRange: rng}, nil
	}
	text, start := v.AsString(), rng.Start
	start.Byte++ // behind the quote
	start.Column++
	if wantRef && !strings.Contains(text, "${") {
		if d := numberBeyond([]byte(text), rng.Filename, start, hclsyntax.LexExpression); d != nil {
			return orUnknown(nil, hcl.Diagnostics{d})(rng)
		}
		return orUnknown(withLoops(text, rng.Filename)(parseExpression([]byte(text), rng.Filename, start)))(rng)
	}
	if d := numberBeyond([]byte(text), rng.Filename, start, hclsyntax.LexTemplate); d != nil {
		return orUnknown(nil, hcl.Diagnostics{d})(rng)
	}
	return orUnknown(withLoops(text, rng.Filename)(parseTemplate([]byte(text), rng.Filename, start)))(rng)
}

// withLoops is loops of what was parsed of a text.
func withLoops(text, name string) func(hclsyntax.Expression, hcl.Diagnostics) (hclsyntax.Expression, hcl.Diagnostics) {
	return func(e hclsyntax.Expression, diags hcl.Diagnostics) (hclsyntax.Expression, hcl.Diagnostics) {
		if !diags.HasErrors() {
			loops(e, []byte(text), name)
		}
		return e, diags
	}
}

// orUnknown gives an unknown value in place of an expression that didn't parse.
func orUnknown(e hclsyntax.Expression, diags hcl.Diagnostics) func(hcl.Range) (hclsyntax.Expression, hcl.Diagnostics) {
	return func(rng hcl.Range) (hclsyntax.Expression, hcl.Diagnostics) {
		if diags.HasErrors() || e == nil {
			return &hclsyntax.LiteralValueExpr{Val: cty.DynamicVal, SrcRange: rng}, diags
		}
		return e, diags
	}
}

// literally is the value of an expression of literals alone, as most of a large
// definition's are: their trees are many times as large as what they say, and
// would stay as long as the definition.
func literally(e hclsyntax.Expression) (cty.Value, bool) {
	switch e := e.(type) { // most are a text, or some
	case *hclsyntax.LiteralValueExpr:
		return e.Val, true
	case *hclsyntax.TemplateExpr:
		if len(e.Parts) == 1 {
			if l, ok := e.Parts[0].(*hclsyntax.LiteralValueExpr); ok && l.Val.Type() == cty.String && l.Val.IsKnown() && !l.Val.IsNull() {
				return l.Val, true
			}
		}
	case *hclsyntax.TupleConsExpr:
		values := make([]cty.Value, len(e.Exprs))
		for i, elem := range e.Exprs {
			v, ok := literally(elem)
			if !ok {
				return cty.NilVal, false
			}
			values[i] = v
		}
		return cty.TupleVal(values), true
	}
	if !onlyLiterals(e) {
		return cty.NilVal, false
	}
	v, diags := e.Value(nil)
	return v, len(diags) == 0
}

func onlyLiterals(e hclsyntax.Expression) bool {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return true
	case *hclsyntax.TemplateExpr:
		return !slices.ContainsFunc(e.Parts, hasMore)
	case *hclsyntax.TupleConsExpr:
		return !slices.ContainsFunc(e.Exprs, hasMore)
	case *hclsyntax.ObjectConsExpr:
		return !slices.ContainsFunc(e.Items, func(i hclsyntax.ObjectConsItem) bool {
			key, ok := i.KeyExpr.(*hclsyntax.ObjectConsKeyExpr)
			return !ok || key.ForceNonLiteral || hasMore(i.ValueExpr) || hcl.ExprAsKeyword(key.Wrapped) == "" && !onlyLiterals(key.Wrapped)
		})
	}
	return false
}

func hasMore(e hclsyntax.Expression) bool { return !onlyLiterals(e) }

// Roots of references.
const (
	rootVar       = "var"
	rootLocal     = "local"
	rootNode      = "node"
	rootGroup     = "group"
	rootResource  = "resource"
	rootEach      = "each"
	rootGroupEach = "group_each"
	rootCount     = "count"
	rootPath      = "path"
	rootSelf      = "self"
	rootModule    = "module"
	rootMachine   = addr.TypeMachine
	rootNetwork   = addr.TypeNetwork
	rootVolume    = addr.TypeVolume
)

// objectRoots are those of objects that stand at the root of a module.
var objectRoots = []string{rootNode, rootGroup, rootMachine, rootNetwork, rootVolume}

// isObject tells whether a root is one of objectRoots.
func isObject(root string) bool { return slices.Contains(objectRoots, root) }

// objects are a module's blocks that references with one of objectRoots name.
func (c *Config) objects(root string) map[string]*block {
	switch root {
	case rootNode:
		return c.nodes
	case rootGroup:
		return c.groups
	}
	return c.machinery[root]
}

var roots = []string{rootVar, rootLocal, rootNode, rootGroup, rootResource, rootMachine, rootNetwork, rootVolume, rootEach, rootGroupEach, rootCount, rootModule, rootPath}

// ref is one reference: `local.x`, `node.n["a"].address`, `each.value`.
type ref struct {
	root string
	name string // second step: x, n, value
	// The instance that is meant; a node, group, resource or module without
	// either is the whole block.
	key     cty.Value            // a literal key, else cty.NilVal
	keyExpr hclsyntax.Expression // a key that has to be worked out
	attr    string               // the step behind it, where it is literal
	attrRng *hcl.Range
	rng     hcl.Range
	// iterated: the key hangs on the element of a dynamic block.
	iterated bool
}

// findRefs finds what an expression refers to, in source order. A key that
// hangs on a name within the expression (`for k in ... : node.n[k]`) means the
// whole block.
func findRefs(e hclsyntax.Expression) []ref {
	w := &refWalker{}
	switch e := e.(type) { // most are one reference, or a list of some
	case *hclsyntax.ScopeTraversalExpr:
		w.refs = make([]ref, 0, 1)
		w.traversal(e)
	case *hclsyntax.TupleConsExpr:
		if !w.list(e) {
			_ = hclsyntax.Walk(e, w)
		}
	default:
		_ = hclsyntax.Walk(e, w)
	}
	return w.refs
}

// list finds what a list of references refers to. False: it is another list.
func (w *refWalker) list(e *hclsyntax.TupleConsExpr) bool {
	for _, elem := range e.Exprs {
		if _, ok := elem.(*hclsyntax.ScopeTraversalExpr); !ok {
			return false
		}
	}
	w.refs = make([]ref, 0, len(e.Exprs))
	for _, elem := range e.Exprs {
		w.traversal(elem.(*hclsyntax.ScopeTraversalExpr))
	}
	return true
}

type refWalker struct {
	refs   []ref
	locals []map[string]struct{}
	// Index expressions and relative traversals around a traversal tell its key and attribute.
	keys  map[*hclsyntax.ScopeTraversalExpr]hclsyntax.Expression
	attrs map[*hclsyntax.ScopeTraversalExpr]hcl.TraverseAttr
}

func (w *refWalker) Enter(n hclsyntax.Node) hcl.Diagnostics {
	switch n := n.(type) {
	case hclsyntax.ChildScope:
		w.locals = append(w.locals, n.LocalNames)
	case *hclsyntax.RelativeTraversalExpr:
		if index, ok := n.Source.(*hclsyntax.IndexExpr); ok {
			if t, ok := index.Collection.(*hclsyntax.ScopeTraversalExpr); ok && len(n.Traversal) > 0 {
				if a, ok := n.Traversal[0].(hcl.TraverseAttr); ok {
					if w.attrs == nil {
						w.attrs = map[*hclsyntax.ScopeTraversalExpr]hcl.TraverseAttr{}
					}
					w.attrs[t] = a
				}
			}
		}
	case *hclsyntax.IndexExpr:
		if t, ok := n.Collection.(*hclsyntax.ScopeTraversalExpr); ok && len(t.Traversal) == 2 && !w.usesLocals(n.Key) {
			if w.keys == nil {
				w.keys = map[*hclsyntax.ScopeTraversalExpr]hclsyntax.Expression{}
			}
			w.keys[t] = n.Key
		}
	case *hclsyntax.ScopeTraversalExpr:
		w.traversal(n)
	}
	return nil
}

func (w *refWalker) Exit(n hclsyntax.Node) hcl.Diagnostics {
	if _, ok := n.(hclsyntax.ChildScope); ok {
		w.locals = w.locals[:len(w.locals)-1]
	}
	return nil
}

func (w *refWalker) isLocal(name string) bool {
	for _, scope := range w.locals {
		if _, ok := scope[name]; ok {
			return true
		}
	}
	return false
}

func (w *refWalker) usesLocals(e hclsyntax.Expression) bool {
	if len(w.locals) == 0 {
		return false
	}
	for _, t := range e.Variables() {
		if w.isLocal(t.RootName()) {
			return true
		}
	}
	return false
}

func (w *refWalker) traversal(n *hclsyntax.ScopeTraversalExpr) {
	t := n.Traversal
	if w.isLocal(t.RootName()) {
		return
	}
	r := ref{root: t.RootName(), key: cty.NilVal, rng: t.SourceRange()}
	if len(t) > 1 {
		switch step := t[1].(type) {
		case hcl.TraverseAttr:
			r.name = step.Name
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
				r.name = step.Key.AsString() // var["x"]
			}
		}
	}
	rest := t[min(2, len(t)):]
	switch r.root {
	case rootNode, rootGroup, rootResource, rootModule, rootMachine, rootNetwork, rootVolume:
		if e, ok := w.keys[n]; ok {
			r.keyExpr = e
		} else if len(rest) > 0 {
			if index, ok := rest[0].(hcl.TraverseIndex); ok {
				r.key, rest = index.Key, rest[1:]
			}
		}
	}
	if len(rest) > 0 {
		if a, ok := rest[0].(hcl.TraverseAttr); ok {
			r.attr, r.attrRng = a.Name, a.SrcRange.Ptr()
		}
	} else if a, ok := w.attrs[n]; ok {
		r.attr, r.attrRng = a.Name, a.SrcRange.Ptr()
	}
	w.refs = append(w.refs, r)
}

// asksRuntime tells whether an expression asks nodes or groups for what only
// the running cluster knows, also as in [for g in group.x : g.state], or a
// module for an output that does.
func (c *Config) asksRuntime(e *expr) bool {
	objects := false
	for i := range e.refs {
		switch r := &e.refs[i]; r.root {
		case rootModule:
			if call := c.modules[r.name]; call != nil && call.module != nil {
				objects = true
				for _, o := range call.module.outputsOf(r) {
					if o.runtime {
						return true
					}
				}
			}
		case rootVar:
			v := c.vars[r.name]
			objects = objects || v != nil && v.shape.refers()
		default:
			objects = objects || runtimeAttributes[r.root] != nil || r.root == rootSelf
		}
	}
	if !objects {
		return false
	}
	w := runtimeWalker{}
	_ = hclsyntax.Walk(e.Expression, &w)
	return w.found
}

type runtimeWalker struct{ found bool }

func (w *runtimeWalker) Enter(n hclsyntax.Node) hcl.Diagnostics {
	var t hcl.Traversal
	switch n := n.(type) {
	case *hclsyntax.ScopeTraversalExpr:
		if t = n.Traversal; t.RootName() == rootModule || t.RootName() == rootVar { // the names of modules, outputs and variables
			t = t[min(3, len(t)):]
		}
	case *hclsyntax.RelativeTraversalExpr:
		t = n.Traversal
	}
	for _, step := range t {
		if a, ok := step.(hcl.TraverseAttr); ok && (a.Name == "state" || a.Name == "owner") {
			w.found = true
		}
	}
	return nil
}

func (w *runtimeWalker) Exit(hclsyntax.Node) hcl.Diagnostics { return nil }
