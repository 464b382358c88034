package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// The test binary is also the monitor, the guardian, and the programs that
// they run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "monitor":
			os.Exit(Main(os.Args[2:]))
		case "guard":
			os.Exit(GuardMain(os.Args[2:]))
		case "agent":
			os.Exit(agentMain(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// patience bounds every wait: far more than anything takes on a busy machine.
const patience = 30 * time.Second

// eventually polls until it is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not so after %s: %s", patience, what)
}

// rig is a monitor process under test, with a test in the agent's place.
type rig struct {
	t   *testing.T
	dir string
	p   *Process
	got []Word
}

func newDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "bin", "clusterplan")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func configureOf(dir string) Configure {
	return Configure{Cluster: "c", Node: "n1", Dir: dir, Program: filepath.Join(dir, "bin", "clusterplan"), Socket: filepath.Join(dir, "run", "api.sock")}
}

func startRig(t *testing.T, dir string) *rig {
	t.Helper()
	p, err := StartProcess(context.Background(), Options{Configure: configureOf(dir)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, p: p}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	return r
}

// ready is a rig whose monitor is ready and has an hour's lease.
func ready(t *testing.T) *rig {
	t.Helper()
	r := startRig(t, newDir(t))
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.renew(time.Hour)
	return r
}

func (r *rig) send(o Order) {
	r.t.Helper()
	if err := r.p.Send(o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) renew(d time.Duration) spec.Instant {
	r.t.Helper()
	end := boottime.Now().Add(d)
	r.send(Order{Renew: &end})
	return end
}

// await reads words until one fits.
func (r *rig) await(what string, fits func(Word) bool) Word {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case w, ok := <-r.p.Words():
			if !ok {
				<-r.p.Done()
				r.t.Fatalf("the monitor ended (%v) before: %s; words: %s", r.p.Err(), what, r.words())
			}
			r.got = append(r.got, w)
			if fits(w) {
				return w
			}
		case <-timeout:
			r.t.Fatalf("never came: %s; words: %s", what, r.words())
		}
	}
}

func (r *rig) words() string {
	var b strings.Builder
	for _, w := range r.got {
		j, _ := json.Marshal(w)
		fmt.Fprintf(&b, "\n  %s", j)
	}
	return b.String()
}

func (r *rig) awaitState(resource, state string) Changed {
	r.t.Helper()
	return *r.await(resource+" "+state, func(w Word) bool {
		return w.Changed != nil && w.Changed.Resource == resource && w.Changed.State == state
	}).Changed
}

func (r *rig) awaitDown(group string, epoch uint64) {
	r.t.Helper()
	r.await("down "+group, func(w Word) bool { return w.Down != nil && *w.Down == GroupRef{group, epoch} })
}

// app is a start of a shell script as resource a (or as edited).
func app(script string, edit ...func(*Start)) Order {
	s := Start{
		Group: "g", GroupName: "web", Epoch: 1, StopWithin: spec.Duration(time.Second),
		Resource: spec.Resource{
			ID: "id-a", Name: "a", Type: "generic_application",
			Attributes: map[string]any{"command": []string{"/bin/sh", "-c", script}},
		},
	}
	for _, e := range edit {
		e(&s)
	}
	return Order{Start: &s}
}

func attribute(name string, v any) func(*Start) {
	return func(s *Start) { s.Resource.Attributes[name] = v }
}

// pidsIn reads the process ids that programs wrote to a file, once there are
// as many.
func pidsIn(t *testing.T, file string, n int) []processID {
	t.Helper()
	var out []processID
	eventually(t, fmt.Sprintf("%d pids in %s", n, file), func() bool {
		b, _ := os.ReadFile(file)
		if !strings.HasSuffix(string(b), "\n") {
			return false
		}
		out = nil
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return false
			}
			if s, err := statOf(pid); err == nil {
				out = append(out, processID{pid, s.start})
			}
		}
		return len(out) == n
	})
	return out
}

func awaitGone(t *testing.T, pids ...processID) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v gone", pids), func() bool {
		for _, p := range pids {
			if alive(p) {
				return false
			}
		}
		return true
	})
}

