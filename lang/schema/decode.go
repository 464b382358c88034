package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Decode writes the value v into the spec type that into points to, as
// json.Unmarshal of ToJSON(v) would: attributes go to the fields that have
// their names as JSON tags, others stay as they are. An unknown part is an
// error that names it.
func Decode(v cty.Value, into any) error { return decode(v, into, false) }

// DecodeKnown is Decode for a plan: unknown parts leave their fields as they are.
func DecodeKnown(v cty.Value, into any) error { return decode(v, into, true) }

// DecodeSome is DecodeKnown of the named attributes and blocks alone: their
// fields are set, or cleared where they are absent or unknown.
func DecodeSome(v cty.Value, into any, names []string) error {
	v, _ = v.Unmark()
	return decoder{lenient: true}.some(v, reflect.ValueOf(into).Elem(), names)
}

func (d decoder) some(v cty.Value, dst reflect.Value, names []string) error {
	st := dst.Type()
	for _, want := range names {
		if !v.Type().HasAttribute(want) {
			continue
		}
		for i, f := range jsonFields(st) {
			if f.name == want {
				dst.Field(i).SetZero()
				if err := d.value(v.GetAttr(want), dst.Field(i), cty.Path{f.step}); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// DecodeSomeResource is DecodeSome for a resource, whose Attributes are then a
// map of its own. Its lists are v's: not to be written.
func DecodeSomeResource(v cty.Value, typ spec.Schema, r *spec.Resource, names []string) error {
	v, _ = v.Unmark()
	copied := false
	var common []string
	for _, name := range names {
		if _, own := typ.Attribute(name); !own {
			common = append(common, name)
			continue
		}
		if !copied {
			r.Attributes, copied = maps.Clone(r.Attributes), true
		}
		delete(r.Attributes, name)
		attr := v.GetAttr(name)
		if IsAbsent(attr) {
			continue
		}
		raw, err := decoder{lenient: true}.toAny(attr, cty.GetAttrPath(name))
		if err != nil {
			return err
		}
		if raw != nil {
			r.Attributes[name] = raw
		}
	}
	return decoder{lenient: true}.some(v, reflect.ValueOf(r).Elem(), common)
}

func decode(v cty.Value, into any, lenient bool) error {
	p := reflect.ValueOf(into)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("decode into %T: not a pointer", into)
	}
	return decoder{lenient}.value(v, p.Elem(), nil)
}

type decoder struct{ lenient bool }

func (d decoder) value(v cty.Value, dst reflect.Value, path cty.Path) error {
	v, _ = v.Unmark()
	if !v.IsKnown() {
		if d.lenient {
			return nil
		}
		return path.NewErrorf("%s is not known yet", PathString(path))
	}
	if v.IsNull() {
		return nil
	}
	ty := v.Type()
	if ty == cty.String && dst.CanAddr() {
		if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
			if err := u.UnmarshalText([]byte(v.AsString())); err != nil {
				return path.NewError(err)
			}
			return nil
		}
	}
	mismatch := func() error {
		return path.NewErrorf("%s: %s doesn't fit a %s", PathString(path), ty.FriendlyName(), dst.Type())
	}
	switch dst.Kind() {
	case reflect.Interface:
		if dst.NumMethod() == 0 {
			raw, err := d.toAny(v, path)
			if err == nil && raw != nil {
				dst.Set(reflect.ValueOf(raw))
			}
			return err
		}
	case reflect.String:
		if ty == cty.String {
			dst.SetString(v.AsString())
			return nil
		}
	case reflect.Bool:
		if ty == cty.Bool {
			dst.SetBool(v.True())
			return nil
		}
	case reflect.Int, reflect.Int64, reflect.Int32:
		if ty == cty.Number {
			i, acc := v.AsBigFloat().Int64()
			if acc != 0 || dst.OverflowInt(i) {
				return path.NewErrorf("%s must be a whole number", PathString(path))
			}
			dst.SetInt(i)
			return nil
		}
	case reflect.Uint64, reflect.Uint32:
		if ty == cty.Number {
			u, acc := v.AsBigFloat().Uint64()
			if acc != 0 || dst.OverflowUint(u) {
				return path.NewErrorf("%s must be a whole number that is not negative", PathString(path))
			}
			dst.SetUint(u)
			return nil
		}
	case reflect.Float64:
		if ty == cty.Number {
			f, _ := v.AsBigFloat().Float64()
			dst.SetFloat(f)
			return nil
		}
	case reflect.Pointer: // a block that may be absent: then all of it is
		if ty.IsObjectType() {
			block := reflect.New(dst.Type().Elem())
			if err := d.fields(v, block.Elem(), path); err != nil {
				return err
			}
			if dst.SetZero(); !block.Elem().IsZero() {
				dst.Set(block)
			}
			return nil
		}
	case reflect.Struct:
		if ty.IsObjectType() {
			return d.fields(v, dst, path)
		}
	case reflect.Slice:
		if ty.IsListType() || ty.IsTupleType() || ty.IsSetType() {
			n := v.LengthInt()
			if n == 0 {
				dst.SetZero()
				return nil
			}
			s := reflect.MakeSlice(dst.Type(), n, n)
			if raw, ok := Elements(v); ok && dst.Type().Elem() == reflect.TypeFor[string]() {
				for i, text := range raw {
					s.Index(i).SetString(text.(string))
				}
				dst.Set(s)
				return nil
			}
			i := 0
			for it := v.ElementIterator(); it.Next(); i++ {
				_, elem := it.Element()
				if err := d.value(elem, s.Index(i), append(path, cty.IndexStep{Key: cty.NumberIntVal(int64(i))})); err != nil {
					return err
				}
			}
			dst.Set(s)
			return nil
		}
	case reflect.Map:
		if (ty.IsMapType() || ty.IsObjectType()) && dst.Type().Key().Kind() == reflect.String {
			if v.LengthInt() == 0 {
				dst.SetZero()
				return nil
			}
			m := reflect.MakeMapWithSize(dst.Type(), v.LengthInt())
			for it := v.ElementIterator(); it.Next(); {
				key, elem := it.Element()
				e := reflect.New(dst.Type().Elem()).Elem()
				if err := d.value(elem, e, append(path, cty.IndexStep{Key: key})); err != nil {
					return err
				}
				m.SetMapIndex(reflect.ValueOf(key.AsString()).Convert(dst.Type().Key()), e)
			}
			dst.Set(m)
			return nil
		}
	}
	return mismatch()
}

// known holds the fields of struct types, by type.
var known sync.Map

// field is a field of a struct: its name in JSON, and the step of a path to it.
type field struct {
	name string
	step cty.PathStep
}

// jsonFields are a struct type's fields, in their order.
func jsonFields(t reflect.Type) []field {
	if fields, ok := known.Load(t); ok {
		return fields.([]field)
	}
	fields := make([]field, t.NumField())
	for i := range fields {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[i] = field{name, cty.GetAttrStep{Name: name}}
	}
	known.Store(t, fields)
	return fields
}

func (d decoder) fields(v cty.Value, dst reflect.Value, path cty.Path) error {
	ty, st := v.Type(), dst.Type()
	var at cty.Path // one for all fields: only an error keeps it
	for i, f := range jsonFields(st) {
		if f.name == "" || f.name == "-" || !ty.HasAttribute(f.name) {
			continue
		}
		if at == nil {
			at = append(slices.Clip(path), f.step)
		}
		at[len(path)] = f.step
		if err := d.value(v.GetAttr(f.name), dst.Field(i), at); err != nil {
			return err
		}
	}
	return nil
}

// toAny gives what encoding/json would: float64, string, bool, []any, map[string]any.
func (d decoder) toAny(v cty.Value, path cty.Path) (any, error) {
	v, _ = v.Unmark()
	if !v.IsKnown() {
		if d.lenient {
			return nil, nil
		}
		return nil, path.NewErrorf("%s is not known yet", PathString(path))
	}
	if v.IsNull() {
		return nil, nil
	}
	ty := v.Type()
	switch {
	case ty == cty.String:
		return v.AsString(), nil
	case ty == cty.Bool:
		return v.True(), nil
	case ty == cty.Number:
		f, _ := v.AsBigFloat().Float64()
		return f, nil
	case ty.IsMapType() || ty.IsObjectType():
		m := make(map[string]any, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			key, elem := it.Element()
			if ty.IsObjectType() && IsAbsent(elem) {
				continue
			}
			raw, err := d.toAny(elem, append(path, cty.IndexStep{Key: key}))
			if err != nil {
				return nil, err
			}
			m[key.AsString()] = raw
		}
		return m, nil
	case ty.IsListType() || ty.IsTupleType() || ty.IsSetType():
		if raw, ok := Elements(v); ok {
			return raw, nil // as v has it: thousands of instances have lists
		}
		l := make([]any, 0, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			_, elem := it.Element()
			raw, err := d.toAny(elem, path)
			if err != nil {
				return nil, err
			}
			l = append(l, raw)
		}
		return l, nil
	}
	return nil, path.NewErrorf("%s is of type %s, which has no JSON", PathString(path), ty.FriendlyName())
}

// Encode is the value of type ty that x, one of spec's types, has: ids, addr
// and whatever else ty doesn't have are left out.
func Encode(x any, ty cty.Type) (cty.Value, error) {
	b, err := json.Marshal(x)
	if err != nil {
		return cty.NilVal, err
	}
	return FromJSON(b, ty)
}

// DecodeResource writes the value of a resource of the type typ into r: the
// type's own attributes into Attributes, the common ones into their fields,
// and the type's name. ID, Addr and Name are the caller's.
func DecodeResource(v cty.Value, typ spec.Schema, r *spec.Resource) error {
	return decodeResource(v, typ, r, decoder{})
}

// DecodeKnownResource is DecodeResource for a plan: unknown parts are left out.
func DecodeKnownResource(v cty.Value, typ spec.Schema, r *spec.Resource) error {
	return decodeResource(v, typ, r, decoder{lenient: true})
}

func decodeResource(v cty.Value, typ spec.Schema, r *spec.Resource, d decoder) error {
	v, _ = v.Unmark()
	if !v.IsKnown() || v.IsNull() || !v.Type().IsObjectType() {
		return fmt.Errorf("a resource's value must be a known object")
	}
	r.Type = typ.Name
	r.Attributes = make(map[string]any, len(typ.Attributes))
	for _, a := range typ.Attributes {
		if !v.Type().HasAttribute(a.Name) {
			continue
		}
		attr := v.GetAttr(a.Name)
		if IsAbsent(attr) {
			continue
		}
		raw, err := d.toAny(attr, cty.GetAttrPath(a.Name))
		if err != nil {
			return err
		}
		if raw != nil {
			r.Attributes[a.Name] = raw
		}
	}
	// The common attributes have names of their own, which no field but theirs has.
	common := *r
	if err := d.fields(v, reflect.ValueOf(&common).Elem(), nil); err != nil {
		return err
	}
	r.DependsOn, r.DependsOnAny, r.PendingTimeout = common.DependsOn, common.DependsOnAny, common.PendingTimeout
	r.SeparateMonitor = common.SeparateMonitor
	r.LooksAlive, r.IsAlive, r.Restart, r.Checkpoint = common.LooksAlive, common.IsAlive, common.Restart, common.Checkpoint
	return nil
}

var resourceCommon = sync.OnceValue(spec.ResourceCommon)

// EncodeResource is DecodeResource's way back. ty is the ResourceType of its
// type, which who encodes many of them makes once.
func EncodeResource(r spec.Resource, ty cty.Type) (cty.Value, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return cty.NilVal, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return cty.NilVal, err
	}
	own := map[string]json.RawMessage{}
	if len(m["attributes"]) > 0 {
		if err := json.Unmarshal(m["attributes"], &own); err != nil {
			return cty.NilVal, err
		}
	}
	flat := make(map[string]json.RawMessage, len(m)+len(own))
	for _, a := range resourceCommon().Attributes {
		flat[a.Name] = m[a.Name]
	}
	for _, bl := range resourceCommon().Blocks {
		flat[bl.Name] = m[bl.Name]
	}
	for name, raw := range own {
		flat[name] = raw
	}
	for name, raw := range flat {
		if raw == nil {
			delete(flat, name)
		}
	}
	if b, err = json.Marshal(flat); err != nil {
		return cty.NilVal, err
	}
	return FromJSON(b, ty)
}
