package ssh

import (
	"context"
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

// systemd itself, where it is installed, has nothing to say against the unit, and
// reads in it what is promised: it is told when the agent is up, watches it, and
// starts it again.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd is not installed")
	}
	const root = "/var/lib/clusterplan"
	text := unit(root, "nodes/n1")
	for _, line := range []string{"Type=notify", "WatchdogSec=30", "Restart=always", "StartLimitIntervalSec=0", "KillMode=process"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("the unit has no %s:\n%s", line, text)
		}
	}
	file := filepath.Join(t.TempDir(), unitName(root, "nodes/n1"))
	// It looks for the program too, which is not there.
	program := filepath.Join(root, "nodes/n1", providers.AgentLink)
	for _, c := range []struct{ text, want string }{{strings.ReplaceAll(text, program, "/bin/true"), ""}, {strings.Replace(text, "WatchdogSec=", "WatchdogSecs=", 1), "WatchdogSecs"}} {
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", "--generators=no", "--recursive-errors=no", file).CombinedOutput()
		if c.want == "" && (err != nil || len(out) > 0) || !strings.Contains(string(out), c.want) {
			t.Errorf("systemd says of the unit %q, %v; want %q", out, err, c.want)
		}
	}
}

// systemctl does what the provider asks of systemd: units are read at a reload, one
// that is started runs, again after its end, until it is stopped. It waits before or
// after what it does, where the file hold says so.
const systemctl = `S=%s U=/etc/systemd/system
verb= unit= props=
while [ $# -gt 0 ]; do
	case $1 in
	--version) echo "systemd 252 (252)"; exit 0 ;;
	-p) props="$props $2 "; shift ;;
	-*) ;;
	*) if [ -z "$verb" ]; then verb=$1; else unit="$unit $1"; fi ;;
	esac
	shift
done
unit=${unit# }
hold() {
	[ "$(cat $S/hold 2>/dev/null)" = "$verb $1" ] || return 0
	: >$S/held
	while [ -e $S/hold ]; do sleep 0.02; done
}
runs() { read -r pid <$S/pid-$unit && kill -0 "$pid"; } 2>/dev/null
value() { sed -n "s/^$1=//p" $S/loaded/$unit; }
hold before
exec 9>$S/lock; flock 9 # one after the other, as systemd does
case $verb in
daemon-reload) rm -rf $S/loaded && cp -r $U $S/loaded ;;
enable) [ -e $S/loaded/$unit ] && : >$S/enabled-$unit ;;
disable) rm -f $S/enabled-$unit ;;
start)
	if [ ! -e $S/loaded/$unit ]; then echo "Unit $unit not found." >&2; false
	elif ! runs; then
		rm -f $S/stopping-$unit
		rm -f $S/stopping-$unit
		log=$(value StandardOutput)
		echo "cd $(value WorkingDirectory); exec env $(value Environment) $(value ExecStart) >>${log#append:} 2>&1" >$S/run-$unit
		setsid sh -c 'while [ ! -e $1/stopping-$2 ]; do
			sh $1/run-$2 &
			echo $! >$1/pid-$2; wait $!
			[ -e $1/stopping-$2 ] || sleep 0.2
		done' sh $S $unit >/dev/null 2>&1 </dev/null 9>&- &
		while ! runs; do sleep 0.02; done
	fi ;;
stop) : >$S/stopping-$unit; ! runs || kill -TERM $pid ;;
show)
	for unit in $unit; do
		pid=0 state=inactive; runs && state=active || pid=0
		for p in $props; do
			case $p in
			Id) echo Id=$unit ;;
			ActiveState) echo ActiveState=$state ;;
			UnitFileState) if [ -e $S/enabled-$unit ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi ;;
			MainPID) echo MainPID=$pid ;;
			esac
		done
		echo
	done ;;
esac
code=$?
exec 9>&-
hold after
exit $code`

