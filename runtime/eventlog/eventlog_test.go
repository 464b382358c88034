package eventlog

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2030, 1, 1, 12, 0, 0, 0, time.Local)

func log() []Event {
	e := func(id, cause uint64, ms int, object, node, kind, text string) Event {
		return Event{ID: id, Cause: cause, Time: at.Add(time.Duration(ms) * time.Millisecond), Object: object, Node: node, Kind: kind, Text: text}
	}
	return []Event{ // 1 to 10 are not kept any more
		e(11, 3, 0, "group.old", "n1", "group_online", "group old is online on node n1"),
		e(12, 0, 1000, `node.n["a"]`, "n-a", "node_down", "node n-a is down"),
		e(13, 12, 1800, "group.sql", "n2", "group_failover", "group sql starts on node n2"),
		e(14, 12, 1801, "group.web", "n2", "group_failover", "group web starts on node n2"),
		e(15, 13, 2050, "group.sql", "n2", "group_online", "group sql is online on node n2"),
		e(16, 14, 62_050, "group.web", "n2", "resource_failed", "resource app of group web failed: exit 1; restart 1 of 3"),
		e(17, 19, 62_051, "group.odd", "n2", "group_online", "a cause that comes after it"),
	}
}

func ids(events []Event) (out []uint64) {
	for _, e := range events {
		out = append(out, e.ID)
	}
	return out
}

func TestWhy(t *testing.T) {
	for _, tc := range []struct {
		what            string
		chain, followed []uint64
		lost            uint64
	}{
		{"group.sql", []uint64{12, 13, 15}, nil, 0},
		{"sql", []uint64{12, 13, 15}, nil, 0},
		{"group.web.resource.app", []uint64{12, 14, 16}, nil, 0},
		{"n-a", []uint64{12}, []uint64{13, 14, 15, 16}, 0},
		{`node.n["a"]`, []uint64{12}, []uint64{13, 14, 15, 16}, 0},
		{"group.old", []uint64{11}, nil, 3},
		{"group.odd", []uint64{17}, nil, 0},
		{"group.web.resource.ap", nil, nil, 0},
		{"nothing", nil, nil, 0},
	} {
		s, ok := Why(log(), tc.what)
		if ok != (tc.chain != nil) || !cmp.Equal(ids(s.Chain), tc.chain) || !cmp.Equal(ids(s.Followed), tc.followed) || s.Lost != tc.lost {
			t.Errorf("%s: %v, %v followed, lost %d", tc.what, ids(s.Chain), ids(s.Followed), s.Lost)
		}
	}
}

func TestStoryInWords(t *testing.T) {
	tell := func(what string) string {
		s, _ := Why(log(), what)
		var b strings.Builder
		if err := s.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	want := `  1  2030-01-01 12:00:01.000            node n-a is down
  2  2030-01-01 12:00:01.801  +0.801s     group web starts on node n2
  3  2030-01-01 12:01:02.050  +1m0s         resource app of group web failed: exit 1; restart 1 of 3
`
	if got := tell("web"); got != want {
		t.Error(cmp.Diff(want, got))
	}
	if got := tell("old"); !strings.Contains(got, "event 3") || !strings.Contains(got, "not kept any more") {
		t.Errorf("a lost beginning isn't told: %s", got)
	}
	if got := tell("n-a"); !strings.Contains(got, "from that followed") {
		t.Errorf("what followed isn't told: %s", got)
	}
}
