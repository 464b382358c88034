package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Moved gives objects other addresses: all of them at once, before anything is
// done to any of them. Ids stay.
type Moved struct {
	Moves []Move `json:"moves"`
}

// UnmarshalJSON reads the moves one by one, and the first that is none ends it: a
// list of nothing takes much more memory than its bytes.
func (m *Moved) UnmarshalJSON(data []byte) error {
	var raw struct {
		Moves json.RawMessage `json:"moves"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	if len(raw.Moves) == 0 || string(raw.Moves) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw.Moves))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("its moves are no list")
	}
	for dec.More() {
		var one Move
		if err := dec.Decode(&one); err != nil {
			return err
		}
		if one.From == (addr.Address{}) || one.To == (addr.Address{}) {
			return fmt.Errorf("move %d lacks an address", len(m.Moves)+1)
		}
		m.Moves = append(m.Moves, one)
	}
	return nil
}

// Move is one object's, a resource's included.
type Move struct {
	From addr.Address `json:"from"`
	To   addr.Address `json:"to"`
}

// Relabel gives the objects of s, and what is pending, the addresses of moves.
// Those that s does not have change nothing. s and pending stay as they are.
func Relabel(s State, pending []Pending, moves []Move) (State, []Pending) {
	if len(moves) == 0 {
		return s, pending
	}
	to := targets(moves)
	s.Objects = slices.Clone(s.Objects)
	for i := range s.Objects {
		s.Objects[i].relabel(to)
	}
	sortObjects(s.Objects)
	pending = slices.Clone(pending)
	for i := range pending {
		pending[i].relabel(to)
	}
	sortPending(pending)
	return s, pending
}

func targets(moves []Move) map[addr.Address]addr.Address {
	to := make(map[addr.Address]addr.Address, len(moves))
	for _, m := range moves {
		to[m.From] = m.To
	}
	return to
}

func (o *Object) relabel(to map[addr.Address]addr.Address) {
	if a, ok := to[o.Addr]; ok {
		o.Addr = a
	}
	for i, dep := range o.DependsOn {
		if a, ok := to[dep]; ok && a.Deposed() == "" { // who depends on a node depends on its successor
			list := slices.Clone(o.DependsOn) // the list may be another state's as well
			list[i] = a
			o.DependsOn = list
		}
	}
}

func (p *Pending) relabel(to map[addr.Address]addr.Address) {
	if a, ok := to[p.Addr]; ok {
		p.Addr = a
	}
	if p.Object != nil {
		o := *p.Object
		o.relabel(to)
		p.Object = &o
	}
}

// move is Relabel amid a journal.
func (f *folder) move(moves []Move) {
	to := targets(moves)
	f.objects = slices.DeleteFunc(f.objects, func(o Object) bool { return o.Type == "" })
	f.parts = nil
	clear(f.at)
	for i := range f.objects {
		f.objects[i].relabel(to)
		f.at[f.objects[i].Addr] = i
	}
	pending := make(map[addr.Address]Pending, len(f.pending))
	for _, p := range f.pending {
		p.relabel(to)
		pending[p.Addr] = p
	}
	f.pending = pending
}

func sortObjects(objects []Object) {
	slices.SortFunc(objects, func(a, b Object) int { return addr.Compare(a.Addr, b.Addr) })
}

func sortPending(pending []Pending) {
	slices.SortFunc(pending, func(a, b Pending) int { return addr.Compare(a.Addr, b.Addr) })
}
