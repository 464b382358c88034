package ssh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/providers"
)

// A node that can't be seen is never one that is gone: it would be made anew
// while it runs.
func TestLookAtWhatCanNotBeSeen(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	home, err := os.MkdirTemp("/tmp", "clusterplan-look-") // where nobody may go
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(home, "up", "lib")
	node := filepath.Join(root, "nodes", "n1")
	conf := filepath.Join(node, providers.AgentConfigFile)
	must(os.MkdirAll(filepath.Join(node, providers.DataDirName), 0o755))
	must(os.WriteFile(filepath.Join(node, providers.DataDirName, "a b"), nil, 0o600))
	must(os.MkdirAll(filepath.Join(root, "bin"), 0o755))
	must(os.WriteFile(conf, []byte("{}"), 0o644))
	must(os.Chmod(home, 0o755))
	look := func(root string) (*look, string) {
		t.Helper()
		h := &host{machine: &machine{root: root}}
		sh := exec.Command("sh")
		sh.Dir = "/"
		sh.Stdin = strings.NewReader(h.lookScript())
		sh.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var said strings.Builder
		sh.Stderr = &said
		out, err := sh.Output()
		if err != nil {
			return nil, said.String()
		}
		l, _, err := parseLook(out)
		if err != nil {
			return nil, err.Error()
		}
		return l, ""
	}
	for _, c := range []struct {
		name         string
		before, undo func() error
		want         string
	}{
		{"all may be read", nil, nil, ""},
		{"a directory above", func() error { return os.Chmod(filepath.Join(home, "up"), 0o700) }, func() error { return os.Chmod(filepath.Join(home, "up"), 0o755) }, "permission denied"},
		{"nodes", func() error { return os.Chmod(filepath.Join(root, "nodes"), 0o700) }, func() error { return os.Chmod(filepath.Join(root, "nodes"), 0o755) }, "ermission denied"},
		{"nodes, only listed", func() error { return os.Chmod(filepath.Join(root, "nodes"), 0o744) }, func() error { return os.Chmod(filepath.Join(root, "nodes"), 0o755) }, "can't be "},
		{"the node", func() error { return os.Chmod(node, 0o711) }, func() error { return os.Chmod(node, 0o755) }, "permission denied"},
		{"its file", func() error { return os.Chmod(conf, 0o600) }, func() error { return os.Chmod(conf, 0o644) }, "agent.json is there and could not be read"},
		{"a link to a disk that isn't mounted", func() error { return errors.Join(os.Rename(root, home+"/r"), os.Symlink("/nowhere", root)) },
			func() error { return errors.Join(os.Remove(root), os.Rename(home+"/r", root)) }, "a link to what isn't there"},
	} {
		if c.before != nil {
			must(c.before())
		}
		l, said := look(root)
		if c.want == "" && (l == nil || len(l.nodes) != 1 || string(l.files["nodes/n1/agent.json"].data) != "{}" || !slices.Equal(l.data["n1"], []string{"a b"})) ||
			c.want != "" && (l != nil || !strings.Contains(said, c.want)) {
			t.Errorf("%s: %+v, %q; want %q", c.name, l, said, c.want)
		}
		if c.undo != nil {
			must(c.undo())
		}
	}
	for _, gone := range []string{filepath.Join(home, "none"), filepath.Join(home, "none", "lib")} {
		if l, said := look(gone); l == nil || len(l.nodes) > 0 {
			t.Errorf("a host that has nothing yet: %+v, %q", l, said)
		}
	}
}

// A script of an apply that lost its connection may still be at work when the next
// one looks: a file that goes between the list and its reading is one that is gone.
func TestLookWhileItChanges(t *testing.T) {
	w := newWorld(t, ownPath)
	n := &node{world: w, p: w.provider(nil), name: "n1", id: pki.NewID(),
		config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
	n.phases(providers.PhaseInstall)
	tar, err := exec.LookPath("tar")
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(providers.NodesDir, "n1")
	for _, path := range []string{filepath.Join(own, providers.NodeCertFile), own} { // below where a look reads
		did := filepath.Join(t.TempDir(), "did")
		w.fake("tar", fmt.Sprintf("[ -e %[1]s ] || { : >%[1]s; rm -rf %[2]s; }\nexec %[3]s \"$@\"", did, path, tar))
		n.p = w.provider(nil)
		n.read()
		if _, err := os.Stat(did); err != nil {
			t.Errorf("%s went by no look: %v", path, err)
		}
	}
}
