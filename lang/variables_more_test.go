package lang

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/zclconf/go-cty/cty"
)

const typedVariables = `
variable "pin" {
  type      = number
  sensitive = true
  default   = 1
}
variable "account" {
  type = object({ user = string, port = optional(number, 22), groups = optional(list(string)), more = optional(object({ on = optional(bool, true) }), {}) })
  default   = { user = "operator" }
  sensitive = true
  nullable  = false

  validation {
    condition     = length(var.account.user) > 3
    error_message = "A user's name has four letters or more."
  }
  validation {
    condition     = var.account.port > 0 && var.account.port < local.ports
    error_message = "Port ${var.account.port} is none."
  }
}
variable "any" {
  default = null
}
locals {
  ports = 65536
}
cluster "c" {
  quorum {
    model = "single_node"
  }
}
node "n" {
  provider = local
}
`

// What a value lacks is filled in, each validation is looked at, and nothing of
// a sensitive value is shown, wherever it comes from and whatever is wrong with it.
func TestValuesOfVariables(t *testing.T) {
	for _, tc := range []struct {
		text, file string // --var account=TEXT, or a vars file
		want       string // of account; or
		errs       []string
	}{
		{want: `{more:{on:true} port:22 user:"operator"}`},
		{text: `{ user = "root", groups = ["a"], more = { on = false } }`, want: `{groups:["a"] more:{on:false} port:22 user:"root"}`},
		{file: `account = { user = "root", port = null }`, want: `{more:{on:true} port:22 user:"root"}`},
		{text: `{ user = "abc", port = 70000 }`, errs: []string{"A user's name has four letters or more.", "The error message has a sensitive value"}},
		{text: `null`, errs: []string{"var.account is null, which its nullable = false excludes"}},
		{text: `{ port = 1 }`, errs: []string{`attribute "user" is required`}},
		{text: `{ user = "hunter2", groups = { a = "hunter2" } }`, errs: []string{`attribute "groups": list of string required`}},
		{text: `{ user = "hunter2" port }`, errs: []string{"so it isn't shown"}},
		{text: `upper("hunter2")`, errs: []string{"so it isn't shown"}},
		{file: `account = { user = hunter2 }`, errs: []string{"vars file auto.vars.hcl of var.account is no expression"}},
		{file: "pin = \"hunter2\"", errs: []string{"var.pin doesn't fit its type number"}},
		{file: "any = 1\naccount = { user = \"root\" }\nport = 3", errs: []string{`gives a value to "port"`}},
	} {
		files := map[string]string{"main.cluster.hcl": typedVariables}
		if tc.file != "" {
			files["auto.vars.hcl"] = tc.file
		}
		fsys := fstest.MapFS{}
		for name, src := range files {
			fsys[name] = &fstest.MapFile{Data: []byte(src)}
		}
		o := Options{FS: fsys, Providers: localProvider}
		if tc.text != "" {
			o.Vars = []VarInput{{Name: "account", Text: tc.text, Source: "--var"}}
		}
		c, diags := Load(o)
		_, more := c.Evaluate(nil)
		got := render(append(diags, more...))
		for _, want := range tc.errs {
			if !strings.Contains(got, want) {
				t.Errorf("%s%s: no %q in\n%s", tc.text, tc.file, want, got)
			}
		}
		if tc.want != "" && got != "" {
			t.Errorf("%s%s:\n%s", tc.text, tc.file, got)
		}
		for _, d := range append(diags, more...) {
			shown := d.Summary + d.Detail
			if f := c.Files()[d.Subject.Filename]; f != nil { // the lines that are shown with it
				lines := strings.Split(string(f.Bytes), "\n")
				shown += strings.Join(lines[d.Subject.Start.Line-1:min(len(lines), d.Subject.End.Line)], "\n")
			}
			if strings.Contains(shown, "hunter2") {
				t.Errorf("%s%s: the value is shown: %s", tc.text, tc.file, shown)
			}
		}
		for _, v := range c.Variables() {
			if v.Name == "account" && tc.want != "" && text(v.Value) != tc.want {
				t.Errorf("%s%s is %s, want %s", tc.text, tc.file, text(v.Value), tc.want)
			}
		}
	}
}

// Whatever stands in a vars file, it is told or taken.
func FuzzVarsFile(f *testing.F) {
	for _, src := range []string{"", "pin = 2", "account = { user = \"root\", groups = [\"a\"] }", "account = null\nany = [1, { a = null }]", "pin = \"${1 + 1}\"", "block {\n}", "any = <<E\nx\nE\n", "pin = 1e400\nany = -1e999999", "any = \"${1e99999999}x\"", "pin = \"1e99999999\"", "any = 1e999 * 1e999", "account = { user = file(\"x\") }"} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		c, diags := Load(Options{FS: fstest.MapFS{"main.cluster.hcl": {Data: []byte(typedVariables)}, "a.auto.vars.hcl": {Data: src}}, Providers: localProvider})
		_, more := c.Evaluate(nil)
		if diags.HasErrors() || more.HasErrors() {
			return
		}
		for _, v := range c.Variables() {
			if !v.Value.IsWhollyKnown() || v.Name == "pin" && v.Value.Type() != cty.Number {
				t.Errorf("var.%s is %#v", v.Name, v.Value)
			}
		}
	})
}
