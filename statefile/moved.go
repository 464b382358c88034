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

// Then are the moves that lead where first and then second lead.
func Then(first, second []Move) []Move {
	if len(first) == 0 {
		return second
	}
	next := make(map[addr.Address]addr.Address, len(second))
	for _, m := range second {
		next[m.From] = m.To
	}
	out := make([]Move, 0, len(first)+len(second))
	for _, m := range first {
		if to, ok := next[m.To]; ok {
			delete(next, m.To)
			m.To = to
		}
		if m.From != m.To {
			out = append(out, m)
		}
	}
	for _, m := range second {
		if _, left := next[m.From]; left {
			out = append(out, m)
		}
	}
	return out
}

// Back tells what s has to be called again as it was with the run of this id:
// the moves of all that came after it, inverted. Of what is at an address that
// something else would come back to there is nothing to tell: that is an error.
func (s *State) Back(run string) ([]Move, error) {
	at := slices.IndexFunc(s.History, func(a Applied) bool { return a.Run == run })
	if at < 0 {
		return nil, fmt.Errorf("the state's history has no apply %s any more", run)
	}
	was := map[addr.Address]addr.Address{} // by what it is called now
	for i := len(s.History) - 1; i > at; i-- {
		if s.History[i].Moved == nil {
			continue
		}
		before := make(map[addr.Address]addr.Address, len(s.History[i].Moved.Moves))
		for _, m := range s.History[i].Moved.Moves {
			before[m.To] = m.From
		}
		for now, then := range was {
			if from, ok := before[then]; ok {
				was[now] = from
				delete(before, then)
			}
		}
		for to, from := range before {
			if _, known := was[to]; !known && s.Find(to) != nil {
				was[to] = from
			}
		}
	}
	var out []Move
	for i := range s.Objects {
		now := s.Objects[i].Addr
		then, ok := was[now]
		if !ok || then == now {
			continue
		}
		if s.Find(then) != nil {
			if further, leaves := was[then]; !leaves || further == then {
				return nil, fmt.Errorf("%s was called %s then, and there is another %s by now; move that away (clusterplan state mv) or destroy it first", now, then, then)
			}
		}
		out = append(out, Move{now, then})
	}
	return out, nil
}
