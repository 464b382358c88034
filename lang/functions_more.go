package lang

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
)

// FunctionNames are the functions that expressions can call, in order.
func FunctionNames() []string {
	var names []string
	for name := range functions(nil) {
		if refusedFunctions[name] == "" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// refusedFunctions are Terraform's that a definition can't have, and why. They
// can be called, so that the error says what to do.
var refusedFunctions = map[string]string{
	"timestamp":     "its value is another one on every call, so that no plan would ever be without changes; give the time with a variable",
	"plantimestamp": "its value is another one in every plan, so that no plan would ever be without changes; give the time with a variable",
	"uuid":          "its value is another one on every call, so that no plan would ever be without changes; use uuidv5, or give it with a variable",
	"bcrypt":        "its value is another one on every call, so that no plan would ever be without changes; give the hash with a variable",
	"abspath":       "a definition means the same on every machine; paths are relative to its directory",
	"pathexpand":    "a definition means the same for everybody, and a home directory is somebody's; give the path with a variable",
	"rsadecrypt":    "PKCS #1 v1.5 is no safe way to encrypt; give the secret with a sensitive variable",
	"list":          "Terraform has removed it; write [a, b], or tolist([a, b])",
	"map":           "Terraform has removed it; write { a = 1 }, or tomap({ a = 1 })",
}

func refusedFunc(why string) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "args", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowMarked: true, AllowNull: true, AllowUnknown: true},
		Type:     func([]cty.Value) (cty.Type, error) { return cty.NilType, errors.New(why) },
		Impl:     func([]cty.Value, cty.Type) (cty.Value, error) { return cty.NilVal, errors.New(why) },
	})
}

// sum is what a hash function makes of data, in an encoding.
func sumOf(h func() hash.Hash, encode func([]byte) string) func([]byte) string {
	return func(data []byte) string {
		s := h()
		s.Write(data)
		return encode(s.Sum(nil))
	}
}

var (
	inHex    = hex.EncodeToString
	inBase64 = base64.StdEncoding.EncodeToString
)

// ofText makes a function of strings of one of bytes.
func ofText(f func([]byte) string) function.Function {
	return stringFunc(func(s string) (string, error) { return f([]byte(s)), nil })
}

// maxUnzipped bounds what base64gunzip makes of its argument.
const maxUnzipped = 16 << 20

func base64Gunzip(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", errors.New("is not base64")
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", errors.New("is not compressed by gzip")
	}
	out, err := io.ReadAll(io.LimitReader(r, maxUnzipped+1))
	switch {
	case err != nil:
		return "", errors.New("is not compressed by gzip, or is cut short")
	case len(out) > maxUnzipped:
		return "", errors.New("holds more than 16 MiB")
	case !utf8.Valid(out):
		return "", errors.New("holds bytes that are no text in UTF-8")
	}
	return string(out), nil
}

// charset finds a character set by its IANA name.
func charset(name string) (encoding.Encoding, error) {
	plain := func(s string) string {
		return strings.NewReplacer(" ", "", "-", "", "_", "").Replace(strings.ToLower(s))
	}
	switch want := plain(name); want {
	case "utf8":
		return unicode.UTF8, nil
	case "utf16", "utf16be":
		return unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), nil
	case "utf16le":
		return unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), nil
	default:
		for _, e := range charmap.All {
			if c, ok := e.(*charmap.Charmap); ok && plain(c.String()) == want {
				return c, nil
			}
		}
	}
	return nil, function.NewArgErrorf(1, "%q is no character set that is known here: there are UTF-8, UTF-16LE, UTF-16BE, ISO-8859-1 and its kin, windows-1252 and its kin, KOI8-R, KOI8-U", name)
}

func charsetFunc(impl func(e encoding.Encoding, s string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params:       []function.Parameter{{Name: "str", Type: cty.String}, {Name: "encoding", Type: cty.String}},
		Type:         function.StaticReturnType(cty.String),
		RefineResult: notNull,
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			e, err := charset(args[1].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			out, err := impl(e, args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			return cty.StringVal(out), nil
		},
	})
}

var textEncodeFunc = charsetFunc(func(e encoding.Encoding, s string) (string, error) {
	out, err := e.NewEncoder().String(s)
	if err != nil {
		return "", errors.New("has characters that the character set doesn't have")
	}
	return inBase64([]byte(out)), nil
})

var textDecodeFunc = charsetFunc(func(e encoding.Encoding, s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", errors.New("is not base64")
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil || bytes.ContainsRune(out, utf8.RuneError) {
		return "", errors.New("is no text in this character set")
	}
	return string(out), nil
})

