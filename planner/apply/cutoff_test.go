package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
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
