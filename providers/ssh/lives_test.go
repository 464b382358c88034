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
	"syscall"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/providers"
)

// within runs a command in the host's mounts, as its root.
func (w *world) within(argv ...string) {
	w.t.Helper()
	if out, err := exec.Command("nsenter", append([]string{"-m", "-t", fmt.Sprint(w.host.PID())}, argv...)...).CombinedOutput(); err != nil {
		w.t.Fatalf("%q: %v: %s", argv, err, out)
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

const livesPassword = `pass word'"`

// users gives the host users of its own who may be root by sudo, one of them
// without a password: the real sudo, and PAM's real check of the password.
func (w *world) users() {
	w.t.Helper()
	if _, err := os.Stat("/usr/bin/sudo"); err != nil {
		w.t.Skip("skipped: sudo is not installed (apt-get install sudo)")
	}
	dir := filepath.Join(w.host.Dir, "etc")
	for d := w.lab.Dir; strings.HasPrefix(d, os.TempDir()+"/"); d = filepath.Dir(d) { // the users have to get at their keys
		if err := os.Chmod(d, 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
	// openssl passwd -6 -salt test
	const hash = "$6$test$2WAfkTFk0M6epM4QRvjVECwHUzaiZUPDdA7BA.ILWnYlmqluDJ5LuO6YWTYKiUh7Fi1cg7PzK7yFUJumrK0N/0"
	etc := map[string]string{"passwd": "", "shadow": "", "group": "", "sudoers": "root ALL=(ALL) ALL\naskme ALL=(ALL) ALL\nletin ALL=(ALL) NOPASSWD: ALL\n",
		"pam.d/sudo": "auth required pam_unix.so nodelay\naccount required pam_permit.so\nsession required pam_permit.so\n"}
	for i, user := range []string{"askme", "letin"} {
		etc["passwd"] += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", user, 60100+i, 60100+i, w.lab.Dir)
		etc["shadow"] += fmt.Sprintf("%s:%s:20000:0:99999:7:::\n", user, hash)
		etc["group"] += fmt.Sprintf("%s:x:%d:\n", user, 60100+i)
	}
	mode := map[string]os.FileMode{"passwd": 0o644, "group": 0o644, "shadow": 0o600, "sudoers": 0o440, "pam.d/sudo": 0o644}
	for name, text := range etc {
		if name == "passwd" || name == "shadow" || name == "group" {
			have, err := os.ReadFile("/etc/" + name)
			if err != nil {
				w.t.Fatal(err)
			}
			text = string(have) + text
		}
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode[name]); err != nil {
			w.t.Fatal(err)
		}
		w.within("mount", "--bind", file, "/etc/"+name)
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
		{name: "sudo without a password", block: map[string]cty.Value{"user": cty.StringVal("letin"), "sudo": cty.True}, before: (*world).users},
		{name: "sudo with a password", block: map[string]cty.Value{"user": cty.StringVal("askme"), "sudo": cty.True, "sudo_password": cty.StringVal(livesPassword)},
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

			n.config = cty.NilVal
			n.phases(n.plan().Phases...)
			w.nothingLeft()
		})
	}
}

// A host of another architecture gets the program that is given for it; where that
// is not there, it is told before the host is touched.
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
	n.phases(providers.PhaseInstall)
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	there, err := os.ReadFile(filepath.Join(w.host.Dir, "lib", "clusterplan", "bin", "clusterplan-"+digest[:16]))
	if err != nil || !bytes.Equal(there, data) {
		t.Errorf("the program for it was not uploaded: %d bytes, %v", len(there), err)
	}
	n.config = cty.NilVal
	n.phases(providers.PhaseStop, providers.PhaseRemove)
	w.nothingLeft()
}
