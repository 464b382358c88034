package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Hosts that lack something in different ways are all told of at once, and
// nothing is left on them.
func TestExamine(t *testing.T) {
	w := newWorld(t)
	second, err := w.lab.Add("h2", "", "127.0.0.2", port(t))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ssh := func(set map[string]cty.Value) cty.Value {
		blocks := spec.NodeSchema().Blocks
		attrs := schema.BlockDefault(blocks[slices.IndexFunc(blocks, func(b spec.Block) bool { return b.Name == "ssh" })]).AsValueMap()
		for k, v := range set {
			attrs[k] = v
		}
		return cty.ObjectVal(attrs)
	}
	nodes := map[string]map[string]cty.Value{
		"fine":    {"address": cty.StringVal("127.0.0.1")},
		"taken":   {"address": cty.StringVal(taken.Addr().String()), "ssh": ssh(map[string]cty.Value{"port": cty.NumberIntVal(int64(second.Port))})},
		"changed": {"address": cty.StringVal("127.0.0.1"), "ssh": ssh(map[string]cty.Value{"host_key": cty.StringVal(second.Key())})},
		"dead":    {"address": cty.StringVal("127.0.0.3")},
		"later":   {"address": cty.UnknownVal(cty.String)},
		"keyless": {"address": cty.UnknownVal(cty.String), "ssh": ssh(map[string]cty.Value{"private_key_file": cty.StringVal("nokey"), "host_key": cty.UnknownVal(cty.String)})},
		"each":    {"address": cty.UnknownVal(cty.String), "ssh": ssh(map[string]cty.Value{"private_key_file": cty.StringVal("%d/%h/key")})},
		"once":    {"address": cty.UnknownVal(cty.String), "ssh": ssh(map[string]cty.Value{"private_key_file": cty.StringVal("pipe")})},
		"odd":     {"address": cty.StringVal("127.0.0.1"), "ssh": ssh(map[string]cty.Value{"private_key_file": cty.StringVal("h1/sshd_config")})},
	}
	if err := syscall.Mkfifo(filepath.Join(w.lab.Dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.lab.KeyFile(), 0o640); err != nil {
		t.Fatal(err)
	}
	var e providers.Examination
	for name, set := range nodes {
		e.Objects = append(e.Objects, providers.Examinee{Addr: addr.Node(name, addr.NoKey), Config: nodeValue(name, set)})
	}
	e.Needs = providers.Needs{Addresses: true, FenceAgents: []string{"fence_that_nobody_has"}, Programs: map[string]string{"/bin/sh": "group.g.resource.s"}}
	p := w.provider(nil)
	found := p.Examine(t.Context(), e)
	has := func(where, check, level, text string) {
		t.Helper()
		for _, f := range found {
			if strings.HasPrefix(f.Where, where) && f.Check == check && f.Level == level && strings.Contains(f.Found, text) {
				return
			}
		}
		t.Errorf("no finding %s %s %s %q", where, check, level, text)
	}
	first, other := w.host.Address+":", second.Address+":"
	for _, host := range []string{first, other} {
		for _, check := range []string{"architecture", "rights", "system", "disk", "addresses", "clock", "program"} {
			has(host, check, providers.LevelOK, "")
		}
		has(host, "service manager", providers.LevelWarn, "nothing starts it after a boot")
		has(host, "fence agent", providers.LevelFail, "fence_that_nobody_has")
	}
	has(other, "port", providers.LevelFail, taken.Addr().String()+" is taken")
	has("127.0.0.1", "node", providers.LevelFail, "another key")
	has("127.0.0.3", "connection", providers.LevelFail, "can't connect")
	has("node.later", "node", providers.LevelWarn, "known only after an apply")

	// A host that was waited for in vain a moment ago is not waited for by the apply once more.
	gone := providers.Examination{Objects: []providers.Examinee{{Addr: addr.Node("dead", addr.NoKey), Config: nodeValue("dead", nodes["dead"])}}}
	p.Examine(t.Context(), gone)
	silent, err := net.Listen("tcp", fmt.Sprintf("127.0.0.3:%d", w.host.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var dialled atomic.Int32
	go func() {
		for {
			if _, err := silent.Accept(); err != nil {
				return
			}
			dialled.Add(1)
		}
	}()
	dead := providers.ApplyRequest{Addr: addr.Node("dead", addr.NoKey), Type: addr.TypeNode, ID: pki.NewID(), Phase: providers.PhaseInstall, Planned: nodeValue("dead", nodes["dead"])}
	if _, err := p.Apply(t.Context(), dead); !errors.Is(err, providers.ErrUnreachable) || !strings.Contains(err.Error(), "can't connect") || dialled.Load() > 0 {
		t.Errorf("an apply right after the look dials %d times, and says %v", dialled.Load(), err)
	}
	// Once another phase has reached it, it is gone to: a node that was stopped there
	// would not be started again.
	silent.Close()
	if _, err := w.lab.Add("h3", "", "127.0.0.3", w.host.Port); err != nil {
		t.Fatal(err)
	}
	for _, dead.Phase = range []string{providers.PhaseStop, providers.PhaseInstall, providers.PhaseRemove} {
		if _, err := p.Apply(t.Context(), dead); err != nil {
			t.Errorf("%s of a host that has come back: %v", dead.Phase, err)
		}
	}
	has("between hosts", "clocks", providers.LevelOK, "")
	has("this machine", "key", providers.LevelFail, "there is no "+filepath.Join(w.lab.Dir, "nokey"))
	has("this machine", "key", providers.LevelFail, filepath.Join(w.lab.Dir, "h1", "sshd_config")+" is no private key")
	has("this machine", "key", providers.LevelWarn, w.lab.KeyFile()+" can be read by others")
	for _, f := range found {
		if f.Check != "key" && slices.Contains(f.Objects, addr.Node("odd", addr.NoKey)) {
			t.Errorf("it was tried without a key: %+v", f)
		}
		if f.Check == "key" && f.Level != providers.LevelOK && (slices.Contains(f.Objects, addr.Node("each", addr.NoKey)) || slices.Contains(f.Objects, addr.Node("once", addr.NoKey))) {
			t.Errorf("a key that is fine: %+v", f)
		}
	}
	gone.Objects[0].Early = true
	early := p.Examine(t.Context(), gone)
	if len(early) != 1 || early[0].Check != "key" {
		t.Errorf("of a host that is not there yet: %+v", early)
	}
	if t.Failed() {
		for _, f := range found {
			t.Logf("%+v", f)
		}
	}
	w.nothingLeft()
}

// What is wrong with the file systems in which nodes lie is told before one is
// touched.
func TestExamineFileSystems(t *testing.T) {
	w := newWorld(t)
	p := w.provider(nil)
	examine := func() []providers.Finding {
		return p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{{Addr: addr.Node("n1", addr.NoKey),
			Config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("127.0.0.1")})}}})
	}
	look := func(check, text string) {
		t.Helper()
		found := examine()
		if !slices.ContainsFunc(found, func(f providers.Finding) bool {
			return f.Check == check && f.Level == providers.LevelFail && strings.Contains(f.Found, text) && f.Advice != ""
		}) {
			t.Errorf("no %s %q: %+v", check, text, found)
		}
	}
	w.within("mount", "-t", "tmpfs", "-o", "size=200m,nr_inodes=50,noexec", "none", "/var/lib")
	look("inodes", " free in /var/lib")
	look("programs", "/var/lib is on a file system that is mounted noexec")
	w.within("mount", "-o", "remount,ro", "/var/lib")
	look("disk", "/var/lib is on a file system that is mounted read-only")
	w.within("umount", "/var/lib")
	w.within("mkdir", "-p", "/var/lib/clusterplan/nodes")
	w.within("mount", "-t", "tmpfs", "-o", "size=100k,noexec", "none", "/var/lib/clusterplan/nodes")
	look("disk", "0 MiB free in /var/lib/clusterplan/nodes")
	w.within("umount", "/var/lib/clusterplan/nodes")
	w.within("mkdir", "/var/lib/clusterplan/nodes/n1")
	w.within("mount", "-t", "tmpfs", "-o", "ro", "none", "/var/lib/clusterplan/nodes/n1")
	look("disk", "/var/lib/clusterplan/nodes/n1 is on a file system that is mounted read-only")
	w.within("umount", "/var/lib/clusterplan/nodes/n1")

	// Programs may have a file system of their own; what other mounts there are below
	// is nothing to nodes.
	w.within("mount", "-t", "tmpfs", "-o", "size=2g,noexec", "none", "/var/lib")
	w.within("mkdir", "-p", "/var/lib/clusterplan/bin", "/var/lib/clusterplan/backup", "/var/lib/clusterplan/nodes/other")
	look("programs", "/var/lib/clusterplan/bin is on a file system that is mounted noexec")
	w.within("mount", "-t", "tmpfs", "-o", "size=2g", "none", "/var/lib/clusterplan/bin")
	w.within("mount", "-t", "tmpfs", "-o", "ro", "none", "/var/lib/clusterplan/backup")
	w.within("mount", "-t", "tmpfs", "-o", "size=100k", "none", "/var/lib/clusterplan/nodes/other")
	for _, f := range examine() {
		if f.Level == providers.LevelFail {
			t.Errorf("refused: %+v", f)
		}
	}
}

// A node whose port is to be another one stops for it: that the new one is taken is
// told before. Its own port is its own.
func TestExamineAnotherPort(t *testing.T) {
	w := newWorld(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := &node{world: w, p: w.provider(nil), name: "n1", id: pki.NewID(),
		config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
	n.phases(n.plan().Phases...)
	look := func(level, text string) {
		t.Helper()
		found := n.p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{{Addr: n.addr(), ID: n.id, Prior: n.prior, Config: n.config}}})
		if !slices.ContainsFunc(found, func(f providers.Finding) bool {
			return f.Check == "port" && f.Level == level && strings.Contains(f.Found, text)
		}) {
			t.Errorf("no port %s %q: %+v", level, text, found)
		}
	}
	look(providers.LevelOK, "the agent of node.n1 has it")
	n.config = nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(taken.Addr().String())})
	look(providers.LevelFail, taken.Addr().String()+" is taken by another program")
	n.config = nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})
	look(providers.LevelOK, "is free")
	n.config = cty.NilVal
	n.phases(n.plan().Phases...)
	w.nothingLeft()
}

var _ providers.Doctor = (*Provider)(nil)
var _ providers.Prober = (*host)(nil)
