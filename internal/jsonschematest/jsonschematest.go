// Package jsonschematest holds tests to the JSON Schemas in docs/schemas. To
// readers these promise no more than is written there; here they are read
// strictly: a field that a schema does not declare is an error, so that no field
// gets out without its description.
//
// Start at Output, which checks what a command has printed.
package jsonschematest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/clusterplan/clusterplan/docs/schemas"
)

// Any stands for a command whose JSON has no form of its own: an output's value.
const Any = "any"

// Commands are the commands with --json, and the schemas that what they print
// may have.
var Commands = map[string][]string{
	"init":         {"init"},
	"fmt":          {"fmt"},
	"graph":        {"graph"},
	"force-unlock": {"force-unlock"},
	"validate":     {"validate"},
	"plan":         {"plan"},
	"apply":        {"apply"},
	"destroy":      {"apply"},
	"diff":         {"diff"},
	"log":          {"log"},
	"rollback":     {"apply", "plan"},
	"show":         {"state", "plan"},
	"output":       {"outputs", Any},
	"simulate":     {"simulate", "scenarios"},
	"doctor":       {"doctor"},
	"status":       {"status"},
	"events":       {"event", "why"},
	"move":         {"order"},
	"online":       {"order"},
	"offline":      {"order"},
	"pause":        {"order"},
	"drain":        {"order"},
	"resume":       {"order"},
	"evict":        {"order"},
	"fence":        {"event"},
	"keys rotate":  {"keys"},
	"state list":   {"state"},
	"state show":   {"object"},
	"state mv":     {"state-edit"},
	"state rm":     {"state-edit"},
	"state push":   {"state-edit"},
	"import":       {"state-edit"},
	"console":      {"console"},
	"logs":         {"log-line"},
	"lab cut":      {"lab-status"},
	"lab heal":     {"lab-status"},
	"lab isolate":  {"lab-status"},
	"lab loss":     {"lab-status"},
	"lab kill":     {"lab-status"},
	"lab hang":     {"lab-status"},
	"lab wake":     {"lab-status"},
	"lab status":   {"lab-status"},
	"schema":       {"schema"},
	"version":      {"version"},
}

// Of are the schemas of what a command line prints; none where it has no --json.
func Of(args []string) []string {
	var words []string
	asJSON := false
	for _, arg := range args {
		if arg == "--" {
			break
		}
		asJSON = asJSON || arg == "--json" || arg == "-json"
		if !strings.HasPrefix(arg, "-") {
			words = append(words, arg)
		}
	}
	for i := range words {
		if !asJSON {
			break
		}
		if i+1 < len(words) {
			if names, ok := Commands[words[i]+" "+words[i+1]]; ok {
				return names
			}
		}
		if names, ok := Commands[words[i]]; ok {
			return names
		}
	}
	return nil
}

// Output checks what a command has printed: each document or line. What has no
// --json, and nothing at all, is fine.
func Output(args []string, out []byte) error {
	names := Of(args)
	if len(names) == 0 {
		return nil
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var doc json.RawMessage
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("clusterplan %s prints no JSON: %w", strings.Join(args, " "), err)
		}
		if err := Check(names, doc); err != nil {
			return fmt.Errorf("clusterplan %s: %w", strings.Join(args, " "), err)
		}
	}
}

// Check checks a document against the first of the schemas that it fits; it has
// to fit one.
func Check(names []string, doc []byte) error {
	var errs []error
	for _, name := range names {
		if name == Any {
			return nil
		}
		s, err := compiled(name)
		if err != nil {
			return err
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		if err != nil {
			return err
		}
		if err = s.Validate(v); err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("it does not fit docs/schemas/%s.schema.json:\n%w\n%.2000s", name, err, doc))
	}
	return errors.Join(errs...)
}

// Names are the schemas' names, without common.
func Names() []string {
	files, _ := fs.Glob(schemas.Files, "*.schema.json") // the pattern is good
	var names []string
	for _, f := range files {
		if name := strings.TrimSuffix(f, ".schema.json"); name != "common" {
			names = append(names, name)
		}
	}
	return names
}

// Raw is a schema as it is written.
func Raw(name string) (map[string]any, error) {
	data, err := schemas.Files.ReadFile(name + ".schema.json")
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s.schema.json: %w", name, err)
	}
	return doc, nil
}

var compiler struct {
	sync.Mutex
	*jsonschema.Compiler
}

func compiled(name string) (*jsonschema.Schema, error) {
	compiler.Lock()
	defer compiler.Unlock()
	if compiler.Compiler == nil {
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		for _, name := range append(Names(), "common") {
			doc, err := Raw(name)
			if err != nil {
				return nil, err
			}
			strict(doc)
			if err := c.AddResource("file:///docs/schemas/"+name+".schema.json", doc); err != nil {
				return nil, err
			}
		}
		compiler.Compiler = c
	}
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no docs/schemas/%s.schema.json", name)
	}
	return compiler.Compile("file:///docs/schemas/" + name + ".schema.json")
}

// strict closes every object that declares its properties. What stands under
// `if` only asks, and declares nothing.
func strict(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["properties"] != nil && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for k, e := range v {
			if k != "if" {
				strict(e)
			}
		}
	case []any:
		for _, e := range v {
			strict(e)
		}
	}
}
