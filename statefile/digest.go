package statefile

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// Of sensitive values the state keeps digests: enough to see whether one changed.
// Each is an HMAC-SHA-256 of the value, its place in its object and the object's
// id, under a key of the state's own. So the same secret in two places, or in two
// states, has nothing in common. The key stands in the state: who has that has the
// cluster's own keys too, and by them all that runs there. What a digest is for is
// that nobody reads a secret by the way, in a backup, a diff or a search; a short
// one can be guessed by whoever has the file.
//
// Digests stand in the place of strings, numbers and bools, in what an object's
// Sensitive names. Names in maps are not secret: plans show them.

// NewDigestKey makes a key for digests.
func NewDigestKey() string {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

// derivedKey is the key of a state that was written before there were any: always
// the same one, so that two readings of it say the same. "": it is given when needed.
func (s *State) derivedKey() string {
	if s.Cluster == nil {
		return "" // it has nothing that is sensitive
	}
	mac := hmac.New(sha256.New, []byte(s.Cluster.CAKey+"\x00"+s.Cluster.Key))
	mac.Write([]byte("digests of " + s.Lineage))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// digester makes the digests of one object's values.
type digester struct{ key, id string }

// of is the digest of what stands at path; text is the value without quotes.
func (d digester) of(path string, kind byte, text string) string {
	mac := hmac.New(sha256.New, []byte(d.key))
	for _, part := range []string{d.id, path, string(kind)} {
		mac.Write(strconv.AppendInt(nil, int64(len(part)), 10))
		mac.Write([]byte{0})
		mac.Write([]byte(part))
	}
	mac.Write([]byte(text))
	return spec.Digest(kind, base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
}

// OutputDigest stands for the value of a sensitive output, given as JSON.
func (s *State) OutputDigest(name string, typ, value []byte) string {
	return digester{s.DigestKey, "output." + name}.of(string(typ), 'v', string(value))
}

// hides tells whether an attribute that the definition calls sensitive is kept as a
// digest. By what all others say the cluster is arranged and reached: nodes, machines
// and groups are found, placed and shown by it, also without the definition.
func (o *Object) hides(name string) bool {
	switch {
	case o.Addr.IsResource():
		return name != "name"
	case o.Addr.Type == addr.TypeFence:
		return name == "parameters"
	case addr.Machinery(o.Addr.Type):
		// The hypervisor tells all that is there; these find it, and nodes are reached by them.
		switch name {
		case "name", "network", "volumes", "pool", "path", "uuid", "macs", "address", "address6", "addresses", "addresses6", "ssh_host_key", "gateway", "gateway6":
			return false
		}
		return true
	}
	return name == "description"
}

// hidden is o with digests for its sensitive values; o itself where all are that.
func (o *Object) hidden(key string) *Object {
	if len(o.Sensitive) == 0 || !slices.ContainsFunc(o.Sensitive, o.hides) {
		return o
	}
	attrs, ok := decodeAttributes(o.Attributes)
	if !ok {
		return o
	}
	d, changed := digester{key, o.ID}, false
	for _, name := range o.Sensitive {
		if v, has := attrs[name]; has && o.hides(name) {
			attrs[name] = d.hide(strconv.Quote(name), v, &changed)
		}
	}
	if !changed {
		return o
	}
	text, err := encodeAttributes(attrs)
	if err != nil {
		return o
	}
	out := *o
	out.Attributes = text
	return &out
}

func (d digester) hide(path string, v any, changed *bool) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = d.hide(step(path, k), e, changed)
		}
		return v
	case []any:
		for i, e := range v {
			v[i] = d.hide(step(path, strconv.Itoa(i)), e, changed)
		}
		return v
	}
	kind, text, ok := leaf(v)
	if _, done := spec.IsDigest(text); !ok || kind == 's' && done {
		return v
	}
	*changed = true
	return d.of(path, kind, text)
}

func step(path, name string) string { return path + "[" + strconv.Quote(name) + "]" }

func leaf(v any) (kind byte, text string, ok bool) {
	switch v := v.(type) {
	case string:
		return 's', v, true
	case json.Number:
		n, err := cty.ParseNumberVal(v.String())
		if err != nil {
			return 'n', v.String(), true
		}
		return 'n', numberText(n), true
	case bool:
		return 'b', strconv.FormatBool(v), true
	}
	return 0, "", false
}

