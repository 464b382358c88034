package apply_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// What was sensitive when it was applied stays so in a plan, also where the same
// attribute has other sensitive elements by now; what stays as it was in the open
// is shown.
func TestOldSecretsStaySecret(t *testing.T) {
	src := func(command, environment string) string {
		return threeNodes + `
variable "secret" {
  default   = "hush-one"
  sensitive = true
}
group "web" {
  resource "generic_application" "app" {
    command     = ` + command + `
    environment = ` + environment + `
  }
}
`
	}
	l := newLab(t)
	l.must(l.load(src(`["run", "--key", var.secret, "-v", "-x"]`, `{ A = var.secret, B = "open", C = "plain" }`)), "")
	for _, next := range [][2]string{
		{`["run", "--key", "other", var.secret, "-x"]`, `{ B = sensitive("new"), C = "plain" }`},
		{`["run", "-v", "--key", "other", sensitive("new")]`, `{ A = "public", B = sensitive("open"), C = "plain" }`},
	} {
		p := l.plan(l.load(src(next[0], next[1])), "")
		text, err := json.Marshal(p)
		if err != nil || strings.Contains(string(text), "hush-one") {
			t.Errorf("%v: %v\n%s", next, err, text)
		}
		c := changeOf(t, p, "group.web.resource.app")
		before, _ := json.Marshal(c)
		if !strings.Contains(string(before), `"C":"plain"`) || c.Action() != "update" {
			t.Errorf("%v: %s", next, before)
		}
		if seen := c.Before.GetAttr("environment").AsValueMap()["C"]; seen.IsMarked() {
			t.Error("what is in the open, and stays, is hidden")
		}
	}
}

// ignore_changes keeps a secret as the secret that it was, whatever the
// definition has in its place.
func TestIgnoredSecretsStaySecret(t *testing.T) {
	src := func(value, ignored, delay string) string {
		return threeNodes + `
variable "secret" {
  default   = "hush-one"
  sensitive = true
}
group "web" {
  resource "generic_application" "app" {
    command     = ["run", "` + delay + `"]
    environment = { A = ` + value + `, C = "plain" }
    lifecycle {
      ignore_changes = [` + ignored + `]
    }
  }
}
`
	}
	for _, ignored := range []string{"environment", `environment["A"]`} {
		l := newLab(t)
		l.must(l.load(src("var.secret", ignored, "1")), "")
		for _, delay := range []string{"2", "3"} { // the state has to know it after the first, too
			def := l.load(src(`"public"`, ignored, delay))
			text, err := json.Marshal(l.plan(def, ""))
			if err != nil || strings.Contains(string(text), "hush-one") {
				t.Errorf("%s: %v\n%s", ignored, err, text)
			}
			l.must(def, "")
		}
	}
}