// namespaces of uuidv5, as RFC 4122 has them.
var namespaces = map[string]string{
	"dns": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "url": "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
	"oid": "6ba7b812-9dad-11d1-80b4-00c04fd430c8", "x500": "6ba7b814-9dad-11d1-80b4-00c04fd430c8",
}

var uuidv5Func = function.New(&function.Spec{
	Params:       []function.Parameter{{Name: "namespace", Type: cty.String}, {Name: "name", Type: cty.String}},
	Type:         function.StaticReturnType(cty.String),
	RefineResult: notNull,
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		text := args[0].AsString()
		space, err := hex.DecodeString(strings.ReplaceAll(cmp.Or(namespaces[text], text), "-", ""))
		if err != nil || len(space) != 16 {
			return cty.NilVal, function.NewArgErrorf(0, "%q is neither a UUID nor dns, url, oid or x500", text)
		}
		sum := sha1.Sum(append(space, args[1].AsString()...))
		u := sum[:16]
		u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80 // version 5, variant of RFC 4122
		return cty.StringVal(fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])), nil
	},
})

var timeCmpFunc = function.New(&function.Spec{
	Params:       []function.Parameter{{Name: "a", Type: cty.String}, {Name: "b", Type: cty.String}},
	Type:         function.StaticReturnType(cty.Number),
	RefineResult: notNull,
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var t [2]time.Time
		for i, a := range args {
			var err error
			if t[i], err = time.Parse(time.RFC3339, a.AsString()); err != nil {
				return cty.NilVal, function.NewArgErrorf(i, "%q is no time as 2006-01-02T15:04:05Z", a.AsString())
			}
		}
		return cty.NumberIntVal(int64(t[0].Compare(t[1]))), nil
	},
})

// matchKeysFunc gives the values whose keys, at the same places, are searched for.
var matchKeysFunc = function.New(&function.Spec{
	Params: []function.Parameter{
		{Name: "values", Type: cty.List(cty.DynamicPseudoType)},
		{Name: "keys", Type: cty.List(cty.DynamicPseudoType)},
		{Name: "searchset", Type: cty.List(cty.DynamicPseudoType)},
	},
	Type: func(args []cty.Value) (cty.Type, error) {
		if t, _ := convert.UnifyUnsafe([]cty.Type{args[1].Type(), args[2].Type()}); t == cty.NilType {
			return cty.NilType, function.NewArgErrorf(2, "must be of the same type as the keys")
		}
		return args[0].Type(), nil
	},
	RefineResult: notNull,
	Impl: func(args []cty.Value, t cty.Type) (cty.Value, error) {
		if !args[0].IsWhollyKnown() || !args[1].IsWhollyKnown() || !args[2].IsWhollyKnown() {
			return cty.UnknownVal(t), nil
		}
		if args[0].LengthInt() != args[1].LengthInt() {
			return cty.NilVal, errors.New("there must be as many keys as values")
		}
		values, search := args[0].AsValueSlice(), args[2].AsValueSlice()
		var out []cty.Value
		for i, key := range args[1].AsValueSlice() {
			for _, s := range search {
				if eq, err := stdlib.Equal(key, s); err == nil && eq.True() {
					out = append(out, values[i])
					break
				}
			}
		}
		if len(out) == 0 {
			return cty.ListValEmpty(t.ElementType()), nil
		}
		return cty.ListVal(out), nil
	},
})

// transposeFunc turns a map of lists around: {a=[x,y]} to {x=[a], y=[a]}.
var transposeFunc = function.New(&function.Spec{
	Params:       []function.Parameter{{Name: "values", Type: cty.Map(cty.List(cty.String))}},
	Type:         function.StaticReturnType(cty.Map(cty.List(cty.String))),
	RefineResult: notNull,
	Impl: func(args []cty.Value, t cty.Type) (cty.Value, error) {
		if !args[0].IsWhollyKnown() {
			return cty.UnknownVal(t), nil
		}
		turned := map[string][]cty.Value{}
		for it := args[0].ElementIterator(); it.Next(); { // in the order of its keys
			key, list := it.Element()
			if list.IsNull() {
				return cty.NilVal, function.NewArgErrorf(0, "has a list that is null")
			}
			for _, v := range list.AsValueSlice() {
				if v.IsNull() {
					return cty.NilVal, function.NewArgErrorf(0, "has a string that is null")
				}
				turned[v.AsString()] = append(turned[v.AsString()], key)
			}
		}
		out := make(map[string]cty.Value, len(turned))
		for name, keys := range turned {
			out[name] = cty.ListVal(keys)
		}
		if len(out) == 0 {
			return cty.MapValEmpty(cty.List(cty.String)), nil
		}
		return cty.MapVal(out), nil
	},
})
