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

// What was moved takes so much room and no more: an apply that moved beyond it
// is the oldest that is kept, and one can go back to it and to no older one.
func TestMovesAreBounded(t *testing.T) {
	many := func(n int) (moves []Move) {
		for i := range n {
			name := fmt.Sprintf("%0100d", i)
			moves = append(moves, Move{node("a" + name), node("b" + name)})
		}
		return moves
	}
	half := MostMoves / 2 / 212 // of so many bytes is one move
	s := State{Objects: []Object{object(many(1)[0].To, "00000000000000d1")}}
	for i, moves := range [][]Move{nil, many(half), nil, many(half)} {
		s.AddMoves(Applied{Run: fmt.Sprint(i), Action: "state mv"}, moves)
	}
	if len(s.History) != 4 || s.History[1].Moved == nil {
		t.Fatalf("%d applies are kept of those whose moves have room", len(s.History))
	}
	if moves, err := s.Back("0"); err != nil || len(moves) == 0 {
		t.Fatalf("back to the first: %d moves, %v", len(moves), err)
	}
	before := s.History
	s.AddMoves(Applied{Run: "4", Action: "state mv"}, many(1000))
	if len(s.History) != 4 || s.History[0].Run != "1" || s.History[0].Moved != nil || before[1].Moved == nil {
		t.Fatalf("%d applies, the oldest %s", len(s.History), s.History[0].Run)
	}
	if moves, err := s.Back("1"); err != nil || len(moves) == 0 {
		t.Errorf("back to the oldest: %d moves, %v", len(moves), err)
	}
	if _, err := s.Back("0"); err == nil {
		t.Error("a way back to an apply whose successors' moves are lost")
	}
	s.AddMoves(Applied{Run: "5", Action: "state mv"}, many(3*half))
	if len(s.History) != 1 || s.History[0].Moved != nil {
		t.Errorf("moves that are too many by themselves: %d applies", len(s.History))
	}
}

// A node that makes room for its successor was not renamed: nothing of it is in
// the history, and going back gives what has a node's place now its old name,
// also where the node of before is still about to leave.
func TestDeposedIsNotMoved(t *testing.T) {
	old := object(node("n1"), "00000000000000d1")
	next := object(node("m1"), "00000000000000d2")
	deposed := node("m1").Depose(old.ID)
	entries := []Entry{
		{Begin: &Begin{Run: "r2"}},
		{Moved: &Moved{Moves: []Move{{node("n1"), node("m1")}}}},
		{Moved: &Moved{Moves: []Move{{node("m1"), deposed}}}},
		{Result: &Result{Addr: node("m1"), Object: &next}},
	}
	for _, c := range []struct {
		name string
		last []Entry
	}{
		{"cut off before it left", nil},
		{"it has left", []Entry{{Result: &Result{Addr: deposed, Gone: true}}}},
	} {
		s, _ := Fold(State{Objects: []Object{old}, History: History{{Run: "r1"}}}, append(slices.Clone(entries), c.last...))
		if (s.Find(deposed) == nil) != (c.last != nil) || s.Find(node("m1")) == nil {
			t.Fatalf("%s: %+v", c.name, s.Objects)
		}
		if m := s.History[1].Moved; m == nil || !slices.Equal(m.Moves, entries[1].Moved.Moves) {
			t.Errorf("%s: the history has the moves %+v", c.name, m)
		}
		if moves, err := s.Back("r1"); err != nil || !slices.Equal(moves, []Move{{node("m1"), node("n1")}}) {
			t.Errorf("%s: back: %v, %v", c.name, moves, err)
		}
	}
	s, _ := Fold(State{Objects: []Object{old}, History: History{{Run: "r1"}}}, []Entry{
		{Begin: &Begin{Run: "r2"}}, {Moved: &Moved{Moves: []Move{{node("n1"), node("n1").Depose(old.ID)}}}},
		{Begin: &Begin{Run: "r3"}}, {Moved: &Moved{Moves: []Move{{node("n1").Depose(old.ID), node("n1")}}}}, // and it has its place again
	})
	if s.History[1].Moved != nil || s.History[2].Moved != nil {
		t.Errorf("only a successor: %+v", s.History[1].Moved)
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

// One apply with more variables than are ever kept loses its own, and no other's.
func TestVariablesOfOneTooLarge(t *testing.T) {
	var s State
	for i, n := range []int{10, MostVariables + 1, 20} {
		text, err := json.Marshal([]Variable{{Name: "x", Value: json.RawMessage(`"` + strings.Repeat("x", n) + `"`)}})
		if err != nil {
			t.Fatal(err)
		}
		s, _ = Fold(s, []Entry{{Begin: &Begin{Run: string(rune('a' + i)), Variables: text}}})
	}
	for i, want := range []bool{true, false, true} {
		if _, kept, err := s.VariablesOf(&s.History[i]); err != nil || kept != want {
			t.Errorf("apply %d: %v, %v", i+1, kept, err)
		}
	}
	if len(s.Variables) != 2 {
		t.Errorf("%d are kept", len(s.Variables))
	}
}
