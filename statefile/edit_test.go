package statefile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// edits is a state with nodes n["a"], n["b"] and m, and the groups web (with
// vip, and ip["x"], ip["y"]) and sql, which needs web.
func edits(t *testing.T) State {
	t.Helper()
	s := State{Program: "0.1.0", Serial: 3, Lineage: "00000000000000aa", Cluster: &Cluster{ID: "c1"}, Outputs: map[string]Output{"url": {}}}
	for i, text := range []string{"cluster", "node.m", `node.n["a"]`, `node.n["b"]`, "group.sql", "group.sql.resource.disk",
		"group.web", `group.web.resource.ip["x"]`, `group.web.resource.ip["y"]`, "group.web.resource.vip"} {
		a, err := addr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		o := object(a, fmt.Sprint("id", i))
		switch {
		case a.IsResource():
			o.Type, o.DependsOn = "thing", []addr.Address{a.Owner()}
		case text == "group.sql":
			o.DependsOn = []addr.Address{addr.Group("web", addr.NoKey), addr.Node("n", addr.StringKey("b"))}
		}
		s.Objects = append(s.Objects, o)
	}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	return s
}

// shorten is what a state has, with ids and whom it depends on.
func shorten(s State) string {
	var out []string
	for _, o := range s.Objects {
		text := o.Addr.String() + "=" + o.ID
		for _, d := range o.DependsOn {
			text += ">" + d.String()
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestRename(t *testing.T) {
	for _, c := range []struct{ from, to, want, err string }{
		{"node.m", `node.n["c"]`, `node.n["c"]=id1`, ""},
		{"node.n", "node.k", `node.k["a"]=id2 node.k["b"]=id3 node.m=id1 group.sql=id4>group.web>node.k["b"]`, ""},
		{`node.n["b"]`, "node.b", "node.b=id3", ""},
		{"group.web", `group.site["eu"]`, `group.site["eu"]=id6 group.site["eu"].resource.ip["x"]=id7>group.site["eu"] group.site["eu"].resource.ip["y"]=id8>group.site["eu"] ` +
			`group.site["eu"].resource.vip=id9>group.site["eu"] group.sql=id4>group.site["eu"]>node.n["b"]`, ""},
		{"group.web.resource.vip", "group.web.resource.address", "group.web.resource.address=id9>group.web", ""},
		{"group.web.resource.ip", "group.web.resource.added", `group.web.resource.added["x"]=id7>group.web group.web.resource.added["y"]=id8>group.web`, ""},
		{"node.m", "module.lab.node.m", "module.lab.node.m=id1", ""},

		{"node.m", "node.m", "", "both addresses are node.m"},
		{"node.x", "node.y", "", "the state has no node.x"},
		{`node.n["c"]`, "node.y", "", `the state has no node.n["c"]`},
		{"node.m", "group.m", "", "a node stays a node"},
		{"cluster", "node.c", "", "the cluster has one address"},
		{"node.m", `node.n["a"]`, "", `the state has node.n["a"] already`},
		{"group.web", "group.sql", "", "the state has group.sql already"},
		{"node.n", `node.k["a"]`, "", `node.n has instances, and they can't all be node.k["a"]`},
		{"group.web.resource.vip", "group.sql.resource.vip", "", "a resource stays in its group"},
		{"group.web.resource.vip", "group.x", "", "one of the two is a resource"},
	} {
		s := edits(t)
		before := shorten(s)
		from, err1 := addr.Parse(c.from)
		to, err2 := addr.Parse(c.to)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		got, moves, err := Rename(s, from, to)
		if shorten(s) != before {
			t.Fatalf("%s to %s: the state that was given is another now", c.from, c.to)
		}
		if err != nil {
			if c.err == "" || !strings.Contains(err.Error(), c.err) || len(moves) > 0 {
				t.Errorf("%s to %s: %v", c.from, c.to, err)
			}
			continue
		}
		if c.err != "" {
			t.Errorf("%s to %s: no error", c.from, c.to)
			continue
		}
		for _, want := range strings.Fields(c.want) {
			if !strings.Contains(" "+shorten(got)+" ", " "+want+" ") {
				t.Errorf("%s to %s: no %s in %s", c.from, c.to, want, shorten(got))
			}
		}
		if _, err := Marshal(&got); err != nil {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		if err := got.check(); err != nil {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
		// Back, one by one, it is as before.
		for _, m := range moves {
			if m.From.IsResource() && !from.IsResource() {
				continue // went with its group
			}
			if got, _, err = Rename(got, m.To, m.From); err != nil {
				t.Fatal(err)
			}
		}
		if shorten(got) != before {
			t.Errorf("%s to %s and back: %s, not %s", c.from, c.to, shorten(got), before)
		}
	}
}

func TestForget(t *testing.T) {
	for _, c := range []struct{ which, gone, err string }{
		{"node.m", "node.m", ""},
		{`node.n group.web`, `node.n["a"] node.n["b"] group.web group.web.resource.ip["x"] group.web.resource.ip["y"] group.web.resource.vip`, ""},
		{"group.web group.web.resource.vip", `group.web group.web.resource.ip["x"] group.web.resource.ip["y"] group.web.resource.vip`, ""},
		{"node.m node.n group.web group.sql cluster", "all", ""},

		{"node.m node.x", "", "the state has no node.x"},
		{"group.web.resource.vip", "", "can't be forgotten on its own"},
		{"cluster", "", "the cluster can't be forgotten while the state has node.m"},
	} {
		s := edits(t)
		before := shorten(s)
		var which []addr.Address
		for _, text := range strings.Fields(c.which) {
			a, err := addr.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			which = append(which, a)
		}
		got, gone, err := Forget(s, which...)
		if shorten(s) != before || s.Cluster == nil {
			t.Fatalf("%s: the state that was given is another now", c.which)
		}
		if err != nil {
			if c.err == "" || !strings.Contains(err.Error(), c.err) || len(gone) > 0 {
				t.Errorf("%s: %v", c.which, err)
			}
			continue
		}
		if c.gone == "all" {
			if len(got.Objects) > 0 || got.Cluster != nil || got.Outputs != nil || len(gone) != len(s.Objects) {
				t.Errorf("%s: left %v", c.which, got)
			}
			continue
		}
		if text := strings.Trim(fmt.Sprint(gone), "[]"); c.err != "" || text != c.gone {
			t.Errorf("%s: forgot %s", c.which, text)
		}
		if got.Cluster == nil || len(got.Objects)+len(gone) != len(s.Objects) {
			t.Errorf("%s: left %s", c.which, shorten(got))
		}
		for _, a := range gone {
			if strings.Contains(shorten(got), a.String()) {
				t.Errorf("%s: %s is still told of in %s", c.which, a, shorten(got))
			}
		}
	}
}

func TestUnmarshalForeign(t *testing.T) {
	s := edits(t)
	good := string(mustMarshal(t, &s))
	cut := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("no %s", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for _, c := range []struct{ name, data, err string }{
		{"as written", good, ""},
		{"serial raised", cut(`"serial": 3`, `"serial": 4`), ErrEdited.Error()},
		{"laid out anew", strings.ReplaceAll(good, "\n", "\n\t"), ErrEdited.Error()},
		{"no lineage", cut(`"lineage": "00000000000000aa"`, `"lineage": ""`), "no lineage"},
		{"an object twice", cut(`"node.m"`, `"node.n[\"a\"]"`), "is there twice"},
		{"an id twice", cut(`"id":"id2"`, `"id":"id3"`), "have the same id id3"},
		{"no id", cut(`"id":"id2"`, `"id":""`), "no id"},
		{"a group less", cut(`"group.sql","type":"group"`, `"group.sqm","type":"group"`), "its group is not"},
		{"another type", cut(`"node.m","type":"node"`, `"node.m","type":"group"`), `of the type "group"`},
		{"attributes", cut(`{"name":"<m>"}`, `["<m>"]`), "the attributes of node.m"},
		{"an unknown field", cut(`"serial": 3,`, `"serial": 3, "colour": 1,`), "colour"},
		{"half", good[:len(good)/2], "damaged in line"},
		{"two", good + good, "behind the end"},
		{"empty", "", "no clusterplan state|empty"},
		{"of another program", `{"version": 4, "terraform_version": "1.11.4", "serial": 1}`, "no clusterplan state"},
		{"newer", cut(`"format_version": "1.3"`, `"format_version": "1.9"`), "newer clusterplan"},
	} {
		got, err := UnmarshalForeign([]byte(c.data))
		if (err == nil || errors.Is(err, ErrEdited)) != (got != nil) {
			t.Errorf("%s: a state %v, %v", c.name, got != nil, err)
		}
		ok := c.err == "" && err == nil
		for _, words := range strings.Split(c.err, "|") {
			ok = ok || err != nil && words != "" && strings.Contains(err.Error(), words)
		}
		if !ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	edited, err := UnmarshalForeign([]byte(cut(`"serial": 3`, `"serial": 4`)))
	if !errors.Is(err, ErrEdited) || edited.Serial != 4 || shorten(*edited) != shorten(s) {
		t.Errorf("an edited state: %v, %v", edited, err)
	}
}

// Whatever is pushed, what comes out can be written and read again.
func FuzzUnmarshalForeign(f *testing.F) {
	s := *sample(6)
	for i := range s.Objects {
		if s.Objects[i].Addr.IsResource() {
			s.Objects[i].Type = "thing"
		}
	}
	data, err := Marshal(&s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(strings.Replace(string(data), `"serial": 7`, `"serial": 8`, 1)))
	f.Add([]byte(`{"format_version":"1.0","lineage":"a","objects":[{"addr":"node.n","type":"node","provider":"p","id":"i","attributes":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := UnmarshalForeign(data)
		if s == nil {
			if err == nil {
				t.Fatal("neither a state nor an error")
			}
			return
		}
		out, err := Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Unmarshal(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(shorten(*s), shorten(*again)); diff != "" {
			t.Fatal(diff)
		}
	})
}
