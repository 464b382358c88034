package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A group whose stop fails keeps its node running: an apply that has drained the node
// ends there, with what keeps it and what to do, and no other node starts the group.
// Once its stop goes through it leaves by itself, and the next apply goes on.
func TestFailedStopKeepsItsNode(t *testing.T) { failedStop(t, false) }

// So does one whose resource has failed, and waits for its stop to start again.
func TestFailedStopOfWhatFailedKeepsItsNode(t *testing.T) { failedStop(t, true) }

func failedStop(t *testing.T, fails bool) {
	l := newLab(t)
	l.patient()
	notes, busy := filepath.Join(t.TempDir(), "notes"), filepath.Join(t.TempDir(), "busy")
	check := "true"
	if fails {
		check = "test ! -e " + busy
	}
	said := func() string {
		text, err := os.ReadFile(notes)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	l.edit("output \"url\"", `group "array" {
  preferred_owners = [node.n1, node.n2]
  resource "script" "disk" {
    start        = ["/bin/sh", "-c", "echo start:$CLUSTERPLAN_NODE >> `+notes+`"]
    stop         = ["/bin/sh", "-c", "test ! -e `+busy+` || { echo device is busy; exit 3; }; echo stop:$CLUSTERPLAN_NODE >> `+notes+`"]
    stop_timeout = "1s"
    is_alive {
      command  = ["/bin/sh", "-c", "`+check+`"]
      interval = "1s"
    }
  }
}

output "url"`)
	l.apply()
	l.groupOnline("array", "n1")
	if err := os.WriteFile(busy, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if fails {
		l.until("array has failed, and its stop fails", func() (bool, string) {
			for _, g := range l.status().Groups {
				if g.Name == "array" {
					r := g.Resources[0]
					return strings.Contains(r.Reason, "its stop command failed"), fmt.Sprintf("%+v", g)
				}
			}
			return false, "no such group"
		})
	}
	pid := l.node("n1").PID
	l.must(1, "apply", "--auto-approve", "--replace", "node.n1").wants(t,
		"drain node n1: group array is stuck on it", "disk: offline_pending", "its stop command failed and is run again", "exit status 3", "device is busy",
		"may start on no other node", "Mend what keeps it from stopping on n1")
	if now := l.node("n1").PID; now != pid {
		t.Errorf("n1's agent was %d and is %d", pid, now)
	}
	if got := said(); got != "start:n1" {
		t.Errorf("while its stop fails: %s", got)
	}
	if err := os.Remove(busy); err != nil {
		t.Fatal(err)
	}
	l.groupOnline("array", "n2")
	if got := said(); got != "start:n1 stop:n1 start:n2" {
		t.Errorf("once its stop goes through: %s", got)
	}
	l.apply()
	l.up(3, 3)
	l.settled()
	l.destroyed()
}
