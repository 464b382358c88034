package planfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/planner"
)

// A plan file is JSON with a line a field, Kind first, and last the checksum
// over every byte before its line.
const (
	beginning     = "{\n  \"kind\": \"" + Kind + "\",\n"
	checksumStart = "  \"checksum\": \"sha256:"
	checksumEnd   = "\"\n}\n"
)

// Marshal writes f.
func Marshal(f *File) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(beginning)
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
	field("format_version", FormatVersion)
	field("program", f.Program)
	field("dir", f.Dir)
	field("abs", f.Abs)
	field("options", f.Options)
	field("rests_on", f.RestsOn)
	field("variables", orEmpty(f.Variables))
	field("sources", orEmpty(f.Sources))
	field("plan", f.Plan)
	field("text", f.Text)
	if err != nil {
		return nil, fmt.Errorf("write plan file: %w", err)
	}
	b.WriteString(checksumOf(b.Bytes()))
	if b.Len() > Limit {
		return nil, fmt.Errorf("write plan file: it would have %d bytes, and no more than %d are read back; apply without a plan file", b.Len(), Limit)
	}
	return b.Bytes(), nil
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// checksumOf is the end of a file that begins with data.
func checksumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return checksumStart + hex.EncodeToString(sum[:]) + checksumEnd
}

// IsPlan tells whether a file that begins with data is one of ours, if only
// part of one.
func IsPlan(data []byte) bool { return bytes.HasPrefix(data, []byte(beginning)) }

// wire is a file on its way in. Lists stay text here: they are read element by
// element, and the first bad one ends it.
type wire struct {
	header
	Dir       string          `json:"dir"`
	Abs       string          `json:"abs"`
	Options   Options         `json:"options"`
	RestsOn   RestsOn         `json:"rests_on"`
	Variables json.RawMessage `json:"variables"`
	Sources   json.RawMessage `json:"sources"`
	Plan      json.RawMessage `json:"plan"`
	Text      string          `json:"text"`
}

// header is what every version of a file has.
type header struct {
	Kind          string `json:"kind"`
	FormatVersion string `json:"format_version"`
	Program       string `json:"program"`
}

// Unmarshal reads a file. Its errors wrap ErrNotPlan, ErrDamaged or ErrNewer.
func Unmarshal(data []byte) (*File, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%w: there is nothing in it", ErrNotPlan)
	}
	at := bytes.LastIndex(data, []byte(checksumStart))
	whole := at >= 0 && string(data[at:]) == checksumOf(data[:at])
	if !whole {
		return nil, broken(data, at)
	}
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		if err := checkVersion(data); err != nil {
			return nil, err
		}
		return nil, damaged(err)
	}
	if err := w.header.check(); err != nil {
		return nil, err
	}
	f := &File{Program: w.Program, Dir: w.Dir, Abs: w.Abs, Options: w.Options, RestsOn: w.RestsOn, Plan: w.Plan, Text: w.Text}
	var err error
	last := ""
	f.Variables, err = list(w.Variables, func(v *Variable) error {
		if v.Name <= last {
			return fmt.Errorf("variable %q stands after %q, or twice", v.Name, last)
		}
		last = v.Name
		_, err := v.Cty()
		return err
	})
	if err != nil {
		return nil, damaged(err)
	}
	last = ""
	if f.Sources, err = list(w.Sources, func(s *Source) error {
		if s.Path <= last {
			return fmt.Errorf("the definition's %q stands after %q, or twice", s.Path, last)
		}
		last = s.Path
		return s.check()
	}); err != nil {
		return nil, damaged(err)
	}
	for _, text := range slices.Concat(f.Options.Replace, f.Options.Targets, f.Options.Excludes) {
		if _, err := addr.ParseTarget(text); err != nil {
			return nil, damaged(err)
		}
	}
	if mode := f.Options.Mode; mode != planner.ModeNormal && mode != planner.ModeDestroy && mode != planner.ModeRefreshOnly {
		return nil, damaged(fmt.Errorf("its plan is of mode %q", mode))
	}
	if len(f.Plan) == 0 || f.Plan[0] != '{' || f.Abs == "" {
		return nil, damaged(errors.New("it lacks the plan or its directory"))
	}
	return f, nil
}

