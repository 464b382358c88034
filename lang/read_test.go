package lang

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// manyModules is a root that calls so many modules, each with a syntax error or
// with one that is found later.
func manyModules(modules int) fstest.MapFS {
	var root strings.Builder
	root.WriteString("cluster \"c\" {}\n")
	tree := fstest.MapFS{}
	for i := range modules {
		fmt.Fprintf(&root, "module \"m%02d\" {\n  source = \"./m%02d\"\n}\n", i, i)
		text := "group \"a\" {\n"
		if i%2 == 1 {
			text = "local {\n}\n"
		}
		tree[fmt.Sprintf("m%02d/a.cluster.hcl", i)] = &fstest.MapFile{Data: []byte(text)}
	}
	tree["main.cluster.hcl"] = &fstest.MapFile{Data: []byte(root.String())}
	return tree
}

func loadMany(t *testing.T, parse func([]byte, string) (*hcl.File, hcl.Diagnostics)) string {
	t.Helper()
	tree := manyModules(20)
	_, diags := Load(Options{FS: tree, Providers: localProvider, Parse: parse, Modules: func(source, _ string) (Module, error) {
		dir := strings.TrimPrefix(source, "./")
		sub, err := tree.Sub(dir)
		return Module{FS: sub, Dir: dir}, err
	}})
	return render(diags)
}

// Files of modules are parsed two at a time, and what is told doesn't depend on
// which of the two is done first.
func TestModulesAreParsedBesideEachOther(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	want := loadMany(t, nil)
	if n := strings.Count(want, "m1"); n < 10 {
		t.Fatalf("too few modules with errors:\n%s", want)
	}
	var mu sync.Mutex
	var waiting chan struct{} // of the one that was begun first, closed by the second
	got := loadMany(t, func(src []byte, name string) (*hcl.File, hcl.Diagnostics) {
		if name == "main.cluster.hcl" {
			return Parse(src, name)
		}
		mu.Lock()
		mine := waiting
		if waiting = nil; mine == nil {
			mine = make(chan struct{})
			waiting = mine
			mu.Unlock()
			select {
			case <-mine:
			case <-time.After(30 * time.Second):
				t.Errorf("nothing is parsed beside %s", name)
			}
			return Parse(src, name)
		}
		mu.Unlock()
		defer close(mine) // the second is done first
		return Parse(src, name)
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("in another order, other diagnostics (-want +got):\n%s", d)
	}
	// What a parser panics with reaches the caller, who can catch it.
	defer func() {
		if p := recover(); p != "broken" {
			t.Errorf("recovered %v", p)
		}
	}()
	loadMany(t, func([]byte, string) (*hcl.File, hcl.Diagnostics) { panic("broken") })
}

// for_each and count are worked out once, however many instances they give:
// what lies in them is called as often as the list is long.
func TestRepetitionIsEvaluatedOnce(t *testing.T) {
	const n = 300
	big := fmt.Sprintf(`{ for i in range(%d) : upper("k${i}") => i }`, n)
	head := "cluster \"c\" {\n  quorum {\n    model = \"majority_node_set\"\n  }\n}\nnode \"n1\" {\n  provider = local\n}\n"
	for name, text := range map[string]string{
		"node":      "node \"n\" {\n  provider = local\n  for_each = " + big + "\n  zone = each.key\n}\n",
		"group":     "group \"g\" {\n  for_each = " + big + "\n  description = each.key\n}\n",
		"count":     "group \"g\" {\n  count = length(" + big + ")\n  description = tostring(count.index)\n}\n",
		"resource":  "group \"g\" {\n  count = 20\n  resource \"generic_application\" \"r\" {\n    for_each = " + big + "\n    command = [each.key]\n  }\n}\n",
		"guarantee": "group \"g\" {}\nguarantee \"s\" {\n  for_each = " + big + "\n  groups = [group.g]\n  survives = { nodes = 0 }\n}\n",
		"module":    "module \"m\" {\n  source = \"./m\"\n  for_each = " + big + "\n  name = each.key\n}\n",
		"dynamic":   "group \"g\" {\n  count = 20\n  resource \"generic_application\" \"r\" {\n    command = [\"a\"]\n    dynamic \"is_alive\" {\n      for_each = slice(keys(" + big + "), 0, 1)\n      content {\n        interval = \"5s\"\n      }\n    }\n  }\n}\n",
		"local":     "locals {\n  big = " + big + "\n}\ngroup \"g\" {\n  for_each = local.big\n  description = \"${local.big[each.key]}\"\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			tree := fstest.MapFS{
				"main.cluster.hcl": {Data: []byte(head + text)},
				"m/m.cluster.hcl":  {Data: []byte("variable \"name\" {}\ngroup \"g\" {\n  description = var.name\n}\n")},
			}
			c, diags := Load(Options{FS: tree, Providers: localProvider, Modules: func(string, string) (Module, error) {
				sub, err := tree.Sub("m")
				return Module{FS: sub, Dir: "m"}, err
			}})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			calls, upper := 0, c.functions["upper"]
			c.functions["upper"] = function.New(&function.Spec{
				Params: upper.Params(), Type: function.StaticReturnType(cty.String),
				Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
					calls++
					return upper.Call(args)
				},
			})
			d, diags := c.Evaluate(nil)
			if diags.HasErrors() || len(d.Objects)+len(d.Guarantees) < 20 {
				t.Fatal(len(d.Objects), diags)
			}
			if calls != n {
				t.Errorf("a list of %d was worked out with %d calls", n, calls)
			}
		})
	}
}

// An expression that takes long doesn't keep who wants to stop.
func TestStop(t *testing.T) {
	fsys := fstest.MapFS{"main.cluster.hcl": {Data: []byte("cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"n\" {\n  provider = local\n}\noutput \"o\" {\n  value = \"x\"\n}\n")}}
	stop, forever := make(chan struct{}), make(chan struct{})
	defer close(forever)
	c, diags := Load(Options{FS: fsys, Providers: localProvider, Stop: stop})
	d, more := c.Evaluate(nil)
	if len(diags)+len(more) > 0 || d == nil {
		t.Fatal(diags, more)
	}
	c.functions["upper"] = function.New(&function.Spec{Type: function.StaticReturnType(cty.String), Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
		close(stop)
		<-forever
		return cty.StringVal(""), nil
	}})
	if _, _, diags := d.Ask("upper()", "line", nil); !Interrupted(diags) {
		t.Errorf("asked: %v", diags)
	}
	if d, diags := c.Evaluate(nil); d != nil || !Interrupted(diags) {
		t.Errorf("evaluated: %v", diags)
	}
	if c, diags := Load(Options{FS: fsys, Providers: localProvider, Stop: stop}); c == nil || !Interrupted(diags) {
		t.Errorf("loaded: %v", diags)
	}
}
