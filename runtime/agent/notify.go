package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// systemd is the service manager that the agent tells how it is (sd_notify(3)):
// ready once it listens, alive as long as its loop turns, stopping at its end.
// A loop that hangs is silent, and the unit's WatchdogSec has it killed and
// started again. The zero value tells nobody.
type systemd struct {
	socket string
	every  time.Duration // between two signs of life; 0: nobody waits for them
}

// takeSystemd reads what systemd left in the environment and takes it away:
// monitor and resources have no business with it.
func takeSystemd() systemd {
	s := systemd{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(usec) * time.Microsecond / 3
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	return s
}

// tell sends lines to systemd.
func (s systemd) tell(lines string) error {
	if s.socket == "" {
		return nil
	}
	name := s.socket
	if name[0] == '@' { // of the abstract namespace
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(lines))
		c.Close()
	}
	if err != nil {
		return fmt.Errorf("tell systemd %q: %w", lines, err)
	}
	return nil
}

// extend tells it that the end may take d from now, whatever the unit's
// TimeoutStopSec (systemd 236 and later).
func (s systemd) extend(d time.Duration) error {
	return s.tell("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

// keep gives signs of life until ctx ends, each once turns has returned true:
// while it doesn't return, there are none.
func (s systemd) keep(ctx context.Context, turns func() bool) error {
	if s.socket == "" || s.every == 0 {
		return nil
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	var failed error
	for {
		select {
		case <-ctx.Done():
			return failed
		case <-tick.C:
		}
		if turns() {
			failed = s.tell("WATCHDOG=1")
		}
	}
}
