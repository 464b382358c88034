package monitor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// startFreezer starts a freezer beside the rig's monitor, of the same node.
func (r *rig) startFreezer() *rig {
	r.t.Helper()
	conf := configureOf(r.dir)
	conf.Freezer = true
	p, err := StartProcess(context.Background(), Options{Configure: conf})
	if err != nil {
		r.t.Fatal(err)
	}
	f := &rig{t: r.t, dir: r.dir, p: p}
	r.t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	f.await("ready", func(w Word) bool { return w.Ready != nil })
	return f
}

func inGroup(id string) func(*Start) {
	return func(s *Start) { s.Group, s.GroupName = id, id }
}

// The lease ends: the kernel kills the node's monitor, whose group doesn't stop,
// and what is frozen goes on beside it, also in a monitor of its own. The node's
// next monitor cleans up its own and nothing else. Nothing is started without a
// lease. With one again, the freezer answers for the same process as before.
func TestFrozenOutlivesLease(t *testing.T) {
	t.Parallel()
	if HadFreezer(newDir(t)) {
		t.Error("a new node had a freezer")
	}
	node := ready(t)
	frozen := node.startFreezer()
	if !HadFreezer(node.dir) {
		t.Error("the node has a freezer, and its record doesn't show")
	}
	frozen.renew(time.Hour)
	pids := func(name string) string { return filepath.Join(node.dir, name) }
	write := func(name string) string { return fmt.Sprintf("echo $$ >> %s; exec sleep 1000", pids(name)) }
	apartOf := func(s *Start) { s.Resource.Name, s.Resource.ID, s.Resource.SeparateMonitor = "b", "id-b", true }
	short := func(s *Start) { s.StopWithin = spec.Duration(200 * time.Millisecond) }
	frozen.send(app(write("frozen"), inGroup("f"), short))
	frozen.awaitState("a", spec.StateOnline)
	frozen.send(app(write("apart"), inGroup("f"), short, apartOf))
	frozen.awaitState("b", spec.StateOnline)
	node.send(app(write("plain"), short))
	node.awaitState("a", spec.StateOnline)
	kept := append(pidsIn(t, pids("frozen"), 1), pidsIn(t, pids("apart"), 1)...)
	plain := pidsIn(t, pids("plain"), 1)[0]

	frozen.renew(time.Millisecond)
	node.dieAtLeaseEnd(app(write("plain"), short))
	eventually(t, "the other group's process is gone", func() bool { return !alive(plain) })
	next := startRig(t, node.dir)
	next.await("ready", func(w Word) bool { return w.Ready != nil })

	frozen.send(app(write("late"), inGroup("h")))
	w := frozen.awaitState("a", spec.StateFailed)
	if w.Group != "h" {
		t.Errorf("a start without a lease: %+v", w)
	}
	for _, p := range kept {
		if !alive(p) {
			t.Errorf("process %d is gone, and it was frozen", p.PID)
		}
	}

	frozen.renew(time.Hour)
	frozen.send(app(write("frozen"), inGroup("f"), short)) // there already
	frozen.await("still online", func(w Word) bool {
		return w.Changed != nil && w.Changed.Group == "f" && w.Changed.Resource == "a" && w.Changed.State == spec.StateOnline
	})
	if now := pidsIn(t, pids("frozen"), 1); len(now) != 1 || now[0] != kept[0] {
		t.Errorf("%v runs, and %v did", now, kept[0])
	}
	frozen.send(Order{End: &GroupRef{Group: "f", Epoch: 1}})
	frozen.awaitDown("f", 1)
	for _, p := range kept {
		if alive(p) {
			t.Errorf("process %d is left after the end", p.PID)
		}
	}
}

// dieAtLeaseEnd stops a monitor process and waits until the kernel's timer has
// killed it. The start is of what it runs.
func (r *rig) dieAtLeaseEnd(start Order) {
	r.t.Helper()
	r.renew(5 * time.Second)
	for range 2 { // the second answer tells that the timer is set by what the first has seen
		r.send(start)
		r.awaitState("a", spec.StateOnline)
	}
	if err := unix.Kill(r.p.PID(), unix.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.p.Done():
	case <-time.After(patience):
		r.t.Fatal("the kernel has not killed it")
	}
}

// A freezer whose agent dies while the lease is over is a monitor like any other:
// it stops what it hosts, in order, and ends; one that is killed leaves nothing
// once the next is ready.
func TestFreezerAlone(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed=", killed), func(t *testing.T) {
			node := ready(t)
			frozen := node.startFreezer()
			frozen.renew(time.Hour)
			out := filepath.Join(node.dir, "out")
			frozen.send(app(fmt.Sprintf("trap 'echo bye >> %[1]s; exit 0' TERM; echo $$ > %[1]s; while :; do sleep 0.05; done", out), func(s *Start) { s.StopWithin = spec.Duration(10 * time.Second) }))
			frozen.awaitState("a", spec.StateOnline)
			pid := pidsIn(t, out, 1)[0]
			frozen.renew(time.Millisecond)
			if killed {
				if err := unix.Kill(frozen.p.PID(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-frozen.p.Done()
				node.startFreezer()
			} else {
				frozen.p.Close()
				<-frozen.p.Done()
				if b, _ := os.ReadFile(out); string(b) != fmt.Sprintf("%d\nbye\n", pid.PID) {
					t.Errorf("it was not stopped in order: %q", b)
				}
			}
			if alive(pid) {
				t.Error("its process is left")
			}
		})
	}
}
