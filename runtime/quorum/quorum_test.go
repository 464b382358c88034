package quorum

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestNeeded(t *testing.T) {
	for votes, want := range []int{1, 1, 2, 2, 3, 3, 4, 4} {
		if got := Needed(spec.MajorityNodeSet, votes); got != want {
			t.Errorf("%d votes need %d, want %d", votes, got, want)
		}
	}
	if Needed(spec.SingleNode, 1) != 1 || Needed(spec.SingleQuorum, 5) != 1 {
		t.Error("one node is enough where a device or a lone node decides")
	}
}

func node(name, zone string, votes int, up bool) Node {
	return Node{Spec: spec.Node{Name: name, Zone: zone, Votes: votes}, Up: up}
}

func TestHave(t *testing.T) {
	three := func(up ...bool) []Node {
		return []Node{node("a", "", 1, up[0]), node("b", "", 1, up[1]), node("c", "", 1, up[2]), node("idle", "", 0, true)}
	}
	for _, c := range []struct {
		model  spec.QuorumModel
		nodes  []Node
		device bool
		want   bool
		spare  int
	}{
		{spec.MajorityNodeSet, three(true, true, true), false, true, 1},
		{spec.MajorityNodeSet, three(true, false, true), false, true, 0},
		{spec.MajorityNodeSet, three(true, false, false), false, false, -1},
		{spec.SingleQuorum, three(true, false, false), true, true, 0},
		{spec.SingleQuorum, three(true, true, true), false, false, 2},
		{spec.SingleQuorum, three(false, false, false), true, false, -1},
		{spec.SingleNode, []Node{node("a", "", 1, true)}, false, true, 0},
		{spec.SingleNode, []Node{node("a", "", 1, false)}, false, false, -1},
	} {
		if got := Have(c.model, c.nodes, c.device); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.model, c.nodes, got, c.want)
		}
		if got := Spare(c.model, c.nodes); got != c.spare {
			t.Errorf("%s: spare %d, want %d", c.model, got, c.spare)
		}
	}
}

// Two sets of nodes that each have a majority share a voter; nothing that goes
// down gives quorum, nothing that comes up takes it.
func TestMajorityProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "n")
		var a, b []Node
		shared := 0
		for i := range n {
			votes := rapid.IntRange(0, 1).Draw(t, "votes")
			inA, inB := rapid.Bool().Draw(t, "a"), rapid.Bool().Draw(t, "b")
			a, b = append(a, node(fmt.Sprint(i), "", votes, inA)), append(b, node(fmt.Sprint(i), "", votes, inB))
			if inA && inB {
				shared += votes
			}
		}
		if Have(spec.MajorityNodeSet, a, false) && Have(spec.MajorityNodeSet, b, false) && shared == 0 {
			t.Fatalf("two disjoint majorities: %v and %v", a, b)
		}
		i := rapid.IntRange(0, n-1).Draw(t, "i")
		more := slices.Clone(a)
		more[i].Up = true
		if Have(spec.MajorityNodeSet, a, false) && !Have(spec.MajorityNodeSet, more, false) {
			t.Fatal("a node that came up took quorum away")
		}
	})
}

func TestFaults(t *testing.T) {
	nodes := []spec.Node{{Name: "n3", Zone: "east"}, {Name: "n1", Zone: "east"}, {Name: "n2", Zone: "west"}, {Name: "n4", Zone: "east"}, {Name: "n5", Zone: "west"}, {Name: "n6", Zone: "lone"}}
	list := func(pairs bool) (names []string) {
		for _, f := range Faults(spec.SingleQuorum, nodes, pairs) {
			names = append(names, f.Name)
			if !slices.IsSorted(f.Nodes) || len(f.Nodes) == 0 != f.Device {
				t.Errorf("%+v", f)
			}
		}
		return names
	}
	want := []string{"n1", "n2", "n3", "n4", "n5", "n6", "zone east", "zone west", "quorum device"}
	if got := list(false); !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	got := list(true)
	if len(got) != 6+15+2+1 || got[6] != "n1 and n2" || got[21] != "zone east" || got[22] != "zone west" {
		t.Errorf("with pairs: %q", got)
	}
}
