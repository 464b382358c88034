package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Select is what the state has at a, in address order: the object, a group with
// its resources, all instances of a block, or all that a module holds.
func (s *State) Select(a addr.Address) []addr.Address {
	var out []addr.Address
	for i := range s.Objects {
		o := s.Objects[i].Addr
		switch {
		case a.IsModule() && a.Covers(o), o == a, o.WithoutKey() == a,
			!a.IsResource() && (o.Owner() == a || o.Owner().WithoutKey() == a):
			out = append(out, o)
		}
	}
	return out
}

// Rename gives the object at from, or all instances of the block from, or all
// that the module from holds, the address to. Ids stay, and who depends on them follows. s stays as it is; the
// error says what to do instead.
func Rename(s State, from, to addr.Address) (State, []Move, error) {
	found := s.Select(from)
	switch {
	case from == to:
		return s, nil, fmt.Errorf("both addresses are %s; name another one to move it to", from)
	case from.Type == addr.TypeCluster || to.Type == addr.TypeCluster:
		return s, nil, errors.New("the cluster has one address; to give it another name, change its label in the definition and apply")
	case len(found) == 0:
		return s, nil, notInState(from)
	case from.IsModule() && to.IsModule():
		return renameModule(s, from, to, found)
	case from.IsModule() || to.IsModule():
		return s, nil, fmt.Errorf("%s can't become %s: one of the two is a module, the other is an object", from, to)
	case from.Type != to.Type:
		return s, nil, fmt.Errorf("%s can't become %s: a %s stays a %s; have apply make the other one anew", from, to, from.Type, from.Type)
	case from.IsResource() != to.IsResource():
		return s, nil, fmt.Errorf("%s can't become %s: one of the two is a resource in a group, the other is a group", from, to)
	case from.IsResource() && from.Owner() != to.Owner():
		return s, nil, fmt.Errorf("%s can't go to %s: a resource stays in its group, for the two are one in the cluster; move the group, or have apply make the resource anew there", from, to.Owner())
	}
	exact := s.Find(from) != nil
	if key := keyOf(to); !exact && !key.IsNone() {
		return s, nil, fmt.Errorf("%s has instances, and they can't all be %s; name one of them, as %s, or move all to an address without a key", from, to, found[0])
	}
	moved := make(map[addr.Address]addr.Address, len(found))
	out := make([]Move, 0, len(found))
	for _, a := range found {
		b := to
		switch {
		case from.IsResource() && !exact:
			b.ResourceKey = a.ResourceKey
		case !from.IsResource():
			b = b.WithResource(a.Resource, a.ResourceKey)
			if !exact {
				b.Key = a.Key
			}
		}
		moved[a] = b
		out = append(out, Move{a, b})
	}
	return rename(s, out, moved)
}

// renameModule gives what a module holds, found, another module's path.
func renameModule(s State, from, to addr.Address, found []addr.Address) (State, []Move, error) {
	moved := make(map[addr.Address]addr.Address, len(found))
	out := make([]Move, 0, len(found))
	for _, a := range found {
		rest := strings.TrimPrefix(a.Module, from.Module)
		if strings.HasPrefix(rest, "[") && strings.HasSuffix(to.Module, "]") {
			return s, nil, fmt.Errorf("%s has instances, and they can't all be %s; name one of them, as %s, or move all to an address without a key", from, to, a.Module)
		}
		b := a
		b.Module = to.Module + rest
		moved[a] = b
		out = append(out, Move{a, b})
	}
	return rename(s, out, moved)
}

func rename(s State, out []Move, moved map[addr.Address]addr.Address) (State, []Move, error) {
	for _, m := range out {
		if _, leaves := moved[m.To]; !leaves && s.Find(m.To) != nil {
			return s, nil, fmt.Errorf("the state has %s already; move that away first, or forget it with clusterplan state rm", m.To)
		}
	}
	s, _ = Relabel(s, nil, out)
	return s, out, nil
}

func keyOf(a addr.Address) addr.Key {
	if a.IsResource() {
		return a.ResourceKey
	}
	return a.Key
}

// MissingError says that the state has no object at an address.
type MissingError struct{ Addr addr.Address }

func (e *MissingError) Error() string {
	return fmt.Sprintf("the state has no %s; clusterplan state list shows what it has", e.Addr)
}

func notInState(a addr.Address) error { return &MissingError{a} }

