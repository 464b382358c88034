package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

func TestLife(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
		{"pending", "not online after 1s (pending_timeout); the last check: command false: ended with exit status 1", app("exec sleep 1000", func(s *Start) {
			s.Resource.PendingTimeout = spec.Duration(time.Second)
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	r := ready(t)
	log := filepath.Join(r.dir, "order")
	oneOf := map[string][]string{"roof": {"top", "tower"}} // needs one of them
	start := func(id string, needs ...string) {
		trapped := filepath.Join(r.dir, "trapped-"+id)
		r.send(app(`trap 'sleep 0.1; echo `+id+` >> `+log+`; exit 0' TERM; touch `+trapped+`; while :; do sleep 0.02; done`, func(s *Start) {
			s.Resource.Name, s.Resource.DependsOn, s.Resource.DependsOnAny = id, needs, oneOf[id]
		}, attribute("stop_timeout", "20s")))
		r.awaitState(id, spec.StateOnline)
		eventually(t, "its trap", func() bool { return exists(trapped) })
	}
	start("base")
	start("middle", "base")
	start("top", "middle")
	start("roof")
	// Without a word for each: the monitor is asked to end.
	if err := unix.Kill(r.p.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.awaitState("base", spec.StateOffline)
	b, _ := os.ReadFile(log)
	if string(b) != "roof\ntop\nmiddle\nbase\n" {
		t.Fatalf("stopped in the order\n%s", b)
	}
}

func TestEpochs(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	r := ready(t)
	file := filepath.Join(r.dir, "pids")
	r.send(app(family(file), func(s *Start) { s.StopWithin = spec.Duration(2 * time.Second) }))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	r.renew(50 * time.Millisecond)
	r.awaitState("a", spec.StateOffline)
	// Nobody asked for a proof: a Down of the monitor's own could cross with a Start.
	r.send(Order{End: &GroupRef{"unknown", 1}})
	if w := r.await("a Down", func(w Word) bool { return w.Down != nil }); w.Down.Group != "unknown" {
		t.Fatalf("Down of %s without an End", w.Down.Group)
	}
	r.send(Order{End: &GroupRef{"g", 1}})
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
