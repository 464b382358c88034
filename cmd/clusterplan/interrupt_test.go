package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A definition that takes hours to be worked out is no reason to reach for
// kill -9: SIGINT and SIGTERM end what works it out.
func TestInterruptedEvaluation(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const long = "length([for i in range(1000) : [for j in range(1000) : [for k in range(1000) : i + j + k]]])"
	text := "cluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"n\" {\n  provider = local\n}\nlocals {\n  long = " + long + "\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "clusterplan")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	for sig, args := range map[syscall.Signal][]string{syscall.SIGINT: {"validate", dir}, syscall.SIGTERM: {"plan", dir}} {
		cmd := exec.Command(program, args...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for deadline := time.Now().Add(30 * time.Second); !busy(cmd.Process.Pid) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // until it is at work
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 130 || out.Len() > 0 {
				t.Errorf("%v after %v: %v\n%s", args, sig, err, &out)
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%v goes on after %v", args, sig)
		}
	}
}

// busy tells whether a process has used half a second of a processor.
func busy(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int
	fmt.Sscan(fields[11], &user)
	fmt.Sscan(fields[12], &system)
	return user+system >= 50
}
