package apply_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/statefile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, p *planner.Plan) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (-update writes it anew):\n%s", file, diff)
	}
}

// The JSON of plans, byte for byte.
func TestPlanJSON(t *testing.T) {
	const small = threeNodes + `
variable "token" {
  type      = string
  default   = "s3cret"
  sensitive = true
}
group "web" {
  preferred_owners = [node.n1, node.n2]
  resource "ip_address" "vip" { address = "127.0.0.9" }
  resource "generic_application" "app" {
    command     = ["serve", node.n1.endpoint]
    environment = { TOKEN = var.token }
    depends_on  = [resource.vip]
  }
}
output "where" { value = node.n1.endpoint }
`
	l := newLab(t)
	l.conf = func(c *apply.Config) { c.Parallelism = 1 } // the same ids each time
	def := l.load(small)
	first := l.plan(def, "")
	golden(t, "first", first)
	if text, _ := json.Marshal(first); strings.Contains(string(text), "s3cret") {
		t.Error("the plan tells a sensitive value")
	}
	if again, _ := json.Marshal(l.plan(l.load(small), "")); !bytes.Equal(again, mustJSON(t, first)) {
		t.Error("the same inputs gave another plan")
	}
	l.must(def, "")
	def = l.load(small) // what nodes are known for by now
	l.settled(def)
	if app := l.state.Find(addr.Group("web", addr.NoKey).WithResource("app", addr.NoKey)); app == nil || !slices.Equal(app.Sensitive, []string{"environment"}) {
		t.Errorf("the state does not say what is sensitive: %+v", app)
	}

	// Everything at once: a change, drift, an operator's orders, a stranger's
	// group, a node more and one less, a new program.
	for id, m := range l.world.Members {
		switch m.Spec.Name {
		case "n1":
			l.world.Leader = id
		case "n2":
			m.Paused = plannertest.Order("eve", "disk swap")
		}
	}
	for _, g := range l.world.Groups {
		g.Want, g.WantBy = spec.WantOffline, plannertest.Order("adam", "maintenance")
		attrs := g.Value.AsValueMap()
		attrs["description"] = cty.StringVal("edited by hand")
		g.Value = cty.ObjectVal(attrs)
	}
	l.world.Program = "p2"
	changed := strings.NewReplacer(`node "n3" { provider = local }`, "node \"n4\" {\n  provider = local\n  zone     = \"z\"\n}",
		`["serve", node.n1.endpoint]`, `["serve", node.n1.endpoint, "--fast"]`).Replace(small)
	golden(t, "change", l.plan(l.load(changed), ""))

	// No quorum: what could be seen, as of which revision.
	for id, m := range l.world.Members {
		if m.Spec.Name != "n1" {
			l.world.Hosts[id].Running = false
		}
	}
	l.world.Program = "p1"
	golden(t, "no_quorum", l.plan(def, ""))
	golden(t, "destroy", l.plan(nil, planner.ModeDestroy))
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every reason that a plan gives is in the documentation's list.
func TestReasonsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/planner.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../plan.go")
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`Reason\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(reasons) < 8 {
		t.Fatalf("found %d reasons", len(reasons))
	}
	for _, r := range reasons {
		if !strings.Contains(string(doc), "`"+r[1]+"`") {
			t.Errorf("docs/planner.md does not tell of %s", r[1])
		}
	}
}

// A plan knows which failover times it changes, and what they were.
func TestFailoverTimesSinceBefore(t *testing.T) {
	l := newLab(t)
	def := l.load(threeNodes + twoGroups)
	first := l.plan(def, "")
	for _, f := range first.FailoverTimes {
		if f.Same || f.BeforeMS != nil {
			t.Errorf("%s had a time before there was a cluster: %+v", f.Group, f)
		}
	}
	l.must(def, "")
	for _, f := range l.plan(def, "").FailoverTimes {
		if !f.Same || f.BeforeMS == nil || *f.BeforeMS != f.WorstMS {
			t.Errorf("%s is not as before, where nothing changes: %+v", f.Group, f)
		}
	}
	slower := l.load(threeNodes + strings.Replace(twoGroups, "depends_on = [group.web]\n", "depends_on = [group.web]\n  stop_within = \"2s\"\n", 1))
	got := l.plan(slower, "").FailoverTimes
	if len(got) != 2 || !got[0].Same || got[1].Same || got[1].BeforeMS == nil || *got[1].BeforeMS != first.FailoverTimes[1].WorstMS || got[1].WorstMS <= *got[1].BeforeMS {
		t.Errorf("before %+v, then %+v", first.FailoverTimes, got)
	}
}

// A state may be anybody's. An output that nobody could have written is one that is
// not known: the plan says that it changes, and neither panics nor writes out a
// number of a billion digits.
func TestOutputsThatNobodyWrote(t *testing.T) {
	for _, o := range []statefile.Output{
		{Type: json.RawMessage(`["object",{},["x"]]`), Value: json.RawMessage(`{}`)},
		{Type: json.RawMessage(`"number"`), Value: json.RawMessage(`1e1000000000`)},
		{Type: json.RawMessage(`7`), Value: json.RawMessage(`"127.0.0.9"`)},
		{},
	} {
		l := newLab(t)
		def := l.load(threeNodes + twoGroups)
		l.must(def, "")
		l.state.Outputs["where"] = o
		p := l.plan(def, "")
		text, err := json.Marshal(p)
		if _, changes := p.OutputChanges["where"]; err != nil || !changes || len(text) > 1<<20 {
			t.Errorf("%s: %v, %d bytes, %v", o.Type, p.OutputChanges, len(text), err)
		}
	}
}
