package apply_test

import (
	"strings"
	"testing"
)

// The first node of a definition has no vote, so the cluster is begun on another one:
// the plan counts no vote of it, neither in its steps nor in the quorum that it shows.
func TestFirstNodeWithoutVote(t *testing.T) {
	l := newLab(t)
	def := l.load(strings.Replace(threeNodes, `node "n1" { provider = local }`, "node \"n1\" {\n  provider = local\n  votes = 0\n}\nnode \"n4\" { provider = local }", 1) + twoGroups)
	p := l.plan(def, "")
	if q := p.Quorum; q.Votes != 3 || q.Needed != 2 || q.Lowest != 3 {
		t.Errorf("quorum %+v", q)
	}
	if s := p.Steps[len(p.Steps)-1]; s.Up != 2 || s.Needed != 2 {
		t.Errorf("the last promotion: %+v", s)
	}
	l.must(def, "")
	l.settled(def)
}
