package lang

import (
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
)

// Eight times as much of a definition makes eight times the garbage: what is made
// anew of everything for each module, block or error would show. Time is not
// measured here (bench/validate does), so that a busy machine fails nobody.
func TestWorkGrowsWithDefinition(t *testing.T) {
	const little, times = 12, 8
	for _, tc := range []struct {
		name  string
		write func(n int) (root, module string)
		bad   bool
	}{
		{"modules", modular, false},
		{"modules with an error each", func(n int) (root, module string) {
			root, module = modular(n)
			return root, strings.Replace(module, `["serve"`, `[unknown.thing`, 1)
		}, true},
		{"blocks of one file", func(n int) (root, module string) {
			root, _ = modular(0)
			var b strings.Builder
			for i := range 10 * n {
				fmt.Fprintf(&b, "group \"g%05d\" {\n  preferred_owners = values(node.n)\n  resource \"generic_application\" \"server\" {\n    command = [\"serve\", local.l%05d]\n  }\n}\nlocals {\n  l%05d = \"%d\"\n}\noutput \"g%05d\" {\n  value = group.g%05d\n}\n", i, i, i, i, i, i)
			}
			return root + b.String(), ""
		}, false},
		{"errors in one file", func(n int) (root, module string) {
			root, _ = modular(0)
			var b strings.Builder
			for i := range 10 * n {
				fmt.Fprintf(&b, "group \"g%05d\" {\n  preferred_owners = [node.n%d]\n  colour = \"blue\"\n}\n", i, i)
			}
			return root + b.String(), ""
		}, true},
		{"instances of one block", func(n int) (root, module string) { return large(50 * n / 4), "" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			measure := func(n int) (bytes, objects float64) {
				root, module := tc.write(n)
				dirs := map[string]fs.FS{".": fstest.MapFS{"main.cluster.hcl": {Data: []byte(root)}}}
				for i := range n {
					dirs[fmt.Sprintf("modules/m%03d", i)] = fstest.MapFS{"main.cluster.hcl": {Data: []byte(module)}}
				}
				find := func(source, from string) (Module, error) {
					dir := path.Join(from, source)
					return Module{FS: dirs[dir], Dir: dir}, nil
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				c, diags := Load(Options{FS: dirs["."], Providers: localProvider, Modules: find})
				d, more := c.Evaluate(nil)
				runtime.ReadMemStats(&after)
				if diags = append(diags, more...); diags.HasErrors() != tc.bad {
					t.Fatal(diags)
				}
				if tc.bad {
					return float64(after.TotalAlloc - before.TotalAlloc), float64(len(diags))
				}
				return float64(after.TotalAlloc - before.TotalAlloc), float64(len(d.Objects))
			}
			measure(1) // what is made once
			few, objects := measure(little)
			many, more := measure(little * times)
			if more < objects*(times-1) {
				t.Fatalf("%v for %v", more, objects)
			}
			t.Logf("%.0f KiB for %.0f, %.0f KiB for %.0f: %.2f times", few/1024, objects, many/1024, more, many/few)
			if many/few > times*1.15 {
				t.Errorf("%.0f KiB for %.0f, %.0f KiB for %.0f: %.1f times as much, want %d", few/1024, objects, many/1024, more, many/few, times)
			}
		})
	}
}
