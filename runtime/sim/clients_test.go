package sim

import (
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// What clients saw is judged: an old value read after a newer one was
// acknowledged can't be, read meanwhile it can; an update that nobody was told
// of counts for those who saw it.
func TestClientsAreJudged(t *testing.T) {
	first, second := entry{"v1", 5}, entry{"v2", 9}
	put := func(e entry, from, to int64) *call {
		return &call{kind: "put", value: e.value, key: "r0", on: "n1", called: from, returned: to, seen: e}
	}
	get := func(e entry, from, to int64) *call {
		return &call{client: 1, kind: "get", key: "r0", on: "n2", called: from, returned: to, seen: e}
	}
	swap := func(from uint64, code string, at, to int64) *call {
		return &call{client: 2, kind: "swap", value: "v2", from: from, code: code, key: "r0", on: "n3", called: at, returned: to, seen: second}
	}
	for name, c := range map[string]struct {
		calls  []*call
		became map[string]confdb.Result
		legal  bool
	}{
		"in turn":                     {calls: []*call{put(first, 1, 2), get(first, 3, 4), put(second, 5, 6), get(second, 7, 8)}, legal: true},
		"meanwhile":                   {calls: []*call{put(first, 1, 2), put(second, 3, 9), get(second, 4, 5), get(second, 6, 7)}, legal: true},
		"an old value":                {calls: []*call{put(first, 1, 2), put(second, 3, 4), get(first, 5, 6)}},
		"there and back":              {calls: []*call{put(first, 1, 2), put(second, 3, 9), get(second, 4, 5), get(first, 6, 7)}},
		"nothing":                     {calls: []*call{put(first, 1, 2), get(entry{}, 3, 4)}},
		"swapped":                     {calls: []*call{put(first, 1, 2), swap(5, "", 3, 4), get(second, 5, 6)}, legal: true},
		"swapped for another":         {calls: []*call{put(first, 1, 2), swap(4, "", 3, 4)}},
		"refused without a reason":    {calls: []*call{put(first, 1, 2), swap(5, confdb.CodeMismatch, 3, 4)}},
		"never answered, never done":  {calls: []*call{put(first, 1, 2), put(second, 3, 0), get(first, 5, 6)}, legal: true},
		"never answered, read by one": {calls: []*call{put(first, 1, 2), put(second, 3, 0), get(second, 5, 6), get(first, 7, 8)}, became: map[string]confdb.Result{"call v2": {Revision: 9}}},
	} {
		w := newWorld(Config{Seed: 1})
		w.clients.calls = c.calls
		if c.became != nil {
			w.clients.became = c.became
		}
		w.clients.judge()
		if got := len(w.rep.Violations) == 0; got != c.legal {
			t.Errorf("%s: legal is %v, not %v: %v", name, got, c.legal, w.rep.Violations)
		}
	}
	w := newWorld(Config{Seed: 1})
	w.clients.calls = []*call{put(first, 1e9, 2e9), put(second, 3e9, 4e9), get(first, 5e9, 6e9), get(second, 7e9, 8e9)}
	w.clients.judge()
	if story := strings.Join(w.finish().Story, "\n"); !strings.Contains(story, "client 0, by n1: puts r0 = v2: v2 at revision 9, called 3.000000") ||
		!strings.HasSuffix(story, "what clients saw of key r0 is not linearizable: client 1, by n2: reads r0: v1 at revision 5") {
		t.Errorf("the story:\n%s", story)
	}
}
