package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Nobody reads what plan and apply print (`| head`): they come to their end, with
// their own exit code and without a word about it, and what was done is in the
// state. What prints on and on ends with its reader.
func TestClosedPipe(t *testing.T) {
	l := newLab(t)
	// unread runs the program with an stdout that nobody reads, and stderr as well where both.
	unread := func(both bool, args ...string) result {
		t.Helper()
		cmd, _, stderr := l.command(t.Context(), args...)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		cmd.Stdout = w
		if both {
			cmd.Stderr = w
		}
		_ = cmd.Run() // its exit code is looked at
		w.Close()
		return result{args: args, code: cmd.ProcessState.ExitCode(), stderr: stderr.String()}
	}
	file := filepath.Join(t.TempDir(), "change.plan")
	if r := unread(false, "plan", "--out", file, "--detailed-exitcode"); r.code != 2 || r.stderr != "" {
		t.Errorf("plan with changes should end quietly with 2: %s", r)
	}
	if r := unread(false, "apply", file); r.code != 0 || !strings.Contains(r.stderr, "Apply complete.") {
		t.Fatalf("apply should go on to its end and say so on stderr: %s", r)
	}
	l.served("n1")
	l.settled()
	if r := unread(true, "events", "--follow"); r.code != -1 {
		t.Errorf("what follows events should end with its reader, by SIGPIPE: %s", r)
	}
	if r := unread(true, "destroy", "--auto-approve"); r.code != 0 {
		t.Fatalf("destroy should go on to its end, also with stderr closed: %s", r)
	}
	if left := l.processes(); len(left) > 0 {
		t.Errorf("left after destroy: %v", left)
	}
}
