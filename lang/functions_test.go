package lang

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

func TestFunctions(t *testing.T) {
	fsys := fstest.MapFS{
		"a.txt": {Data: []byte("text")}, "t.tmpl": {Data: []byte("hi ${name}${upper(\"!\")}")}, "d/b.txt": {Data: []byte("b")}, "d/e/c.txt": {Data: []byte("c")},
		"bin": {Data: []byte{0xff, 0}}, ".clusterplan/state": {Data: []byte("x")}, "loop.tmpl": {Data: []byte(`${templatefile("loop.tmpl", {})}`)},
	}
	ctx := &hcl.EvalContext{Functions: functions(fsys), Variables: map[string]cty.Value{}}
	exprs := map[string]string{
		`upper("a")`:    `"A"`,
		`length("häß")`: `3`, `length([1, 2])`: `2`, `length({ a = 1 })`: `1`,
		`join("-", [for i in range(3) : i])`: `"0-1-2"`,
		`regex("a(.)", "xab")[0]`:            `"b"`,
		`try(jsondecode("{"), "bad")`:        `"bad"`, `can(1 + "x")`: `false`,
		`lookup({ a = 1 }, "a")`: `1`, `lookup({ a = 1 }, "b", 2)`: `2`, `lookup({ a = 1 }, "b")`: `error: "b" is no key`,
		`index(["a", "b"], "b")`: `1`, `index(["a"], "b")`: `error: the list doesn't have the value`,
		`replace("a.b", ".", "-")`: `"a-b"`, `replace("a1", "/[0-9]/", "")`: `"a"`,
		`one([])`: `null`, `one([1])`: `1`, `one([1, 2])`: `error: more than one`,
		`log(-1, 2)`: `error: of -1 and 2 there is no result`, `log(0, 0)`: `error: no result`, `pow(-1, 0.5)`: `error: no result`,
		`sum([1, 2.5])`:         `3.5`,
		`alltrue([true, true])`: `true`, `alltrue([])`: `true`, `anytrue([])`: `false`, `anytrue([false, true])`: `true`,
		`coalesce("", "b")`: `"b"`, `coalesce(null, 2)`: `2`, `coalesce("", "")`: `error: neither null nor empty`,
		`startswith("ab", "a")`: `true`, `endswith("ab", "a")`: `false`, `strcontains("abc", "b")`: `true`,
		`base64decode(base64encode("häß"))`: `"häß"`, `base64decode("!")`: `error: is not base64`, `base64decode("/w==")`: `error: no text in UTF-8`,
		`sha256("")`:                `"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`,
		`base64sha256("")`:          `"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`,
		`yamldecode("a: [1]").a[0]`: `1`, `yamlencode({ a = 1 })`: `"\"a\": 1\n"`,
		`jsonencode({ a = [null, true] })`: `"{\"a\":[null,true]}"`,
		`urlencode("a b")`:                 `"a+b"`, `basename("x/y")`: `"y"`, `dirname("x/y")`: `"x"`,
		`file("a.txt")`: `"text"`, `file("./d/../a.txt")`: `"text"`, `file("../a.txt")`: `error: outside the definition's directory`, `file("/etc/passwd")`: `error: outside`,
		`file("none")`: `error: no file none`, `file("bin")`: `error: filebase64`, `filebase64("bin")`: `"/wA="`,
		`filesha256("a.txt")`: `"982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"`,
		`fileexists("a.txt")`: `true`, `fileexists("b.txt")`: `false`,
		`join(",", fileset(".", "*.txt"))`: `"a.txt"`, `join(",", fileset(".", "**/*.txt"))`: `"a.txt,d/b.txt,d/e/c.txt"`, `join(",", fileset("d", "*/*"))`: `"e/c.txt"`,
		`length(fileset(".", "**/state"))`: `0`, `fileset(".", "[")`: `error: no pattern`,
		`templatefile("t.tmpl", { name = "bob" })`: `"hi bob!"`, `templatefile("t.tmpl", {})`: `error: lacks "name"`, `templatefile("loop.tmpl", {})`: `error: no function named "templatefile"`,
		`cidrhost("10.0.0.0/24", 5)`: `"10.0.0.5"`, `cidrhost("10.0.0.77/24", -1)`: `"10.0.0.255"`, `cidrhost("fd00::/64", 16)`: `"fd00::10"`, `cidrhost("10.0.0.0/30", 4)`: `error: room for 4`,
		`cidrhost("10.0.0.0", 1)`:    `error: no address with a prefix length`,
		`cidrnetmask("10.0.0.0/20")`: `"255.255.240.0"`, `cidrnetmask("fd00::/64")`: `error: only IPv4`,
		`cidrsubnet("10.0.0.0/16", 8, 3)`: `"10.0.3.0/24"`, `cidrsubnet("fd00::/48", 16, 255)`: `"fd00:0:0:ff::/64"`, `cidrsubnet("10.0.0.0/30", 8, 0)`: `error: can't be extended`, `cidrsubnet("10.0.0.0/24", 1, 2)`: `error: 2 subnets`,
		`join(" ", cidrsubnets("10.0.0.0/8", 8, 9, 8))`: `"10.0.0.0/16 10.1.0.0/17 10.2.0.0/16"`, `cidrsubnets("10.0.0.0/31", 1, 1, 1)`: `error: no room`,
		`issensitive(sensitive("x"))`: `true`, `nonsensitive(sensitive("x"))`: `"x"`,

		`abs(-2)`: `2`, `ceil(1.2)`: `2`, `floor(-1.2)`: `-2`, `log(8, 2)`: `3`, `max(1, 3, 2)`: `3`, `min(4, 3, 5)`: `3`, `parseint("ff", 16)`: `255`, `pow(2, 5)`: `32`, `signum(-7)`: `-1`,
		`chomp("a\n")`: `"a"`, `format("%s-%03d", "a", 7)`: `"a-007"`, `join(",", formatlist("%s!", ["a", "b"]))`: `"a!,b!"`, `indent(2, "a\nb")`: `"a\n  b"`, `lower("AB")`: `"ab"`,
		`length(regexall("[a-z]", "a1b"))`: `2`, `length(regexall("x", "y"))`: `0`, `split(",", "a,b")[1]`: `"b"`, `strrev("abc")`: `"cba"`, `substr("hello", 1, 3)`: `"ell"`,
		`title("hello world")`: `"Hello World"`, `trim("?!a!?", "!?")`: `"a"`, `trimprefix("ab", "a")`: `"b"`, `trimspace(" a ")`: `"a"`, `trimsuffix("ab", "b")`: `"a"`,
		`length(chunklist([1, 2, 3], 2))`: `2`, `coalescelist([], ["a"])[0]`: `"a"`, `join("", compact(["a", "", "b"]))`: `"ab"`, `join("", concat(["a"], ["b"]))`: `"ab"`, `contains(["a"], "a")`: `true`,
		`length(distinct(["a", "a"]))`: `1`, `element(["a", "b"], 3)`: `"b"`, `length(flatten([[1], [2, [3]]]))`: `3`, `join("", keys({ b = 1, a = 2 }))`: `"ab"`, `merge({ a = 1 }, { a = 2 }).a`: `2`,
		`join("", reverse(["a", "b"]))`: `"ba"`, `length(setintersection(["a", "b"], ["b"]))`: `1`, `length(setproduct(["a", "b"], ["c", "d"]))`: `4`, `join("", setsubtract(["a", "b"], ["b"]))`: `"a"`,
		`length(setunion(["a"], ["b"]))`: `2`, `slice(["a", "b", "c"], 1, 2)[0]`: `"b"`, `join("", sort(["b", "a"]))`: `"ab"`, `values({ b = 1, a = 2 })[0]`: `2`, `zipmap(["a"], [1]).a`: `1`,
		`tobool("true")`: `true`, `tonumber("1.5")`: `1.5`, `tostring(1)`: `"1"`, `tostring(-7 + 2)`: `"-5"`, `tostring(0)`: `"0"`, `tostring(9223372036854775807 + 1)`: `"9223372036854775808"`, `tostring(1.5 + 1)`: `"2.5"`, `tostring(null)`: `null`, `tolist(["a", 1])[1]`: `"1"`, `tomap({ a = 1 }).a`: `1`, `length(toset(["a", "a"]))`: `1`, `tonumber("x")`: `error: cannot convert`,
		`csvdecode("a,b\n1,2")[0].b`: `"2"`, `jsondecode("{\"a\":1}").a`: `1`, `formatdate("YYYY", "2026-01-02T03:04:05Z")`: `"2026"`, `timeadd("2026-01-02T03:04:05Z", "1h")`: `"2026-01-02T04:04:05Z"`,
		`md5("")`: `"d41d8cd98f00b204e9800998ecf8427e"`, `sha1("")`: `"da39a3ee5e6b4b0d3255bfef95601890afd80709"`, `substr(sha512(""), 0, 8)`: `"cf83e135"`, `substr(base64sha512(""), 0, 8)`: `"z4PhNX7v"`,
		`filemd5("a.txt") == md5("text")`: `true`, `filesha1("a.txt") == sha1("text")`: `true`, `filesha512("a.txt") == sha512("text")`: `true`, `filebase64sha256("a.txt") == base64sha256("text")`: `true`,
		`filebase64sha512("a.txt") == base64sha512("text")`: `true`, `filemd5("none")`: `error: no file none`,
		`base64gunzip(base64gzip("häß"))`: `"häß"`, `base64gunzip("eA==")`: `error: not compressed by gzip`, `urldecode("a+b%21")`: `"a b!"`, `urldecode("%zz")`: `error: invalid URL escape`,
		`textencodebase64("Hä", "UTF-16LE")`: `"SADkAA=="`, `textdecodebase64("SADkAA==", "utf-16le")`: `"Hä"`, `textencodebase64("ä", "ISO-8859-1")`: `"5A=="`, `textdecodebase64("5A==", "windows-1252")`: `"ä"`,
		`textencodebase64("€", "ISO-8859-1")`: `error: the character set doesn't have`, `textencodebase64("a", "klingon")`: `error: no character set that is known`, `textdecodebase64("/w==", "UTF-8")`: `error: no text in this character set`,
		`uuidv5("dns", "www.example.com")`: `"2ed6657d-e927-568b-95e1-2665a8aea6a2"`, `uuidv5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com") == uuidv5("dns", "www.example.com")`: `true`, `uuidv5("x", "")`: `error: neither a UUID nor`,
		`join(",", matchkeys(["i1", "i2", "i3"], ["east", "west", "east"], ["east"]))`: `"i1,i3"`, `length(matchkeys(["a"], ["x"], ["y"]))`: `0`, `matchkeys(["a"], [], [])`: `error: as many keys as values`,
		`jsonencode(transpose({ a = ["1", "2"], b = ["2"] }))`: `"{\"1\":[\"a\"],\"2\":[\"a\",\"b\"]}"`, `length(transpose({}))`: `0`,
		`timecmp("2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00")`: `0`, `timecmp("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")`: `-1`, `timecmp("now", "now")`: `error: is no time`,
		`templatestring("hi $${name}", { name = "bob" })`: `"hi bob"`, `templatestring("$${x}", {})`: `error: lacks "x"`,

		`timestamp()`: `error: give the time with a variable`, `uuid()`: `error: use uuidv5`, `plantimestamp()`: `error: another one in every plan`, `rsadecrypt("x", "y")`: `error: sensitive variable`, `bcrypt("x", 4)`: `error: give the hash with a variable`,
		`abspath(".")`: `error: relative to its directory`, `pathexpand("~")`: `error: give the path with a variable`, `list(1)`: `error: tolist`, `map("a", 1)`: `error: tomap`,
	}
	for name := range ctx.Functions { // each of them is called
		called := false
		for expr := range exprs {
			called = called || strings.Contains(" "+strings.NewReplacer("(", " ", "[", " ").Replace(expr), " "+name+" ")
		}
		if !called {
			t.Errorf("no expression calls %s", name)
		}
	}
	for expr, want := range exprs {
		e, diags := hclsyntax.ParseExpression([]byte(expr), "t", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%s: %s", expr, diags)
		}
		v, diags := e.Value(ctx)
		got := ""
		if diags.HasErrors() {
			got = "error: " + diags.Error()
		} else {
			got = text(v)
		}
		if want, isErr := strings.CutPrefix(want, "error: "); isErr && strings.HasPrefix(got, "error: ") && strings.Contains(got, want) {
			continue
		}
		if got != want {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, tc := range []struct {
		name, known, want string
	}{
		{"adress", "address zone", "address"}, {"n4", "n1 n2", "n1"}, {"x", "abc", ""}, {"quorom", "quorum", "quorum"},
		{"completely", "different", ""}, {"", "a", "a"}, {"same", "same", "same"},
	} {
		if got := nearest(tc.name, strings.Fields(tc.known)); got != tc.want {
			t.Errorf("nearest to %q of %s: %q, want %q", tc.name, tc.known, got, tc.want)
		}
	}
}

func TestFormat(t *testing.T) {
	src := "cluster   \"c\" {\n# note\nquorum {\nmodel=\"single_node\"\n  }\ndescription    = \"x\"\n}\n"
	want := "cluster \"c\" {\n  # note\n  quorum {\n    model = \"single_node\"\n  }\n  description = \"x\"\n}\n"
	got, diags := Format([]byte(src), "main.cluster.hcl")
	if string(got) != want || diags.HasErrors() {
		t.Errorf("%s\n%s", got, diags)
	}
	bad := "cluster {"
	if got, diags := Format([]byte(bad), "main.cluster.hcl"); string(got) != bad || !diags.HasErrors() {
		t.Errorf("a file that doesn't parse: %q, %v", got, diags)
	}
	for name, want := range map[string]bool{"main.cluster.hcl": true, "auto.vars.hcl": true, "x.vars.hcl": true, "main.cluster.json": false, "main.tf": false, ".cluster.hcl": false} {
		if Formattable(name) != want {
			t.Errorf("Formattable(%q) is %v", name, !want)
		}
	}
}

func FuzzFormat(f *testing.F) {
	for _, s := range []string{"a=1\n", "a {\nb=[1,\n2]\n}", "x = <<E\n a\nE\n", "a=\"${ b }\"#c\n\n\n\nd=1", large(100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		once, diags := Format(src, "f.cluster.hcl")
		if diags.HasErrors() {
			return
		}
		twice, diags := Format(once, "f.cluster.hcl")
		if diags.HasErrors() || string(twice) != string(once) {
			t.Fatalf("formatting twice differs:\n%q\n%q\n%s", once, twice, diags)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(large(100)), false)
	f.Add([]byte(varsMain), false)
	f.Add([]byte(`{"cluster": {"c": {"quorum": {"model": "single_node"}}}, "node": {"n": {"provider": "local"}}, "group": {"g": {"depends_on": ["group.g"]}}}`), true)
	f.Add([]byte(`{"cluster": {"c": {"quorum": {"model": "single_node"}, "dynamic": {"link": {"for_each": {"a": "10.0.0.0/24"}, "iterator": "it", "labels": ["${it.key}"], "content": {"subnet": "${it.value}"}}}}}, "node": {"n": {"provider": "local", "for_each": "var.x"}}, "variable": {"x": {"type": "map(string)", "default": {"a": "${b}"}}}}`), true)
	f.Add([]byte("cluster \"c\" {\n dynamic \"heartbeat\" {\n for_each = [node.n]\n content {\n dynamic \"probe\" {\n for_each = heartbeat.value[*].zone\n iterator = it\n content {\n count = it.key\n}\n}\n}\n}\n}\nnode \"n\" {\n provider = local\n}\n"), false)
	f.Add([]byte("locals {\n a = local.b\n b = [for x in local.a : node.n[x]]\n}\nnode \"n\" {\n provider = local\n for_each = local.a\n}\n"), false)
	f.Add([]byte("locals {\n a = \"${1e99999999}x\"\n b = tostring(\"1e99999999\" * 1)\n}\n"), false)
	f.Add([]byte("locals {\n a = { for k, v in node.n : k => length(values(v)) }\n}\nnode \"n\" {\n provider = local\n zone = join(\"-\", keys(merge(local.a, { b = 1 + 2 })))\n}\n"), false)
	f.Add([]byte(`{"locals": {"a": "${[for k in keys(node.n): k]}", "b": "%{for v in local.a}${v}%{endfor}"}, "node": {"n": {"provider": "local"}}}`), true)
	f.Add([]byte(`{"locals": {"a": 1e99999999, "b": "${1e-99999999}x"}}`), true)
	f.Add([]byte("group \"g\" {\n count = 2\n resource \"ip_address\" \"a\" {\n for_each = group_each\n address = resource.a[each.key].address\n depends_on = resource.a\n}\n}\n"), false)
	f.Add([]byte("cluster \"c\" {\n quorum { model = \"single_node\" }\n}\nnode \"n\" {\n provider = local\n lifecycle {\n postcondition {\n condition = self.state == self[\"zone\"]\n error_message = self.endpoint\n}\n}\n}\n"+
		"check \"c\" {\n assert {\n condition = [for n in [node.n] : n.state][0] == \"up\"\n error_message = node.n.state\n}\n}\noutput \"o\" {\n value = node.n\n depends_on = [node.n]\n}\n"), false)
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		if strings.Contains(string(src), "count") && len(src) > 200 || strings.Contains(string(src), "range") {
			return // a million instances are no finding
		}
		name := "main.cluster.hcl"
		if isJSON {
			name = "main.cluster.json"
		}
		c, diags := Load(Options{FS: fstest.MapFS{name: {Data: src}}, Providers: localProvider})
		d, more := c.Evaluate(nil)
		if !diags.HasErrors() && !more.HasErrors() {
			v := View{Known: allKnown, Live: func(addr.Address, string) (string, bool) { return "up", true }}
			d.Checks(v)
			for _, o := range d.Objects {
				d.Conditions(o.Addr, Precondition, v)
				d.Conditions(o.Addr, Postcondition, v)
				if _, diags := d.Resolve(o.Addr, allKnown); diags.HasErrors() {
					_ = fmt.Sprint(diags) // an apply may learn something that doesn't fit
				}
			}
		}
	})
}
