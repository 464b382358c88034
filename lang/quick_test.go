package lang

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// sameTree compares parseConfig with hclsyntax.ParseConfig, and tells whether
// the former read it without the latter.
func sameTree(t *testing.T, src []byte) bool {
	t.Helper()
	want, wantDiags := hclsyntax.ParseConfig(src, "x.hcl", hcl.InitialPos)
	wantDiags = unclosed(src, "x.hcl", hcl.InitialPos, wantDiags)
	got, gotDiags := parseConfig(src, "x.hcl")
	if !reflect.DeepEqual(wantDiags, gotDiags) {
		t.Fatalf("diagnostics: %v\nwant %v\nof\n%s", gotDiags, wantDiags, src)
	}
	loops(want.Body.(*hclsyntax.Body), src, "x.hcl")
	if !reflect.DeepEqual(want.Body, got.Body) {
		t.Fatalf("another tree of\n%s\n%s", src, firstDifference("body", reflect.ValueOf(got.Body), reflect.ValueOf(want.Body)))
	}
	nav, ok := got.Nav.(navigation)
	if ok {
		for offset := range len(src) {
			if got, want := nav.ContextString(offset), want.Nav.(interface{ ContextString(int) string }).ContextString(offset); got != want {
				t.Fatalf("byte %d lies in %s, want %s", offset, got, want)
			}
		}
	}
	return ok
}

// firstDifference finds where two trees differ, for people.
func firstDifference(path string, a, b reflect.Value) string {
	if a.Kind() != b.Kind() || a.Type() != b.Type() {
		return fmt.Sprintf("%s: %v, want %v", path, a.Type(), b.Type())
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !a.IsNil() && !b.IsNil() {
			return firstDifference(path, a.Elem(), b.Elem())
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				return firstDifference(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		}
	case reflect.Slice:
		for i := range min(a.Len(), b.Len()) {
			if !reflect.DeepEqual(a.Index(i).Interface(), b.Index(i).Interface()) {
				return firstDifference(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i))
			}
		}
	case reflect.Map:
		for _, k := range a.MapKeys() {
			if v := b.MapIndex(k); v.IsValid() && !reflect.DeepEqual(a.MapIndex(k).Interface(), v.Interface()) {
				return firstDifference(fmt.Sprintf("%s[%v]", path, k), a.MapIndex(k), v)
			}
		}
	}
	return fmt.Sprintf("%s: %#v, want %#v", path, a, b)
}

var quickOnes = []string{
	"", "\n\n", "# only a comment\n", "  a = 1", "a = 1 # ü\n", "// x\na=\"b\"\n\n",
	"group \"g\" {}\n", "b c \"d\" { # why\n}", "b { a = 1 }\n", "b {\n  c { a = [1, 2] }\n}\n",
	"a = true\nb = null\nc = node.n1\nd = x[\"k\"].y[0]\n", "a = [\n  1, # one\n  node.a,\n]\nb = []\nc = {}\n",
	"a = { b = 1, \"c\" : [true], d = { e = f.g }\n  // then\n  h = \"\"\n}\n",
	"a = \"x-${each.key}:${a[\"b\"]}\"\nb = \"${ c.d }\"\nc = \"${a}${b}\"\n",
	"a = 1 + 2\nb = f(x, [\n  1, # )\n  \"}\",\n]) // c\nc = x ? y : z\nd = a == b\ne = -1\nf = 1.5\ng = !h\n",
	"a = \"ü\" # after\nb { c = \"ü\" }\nd = [\"é\",\n \"e\u0301\"]\ne = 1\n", "a = \"\\n\\\"$5 100%\"\n",
	"a = [for x in y : x]\nb = { for k, v in m : k => v if v > 1 }\nc = x.*.y\nd = x[*].z\ne = m[k]\n",
	"a = \"${f(\"x\", { y = \"z\" })}\"\nb = \"%{ if c }d%{ endif }\"\n", "a = (1\n  + 2)\n",
	"a = f()\nb = f(a, \"b\",)\nc = [g(h(1)), f(\n  a + 1, # one\n  b\n  - 2,\n)]\nd = true(1)\n", "a = f(x).y\nb = f(x)[0]\nc = f(x...)\nd = f (x)\ne = a::b(c)\n",
	"a = b == c\nd = e != f # g\nh = [i<=j, k >=l, 1-2, m-n, o - p, 2*3, q\n  && r, s||\nt]\n", "a = b + c * d\ne = f < g\nh = i > j ? 1 : 2\nk = { l = m + n, o = p == q }\nr = s / t % u\n",
	"a = \"${b + 1}\"\nc = \"x${f(\"y\", z)}${\"\"}\"\nd = \"${\"e\"}\"\ng = \"${h ~}\"\ni = \"${[1]}\"\nj = \"x${f(k)}\"\n",
}

// What doesn't pay to be known, and what is wrong, is hclsyntax's.
var slowOnes = []string{
	"a = <<EOT\nx\nEOT\n", "/* x */ a = 1\n", "a = 1\r\n", "a = \"$${b}\"\n", "ü = 1\n", "\ufeffa = 1\n", "a = \ufeffb\n", "a = \xeb(\n",
	"a = 1\na = 2\n", "a = 1,\n", "b {\n", "b { a = 1, c = 2 }\n", "a = [1 2]\n", "a = {b 1}\n", "b { a = 1\n}\n", "a = \"x\n\"\n", "a.b = 1\n", "b {} c {}\n",
	"a = }\n", "a = \n", "a = 'x'\n", "b \"${c}\" {}\n", "a = b.\n", "\"a\" = 1\n", "# \xff\n",
	"a = [b)]\n", "a = f(b]\n", "a = b)\n", "a = f(b,,c)\n", "a = b + \n",
}

func TestQuickReadsWhatHCLReads(t *testing.T) {
	for _, src := range quickOnes {
		if !sameTree(t, []byte(src)) {
			t.Errorf("read by hclsyntax: %q", src)
		}
	}
	for _, src := range slowOnes {
		if sameTree(t, []byte(src)) {
			t.Errorf("read here, what is hclsyntax's: %q", src)
		}
	}
	deep := "a = " + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "\n"
	sameTree(t, []byte(deep))
	sameTree(t, []byte(strings.Repeat("b {\n", 200)+strings.Repeat("}\n", 200)))
	quickly, all := 0, 0
	for _, src := range definitions(t) {
		all++
		if sameTree(t, src) {
			quickly++
		}
		// Cut anywhere, it is read the same, too.
		for cut := 0; cut < len(src); cut += 1 + len(src)/23 {
			sameTree(t, src[:cut])
		}
	}
	if all < 5 || quickly < all*3/4 {
		t.Errorf("%d of %d definitions of this tree are read without hclsyntax", quickly, all)
	}
}

// definitions are those of examples and tests.
func definitions(t testing.TB) [][]byte {
	var out [][]byte
	for _, root := range []string{"../examples", "testdata"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(name, hclSuffix) {
				return err
			}
			src, err := os.ReadFile(name)
			out = append(out, src)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func FuzzQuick(f *testing.F) {
	for _, src := range quickOnes {
		f.Add([]byte(src))
	}
	for _, src := range slowOnes {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if numberBeyond(src, "x.hcl", hcl.InitialPos, hclsyntax.LexConfig) == nil { // hclsyntax takes any
			sameTree(t, src)
		}
	})
}
