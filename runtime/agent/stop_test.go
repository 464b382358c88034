package agent_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// withinVariable is the agent's Config.StopWithin, of a test that doesn't wait 30 s.
const withinVariable = "CLUSTERPLAN_TEST_STOP_WITHIN"

// An agent that is to end lets what it runs stop in the time that its stop_timeout gives
// it, also where that is longer than an agent has else, and tells systemd that it takes
// so long. What the definition says since counts from the next start on.
func TestLongStopIsNotCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	n := r.nodes[0]
	notify := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n.env = []string{withinVariable + "=1ms", "NOTIFY_SOCKET=" + notify}
	admin := r.form(spec.SingleNode)
	notes := filepath.Join(t.TempDir(), "notes")
	g := r.webGroup()
	g.Resources[0].Type = "script"
	put := func(timeout string) {
		t.Helper()
		g.Resources[0].Attributes = map[string]any{"start": []any{"/bin/true"}, "stop_timeout": timeout,
			"stop": []any{"/bin/sh", "-c", "echo begun >>" + notes + "; sleep 1; echo stopped >>" + notes}}
		if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
			t.Fatal(err)
		}
	}
	put("40s")
	r.settled(admin, allUp)
	eventually(t, func() string {
		if bound := r.self(n).StopBound.D(); bound != 40*time.Second {
			return "it may take " + bound.String() + " to stop, by what its agent says"
		}
		return ""
	})
	put("35s")
	if bound := r.self(n).StopBound.D(); bound != 40*time.Second {
		t.Errorf("it was started with a stop_timeout of 40s, and may take %s to stop, by what its agent says", bound)
	}
	if code := n.term(t); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if said, err := os.ReadFile(notes); err != nil || string(said) != "begun\nstopped\n" {
		t.Errorf("what the stop said: %q, %v", said, err)
	}
	var heard []string
	for buf := make([]byte, 100); ; {
		_ = l.SetReadDeadline(time.Now().Add(patience))
		size, err := l.Read(buf)
		if err != nil {
			t.Fatalf("systemd heard %q", heard)
		}
		heard = append(heard, string(buf[:size]))
		if strings.HasPrefix(heard[len(heard)-1], "EXTEND_") {
			break
		}
	}
	if got := heard[len(heard)-1]; got != "EXTEND_TIMEOUT_USEC=60000000" {
		t.Errorf("systemd heard %q, want 60 s: 40 for the stop, 10 for its end, 10 to spare", got)
	}
}

// Where no fence covers a node, as its agent knows once it has a leader, its monitor does
// not wait for good for what a script left on and does not stop: the node is not lost for it.
func TestScriptLeftOnWithoutAFence(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	n := r.nodes[0]
	admin := r.form(spec.SingleNode)
	notes, hold := filepath.Join(t.TempDir(), "notes"), filepath.Join(t.TempDir(), "hold")
	g := r.webGroup()
	g.Resources[0].Type = "script"
	g.Resources[0].Attributes = map[string]any{"start": []any{"/bin/sh", "-c", "echo started >>" + notes}, "stop": []any{"/bin/sh", "-c", "echo stop >>" + notes + "; rmdir " + hold + "/first || while [ -e " + hold + " ]; do sleep 0.05; done; exit 1"}}
	if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
		t.Fatal(err)
	}
	r.settled(admin, allUp)
	n.kill()
	n.monitorsGone()
	if err := os.MkdirAll(filepath.Join(hold, "first"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	eventually(t, func() string { // as the second try is under way
		if why := r.self(n).NotReady; !strings.Contains(why, g.Name+"/"+g.Resources[0].Name+", which an earlier monitor left on, can't be stopped: ") {
			return "not_ready is " + why
		}
		return ""
	})
	if err := os.Remove(hold); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		said, err := os.ReadFile(notes)
		if err != nil {
			return err.Error()
		}
		if !strings.Contains(strings.TrimPrefix(string(said), "started\n"), "stop\nstop\nstop\nstarted\n") {
			return "ran " + strings.Join(strings.Fields(string(said)), " ")
		}
		if why := r.self(n).NotReady; why != "" {
			return "not_ready is " + why
		}
		return ""
	})
}
