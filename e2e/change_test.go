package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// clone is a second directory with a copy of the definition and its state, for
// the same cluster.
func (l *lab) clone() *lab {
	l.t.Helper()
	c := *l
	c.dir, c.before = filepath.Join(filepath.Dir(l.dir), "clone"), map[string]string{}
	must := func(err error) {
		if err != nil {
			l.t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(c.dir, ".clusterplan"), 0o700))
	for _, name := range []string{"main.cluster.hcl", filepath.Join(".clusterplan", "state.json")} {
		data, err := os.ReadFile(filepath.Join(l.dir, name))
		must(err)
		must(os.WriteFile(filepath.Join(c.dir, name), data, 0o600))
	}
	for _, name := range []string{"nodes", "bin"} { // the nodes are where they are
		must(os.Symlink(filepath.Join(l.dir, ".clusterplan", name), filepath.Join(c.dir, ".clusterplan", name)))
	}
	return &c
}

// Two clones of one definition: while one's apply is at work, the other's changes
// are refused, and operators' emergency orders are not. The apply is suspended,
// its change lease broken, and the other one applies: when the first wakes up it
// stops with an error, and changes nothing any more.
func TestOneApplyPerCluster(t *testing.T) {
	l := newLab(t)
	l.apply()
	c := l.clone()
	l.edit("demo\", \"worker\"]", "demo\", \"worker\"]\n    stop_timeout = \"7s\"")
	c.edit("demo\", \"worker\"]", "demo\", \"worker\"]\n    stop_timeout = \"8s\"")

	pid, done, output := l.begin()
	if !l.journalGrows(1, done) {
		t.Fatal(output())
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	held := c.status().Change
	if held == nil || held.What != "apply" || held.ID == "" {
		t.Fatalf("change lease: %+v", held)
	}
	c.must(4, "drain", "n3").wants(t, "the cluster is being changed", "apply by ", held.ID, "force-unlock")
	c.must(0, "pause", "n3")
	c.must(0, "resume", "n3")
	c.must(0, "move", "web", "n3")
	r := c.must(0, "status")
	r.wants(t, "Being changed: apply by ")

	c.must(0, "force-unlock", "--force", held.ID).wants(t, "change lease "+held.ID+" is broken")
	// Of its own directory it would start the nodes there, too.
	part := []string{"--target", "group.worker"}
	c.must(0, append([]string{"apply", "--auto-approve"}, part...)...)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	l.ended(done, output)
	text := output()
	if !strings.Contains(text, "exit status 4") && !strings.Contains(text, "exit status 1") || !strings.Contains(text, "the change lease "+held.ID+" is over") {
		t.Errorf("the first apply says:\n%s", text)
	}
	c.must(0, append([]string{"plan", "--detailed-exitcode"}, part...)...)
	st := c.status()
	if st.Change != nil {
		t.Errorf("still held: %+v", st.Change)
	}
	l.apply() // goes on from what it knows, and brings its own change
	l.settled()
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	l.destroyed()
}
