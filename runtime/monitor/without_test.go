package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/address/addresstest"
)

// without runs what starts a monitor on a thread with mounts of its own, once change
// has changed them; on is the host's network, nil: this process's.
func without(t *testing.T, on *addresstest.Host, change func() error) func(func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts of its own need root")
	}
	return func(f func() error) error {
		run := func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			if err := change(); err != nil {
				return err
			}
			return f()
		}
		if on != nil {
			return on.Do(run) // on a thread that ends with it
		}
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // the thread ends with this goroutine
			done <- run()
		}()
		return <-done
	}
}

// noCgroup takes every cgroup v2 out of sight.
func noCgroup() error {
	mounts, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil {
				return err
			}
		}
	}
	return nil
}

// Without a cgroup the guardian holds a process that has made itself a daemon (two
// forks, a session of its own, nothing in its environment): it is its subreaper.
func TestDaemonWithoutCgroup(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	in := without(t, nil, noCgroup)
	r := startRigBy(t, in, Options{Configure: configureOf(dir)})
	up := r.await("ready", func(w Word) bool { return w.Ready != nil })
	if up.Ready.Cgroup != "" {
		t.Fatalf("it has the cgroup %s: this test tests nothing", up.Ready.Cgroup)
	}
	r.renew(patience)
	file := filepath.Join(dir, "pids")
	start := func(script string) processID {
		t.Helper()
		os.Remove(file)
		r.send(app(script))
		r.awaitState("a", spec.StateOnline)
		pid := pidsIn(t, file, 1)[0]
		if holdsToken(pid.PID, up.Ready.Token) {
			t.Fatal("it is marked: this test tests nothing")
		}
		return pid
	}
	hidden := start(daemon(file))
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	if alive(hidden) {
		t.Error("it lives after Down")
	}
	ends := filepath.Join(dir, "ends") // once it has been looked at
	hidden = start(fmt.Sprintf(`( env -i setsid /bin/sh -c 'echo $$ >> %s; while :; do /bin/sleep 1000; done' & )
until test -e %s; do sleep 0.02; done; exit 3`, file, ends))
	if err := os.WriteFile(ends, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitState("a", spec.StateFailed)
	awaitGone(t, hidden)
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
	hidden = start(daemon(file))
	r.p.Kill()
	<-r.p.Done()
	awaitGone(t, hidden)
}

// Where there is no TUN device an address fails, with what to do about it, and
// nothing is added in another way.
func TestAddressWithoutTUN(t *testing.T) {
	t.Parallel()
	h := addresstest.New(t).Host()
	in := without(t, h, func() error { return unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "") })
	r := startRigBy(t, in, Options{Configure: configureOf(newDir(t))})
	r.await("ready", func(w Word) bool { return w.Ready != nil })
	r.renew(patience)
	r.send(vip(vips["ipv4"]))
	got := r.awaitState("v", spec.StateFailed)
	for _, part := range []string{"/dev/net/tun", "an added address lies on a TUN device", "modprobe tun", "give the container the device"} {
		if !strings.Contains(got.Reason, part) {
			t.Errorf("%q doesn't say %q", got.Reason, part)
		}
	}
	r.send(Order{End: &GroupRef{"g", 1}})
	r.awaitDown("g", 1)
}
