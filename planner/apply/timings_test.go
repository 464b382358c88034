package apply_test

import (
	"slices"
	"strings"
	"testing"
)

// Other timings come in two steps, in the order that keeps takeovers safe: a longer
// lease is waited for before it is given, a shorter one given before it is waited for.
func TestTimingsInTwoSteps(t *testing.T) {
	l := newLab(t)
	longer := strings.Replace(threeNodes, "quorum {", "heartbeat {\n    profile = \"custom\"\n    lease = \"1200ms\"\n  }\n  quorum {", 1)
	l.must(l.load(threeNodes), "")
	for _, c := range []struct {
		src  string
		want []string
	}{
		{longer, []string{
			"timings, step 1: every takeover waits for a lease of 1.2s, and none is given yet",
			"timings, step 2: the leader gives leases of 1.2s in the place of 600ms; no group stops",
		}},
		{threeNodes, []string{
			"timings, step 1: the leader gives leases of 600ms; every takeover waits for 1.2s still",
			"timings, step 2: takeovers wait for 600ms once the node has said that it holds no longer one; no group stops",
		}},
	} {
		def := l.load(c.src)
		var got []string
		for _, s := range l.plan(def, "").Steps {
			got = append(got, s.Why)
			if s.Address.String() != "cluster" || s.Phase != "update" {
				t.Errorf("a step is %s %s", s.Address, s.Phase)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("the steps: %q, want %q", got, c.want)
		}
		l.must(def, "")
		l.settled(def)
	}
}
