package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// A guarantee that would not hold keeps an apply from beginning. Allowed, it goes
// on, and the state says so until the next one. Then simulate tells, from where the
// cluster is, what becomes of a node's groups; the node is killed, and it is so.
func TestGuarantee(t *testing.T) {
	l := newLab(t)
	const output = "output \"url\" {"
	l.edit(output, "guarantee \"soon\" {\n  groups       = [group.web]\n  survives     = { nodes = 1 }\n  max_downtime = \"500ms\"\n}\n\n"+output)
	refused := l.must(3, "apply", "--auto-approve")
	refused.wants(t, "Broken guarantee", "longer than 500ms: lease 600 +", "--allow-broken-guarantee")
	if n := strings.Count(refused.String(), "longer than 500ms"); n != 1 {
		t.Errorf("what breaks it is told %d times: %s", n, refused)
	}
	if all := l.processes(); len(all) > 0 {
		t.Fatalf("a refused apply has started %v", all)
	}
	l.must(0, "apply", "--auto-approve", "--allow-broken-guarantee").wants(t, "soon  broken", "which was allowed")
	l.served("n1")
	l.must(0, "show").wants(t, "Guarantees: soon did not hold when it was applied")
	l.must(3, "plan", "--detailed-exitcode").wants(t, "No changes", "soon  broken")
	l.edit(`"500ms"`, `"5s"`)
	l.settled()

	// With nothing to change an apply is recorded where it says something new, once.
	show := func() (serial uint64, broken []string) {
		t.Helper()
		var st struct {
			Serial uint64   `json:"serial"`
			Broken []string `json:"broken_guarantees"`
		}
		r := l.must(0, "show", "--json")
		if err := json.Unmarshal([]byte(r.out), &st); err != nil {
			t.Fatalf("%v: %s", err, r)
		}
		return st.Serial, st.Broken
	}
	was, _ := show()
	for i, c := range []struct {
		from, to string
		says     string
		broken   int
	}{
		{"5s", "5s", "The state records this apply.", 0},
		{"5s", "5s", "", 0},
		{"5s", "500ms", "it did not hold then: guarantee soon", 1},
		{"500ms", "500ms", "", 1},
		{"500ms", "5s", "The state records this apply.", 0},
	} {
		if c.from != c.to {
			l.edit(`max_downtime = "`+c.from+`"`, `max_downtime = "`+c.to+`"`)
		}
		r := l.must(0, "apply", "--auto-approve", "--allow-broken-guarantee")
		r.wants(t, "No changes", c.says)
		now, broken := show()
		if len(broken) != c.broken || now > was != (c.says != "") || strings.Contains(r.out, "records") != (c.says != "") {
			t.Errorf("apply %d: serial %d after %d, broken %q: %s", i, now, was, broken, r)
		}
		was = now
	}

	l.must(0, "move", "web", "n2")
	l.served("n2")
	var sim struct {
		Live   bool `json:"live"`
		Quorum struct {
			Have bool `json:"have"`
			Up   int  `json:"up"`
		} `json:"quorum"`
		Groups []struct {
			Group, From, To string
			MaxMS           int64 `json:"max_ms"`
		} `json:"groups"`
	}
	l.until("web is n2's, as simulate sees it", func() (bool, string) {
		r := l.must(0, "simulate", "--json", "--fail", "n2")
		if err := json.Unmarshal([]byte(r.out), &sim); err != nil {
			t.Fatalf("%v: %s", err, r)
		}
		return sim.Live && len(sim.Groups) == 2 && sim.Groups[0].From == "node.n2", r.out
	})
	if web := sim.Groups[0]; !sim.Quorum.Have || sim.Quorum.Up != 2 || web.Group != "group.web" || web.MaxMS < 750 {
		t.Errorf("%+v", sim)
	}
	l.kill("n2")
	l.served(strings.TrimPrefix(sim.Groups[0].To, "node."))
	l.must(0, "simulate", "--fail", "n1").wants(t, "already down: node.n2", "no quorum", "soon  does not cover this")
	l.destroyed()
}
