package run

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang"
)

// The directory above can be a module; the definition's own is a cycle,
// however it is spelled.
func TestModulesOfTheDirectoriesAround(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "root")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(above, "main.cluster.hcl"), "output \"x\" {\n  value = 1\n}\n")
	write(filepath.Join(dir, "back", "main.cluster.hcl"), "module \"m\" {\n  source = \"..\"\n}\n")
	for source, want := range map[string]string{"..": "", "./..": "", "../": "", ".": "Cycle of modules", "./": "Cycle of modules", "./back/..": "Cycle of modules", "./back": "Cycle of modules"} {
		write(filepath.Join(dir, "main.cluster.hcl"), "module \"m\" {\n  source = \""+source+"\"\n}\n")
		tree := newTree(dir)
		_, diags := lang.Load(lang.Options{FS: tree, Dir: dir, Modules: modules(tree, nil), Version: "0.1.0", AllowUnset: true})
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		if diags.HasErrors() != (want != "") || !strings.Contains(diags.Error(), want) {
			t.Errorf("%s: %s", source, diags.Error())
		}
	}
}
