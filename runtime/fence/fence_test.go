package fence

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

const dummy = "/usr/sbin/fence_dummy"

// scripted is a fence agent that does as its parameter "how" says, and keeps
// whether its node is on, and what it was told, in files.
const scripted = `#!/bin/sh
while IFS= read -r line; do
  case "$line" in
  action=*) action=${line#action=};; how=*) how=${line#how=};; dir=*) dir=${line#dir=};; plug=*) plug=${line#plug=};; password=*) password=${line#password=};;
  esac
done
if [ "$action" = metadata ]; then
  echo '<?xml version="1.0"?><resource-agent><parameters><parameter name="how" required="1"><content type="string"/></parameter><parameter name="dir"/><parameter name="plug"/><parameter name="password"/></parameters><actions><action name="on"/><action name="off"/><action name="status"/></actions></resource-agent>'
  exit 0
fi
echo "$action $plug" >> "$dir/calls"
case "$how-$action" in
hang-off) sleep 1000 & wait;;
lie-off) echo "Success: Powered OFF"; exit 0;;
garbage-status) head -c 100000 /dev/urandom; exit 7;;
die-off) echo "password is $password"; kill -9 $$;;
once-off) if [ ! -e "$dir/tried" ]; then touch "$dir/tried"; echo busy >&2; exit 1; fi; touch "$dir/off"; exit 0;;
slow-off) (sleep 0.3; touch "$dir/off") > /dev/null 2>&1 & exit 0;;
*-off) touch "$dir/off"; exit 0;;
*-on) rm -f "$dir/off"; exit 0;;
*-status) if [ -e "$dir/off" ]; then exit 2; fi; exit 0;;
esac
`

func script(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fence_scripted")
	if err := os.WriteFile(file, []byte(scripted), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

// What an agent says to "off" counts for nothing; its status does.
func TestAgents(t *testing.T) {
	agent := script(t)
	for _, c := range []struct {
		how    string
		action string
		ok     bool
		err    string // part of it
		calls  string
	}{
		{how: "well", ok: true, calls: "off n2,status n2"},
		{how: "well", action: spec.FenceReboot, ok: true, calls: "off n2,status n2,on n2"},
		{how: "slow", ok: true}, // off comes true while it is asked
		{how: "once", ok: true, calls: "off n2,off n2,status n2"},
		{how: "hang", err: "no answer in time"},
		{how: "lie", err: "still on"},
		{how: "garbage", err: "exit status 7"},
		{how: "die", err: "signal: killed: password is (sensitive)"},
	} {
		t.Run(c.how+c.action, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := New(Config{Again: 20 * time.Millisecond})
			f := spec.Fence{ID: "f", Name: "power", Agent: agent, Level: 1, Action: c.action, Timeout: spec.Duration(1500 * time.Millisecond),
				Parameters: map[string]string{"how": c.how, "dir": dir, "password": "hunter2"}}
			if c.ok {
				f.Timeout = spec.Duration(30 * time.Second)
			}
			res := r.Run(t.Context(), Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{f}}})
			if res.OK != c.ok || c.err != "" && !strings.Contains(res.Err, c.err) || strings.Contains(fmt.Sprint(res), "hunter2") {
				t.Errorf("%+v", res)
			}
			if len(res.Uses) != 1 || res.Uses[0].OK != c.ok {
				t.Errorf("uses %+v", res.Uses)
			}
			if calls := strings.ReplaceAll(strings.TrimSpace(read(t, filepath.Join(dir, "calls"))), "\n", ","); c.calls != "" && calls != c.calls {
				t.Errorf("it was called with %q, want %q", calls, c.calls)
			}
		})
	}
}

// All devices of a level have to succeed; else the next one is tried.
func TestLevels(t *testing.T) {
	agent := script(t)
	device := func(name, how string, level int, dir string) spec.Fence {
		return spec.Fence{ID: name, Name: name, Agent: agent, Level: level, Timeout: spec.Duration(20 * time.Second),
			Parameters: map[string]string{"how": how, "dir": dir}, Plugs: map[string]string{"n2": "outlet-" + name}}
	}
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	lying := device("b", "lie", 1, b)
	lying.Timeout = spec.Duration(300 * time.Millisecond)
	res := New(Config{Again: 20 * time.Millisecond}).Run(t.Context(), Job{Node: "id2", Name: "n2",
		Levels: [][]spec.Fence{{device("a", "well", 1, a), lying}, {device("c", "well", 2, c)}}})
	if !res.OK || res.By != "c" || len(res.Uses) != 3 || !res.Uses[0].OK || res.Uses[1].OK || !res.Uses[2].OK {
		t.Errorf("%+v", res)
	}
	if calls := read(t, filepath.Join(a, "calls")); calls != "off outlet-a\nstatus outlet-a\n" {
		t.Errorf("a was called with %q", calls)
	}
}

