package lang

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zclconf/go-cty/cty"
)

// A number with a huge exponent is refused where it is read, or where a function
// or an operator would give it: as text it would fill the memory.
func TestHugeNumbers(t *testing.T) {
	const head = "node \"n\" {\n  provider = local\n}\ncluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nvariable \"n\" {\n  type    = number\n  default = 1\n}\nvariable \"s\" {\n  type = map(string)\n  default = {}\n}\nvariable \"l\" {\n  default = []\n}\n"
	const huge = "1e99999999"
	type files = map[string]string
	hcl := func(value string) files {
		return files{"main.cluster.hcl": head + "output \"o\" {\n  value = " + value + "\n}\n"}
	}
	with := func(name, text string) files { return files{"main.cluster.hcl": head, name: text} }
	for _, tc := range []struct {
		files files
		text  string // --var s=TEXT
		want  string // in the diagnostic; "": none
		line  int
	}{
		{files: hcl(`"${1e99999999}x"`), want: "This number is too large", line: 21},
		{files: hcl(`[1, -1.5E+99999999, 2]`), want: "This number is too large", line: 21},
		{files: hcl(`"x${length("a") + 1e-99999999}"`), want: "This number is too large", line: 21},
		{files: hcl(strings.Repeat("9", 400)), want: ""},
		{files: hcl(strings.Repeat("9", 3000)), want: "This number is too large", line: 21},
		{files: hcl(`node.n[1e99999999].zone`), want: "This number is too large", line: 21},
		{files: hcl(`"1e99999999 # 1e99999999" # 1e99999999`), want: ""},
		{files: hcl(`tostring(1e999)`), want: ""},
		{files: hcl(`1e999 * 1e999`), want: "number that is too large", line: 21},
		{files: hcl(`-"1e99999999"`), want: "number that is too large", line: 21},
		{files: hcl(`"1e99999999" % 3`), want: "number that is too large", line: 21},
		{files: hcl(`1 / 0`), want: "number that is too large", line: 21},
		{files: hcl(`pow(10, 999)`), want: "number that is too large", line: 21},
		{files: hcl(`tonumber("1e99999999")`), want: "number that is too large", line: 21},
		{files: hcl(`ceil("1e99999999")`), want: "number that is too large", line: 21},
		{files: hcl(`sum(["1e99999999"])`), want: "number that is too large", line: 21},
		{files: hcl(`parseint("` + strings.Repeat("z", 2000) + `", 36)`), want: "number that is too large", line: 21},
		{files: hcl(`jsondecode("{\"a\": [1e99999999]}")`), want: "number that is too large", line: 21},
		{files: hcl(`yamldecode("a: 1e99999999")`), want: "number that is too large", line: 21},
		{files: hcl(`yamldecode("1e99999999: 1")`), want: "has a key that is a number", line: 21},
		{files: hcl(`yamldecode("a: 'at 1e99999999'\n'12e45678': 1")`), want: ""},
		{files: hcl(`format("%d", "1e99999999")`), want: "number that is too large", line: 21},
		{files: hcl(`formatlist("%s %e", ["a"], ["1e99999999"])`), want: "number that is too large", line: 21},
		{files: hcl(`format("%s", "1e99999999")`), want: ""},
		{files: hcl(`format("%99999999d", 1)`), want: "has a width", line: 21},
		{files: hcl(`lookup(tomap({ a = 1 }), "b", "1e99999999")`), want: "number that is too large", line: 21},
		{files: hcl(`templatestring("$${1e99999999}x", {})`), want: "<template>:1: has a number that is too large", line: 21},
		{files: with("auto.vars.hcl", "n = 2\n\nl = ["+huge+"]"), want: "This number is too large", line: 3},
		{files: with("auto.vars.hcl", "n = \""+huge+"\""), want: "var.n has a number that is too large", line: 1},
		{files: with("b.cluster.json", "{\n  \"output\": {\"p\": {\"value\": [\"a\\\"1e99999999\", "+huge+"]}}}"), want: "This number is too large", line: 2},
		{files: with("b.cluster.json", "{\n  \"output\": {\"p\": {\"value\": \"${"+huge+"}x\"}}}"), want: "This number is too large", line: 2},
		{files: with("b.cluster.json", "{\n  \"output\": {\"p\": {\"value\": \""+huge+"\"}}}"), want: ""},
		{files: with("x.cluster.hcl", ""), text: "{ a = " + huge + " }", want: "This number is too large", line: 1},
		{files: with("x.cluster.hcl", ""), text: "{ a = \"" + huge + "\" }"},
	} {
		fsys := fstest.MapFS{}
		for name, src := range tc.files {
			fsys[name] = &fstest.MapFile{Data: []byte(src)}
		}
		o := Options{FS: fsys, Providers: localProvider}
		if tc.text != "" {
			o.Vars = []VarInput{{Name: "s", Text: tc.text}}
		}
		c, diags := Load(o)
		_, more := c.Evaluate(nil)
		all := append(diags, more...)
		var said []string
		found := tc.want == "" && !all.HasErrors()
		for _, d := range all {
			said = append(said, d.Error())
			if tc.want != "" && strings.Contains(d.Summary+": "+d.Detail, tc.want) && d.Subject != nil && d.Subject.Start.Line == tc.line {
				found = true
			}
		}
		if !found {
			t.Errorf("%s %s: %q, want %q at line %d", strings.ReplaceAll(fmt.Sprint(tc.files), head, ""), tc.text, said, tc.want, tc.line)
		}
	}
	// What a function does with marks, nulls and unknown values stays its own.
	f := functions(nil)["max"]
	v, err := f.Call([]cty.Value{cty.UnknownVal(cty.Number), cty.NumberIntVal(1).Mark("m")})
	if plain, marks := v.Unmark(); err != nil || len(marks) != 1 || plain.IsKnown() || plain.Range().CouldBeNull() {
		t.Errorf("max(unknown, marked) is %#v, %v", v, err)
	}
	if _, err := f.Call([]cty.Value{cty.NullVal(cty.Number)}); err == nil {
		t.Error("max(null) is something")
	}
}
