package view

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/statefile"
)

const (
	sensitiveText = "(sensitive value)"
	unknownText   = "(known after apply)"
)

// ctyText writes a value as a definition would, on one line.
func ctyText(v cty.Value) string {
	if v == cty.NilVal {
		return "null"
	}
	if v.IsMarked() {
		return sensitiveText
	}
	if !v.IsKnown() {
		return unknownText
	}
	if v.IsNull() {
		return "null"
	}
	t := v.Type()
	switch {
	case t == cty.String:
		return strconv.Quote(v.AsString())
	case t == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case t == cty.Bool:
		return strconv.FormatBool(v.True())
	case t.IsObjectType() || t.IsMapType():
		var parts []string
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			if !e.IsMarked() && e.IsKnown() && e.IsNull() {
				continue
			}
			parts = append(parts, key(k.AsString())+" = "+ctyText(e))
		}
		if len(parts) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case v.CanIterateElements():
		if texts, ok := schema.Elements(v); ok {
			out := []byte{'['}
			for i, text := range texts {
				if i > 0 {
					out = append(out, ", "...)
				}
				out = strconv.AppendQuote(out, text.(string))
			}
			return string(append(out, ']'))
		}
		var parts []string
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			parts = append(parts, ctyText(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprintf("%#v", v)
}

func key(k string) string {
	for _, c := range k {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return strconv.Quote(k)
		}
	}
	return k
}

// verbatim is a text for people where a decoded JSON value stands.
type verbatim string

// jsonText writes a JSON value the same way.
func jsonText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return strconv.Quote(v)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = jsonText(v[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		if len(v) == 0 {
			return "{}"
		}
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key(k)+" = "+jsonText(v[k]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case json.Number:
		return v.String()
	case verbatim:
		return string(v)
	}
	return fmt.Sprint(v)
}

func decode(raw json.RawMessage) any {
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return string(raw)
	}
	return v
}

// Value is an output's value for people.
func Value(o statefile.Output) string {
	if o.Sensitive {
		return sensitiveText
	}
	return jsonText(decode(o.Value))
}

// Scalar tells whether a decoded JSON value is a string, a number or a bool.
func Scalar(v any) bool {
	switch v.(type) {
	case string, float64, bool, json.Number:
		return true
	}
	return false
}

// Names lists a map's keys.
func Names[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
