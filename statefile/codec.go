package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Errors, wrapped with what and where.
var (
	ErrDamaged = errors.New("damaged")
	ErrNewer   = errors.New("written by a newer clusterplan")
	ErrLineage = errors.New("another lineage")
)

// A snapshot is JSON laid out in lines of our own: what is small field by field,
// then one line an object, then the checksum over every byte before its line.
// So a damaged place has a line number, and a version control system shows what
// an apply changed.
const (
	checksumStart = "  \"checksum\": \"sha256:"
	checksumEnd   = "\"\n}\n"
)

// Marshal writes s as a snapshot. FormatVersion and Checksum are filled in;
// Objects have to be in address order, each once. Sensitive values are written as
// digests.
func Marshal(s *State) ([]byte, error) {
	if s.DigestKey == "" && s.Secrets() {
		keyed := *s
		keyed.DigestKey = NewDigestKey()
		s = &keyed
	}
	return marshal(s, FormatVersion)
}

func marshal(s *State, format string) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(1024 + 512*len(s.Objects))
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	var err error
	field := func(name string, v any) {
		if err == nil {
			fmt.Fprintf(&b, "  %q: ", name)
			err = enc.Encode(v)
			b.Truncate(b.Len() - 1) // Encode's new line
			b.WriteString(",\n")
		}
	}
	b.WriteString("{\n")
	field("format_version", format)
	field("program", s.Program)
	field("serial", s.Serial)
	field("lineage", s.Lineage)
	if s.DigestKey != "" {
		field("digest_key", s.DigestKey)
	}
	if s.Cluster != nil {
		field("cluster", s.Cluster)
	}
	if len(s.Outputs) > 0 {
		field("outputs", s.Outputs)
	}
	field("definition", s.Definition)
	if len(s.Variables) > 0 {
		field("variables", s.Variables)
	}
	if len(s.History) > 0 { // a line an apply
		b.WriteString("  \"history\": [\n")
		for i := range s.History {
			if i > 0 {
				b.Truncate(b.Len() - 1)
				b.WriteString(",\n")
			}
			b.WriteString("    ")
			if err == nil {
				err = enc.Encode(&s.History[i])
			}
		}
		b.WriteString("  ],\n")
	}
	b.WriteString("  \"objects\": [\n")
	for i := range s.Objects {
		o := &s.Objects[i]
		if i > 0 && addr.Compare(s.Objects[i-1].Addr, o.Addr) >= 0 {
			return nil, fmt.Errorf("write state: %s stands after %s, or twice", o.Addr, s.Objects[i-1].Addr)
		}
		if err == nil {
			b.WriteString("    ")
			err = enc.Encode(o.hidden(s.DigestKey))
		}
		if i < len(s.Objects)-1 {
			b.Truncate(b.Len() - 1)
			b.WriteString(",\n")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	b.WriteString("  ],\n")
	b.WriteString(checksumOf(b.Bytes()))
	return b.Bytes(), nil
}

// checksumOf is the end of a snapshot that begins with data.
func checksumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return checksumStart + hex.EncodeToString(sum[:]) + checksumEnd
}

// Limit is the size that no file of a state exceeds.
const Limit = 1 << 30

// Unmarshal reads a snapshot, also of an older format, and makes it one of
// today's. Its errors wrap ErrDamaged, with the line, or ErrNewer.
func Unmarshal(data []byte) (*State, error) {
	s, _, err := Upgrade(data)
	return s, err
}

// read reads a snapshot as it is.
func read(data []byte) (*State, error) {
	var s State
	at := bytes.LastIndex(data, []byte(checksumStart))
	whole := at >= 0 && string(data[at:]) == checksumOf(data[:at])
	if !whole || !unmarshalFast(data, &s) {
		s = State{}
		if err := unmarshal(data, &s); err != nil {
			if err := newer(data); err != nil {
				return nil, err
			}
			return nil, damaged(data, err)
		}
	}
	if err := checkVersion(s.FormatVersion, s.Program); err != nil {
		return nil, err
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: no checksum stands at its end; it was written or laid out anew by another program", ErrDamaged)
	}
	if !whole {
		return nil, fmt.Errorf("%w: the checksum in line %d is not that of the lines before it; they were changed by something other than clusterplan",
			ErrDamaged, line(data, int64(at)))
	}
	for i := 1; i < len(s.Objects); i++ {
		if addr.Compare(s.Objects[i-1].Addr, s.Objects[i].Addr) >= 0 {
			return nil, fmt.Errorf("%w: %s stands after %s, or twice", ErrDamaged, s.Objects[i].Addr, s.Objects[i-1].Addr)
		}
	}
	return &s, nil
}

// unmarshal reads JSON in any layout. Objects are read one by one, and the first
// that is none ends it: a list of nothing takes much more memory than its bytes.
func unmarshal(data []byte, s *State) error {
	type plain State // without State's methods, and its objects in text
	head := struct {
		*plain
		Objects json.RawMessage `json:"objects"`
	}{plain: (*plain)(s)}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if len(head.Objects) == 0 || string(head.Objects) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(head.Objects))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("its objects are no list")
	}
	s.Objects = []Object{}
	for dec.More() {
		var raw json.RawMessage
		var small struct {
			DependsOn []string `json:"depends_on"`
		}
		var o Object
		err := dec.Decode(&raw)
		if err == nil {
			err = json.Unmarshal(raw, &small)
		}
		if slices.Contains(small.DependsOn, "") {
			err = errors.New("it depends on an object without an address")
		}
		if err == nil {
			err = json.Unmarshal(raw, &o)
		}
		if err != nil {
			return fmt.Errorf("object %d: %w", len(s.Objects)+1, err)
		}
		if o.Addr == (addr.Address{}) {
			return fmt.Errorf("object %d has no address", len(s.Objects)+1)
		}
		s.Objects = append(s.Objects, o)
	}
	return nil
}

// newer tells whether data, which this program can't read, is of a newer
// version: its shape may be anything then but for these two fields.
func newer(data []byte) error {
	var v struct {
		FormatVersion string `json:"format_version"`
		Program       string `json:"program"`
	}
	if json.Unmarshal(data, &v) != nil {
		return nil
	}
	err := checkVersion(v.FormatVersion, v.Program)
	if errors.Is(err, ErrNewer) {
		return err
	}
	return nil
}

func damaged(data []byte, err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	case errors.As(err, &syntax):
		return fmt.Errorf("%w in line %d, byte %d: %w", ErrDamaged, line(data, syntax.Offset), syntax.Offset, err)
	case errors.As(err, &typ):
		return fmt.Errorf("%w in line %d, byte %d: %s holds a %s", ErrDamaged, line(data, typ.Offset), typ.Offset, typ.Field, typ.Value)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func line(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
}

// Find is the object at a, or nil.
func (s *State) Find(a addr.Address) *Object {
	i, ok := slices.BinarySearchFunc(s.Objects, a, func(o Object, a addr.Address) int { return addr.Compare(o.Addr, a) })
	if !ok {
		return nil
	}
	return &s.Objects[i]
}
