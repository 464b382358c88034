package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	app "github.com/clusterplan/clusterplan/client"
)

// The cluster-aware example: its program counts its starts with compare-and-swap,
// by curl and its group's socket; its notes go with it, on an order and after a
// crash; and the event log tells why it is where it is.
func TestClusterAware(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is missing: the example's program asks with it")
	}
	l := copyExample(t, "cluster-aware")
	l.patient()
	l.apply()
	ask := func(node string) *app.Space {
		c, err := app.New(app.Config{Socket: filepath.Join(l.dir, ".clusterplan", "nodes", node, "run", "api.sock")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c.Group("counter")
	}
	notes := func(node string) string {
		data, _ := os.ReadFile(filepath.Join(l.dir, ".clusterplan", "nodes", node, "notes.txt"))
		return string(data)
	}
	started := func(n, on string) {
		t.Helper()
		l.until("start "+n+" is counted", func() (bool, string) {
			e, err := ask("n3").Get(t.Context(), "starts")
			return err == nil && string(e.Value) == n, string(e.Value)
		})
		l.groupOnline("counter", on)
	}
	// Kept is what the database has: a crash may take only what came after it.
	kept := func(node string) {
		t.Helper()
		want := notes(node)
		l.until("the notes are kept", func() (bool, string) {
			c, err := app.New(app.Config{Socket: filepath.Join(l.dir, ".clusterplan", "nodes", "n3", "run", "api.sock")})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			list, err := c.Checkpoints(t.Context(), "counter")
			return err == nil && len(list) == 1 && list[0].Size == int64(len(want)) && list[0].Node == node, want
		})
	}
	started("1", "n1")
	l.must(0, "move", "counter", "n2")
	started("2", "n2")
	l.until("the notes came along", func() (bool, string) { return strings.Count(notes("n2"), "\n") == 2, notes("n2") })
	kept("n2")
	if _, err := ask("n1").Fenced(1).Put(t.Context(), "late", nil); !errors.Is(err, app.ErrFenced) {
		t.Errorf("a write of the owner that was: %v", err)
	}
	l.kill("n2")
	started("3", "n3") // the next after n2
	l.until("the notes came along again", func() (bool, string) { return strings.Count(notes("n3"), "\n") == 3, notes("n3") })
	if got := notes("n3"); !strings.HasPrefix(got, "start 1 on n1 under epoch 1\nstart 2 on n2 under epoch 2\nstart 3 on n3 under epoch ") {
		t.Errorf("the notes are %q", got)
	}
	l.must(0, "events", "--why", "group.counter").wants(t, "node n2 is down", "group counter is online on node n3")
	l.apply()
	l.settled()
	l.destroyed()
}