// Forget takes objects out of the state: what an address selects, groups with
// their resources. The cluster goes last, and its identity with it. s stays as
// it is; the error says what to do instead.
func Forget(s State, which ...addr.Address) (State, []addr.Address, error) {
	gone := map[addr.Address]bool{}
	for _, a := range which {
		found := s.Select(a)
		if len(found) == 0 {
			return s, nil, notInState(a)
		}
		for _, f := range found {
			gone[f] = true
		}
	}
	for _, a := range which {
		if a.IsResource() && !gone[a.Owner()] {
			return s, nil, fmt.Errorf("%s can't be forgotten on its own: the cluster holds a group and its resources as one; forget %s, or take the resource out of the definition and apply", a, a.Owner())
		}
	}
	var out []addr.Address
	var left []Object
	for _, o := range s.Objects {
		if gone[o.Addr] {
			out = append(out, o.Addr)
			continue
		}
		if slices.ContainsFunc(o.DependsOn, func(a addr.Address) bool { return gone[a] }) {
			o.DependsOn = slices.DeleteFunc(slices.Clone(o.DependsOn), func(a addr.Address) bool { return gone[a] })
		}
		left = append(left, o)
	}
	if gone[addr.Cluster()] {
		if len(left) > 0 {
			return s, nil, fmt.Errorf("the cluster can't be forgotten while the state has %s: its keys, which are all that opens the cluster, would go with it; forget everything at once, or use clusterplan destroy", left[0].Addr)
		}
		s.Cluster, s.Outputs = nil, nil
	}
	s.Objects = left
	return s, out, nil
}

// ErrEdited says that a snapshot is no longer as clusterplan wrote it.
var ErrEdited = errors.New("it was changed since clusterplan wrote it")

// UnmarshalForeign reads a snapshot that comes from elsewhere, so that it may
// be taken for the state: more is checked than Unmarshal does. One whose
// checksum is not right is returned together with ErrEdited, for a person may
// have meant to change it; all other errors come without a state.
func UnmarshalForeign(data []byte) (*State, error) {
	s, err := Unmarshal(data)
	if err == nil {
		return s, s.check()
	}
	if !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	edited := new(State)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // what this program doesn't know it would lose
	var first json.RawMessage   // something may follow it
	derr := json.NewDecoder(bytes.NewReader(data)).Decode(&first)
	if derr == nil {
		derr = unmarshal(first, new(State)) // within bounds
	}
	if derr == nil {
		derr = dec.Decode(edited)
	}
	if derr != nil {
		var v struct {
			Format string `json:"format_version"`
		}
		switch {
		case !json.Valid(data):
			return nil, err // it says where
		case json.Unmarshal(data, &v) == nil && v.Format == "":
			return nil, errors.New("it is no clusterplan state")
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, derr)
	}
	if _, derr := dec.Token(); derr != io.EOF {
		return nil, fmt.Errorf("%w: something stands behind the end of the state", ErrDamaged)
	}
	if err := checkVersion(edited.FormatVersion, edited.Program); err != nil {
		return nil, err
	}
	slices.SortStableFunc(edited.Objects, func(a, b Object) int { return addr.Compare(a.Addr, b.Addr) })
	if err := edited.upgrade(); err != nil {
		return nil, err
	}
	if err := edited.check(); err != nil {
		return nil, err
	}
	return edited, ErrEdited
}

// check says what makes a state unusable, whoever wrote it.
func (s *State) check() error {
	if s.Lineage == "" {
		return errors.New("it has no lineage, so nobody can tell which state it continues")
	}
	ids := make(map[string]addr.Address, len(s.Objects))
	for i := range s.Objects {
		o := &s.Objects[i]
		other, twice := ids[o.ID]
		switch {
		case o.Addr == (addr.Address{}):
			return fmt.Errorf("object %d has no address", i+1)
		case i > 0 && s.Objects[i-1].Addr == o.Addr:
			return fmt.Errorf("%s is there twice", o.Addr)
		case o.Type == "" || o.Provider == "" || o.ID == "":
			return fmt.Errorf("%s has no type, no provider or no id", o.Addr)
		case !o.Addr.IsResource() && o.Type != o.Addr.Type:
			return fmt.Errorf("%s is of the type %q", o.Addr, o.Type)
		case twice:
			return fmt.Errorf("%s and %s have the same id %s", other, o.Addr, o.ID)
		case o.Addr.IsResource() && s.Find(o.Addr.Owner()) == nil:
			return fmt.Errorf("%s is there, its group is not", o.Addr)
		}
		ids[o.ID] = o.Addr
		var attributes map[string]json.RawMessage
		if json.Unmarshal(o.Attributes, &attributes) != nil {
			return fmt.Errorf("the attributes of %s are no object", o.Addr)
		}
	}
	return nil
}
