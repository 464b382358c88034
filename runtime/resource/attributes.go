package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// attributes reads a resource's attributes, JSON values, and gathers all that
// is wrong with them. Absent ones and nulls are the schema's defaults.
type attributes struct {
	typ      string
	values   map[string]any
	problems []error
}

func (a *attributes) problem(format string, args ...any) {
	a.problems = append(a.problems, fmt.Errorf(format, args...))
}

func (a *attributes) wrong(name, want string) {
	a.problem("%s = %v is no %s", name, a.values[name], want)
}

// value is the value given, or the schema's default.
func (a *attributes) value(name string) any {
	attr, ok := spec.ResourceTypes()[a.typ].Attribute(name)
	v := a.values[name]
	if v == nil && ok {
		v = attr.Default
	}
	if v == nil && attr.Required {
		a.problem("%s is missing", name)
	}
	if s, ok := v.(string); ok && len(attr.Values) > 0 && !slices.Contains(attr.Values, s) {
		a.problem("%s = %q: use one of %s", name, s, strings.Join(attr.Values, ", "))
	}
	return v
}

func (a *attributes) text(name string) string {
	switch v := a.value(name).(type) {
	case nil:
		return ""
	case string:
		return v
	}
	a.wrong(name, "text")
	return ""
}

func (a *attributes) texts(name string) []string {
	switch v := a.value(name).(type) {
	case nil:
		return nil
	case []string:
		return v
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				a.wrong(name, "list of texts")
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	a.wrong(name, "list of texts")
	return nil
}

func (a *attributes) textMap(name string) map[string]string {
	switch v := a.value(name).(type) {
	case nil:
		return nil
	case map[string]string:
		return v
	case map[string]any:
		out := make(map[string]string, len(v))
		for k, e := range v {
			s, ok := e.(string)
			if !ok {
				a.wrong(name, "map of texts")
				return nil
			}
			out[k] = s
		}
		return out
	}
	a.wrong(name, "map of texts")
	return nil
}

func (a *attributes) whole(name string) int64 {
	v := a.value(name)
	if n, ok := v.(json.Number); ok {
		if f, err := n.Float64(); err == nil {
			v = f
		}
	}
	switch v := v.(type) {
	case nil:
		return 0
	case int:
		return int64(v)
	case int64:
		return v
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	a.wrong(name, "whole number")
	return 0
}

func (a *attributes) size(name string) int64 {
	if s, ok := a.value(name).(string); ok {
		n, err := spec.ParseSize(s)
		if err != nil {
			a.problem("%s: %w", name, err)
		}
		return n
	}
	return a.whole(name)
}

func (a *attributes) duration(name string) time.Duration {
	s := a.text(name)
	if s == "" {
		return 0
	}
	d, err := spec.ParseDuration(s)
	if err != nil {
		a.problem("%s: %w", name, err)
	}
	return d.D()
}

// checkNames finds attributes that the type doesn't have: a definition of a
// newer version.
func (a *attributes) checkNames() {
	schema := spec.ResourceTypes()[a.typ]
	var unknown []string
	for name, v := range a.values {
		if _, ok := schema.Attribute(name); !ok && v != nil {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		a.problems = append(a.problems, errors.New("this version's "+a.typ+" has no attribute "+name))
	}
}
