package lang

import (
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/schema"
)

// likeness is what most objects of one type have in common. An object seen by
// expressions has other attributes than its value.
type likeness struct {
	kind, typ string
	seen      bool
}

// alike makes an object's value.
func (ev *evaluation) alike(b *block, attrs map[string]cty.Value) cty.Value {
	return ev.likeOthers(likeness{b.kind, b.typ, false}, attrs)
}

// likeOthers makes an object of the type of an earlier one, where the two are
// equal: a type of each of thousands would be as large as what they hold.
func (ev *evaluation) likeOthers(l likeness, attrs map[string]cty.Value) cty.Value {
	if ty, ok := ev.types[l]; ok {
		return ofType(ty, attrs)
	}
	v := cty.ObjectVal(attrs)
	if ev.types != nil { // until all is evaluated
		ev.types[l] = v.Type()
	}
	return v
}

// ofType is the object of these attributes, which most likely is of type ty.
func ofType(ty cty.Type, attrs map[string]cty.Value) cty.Value {
	if v, ok := schema.ObjectOf(ty, attrs); ok {
		return v
	}
	return cty.ObjectVal(attrs) // parts are of no known type
}

// spare keeps a map that held a body's attributes, for the next body of its shape.
func (ev *evaluation) spare(b *body, attrs map[string]cty.Value) {
	if ev.spares != nil && len(b.attrs) > 0 && len(attrs) == len(b.attrs)+len(b.blocks) {
		shape := b.attrs[0].attributeShape
		ev.spares[shape] = append(ev.spares[shape], attrs)
	}
}

// fresh is a map for a body's attributes. All that is in it is to be written.
func (ev *evaluation) fresh(b *body) map[string]cty.Value {
	if len(b.attrs) > 0 {
		shape := b.attrs[0].attributeShape
		if l := ev.spares[shape]; len(l) > 0 {
			ev.spares[shape] = l[:len(l)-1]
			return l[len(l)-1]
		}
	}
	return make(map[string]cty.Value, len(b.attrs)+len(b.blocks)+1)
}

// nestedValue is the value of a nested block that stands once.
func (ev *evaluation) nestedValue(n *nested, in *instance, prev cty.Value) cty.Value {
	attrs := ev.bodyValues(n.body, in, prev)
	v := ofType(n.deflt.Type(), attrs)
	ev.spare(n.body, attrs)
	return v
}