// family is a script that makes a process, a child, and a grandchild that has
// escaped into a session of its own with a parent that ended; each writes its
// pid to a file. Nobody listens to SIGTERM, SIGHUP or the end of input.
func family(file string) string {
	return fmt.Sprintf(`trap '' TERM HUP
echo $$ >> %[1]s
sh -c 'echo $$ >> %[1]s; while :; do sleep 1000; done' &
( setsid sh -c 'echo $$ >> %[1]s; while :; do sleep 1000; done' & )
while :; do sleep 1000; done`, file)
}

func TestLife(t *testing.T) {
	r := ready(t)
	out := filepath.Join(r.dir, "env")
	r.send(app(`env > ` + out + `.new; echo one; echo two >&2; mv ` + out + `.new ` + out + `; exec sleep 1000`))
	r.awaitState("a", spec.StateOnlinePending)
	r.awaitState("a", spec.StateOnline)
	eventually(t, "its environment", func() bool { _, err := os.Stat(out); return err == nil })
	env, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CLUSTERPLAN_CLUSTER=c", "CLUSTERPLAN_NODE=n1", "CLUSTERPLAN_GROUP=web", "CLUSTERPLAN_RESOURCE=a",
		"CLUSTERPLAN_EPOCH=1", "CLUSTERPLAN_SOCKET=" + filepath.Join(r.dir, "run", "api.sock"), "PATH=" + filepath.Join(r.dir, "bin") + ":", "PWD=" + r.dir} {
		if !strings.Contains("\n"+string(env), "\n"+want) {
			t.Errorf("no %s in the environment:\n%s", want, env)
		}
	}
	// The same again is no restart; another definition is.
	r.send(app(`env > ` + out + `.new; echo one; echo two >&2; mv ` + out + `.new ` + out + `; exec sleep 1000`))
	r.awaitState("a", spec.StateOnline)
	r.send(app(`trap 'echo bye; exit 0' TERM; echo three; while :; do sleep 0.05; done`))
	r.awaitState("a", spec.StateOfflinePending)
	r.awaitState("a", spec.StateOnlinePending)
	r.awaitState("a", spec.StateOnline)
	log := filepath.Join(r.dir, "log", "web", "a.log")
	eventually(t, "three in the log", func() bool { b, _ := os.ReadFile(log); return strings.Contains(string(b), "three") })
	r.send(Order{Stop: &ResourceRef{Group: "g", Epoch: 1, Resource: "a"}})
	r.awaitState("a", spec.StateOfflinePending)
	r.awaitState("a", spec.StateOffline)
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	eventually(t, "all output", func() bool {
		b, _ := os.ReadFile(log)
		// The shell may tell of the sleep that was ended with it.
		return strings.ReplaceAll(string(b), "Terminated\n", "") == "one\ntwo\nthree\nbye\n"
	})

	// With nothing to host, the end of the agent is the end of the monitor.
	r.p.Close()
	<-r.p.Done()
	if err := r.p.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestFailures(t *testing.T) {
	r := ready(t)
	tests := []struct {
		name, want string
		order      Order
	}{
		{"exit", "ended with exit status 7; its last line: no such table", app("echo starting; echo no such table; echo; exit 7")},
		{"signal", "was ended by SIGKILL", app("sleep 0.05; kill -9 $$")},
		{"command", `command not found: "nosuchprogram" is in no directory of PATH`, app("", attribute("command", []string{"nosuchprogram"}))},
		{"file", "command not found: /no/such", app("", attribute("command", []string{"/no/such"}))},
		{"not executable", "permission denied: it is not executable", app("", attribute("command", []string{"/etc/passwd"}))},
		{"directory", "directory /no/such: no such file", app("true", attribute("directory", "/no/such"))},
		{"user", `user "nobody-here": there is no such user`, app("true", attribute("user", "nobody-here"))},
		{"attribute", "command = 5 is no list of texts", app("", attribute("command", 5))},
		{"unknown attribute", "has no attribute colour", app("", attribute("colour", "red"))},
		{"type", `no resource type "toaster"`, app("", func(s *Start) { s.Resource.Type = "toaster" })},
		{"pending", "not online after 300ms (pending_timeout); the last check: command false: ended with exit status 1", app("exec sleep 1000", func(s *Start) {
			s.Resource.PendingTimeout = spec.Duration(300 * time.Millisecond)
			s.Resource.IsAlive.Command = []string{"false"}
		})},
		{"check", "ended with exit status 3; its last line: sick", app("exec sleep 1000", func(s *Start) {
			sick := filepath.Join(r.dir, "sick")
			s.Resource.LooksAlive.Interval = spec.Duration(20 * time.Millisecond)
			s.Resource.LooksAlive.Command = []string{"/bin/sh", "-c", "test -e " + sick + " || { touch " + sick + "; exit 1; }"}
			s.Resource.IsAlive.Command = []string{"/bin/sh", "-c", "test ! -e " + sick + " && exit 0; echo sick; exit 3"}
		})},
		{"hanging check", "no answer within 100ms", app("exec sleep 1000", func(s *Start) {
			s.Resource.PendingTimeout = spec.Duration(400 * time.Millisecond)
			s.Resource.IsAlive = spec.Poll{Command: []string{"sleep", "1000"}, Timeout: spec.Duration(100 * time.Millisecond)}
		})},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			tt.order.Start.Epoch = uint64(i + 1)
			r.send(tt.order)
			got := r.awaitState("a", spec.StateFailed)
			if !strings.Contains(got.Reason, tt.want) {
				t.Errorf("reason:\n  %s\nwant in it:\n  %s", got.Reason, tt.want)
			}
			r.send(Order{End: &GroupRef{"g", uint64(i + 1)}})
			r.awaitDown("g", uint64(i+1))
		})
	}
}