// Known are o's attributes, with the values that digests stand for where one of
// like, values that the object may have, has them. A digest of a string that none
// has stays; one of a number or a bool is left out. So what comes of it fits the
// object's type, and differs from whatever the value is not.
func (s *State) Known(o *Object, like ...cty.Value) json.RawMessage {
	if len(o.Sensitive) == 0 {
		return o.Attributes
	}
	attrs, ok := decodeAttributes(o.Attributes)
	if !ok {
		return o.Attributes
	}
	d, changed := digester{s.DigestKey, o.ID}, false
	for _, name := range o.Sensitive {
		if v, has := attrs[name]; has {
			attrs[name] = d.reveal(strconv.Quote(name), v, below(like, name), &changed)
		}
	}
	if !changed {
		return o.Attributes
	}
	text, err := encodeAttributes(attrs)
	if err != nil {
		return o.Attributes
	}
	return text
}

func (d digester) reveal(path string, v any, like []cty.Value, changed *bool) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = d.reveal(step(path, k), e, below(like, k), changed)
		}
		return v
	case []any:
		for i, e := range v {
			v[i] = d.reveal(step(path, strconv.Itoa(i)), e, at(like, i), changed)
		}
		return v
	case string:
		kind, ok := spec.IsDigest(v)
		if !ok {
			return v
		}
		for _, l := range like {
			if one, text, ok := plain(l); ok && one.kind == kind && hmac.Equal([]byte(d.of(path, kind, text)), []byte(v)) {
				*changed = true
				return one.value
			}
		}
		if kind != 's' {
			*changed = true
			return nil
		}
	}
	return v
}

type known struct {
	kind  byte
	value any
}

// plain is a value as JSON's decoder would have it.
func plain(v cty.Value) (known, string, bool) {
	v, _ = v.Unmark()
	if v == cty.NilVal || !v.IsKnown() || v.IsNull() {
		return known{}, "", false
	}
	switch v.Type() {
	case cty.String:
		return known{'s', v.AsString()}, v.AsString(), true
	case cty.Number:
		text := numberText(v)
		return known{'n', json.Number(text)}, text, true
	case cty.Bool:
		return known{'b', v.True()}, strconv.FormatBool(v.True()), true
	}
	return known{}, "", false
}

// numberText is the same for the same number, however it was written.
func numberText(v cty.Value) string { return v.AsBigFloat().Text('g', -1) }

// below is what each of these values has by a name.
func below(values []cty.Value, name string) []cty.Value {
	var out []cty.Value
	for _, v := range values {
		if v == cty.NilVal {
			continue
		}
		v, _ = v.Unmark()
		switch {
		case !v.IsKnown() || v.IsNull():
		case v.Type().IsObjectType() && v.Type().HasAttribute(name):
			out = append(out, v.GetAttr(name))
		case v.Type().IsMapType() && v.HasIndex(cty.StringVal(name)).True():
			out = append(out, v.Index(cty.StringVal(name)))
		}
	}
	return out
}

// at is what each of these lists has in place i.
func at(values []cty.Value, i int) []cty.Value {
	var out []cty.Value
	for _, v := range values {
		v, _ = v.Unmark()
		if v.IsKnown() && !v.IsNull() && (v.Type().IsListType() || v.Type().IsTupleType()) && i < v.LengthInt() {
			out = append(out, v.Index(cty.NumberIntVal(int64(i))))
		}
	}
	return out
}

func decodeAttributes(text json.RawMessage) (map[string]any, bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var attrs map[string]any
	return attrs, dec.Decode(&attrs) == nil && attrs != nil
}

func encodeAttributes(attrs map[string]any) (json.RawMessage, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	maps.DeleteFunc(attrs, func(_ string, v any) bool { return v == nil })
	if err := enc.Encode(attrs); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// hide has s keep no sensitive value; its list of objects is a new one then.
func (s *State) hide() {
	cloned := false
	for i := range s.Objects {
		o := &s.Objects[i]
		h := o.hidden(s.DigestKey)
		if h == o {
			continue
		}
		if !cloned {
			s.Objects, cloned = slices.Clone(s.Objects), true
		}
		s.Objects[i] = *h
	}
}

// Secrets tells whether s has objects with digests, or with what becomes one.
func (s *State) Secrets() bool {
	return slices.ContainsFunc(s.Objects, func(o Object) bool { return slices.ContainsFunc(o.Sensitive, o.hides) })
}

// Redact is a snapshot, of an older format, with digests of the sensitive values in
// it: the program that wrote it takes them for changed.
func Redact(data []byte) ([]byte, error) {
	s, format, err := Upgrade(data)
	if err != nil {
		return nil, err
	}
	for i := range s.Objects {
		s.Objects[i].Attributes = s.Known(&s.Objects[i])
	}
	s.DigestKey = ""
	return marshal(s, format)
}
