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

// A stopped monitor can't do anything at the lease's end: the kernel kills it,
// and with it all that it hosts.
func TestDeadMan(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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