// A stop reaches what has left the process group, and kills what doesn't obey.
func TestStopLeavesNothing(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file), attribute("stop_timeout", "200ms")))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	r.send(Order{Stop: &ResourceRef{"g", 1, "a"}})
	r.awaitState("a", spec.StateOffline)
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after it is offline", p.PID)
		}
	}
}

// An end kills at once, whatever patience the definition has.
func TestEndKills(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file), attribute("stop_timeout", "1h")))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	r.send(Order{Stop: &ResourceRef{"g", 1, "a"}})
	r.awaitState("a", spec.StateOfflinePending)
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after Down", p.PID)
		}
	}
}

// The program's end is the end of its background processes too.
func TestExitLeavesNothing(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(strings.Replace(family(file), "\nwhile :; do sleep 1000; done", "\nuntil test -e go; do sleep 0.02; done; exit 1", 1)))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	if err := os.WriteFile(filepath.Join(r.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitState("a", spec.StateFailed)
	awaitGone(t, pids...)
}

func TestOrderOfStops(t *testing.T) {
	r := ready(t)
	log := filepath.Join(r.dir, "order")
	start := func(id string, needs ...string) {
		trapped := filepath.Join(r.dir, "trapped-"+id)
		r.send(app(`trap 'sleep 0.1; echo `+id+` >> `+log+`; exit 0' TERM; touch `+trapped+`; while :; do sleep 0.02; done`, func(s *Start) {
			s.Resource.Name, s.Resource.DependsOn = id, needs
		}, attribute("stop_timeout", "20s")))
		r.awaitState(id, spec.StateOnline)
		eventually(t, "its trap", func() bool { return exists(trapped) })
	}
	start("base")
	start("middle", "base")
	start("top", "middle")
	// Without a word for each: the monitor is asked to end.
	if err := unix.Kill(r.p.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.awaitDown("g", 1)
	b, _ := os.ReadFile(log)
	if string(b) != "top\nmiddle\nbase\n" {
		t.Fatalf("stopped in the order\n%s", b)
	}
}

func TestEpochs(t *testing.T) {
	r := ready(t)
	at := func(e uint64) func(*Start) { return func(s *Start) { s.Epoch = e } }
	file := filepath.Join(r.dir, "pids")
	r.send(app("echo $$ >> "+file+"; exec sleep 1000", at(5)))
	r.awaitState("a", spec.StateOnline)
	old := pidsIn(t, file, 1)
	// An older start is refused and changes nothing.
	r.send(app("exec sleep 1001", at(4)))
	if got := r.awaitState("a", spec.StateFailed); got.Epoch != 4 || !strings.Contains(got.Reason, "epoch 4 of group web is older than 5") {
		t.Fatalf("got %+v", got)
	}
	if !alive(old[0]) {
		t.Fatal("the refused start stopped what ran")
	}
	// A newer one replaces what runs.
	r.send(app("exec sleep 1000", at(6)))
	r.await("online under 6", func(w Word) bool {
		return w.Changed != nil && w.Changed.Epoch == 6 && w.Changed.State == spec.StateOnline
	})
	if alive(old[0]) {
		t.Fatal("two epochs ran together")
	}
	// An end of an older epoch is no end of the newer one.
	r.send(Order{End: &GroupRef{"g", 5}})
	r.awaitDown("g", 5)
	r.send(Order{Stop: &ResourceRef{"g", 5, "a"}})
	r.awaitState("a", spec.StateOffline)
	r.send(app("exec sleep 1000", at(6)))
	r.awaitState("a", spec.StateOnline)

	// And the next monitor remembers.
	r.p.Kill()
	<-r.p.Done()
	r2 := startRig(t, r.dir)
	r2.await("ready", func(w Word) bool { return w.Ready != nil })
	r2.renew(time.Hour)
	r2.send(app("exec sleep 1000", at(5)))
	r2.awaitState("a", spec.StateFailed)
	r2.send(app("exec sleep 1000", at(6)))
	r2.awaitState("a", spec.StateOnline)
}

func TestNoLeaseNoStart(t *testing.T) {
	r := startRig(t, newDir(t))
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.send(app("exec sleep 1000"))
	if got := r.awaitState("a", spec.StateFailed); !strings.Contains(got.Reason, "holds no lease") {
		t.Fatal(got.Reason)
	}
}

// At the lease's end all stops by itself, stubborn programs too, and the
// monitor lives on.
func TestLeaseEnds(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file), func(s *Start) { s.StopWithin = spec.Duration(2 * time.Second) }))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	r.renew(50 * time.Millisecond)
	r.awaitDown("g", 1)
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after Down", p.PID)
		}
	}
	r.renew(time.Hour)
	r.send(app("exec sleep 1000"))
	r.awaitState("a", spec.StateOnline)
}

