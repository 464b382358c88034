package lang

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every semantic rule of lang/spec has its diagnostic in a golden file of
// testdata/diagnostics, where somebody has read it: what is wrong, where, and
// what to do.
func TestEveryRuleHasItsDiagnostic(t *testing.T) {
	var golden strings.Builder
	files, err := filepath.Glob("testdata/diagnostics/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden.Write(b)
	}
	told, rules := golden.String(), 0
	sources, err := filepath.Glob("spec/*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, source, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			summary, at := ruleOf(n)
			if summary == "" {
				return true
			}
			rules++
			if toldBefore[summary] {
				return true
			}
			if !strings.Contains(told, ": "+summary) {
				t.Errorf("%s: nothing in testdata/diagnostics leads to %q", set.Position(at), summary)
			}
			return true
		})
	}
	if rules < 60 {
		t.Errorf("%d rules were found in the source", rules)
	}
}

// toldBefore are rules that a definition can't break any more when they are
// checked: schemas and references refuse it, in words of their own.
var toldBefore = map[string]bool{"Dependency outside of the group": true, "Negative delay": true, "Invalid reset": true}

// ruleOf is the summary that a call of add or warn, or a Problem, gives, as far
// as it is literal.
func ruleOf(n ast.Node) (string, token.Pos) {
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "add" || f.Sel.Name == "warn") && len(n.Args) >= 4 {
			return quoted(n.Args[2]), n.Pos()
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Summary" {
			return quoted(n.Value), n.Pos()
		}
	}
	return "", 0
}

func quoted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	case *ast.BinaryExpr:
		return quoted(e.X)
	}
	return ""
}
