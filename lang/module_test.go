package lang

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// loadTree loads the definition in the directory root of an archive, whose
// modules lie beside it or in it.
func loadTree(t testing.TB, files []txtar.File) (*Config, hcl.Diagnostics) {
	t.Helper()
	tree := fstest.MapFS{}
	for _, f := range files {
		tree[f.Name] = &fstest.MapFile{Data: f.Data}
	}
	at := func(dir string) Module {
		sub, err := tree.Sub(path.Join("root", dir))
		if err != nil {
			t.Fatal(err)
		}
		return Module{FS: sub, Dir: path.Clean(dir)}
	}
	return Load(Options{
		FS: at(".").FS, Providers: localProvider, Version: "0.1.0",
		Modules: func(source, from string) (Module, error) {
			if strings.HasPrefix(source, "git::") {
				return Module{}, fmt.Errorf("%s isn't here; run clusterplan init.", source)
			}
			return at(path.Join(from, source)), nil
		},
	})
}

// Each archive of testdata/modules is a definition of several directories; its
// golden file has what is wrong with it, and what it is.
func TestModules(t *testing.T) {
	files, err := filepath.Glob("testdata/modules/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, diags := loadTree(t, ar.Files)
			d, more := c.Evaluate(nil)
			got := render(append(diags, more...))
			if !append(diags, more...).HasErrors() {
				got += dumpTree(d)
			}
			golden := strings.TrimSuffix(file, ".txtar") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// dumpTree is what makes a definition of modules what it is: objects with
// names, owners, commands and edges; outputs, imports, checks, moves.
func dumpTree(d *Definition) string {
	var b strings.Builder
	for _, o := range d.Objects {
		fmt.Fprintf(&b, "%s", o.Addr)
		for _, name := range []string{"name", "provider", "zone", "address", "preferred_owners", "depends_on", "command", "environment", "stop_within"} {
			if o.Value.Type().HasAttribute(name) {
				if v := o.Value.GetAttr(name); !v.IsNull() && !(v.IsKnown() && !v.IsMarked() && v.CanIterateElements() && v.LengthInt() == 0) {
					fmt.Fprintf(&b, " %s=%s", name, text(v))
				}
			}
		}
		b.WriteString("\n")
		for _, e := range o.DependsOn {
			fmt.Fprintf(&b, "  -> %s%s\n", e.To, map[bool]string{true: " hard"}[e.Hard])
		}
		for _, tr := range o.ReplaceBy {
			fmt.Fprintf(&b, "  replaced with %s %s\n", tr.Addr, tr.Attribute)
		}
		for _, c := range d.Conditions(o.Addr, Precondition, View{}) {
			fmt.Fprintf(&b, "  %s %s %s\n", c.Kind, c.Status, c.Message)
		}
	}
	for _, o := range d.Outputs {
		fmt.Fprintf(&b, "output %s = %s sensitive=%v runtime=%v\n", o.Name, text(o.Value), o.Sensitive, o.Runtime)
	}
	live := func(a addr.Address, attribute string) (string, bool) { return attribute + " of " + a.String(), true }
	for _, o := range d.ResolveOutputs(nil, live) {
		if o.Runtime {
			fmt.Fprintf(&b, "output %s is %s\n", o.Name, text(o.Value))
		}
	}
	for _, g := range d.Spec().Guarantees {
		fmt.Fprintf(&b, "guarantee %s %s %v\n", g.Addr, g.Name, g.Groups)
	}
	for _, c := range d.Checks(View{Live: live}) {
		for _, one := range c.Conditions {
			fmt.Fprintf(&b, "check %s %s %s %q\n", c.Module, c.Name, one.Status, one.Message)
		}
	}
	for _, i := range d.Imports {
		fmt.Fprintf(&b, "import %s %s\n", i.To, i.ID)
	}
	return b.String()
}

// Moved and removed blocks reach into modules, take whole modules along, and
// those of a module hold in each of its instances.
func TestModuleMoves(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/modules/moves.txtar")
	if err != nil {
		t.Fatal(err)
	}
	c, diags := loadTree(t, ar.Files)
	mustHaveNone(t, c, diags)
	d, diags := c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	for from, want := range map[string]string{
		`group.web`:                                   `module.shop.group.web`,
		`group.web.resource.vip`:                      `module.shop.group.web.resource.vip`,
		`module.crew["b"].group.web`:                  `module.team["b"].group.web`,
		`module.crew["b"].group.old`:                  `module.team["b"].group.web`,
		`module.crew.module.within.group.f["x"]`:      `module.team.module.inner.group.g`,
		`module.lone.group.old.resource.vip`:          `module.team["a"].group.web.resource.vip`,
		`module.team["b"].module.within.group.f["x"]`: `module.team["b"].module.inner.group.g`,
		`module.team["b"].module.within.group.f["y"]`: `module.team["b"].module.inner.group.f["y"]`,
		`module.shop.group.mail`:                      `group.mail`,
		`module.team["a"].group.mail`:                 `module.team["a"].group.mail`,
		`module.lonely.group.web`:                     `module.lonely.group.web`,
		`group.old`:                                   `group.old`,
	} {
		a, err := addr.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		if to, _ := d.Moves().Final(a); to.String() != want {
			t.Errorf("%s is %s in the end, want %s", from, to, want)
		}
	}
	for from, want := range map[string]bool{
		`module.gone.group.x`:              true,
		`module.gone["k"].module.m.node.n`: true,
		`module.team["b"].group.left`:      true,
		`group.left`:                       false,
		`module.goner.group.x`:             false,
	} {
		a, err := addr.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		if r := d.Removed(a); (r != nil) != want {
			t.Errorf("a removed block for %s: %v, want %v", from, r, want)
		}
	}
}
