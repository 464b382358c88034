package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// watchdog resets the node when nobody has fed it for its time-out. It stands
// behind what the kernel doesn't take away with this process: what a script has
// changed. It is fed while the node's lease lasts, and when nothing is left here,
// which the record on disk proves; never in between. So it resets a node that lost
// its lease and can't stop what it ran, or whose monitor and agent are dead or
// hang, and the others' takeover waits for that (spec.TakeoverWaitWith).
//
// It is this process that feeds it, and not the agent: the kernel kills it S + K
// after the lease's end, while anything runs (deadman.go). A feed that was decided
// under the lease, and delayed by whatever, so can't be later than that.
//
// A monitor that is killed leaves it armed. The next one opens it, which feeds it,
// only when it has undone all that the last had left on.
type watchdog struct {
	dev     watchdogDevice
	timeout time.Duration
	next    spec.Instant  // when to feed it, or to look whether it may be fed
	starved bool          // it isn't fed now
	feeds   chan struct{} // to the goroutine that feeds: a driver may take its time
	failed  chan error
}

// watchdogDevice is the kernel's watchdog, open: armed.
type watchdogDevice interface {
	// Arm sets the time-out in seconds and returns what the driver has made of it.
	Arm(seconds int) (int, error)
	Feed() error
	// Disarm closes it so that it stops; an error where its driver can't.
	Disarm() error
	// Stays tells whether its driver keeps it armed for good (nowayout).
	Stays() bool
}

// openWatchdog opens a device, for tests to replace.
var openWatchdog = openWatchdogDevice

// feedsPerTimeout is how often it is fed within its time-out.
const feedsPerTimeout = 4

// armWatchdog opens the node's watchdog, if the definition names one. What it
// can't, it tells: the agent then starts nothing that relies on it.
func (m *monitor) armWatchdog() {
	if m.conf.Watchdog == "" {
		return
	}
	w, err := newWatchdog(m.conf.Watchdog, m.conf.WatchdogTimeout.D())
	if err != nil {
		m.noWatchdog = err.Error()
		m.out.log("error", "the node's watchdog is not armed: groups that rely on it don't start here", map[string]any{"err": err.Error()})
		return
	}
	m.watchdog = w
	m.out.log("info", "the watchdog is armed", map[string]any{"device": m.conf.Watchdog, "timeout": w.timeout.String()})
	if w.dev.Stays() {
		m.out.log("warn", "the watchdog's driver keeps it armed for good (nowayout): the node is reset when its agent is stopped for longer than the time-out",
			map[string]any{"device": m.conf.Watchdog, "timeout": w.timeout.String()})
	}
}

// armed is the watchdog as the loop sees it: prepare makes it beside the loop,
// which may use it once prepare has returned.
func (m *monitor) armed() *watchdog {
	if !m.isReady {
		return nil
	}
	return m.watchdog
}

// newWatchdog arms a device with at most that time-out.
func newWatchdog(path string, timeout time.Duration) (*watchdog, error) {
	dev, err := openWatchdog(path)
	if err != nil {
		return nil, err
	}
	wanted := int(timeout / time.Second)
	seconds, err := dev.Arm(wanted)
	if err == nil && (seconds < 1 || seconds > wanted) {
		err = fmt.Errorf("%s makes %d s of a time-out of %d s, and a takeover counts with no more than that: set watchdog_timeout to what the driver has", path, seconds, wanted)
	}
	if err != nil {
		if stop := dev.Disarm(); stop != nil {
			err = fmt.Errorf("%w; and it stays armed, so that it may reset the node: %w", err, stop)
		}
		return nil, err
	}
	w := &watchdog{
		dev: dev, timeout: time.Duration(seconds) * time.Second,
		feeds: make(chan struct{}, 1), failed: make(chan error, 1),
	}
	go w.run()
	return w, nil
}

func (w *watchdog) run() {
	for range w.feeds {
		if err := w.dev.Feed(); err != nil {
			w.failed <- fmt.Errorf("feed the watchdog: %w", err)
			return
		}
	}
}

// broken tells of a watchdog that can't be fed.
func (w *watchdog) broken() <-chan error {
	if w == nil {
		return nil
	}
	return w.failed
}

// nothingLeft tells whether nothing that this node has run is there any more.
func (m *monitor) nothingLeft() bool { return m.idle() && m.record.nothingToUndo() }

