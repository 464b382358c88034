package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers/local"
)

// three is a definition for tests.
const three = `
variable "victim" {
  default = "a"
}
variable "secret" {
  default   = "5s"
  sensitive = true
}
locals {
  soon = "2s"
}
cluster "c" {
  quorum {
    model = "majority_node_set"
  }
}
node "n" {
  provider = local
  for_each = { a = "east", b = "west", c = "west" }
  zone     = each.value
}
group "sql" {
  preferred_owners = [node.n["a"], node.n["b"]]
  resource "generic_application" "app" {
    command = ["sleep", "1000"]
  }
}
group "web" {
  preferred_owners = [node.n["b"]]
  depends_on       = [group.sql]
  resource "generic_application" "app" {
    command = ["sleep", "1000"]
  }
}
`

func define(t testing.TB, files map[string]string) *lang.Definition {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return load(t, lang.Options{FS: fsys})
}

func load(t testing.TB, o lang.Options) *lang.Definition {
	t.Helper()
	o.Providers, o.Version = map[string]spec.Schema{local.Name: local.New().Schema().Config}, "0.1.0"
	c, diags := lang.Load(o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d, diags := c.Evaluate(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return d
}

func run(t testing.TB, def *lang.Definition, src string) *Results {
	t.Helper()
	list, _, diags := Parse([]byte(src), "t.scenario.hcl", def)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	var out []Result
	for i := range list {
		r, err := Run(context.Background(), def.Spec(), &list[i])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return NewResults("c", out)
}

// Every kind of step does what it says, as the expectations around it show.
func TestSteps(t *testing.T) {
	r := run(t, define(t, map[string]string{"main.cluster.hcl": three}), `
scenario "all kinds" {
  seed  = 7
  clock = "2026-03-01T21:59:00Z"
  step "lose" {
    lose = node.n[var.victim]
    expect {
      quorum = true
    }
    expect {
      groups       = [group.sql, group.web]
      owner        = [node.n["b"], node.n["c"]]
      not_on       = [zone.east]
      state        = "online"
      max_downtime = "1s"
    }
  }
  step { start = [node.n["a"]] }
  step "move" {
    move {
      group = group.sql
      to    = node.n["c"]
    }
    expect {
      group        = group.sql
      owner        = node.n["c"]
      max_downtime = "500ms"
    }
  }
  step "a hung host" {
    hang = [node.n["c"]]
    expect {
      group  = group.sql
      not_on = node.n["c"]
      state  = "online"
    }
  }
  step { heal = [node.n["c"]] }
  step "the links between two" {
    cut  = [node.n["a"], node.n["c"]]
    wait = local.soon
  }
  step { heal = true }
  step "agents killed: no quorum, and the lease ends what runs" {
    kill = [node.n["a"], zone.west]
    expect { quorum = false }
    expect {
      groups = [group.sql, group.web]
      owner  = null
    }
  }
  step "orders need a quorum" {
    offline = [group.web]
    expect { refused = true }
  }
  step {
    start = node.n
    wait  = "20s"
    expect {
      groups = [group.sql, group.web]
      state  = "online"
    }
  }
  step "offline" {
    offline = [group.web]
    expect {
      group = group.web
      state = "offline"
      owner = null
    }
  }
  step {
    online = [group.web]
    expect {
      group = group.web
      state = "online"
    }
  }
  step "drained, and alone" {
    drain = [node.n["b"]]
    expect {
      group  = group.web
      not_on = [node.n["b"]]
    }
  }
  step { resume = [node.n["b"]] }
  step { pause = [node.n["b"]] }
  step "cut off together, they are the majority" {
    isolate = zone.west
    expect { quorum = true }
  }
}
`)
	if r.Summary.Passed != 1 {
		text, _ := json.MarshalIndent(r, "", " ")
		t.Errorf("%s", text)
	}
}

// Failed expectations are told with their lines, in the results and in JUnit's
// file, and the same run gives the same bytes.
func TestFailures(t *testing.T) {
	def := define(t, map[string]string{"main.cluster.hcl": three})
	const src = `scenario "wrong" {
  step "a is lost" {
    lose = [node.n["a"]]
    expect {
      quorum = false
    }
    expect {
      group        = group.sql
      owner        = node.n["a"]
      not_on       = [node.n["b"]]
      max_downtime = "1ms"
    }
  }
  step "refused" {
    move {
      group = group.sql
      to    = node.n["a"]
    }
  }
}
scenario "right" {
  step { wait = "1s" }
}
`
	r := run(t, def, src)
	var got []string
	for _, s := range r.Scenarios[0].Steps {
		for _, f := range s.Failures {
			got = append(got, fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Message))
		}
	}
	down := r.Scenarios[0].Steps[0].Groups[0].DownMS
	want := []string{
		"t.scenario.hcl:5: the cluster has a quorum, and no quorum was expected",
		`t.scenario.hcl:9: group.sql is on node.n["b"], and node.n["a"] was expected`,
		`t.scenario.hcl:10: group.sql is on node.n["b"], where it was not to be`,
		fmt.Sprintf("t.scenario.hcl:11: group.sql was down for %d ms; 1ms at most was expected", down),
		`t.scenario.hcl:15: move group.sql to node.n["a"] was refused: node n-a is not up`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if down < 500 || down > 900 {
		t.Errorf("down for %d ms", down)
	}
	first, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(run(t, def, src)); !bytes.Equal(first, again) {
		t.Errorf("another result:\n%s\n%s", first, again)
	}
	if err := jsonschematest.Check([]string{"scenarios"}, first); err != nil {
		t.Error(err)
	}
	text, err := r.JUnit()
	if err != nil {
		t.Fatal(err)
	}
	var suites struct {
		Tests, Failures int `xml:",attr"`
		Suites          []struct {
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Line    int     `xml:"line,attr"`
				Time    float64 `xml:"time,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	cases := suites.Suites[0].Cases
	if len(cases) != 2 || cases[0].Name != "wrong" || cases[0].Line != 5 || cases[0].Failure == nil || cases[0].Failure.Message != want[0] ||
		strings.Count(cases[0].Failure.Text, "\n") != 5 || cases[1].Failure != nil || cases[1].Time != 1 {
		t.Errorf("%+v\n%s", cases, text)
	}
}

// All that is wrong with a file is told at once, with its place and what is near.
func TestErrors(t *testing.T) {
	_, _, diags := Parse([]byte(`scenario "one" {
  sed = 1
  step "a" {
    loose = [node.n["a"]]
  }
  step "b" {
    lose = [node.n["d"], node.m, zone.wets, device, group.sql, "a"]
  }
  step "c" {
    lose  = [node.n["a"]]
    start = [node.n["a"]]
  }
  step "d" {
    wait = "5 s"
    expect {
      owner = node.n["a"]
    }
    expect {
      group = group.sql
      state = "onlin"
    }
    expect {
      group = group.sq
      owner = node.n["a"]
    }
    expect {}
  }
  step "e" {}
  step "f" {
    wait = var.secret
  }
  step "g" {
    lose = [for n in node.n : n]
  }
  step "h" {
    wait = join("", ["1", "s"])
  }
  step "i" {
    wait = "24h"
  }
  step "j" {
    wait = "1s"
    expect {
      refused = true
    }
  }
  setp "k" {}
  step "l" {
    cut = [node.n["a"]]
  }
}
scenario "one" {
  clock = "21:55"
}
`), "t.scenario.hcl", define(t, map[string]string{"main.cluster.hcl": three}))
	var got []string
	for _, d := range diags {
		got = append(got, fmt.Sprintf("%d: %s: %s", d.Subject.Start.Line, d.Summary, d.Detail))
	}
	file := filepath.Join("testdata", "errors.txt")
	text := strings.Join(got, "\n") + "\n"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Error(diff)
	}
}

// A group goes home in its window, and not before, by the scenario's clock.
func TestClock(t *testing.T) {
	src := strings.Replace(three, `preferred_owners = [node.n["a"], node.n["b"]]`, `preferred_owners = [node.n["a"], node.n["b"]]
  failback {
    mode   = "window"
    window = "22:00-04:00"
  }`, 1)
	r := run(t, define(t, map[string]string{"main.cluster.hcl": src}), `
scenario "home at night" {
  clock = "2026-03-01T21:59:00Z"
  step { lose = [node.n["a"]] }
  step {
    start = [node.n["a"]]
    wait  = "50s"
    expect {
      group = group.sql
      owner = node.n["b"]
    }
  }
  step {
    wait = "15s"
    expect {
      group = group.sql
      owner = node.n["a"]
    }
  }
}
`)
	if r.Summary.Passed != 1 {
		text, _ := json.MarshalIndent(r, "", " ")
		t.Errorf("%s", text)
	}
}

// The scenarios of the examples pass, as their READMEs say.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../examples/*/*" + Suffix)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios among the examples: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(filepath.Dir(f)), func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			r := run(t, load(t, lang.Options{FS: os.DirFS(filepath.Dir(f))}), string(src))
			if r.Summary.Failed > 0 {
				text, _ := json.MarshalIndent(r, "", " ")
				t.Errorf("%s", text)
			}
		})
	}
}

// What could exhaust the parser, or take for ever, is refused.
func TestBounds(t *testing.T) {
	def := define(t, map[string]string{"main.cluster.hcl": three})
	for name, src := range map[string]string{
		"brackets":  "x = " + strings.Repeat("(", 100_000),
		"templates": "x = " + strings.Repeat(`"${`, 50_000),
		"operators": "x = " + strings.Repeat("!", 100_000) + "true",
		"ternaries": "x = " + strings.Repeat("a ? b : ", 20_000) + "c",
		"numbers":   "scenario \"${1e999999999}\" {}",
		"blocks":    strings.Repeat("a {\n", 50_000),
		"size":      strings.Repeat("#", MaxSize+1),
		"wait":      "scenario \"a\" {\n step {\n wait = \"720h\"\n }\n}\n",
		"waits":     "scenario \"a\" {\n" + strings.Repeat("step {\n wait = \"1h\"\n }\n", 25) + "}\n",
		"steps":     "scenario \"a\" {\n" + strings.Repeat("step {\n wait = \"0s\"\n }\n", MaxSteps+1) + "}\n",
	} {
		begun := time.Now()
		if _, _, diags := Parse([]byte(src), "t", def); !diags.HasErrors() {
			t.Errorf("%s: taken", name)
		} else if len(diags) > 20 {
			t.Errorf("%s: %d errors", name, len(diags))
		}
		t.Logf("%s: %v", name, time.Since(begun))
	}
}

func FuzzParse(f *testing.F) {
	def := define(f, map[string]string{"main.cluster.hcl": three})
	f.Fuzz(func(t *testing.T, src string) {
		list, _, diags := Parse([]byte(src), "t", def)
		if (list == nil) != diags.HasErrors() {
			t.Fatalf("%d scenarios, and %v", len(list), diags)
		}
		for _, d := range diags {
			if d.Subject == nil || d.Summary == "" || d.Detail == "" {
				t.Errorf("%+v says too little", d)
			}
		}
		// What is short is carried out as well: no step of it may panic.
		if len(list) != 1 || len(list[0].Steps) > 6 {
			return
		}
		waits := time.Duration(0)
		for _, s := range list[0].Steps {
			if s.Wait != nil {
				waits += *s.Wait
			}
		}
		if waits > 20*time.Second {
			return
		}
		r, err := Run(context.Background(), def.Spec(), &list[0])
		if err != nil || r.Error != "" {
			t.Errorf("%v %s", err, r.Error)
		}
		if _, err := NewResults("c", []Result{r}).JUnit(); err != nil {
			t.Error(err)
		}
	})
}
