package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	if err := errors.Join(Bounded(typ), Bounded(value)); err != nil {
		return cty.NilVal, err
	}
	ty, err := ctyjson.UnmarshalType(typ)
	if err != nil {
		return cty.NilVal, fmt.Errorf("its type: %w", err)
	}
	return ctyjson.Unmarshal(value, ty)
}

// maxDepth is how deep lists and objects of a value may lie in one another.
const maxDepth = 64

// Bounded refuses JSON that ctyjson needs much more memory for than it has bytes:
// it keeps a copy a level, and exponents, which it never writes, are numbers of a
// billion digits in a few bytes.
func Bounded(raw []byte) error {
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
			if depth > maxDepth {
				return fmt.Errorf("it is nested deeper than %d levels", maxDepth)
			}
		case json.Number:
			if strings.ContainsAny(t.String(), "eE") {
				return fmt.Errorf("the number %.20s has an exponent", t)
			}
		}
	}
}
