package lang

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// twin is a part of a definition that can be written in either syntax.
type twin struct {
	native string
	json   any
}

func number(n int) twin { return twin{strconv.Itoa(n), n} }
func boolean(b bool) twin {
	return twin{strconv.FormatBool(b), b}
}

// str is a string as it stands: what could be a template in it is none.
func str(s string) twin {
	plain := strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
	return twin{`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(plain) + `"`, plain}
}

// verbatim is a string where JSON knows no templates.
func verbatim(s string) twin { return twin{str(s).native, s} }

// expression is one, in JSON within a template.
func expression(e string) twin { return twin{e, "${" + e + "}"} }

// template is a string with templates in it, which are the same in both.
func template(s string) twin { return twin{`"` + s + `"`, s} }

// reference is an expression where one is wanted: in JSON a plain string as well.
func reference(t *rapid.T, e string) twin {
	if rapid.Bool().Draw(t, "plain") {
		return twin{e, e}
	}
	return expression(e)
}

func list(elems ...twin) twin {
	out, js := make([]string, len(elems)), make([]any, len(elems))
	for i, e := range elems {
		out[i], js[i] = e.native, e.json
	}
	return twin{"[" + strings.Join(out, ", ") + "]", js}
}

func mapping(m map[string]twin) twin {
	var out []string
	js := map[string]any{}
	for _, k := range sortedKeys(m) {
		out = append(out, strconv.Quote(k)+" = "+m[k].native)
		js[k] = m[k].json
	}
	return twin{"{ " + strings.Join(out, ", ") + " }", js}
}

// twins are blocks and attributes of one body, in both syntaxes.
type twins struct {
	native strings.Builder
	json   map[string]any
}

func newTwins() *twins { return &twins{json: map[string]any{}} }

func (b *twins) set(name string, v twin) {
	fmt.Fprintf(&b.native, "%s = %s\n", name, v.native)
	b.json[name] = v.json
}

// block adds a block. In JSON those of one type are a list of objects by label.
func (b *twins) block(inner *twins, typ string, labels ...string) {
	b.native.WriteString(typ)
	for _, l := range labels {
		fmt.Fprintf(&b.native, " %q", l)
	}
	fmt.Fprintf(&b.native, " {\n%s}\n", inner.native.String())
	var js any = inner.json
	for i := len(labels) - 1; i >= 0; i-- {
		js = map[string]any{labels[i]: js}
	}
	others, _ := b.json[typ].([]any)
	b.json[typ] = append(others, js)
}

// anyText has what strings, templates and JSON escape.
var anyText = rapid.StringMatching(`[a-zA-Z "\\$%{}äß€/:.\n]{0,10}`)

func drawDefinition(t *rapid.T) *twins {
	root := newTwins()
	add := func(typ string, fill func(*twins), labels ...string) {
		inner := newTwins()
		fill(inner)
		root.block(inner, typ, labels...)
	}
	yes := func(what string) bool { return rapid.Bool().Draw(t, what) }
	text := func(what string) string { return anyText.Draw(t, what) }

	add("variable", func(b *twins) {
		b.set("type", twin{"map(object({ n = number, text = optional(string, \"none\") }))", "map(object({ n = number, text = optional(string, \"none\") }))"})
		b.set("default", mapping(map[string]twin{"x": mapping(map[string]twin{"n": number(1)}), "y": mapping(map[string]twin{"n": number(2), "text": verbatim(text("default"))})}))
		if yes("sensitive") {
			b.set("sensitive", boolean(true))
		}
		if yes("validation") {
			inner := newTwins()
			inner.set("condition", reference(t, "length(var.m) == 2"))
			inner.set("error_message", template("There are ${length(var.m)}."))
			b.block(inner, "validation")
		}
	}, "m")
	add("locals", func(b *twins) {
		b.set("text", str(text("local")))
		b.set("pairs", mapping(map[string]twin{"a": list(number(1), str(text("pair")), boolean(false)), "b c": expression("null")}))
		b.set("joined", template("${local.text}-${length(local.pairs)}"))
	})
	add("cluster", func(b *twins) {
		quorum := newTwins()
		quorum.set("model", str("majority_node_set"))
		b.block(quorum, "quorum")
		// Before the links: json.Marshal sorts, and blocks are in the order of the file.
		if yes("dynamic link") {
			dynamic, content := newTwins(), newTwins()
			content.set("subnet", template("10.9.${it.key}.0/24"))
			dynamic.set("for_each", list(str(text("element")), number(7)))
			dynamic.set("iterator", twin{"it", "it"})
			dynamic.set("labels", list(template("d${it.key}")))
			dynamic.block(content, "content")
			b.block(dynamic, "dynamic", "link")
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "links") {
			link := newTwins()
			link.set("subnet", str(fmt.Sprintf("10.%d.0.0/24", i)))
			b.block(link, "link", fmt.Sprintf("l%d", i))
		}
	}, "c")
	add("node", func(b *twins) {
		b.set("provider", twin{"local", "local"})
		switch rapid.IntRange(0, 2).Draw(t, "nodes") {
		case 0:
			b.set("for_each", reference(t, `toset(["a", "b", "c"])`))
		case 1:
			b.set("for_each", mapping(map[string]twin{"a": str(text("a")), "b": str("b"), "c": number(3)}))
		case 2:
			b.set("for_each", expression(`{ for k in ["a", "b", "c"] : k => length(k) }`))
		}
		b.set("zone", template("z-${each.key}"))
		b.set("labels", mapping(map[string]twin{"t": str(text("label")), "v": expression("jsonencode(each.value)")}))
		b.set("capacity", mapping(map[string]twin{"cpu": number(4), "memory": str("8GiB")}))
	}, "n")
	groups := rapid.IntRange(1, 3).Draw(t, "groups")
	for g := range groups {
		add("group", func(b *twins) {
			each := yes("each")
			if each {
				b.set("for_each", reference(t, `toset(["p", "q"])`))
			}
			b.set("description", str(text("description")))
			if yes("owners") {
				b.set("preferred_owners", list(reference(t, `node.n["b"]`), reference(t, `node.n["a"]`)))
			} else {
				b.set("preferred_owners", reference(t, "values(node.n)"))
			}
			if g > 0 && yes("depends") {
				b.set("depends_on", reference(t, fmt.Sprintf("flatten([values({ x = group.g%d })])", g-1)))
			}
			if yes("failover") {
				failover := newTwins()
				failover.set("mode", str(rapid.SampledFrom([]string{"automatic", "manual", "none"}).Draw(t, "mode")))
				b.block(failover, "failover")
			}
			first, second := newTwins(), newTwins()
			first.set("command", list(str("/bin/echo"), str(text("argument")), template("${local.joined} ${node.n[\"a\"].zone}")))
			first.set("environment", mapping(map[string]twin{"A": number(1), "B": expression("local.pairs[\"a\"][1]"), "C": expression("var.m[\"y\"].text")}))
			if each {
				first.set("directory", template("/srv/${group_each.key}"))
			}
			second.set("command", list(expression("resource.first.command[0]")))
			second.set("depends_on", list(reference(t, "resource.first")))
			if yes("count") {
				second.set("count", number(rapid.IntRange(0, 2).Draw(t, "n")))
			}
			b.block(first, "resource", "generic_application", "first")
			b.block(second, "resource", "generic_application", "second")
		}, fmt.Sprintf("g%d", g))
	}
	add("output", func(b *twins) {
		b.set("value", mapping(map[string]twin{"text": str(text("output")), "zone": expression("node.n[\"c\"].zone"), "m": expression("nonsensitive(var.m)")}))
	}, "o")
	return root
}

// A definition is the same in native and in JSON syntax, whatever stands in it.
func TestJSONIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		both := drawDefinition(t)
		js, err := json.MarshalIndent(both.json, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		read := func(name, src string) (*Definition, string) {
			c, diags := Load(Options{FS: fstest.MapFS{name: {Data: []byte(src)}}, Providers: localProvider})
			d, more := c.Evaluate(nil)
			var text strings.Builder
			for _, diag := range append(diags, more...) {
				fmt.Fprintf(&text, "%s: %s\n", diag.Summary, diag.Detail)
			}
			return d, text.String()
		}
		one, diags := read("main.cluster.hcl", both.native.String())
		other, otherDiags := read("main.cluster.json", string(js))
		if strings.Contains(diags, "rror") || diags != otherDiags {
			t.Fatalf("native:\n%s\nJSON:\n%s\n%s\n%s", diags, otherDiags, both.native.String(), js)
		}
		if diff := cmp.Diff(dump(one), dump(other)); diff != "" {
			t.Fatalf("(-native, +JSON)\n%s\n%s\n%s", diff, both.native.String(), js)
		}
		if diff := cmp.Diff(one.Spec(), other.Spec(), cmp.AllowUnexported(addr.Key{})); diff != "" {
			t.Fatalf("(-native, +JSON)\n%s", diff)
		}
	})
}
