package addr

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, err string }{
		{"cluster", ""}, {"node.n1", ""}, {`node.n["a"]`, ""}, {"node.n[0]", ""}, {"group.sql.resource.vip", ""},
		{`module.m["k"].module.n.group.sql["eu"].resource.vip["a"]`, ""}, {`group.g["a.b\"]"]`, ""}, {"machine.m", ""}, {"guarantee.g", ""}, {"network.lab", ""}, {"output.url", ""},
		{"", "expected a name at character 1"},
		{"cluster.x", `unexpected ".x" at character 8`},
		{"module.m.cluster", "root module only"},
		{"nod.n1", `"nod" is no object type`},
		{"web", `"web" has no type in front; write group.web`},
		{"node", "expected . and a name at character 5"},
		{"node.", "expected a name at character 6"},
		{"node.n1.resource.x", `unexpected ".resource.x"`},
		{"node.n[a]", "in a shell, quote the whole address"},
		{"node.n[01]", "neither a number"}, {"node.n[-1]", "neither a number"}, {"node.n[0", "neither a number"},
		{`node.n["a]`, "no closing quote"}, {`node.n["a"`, "expected ] after the key"},
		{"group.g.vip", "group.NAME.resource.NAME"}, {"group.g.resource", "expected . and a resource's name"},
		{"group.g.resource.a.b", `unexpected ".b"`}, {"group.ö", "expected a name"}, {"module.m.", "expected a name"},
	} {
		a, err := Parse(tc.in)
		switch {
		case tc.err == "" && err != nil:
			t.Errorf("%s: %v", tc.in, err)
		case tc.err == "" && a.String() != tc.in:
			t.Errorf("%s came back as %s", tc.in, a)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: error %v, want %q", tc.in, err, tc.err)
		}
	}
}

func TestParts(t *testing.T) {
	a, err := Parse(`module.m["k"].group.sql["eu"].resource.vip["a"]`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ what, got, want string }{
		{"owner", a.Owner().String(), `module.m["k"].group.sql["eu"]`},
		{"block", a.WithoutKey().String(), `module.m["k"].group.sql["eu"].resource.vip`},
		{"owner's block", a.Owner().WithoutKey().String(), `module.m["k"].group.sql`},
		{"name", a.DefaultName(), "vip-a"},
		{"owner's name", a.Owner().DefaultName(), "m-k-sql-eu"},
		{"counted", Node("n", IntKey(3)).DefaultName(), "n-3"},
		{"plain", Node("n", NoKey).DefaultName(), "n"},
		{"cluster", Cluster().WithoutKey().String(), "cluster"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %s, want %s", tc.what, tc.got, tc.want)
		}
	}
	var back struct{ A Address }
	if b, err := json.Marshal(struct{ A Address }{a}); err != nil || json.Unmarshal(b, &back) != nil || back.A != a {
		t.Errorf("through JSON: %s, %v", b, back.A)
	}
	if err := json.Unmarshal([]byte(`{"A":"nope"}`), &back); err == nil {
		t.Error("a wrong address was read from JSON")
	}
}

func TestCompare(t *testing.T) {
	order := []string{
		"network.z", "machine.a", "cluster", "node.a", "node.n[2]", "node.n[10]", `node.n["a"]`,
		"group.a", "group.a.resource.x", "group.a.resource.y[9]", "group.a.resource.y[10]", "group.a[0]", "group.b", "guarantee.g", "output.o", "module.m.node.a",
	}
	var sorted []Address
	for _, s := range order {
		a, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		sorted = append([]Address{a}, sorted...)
	}
	slices.SortFunc(sorted, Compare)
	var got []string
	for _, a := range sorted {
		got = append(got, a.String())
	}
	if !slices.Equal(got, order) {
		t.Errorf("sorted %q", got)
	}
}

// Every address is read back from its text, and no two share one.
func TestRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z_][A-Za-z0-9_-]{0,5}`)
	key := rapid.Custom(func(t *rapid.T) Key {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			return NoKey
		case 1:
			return IntKey(rapid.IntRange(0, 1<<30).Draw(t, "i"))
		}
		return StringKey(rapid.String().Draw(t, "s"))
	})
	address := rapid.Custom(func(t *rapid.T) Address {
		a := Address{Type: rapid.SampledFrom([]string{TypeNode, TypeGroup, TypeMachine}).Draw(t, "type"), Name: name.Draw(t, "name"), Key: key.Draw(t, "key")}
		if rapid.Bool().Draw(t, "in a module") {
			a.Module = "module." + name.Draw(t, "module") + key.Draw(t, "module key").String()
		}
		if a.Type == TypeGroup && rapid.Bool().Draw(t, "resource") {
			a = a.WithResource(name.Draw(t, "resource name"), key.Draw(t, "resource key"))
		}
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := address.Draw(t, "a"), address.Draw(t, "b")
		back, err := Parse(a.String())
		if err != nil || back != a {
			t.Fatalf("%s: %+v, %v", a, back, err)
		}
		if (a == b) != (a.String() == b.String()) || (a == b) != (Compare(a, b) == 0) || Compare(a, b) != -Compare(b, a) {
			t.Fatalf("%s and %s: Compare %d", a, b, Compare(a, b))
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"cluster", `node.n["a"]`, `module.m[0].group.g["\u00e9"].resource.r`, "node.n[1", `node.n["\x"]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(a.String())
		if err != nil || again != a {
			t.Fatalf("%q: %s read back as %s, %v", s, a, again, err)
		}
	})
}
