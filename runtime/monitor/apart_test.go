package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

func separate(s *Start) { s.Resource.SeparateMonitor = true }

func named(group, resource string) func(*Start) {
	return func(s *Start) { s.Group, s.GroupName, s.Resource.Name = group, group, resource }
}

// separateMonitor is the process of a monitor's separate monitor.
func separateMonitor(t *testing.T, of int) processID {
	t.Helper()
	var found processID
	eventually(t, "a separate monitor", func() bool {
		for _, pid := range childrenOf(of) {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if args := strings.Split(string(b), "\x00"); len(args) > 2 && args[1] == "monitor" && args[2] == apartArg {
				s, err := statOf(pid)
				if err == nil && s.state != 'Z' {
					found = processID{pid, s.start}
					return true
				}
			}
		}
		return false
	})
	return found
}

// A separate monitor that dies, by a signal or as it hangs until its lease's end,
// takes its own resource along and nothing else; the resource can start again.
func TestSeparateMonitor(t *testing.T) {
	t.Parallel()
	r := ready(t)
	file, other := filepath.Join(r.dir, "pids"), filepath.Join(r.dir, "other")
	r.send(app("echo $$ >> "+other+"; exec sleep 1000", named("h", "b")))
	r.awaitState("b", spec.StateOnline)
	bystander := pidsIn(t, other, 1)

	r.send(app(family(file), separate))
	r.awaitState("a", spec.StateOnline)
	pids := pidsIn(t, file, 3)
	own := separateMonitor(t, r.p.PID())
	if err := unix.Kill(own.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := r.awaitState("a", spec.StateFailed); !strings.Contains(got.Reason, "its monitor died: ended by SIGKILL") {
		t.Error(got.Reason)
	}
	os.Remove(file)
	r.send(app(family(file), separate)) // after all of it is gone
	r.awaitState("a", spec.StateOnline)
	for _, p := range append(pids, own) {
		if alive(p) {
			t.Errorf("%d of the old life lives in the new one", p.PID)
		}
	}
	pids, own = pidsIn(t, file, 3), separateMonitor(t, r.p.PID())

	// Stopped, it takes no order: ending the group kills it.
	if err := unix.Kill(own.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	for _, p := range append(pids, own) {
		if alive(p) {
			t.Errorf("%d lives after Down", p.PID)
		}
	}

	// In order: a failure's reason, a stop.
	r.send(app("echo too bad; exit 4", separate))
	if got := r.awaitState("a", spec.StateFailed); !strings.Contains(got.Reason, "exit status 4; its last line: too bad") {
		t.Error(got.Reason)
	}
	r.send(app("exec sleep 1000", separate))
	r.awaitState("a", spec.StateOnline)
	r.send(Order{Stop: &ResourceRef{"g", 1, "a"}})
	r.awaitState("a", spec.StateOffline)
	if !alive(bystander[0]) {
		t.Error("a resource in the node's monitor died with another's")
	}
	eventually(t, "no separate monitor left", func() bool { return len(childrenOf(r.p.PID())) == 1 })
}

// With the node's monitor all separate ones die, and the kernel kills a separate
// one by its own timer.
func TestSeparateMonitorDiesToo(t *testing.T) {
	for _, who := range []string{"the node's monitor is killed", "the separate one is stopped", "both are stopped"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			r := ready(t)
			file := filepath.Join(r.dir, "pids")
			r.send(app(family(file), separate))
			r.awaitState("a", spec.StateOnline)
			pids := append(pidsIn(t, file, 3), separateMonitor(t, r.p.PID()))
			if who == "the node's monitor is killed" {
				r.p.Kill()
				awaitGone(t, pids...)
				return
			}
			r.renew(2 * time.Second)
			r.send(Order{Stop: &ResourceRef{"none", 1, "none"}})
			r.await("the lease taken", func(w Word) bool { return w.Changed != nil && w.Changed.Group == "none" })
			if err := unix.Kill(pids[3].PID, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if who == "both are stopped" {
				if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			awaitGone(t, pids...)
		})
	}
}

// An address and a script in monitors of their own: what has to be on disk is,
// in the node's record.
func TestSeparateMonitorsKeep(t *testing.T) {
	t.Parallel()
	lan := addresstest.New(t)
	host, client := lan.Host(), lan.Host()
	r := startRigOn(t, newDir(t), host)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.renew(time.Hour)
	a := vips["ipv4"]
	log := filepath.Join(r.dir, "said")
	r.send(vip(a, separate))
	r.awaitState("v", spec.StateOnline)
	s := script("true", "echo stop >> "+log)
	named("h", "s")(s.Start)
	separate(s.Start)
	r.send(s)
	r.awaitState("s", spec.StateOnline)
	if !client.Ping(a, time.Second) {
		t.Fatal("it doesn't answer")
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "run", "record.json"))
	if err != nil || !strings.Contains(string(b), `"device":"cplan0"`) || !strings.Contains(string(b), "echo stop") {
		t.Errorf("the record: %s, %v", b, err)
	}
	r.p.Kill()
	<-r.p.Done()
	r = startRigOn(t, r.dir, host)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	if host.Has(a) || len(host.Devices("cplan")) > 0 || len(lines(log)) != 1 {
		t.Errorf("after the next monitor's Ready: address %v, devices %v, stopped %v", host.Has(a), host.Devices("cplan"), lines(log))
	}
}