// A job is cancelled before its first device was told anything, and not after.
func TestCancel(t *testing.T) {
	agent, dir := script(t), t.TempDir()
	f := spec.Fence{ID: "f", Name: "power", Agent: agent, Delay: spec.Duration(time.Hour), Parameters: map[string]string{"how": "well", "dir": dir}}
	r := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan Result)
	go func() { done <- r.Run(ctx, Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{f}}}) }()
	cancel()
	if res := <-done; !res.Cancelled || read(t, filepath.Join(dir, "calls")) != "" {
		t.Errorf("%+v", res)
	}
	// The second waits for the first, which is past its beginning: it goes on.
	f.Delay, f.Parameters["how"] = 0, "slow"
	ctx, cancel = context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx, Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{f}}}) }()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(read(t, filepath.Join(dir, "calls")), "off"); {
		if time.Now().After(deadline) {
			t.Fatal("it was never called")
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if res := <-done; !res.OK {
		t.Errorf("%+v", res)
	}
}

// Each level waits its longest delay before its devices are used, the first one
// so that it can be cancelled meanwhile.
func TestDelay(t *testing.T) {
	root := t.TempDir()
	own := nodeDir(t, root, "n1", "id1", "c")
	synctest.Test(t, func(t *testing.T) {
		// There is no such node here, so each device fails at once.
		device := func(delay time.Duration) spec.Fence {
			return spec.Fence{ID: "f", Agent: spec.FenceLocal, Delay: spec.Duration(delay)}
		}
		levels := [][]spec.Fence{{device(2 * time.Second), device(3 * time.Second)}, {device(5 * time.Second)}}
		r := New(Config{Dir: own, NodeID: "id1", ClusterID: "c"})
		for _, c := range []struct {
			cancelled, took time.Duration
			uses            int
		}{{0, 8 * time.Second, 3}, {2900 * time.Millisecond, 2900 * time.Millisecond, 0}, {3100 * time.Millisecond, 8 * time.Second, 3}} {
			ctx, cancel := context.WithCancel(t.Context())
			if c.cancelled > 0 {
				time.AfterFunc(c.cancelled, cancel)
			}
			began := time.Now()
			res := r.Run(ctx, Job{Node: "id2", Name: "n2", Levels: levels})
			if took := time.Since(began); took != c.took || len(res.Uses) != c.uses || res.Cancelled != (c.uses == 0) || res.OK {
				t.Errorf("cancelled after %s: %+v after %s, want %s", c.cancelled, res, took, c.took)
			}
			cancel()
		}
	})
}

// A real agent of Debian's fence-agents.
func TestFenceDummy(t *testing.T) {
	if _, err := os.Stat(dummy); err != nil {
		t.Skip("fence_dummy is missing; apt-get install fence-agents")
	}
	t.Parallel()
	status := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(status, []byte("on"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(Config{Again: 50 * time.Millisecond})
	job := func(how, action string) Job {
		return Job{Node: "id2", Name: "n2", Levels: [][]spec.Fence{{{ID: "f", Name: "dummy", Agent: "fence_dummy", Level: 1, Action: action,
			Parameters: map[string]string{"type": how, "status_file": status, "power_timeout": "1"}}}}}
	}
	if res := r.Run(t.Context(), job("file", spec.FenceOff)); !res.OK || strings.TrimSpace(read(t, status)) != "off" {
		t.Errorf("%+v, and the file says %q", res, read(t, status))
	}
	if res := r.Run(t.Context(), job("file", spec.FenceReboot)); !res.OK || strings.TrimSpace(read(t, status)) != "on" {
		t.Errorf("%+v, and the file says %q", res, read(t, status))
	}
	if res := r.Run(t.Context(), job("fail", spec.FenceOff)); res.OK || !strings.Contains(res.Err, "exit status 1") {
		t.Errorf("%+v", res)
	}
	f := &spec.Fence{Agent: "fence_dummy", Action: spec.FenceReboot, Parameters: map[string]string{"type": "file", "login": "x"}}
	if got := r.Check(f); len(got) != 1 || !strings.Contains(got[0], `takes no parameter "login"`) {
		t.Errorf("%q", got)
	}
	f = &spec.Fence{Agent: "fence_of_nobody"}
	if got := r.Check(f); len(got) != 1 || !strings.Contains(got[0], "fence-agents") {
		t.Errorf("%q", got)
	}
	f = &spec.Fence{Agent: script(t)}
	if got := r.Check(f); len(got) != 1 || !strings.Contains(got[0], `needs a parameter "how"`) {
		t.Errorf("%q", got)
	}
}
