package monitor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// fakeWatchdogVariable names the file that a monitor's fake watchdog writes what
// it is told to. No test opens a real one.
const fakeWatchdogVariable = "CLUSTERPLAN_TEST_WATCHDOG"

type fakeWatchdog struct{ log *os.File }

func openFakeWatchdog(path string) (watchdogDevice, error) {
	if b, _ := os.ReadFile(path); strings.HasPrefix(string(b), "busy") {
		return nil, errors.New("/dev/watchdog is in use by another program")
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	d := fakeWatchdog{f}
	d.say("open")
	return d, err
}

func (d fakeWatchdog) say(word string) error {
	_, err := fmt.Fprintln(d.log, word)
	return err
}

func (d fakeWatchdog) Arm(seconds int) (int, error) {
	if b, _ := os.ReadFile(d.log.Name()); strings.Contains(string(b), "rounds up") {
		seconds += 30
	}
	return seconds, d.say(fmt.Sprintf("armed:%d", seconds))
}
func (d fakeWatchdog) Feed() error   { return d.say("feed") }
func (d fakeWatchdog) Disarm() error { return errors.Join(d.say("V"), d.log.Close()) }
func (d fakeWatchdog) Stays() bool   { return false }

// watched is a monitor with a fake watchdog of two seconds.
func watched(t *testing.T, dir string) *rig {
	t.Helper()
	conf := configureOf(dir)
	conf.Watchdog, conf.WatchdogTimeout = "/dev/watchdog", spec.Duration(2*time.Second)
	return startRigWith(t, nil, Options{Configure: conf, Env: append(os.Environ(), fakeWatchdogVariable+"="+filepath.Join(dir, "fed"))})
}

func feeds(dir string) (n int) {
	for _, w := range lines(filepath.Join(dir, "fed")) {
		if w == "feed" {
			n++
		}
	}
	return n
}

// Armed before anything starts; fed under a lease and with nothing left; not fed
// while a stop is not proven without a lease, by the next monitor either; disarmed
// at an orderly end.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	fed, letGo := filepath.Join(dir, "fed"), filepath.Join(dir, "let-go")
	r := watched(t, dir)
	up := r.await("ready", func(w Word) bool { return w.Ready != nil }).Ready
	if up.Watchdog != spec.Duration(2*time.Second) || up.NoWatchdog != "" {
		t.Fatalf("ready with %+v", up)
	}
	if got := lines(fed); !slices.Equal(got[:2], []string{"open", "armed:2"}) {
		t.Fatalf("the device was told %q", got)
	}
	eventually(t, "fed with nothing here, and no lease", func() bool { return feeds(dir) >= 2 })
	r.renew(time.Hour)
	stuck := script("true", fmt.Sprintf("test -e '%s'", letGo))
	stuck.Start.StopWithin = spec.Duration(time.Hour)
	r.send(stuck)
	r.awaitState("s", spec.StateOnline)
	now := feeds(dir)
	eventually(t, "fed under the lease", func() bool { return feeds(dir) >= now+2 })

	// The lease is over, and the stop fails: with an hour of stop_within the
	// monitor lives on, and all the same feeds nothing.
	r.renew(time.Millisecond)
	r.await("starved", func(w Word) bool { return w.Log != nil && strings.Contains(w.Log.Text, "watchdog is not fed") })
	now = feeds(dir)
	r.await("stop fails again and again", func(w Word) bool { return w.Log != nil && strings.Contains(w.Log.Text, "is run again") })
	time.Sleep(1200 * time.Millisecond) // two feeds' time: a late one fails the test, a slow machine doesn't
	if got := feeds(dir); got > now+1 { // one may have been on its way
		t.Fatalf("fed %d times without a lease, before the stop was proven", got-now)
	}

	// Nor does its successor open it, which would feed it, before that is undone.
	r.p.Kill()
	<-r.p.Done()
	opened := strings.Count(strings.Join(lines(fed), " "), "open")
	r = watched(t, dir)
	for range undoTries + 1 {
		r.await("can't undo", func(w Word) bool { return w.Log != nil && strings.Contains(w.Log.Text, "can't be stopped") })
	}
	if got := strings.Count(strings.Join(lines(fed), " "), "open"); got != opened {
		t.Fatal("opened before all of the last monitor's was undone")
	}
	if err := os.WriteFile(letGo, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.p.Close()
	<-r.p.Done()
	if got := lines(fed); r.p.Err() != nil || got[len(got)-1] != "V" {
		t.Errorf("ended with %v, and the device was told %q at last", r.p.Err(), got[len(got)-1])
	}
}

// A watchdog that can't be armed as defined is none, and why is told.
func TestWatchdogRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ device, want string }{
		{"busy\n", "in use by another program"},
		{"rounds up\n", "makes 32 s of a time-out of 2 s"},
	} {
		dir := newDir(t)
		if err := os.WriteFile(filepath.Join(dir, "fed"), []byte(tt.device), 0o600); err != nil {
			t.Fatal(err)
		}
		up := watched(t, dir).await("ready", func(w Word) bool { return w.Ready != nil }).Ready
		if up.Watchdog != 0 || !strings.Contains(up.NoWatchdog, tt.want) {
			t.Errorf("%q: ready with %+v", tt.device, up)
		}
		if got := lines(filepath.Join(dir, "fed")); tt.device != "busy\n" && got[len(got)-1] != "V" {
			t.Errorf("%q: it was left armed: %q", tt.device, got)
		}
	}
}

// What is no watchdog is not taken for one. /dev/null is a device, too, that
// opening does nothing to.
func TestOpenWatchdogDevice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "there is no",
		file:                       "is no watchdog",
		"/dev/null":                "doesn't answer as a watchdog",
	} {
		if d, err := openWatchdogDevice(path); err == nil || d != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "x" {
		t.Error("the file was written to")
	}
	if nowayout(unix.Mkdev(1, 3)) {
		t.Error("/dev/null can't be stopped?")
	}
}
