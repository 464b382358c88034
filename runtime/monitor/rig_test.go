package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/internal/cgroup"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// The test binary is also the monitor, the guardian, and the programs that
// they run.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "monitor":
			if log := os.Getenv(fakeWatchdogVariable); log != "" {
				openWatchdog = func(string) (watchdogDevice, error) { return openFakeWatchdog(log) }
			}
			os.Exit(Main(os.Args[2:]))
		case "guard":
			os.Exit(GuardMain(os.Args[2:]))
		case "agent":
			os.Exit(agentMain(os.Args[2:]))
		case "reap":
			os.Exit(reapMain())
		}
	}
	os.Exit(m.Run())
}

// patience bounds every wait: far more than anything takes on a busy machine.
const patience = 30 * time.Second

// eventually polls until it is so.
func eventually(t testing.TB, what string, is func() bool) {
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
	t   testing.TB
	dir string
	p   *Process
	got []Word
}

func newDir(t testing.TB) string {
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

func startRig(t testing.TB, dir string) *rig { return startRigOn(t, dir, nil) }

// startRigOn starts the monitor in a host's network; nil: this process's.
func startRigOn(t testing.TB, dir string, on *addresstest.Host) *rig {
	t.Helper()
	return startRigWith(t, on, Options{Configure: configureOf(dir)})
}

func startRigWith(t testing.TB, on *addresstest.Host, options Options) *rig {
	t.Helper()
	do := func(f func() error) error { return f() }
	if on != nil {
		do = on.Do
	}
	return startRigBy(t, do, options)
}

// startRigBy starts the monitor where do runs it.
func startRigBy(t testing.TB, do func(func() error) error, options Options) *rig {
	t.Helper()
	dir := options.Configure.Dir
	var p *Process
	if err := do(func() (err error) {
		p, err = StartProcess(context.Background(), options)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, p: p}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
		b, _ := os.ReadFile(filepath.Join(dir, "run", "record.json"))
		var d recordData
		if json.Unmarshal(b, &d) == nil {
			for _, c := range d.Cgroups {
				cgroup.Empty(c, func(time.Duration) {}) // guardians that were killed as well
			}
		}
	})
	return r
}

// ready is a rig whose monitor is ready and has an hour's lease.
func ready(t testing.TB) *rig {
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
