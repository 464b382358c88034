package lang

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
)

const varsMain = `
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n" {
  provider = local
  for_each = toset(["a", "b", "c"])
}
variable "who" {
  type    = string
  default = "default"
}
variable "list" {
  type    = list(string)
  default = []
}
variable "any" {
  default = null
}
variable "secret" {
  type      = string
  default   = ""
  sensitive = true
}
output "who" { value = var.who }
output "list" { value = join("+", var.list) }
output "any" { value = var.any }
`

func TestVariableSources(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		env   []string
		vars  []VarInput
		want  string // who list any, or the diagnostics
		errs  string
	}{
		{name: "defaults", want: "default/"},
		{name: "environment", env: []string{"CLUSTERPLAN_VAR_who=env", "CLUSTERPLAN_VAR_list=[\"a\",\"b\"]", "CLUSTERPLAN_VAR_unknown=1", "HOME=/"}, want: "env/a+b"},
		{name: "auto over environment", env: []string{"CLUSTERPLAN_VAR_who=env"}, files: map[string]string{"auto.vars.hcl": `who = "auto"`}, want: "auto/"},
		{name: "x.auto over auto", files: map[string]string{"auto.vars.hcl": `who = "auto"`, "x.auto.vars.hcl": `who = "x"`, "other.vars.hcl": `who = "not loaded"`}, want: "x/"},
		{name: "flags in order", files: map[string]string{"auto.vars.hcl": `who = "auto"`},
			vars: []VarInput{{Name: "who", Text: "flag"}, {File: "prod.vars.hcl", Src: []byte(`who = "file"` + "\n" + `list = ["x"]`)}, {Name: "list", Text: `["y"]`}}, want: "file/y"},
		{name: "text is literal for strings", vars: []VarInput{{Name: "who", Text: `"${quoted}"`}}, want: `"${quoted}"/`},
		{name: "a plan file's value", vars: []VarInput{{Name: "list", Value: cty.ListVal([]cty.Value{cty.StringVal("v")}), Source: "the plan file"}}, want: "default/v"},
		{name: "undeclared flag", vars: []VarInput{{Name: "whom", Text: "x"}}, errs: `--var gives a value to "whom", and the definition has no such variable. Did you mean who?`},
		{name: "undeclared in a file warns", files: map[string]string{"auto.vars.hcl": `whom = "x"`}, want: "default/", errs: "warning auto.vars.hcl:1,1-5: Undeclared variable"},
		{name: "Terraform's files", files: map[string]string{"terraform.tfvars": `who = "tf"`, "x.auto.tfvars.json": `{}`, "other.tfvars": ""}, want: "default/",
			errs: "warning: Values for Terraform are not read\n  Only Terraform reads terraform.tfvars, x.auto.tfvars.json by itself. Here auto.vars.hcl and *.auto.vars.hcl in"},
		{name: "Terraform's file beside its own", files: map[string]string{"terraform.tfvars": `who = "tf"`, "main.tf": ""}, want: "default/"},
		{name: "Terraform's file by its name", files: map[string]string{"terraform.tfvars": `who = "tf"`}, vars: []VarInput{{File: "/d/terraform.tfvars", Src: []byte(`who = "tf"`)}}, want: "tf/"},
		{name: "Terraform's environment", env: []string{"TF_VAR_who=env", "TF_VAR_whom=x"}, want: "default/",
			errs: "A value for Terraform is not read\n  var.who keeps its default, though TF_VAR_who is set: only Terraform reads that. The environment variable is CLUSTERPLAN_VAR_who here."},
		{name: "Terraform's environment alone", files: map[string]string{"v.cluster.hcl": `variable "must" {}`}, env: []string{"TF_VAR_must=x"},
			errs: "or the environment variable CLUSTERPLAN_VAR_must. TF_VAR_must is set, which only Terraform reads."},
		{name: "both environments", env: []string{"TF_VAR_who=env", "CLUSTERPLAN_VAR_who=own"}, want: "own/"},
		{name: "wrong type", vars: []VarInput{{Name: "list", Text: `{ a = 1 }`}}, errs: "The value from --var of var.list doesn't fit its type list(string)"},
		{name: "bad expression", vars: []VarInput{{Name: "list", Text: `[`}}, errs: "<--var list>"},
		{name: "reference in a file", files: map[string]string{"auto.vars.hcl": `who = var.list`}, errs: "auto.vars.hcl:1"},
		{name: "syntax in a file", vars: []VarInput{{File: "p.vars.hcl", Src: []byte("a {}")}}, errs: "p.vars.hcl:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fsys := fstest.MapFS{"main.cluster.hcl": {Data: []byte(varsMain)}}
			for name, src := range tc.files {
				fsys[name] = &fstest.MapFile{Data: []byte(src)}
			}
			c, diags := Load(Options{FS: fsys, Providers: localProvider, Env: tc.env, Vars: tc.vars})
			if got := render(diags); !strings.Contains(got, tc.errs) || tc.errs == "" && got != "" {
				t.Fatalf("diagnostics %q, want %q", got, tc.errs)
			}
			for _, d := range diags {
				if d.Subject != nil && c.Files()[d.Subject.Filename] == nil {
					t.Errorf("Files has no %s, which a diagnostic refers to", d.Subject.Filename)
				}
			}
			if tc.want == "" {
				return
			}
			d, diags := c.Evaluate(nil)
			if diags.HasErrors() {
				t.Fatal(render(diags))
			}
			var parts []string
			for _, o := range d.Outputs {
				if o.Name != "any" {
					parts = append([]string{o.Value.AsString()}, parts...)
				}
			}
			if got := strings.Join(parts, "/"); got != tc.want {
				t.Errorf("values %q, want %q", got, tc.want)
			}
		})
	}
}

