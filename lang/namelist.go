package lang

import (
	"math"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// nameList is a list of names, [node.a, node.b], without its tree: a large
// definition has some for each object, their references say who is meant, and
// the tree is ten times as large. Who needs it all the same reads the text again.
type nameList struct {
	hclsyntax.Expression // nil; what asks for it is below
	file                 *hcl.File
	name                 string
	start, end           shortPos
}

// shortPos is a hcl.Pos in a file of less than 2 GiB.
type shortPos struct{ line, column, byte int32 }

func shortened(p hcl.Pos) shortPos {
	return shortPos{int32(p.Line), int32(p.Column), int32(p.Byte)}
}

func (p shortPos) pos() hcl.Pos {
	return hcl.Pos{Line: int(p.line), Column: int(p.column), Byte: int(p.byte)}
}

// isNameList tells whether an expression is a list of two-part names, one for
// each of its references.
func isNameList(e hclsyntax.Expression, refs []ref) bool {
	list, ok := e.(*hclsyntax.TupleConsExpr)
	if !ok || len(list.Exprs) == 0 || len(list.Exprs) != len(refs) {
		return false
	}
	for i, elem := range list.Exprs {
		t, ok := elem.(*hclsyntax.ScopeTraversalExpr)
		if !ok || len(t.Traversal) != 2 || t.Traversal.RootName() != refs[i].root {
			return false
		}
	}
	return true
}

// leave gives what an expression becomes once its references are known: a
// nameList where its tree is one and stands in its file just so, else itself.
func (c *Config) leave(tree *hclsyntax.TupleConsExpr, e *expr) hclsyntax.Expression {
	rng := tree.SrcRange
	file := c.files[rng.Filename]
	if !isNameList(tree, e.refs) || file == nil || len(file.Bytes) > math.MaxInt32 || rng.End.Byte > len(file.Bytes) || rng.Start.Byte >= rng.End.Byte {
		return e.Expression
	}
	// A text that is not what was parsed would be another list.
	if file.Bytes[rng.Start.Byte] != '[' || file.Bytes[rng.End.Byte-1] != ']' {
		return e.Expression
	}
	for i := range e.refs {
		r := &e.refs[i]
		from, to, dot := r.rng.Start.Byte, r.rng.End.Byte, r.rng.Start.Byte+len(r.root)
		if from <= rng.Start.Byte || to >= rng.End.Byte || dot >= to || file.Bytes[dot] != '.' ||
			string(file.Bytes[from:dot]) != r.root || string(file.Bytes[dot+1:to]) != r.name {
			return e.Expression
		}
	}
	return &nameList{file: file, name: rng.Filename, start: shortened(rng.Start), end: shortened(rng.End)}
}

// tree reads the text again.
func (l *nameList) tree() (hclsyntax.Expression, hcl.Diagnostics) {
	return parseExpression(l.file.Bytes[l.start.byte:l.end.byte], l.name, l.start.pos())
}

// Range implements hcl.Expression.
func (l *nameList) Range() hcl.Range {
	return hcl.Range{Filename: l.name, Start: l.start.pos(), End: l.end.pos()}
}

// StartRange implements hcl.Expression: the bracket.
func (l *nameList) StartRange() hcl.Range {
	rng := l.Range()
	rng.End = rng.Start
	rng.End.Column++
	rng.End.Byte++
	return rng
}

// Variables implements hcl.Expression.
func (l *nameList) Variables() []hcl.Traversal {
	e, _ := l.tree()
	return e.Variables()
}

// Value implements hcl.Expression.
func (l *nameList) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	e, diags := l.tree()
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	return e.Value(ctx)
}
