package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/planner"
)

// A first apply is cut off at any write up to the joins, and then all nodes are to be elsewhere:
// the next apply does the whole of it.
func TestFirstApplyCutOffThenAllElsewhere(t *testing.T) {
	placed := func(last int) string {
		src := threeNodes + twoGroups
		for i := range 3 {
			src = strings.Replace(src, fmt.Sprintf("node \"n%d\" { provider = local }", i+1), fmt.Sprintf("node \"n%d\" {\n  provider = local\n  address = \"127.0.0.%d\"\n}", i+1, last+i), 1)
		}
		return src
	}
	for at := 1; at < 24; at++ {
		l := newLab(t)
		l.journal.killAt, l.journal.after = at, at%2 == 0
		if _, _, err := l.apply(l.load(placed(21)), ""); !errors.Is(err, errKilled) {
			t.Fatalf("killed at %d: %v", at, err)
		}
		l.journal.dead, l.journal.killAt = false, 0
		def := l.load(placed(31))
		res, p, err := l.apply(def, "")
		if err != nil || p.Errored || len(res.Failed)+len(res.Skipped) > 0 {
			t.Errorf("killed at %d: %v %v", at, err, p.Diagnostics)
			if res != nil {
				t.Errorf("failed %v, skipped %v", res.Failed, res.Skipped)
			}
			continue
		}
		l.settled(def)
		for _, v := range l.world.Violations() {
			t.Errorf("killed at %d: %s", at, v)
		}
	}
}

// Another quorum device for a cluster that runs is refused, with the way around,
// and that way leads there.
func TestAnotherQuorumDevice(t *testing.T) {
	on := func(device string) string {
		return strings.Replace(threeNodes, `model = "majority_node_set"`, "\n    model  = \"single_quorum\"\n    device = \""+device+"\"\n ", 1) + twoGroups
	}
	l := newLab(t)
	l.must(l.load(on("/dev/disk/by-id/a")), "")
	p := l.plan(l.load(on("/dev/disk/by-id/b")), "")
	if !p.Errored || p.Applyable || !slices.ContainsFunc(p.Diagnostics, func(d planner.Diagnostic) bool {
		text := d.Summary + " " + d.Detail
		return strings.Contains(text, "from /dev/disk/by-id/a to /dev/disk/by-id/b") && strings.Contains(text, "destroy the cluster, and apply the definition anew")
	}) {
		t.Fatalf("%+v", p.Diagnostics)
	}
	l.world.Ending = true
	l.must(nil, planner.ModeDestroy)
	l.world.Ending = false
	def := l.load(on("/dev/disk/by-id/b"))
	l.must(def, "")
	l.settled(def)
}