// A sensitive value is marked wherever it goes, and shown in no diagnostic.
func TestSensitiveValues(t *testing.T) {
	c, diags := Load(Options{
		FS: fstest.MapFS{"main.cluster.hcl": {Data: []byte(varsMain + `
locals { url = "http://user:${var.secret}@host/" }
group "g" {
  stop_within = var.secret
  resource "generic_application" "app" {
    command     = ["app", local.url]
    environment = { PASSWORD = var.secret, PLAIN = "x" }
    stop_signal = var.secret
    log_keep    = var.secret
    is_alive {
      http = local.url
    }
  }
}
group "h" {
  demand = { cpu = var.secret }
}
group "i" {
  resource "generic_application" "app" {
    command = ["app"]
    is_alive {
      http = "${var.secret}${local.url}"
    }
  }
}
output "parsed" {
  value     = parseint(var.secret, 10)
  sensitive = true
}
output "leak" { value = local.url }
`)}},
		Providers: localProvider, Vars: []VarInput{{Name: "secret", Text: "hunter2"}},
	})
	d, more := c.Evaluate(nil)
	if got := render(append(diags, more...)); strings.Contains(got, "hunter2") || !strings.Contains(got, "Output of a sensitive value") || !strings.Contains(got, "Invalid value for stop_signal") || !strings.Contains(got, "Invalid URL") {
		t.Errorf("diagnostics:\n%s", got)
	}
	var buf strings.Builder
	if err := hcl.NewDiagnosticTextWriter(&buf, c.Files(), 0, false).WriteDiagnostics(append(diags, more...)); err != nil || strings.Contains(buf.String(), "hunter2") {
		t.Errorf("%v\n%s", err, buf.String())
	}
	for _, o := range d.Objects {
		if o.Addr.IsResource() && o.Addr.Name == "g" && (!schema.IsSensitive(o.Value) || strings.Contains(text(o.Value), "hunter2")) {
			t.Errorf("%s: %s", o.Addr, text(o.Value))
		}
	}
	for _, v := range d.Variables {
		if v.Name == "secret" && !v.Sensitive {
			t.Error("the variable isn't told to be sensitive")
		}
	}
}

func TestVersionConstraints(t *testing.T) {
	for _, tc := range []struct {
		version, constraint string
		want, bad           bool
	}{
		{"0.1.0", ">= 0.1.0", true, false}, {"0.1.0-dev", ">= 0.1", true, false}, {"0.0.9", ">= 0.1.0", false, false},
		{"1.2.3", ">= 1.0, < 2", true, false}, {"2.0.0", ">= 1.0, < 2", false, false}, {"1.2.3", "~> 1.2", true, false},
		{"1.3.0", "~> 1.2", true, false}, {"2.0.0", "~> 1.2", false, false}, {"1.3.0", "~> 1.2.0", false, false}, {"1.2.9", "~> 1.2.3", true, false},
		{"1.2.3", "1.2.3", true, false}, {"1.2.3", "!= 1.2.3", false, false}, {"1.2.3", "> 1.2.2", true, false}, {"1.2.3", "<= 1.2.3", true, false},
		{"1.2.3", "latest", false, true}, {"1.2.3", "=> 1.0", false, true}, {"", ">= 99", true, false},
	} {
		got, err := satisfies(tc.version, tc.constraint)
		if got != tc.want && !tc.bad || (err != nil) != tc.bad {
			t.Errorf("%q %q: %v, %v", tc.version, tc.constraint, got, err)
		}
	}
}

// A pipe is not read, whatever its name, nor what is a link to one: that would wait for whoever writes to it.
func TestPipes(t *testing.T) {
	for name, want := range map[string]string{
		"terraform.tfvars": "",
		"a.auto.vars.hcl":  "Can't read a vars file; conf/a.auto.vars.hcl: it is a pipe",
		"auto.vars.hcl":    "Can't read a vars file; conf/auto.vars.hcl: it is a pipe",
		"b.cluster.hcl":    "Can't read a file of the definition; conf/b.cluster.hcl: it is a pipe",
		"c.cluster.json":   "Can't read a file of the definition; conf/c.cluster.json: it is a pipe",
		"d.hcl":            "",
	} {
		for _, link := range []bool{false, true} {
			dir := t.TempDir()
			file := filepath.Join(dir, name)
			pipe := file
			if link {
				pipe = filepath.Join(dir, "pipe")
			}
			err := errors.Join(os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(varsMain), 0o600), syscall.Mkfifo(pipe, 0o600))
			if link {
				err = errors.Join(err, os.Symlink("pipe", file))
			}
			if err != nil {
				t.Fatal(err)
			}
			loaded := make(chan hcl.Diagnostics, 1)
			go func() {
				_, diags := Load(Options{FS: os.DirFS(dir), Dir: "conf", Providers: localProvider})
				loaded <- diags
			}()
			select {
			case diags := <-loaded:
				if got := fmt.Sprint(diags); want == "" && len(diags) > 0 || !strings.Contains(got, want) {
					t.Errorf("%s, a link %v: %s", name, link, got)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("%s, a link %v, is read", name, link)
			}
		}
	}
}