// broken says what is wrong with a file whose checksum is not that of its bytes.
func broken(data []byte, at int) error {
	if err := checkVersion(data); errors.Is(err, ErrNewer) || errors.Is(err, ErrNotPlan) && !IsPlan(data) {
		return err
	}
	if at < 0 {
		return fmt.Errorf("%w: its end is missing; it was written or copied in part only", ErrDamaged)
	}
	return fmt.Errorf("%w: its checksum is not that of its bytes; something other than clusterplan changed it", ErrDamaged)
}

func damaged(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w at byte %d: %w", ErrDamaged, syntax.Offset, err)
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// checkVersion reads the header alone: the rest may be of any shape.
func checkVersion(data []byte) error {
	var h header
	if json.Unmarshal(data, &h) != nil {
		return fmt.Errorf("%w of clusterplan's", ErrNotPlan)
	}
	return h.check()
}

func (h *header) check() error {
	if h.Kind != Kind {
		return fmt.Errorf("%w of clusterplan's", ErrNotPlan)
	}
	major, minor, ok := version(h.FormatVersion)
	ownMajor, ownMinor, _ := version(FormatVersion)
	switch {
	case !ok || major < ownMajor:
		return fmt.Errorf("%w: its format_version is %q", ErrDamaged, h.FormatVersion)
	case major > ownMajor || minor > ownMinor:
		return fmt.Errorf("%w: %s, in format %s; this program reads up to %s", ErrNewer, strings.TrimSpace("clusterplan "+h.Program), h.FormatVersion, FormatVersion)
	}
	return nil
}

func version(s string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(s, "%d.%d", &major, &minor)
	return major, minor, n == 2 && err == nil && s == fmt.Sprintf("%d.%d", major, minor)
}

// list reads a JSON list, and stops at the first element that is none.
func list[T any](raw json.RawMessage, check func(*T) error) ([]T, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("a list is missing")
	}
	var out []T
	for dec.More() {
		var one T
		if err := dec.Decode(&one); err != nil {
			return nil, err
		}
		if err := check(&one); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

// VariableOf is the variable name with the value v, which is known and has no marks.
func VariableOf(name string, v cty.Value) (Variable, error) {
	typ, err := ctyjson.MarshalType(v.Type())
	if err != nil {
		return Variable{}, fmt.Errorf("write plan file: type of var.%s: %w", name, err)
	}
	value, err := ctyjson.Marshal(v, v.Type())
	if err == nil {
		err = schema.Bounded(typ, value)
	}
	if err != nil {
		return Variable{}, fmt.Errorf("write plan file: var.%s: %w", name, err)
	}
	return Variable{Name: name, Type: typ, Value: value}, nil
}

// Cty is the variable's value.
func (v *Variable) Cty() (cty.Value, error) {
	value, err := schema.Stored(v.Type, v.Value)
	if err != nil {
		return cty.NilVal, fmt.Errorf("var.%s: %w", v.Name, err)
	}
	return value, nil
}

// check finds what no recorder writes.
func (s *Source) check() error {
	if !fs.ValidPath(s.Path) {
		return fmt.Errorf("%q is no path in a directory", s.Path)
	}
	switch s.Type {
	case "", typeFile, typeDir, typeOther, typeAbsent:
	default:
		return fmt.Errorf("%s is of type %q", s.Path, s.Type)
	}
	if s.Text != nil && s.Data != nil {
		return fmt.Errorf("%s has two contents", s.Path)
	}
	for i, e := range s.Entries {
		if !fs.ValidPath(e.Name) || e.Name == "." || strings.Contains(e.Name, "/") || i > 0 && e.Name <= s.Entries[i-1].Name {
			return fmt.Errorf("%s lists %q, or not in order", s.Path, e.Name)
		}
	}
	return nil
}
