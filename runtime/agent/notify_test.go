package agent

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The service manager hears that an agent is ready, that its loop turns, and
// nothing while it doesn't; the environment is taken away.
func TestSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hear := func() string {
		t.Helper()
		buf := make([]byte, 100)
		if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	s := takeSystemd()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left to the agent's children", name, v)
		}
	}
	if s.every != 10*time.Millisecond {
		t.Errorf("signs of life every %s, of a watchdog of 30 ms", s.every)
	}
	if err := s.tell("READY=1"); err != nil || hear() != "READY=1" {
		t.Errorf("ready is not heard: %v", err)
	}
	turn, turned := make(chan bool), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.keep(t.Context(), func() bool { ok := <-turn; turned <- struct{}{}; return ok })
	}()
	turn <- false
	<-turned // a loop that has ended: no sign
	turn <- true
	<-turned
	if got := hear(); got != "WATCHDOG=1" {
		t.Errorf("heard %q", got)
	}
	if err := l.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Read(make([]byte, 100)); err == nil {
		t.Errorf("a sign of life (%d bytes) while the loop hangs", n)
	}

	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", "1") // meant for another process
	if s := takeSystemd(); s.every != 0 {
		t.Error("signs of life that another process is to give")
	}
	if err := (systemd{}).tell("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}
