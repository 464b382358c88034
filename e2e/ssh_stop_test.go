package e2e

import (
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/internal/sshlab"
)

// terminal is what a program has of a pseudo-terminal, and the end at which one types.
func terminal(t *testing.T) (screen, keyboard *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == nil {
		keyboard = os.NewFile(uintptr(fd), "ptmx")
		t.Cleanup(func() { keyboard.Close() })
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	n := 0
	if err == nil {
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
	}
	if err != nil {
		t.Fatal(err)
	}
	if screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return screen, keyboard
}

// gate has a program of the host wait, when it is called with these arguments,
// as long as the file hold is there; it tells by the file held that it does.
func gate(t *testing.T, h *sshlab.Host, program, args string) (held func() bool, open func()) {
	t.Helper()
	bin := filepath.Join(h.Dir, "bin")
	text := fmt.Sprintf("#!/bin/sh\nif [ \"$*\" = %q ] && [ -e %[2]s/hold ]; then\n\t: >%[2]s/held\n\twhile [ -e %[2]s/hold ]; do sleep 0.05; done\nfi\nexec /usr/bin/%[3]s \"$@\"\n", args, bin, program)
	err := os.MkdirAll(bin, 0o755)
	for name, text := range map[string]string{program: text, "hold": ""} {
		err = errors.Join(err, os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	held = func() bool {
		_, err := os.Stat(filepath.Join(bin, "held"))
		return err == nil
	}
	return held, func() {
		for _, name := range []string{"hold", "held", program} {
			if err := os.Remove(filepath.Join(bin, name)); err != nil {
				t.Error(err)
			}
		}
	}
}

// An apply that is interrupted while it connects, asks for a passphrase, uploads,
// starts agents, or waits for one to join: it ends with 130, leaves nothing half
// done on the hosts and no process, and the next one goes on.
func TestSSHInterrupted(t *testing.T) {
	l, hosts := sshHosts(t)
	n1 := hosts.Hosts[0]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cut := func(what string, there func(output string) bool, signals int) {
		t.Helper()
		pid, done, output := l.begin()
		l.until("it comes to: "+what, func() (bool, string) {
			select {
			case err := <-done:
				t.Fatalf("%s: it has ended before: %v: %s", what, err, output())
			default:
			}
			return there(output()), output()
		})
		must(syscall.Kill(pid, syscall.SIGINT))
		l.prints("Interrupted: finishing", output)
		if signals > 1 {
			must(syscall.Kill(pid, syscall.SIGINT))
		}
		l.ended(done, output)
		if text := output(); !strings.Contains(text, "exit status 130") || strings.Contains(strings.ReplaceAll(text, "Error: Interrupted", ""), "Error:") {
			t.Errorf("interrupted while it does: %s: %s", what, text)
		} else if begun := strings.Contains(text, "creating..."); begun && (!strings.Contains(text, "Cut off, to be looked at by the next apply:") || !strings.Contains(text, "Not begun:")) {
			t.Errorf("%s: it does not tell what was cut off, and what not begun: %s", what, text)
		}
		for _, h := range hosts.Hosts {
			l.until(what+": no process is left on "+h.Name, func() (bool, string) {
				all, err := h.Processes()
				for pid, line := range all {
					if strings.Contains(line, "/supervise") || strings.Contains(line, "clusterplan agent") || strings.Contains(line, "/clusterplan monitor") {
						delete(all, pid)
					}
				}
				return err == nil && len(all) == 0, fmt.Sprint(all, err)
			})
			must(filepath.WalkDir(filepath.Join(h.Dir, "lib"), func(path string, _ os.DirEntry, err error) error {
				if strings.Contains(filepath.Base(path), ".clusterplan-") {
					t.Errorf("%s: %s is left", what, path)
				}
				return err
			}))
		}
	}
	nothing := func(what string) {
		t.Helper()
		for _, h := range hosts.Hosts {
			if left, _ := filepath.Glob(filepath.Join(h.Dir, "lib", "*")); len(left) > 0 {
				t.Errorf("%s: it was touched: %q", what, left)
			}
		}
	}

	must(n1.Stop())
	var silent net.Listener
	must(netlab.Do(n1.Namespace, func() (err error) {
		silent, err = net.Listen("tcp", "10.77.0.1:22")
		return err
	}))
	came := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				close(came)
				return
			}
			came <- c
		}
	}()
	cut("connect", func(string) bool { return len(came) > 0 }, 1)
	nothing("connect")
	must(silent.Close())
	for c := range came {
		c.Close()
	}
	must(n1.Start())

	text, err := os.ReadFile(hosts.KeyFile())
	must(err)
	key, err := ssh.ParseRawPrivateKey(text)
	must(err)
	sealed, err := ssh.MarshalPrivateKeyWithPassphrase(crypto.PrivateKey(key), "", []byte("secret"))
	must(err)
	locked := filepath.Join(t.TempDir(), "id")
	must(os.WriteFile(locked, pem.EncodeToMemory(sealed), 0o600))
	env := l.env
	screen, keyboard := terminal(t)
	before, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
	must(err)
	l.env, l.stdin = append(l.env, "CLUSTERPLAN_VAR_private_key_file="+locked), screen
	cut("ask for the passphrase", func(output string) bool { return strings.Contains(output, "Passphrase of "+locked) }, 1)
	nothing("passphrase")
	if after, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS); err != nil || after.Lflag != before.Lflag {
		t.Errorf("the terminal is not as it was: %+v, %v", after, err)
	}

	// Typed, it opens the key: what asks a host is let in.
	_, done, output := l.begin("doctor")
	l.prints("Passphrase of "+locked, output)
	if _, err := keyboard.WriteString("secret\n"); err != nil {
		t.Fatal(err)
	}
	l.ended(done, output)
	if text := output(); !regexp.MustCompile(`(?m)^ *10\.77\.0\.1:22 +addresses +ok `).MatchString(text) || strings.Count(text, "Passphrase of") != 1 || strings.Contains(text, "secret") {
		t.Errorf("with the passphrase typed: %s", text)
	}
	l.env, l.stdin = env, nil

	held, open := gate(t, n1, "cat", "")
	cut("upload", func(string) bool { return held() }, 2)
	open()
	held, open = gate(t, n1, "mkdir", "-p run log")
	cut("start", func(string) bool { return held() }, 2)
	open()

	network := netlab.At(filepath.Dir(hosts.Dir))
	for _, other := range []string{"n2", "n3"} {
		must(network.Inflict(netlab.Fault{Kind: netlab.FaultCut, From: "n1", To: other}, netlab.Fault{Kind: netlab.FaultCut, From: other, To: "n1"}))
	}
	cut("wait for a join", func(output string) bool { return strings.Contains(output, "catching up") }, 2)
	must(network.Heal())

	l.apply()
	l.settled()
	l.up(3, 3)
	l.must(0, "destroy", "--auto-approve")
	nothing("destroy")
}
