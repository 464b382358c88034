package apply_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/statefile"
)

// However many objects there are, a journal that is far away is written a few times:
// once with what is intended, and once for each time that something waits for
// results. What fails, and what was never begun, is in no later run's way.
func TestFewWritesAhead(t *testing.T) {
	define := func(n int) string {
		var b strings.Builder
		b.WriteString(threeNodes)
		for i := range n {
			fmt.Fprintf(&b, "group \"g%d\" {\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n", i)
		}
		b.WriteString("group \"last\" {\n  depends_on = [group.g0]\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n")
		return b.String()
	}
	for _, n := range []int{10, 60} {
		l := newLab(t)
		l.ahead = true
		def := l.load(define(n))
		var writes []int
		l.conf = func(c *apply.Config) {
			at := c.Journal
			c.Linger = time.Hour
			c.Journal = journalFunc(func(entries ...statefile.Entry) error {
				intents := 0
				for _, e := range entries {
					if e.Intent != nil {
						intents++
					}
				}
				writes = append(writes, intents)
				return at.Append(entries...)
			})
		}
		l.world.Fail = func(c plannertest.Call) error {
			if c.Addr.Name == "g0" {
				return errors.New("refused")
			}
			return nil
		}
		res, _, err := l.apply(def, "")
		if err != nil || len(res.Failed) != 1 || len(res.Skipped) != 1 || len(res.Pending) > 0 && res.Whole {
			t.Fatalf("%v: %+v", err, res)
		}
		// What failed is there in part, perhaps; what was not begun is nowhere.
		if last := addr.Group("last", addr.NoKey); l.state.Find(last) != nil {
			t.Error("what was never begun is in the state")
		}
		// Intents; agents; the cluster; three members, one after the other. The groups
		// are for the snapshot to tell.
		want := []int{1 + 3 + n + 1, 0, 0, 0, 0, 0}
		if !slices.Equal(writes, want) {
			t.Errorf("%d groups: writes with %v intents, want %v", n, writes, want)
		}
		l.world.Fail, l.conf = nil, nil
		l.must(def, "")
		l.settled(def)
	}
}

// What was begun by a killed run, and can't be taken away by the next, keeps that
// one's journal. What it intended and never began is not in it any more.
func TestJournalThatStaysAhead(t *testing.T) {
	l := newLab(t)
	l.ahead = true
	l.must(l.load(threeNodes), "")
	l.world.FailAfter = func(c plannertest.Call) error {
		l.journal.dead.Store(true)
		return errKilled
	}
	group := "group %q {\n  depends_on = [%s]\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n"
	if _, _, err := l.apply(l.load(threeNodes+fmt.Sprintf(group, "old", "")), ""); len(l.world.Groups) != 1 {
		t.Fatal(err)
	}
	l.journal.dead.Store(false)
	l.world.FailAfter = nil
	def := l.load(threeNodes + fmt.Sprintf(group, "x", "") + fmt.Sprintf(group, "y", "group.x"))
	l.world.Fail = func(c plannertest.Call) error {
		if c.Addr.Type == addr.TypeGroup {
			return errors.New("refused")
		}
		return nil
	}
	res, _, err := l.apply(def, "")
	if err != nil || res.Whole || len(res.Pending) != 1 || res.Pending[0].Addr.Name != "old" {
		t.Fatalf("%v: %+v", err, res)
	}
	state, pending := l.current()
	if len(pending) != 1 || pending[0].Addr.Name != "old" || state.Find(addr.Group("y", addr.NoKey)) != nil || state.Find(addr.Group("x", addr.NoKey)) == nil {
		t.Errorf("the journal leaves %+v pending", pending)
	}
	l.world.Fail = nil
	l.must(def, "")
	l.settled(def)
	if len(l.world.Groups) != 2 {
		t.Errorf("%d groups", len(l.world.Groups))
	}
}
