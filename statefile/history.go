package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// What a state keeps of the applies that made it. The bounds keep the cost of
// an apply the same however many there were before it.
const (
	// MostApplied is how many applies are kept, the newest.
	MostApplied = 1000
	// MostVariables is how many bytes of variables are kept with them; beyond that
	// the oldest applies lose theirs, and one that has more by itself its own.
	MostVariables = 1 << 20
	// MostMoves is how many bytes of addresses the moves of all of them have; those
	// that are older than that are not kept, for no way leads back to them.
	MostMoves = 4 << 20
)

// Outcomes of a run.
const (
	OutcomeDone        = "done"
	OutcomeFailed      = "failed"      // some objects
	OutcomeInterrupted = "interrupted" // by a person
	OutcomeCutOff      = "cut_off"     // it was killed, or lost its lock
)

// Applied is one run that set out to change what there is.
type Applied struct {
	Run        string     `json:"run"`
	Serial     uint64     `json:"serial"` // of the state that it leads to
	Time       time.Time  `json:"time"`   // of its begin
	Who        string     `json:"who"`
	Action     string     `json:"action"` // apply, destroy, refresh-only, rollback, state mv
	Definition Definition `json:"definition"`
	Counts     Counts     `json:"counts"`
	Outcome    string     `json:"outcome,omitempty"`   // "": cut off
	Variables  string     `json:"variables,omitempty"` // key in State.Variables; "": none, or none any more
	Moved      *Moved     `json:"moved,omitempty"`
}

// Counts are how many objects a run set out to change.
type Counts struct {
	Add     int `json:"add,omitempty"`
	Change  int `json:"change,omitempty"`
	Destroy int `json:"destroy,omitempty"`
}

// Variable is a variable that a definition was applied with. That a sensitive
// one was used is kept, not what it was.
type Variable struct {
	Name      string          `json:"name"`
	Type      json.RawMessage `json:"type,omitempty"`  // cty's JSON form of types
	Value     json.RawMessage `json:"value,omitempty"` // cty's JSON form, of that type
	Sensitive bool            `json:"sensitive,omitempty"`
}

// History are the applies, oldest first.
type History []Applied

// UnmarshalJSON reads them one by one, and no more than are ever written: a list
// of nothing takes much more memory than its bytes.
func (h *History) UnmarshalJSON(data []byte) error {
	*h = nil
	if string(data) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("its history is no list")
	}
	for dec.More() {
		var one Applied
		if err := dec.Decode(&one); err != nil {
			return fmt.Errorf("apply %d of its history: %w", len(*h)+1, err)
		}
		if *h = append(*h, one); len(*h) > MostApplied {
			return fmt.Errorf("its history has more than %d applies", MostApplied)
		}
	}
	return nil
}

// VariablesOf are those that an apply used; false: they are not kept any more.
func (s *State) VariablesOf(a *Applied) ([]Variable, bool, error) {
	if a.Variables == "" {
		return nil, false, nil
	}
	text, ok := s.Variables[a.Variables]
	if !ok {
		return nil, false, nil
	}
	var list []Variable
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, false, fmt.Errorf("the variables of the apply of %s: %w", a.Time.Format(time.RFC3339), err)
	}
	return list, true, nil
}

// EndRun says what became of the newest apply, if it is this run's. s.History is
// a new one then.
func (s *State) EndRun(run, outcome string) {
	if n := len(s.History); n > 0 && s.History[n-1].Run == run {
		s.History = slices.Clone(s.History)
		s.History[n-1].Outcome = outcome
	}
}

// AddMoves tells of addresses that a person changed. s.History is a new one then.
func (s *State) AddMoves(a Applied, moves []Move) {
	a.Serial, a.Moved = s.Serial+1, &Moved{Moves: moves}
	s.History = append(s.History[:len(s.History):len(s.History)], a)
	s.trim()
}

// begun adds a run to the history of s, which shares what it had with another state.
func (s *State) begun(at time.Time, b *Begin) {
	a := Applied{Run: b.Run, Serial: s.Serial + 1, Time: at, Who: b.Who, Action: b.Action, Definition: b.Definition, Counts: b.Counts}
	if len(b.Variables) > 0 {
		sum := sha256.Sum256(b.Variables)
		a.Variables = hex.EncodeToString(sum[:8])
		if _, ok := s.Variables[a.Variables]; !ok {
			all := maps.Clone(s.Variables)
			if all == nil {
				all = map[string]json.RawMessage{}
			}
			all[a.Variables] = b.Variables
			s.Variables = all
		}
	}
	s.History = append(s.History[:len(s.History):len(s.History)], a)
	s.trim()
}

// moved adds what the newest run has moved. That a node makes room for its
// successor is no renaming: the successor has the address.
func (s *State) moved(moves []Move) {
	n := len(s.History)
	if moves = slices.DeleteFunc(slices.Clone(moves), deposes); n == 0 || len(moves) == 0 {
		return
	}
	s.History = slices.Clone(s.History)
	last := &s.History[n-1]
	if last.Moved != nil {
		moves = Then(last.Moved.Moves, moves)
	}
	last.Moved = &Moved{Moves: moves}
	s.trim()
}

// deposes tells whether a node leaves its address to a successor by m, or has it back.
func deposes(m Move) bool { return (m.To.Deposed() == "") != (m.From.Deposed() == "") }

// bytes is how much room the moves take.
func (m *Moved) bytes() int {
	n := 0
	if m != nil {
		for _, one := range m.Moves {
			n += len(one.From.String()) + len(one.To.String())
		}
	}
	return n
}

// trim keeps the bounds.
func (s *State) trim() {
	if n := len(s.History); n > MostApplied {
		s.History = slices.Clone(s.History[n-MostApplied:])
	}
	moves := 0
	for i := len(s.History) - 1; i >= 0; i-- {
		if moves += s.History[i].Moved.bytes(); moves > MostMoves {
			s.History = slices.Clone(s.History[i:])
			s.History[0].Moved = nil // what came before it is not there to be gone back to
			break
		}
	}
	kept, size, cloned := make(map[string]json.RawMessage, len(s.Variables)), 0, false
	for i := len(s.History) - 1; i >= 0; i-- { // the newest first
		key := s.History[i].Variables
		text, have := s.Variables[key]
		if _, counted := kept[key]; key == "" || counted {
			continue
		}
		if have && len(text) <= MostVariables { // what is more by itself takes no other's room
			if size += len(text); size <= MostVariables { // else none that is older has any either
				kept[key] = text
				continue
			}
		}
		if !cloned {
			s.History, cloned = slices.Clone(s.History), true
		}
		s.History[i].Variables = ""
	}
	if len(kept) != len(s.Variables) {
		s.Variables = kept
	}
}
