package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Stored reads a value from a state or a plan file: cty's JSON of its type, and of
// itself. Such files may be anybody's, so what cty would panic over, or need much
// more memory for than it has bytes, is an error.
func Stored(typ, value []byte) (v cty.Value, err error) {
	// go-cty panics on types that no program of ours writes.
	defer func() {
		if r := recover(); r != nil {
			v, err = cty.NilVal, fmt.Errorf("%v", r)
		}
	}()
	if err := Bounded(typ, value); err != nil {
		return cty.NilVal, err
	}
	ty, err := ctyjson.UnmarshalType(typ)
	if err != nil {
		return cty.NilVal, fmt.Errorf("its type: %w", err)
	}
	return ctyjson.Unmarshal(value, ty)
}

// MaxDepth is how deep lists and objects of a value may lie in one another.
const MaxDepth = 64

// TooDeep tells whether values of a type are nested deeper than MaxDepth.
func TooDeep(t cty.Type) bool { return deeper(t, MaxDepth) }

func deeper(t cty.Type, than int) bool {
	switch {
	case t.IsPrimitiveType() || t == cty.DynamicPseudoType || t.IsCapsuleType():
		return false
	case than == 0:
		return true
	case t.IsCollectionType():
		return deeper(t.ElementType(), than-1)
	case t.IsTupleType():
		return slices.ContainsFunc(t.TupleElementTypes(), func(e cty.Type) bool { return deeper(e, than-1) })
	}
	for _, a := range t.AttributeTypes() {
		if deeper(a, than-1) {
			return true
		}
	}
	return false
}

// Bounded refuses JSON of a type and a value of it that ctyjson needs much more memory
// for than it has bytes: it keeps a copy a level, and exponents, which it never writes,
// are numbers of a billion digits in a few bytes. A level of a type has two brackets:
// ["object",{"a":"string"}].
func Bounded(typ, value []byte) error {
	return errors.Join(bounded(typ, 2*MaxDepth), bounded(value, MaxDepth))
}

func bounded(raw []byte, brackets int) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	for depth := 0; ; {
		t, err := dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '[' || t == '{' {
				depth++
			} else {
				depth--
			}
			if depth > brackets {
				return fmt.Errorf("it is nested deeper than %d levels", MaxDepth)
			}
		case json.Number:
			if strings.ContainsAny(t.String(), "eE") {
				return fmt.Errorf("the number %.20s has an exponent", t)
			}
		}
	}
}
