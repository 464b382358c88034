package lang

import (
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// A list of names is left without its tree only where its text says the same,
// and answers as the tree would.
func TestNameList(t *testing.T) {
	const src = `cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n1" { provider = local }
node "n2" { provider = local }
group "plain" { preferred_owners = [node.n1, node.n2] }
group "spread" {
  preferred_owners = [
    node.n1, # first
    node.n2,
  ]
}
group "indexed" { preferred_owners = [node["n1"]] }
group "computed" { preferred_owners = [for n in [node.n1, node.n2] : n] }
group "none" { preferred_owners = [] }
`
	files := fstest.MapFS{
		"main.cluster.hcl":  {Data: []byte(src)},
		"more.cluster.json": {Data: []byte(`{"group": {"json": {"preferred_owners": ["node.n1", "node.n2"]}}}`)},
	}
	c, diags := Load(Options{FS: files, Providers: map[string]spec.Schema{"local": {}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	for name, want := range map[string]bool{"plain": true, "spread": true, "indexed": false, "computed": false, "none": false, "json": false} {
		e := c.groups[name].body.attr("preferred_owners").expr
		list, left := e.Expression.(*nameList)
		if left != want {
			t.Errorf("%s: left without its tree: %v, want %v", name, left, want)
		}
		if !left {
			continue
		}
		tree, diags := list.tree()
		if diags.HasErrors() || list.Range() != tree.Range() || list.StartRange() != tree.StartRange() ||
			!reflect.DeepEqual(list.Variables(), tree.Variables()) || !reflect.DeepEqual(findRefs(tree), e.refs) {
			t.Errorf("%s: the text read again is another list: %v", name, diags)
		}
	}
	d, diags := c.Evaluate(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	ev := d.ev
	for _, name := range []string{"plain", "spread"} {
		a := c.groups[name].body.attr("preferred_owners")
		named, ids, ok := ev.named(a, nil)
		v, bad := ev.eval(a.expr, nil)
		slow, slowIDs, problem := ev.canonical(a, v, nil)
		if !ok || bad || problem != nil || !slow.RawEquals(named) || !reflect.DeepEqual(ids, slowIDs) {
			t.Errorf("%s: %v %v by name, %v %v by value (%v)", name, named, ids, slow, slowIDs, problem)
		}
	}
}
