package planner

import (
	"encoding/json"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

type changeJSON struct {
	Address         addr.Address      `json:"address"`
	PreviousAddress *addr.Address     `json:"previous_address"`
	Type            string            `json:"type"`
	Actions         []string          `json:"actions"`
	ActionReason    string            `json:"action_reason,omitempty"`
	Before          json.RawMessage   `json:"before"`
	After           json.RawMessage   `json:"after"`
	AfterUnknown    json.RawMessage   `json:"after_unknown"`
	BeforeSensitive json.RawMessage   `json:"before_sensitive"`
	AfterSensitive  json.RawMessage   `json:"after_sensitive"`
	ReplacePaths    []string          `json:"replace_paths"`
	Importing       *importingJSON    `json:"importing"`
	Attributes      []AttributeChange `json:"attributes"`
	Impact          spec.Impact       `json:"impact,omitempty"`
	Phases          []string          `json:"phases"`
	DependsOn       []addr.Address    `json:"depends_on"`
	Why             []string          `json:"why"`
}

type importingJSON struct {
	ID string `json:"id"`
}

// MarshalJSON writes cli.md's form: sensitive and unknown values are null, and
// after_unknown, before_sensitive and after_sensitive say where.
func (c Change) MarshalJSON() ([]byte, error) {
	out := changeJSON{
		Address: c.Address, PreviousAddress: c.PreviousAddress, Type: c.Type, Actions: c.Actions, ActionReason: c.Reason,
		ReplacePaths: orEmpty(c.ReplacePaths), Attributes: orEmpty(c.Differing(nil)), Impact: c.Impact,
		Phases: orEmpty(c.Phases), DependsOn: orEmpty(c.DependsOn), Why: orEmpty(c.Why),
	}
	if c.Importing != nil {
		out.Importing = &importingJSON{*c.Importing}
	}
	var err error
	if out.Before, err = PublicJSON(c.Before); err != nil {
		return nil, err
	}
	if out.After, err = PublicJSON(c.After); err != nil {
		return nil, err
	}
	if out.AfterUnknown, err = json.Marshal(where(c.After, func(v cty.Value) bool { u, _ := v.Unmark(); return !u.IsKnown() })); err != nil {
		return nil, err
	}
	if out.BeforeSensitive, err = json.Marshal(where(c.Before, cty.Value.IsMarked)); err != nil {
		return nil, err
	}
	if out.AfterSensitive, err = json.Marshal(where(c.After, cty.Value.IsMarked)); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// MarshalJSON writes the values as PublicJSON does.
func (a AttributeChange) MarshalJSON() ([]byte, error) {
	before, err := PublicJSON(a.Before)
	if err != nil {
		return nil, err
	}
	after, err := PublicJSON(a.After)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Path      string          `json:"path"`
		Before    json.RawMessage `json:"before"`
		After     json.RawMessage `json:"after"`
		Unknown   bool            `json:"unknown"`
		Sensitive bool            `json:"sensitive"`
		Impact    spec.Impact     `json:"impact"`
		Cause     string          `json:"cause"`
	}{a.Path, before, after, a.After != cty.NilVal && !a.After.IsWhollyKnown(), a.Sensitive, a.Impact, a.Cause})
}

// MarshalJSON writes the values as PublicJSON does, null where sensitive.
func (o OutputChange) MarshalJSON() ([]byte, error) {
	before, after := o.Before, o.After
	unknown := after != cty.NilVal && !after.IsWhollyKnown()
	if o.Sensitive {
		before, after = cty.NilVal, cty.NilVal
	}
	beforeJSON, err := PublicJSON(before)
	if err != nil {
		return nil, err
	}
	afterJSON, err := PublicJSON(after)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Actions      []string        `json:"actions"`
		Before       json.RawMessage `json:"before"`
		After        json.RawMessage `json:"after"`
		AfterUnknown bool            `json:"after_unknown"`
		Sensitive    bool            `json:"sensitive"`
	}{o.Actions, beforeJSON, afterJSON, unknown, o.Sensitive})
}

// PublicJSON is v for readers: whatever is unknown or marked (sensitive) is null.
func PublicJSON(v cty.Value) (json.RawMessage, error) {
	if v == cty.NilVal {
		return json.RawMessage("null"), nil
	}
	if !v.IsWhollyKnown() || v.ContainsMarked() {
		v = public(v)
	}
	return ctyjson.Marshal(v, v.Type())
}

// public replaces unknown and marked parts by null. Object types only grow
// looser where needed, so values are rebuilt as objects and tuples.
func public(v cty.Value) cty.Value {
	if v.IsMarked() || !v.IsKnown() {
		return cty.NullVal(cty.DynamicPseudoType)
	}
	if v.IsNull() || v.Type().IsPrimitiveType() || v.Type().IsCapsuleType() {
		return v
	}
	if v.Type().IsObjectType() || v.Type().IsMapType() {
		attrs := make(map[string]cty.Value, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			attrs[k.AsString()] = plainNull(public(e))
		}
		return cty.ObjectVal(attrs)
	}
	elems := make([]cty.Value, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		elems = append(elems, plainNull(public(e)))
	}
	return cty.TupleVal(elems)
}

// plainNull gives an untyped null a type, for ctyjson writes a dynamic value
// as an object of type and value.
func plainNull(v cty.Value) cty.Value {
	if v.IsNull() && v.Type() == cty.DynamicPseudoType {
		return cty.NullVal(cty.String)
	}
	return v
}

// where maps v to true where is holds, to objects and lists that lead there,
// and to an empty object (or false, within) where it holds nowhere.
func where(v cty.Value, is func(cty.Value) bool) any {
	if v == cty.NilVal {
		return map[string]any{}
	}
	found := whereWithin(v, is)
	if found == nil {
		return map[string]any{}
	}
	return found
}

func whereWithin(v cty.Value, is func(cty.Value) bool) any {
	if is(v) {
		return true
	}
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return nil
	}
	if v.Type().IsObjectType() || v.Type().IsMapType() {
		var out map[string]any
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			if sub := whereWithin(e, is); sub != nil {
				if out == nil {
					out = map[string]any{}
				}
				out[k.AsString()] = sub
			}
		}
		if out == nil {
			return nil
		}
		return out
	}
	var out []any
	any := false
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if sub := whereWithin(e, is); sub != nil {
			out, any = append(out, sub), true
		} else {
			out = append(out, false)
		}
	}
	if !any {
		return nil
	}
	return out
}

// Diagnostics writes HCL's diagnostics in the JSON form.
func Diagnostics(diags hcl.Diagnostics) []Diagnostic {
	out := make([]Diagnostic, 0, len(diags))
	for _, d := range diags {
		one := Diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			one.Severity = "warning"
		}
		if d.Subject != nil {
			one.Range = &DiagnosticRange{
				Filename: d.Subject.Filename,
				Start:    DiagnosticPos{d.Subject.Start.Line, d.Subject.Start.Column, d.Subject.Start.Byte},
				End:      DiagnosticPos{d.Subject.End.Line, d.Subject.End.Column, d.Subject.End.Byte},
			}
		}
		out = append(out, one)
	}
	return out
}

// orEmpty makes JSON say [] where there is nothing.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
