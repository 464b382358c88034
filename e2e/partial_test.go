package e2e

import (
	"slices"
	"strings"
	"testing"
)

// A part of a definition first, the state alone next, then all but a part, then
// the rest.
func TestPart(t *testing.T) {
	l := newLab(t)
	l.must(0, "apply", "--auto-approve", "--target", "group.web").wants(t, "Only a part: group.web", "not for the whole definition", "Apply complete")
	l.served("n1")
	l.up(3, 3)
	rest := []string{"group.worker", "group.worker.resource.worker"}
	if got := l.planned(); !slices.Equal(got, rest) {
		t.Errorf("left to do: %q, want %q", got, rest)
	}
	if r := l.must(0, "output", "--json"); strings.Contains(r.out, "url") {
		t.Errorf("the outputs are not as they were: %s", r)
	}
	l.must(1, "plan", "--target", "group.wurker").wants(t, "There is no group.wurker", "Did you mean group.worker?")

	l.must(0, "plan", "--refresh-only", "--detailed-exitcode").wants(t, "No changes of the state")
	l.kill("n3")
	l.until("the drift is seen", func() (bool, string) {
		r := l.run("plan", "--refresh-only", "--detailed-exitcode")
		return r.code == 2 && strings.Contains(r.out, "node.n3: agent not running"), r.String()
	})
	l.must(0, "apply", "--refresh-only", "--auto-approve")
	if left := l.of("n3"); len(left) > 0 {
		t.Errorf("refresh-only has started %v", left)
	}
	l.must(0, "apply", "--auto-approve", "--exclude", "group.worker").wants(t, "all but group.worker")
	l.up(3, 3)
	if got := l.planned(); !slices.Equal(got, rest) {
		t.Errorf("left to do: %q, want %q", got, rest)
	}
	l.apply()
	l.groupOnline("worker", "")
	l.settled()
	l.destroyed()
}
