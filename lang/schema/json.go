package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"
	"strconv"

	"github.com/zclconf/go-cty/cty"
)

// ToJSON writes v canonically: attributes sorted, absent ones left out. Marks
// are ignored; the caller knows what is sensitive. An unknown part is an
// error that names it.
func ToJSON(v cty.Value) (json.RawMessage, error) {
	return appendJSON(make([]byte, 0, 512), v, nil)
}

func appendJSON(b []byte, v cty.Value, path cty.Path) ([]byte, error) {
	v, _ = v.Unmark()
	if !v.IsKnown() {
		return nil, path.NewErrorf("%s is not known yet", PathString(path))
	}
	if v.IsNull() {
		return append(b, "null"...), nil
	}
	ty := v.Type()
	switch {
	case ty == cty.String:
		return appendString(b, v.AsString())
	case ty == cty.Number:
		f := v.AsBigFloat()
		if i, acc := f.Int64(); acc == 0 {
			return strconv.AppendInt(b, i, 10), nil
		}
		if f.IsInf() {
			return nil, path.NewErrorf("%s is infinite", PathString(path))
		}
		if f.IsInt() && f.MantExp(nil) < 1024 {
			return f.Append(b, 'f', 0), nil
		}
		return f.Append(b, 'g', -1), nil
	case ty == cty.Bool:
		return strconv.AppendBool(b, v.True()), nil
	case ty.IsObjectType():
		names := make([]string, 0, len(ty.AttributeTypes()))
		for name := range ty.AttributeTypes() {
			names = append(names, name)
		}
		sort.Strings(names)
		return appendMembers(b, names, path, func(name string) (cty.Value, cty.PathStep, bool) {
			attr := v.GetAttr(name)
			return attr, cty.GetAttrStep{Name: name}, !IsAbsent(attr)
		})
	case ty.IsMapType():
		m := v.AsValueMap()
		names := make([]string, 0, len(m))
		for name := range m {
			names = append(names, name)
		}
		sort.Strings(names)
		return appendMembers(b, names, path, func(name string) (cty.Value, cty.PathStep, bool) {
			return m[name], cty.IndexStep{Key: cty.StringVal(name)}, true
		})
	case ty.IsListType() || ty.IsSetType() || ty.IsTupleType():
		b = append(b, '[')
		i := 0
		for it := v.ElementIterator(); it.Next(); i++ {
			if i > 0 {
				b = append(b, ',')
			}
			_, elem := it.Element()
			var err error
			if b, err = appendJSON(b, elem, append(path, cty.IndexStep{Key: cty.NumberIntVal(int64(i))})); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	return nil, path.NewErrorf("%s is of type %s, which has no JSON", PathString(path), ty.FriendlyName())
}

func appendMembers(b []byte, names []string, path cty.Path, member func(string) (cty.Value, cty.PathStep, bool)) ([]byte, error) {
	b = append(b, '{')
	first := true
	for _, name := range names {
		v, step, ok := member(name)
		if !ok {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		var err error
		if b, err = appendString(b, name); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendJSON(b, v, append(path, step)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendString keeps <, > and & as they are: what is written is read by people.
func appendString(b []byte, s string) ([]byte, error) {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f || s[i] == '"' || s[i] == '\\' {
			plain = false
			break
		}
	}
	if plain {
		b = append(append(b, '"'), s...)
		return append(b, '"'), nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...), nil
}

// IsAbsent tells whether an attribute's value is "nothing", in whichever way
// that is written: JSON leaves it out.
func IsAbsent(v cty.Value) bool {
	v, _ = v.Unmark()
	if !v.IsKnown() {
		return false
	}
	if v.IsNull() {
		return true
	}
	ty := v.Type()
	switch {
	case ty == cty.String:
		return v.AsString() == ""
	case ty.IsListType() || ty.IsMapType() || ty.IsSetType():
		return v.LengthInt() == 0
	}
	return false
}

// FromJSON reads a value of the object type ty. Attributes that the JSON
// doesn't have are absent; members that ty doesn't have are ignored, so that
// what a newer minor version wrote can be read.
func FromJSON(b []byte, ty cty.Type) (cty.Value, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var raw any
	if err := dec.Decode(&raw); err != nil {
		return cty.NilVal, fmt.Errorf("read a value of type %s: %w", ty.FriendlyName(), err)
	}
	return fromAny(raw, ty, nil)
}

func fromAny(raw any, ty cty.Type, path cty.Path) (cty.Value, error) {
	if raw == nil {
		return Absent(ty), nil
	}
	fail := func() (cty.Value, error) {
		return cty.NilVal, path.NewErrorf("%s: expected %s, found %s", PathString(path), ty.FriendlyName(), jsonKind(raw))
	}
	switch {
	case ty == cty.String:
		if s, ok := raw.(string); ok {
			return cty.StringVal(s), nil
		}
	case ty == cty.Bool:
		if b, ok := raw.(bool); ok {
			return cty.BoolVal(b), nil
		}
	case ty == cty.Number:
		if n, ok := raw.(json.Number); ok {
			if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
				return cty.NumberIntVal(i), nil
			}
			if v, err := cty.ParseNumberVal(n.String()); err == nil && NumberFits(v.AsBigFloat()) {
				return v, nil
			}
		}
	case ty.IsObjectType():
		m, ok := raw.(map[string]any)
		if !ok {
			return fail()
		}
		types := ty.AttributeTypes()
		attrs := make(map[string]cty.Value, len(types))
		for name, t := range types {
			v, err := fromAny(m[name], t, append(path, cty.GetAttrStep{Name: name}))
			if err != nil {
				return cty.NilVal, err
			}
			if IsAbsent(v) {
				v = Absent(t)
			}
			attrs[name] = v
		}
		return cty.ObjectVal(attrs), nil
	case ty.IsMapType():
		m, ok := raw.(map[string]any)
		if !ok {
			return fail()
		}
		elems := make(map[string]cty.Value, len(m))
		for name, e := range m {
			v, err := fromAny(e, ty.ElementType(), append(path, cty.IndexStep{Key: cty.StringVal(name)}))
			if err != nil {
				return cty.NilVal, err
			}
			elems[name] = v
		}
		if len(elems) == 0 {
			return Absent(ty), nil
		}
		return cty.MapVal(elems), nil
	case ty.IsListType():
		l, ok := raw.([]any)
		if !ok {
			return fail()
		}
		elems := make([]cty.Value, len(l))
		for i, e := range l {
			v, err := fromAny(e, ty.ElementType(), append(path, cty.IndexStep{Key: cty.NumberIntVal(int64(i))}))
			if err != nil {
				return cty.NilVal, err
			}
			elems[i] = v
		}
		if len(elems) == 0 {
			return Absent(ty), nil
		}
		return cty.ListVal(elems), nil
	}
	return fail()
}

func jsonKind(raw any) string {
	switch raw.(type) {
	case string:
		return "a string"
	case bool:
		return "a bool"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	}
	return "an object"
}

// PathString writes a path as a definition would: `restart.threshold`,
// `command[0]`, `capacity["cpu"]`.
func PathString(path cty.Path) string {
	var b bytes.Buffer
	for _, step := range path {
		switch s := step.(type) {
		case cty.GetAttrStep:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.Name)
		case cty.IndexStep:
			switch {
			case !s.Key.IsKnown() || s.Key.IsNull():
				b.WriteString("[...]")
			case s.Key.Type() == cty.String:
				b.WriteString("[" + strconv.Quote(s.Key.AsString()) + "]")
			case s.Key.Type() == cty.Number:
				b.WriteString("[" + s.Key.AsBigFloat().Text('f', -1) + "]")
			default:
				b.WriteString("[...]")
			}
		}
	}
	if b.Len() == 0 {
		return "the value"
	}
	return b.String()
}
