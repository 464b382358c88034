package statefile

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A move in the journal does what Relabel does: addresses change, wherever
// they stand, and nothing else; of what is begun and has no end as well.
func TestMovedInTheJournal(t *testing.T) {
	g, h := addr.Group("g00000", addr.NoKey), addr.Group("a", addr.NoKey)
	gr, hr := g.WithResource("server", addr.NoKey), h.WithResource("server", addr.NoKey)
	moves := []Move{{g, h}, {gr, hr}, {node("n1"), node("n9")}, {node("gone"), node("else")}}
	begun := object(node("n1"), "00000000000000d1")
	begun.DependsOn = []addr.Address{g}
	before := []Entry{
		{Begin: &Begin{Run: "r", DigestKey: "a2V5"}},
		{Intent: &Intent{Addr: node("n1"), Action: "create", Phase: "install", Object: &begun}},
	}
	base := *sample(5)
	moved, pending := Fold(base, append(slices.Clone(before), Entry{Moved: &Moved{Moves: moves}}))
	state, open := Fold(base, before)
	if h := moved.History; len(h) != 2 || h[1].Run != "r" || h[1].Moved == nil || !slices.Equal(h[1].Moved.Moves, moves) || state.History[1].Moved != nil {
		t.Errorf("the history is %+v, without the move %+v", h, state.History)
	}
	state.History = moved.History
	wantState, wantPending := Relabel(state, open, moves)
	if diff := cmp.Diff(wantState, moved, sameAddr); diff != "" {
		t.Errorf("state (-relabelled +folded):\n%s", diff)
	}
	if diff := cmp.Diff(wantPending, pending, sameAddr); diff != "" {
		t.Errorf("pending (-relabelled +folded):\n%s", diff)
	}
	o := moved.Find(hr)
	if o == nil || o.ID != base.Find(gr).ID || !slices.Equal(o.DependsOn, []addr.Address{h}) || moved.Find(g) != nil || moved.Find(gr) != nil {
		t.Errorf("the resource is %+v", o)
	}
	if len(pending) != 1 || pending[0].Addr != node("n9") || pending[0].Object.Addr != node("n9") || !slices.Equal(pending[0].Object.DependsOn, []addr.Address{h}) {
		t.Errorf("pending: %+v", pending)
	}
	if base.Find(gr) == nil || base.Find(gr).DependsOn[0] != g || begun.Addr != node("n1") {
		t.Error("what was there before was changed in place")
	}

	// Results that follow are of the new addresses; a second time moves nothing.
	next := object(node("n9"), "00000000000000d1")
	after := append(slices.Clone(before), Entry{Moved: &Moved{Moves: moves}}, Entry{Moved: &Moved{Moves: moves}},
		Entry{Result: &Result{Addr: node("n9"), Object: &next}}, Entry{Result: &Result{Addr: h, Gone: true}})
	state, open = Fold(base, after)
	if len(open) != 0 || state.Find(node("n9")) == nil || state.Find(h) != nil || state.Find(hr) != nil {
		t.Errorf("after the results: %+v, pending %+v", state.Objects, open)
	}
	data, err := Marshal(&state)
	if err != nil {
		t.Fatalf("the objects are out of order: %v", err)
	}
	if _, err := Unmarshal(data); err != nil {
		t.Error(err)
	}
	var journal []byte
	var chain Chain
	for i := range after {
		if journal, err = chain.Append(journal, &after[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	back, err := DecodeJournal(journal, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Fold(base, back.Entries); !cmp.Equal(again, state, sameAddr) {
		t.Error("the journal on disk says something else")
	}
}
