package jsonschematest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Struct compares a struct's JSON fields with a schema's properties, all the way
// down: each has to be in both, and be required where it is always written. At
// is where in the schema, as a path of keys; types that write themselves are left
// out (their documents are checked).
func Struct(name string, t reflect.Type, at ...string) error {
	doc, err := Raw(name)
	if err != nil {
		return err
	}
	w := walker{file: name, seen: map[reflect.Type]bool{}}
	s, file := w.resolve(doc, name)
	for _, key := range at {
		next, ok := s[key].(map[string]any)
		if !ok {
			return fmt.Errorf("%s.schema.json has no %s", name, strings.Join(at, "/"))
		}
		s, file = w.resolve(next, file)
	}
	w.compare(t, s, file, name)
	if len(w.wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(w.wrong, "\n"))
	}
	return nil
}

type walker struct {
	file  string
	seen  map[reflect.Type]bool
	wrong []string
}

// resolve follows references and the choice of something or null.
func (w *walker) resolve(s map[string]any, file string) (map[string]any, string) {
	for {
		if many, ok := s["anyOf"].([]any); ok {
			s, _ = many[0].(map[string]any)
			continue
		}
		ref, ok := s["$ref"].(string)
		if !ok {
			return s, file
		}
		in, path, _ := strings.Cut(ref, "#/$defs/")
		if in != "" {
			file = strings.TrimSuffix(in, ".schema.json")
		}
		doc, err := Raw(file)
		if err != nil {
			w.wrong = append(w.wrong, err.Error())
			return map[string]any{}, file
		}
		defs, _ := doc["$defs"].(map[string]any)
		s, _ = defs[path].(map[string]any)
	}
}

var (
	writesJSON = reflect.TypeFor[json.Marshaler]()
	writesText = reflect.TypeFor[encoding.TextMarshaler]()
)

func (w *walker) compare(t reflect.Type, s map[string]any, file, where string) {
	s, file = w.resolve(s, file)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Implements(writesJSON) || t.Implements(writesText) || reflect.PointerTo(t).Implements(writesText) {
		return
	}
	switch t.Kind() {
	case reflect.Slice:
		if items, ok := s["items"].(map[string]any); ok && t.Elem().Kind() != reflect.Uint8 {
			w.compare(t.Elem(), items, file, where+"[]")
		}
	case reflect.Map:
		if values, ok := s["additionalProperties"].(map[string]any); ok {
			w.compare(t.Elem(), values, file, where+"{}")
		}
	case reflect.Struct:
		w.fields(t, s, file, where)
	}
}

func (w *walker) fields(t reflect.Type, s map[string]any, file, where string) {
	if w.seen[t] {
		return
	}
	w.seen[t] = true
	properties, _ := s["properties"].(map[string]any)
	required := words(s["required"])
	if more, ok := s["dependentRequired"].(map[string]any); ok { // the fields of a document that is not only diagnostics
		for field, others := range more {
			required = append(append(required, field), words(others)...)
		}
	}
	var known []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "" || name == "-" {
			continue
		}
		known = append(known, name)
		p, ok := properties[name].(map[string]any)
		if !ok {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s.%s is not in the schema", where, t, name))
			continue
		}
		if always := !strings.Contains(options, "omitempty"); always != slices.Contains(required, name) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s.%s: always written: %v, but required: %v", where, t, name, always, !always))
		}
		w.compare(f.Type, p, file, where+"."+name)
	}
	for name := range properties {
		if !slices.Contains(known, name) {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s of the schema is no field of %s", where, name, t))
		}
	}
}

func words(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