// A stopped monitor can't do anything at the lease's end: the kernel kills it,
// and with it all that it hosts.
func TestDeadMan(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file)))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Stopped under an hour's lease it lives on; going on, it takes a short one.
	eventually(t, "stopped", func() bool { s, err := statOf(r.p.PID()); return err == nil && s.state == 'T' })
	if err := unix.Kill(r.p.PID(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.renew(3 * time.Second)
	r.send(Order{Stop: &ResourceRef{"none", 1, "none"}})
	r.await("the lease taken", func(w Word) bool { return w.Changed != nil && w.Changed.Group == "none" })
	if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.p.Done():
	case <-time.After(patience):
		t.Fatal("a stopped monitor outlived its lease")
	}
	if r.p.Err() == nil || !strings.Contains(r.p.Err().Error(), "SIGKILL") {
		t.Fatal(r.p.Err())
	}
	awaitGone(t, pids...)
}

// The monitor is killed: everything is gone, though programs, guardians and
// all are stopped, and the next monitor finds nothing to do.
func TestMonitorKilled(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped=%v", stopped), func(t *testing.T) {
			r := ready(t)
			file := filepath.Join(r.dir, "pids")
			r.send(app(family(file)))
			r.awaitState("a", spec.StateOnline)
			pids := pidsIn(t, file, 3)
			guardians := guardiansOf(t, r.dir)
			if stopped {
				for _, p := range append(guardians, pids...) {
					if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.p.Kill()
			<-r.p.Done()
			awaitGone(t, append(pids, guardians...)...)
		})
	}
}

func guardiansOf(t *testing.T, dir string) []processID {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "run", "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d recordData
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Guardians) == 0 {
		t.Fatalf("no guardian in the record: %s", b)
	}
	return d.Guardians
}

