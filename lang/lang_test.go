package lang

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// localProvider is providers/local's own block, as data.
var localProvider = map[string]spec.Schema{"local": {Name: "local", Attributes: []spec.Attribute{
	{Name: "mode", Type: spec.TypeString, Default: "process", Values: []string{"process", "netns"}, KnownAtPlan: true},
	{Name: "subnet", Type: spec.TypeString, KnownAtPlan: true},
	{Name: "subnet6", Type: spec.TypeString, KnownAtPlan: true},
}}}

// twoProviders are that one, and one of nodes elsewhere.
var twoProviders = map[string]spec.Schema{"local": localProvider["local"], "far": {Name: "far"}}

func load(t testing.TB, files map[string]string) (*Config, hcl.Diagnostics) {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, src := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(src)}
	}
	places := localProvider
	if strings.Contains(fmt.Sprint(files), "= far\n") {
		places = twoProviders
	}
	return Load(Options{FS: fsys, Providers: places, Version: "0.1.0"})
}

func evaluate(t testing.TB, src string) *Definition {
	t.Helper()
	c, diags := load(t, map[string]string{"main.cluster.hcl": src})
	mustHaveNone(t, c, diags)
	d, diags := c.Evaluate(nil)
	mustHaveNone(t, c, diags)
	return d
}

func mustHaveNone(t testing.TB, c *Config, diags hcl.Diagnostics) {
	t.Helper()
	for _, d := range diags {
		t.Errorf("%s", d)
	}
	if len(diags) > 0 {
		t.FailNow()
	}
}

func TestExamples(t *testing.T) {
	dirs := []string{"../examples/environments/staging", "../examples/environments/production"}
	all, err := filepath.Glob("../examples/*/main.cluster.hcl")
	if err != nil || len(all) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range all {
		if dir := filepath.Dir(file); filepath.Base(dir) != "libvirt" { // its blocks have their provider's shapes: cmd's tests read it
			dirs = append(dirs, dir)
		}
	}
	text := func(name string) spec.Attribute { return spec.Attribute{Name: name, Type: spec.TypeString} }
	places := map[string]spec.Schema{"local": localProvider["local"],
		"ssh": {Name: "ssh", Attributes: []spec.Attribute{text("user"), text("private_key_file"), text("known_hosts_file")}}} // what the example uses
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			modules := func(source, from string) (Module, error) {
				at := path.Join(from, source)
				return Module{FS: os.DirFS(filepath.Join(dir, at)), Dir: at}, nil
			}
			c, diags := Load(Options{FS: os.DirFS(dir), Modules: modules, Providers: places, Version: "0.1.0"})
			mustHaveNone(t, c, diags)
			d, diags := c.Evaluate(nil)
			mustHaveNone(t, c, diags)
			if len(d.Objects) < 3 {
				t.Errorf("only %d objects", len(d.Objects))
			}
			for _, o := range d.Objects {
				t.Logf("%s %#v %v", o.Addr, o.Value, o.DependsOn)
			}
			t.Logf("%#v", d.Outputs)
		})
	}
}