// feedWatchdog feeds the watchdog if it is time, and if it may be fed.
func (m *monitor) feedWatchdog() {
	w := m.armed()
	if w == nil {
		return
	}
	now := boottime.Now()
	if now < w.next && !w.starved {
		return
	}
	if !now.Before(m.lease) && !m.nothingLeft() {
		if !w.starved {
			w.starved = true
			m.out.log("warn", "the watchdog is not fed before what ran under the lease is down", map[string]any{"timeout": w.timeout.String()})
		}
		w.next = now.Add(w.timeout / (2 * feedsPerTimeout))
		return
	}
	w.starved, w.next = false, now.Add(w.timeout/feedsPerTimeout)
	select {
	case w.feeds <- struct{}{}:
	default: // the last feed is not done yet
	}
}

// endWatchdog disarms it at this process's orderly end, if nothing is left.
func (m *monitor) endWatchdog() {
	w := m.armed()
	if w == nil {
		return
	}
	if !m.nothingLeft() {
		m.out.log("error", "the watchdog stays armed: something that a script turned on is not proven off", map[string]any{"timeout": w.timeout.String()})
		return
	}
	if err := w.dev.Disarm(); err != nil {
		m.out.log("error", "the watchdog can't be disarmed: it resets the node, unless an agent is started in time", map[string]any{"err": err.Error(), "timeout": w.timeout.String()})
		return
	}
	m.out.log("info", "the watchdog is disarmed", nil)
}

// linuxWatchdog is a device of the kernel's watchdog interface
// (linux/Documentation/watchdog/watchdog-api.rst).
type linuxWatchdog struct {
	fd    int
	path  string
	info  unix.WatchdogInfo
	stays bool
}

// openWatchdogDevice opens the device with that path, and no file that is none:
// opening a watchdog arms it.
func openWatchdogDevice(path string) (watchdogDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("there is no %s: load the driver of the node's watchdog (softdog is the kernel's own), or correct watchdog", path)
		}
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return nil, fmt.Errorf("%s is no watchdog but another kind of file: correct watchdog", path)
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s is in use by another program (systemd with RuntimeWatchdogSec, watchdogd, sbd): stop that, or name another device, and restart the agent", path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("the agent may not open %s (%w): run it as root", path, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	info, err := unix.IoctlGetWatchdogInfo(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s doesn't answer as a watchdog (%w): correct watchdog", path, err)
	}
	return &linuxWatchdog{fd: fd, path: path, info: *info, stays: nowayout(uint64(st.Rdev))}, nil
}

// nowayout asks sysfs whether a device's driver can't be stopped; false also where
// sysfs doesn't say.
func nowayout(device uint64) bool {
	dir := filepath.Join("/sys/dev/char", fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)))
	if unix.Major(device) == 10 && unix.Minor(device) == 130 { // /dev/watchdog is the first one's other name
		dir = "/sys/class/watchdog/watchdog0"
	}
	b, _ := os.ReadFile(filepath.Join(dir, "nowayout"))
	return strings.TrimSpace(string(b)) == "1"
}

func (d *linuxWatchdog) Arm(seconds int) (int, error) {
	if d.info.Options&unix.WDIOF_SETTIMEOUT != 0 {
		if err := unix.IoctlSetPointerInt(d.fd, unix.WDIOC_SETTIMEOUT, seconds); err != nil {
			return 0, fmt.Errorf("set the time-out of %s to %d s: %w: choose another watchdog_timeout", d.path, seconds, err)
		}
	}
	got, err := unix.IoctlGetInt(d.fd, unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return 0, fmt.Errorf("read the time-out of %s: %w: a watchdog that doesn't tell its time-out can't be relied on", d.path, err)
	}
	return got, d.Feed()
}

func (d *linuxWatchdog) Feed() error {
	if d.info.Options&unix.WDIOF_KEEPALIVEPING != 0 {
		return unix.IoctlWatchdogKeepalive(d.fd)
	}
	_, err := unix.Write(d.fd, []byte{0})
	return err
}

// Disarm writes the magic V, without which the kernel keeps a closed one armed.
func (d *linuxWatchdog) Disarm() error {
	_, err := unix.Write(d.fd, []byte{'V'})
	if cerr := unix.Close(d.fd); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return fmt.Errorf("disarm %s: %w", d.path, err)
	case d.stays:
		return fmt.Errorf("%s stays armed: its driver was loaded with nowayout", d.path)
	}
	return nil
}

func (d *linuxWatchdog) Stays() bool { return d.stays }
