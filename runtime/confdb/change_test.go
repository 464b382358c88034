package confdb

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// One has the change lease; whose it is, and whether it is over, only the order of
// the log says. Times jump throughout, and decide nothing.
func TestChangeLease(t *testing.T) {
	s := NewState()
	n := 0
	do := func(author string, c Command, want string, words ...string) {
		t.Helper()
		n++
		c.ID, c.Author = fmt.Sprint("c", n), author
		c.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n%3-1) * 1000 * time.Hour)
		if got := s.Apply(c); got.Code != want {
			t.Fatalf("command %d: %+v, want %q", n, got, want)
		} else {
			for _, w := range words {
				if !strings.Contains(got.Detail, w) {
					t.Errorf("command %d: %q is not in %q", n, w, got.Detail)
				}
			}
		}
		data, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := Decode(data); err != nil || fmt.Sprint(back.Change) != fmt.Sprint(s.Change) {
			t.Fatalf("read back: %v, %v", back.Change, err)
		}
	}
	take := func(id string) Command {
		return Command{TakeChange: &TakeChange{ID: id, What: "apply", Term: spec.Duration(time.Minute)}}
	}
	renew := func(id string) Command { return Command{TakeChange: &TakeChange{ID: id, Renew: true}} }
	group := func(under string) Command {
		return Command{Change: under, PutGroup: &spec.Group{ID: "g1", Name: "web", Addr: addr.Group("web", addr.NoKey)}}
	}
	node := func(c Command) Command {
		c.PutNode = &PutNode{Spec: spec.Node{ID: "id1", Name: "n1"}, ServerID: 1}
		return c
	}

	do("anna", node(Command{}), "") // nobody has it: anybody may
	do("anna", renew("a"), CodeLocked, "is over")
	do("anna", take("a"), "")
	do("anna", take("a"), "") // a crash after the answer was lost
	do("ben", take("b"), CodeLocked, "apply by anna since", "change lease a")
	for _, c := range []Command{
		group(""), {PutCluster: &spec.Cluster{ID: "c"}}, {DeleteGroup: &GroupRef{"g1"}}, {DeleteNode: &NodeRef{"id1"}}, {EvictNode: &NodeRef{"id1"}},
		{PutFence: &spec.Fence{ID: "f"}}, {DeleteFence: &FenceRef{"f"}}, {PauseNode: &PauseNode{Node: "id1", Drain: true}}, node(Command{}),
	} {
		do("ben", c, CodeLocked, "the cluster is being changed: apply by anna")
	}
	do("anna", group("a"), "")
	// Nobody waits with what brings service back, or ends it.
	for _, c := range []Command{
		{SetWant: &SetWant{"g1", spec.WantOffline}}, {SetWant: &SetWant{"g1", spec.WantOnline}}, {MoveGroup: &MoveGroup{Group: "g1"}},
		{PauseNode: &PauseNode{Node: "id1"}}, {ResumeNode: &NodeRef{"id1"}},
	} {
		do("ben", c, "")
	}

	// Seen counts while it is the newest renewal.
	seen := s.Change.Renewed
	do("anna", renew("a"), "")
	late := take("b")
	late.TakeChange.Seen = seen
	do("ben", late, CodeLocked)
	late.TakeChange = &TakeChange{ID: "b", What: "destroy", Term: spec.Duration(time.Minute), Seen: s.Change.Renewed}
	do("ben", late, "")
	if e := s.Events[len(s.Events)-1]; e.Kind != KindChangeTaken || !strings.Contains(e.Text, "anna") || e.Author != "ben" {
		t.Errorf("event %+v", e)
	}
	// Whoever lost it changes nothing any more, also once nobody has it.
	for range 2 {
		do("anna", renew("a"), CodeLocked, "the change lease a is over")
		do("anna", group("a"), CodeLocked, "the change lease a is over")
		do("anna", Command{Change: "a", ResumeNode: &NodeRef{"id1"}}, CodeLocked)
		do("anna", Command{Change: "a", EndChange: &EndChange{"a"}}, CodeNotFound)
		if s.Change != nil {
			do("ben", Command{Change: "b", EndChange: &EndChange{"b"}}, "")
		}
	}
	if s.Change != nil || s.Events[len(s.Events)-1].Kind == KindChangeBroken {
		t.Error("given back, not broken")
	}

	// The next one of the same state knows that its holder is dead; a person breaks it.
	do("anna", take("c"), "")
	next := take("d")
	next.TakeChange.From = "x"
	do("anna", next, CodeLocked)
	next.TakeChange.From = "c"
	do("anna", next, "")
	do("ben", Command{EndChange: &EndChange{"d"}}, "")
	if e := s.Events[len(s.Events)-1]; e.Kind != KindChangeBroken || e.Author != "ben" {
		t.Errorf("event %+v", e)
	}
	do("anna", Command{TakeChange: &TakeChange{ID: "e"}}, CodeInvalid)
	if s.Change != nil {
		t.Errorf("held: %+v", s.Change)
	}
}
