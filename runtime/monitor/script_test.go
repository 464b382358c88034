package monitor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// script is a start of a script resource whose commands are shell code.
func script(start, stop string) Order {
	return Order{Start: &Start{
		Group: "g", GroupName: "web", Epoch: 7, StopWithin: spec.Duration(time.Second),
		Resource: spec.Resource{ID: "id-s", Name: "s", Type: "script", Attributes: map[string]any{
			"start": []string{"/bin/sh", "-c", start}, "stop": []string{"/bin/sh", "-c", stop},
		}},
	}}
}

func lines(file string) []string {
	b, _ := os.ReadFile(file)
	return strings.Fields(string(b))
}

func TestScript(t *testing.T) {
	t.Parallel()
	r := ready(t)
	log, pids := filepath.Join(r.dir, "said"), filepath.Join(r.dir, "pids")
	say := func(w string) string { return fmt.Sprintf("echo %s:$CLUSTERPLAN_EPOCH >> %s", w, log) }
	// What start leaves in the background stays until stop has run.
	start := say("start") + fmt.Sprintf("; ( setsid sh -c 'echo $$ >> %s; exec sleep 1000' & )", pids)
	r.send(script(start, say("stop")))
	r.awaitState("s", spec.StateOnline)
	kept := pidsIn(t, pids, 1)
	if !alive(kept[0]) {
		t.Fatal("what start has started ended with it")
	}
	r.send(Order{Stop: &ResourceRef{"g", 7, "s"}})
	r.awaitState("s", spec.StateOffline)
	if alive(kept[0]) {
		t.Error("what start has started lives on")
	}
	if got := strings.Join(lines(log), " "); got != "start:7 stop:7" {
		t.Errorf("ran %q", got)
	}

	// A start that fails says why, and is stopped all the same.
	r.send(script("echo no such array >&2; exit 3", say("stop")))
	if got := r.awaitState("s", spec.StateFailed); got.Reason != "start: ended with exit status 3; its last line: no such array" {
		t.Error(got.Reason)
	}
	eventually(t, "stopped after a start that failed", func() bool { return len(lines(log)) == 3 })

	// A stop that fails is run again; before it has succeeded the group isn't down.
	flag := filepath.Join(r.dir, "let go")
	r.send(script("true", fmt.Sprintf("%s; test -e '%s'", say("try"), flag)))
	r.awaitState("s", spec.StateOnline)
	r.send(Order{Stop: &ResourceRef{"g", 7, "s"}})
	r.await("why its stop has failed", func(w Word) bool {
		return w.Changed != nil && w.Changed.State == spec.StateOfflinePending && w.Changed.Reason == "its stop command failed and is run again: ended with exit status 1"
	})
	r.send(Order{End: &GroupRef{"g", 7}}) // whose taking is told, so that nobody takes the monitor for hung
	r.await("a sign of life", func(w Word) bool {
		return w.Changed != nil && w.Changed.State == spec.StateOfflinePending && w.Changed.Reason == ""
	})
	eventually(t, "tried again", func() bool { return len(lines(log)) >= 5 })
	for _, w := range r.got {
		if w.Down != nil {
			t.Fatal("down before its stop has succeeded")
		}
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitDown("g", 7)
}

// What has failed is gone once its stop has succeeded, and not before; why that fails
// is told meanwhile.
func TestScriptFailsAndDoesNotStop(t *testing.T) {
	t.Parallel()
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart %v", apart), func(t *testing.T) {
			t.Parallel()
			r := ready(t)
			flag := filepath.Join(r.dir, "let go")
			o := script("echo no such array >&2; exit 3", fmt.Sprintf("test -e '%s'", flag))
			o.Start.Resource.SeparateMonitor = apart
			r.send(o)
			if got := r.awaitState("s", spec.StateFailed); !got.Stopping {
				t.Errorf("%+v, and it is being stopped", got)
			}
			r.await("why its stop has failed", func(w Word) bool {
				return w.Changed != nil && w.Changed.State == spec.StateOfflinePending && w.Changed.Reason == "its stop command failed and is run again: ended with exit status 1"
			})
			for _, w := range r.got {
				if w.Gone != nil {
					t.Fatal("gone before its stop has succeeded")
				}
			}
			if err := os.WriteFile(flag, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			r.await("gone", func(w Word) bool { return w.Gone != nil && *w.Gone == ResourceRef{"g", 7, "s"} })
		})
	}
}

