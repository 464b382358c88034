package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A plan file is applied as it was planned, without the definition; the world
// that has moved on makes it stale, and then nothing is touched.
func TestPlanFile(t *testing.T) {
	l := newLab(t)
	// What the definition reads is in the file as well.
	main, message := filepath.Join(l.dir, "main.cluster.hcl"), filepath.Join(l.dir, "message.txt")
	if err := os.WriteFile(message, []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.before[message] = "first"
	l.edit(`output "url" {`, "output \"message\" {\n  value = file(\"message.txt\")\n}\n\noutput \"url\" {")
	file := filepath.Join(t.TempDir(), "a.plan")
	l.must(0, "plan", "--out", file).wants(t, "Saved to")
	hidden := map[string]string{main: main + ".away", message: message + ".away"}
	hide := func() {
		t.Helper()
		for from, to := range hidden {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	restore := func() {
		t.Helper()
		for from, to := range hidden {
			if err := os.Rename(to, from); err != nil {
				t.Fatal(err)
			}
		}
	}
	hide()
	l.must(0, "apply", file).wants(t, "9 to add", "Apply complete", `= "first"`)
	l.served("n1")
	l.must(5, "apply", file).wants(t, "there was no state when it was made")
	restore()
	l.settled()

	// An edit, and with it a node that is to be made again: as planned, or not at all.
	l.edit(`delay = "5s"`, `delay = "6s"`)
	l.must(2, "plan", "--detailed-exitcode", "--out", file)
	before := l.state().Serial
	l.kill("n3")
	l.until("stale for the agent that died", func() (bool, string) {
		r := l.run("apply", file)
		return r.code == 5 && strings.Contains(r.stderr, "node.n3 would change too"), r.String()
	})
	if after := l.state().Serial; after != before {
		t.Errorf("the stale plan was applied: serial %d, then %d", before, after)
	}
	l.edit(`delay = "6s"`, `delay = "5s"`)
	l.apply() // the agent alone
	l.up(3, 3)
	l.edit(`delay = "5s"`, `delay = "6s"`)
	l.must(0, "plan", "--out", file)
	hide()
	l.must(0, "apply", "--json", file).wants(t, `"type":"apply_complete"`, `"address":"group.web"`)
	restore()
	l.settled()

	// Taking it down, too.
	l.must(0, "plan", "--destroy", "--out", file)
	l.must(0, "apply", file).wants(t, "Destroy complete")
	l.must(5, "apply", file).wants(t, "something was applied since")
	l.destroyed()
}
