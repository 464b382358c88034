package statefile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each run of a journal is in the history with what it was begun with; what it
// came to is said at its end.
func TestHistory(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	values := json.RawMessage(`[{"name":"password","sensitive":true},{"name":"size","type":"number","value":3}]`)
	base := State{Serial: 4}
	s, _ := Fold(base, []Entry{
		{Time: at, Begin: &Begin{Run: "r1", Who: "anna@a", Action: "apply", Definition: Definition{Git: "g1", Dirty: true}, Counts: Counts{Add: 3}, Variables: values}},
		{Time: at.Add(time.Hour), Begin: &Begin{Run: "r2", Who: "bob@b", Action: "apply", Definition: Definition{Git: "g2"}, Variables: values}},
		{Moved: &Moved{Moves: []Move{{node("a"), node("b")}}}},
		{Moved: &Moved{Moves: []Move{{node("c"), node("d")}}}},
	})
	s.EndRun("r2", OutcomeDone)
	s.EndRun("r1", OutcomeDone) // that is not the newest
	if len(s.History) != 2 || len(base.History) != 0 || len(s.Variables) != 1 {
		t.Fatalf("%+v", s)
	}
	one, two := s.History[0], s.History[1]
	if one.Run != "r1" || one.Serial != 5 || !one.Time.Equal(at) || one.Who != "anna@a" || one.Outcome != "" || one.Counts.Add != 3 || one.Definition.Git != "g1" || !one.Definition.Dirty {
		t.Errorf("%+v", one)
	}
	if two.Outcome != OutcomeDone || two.Moved == nil || len(two.Moved.Moves) != 2 || two.Variables != one.Variables {
		t.Errorf("%+v", two)
	}
	list, ok, err := s.VariablesOf(&two)
	if err != nil || !ok || len(list) != 2 || !list[0].Sensitive || list[0].Value != nil || string(list[1].Value) != "3" {
		t.Errorf("%+v, %v, %v", list, ok, err)
	}
	before := s.History
	s.AddMoves(Applied{Run: "r3", Action: "state mv"}, []Move{{node("b"), node("a")}})
	if len(s.History) != 3 || len(before) != 2 || s.History[2].Serial != 5 {
		t.Errorf("%+v", s.History)
	}
}

// However many applies there were, the state has the newest, and no more than so
// much of their variables.
func TestHistoryIsBounded(t *testing.T) {
	var s State
	big := strings.Repeat("x", MostVariables/4)
	for i := range MostApplied + 50 {
		values := `[{"name":"a","value":1}]`
		if i >= MostApplied {
			values = fmt.Sprintf(`[{"name":"a","value":"%d%s"}]`, i, big)
		}
		s, _ = Fold(s, []Entry{{Begin: &Begin{Run: fmt.Sprint("r", i), Variables: json.RawMessage(values)}}})
	}
	size := 0
	for _, text := range s.Variables {
		size += len(text)
	}
	with := slices.IndexFunc(s.History, func(a Applied) bool { return a.Variables != "" })
	if len(s.History) != MostApplied || s.History[0].Run != "r50" || size > MostVariables || len(s.Variables) != 3 || with != MostApplied-3 {
		t.Errorf("%d applies from %s on, variables of %d in %d bytes, from %d on", len(s.History), s.History[0].Run, len(s.Variables), size, with)
	}
	if _, ok, _ := s.VariablesOf(&s.History[0]); ok {
		t.Error("the oldest still has variables")
	}
	data, err := Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Unmarshal(data)
	if err != nil || len(back.History) != MostApplied || len(back.Variables) != 3 {
		t.Errorf("%d, %v", len(back.History), err)
	}
}
