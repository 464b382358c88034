package ssh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/sshconn"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// bare is a host without a node.
func (w *world) bare() *host {
	w.t.Helper()
	m, err := w.provider(nil).machine(sshconn.Config{Port: w.host.Port, User: "root", KnownHostsFile: w.lab.KnownHosts(), PrivateKeyFile: w.lab.KeyFile(), SSHConfigFile: "none"},
		spec.Node{Address: "127.0.0.1"}, DefaultDirectory, apiSSH)
	if err != nil {
		w.t.Fatal(err)
	}
	return &host{machine: m}
}

// A script that prints too much is told, and the next one works.
func TestScriptPrintsTooMuch(t *testing.T) {
	h := newWorld(t).bare()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if out, err := h.run(ctx, fmt.Sprintf("head -c %d /dev/zero", readLimit+1)); err == nil || !strings.Contains(err.Error(), "printed more than is read") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	if out, err := h.run(ctx, "echo next"); err != nil || string(out) != "next\n" {
		t.Errorf("the next script: %q, %v", out, err)
	}
}

// A script whose caller has left has ended once the provider is closed: the program
// ends then, and nobody would end it any more.
func TestScriptThatIsLeftEnds(t *testing.T) {
	h := newWorld(t).bare()
	file := filepath.Join(t.TempDir(), "begun")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.run(ctx, "echo >"+file+"; sleep 1000")
		done <- err
	}()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal("it has not begun")
		}
	}
	h.shell.mu.Lock()
	i := h.shell.now
	h.shell.mu.Unlock()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.shell.close()
	select {
	case <-i.ended:
	default:
		t.Error("it may run on")
	}
}

// A unit whose file somebody has removed is one that systemd goes on starting.
func TestStopOfUnitWithoutFile(t *testing.T) {
	bin := t.TempDir()
	calls := filepath.Join(bin, "calls")
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >>"+calls+"\ncase $1 in stop) exit 5;; esac\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "SetEnv SHLVL=1 PATH="+bin+":/usr/sbin:/usr/bin:/sbin:/bin")
	h := w.bare()
	if _, err := h.run(t.Context(), "mkdir -p /run/systemd/system"); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(t.Context(), "nodes/n1", time.Second); err != nil {
		t.Error(err)
	}
	if said, _ := os.ReadFile(calls); !strings.Contains(string(said), "stop --no-block clusterplan-n1.service\n") {
		t.Errorf("systemctl was called with %q", said)
	}
}

// A supervisor that ends late leaves the number of the one after it alone.
func TestSupervisorThatEndsLate(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "nodes", "n1")
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(providers.AgentLink, "#!/bin/sh\necho runs >>run/agents\nexec sleep 1000\n")
	write(superviseFile, supervise(root, "nodes/n1"))
	for _, after := range []string{"12345\n", ""} {
		os.Remove(filepath.Join(dir, "run", "agents"))
		s := exec.Command("sh", filepath.Join(dir, superviseFile))
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, "run", "agents")); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it starts no agent within 30 s")
			}
		}
		if after != "" {
			write(supervisorPID, after)
		}
		_ = s.Process.Signal(syscall.SIGTERM)
		_ = s.Wait()
		if got, _ := os.ReadFile(filepath.Join(dir, supervisorPID)); string(got) != after {
			t.Errorf("its number is %q after its end, want %q", got, after)
		}
		os.Remove(filepath.Join(dir, supervisorPID))
	}
}
