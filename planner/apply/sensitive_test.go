package apply_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
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

// The state has digests of secrets, in journal and snapshot, of whatever type they
// are and also where an apply was cut off. Plans tell by them what changed, and by
// whom; also where nobody answers.
func TestDigests(t *testing.T) {
	src := func(token, keep, command string) string {
		return threeNodes + `
variable "token" {
  default   = "` + token + `"
  sensitive = true
}
variable "keep" {
  default   = ` + keep + `
  sensitive = true
}
fence "power" {
  agent      = "fence_x"
  parameters = { ip = "10.0.0.1", password = var.token }
}
group "web" {
  resource "generic_application" "app" {
    command     = ["` + command + `", var.token]
    environment = { TOKEN = "t=${var.token}", LEVEL = "info" }
    log_keep    = var.keep
  }
}
output "token" {
  value     = var.token
  sensitive = true
}
`
	}
	l := newLab(t)
	none := func(when string, known statefile.State) {
		t.Helper()
		text, err := statefile.Marshal(&known)
		if err != nil {
			t.Fatal(err)
		}
		journal, err := json.Marshal(l.journal.entries)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hush", "987654321"} {
			if strings.Contains(string(text)+string(journal), secret) {
				t.Errorf("%s: the state tells %q:\n%s\n%s", when, secret, text, journal)
			}
		}
	}
	// paths are the attributes that a plan changes, with what is to blame.
	paths := func(when, token, keep, command, want string) {
		t.Helper()
		p := l.plan(l.load(src(token, keep, command)), "")
		var got []string
		for _, c := range p.Changes {
			for _, a := range c.Attributes {
				if !a.Sensitive && a.Path != "command[0]" {
					t.Errorf("%s: %s of %s is shown", when, a.Path, c.Address)
				}
				got = append(got, c.Address.Name+" "+a.Path+" "+a.Cause)
			}
		}
		if len(p.OutputChanges) > 0 {
			got = append(got, "output")
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %s", when, strings.Join(got, ", "))
		}
		if text, err := json.Marshal(p); err != nil || strings.Contains(string(text), "hush") || strings.Contains(string(text), "hmac") {
			t.Errorf("%s: the plan tells: %v\n%s", when, err, text)
		}
	}
	for cut := 1; cut < 40; cut += 3 { // cut off, and gone on from
		l.journal.killAt, l.journal.appends = cut, 0
		_, _, _ = l.apply(l.load(src("hush", "987654321", "run")), "")
		known, _ := l.current()
		none("cut off", known)
		l.journal.dead.Store(false)
		l.journal.killAt = 0
	}
	l.must(l.load(src("hush", "987654321", "run")), "")
	none("applied", l.state)
	l.settled(l.load(src("hush", "987654321", "run")))

	changed := "web command[1] definition, web environment[\"TOKEN\"] definition, web log_keep definition"
	paths("the same", "hush", "987654321", "run", "")
	paths("changed", "hush-2", "987654322", "run", `power parameters["password"] definition, `+changed+", output")
	for _, h := range l.world.Hosts {
		h.Hung = true
	}
	paths("nobody answers", "hush", "987654321", "run", "")
	paths("changed, and nobody answers", "hush-2", "987654322", "run", `power parameters["password"] definition, `+changed+", output")
	for _, h := range l.world.Hosts {
		h.Hung = false
	}

	for _, g := range l.world.Groups { // somebody else changed it
		attrs := g.Resources[0].Value.AsValueMap()
		attrs["log_keep"] = cty.NumberIntVal(5)
		attrs["environment"] = cty.MapVal(map[string]cty.Value{"TOKEN": cty.StringVal("other"), "LEVEL": cty.StringVal("info")})
		g.Resources[0].Value = cty.ObjectVal(attrs)
	}
	paths("drifted", "hush", "987654321", "run", `web environment["TOKEN"] drift, web log_keep drift`)
	p := l.plan(l.load(src("hush", "987654321", "run")), planner.ModeRefreshOnly)
	if text, err := json.Marshal(p); err != nil || strings.Contains(string(text), "other") || strings.Contains(string(text), "power") && changeOf(t, p, "fence.power").Action() != "no-op" {
		t.Errorf("refresh-only: %v\n%s", err, text)
	}
	l.must(l.load(src("hush", "987654321", "run")), "")
	l.settled(l.load(src("hush", "987654321", "run")))
	none("mended", l.state)

	// What was no secret becomes one, though its value stays: the state has to learn of it.
	plain := strings.ReplaceAll(src("hush", "987654321", "run"), "sensitive = true", "sensitive = false")
	l.must(l.load(plain), "")
	if app := l.state.Find(addr.Group("web", addr.NoKey).WithResource("app", addr.NoKey)); !strings.Contains(string(app.Attributes), "hush") {
		t.Error("what is no secret is one")
	}
	l.must(l.load(src("hush", "987654321", "run")), "")
	none("made secret", l.state)
	l.settled(l.load(src("hush", "987654321", "run")))

	// A rename is found though nobody knows the secrets of what is gone.
	moved := l.plan(l.load(strings.ReplaceAll(src("hush", "987654321", "run"), `group "web"`, `group "site"`)), "")
	if len(moved.SuggestedMoves) != 1 {
		t.Errorf("suggested: %v", moved.SuggestedMoves)
	}
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
}