// A separate monitor that is killed, by a person or because the group is to end, has
// left its script on: the node's monitor runs the stop, until that succeeds, before
// the resource, or the group, is down.
func TestScriptOfASeparateMonitorThatDied(t *testing.T) {
	t.Parallel()
	r := ready(t)
	log, flag := filepath.Join(r.dir, "said"), filepath.Join(r.dir, "let go")
	o := script("echo start >> "+log, fmt.Sprintf("echo stop >> %s; test -e '%s'", log, flag))
	o.Start.Resource.SeparateMonitor = true
	for _, how := range []string{"killed", "ended"} {
		os.Remove(flag)
		os.Remove(log)
		r.got = nil
		r.send(o)
		r.awaitState("s", spec.StateOnline)
		if how == "killed" {
			if err := unix.Kill(separateMonitor(t, r.p.PID()).PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.awaitState("s", spec.StateFailed)
		} else {
			r.send(Order{End: &GroupRef{"g", 7}})
		}
		r.await("why its stop has failed", func(w Word) bool {
			return w.Changed != nil && w.Changed.State == spec.StateOfflinePending && strings.Contains(w.Changed.Reason, "its stop command failed and is run again")
		})
		eventually(t, "tried again", func() bool { return len(lines(log)) >= 4 })
		for _, w := range r.got {
			if w.Gone != nil || w.Down != nil || w.Changed != nil && w.Changed.State == spec.StateOffline {
				t.Fatalf("%s: down before its stop has succeeded: %+v", how, w)
			}
		}
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if how == "killed" {
			r.await("gone", func(w Word) bool { return w.Gone != nil })
		} else {
			r.awaitDown("g", 7)
		}
	}
	// Nothing is owed any more.
	ran := len(lines(log))
	r.p.Kill()
	<-r.p.Done()
	r = startRig(t, r.dir)
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	if got := len(lines(log)); got != ran {
		t.Errorf("the next monitor ran a stop that has succeeded: %v", lines(log))
	}
}

// What a monitor that died has left on, the next one stops before it is ready;
// what was stopped is not stopped again.
func TestScriptUndone(t *testing.T) {
	t.Parallel()
	r := ready(t)
	log, pids := filepath.Join(r.dir, "said"), filepath.Join(r.dir, "pids")
	on := script(fmt.Sprintf("( setsid sh -c 'echo $$ >> %s; exec sleep 1000' & )", pids), "echo stop >> "+log)
	on.Start.Resource.Attributes["stop_timeout"] = "45s"
	r.send(on)
	r.awaitState("s", spec.StateOnline)
	kept := pidsIn(t, pids, 1)
	var record recordData
	if data, err := os.ReadFile(filepath.Join(r.dir, "run", "record.json")); err != nil || json.Unmarshal(data, &record) != nil || len(record.Undo) != 1 {
		t.Fatalf("what is to be undone: %s, %v", data, err)
	}
	if within := undoWithin(record.Undo[0].Program); within != 45*time.Second {
		t.Errorf("the next monitor gives its stop %s, of a stop_timeout of 45s", within)
	}
	r.p.Kill()
	<-r.p.Done()
	awaitGone(t, kept...)
	if len(lines(log)) != 0 {
		t.Fatal("nobody was there to run it")
	}
	for range 2 {
		r = startRig(t, r.dir)
		r.await("ready", func(w Word) bool { return w.Ready != nil })
		if got := len(lines(log)); got != 1 {
			t.Fatalf("stop has run %d times, want once", got)
		}
		r.p.Kill()
		<-r.p.Done()
	}
}

// Where a fence covers the node, others wait for what its scripts leave on: a monitor
// is not ready before its predecessor's is off, however often that takes. Where none
// does, or nobody waits for that script, a node is not lost for it.
func TestScriptLeftOnANodeWithAFence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ fenced, alone, waits, told bool }{
		{true, false, true, false}, {true, true, false, false}, {false, false, false, false},
		{true, false, true, true}, // and later its agent knows that no fence covers it
	} {
		t.Run(fmt.Sprintf("fenced %v, alone %v, told otherwise %v", tt.fenced, tt.alone, tt.told), func(t *testing.T) {
			t.Parallel()
			r := ready(t)
			flag := filepath.Join(r.dir, "let go")
			r.send(script("true", fmt.Sprintf("test -e '%s'", flag)))
			r.awaitState("s", spec.StateOnline)
			r.p.Kill()
			<-r.p.Done()
			conf := configureOf(r.dir)
			conf.Fences.Covered = tt.fenced
			if tt.alone {
				conf.Fences.Alone = []string{"other/s", "web/s"}
			}
			r = startRigWith(t, nil, Options{Configure: conf})
			tries := undoTries
			if tt.waits {
				tries += 2
			}
			for range tries {
				r.await("can't undo", func(w Word) bool { return w.Log != nil && strings.Contains(w.Log.Text, "can't be stopped") })
			}
			for _, w := range r.got {
				if w.Ready != nil {
					t.Fatal("ready before what was left on is off")
				}
			}
			switch {
			case tt.told:
				r.send(Order{Fences: &Fences{}})
			case tt.waits:
				if err := os.WriteFile(flag, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r.await("ready", func(w Word) bool { return w.Ready != nil })
		})
	}
}
