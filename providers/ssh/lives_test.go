package ssh

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/internal/sshlab"
	"github.com/clusterplan/clusterplan/providers"
)

// within runs a command in the host's mounts, as its root.
func (w *world) within(argv ...string) {
	w.t.Helper()
	if err := w.host.Within(argv...); err != nil {
		w.t.Fatal(err)
	}
}

// ownPath has a host look for programs in its bin first, which the test fills.
const ownPath = "SetEnv SHLVL=1 PATH=HOSTDIR/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// fake puts a program into the host's bin.
func (w *world) fake(name, text string) {
	w.t.Helper()
	file := filepath.Join(w.host.Dir, "bin", name)
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// users gives the host users of its own who may be root by sudo.
func (w *world) users() {
	w.t.Helper()
	if _, err := os.Stat("/usr/bin/sudo"); err != nil {
		w.t.Skip("skipped: sudo is not installed (apt-get install sudo)")
	}
	if err := w.host.Users(); err != nil {
		w.t.Fatal(err)
	}
}

// A node's whole life on hosts that are each special: made, as planned, its agent
// killed, upgraded, away without a trace.
func TestLives(t *testing.T) {
	for _, tt := range []struct {
		name   string
		path   string
		block  map[string]cty.Value
		before func(w *world)
	}{
		{name: "sudo without a password", block: map[string]cty.Value{"user": cty.StringVal(sshlab.UserLetIn), "sudo": cty.True}, before: (*world).users},
		{name: "sudo with a password", block: map[string]cty.Value{"user": cty.StringVal(sshlab.UserAsked), "sudo": cty.True, "sudo_password": cty.StringVal(sshlab.Password)},
			before: (*world).users},
		{name: "busybox alone", path: "SetEnv SHLVL=1 PATH=HOSTDIR/bin", block: map[string]cty.Value{"api": cty.StringVal("ssh")}, before: func(w *world) {
			bin := filepath.Join(w.host.Dir, "bin")
			if err := os.MkdirAll(bin, 0o755); err != nil {
				w.t.Fatal(err)
			}
			out, err := exec.Command("busybox", "--list").Output()
			if err != nil {
				w.t.Skip("skipped: busybox is not installed (apt-get install busybox)")
			}
			busybox, _ := exec.LookPath("busybox")
			for _, applet := range strings.Fields(string(out)) {
				if err := os.Symlink(busybox, filepath.Join(bin, applet)); err != nil {
					w.t.Fatal(err)
				}
			}
			// Nothing but busybox, whatever the path: its sh is the login shell too.
			w.within("mount", "--bind", busybox, "/bin/sh")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, cmp.Or(tt.path, ownPath))
			tt.before(w)
			n := &node{world: w, p: w.provider(tt.block), name: "n1", id: pki.NewID(),
				config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
			well := func(when string) {
				t.Helper()
				if health := n.read(); len(health) > 0 {
					t.Fatalf("%s: %q", when, health)
				}
				if phases := n.plan().Phases; len(phases) > 0 {
					t.Fatalf("%s: there is something to do: %q", when, phases)
				}
			}
			n.phases(n.plan().Phases...)
			well("after its create")
			if tt.path != "" {
				all, _ := w.host.Processes()
				for pid, line := range all {
					if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); strings.Contains(line, "/supervise") && filepath.Base(exe) != "busybox" {
						t.Errorf("%s is run by %s", line, exe)
					}
				}
			}

			was := w.agents()
			if len(was) != 1 {
				t.Fatalf("agents: %v", was)
			}
			var own syscall.Stat_t
			if err := syscall.Stat(fmt.Sprintf("/proc/%d", was[0]), &own); err != nil || own.Uid != 0 {
				t.Errorf("the agent is not root's: %d, %v", own.Uid, err)
			}
			if err := syscall.Kill(was[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			w.eventually("its agent is started again", func() bool {
				now := w.agents()
				health, err := n.look()
				return err == nil && len(now) == 1 && now[0] != was[0] && len(health) == 0
			})

			data, err := os.ReadFile(w.program)
			if err == nil {
				w.program = filepath.Join(t.TempDir(), "clusterplan")
				err = os.WriteFile(w.program, append(data, "another build"...), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			n.p = w.provider(tt.block)
			if health := n.read(); len(health) != 1 || health[0] != "agent program differs" {
				t.Fatalf("an upgrade: %q", health)
			}
			n.phases(n.plan().Phases...)
			well("after its upgrade")

			if err := os.RemoveAll(filepath.Join(w.host.Dir, "lib", "clusterplan", "nodes", "n1", providers.DataDirName)); err != nil {
				t.Fatal(err)
			}
			n.p = w.provider(tt.block)
			if health := n.read(); !slices.Equal(health, []string{providers.HealthNoData}) {
				t.Fatalf("its data removed below its agent: %q", health)
			}
			n.phases(n.plan().Phases...)
			well("after it came back with new data")

			n.config = cty.NilVal
			n.phases(n.plan().Phases...)
			w.nothingLeft()
		})
	}
}

// A host of another architecture gets the program that is given for it, once for
// all nodes there; where that is not there, it is told before the host is touched.
func TestProgramOfAnotherArchitecture(t *testing.T) {
	w := newWorld(t, ownPath)
	w.fake("uname", `case $* in *-m*) echo Linux s390x;; *) exec /usr/bin/uname "$@";; esac`)
	data, err := os.ReadFile(w.program)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "clusterplan-s390x")
	programs := map[string]cty.Value{"programs": cty.MapVal(map[string]cty.Value{"s390x": cty.StringVal(other)})}
	n := &node{world: w, p: w.provider(programs), name: "n1", id: pki.NewID(), config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("127.0.0.1")})}
	told := n.p.Examine(t.Context(), providers.Examination{Objects: []providers.Examinee{{Addr: n.addr(), Config: n.config}}})
	if !slices.ContainsFunc(told, func(f providers.Finding) bool {
		return f.Check == "architecture" && f.Level == providers.LevelFail && strings.Contains(f.Found, other)
	}) {
		t.Errorf("the program is not there: %+v", told)
	}
	if left, _ := filepath.Glob(filepath.Join(w.host.Dir, "lib", "*")); len(left) > 0 {
		t.Errorf("that has left %q", left)
	}
	binary.LittleEndian.PutUint16(data[18:], uint16(elf.EM_S390)) // e_machine
	if err := os.WriteFile(other, data, 0o755); err != nil {
		t.Fatal(err)
	}
	// Two nodes that are put on one host at the same time bring it once, and again
	// once when there is another version of it.
	w.fake("cat", `[ $# != 0 ] || echo x >>"${0%/*}/uploads"; exec /bin/cat "$@"`)
	both := []*node{n, {world: w, p: n.p, name: "n2", id: pki.NewID(), config: n.config}}
	for i, n := range both {
		n.config = nodeValue(n.name, map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", 7400+i))})
	}
	for i := range 2 {
		var wait sync.WaitGroup
		for _, n := range both {
			planned := n.plan().Planned
			wait.Go(func() {
				res, err := n.p.Apply(t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: providers.PhaseInstall, Prior: n.prior, Planned: planned})
				if err != nil {
					t.Error(err)
					return
				}
				n.prior = res.Object
			})
		}
		wait.Wait()
		sum := sha256.Sum256(data)
		digest := hex.EncodeToString(sum[:])
		there, err := os.ReadFile(filepath.Join(w.host.Dir, "lib", "clusterplan", "bin", "clusterplan-"+digest[:16]))
		if err != nil || !bytes.Equal(there, data) {
			t.Errorf("the program for it was not uploaded: %d bytes, %v", len(there), err)
		}
		if uploads, _ := os.ReadFile(filepath.Join(w.host.Dir, "bin", "uploads")); len(uploads) != 2*(i+1) {
			t.Errorf("version %d: %d uploads so far for two nodes on one host", i+1, len(uploads)/2)
		}
		data = append(data, "another build"...)
		if err := os.WriteFile(other, data, 0o755); err != nil {
			t.Fatal(err)
		}
		again := w.provider(programs)
		both[0].p, both[1].p = again, again
	}
	for _, n := range both {
		n.config = cty.NilVal
		n.phases(providers.PhaseStop, providers.PhaseRemove)
	}
	w.nothingLeft()
}

// A disk that is full in the middle of an upload is told, and leaves nothing there;
// with room the next apply goes on. Where /tmp is noexec nobody notices.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.within("mount", "--bind", "/tmp", "/tmp")
	w.within("mount", "-o", "remount,bind,noexec", "/tmp")
	w.within("mount", "-t", "tmpfs", "-o", "size=4m", "none", "/var/lib")
	n := &node{world: w, p: w.provider(nil), name: "n1", id: pki.NewID(), config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal("127.0.0.1")})}
	install := func() error {
		res, err := n.p.Apply(t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: providers.PhaseInstall, Prior: n.prior, Planned: n.plan().Planned})
		if err == nil {
			n.prior = res.Object
		}
		return err
	}
	err := install()
	for _, text := range []string{fmt.Sprintf("127.0.0.1:%d: put /var/lib/clusterplan/bin/clusterplan-", w.host.Port), "No space left on device", "make room there"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: want %q", err, text)
		}
	}
	w.within("sh", "-c", `[ -z "$(ls -A /var/lib/clusterplan/bin)" ]`)
	w.within("mount", "-o", "remount,size=500m,noexec", "/var/lib")
	if err := install(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.p.Apply(t.Context(), providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: providers.PhaseStart, Prior: n.prior, Planned: n.plan().Planned}); err == nil ||
		!strings.Contains(err.Error(), "mounted noexec") {
		t.Errorf("started from a file system that is mounted noexec: %v", err)
	}
	w.within("mount", "-o", "remount,exec", "/var/lib")
	n.phases(providers.PhaseStart)
	n.config = cty.NilVal
	n.phases(providers.PhaseStop, providers.PhaseRemove)
	w.within("sh", "-c", `[ -z "$(ls -A /var/lib)" ]`)
}