// sshdSessions are the processes of the host's SSH server that serve connections.
func (w *world) sshdSessions() (pids []int) {
	w.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", w.host.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, _ := os.ReadFile(d + "/cmdline")
		if ns, err := os.Readlink(d + "/ns/pid"); err == nil && ns == own && strings.HasPrefix(string(line), "sshd: ") {
			var pid int
			if fmt.Sscan(filepath.Base(d), &pid); pid != w.host.PID() { // the one that listens
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// On a host with systemd an apply that is interrupted, or loses the connection,
// before or after each thing that it asks of systemd leaves what the next one goes
// on from: one agent, which systemd watches, and in the end nothing.
func TestSystemdInterrupted(t *testing.T) {
	w := newWorld(t, ownPath)
	dir := filepath.Join(w.host.Dir, "systemd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.fake("systemctl", fmt.Sprintf(systemctl, dir))
	w.within("mkdir", "-p", "/run/systemd/system")
	n := &node{world: w, p: w.provider(nil), name: "n1", id: pki.NewID(),
		config: nodeValue("n1", map[string]cty.Value{"address": cty.StringVal(fmt.Sprintf("127.0.0.1:%d", port(t)))})}
	hold, held := filepath.Join(dir, "hold"), filepath.Join(dir, "held")
	interrupt := func(phase, at string, cut bool) {
		t.Helper()
		if err := os.WriteFile(hold, []byte(at), 0o644); err != nil {
			t.Fatal(err)
		}
		planned := cty.NilVal
		if n.config != cty.NilVal {
			planned = n.plan().Planned
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			res, err := n.p.Apply(ctx, providers.ApplyRequest{Addr: n.addr(), Type: "node", ID: n.id, Phase: phase, Prior: n.prior, Planned: planned})
			if res.Object != nil {
				n.prior = res.Object
			}
			done <- err
		}()
		w.eventually(phase+" comes to "+at, func() bool {
			select {
			case err := <-done:
				t.Fatalf("%s ended before it came to %s: %v", phase, at, err)
			default:
			}
			_, err := os.Stat(held)
			return err == nil
		})
		if cut {
			for _, pid := range w.sshdSessions() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		} else {
			cancel()
		}
		err := <-done
		for _, file := range []string{hold, held} { // what was cut off goes on there, if it can
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
		}
		if err == nil {
			t.Errorf("%s at %s, cut %v: no error", phase, at, cut)
		}
	}
	// Each by the connection's end and by Ctrl-C; once where it is done after the first.
	points := func(phase string, points ...string) {
		t.Helper()
		for _, at := range points {
			at, once := strings.CutSuffix(at, " once")
			interrupt(phase, at, true)
			if !once {
				interrupt(phase, at, false)
			}
		}
	}
	points(providers.PhaseInstall, "daemon-reload before", "daemon-reload after", "enable before", "enable after once")
	n.phases(providers.PhaseInstall)
	points(providers.PhaseStart, "start before", "start after once")
	n.phases(providers.PhaseStart, providers.PhaseJoin, providers.PhasePromote)
	if health := n.read(); len(health) > 0 || len(w.agents()) != 1 {
		t.Errorf("after its create: %q, agents %v", health, w.agents())
	}

	// What is done to its unit behind systemd's back is found, and mended while the
	// agent runs on.
	was := w.agents()
	file, enabled := filepath.Join(w.host.Dir, "units", "clusterplan-n1.service"), filepath.Join(dir, "enabled-clusterplan-n1.service")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func() error
		health string
	}{
		{func() error { return os.WriteFile(file, append(text, "# mine\n"...), 0o644) }, "service unit differs"},
		{func() error { return os.Remove(file) }, "service unit gone"},
		{func() error { return os.Remove(enabled) }, "service unit disabled, not enabled"},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		if health := n.read(); len(health) != 1 || health[0] != c.health {
			t.Errorf("it reads as %q, want %q", health, c.health)
		}
		if phases := n.plan().Phases; len(phases) != 1 || phases[0] != providers.PhaseInstall {
			t.Errorf("%s: the plan does %q", c.health, phases)
		}
		n.phases(providers.PhaseInstall)
		if health := n.read(); len(health) > 0 || !slices.Equal(w.agents(), was) {
			t.Errorf("%s: after: %q, agents %v, before %v", c.health, health, w.agents(), was)
		}
	}
	n.config = cty.NilVal
	n.phases(providers.PhaseDrain, providers.PhaseLeave)
	points(providers.PhaseStop, "stop before", "stop after")
	n.phases(providers.PhaseStop)
	points(providers.PhaseRemove, "disable before", "disable after")
	n.phases(providers.PhaseRemove)
	w.nothingLeft()
}