// The guardian is killed: the program is gone, the monitor kills the orphans
// and says that it failed, and can start it again.
func TestGuardianKilled(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file)))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	if err := unix.Kill(guardiansOf(t, r.dir)[0].PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := r.awaitState("a", spec.StateFailed); !strings.Contains(got.Reason, "guardian was killed") {
		t.Fatal(got.Reason)
	}
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after Down", p.PID)
		}
	}
	r.send(app("exec sleep 1000"))
	r.awaitState("a", spec.StateOnline)
}

// Monitor and guardians are killed at one blow: orphans that have escaped
// their session live on, until the next monitor has cleaned up.
func TestCleanUp(t *testing.T) {
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file)))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	// Stopped, so that none of them acts on the other's death.
	guardian := guardiansOf(t, r.dir)[0]
	for _, pid := range []int{r.p.PID(), guardian.PID} {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "stopped", func() bool { s, err := statOf(pid); return err == nil && s.state == 'T' })
	}
	if err := unix.Kill(guardian.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, guardian)
	r.p.Kill()
	<-r.p.Done()
	left := 0
	for _, p := range pids {
		if alive(p) {
			left++
		}
	}
	if left == 0 {
		t.Fatal("nothing escaped: this test tests nothing")
	}
	// A bystander with a recorded pid, but another start time, lives on.
	bystander := exec.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		bystander.Process.Kill()
		bystander.Wait()
	}()
	path := filepath.Join(r.dir, "run", "record.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d recordData
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	d.Guardians = append(d.Guardians, processID{bystander.Process.Pid, 1})
	b, _ = json.Marshal(d)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}

	r2 := startRig(t, r.dir)
	r2.await("ready", func(w Word) bool { return w.Ready != nil })
	for _, p := range pids {
		if alive(p) {
			t.Errorf("%d lives after Ready", p.PID)
		}
	}
	if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the bystander: %v", err)
	}
}

// While a monitor lives, the next one waits for it.
func TestLock(t *testing.T) {
	r := ready(t)
	r.send(app("exec sleep 1000"))
	r.awaitState("a", spec.StateOnline)
	r2 := startRig(t, r.dir)
	w := r2.await("waiting", func(w Word) bool { return w.Log != nil && strings.Contains(w.Log.Text, "waiting for the node's lock") })
	if got := w.Log.Args["pid"]; got != strconv.Itoa(r.p.PID()) {
		t.Errorf("it waits for pid %v, want %d", got, r.p.PID())
	}
	r2.send(app("exec sleep 1000"))
	if got := r2.awaitState("a", spec.StateFailed); !strings.Contains(got.Reason, "isn't ready") {
		t.Fatal(got.Reason)
	}
	r.p.Kill()
	r2.await("ready", func(w Word) bool { return w.Ready != nil })
}

// The agent is killed: the monitor serves on until its lease's end.
func TestAgentKilled(t *testing.T) {
	dir := newDir(t)
	file := filepath.Join(dir, "pids")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(self, "agent", dir, file)
	agent.Stderr = os.Stderr
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		agent.Process.Kill()
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	s, err := statOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	monitor := processID{pid, s.start}
	pids := pidsIn(t, file, 3)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	// A new agent's monitor is ready once the old one has ended with its
	// lease; nothing is then left.
	r := startRig(t, dir)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	for _, p := range append(pids, monitor) {
		if alive(p) {
			t.Errorf("%d lives after Ready", p.PID)
		}
	}
}

// agentMain is an agent that starts a family, says its monitor's pid once it
// is online, and takes no more care.
func agentMain(args []string) int {
	p, err := StartProcess(context.Background(), Options{Configure: configureOf(args[0])})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for w := range p.Words() {
		switch {
		case w.Ready != nil:
			end := boottime.Now().Add(2 * time.Second)
			order := app(family(args[1]))
			if p.Send(Order{Renew: &end}) != nil || p.Send(order) != nil {
				return 1
			}
		case w.Changed != nil && w.Changed.State == spec.StateOnline:
			fmt.Println(p.PID())
		}
	}
	return 1
}
