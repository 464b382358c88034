// Package schema turns spec's schemas, which are data, into cty types, and
// values of these types into JSON and spec's types and back.
//
// Canonical values: an attribute that is absent is null if it is a string,
// number or bool, and empty if it is a list or a map; the empty string is
// absent. JSON of a value leaves absent attributes out, so that values that
// differ only in how "nothing" is written are the same value and the same
// bytes. Decode and FromJSON give, and ToJSON takes, canonical values.
//
// Start with Type, ToJSON and FromJSON; Decode and Encode go to and from
// spec's types, DecodeResource and EncodeResource do it for resources, whose
// own attributes stand beside the common ones in a value and apart in spec.
package schema

import (
	"fmt"
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/spec"
)

type mark string

// Sensitive marks values that are never printed.
const Sensitive = mark("sensitive")

// IsSensitive tells whether v or a part of it is marked sensitive.
func IsSensitive(v cty.Value) bool { return v.HasMarkDeep(Sensitive) }

// SensitiveNames are the attributes of an object's value that hold something
// that is marked.
func SensitiveNames(v cty.Value) []string {
	if v == cty.NilVal || v.IsNull() || Plain(v) || !v.ContainsMarked() {
		return nil
	}
	v, _ = v.Unmark()
	var out []string
	for name, e := range v.AsValueMap() {
		if e.ContainsMarked() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// AttributeType is the cty type of an attribute's value. References to objects
// are kept as names; what has a canonical text is a string.
func AttributeType(t spec.ValueType) cty.Type {
	switch t {
	case spec.TypeString, spec.TypeDuration, spec.TypeSize, spec.TypeNetworkRef, spec.TypeVolumeRef:
		return cty.String
	case spec.TypeNumber:
		return cty.Number
	case spec.TypeBool:
		return cty.Bool
	case spec.TypeStrings, spec.TypeNodeRefs, spec.TypeGroupRefs, spec.TypeNetworkRefs, spec.TypeVolumeRefs:
		return cty.List(cty.String)
	case spec.TypeStringMap:
		return cty.Map(cty.String)
	case spec.TypeQuantities, spec.TypeCounts:
		return cty.Map(cty.Number)
	}
	panic(fmt.Sprintf("schema: unknown value type %q", t)) // schemas are constants of this program
}

// Type is the object type of values of the schema: its attributes, and its
// blocks as objects.
func Type(s spec.Schema) cty.Type { return blockType(s.Attributes, s.Blocks) }

// BlockType is the object type of a nested block; of a repeated one, of a list
// of them.
func BlockType(b spec.Block) cty.Type {
	if ty := blockType(b.Attributes, b.Blocks); !b.Repeated {
		return ty
	} else {
		return cty.List(ty)
	}
}

// ResourceType is the object type of a resource of the type s: its own
// attributes and those that every resource has.
func ResourceType(s spec.Schema) cty.Type { return Type(s.WithCommon()) }

func blockType(attrs []spec.Attribute, blocks []spec.Block) cty.Type {
	types := make(map[string]cty.Type, len(attrs)+len(blocks))
	for _, a := range attrs {
		types[a.Name] = AttributeType(a.Type)
	}
	for _, b := range blocks {
		types[b.Name] = BlockType(b)
	}
	return cty.Object(types)
}

// Absent is the canonical value of an attribute of type ty that isn't there:
// empty for lists and maps, null for everything else.
func Absent(ty cty.Type) cty.Value {
	switch {
	case ty.IsListType():
		return cty.ListValEmpty(ty.ElementType())
	case ty.IsMapType():
		return cty.MapValEmpty(ty.ElementType())
	}
	return cty.NullVal(ty)
}

// Default is the value of an attribute that a definition doesn't give.
func Default(a spec.Attribute) cty.Value {
	switch d := a.Default.(type) {
	case nil:
		return Absent(AttributeType(a.Type))
	case string:
		return cty.StringVal(d)
	case bool:
		return cty.BoolVal(d)
	case int64:
		return cty.NumberIntVal(d)
	case float64:
		return cty.NumberFloatVal(d)
	}
	panic(fmt.Sprintf("schema: default of %s is a %T", a.Name, a.Default))
}

// BlockDefault is the value of a block that a definition doesn't give.
func BlockDefault(b spec.Block) cty.Value {
	if b.Repeated {
		return Absent(BlockType(b))
	}
	attrs := make(map[string]cty.Value, len(b.Attributes)+len(b.Blocks))
	for _, a := range b.Attributes {
		attrs[a.Name] = Default(a)
	}
	for _, inner := range b.Blocks {
		attrs[inner.Name] = BlockDefault(inner)
	}
	return cty.ObjectVal(attrs)
}
