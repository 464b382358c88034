package jsonschematest_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/docs/schemas"
	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/scenario"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// What Go writes and what the schemas declare is the same, also in fields that no
// test's document has.
func TestStructs(t *testing.T) {
	for _, c := range []struct {
		schema string
		typ    reflect.Type
		at     []string
	}{
		{"plan", reflect.TypeFor[planner.Plan](), nil},
		{"simulate", reflect.TypeFor[planner.Simulation](), nil},
		{"scenarios", reflect.TypeFor[scenario.Results](), nil},
		{"validate", reflect.TypeFor[planner.Diagnostic](), []string{"properties", "diagnostics", "items"}},
		{"doctor", reflect.TypeFor[providers.Finding](), []string{"properties", "findings", "items"}},
		{"status", reflect.TypeFor[client.Status](), nil},
		{"event", reflect.TypeFor[client.Event](), nil},
		{"keys", reflect.TypeFor[client.FrameKeys](), nil},
		{"order", reflect.TypeFor[client.Done](), nil},
		{"error", reflect.TypeFor[client.Error](), nil},
		{"lab-status", reflect.TypeFor[netlab.Fault](), []string{"properties", "faults", "items"}},
	} {
		if err := jsonschematest.Struct(c.schema, c.typ, c.at...); err != nil {
			t.Errorf("docs/schemas/%s.schema.json:\n%v", c.schema, err)
		}
	}
}

// Every closed list of the schemas is the code's: what is new here has to be
// told there.
func TestClosedLists(t *testing.T) {
	const d = "$defs"
	event := []string{d, "event", "properties", "kind"}
	attribute := []string{d, "attribute_change", "properties"}
	check := []string{d, "check", "properties"}
	for _, c := range []struct {
		schema string
		at     []string
		consts string   // "package: regular expression of names", one a line
		others []string // literals
	}{
		{"common", event, "runtime/confdb: ^Kind\nruntime/core: ^Kind", nil},
		{"common", []string{d, "quorum_model"}, "lang/spec: ^(SingleNode|SingleQuorum|MajorityNodeSet)$", nil},
		{"common", []string{d, "object_state"}, "lang/spec: ^State(Offline|OnlinePending|Online|OfflinePending|Failed|Unknown)$", nil},
		{"plan", []string{"properties", "mode"}, "planner: ^Mode", nil},
		{"common", append(slices.Clone(check), "kind"), "planner: ^Check(Block|Object|Output)$", nil},
		{"common", append(slices.Clone(check), "status"), "lang: ^(Pass|Fail|Unknown|Error)$", nil},
		{"common", append(slices.Clone(check), "problems", "items", "properties", "condition"), "lang: ^(Assert|Precondition|Postcondition)$", nil},
		{"plan", []string{d, "change", "properties", "action_reason"}, "planner: ^Reason", nil},
		{"plan", append(slices.Clone(attribute), "impact"), "lang/spec: ^Impact", nil},
		{"plan", append(slices.Clone(attribute), "cause"), "planner: ^Cause", nil},
		{"plan", []string{d, "change", "properties", "impact"}, "lang/spec: ^Impact", nil},
		{"plan", []string{d, "change", "properties", "phases", "items"}, "providers: ^Phase", nil},
		{"plan", []string{"properties", "steps", "items", "properties", "phase"}, "providers: ^Phase", nil},
		{"plan", []string{d, "matrix_group", "properties", "reason"}, "runtime/placement: ^Why\nplanner: ^Frozen$", []string{"no_quorum"}},
		{"simulate", []string{"properties", "groups", "items", "properties", "reason"}, "runtime/placement: ^Why\nplanner: ^Frozen$", []string{"no_quorum"}},
		{"scenarios", []string{"properties", "scenarios", "items", "properties", "groups", "items", "properties", "state"}, "lang/spec: ^State", nil},
		{"scenarios", []string{"properties", "scenarios", "items", "properties", "steps", "items", "properties", "groups", "items", "properties", "state"}, "lang/spec: ^State", nil},
		{"doctor", []string{"properties", "findings", "items", "properties", "level"}, "providers: ^Level", nil},
		{"status", []string{"properties", "nodes", "items", "properties", "state"}, "lang/spec: ^Node(Up|Down|Paused|Joining|Unknown)$", nil},
		{"status", []string{"properties", "nodes", "items", "properties", "role"}, "lang/spec: ^Role", []string{""}},
		{"status", []string{"properties", "groups", "items", "properties", "state"}, "lang/spec: ^State", nil},
		{"lab-status", []string{"properties", "faults", "items", "properties", "kind"}, "internal/netlab: ^Fault", nil},
	} {
		want := slices.Clone(c.others)
		for line := range strings.Lines(c.consts) {
			pkg, names, _ := strings.Cut(strings.TrimSpace(line), ": ")
			want = append(want, consts(t, pkg, names)...)
		}
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), enum(t, c.schema, c.at)); diff != "" {
			t.Errorf("%s.schema.json, %s (-code +schema):\n%s", c.schema, strings.Join(c.at, "/"), diff)
		}
	}
	// Codes of the API's errors, wherever one is made.
	codes := append(assigned(t, "runtime/api", "Code"), assigned(t, "runtime/api/client", "Code")...)
	slices.Sort(codes)
	if diff := cmp.Diff(slices.Compact(codes), enum(t, "error", []string{"properties", "code"})); diff != "" {
		t.Errorf("error.schema.json (-code +schema):\n%s", diff)
	}
	// Lines of apply: each type its own.
	doc, err := jsonschematest.Raw("apply")
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, one := range doc["oneOf"].([]any) {
		name := strings.TrimPrefix(one.(map[string]any)["$ref"].(string), "#/$defs/")
		line := doc["$defs"].(map[string]any)[name].(map[string]any)
		if got := line["properties"].(map[string]any)["type"].(map[string]any)["const"]; got != name {
			t.Errorf("apply.schema.json: the line %s has the type %v", name, got)
		}
		have = append(have, name)
	}
	want := append(consts(t, "planner/apply", "^Event"), "version", "diagnostic", "checks", "outputs")
	slices.Sort(have)
	slices.Sort(want)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("apply.schema.json (-code +schema):\n%s", diff)
	}
}

