package addr

import (
	"slices"
	"testing"
)

// A module's address names all that it holds, in all of its instances where it
// has no key, and nothing beside it.
func TestModuleAddresses(t *testing.T) {
	for _, c := range []struct {
		module, object string
		covers         bool
	}{
		{`module.m`, `module.m.group.g`, true},
		{`module.m`, `module.m["a.b]"].module.n[3].group.g.resource.r`, true},
		{`module.m["a"]`, `module.m["a"].module.n.node.x`, true},
		{`module.m["a"]`, `module.m["ab"].node.x`, false},
		{`module.m`, `module.mm.node.x`, false},
		{`module.m.module.n`, `module.m.node.x`, false},
		{`module.m`, `node.m`, false},
		{`group.g`, `group.g["a"].resource.r["b"]`, true},
		{`group.g`, `module.m.group.g`, false},
		{`group.g["a"]`, `group.g["b"]`, false},
	} {
		a, err := ParseTarget(c.module)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(c.object)
		if err != nil {
			t.Fatal(err)
		}
		if a.String() != c.module || a.Covers(b) != c.covers {
			t.Errorf("%s covers %s: %v, want %v", a, b, a.Covers(b), c.covers)
		}
		if steps := ModuleSteps(b.Module); ModulePath(steps) != b.Module {
			t.Errorf("the steps of %q are %v", b.Module, steps)
		}
	}
	if _, err := Parse("module.m"); err == nil {
		t.Error("a module is taken for an object")
	}
	want := []string{`group.z`, `module.m["a"].group.g`, `module.m["b"].group.a`, `module.m[2].group.g`, `module.m[10].group.g`}
	list := make([]Address, len(want))
	for i, k := range []int{4, 0, 3, 2, 1} {
		a, err := Parse(want[k])
		if err != nil {
			t.Fatal(err)
		}
		list[i] = a
	}
	slices.SortFunc(list, Compare)
	for i, a := range list {
		if a.String() != want[i] {
			t.Errorf("%d in order is %s, want %s", i, a, want[i])
		}
	}
}
