package lang

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Symbol is what a name of a definition means. Kind is what references to it
// begin with (var, local, node, group, resource, module), or, of what nothing
// refers to, its block's type (output, guarantee, check, fence, cluster).
type Symbol struct {
	Kind, Name string
	Group      string // of a resource
}

// Mention is a place in a file where a name stands.
type Mention struct {
	Symbol
	Declared bool // it is declared here
	Moved    bool // in a moved block, where it is the address of then
	Range    hcl.Range
}

// Mentions lists where names stand in a file in native syntax: declarations and
// references, each with the range of the bare name. Names that an expression
// itself binds (`for node in ...`) are none.
func Mentions(f *hcl.File) []Mention {
	root, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	m := &mentions{src: f.Bytes}
	m.body(root, "", "")
	return m.list
}

// declares are the blocks whose last label is the name of something, and the
// kind of it.
var declares = map[string]string{
	"variable": rootVar, "output": "output", "check": "check", "module": "module",
	addr.TypeNode: rootNode, addr.TypeGroup: rootGroup, addr.TypeFence: addr.TypeFence,
	addr.TypeGuarantee: addr.TypeGuarantee, addr.TypeCluster: addr.TypeCluster,
	addr.TypeMachine: addr.TypeMachine, addr.TypeNetwork: addr.TypeNetwork, addr.TypeVolume: addr.TypeVolume,
}

type mentions struct {
	src    []byte
	list   []Mention
	group  string // that resource.NAME is of
	moved  bool
	locals []map[string]struct{}
}

func (m *mentions) body(b *hclsyntax.Body, typ, group string) {
	m.group = group
	for _, a := range b.Attributes {
		if typ == "locals" {
			m.add(Symbol{Kind: rootLocal, Name: a.Name}, true, a.NameRange)
		}
		_ = hclsyntax.Walk(a.Expr, m)
	}
	for _, inner := range b.Blocks {
		of := group
		switch last := len(inner.Labels) - 1; {
		case typ == "" && last >= 0 && declares[inner.Type] != "":
			m.add(Symbol{Kind: declares[inner.Type], Name: inner.Labels[last]}, true, inner.LabelRanges[last])
			if inner.Type == addr.TypeGroup {
				of = inner.Labels[last]
			}
		case typ == addr.TypeGroup && inner.Type == rootResource && last == 1:
			m.add(Symbol{Kind: rootResource, Name: inner.Labels[last], Group: group}, true, inner.LabelRanges[last])
		}
		m.moved = typ == "" && inner.Type == "moved"
		m.body(inner.Body, inner.Type, of)
		m.moved, m.group = false, group
	}
}

// add takes a name that ends where rng does, with a quote, a bracket or a dot
// around it.
func (m *mentions) add(s Symbol, declared bool, rng hcl.Range) {
	if s.Name == "" || rng.Start.Byte < 0 || rng.End.Byte > len(m.src) || rng.Start.Byte > rng.End.Byte {
		return
	}
	text := string(m.src[rng.Start.Byte:rng.End.Byte])
	i := strings.LastIndex(text, s.Name)
	if i < 0 {
		return // written with escapes
	}
	rng.Start.Byte += i
	rng.Start.Column += i
	rng.End = hcl.Pos{Line: rng.Start.Line, Column: rng.Start.Column + len(s.Name), Byte: rng.Start.Byte + len(s.Name)}
	m.list = append(m.list, Mention{Symbol: s, Declared: declared, Moved: m.moved, Range: rng})
}

// Enter implements hclsyntax.Walker.
func (m *mentions) Enter(n hclsyntax.Node) hcl.Diagnostics {
	switch n := n.(type) {
	case hclsyntax.ChildScope:
		m.locals = append(m.locals, n.LocalNames)
	case *hclsyntax.ScopeTraversalExpr:
		m.traversal(n.Traversal)
	case *hclsyntax.RelativeTraversalExpr: // group.g[each.key].resource.vip
		if index, ok := n.Source.(*hclsyntax.IndexExpr); ok {
			if t, ok := index.Collection.(*hclsyntax.ScopeTraversalExpr); ok && len(t.Traversal) == 2 && t.Traversal.RootName() == rootGroup {
				if group, _ := stepName(t.Traversal[1]); group != "" {
					m.resourceIn(group, n.Traversal)
				}
			}
		}
	}
	return nil
}

// Exit implements hclsyntax.Walker.
func (m *mentions) Exit(n hclsyntax.Node) hcl.Diagnostics {
	if _, ok := n.(hclsyntax.ChildScope); ok {
		m.locals = m.locals[:len(m.locals)-1]
	}
	return nil
}

func stepName(step hcl.Traverser) (string, hcl.Range) {
	switch step := step.(type) {
	case hcl.TraverseAttr:
		return step.Name, step.SrcRange
	case hcl.TraverseIndex:
		if step.Key.IsKnown() && !step.Key.IsNull() && step.Key.Type() == cty.String {
			return step.Key.AsString(), step.SrcRange
		}
	}
	return "", hcl.Range{}
}

func (m *mentions) traversal(t hcl.Traversal) {
	kind := t.RootName()
	for _, scope := range m.locals {
		if _, ok := scope[kind]; ok {
			return
		}
	}
	if len(t) < 2 {
		return
	}
	name, rng := stepName(t[1])
	switch kind {
	case rootVar, rootLocal, rootNode, rootGroup, "module", addr.TypeFence, addr.TypeMachine, addr.TypeNetwork, addr.TypeVolume, addr.TypeGuarantee:
		m.add(Symbol{Kind: kind, Name: name}, false, rng)
	case rootResource:
		m.add(Symbol{Kind: kind, Name: name, Group: m.group}, false, rng)
	}
	if kind == rootGroup {
		m.resourceIn(name, t[2:])
	}
}

// resourceIn finds .resource.NAME behind a group's address.
func (m *mentions) resourceIn(group string, rest hcl.Traversal) {
	for i, step := range rest {
		a, ok := step.(hcl.TraverseAttr)
		if ok && a.Name == rootResource && i+1 < len(rest) {
			name, rng := stepName(rest[i+1])
			m.add(Symbol{Kind: rootResource, Name: name, Group: group}, false, rng)
			return
		}
		if _, index := step.(hcl.TraverseIndex); !index {
			return
		}
	}
}