// consts are the values of a package's string constants of these names, but "".
func consts(t *testing.T, pkg, names string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(names)
	var out []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, spec := range gen.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if !want.MatchString(name.Name) || i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						if text, err := strconv.Unquote(lit.Value); err == nil && text != "" {
							out = append(out, text)
						}
					}
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no constant %s", pkg, names)
	}
	return out
}

// assigned are the texts that a package's code gives to fields of a name.
func assigned(t *testing.T, pkg, field string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, isName := kv.Key.(*ast.Ident)
			lit, isText := kv.Value.(*ast.BasicLit)
			if isName && key.Name == field && isText && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, text)
				}
			}
			return true
		})
	}
	return out
}

func enum(t *testing.T, name string, at []string) []string {
	t.Helper()
	doc, err := jsonschematest.Raw(name)
	if err != nil {
		t.Fatal(err)
	}
	v := doc
	for _, key := range at {
		next, ok := v[key].(map[string]any)
		if !ok {
			t.Fatalf("%s.schema.json has no %s", name, strings.Join(at, "/"))
		}
		v = next
	}
	var out []string
	for _, e := range v["enum"].([]any) {
		out = append(out, e.(string))
	}
	slices.Sort(out)
	return out
}

// Every schema says what it is of and describes every property; none closes an
// object against what a later minor version adds.
func TestSchemasSayWhatTheyMean(t *testing.T) {
	files, err := fs.Glob(schemas.Files, "*.schema.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := schemas.Files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if doc["$schema"] != "https://json-schema.org/draft/2020-12/schema" || doc["title"] == nil {
			t.Errorf("%s has no $schema or title", file)
		}
		for _, wrong := range undescribed(doc, file) {
			t.Error(wrong)
		}
	}
}

func undescribed(v any, at string) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		if v["additionalProperties"] == false || v["unevaluatedProperties"] == false {
			out = append(out, at+": the object is closed: a minor version could add no field")
		}
		properties, _ := v["properties"].(map[string]any)
		for name, p := range properties {
			if text, _ := p.(map[string]any)["description"].(string); len(text) < 3 || !strings.HasSuffix(text, ".") {
				out = append(out, fmt.Sprintf("%s/%s: the description is %q", at, name, text))
			}
			if strings.HasSuffix(name, "_ms") && !strings.Contains(fmt.Sprint(p), "ms") {
				out = append(out, fmt.Sprintf("%s/%s does not tell its unit", at, name))
			}
		}
		for k, e := range v {
			if k != "if" {
				out = append(out, undescribed(e, at+"/"+k)...)
			}
		}
	case []any:
		for i, e := range v {
			out = append(out, undescribed(e, at+"/"+strconv.Itoa(i))...)
		}
	}
	return out
}

// The checks can fail: an undeclared field, a missing one, an unknown word.
func TestChecksAreStrict(t *testing.T) {
	good := `{"format_version":"1.0","id":1,"time":"2026-01-02T03:04:05Z","kind":"node_up","text":"x"}`
	if err := jsonschematest.Check([]string{"event"}, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a field more":      strings.Replace(good, `"id"`, `"secret":1,"id"`, 1),
		"a field less":      strings.Replace(good, `,"text":"x"`, ``, 1),
		"an unknown kind":   strings.Replace(good, `node_up`, `node_upp`, 1),
		"no time":           strings.Replace(good, `2026-01-02T`, `yesterday`, 1),
		"another major":     strings.Replace(good, `"1.0"`, `"2.0"`, 1),
		"a line of apply's": `{"format_version":"1.0","type":"version"}`,
	} {
		if jsonschematest.Check([]string{"event"}, []byte(bad)) == nil {
			t.Errorf("%s is let through: %s", name, bad)
		}
	}
	for args, want := range map[string]string{
		"--chdir quickstart state mv --json node.n1 node.n2": "state-edit",
		"plan -json DIR":      "plan",
		"plan DIR":            "",
		"lab exec n1 -- json": "",
	} {
		if got := strings.Join(jsonschematest.Of(strings.Fields(args)), ","); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// The documents that the docs show fit, and docs/json.md leads to every schema.
func TestDocs(t *testing.T) {
	all := jsonschematest.Names()
	examples := 0
	for _, page := range []string{"json.md", "api.md"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(data), "```json\n")[1:] {
			doc, _, _ := strings.Cut(block, "```")
			if err := jsonschematest.Check(all, []byte(doc)); err != nil {
				t.Errorf("docs/%s: an example fits none: %v", page, err)
			}
			examples++
		}
		for _, name := range all {
			if page == "json.md" && !strings.Contains(string(data), "(schemas/"+name+".schema.json)") {
				t.Errorf("docs/json.md does not tell of %s.schema.json", name)
			}
		}
	}
	if examples < 3 {
		t.Errorf("only %d examples", examples)
	}
}
