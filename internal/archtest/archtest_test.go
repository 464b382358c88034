package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func load(t *testing.T) *rules {
	t.Helper()
	r, err := parse(Rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The files are read here and not by the go command, so that `go test` knows
// what this test looks at and does not take its last result for the present one.
func TestImports(t *testing.T) {
	r := load(t)
	const root = "../.."
	packages := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if pkg == "internal/archtest" || pkg == "internal/deps" {
			return nil
		}
		packages[pkg] = true
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if wrong := r.check(pkg, imported); wrong != "" {
				t.Errorf("%s: %s", name, wrong)
			}
		}
		if slices.Contains(Pure, pkg) {
			for _, wrong := range effects(t, name, src) {
				t.Error(wrong)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 20 {
		t.Errorf("only %d packages were looked at", len(packages))
	}
}

// effects are the uses of the clock and of goroutines in a file.
func effects(t *testing.T, name string, src any) (wrong []string) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			wrong = append(wrong, fmt.Sprintf("%s: a goroutine in a pure room", fset.Position(n.Pos())))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(Clock, n.Sel.Name) {
				wrong = append(wrong, fmt.Sprintf("%s: time.%s in a pure room", fset.Position(n.Pos()), n.Sel.Name))
			}
		}
		return true
	})
	return wrong
}

// The test above can fail: edges that the rules don't have are found.
func TestMadeUpEdges(t *testing.T) {
	r := load(t)
	for _, c := range []struct{ pkg, imported, words string }{
		{"lang/spec", module + "lang/addr", ""},
		{"planner", module + "lang/addr", ""}, // through lang
		{"planner/apply", "github.com/zclconf/go-cty/cty/json", ""},
		{"cmd/clusterplan/internal/view", module + "cmd/clusterplan/internal/run", ""},
		{"cmd/clusterplan", module + "runtime/agent", ""},
		{"graph", "strings", ""},
		{"statefile", "os", ""},
		{"runtime/placement", "net/netip", ""},

		{"graph", module + "lang/addr", "no rule says lang/addr < graph"},
		{"lang/spec", "github.com/zclconf/go-cty/cty", "no rule says cty < lang/spec"},
		{"lang/addr", module + "lang/spec", "no rule says lang/spec < lang/addr"},
		{"planner", module + "providers/local", "no rule says providers/local < planner"},
		{"planner", module + "planner/apply", "no rule says planner/apply < planner"},
		{"providers/local", module + "providers/confdb", "no rule says providers/confdb < providers/local"},
		{"runtime/agent", module + "runtime/api", "no rule says runtime/api < runtime/agent"},
		{"runtime/agent", module + "planner", "no rule says planner < runtime/agent"},
		{"runtime/agent", module + "providers", "no rule says providers < runtime/agent"},
		{"runtime/core", "github.com/hashicorp/hcl/v2", "no rule says hcl < runtime/core"},
		{"runtime/api/client", module + "runtime/agent", "no rule says runtime/agent < runtime/api/client"},
		{"runtime/core", "os", "is pure and may not import os"},
		{"planner", "context", "is pure and may not import context"},
		{"runtime/new", "os", "runtime/new has no rule"},
		{"planner", module + "util", "util has no rule"},
		{"planner", "example.com/x", "a module without a short name"},
		{"planner", "github.com/zclconf/go-ctyx", "a module without a short name"},
	} {
		got := r.check(c.pkg, c.imported)
		if (got == "") != (c.words == "") || !strings.Contains(got, c.words) {
			t.Errorf("%s imports %s: %q, want %q", c.pkg, c.imported, got, c.words)
		}
	}
	src := "package p\nimport \"time\"\nvar d = time.Second\nfunc f() { go f(); time.Now() }\n"
	if wrong := effects(t, "p.go", src); len(wrong) != 2 {
		t.Errorf("%q", wrong)
	}
	for _, bad := range []string{"a b", "x < y"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
