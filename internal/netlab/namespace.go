package netlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// nsDir is where named network namespaces are mounted, as iproute2 has it: `ip
// netns exec` finds them.
const nsDir = "/run/netns"

func nsPath(name string) string { return filepath.Join(nsDir, name) }

// OnThread runs fn on an operating system's thread of its own, which ends with
// it: whatever fn does to the thread stays there. The process's first thread is
// never taken: it does not end, and where it is, the whole process seems to be
// (to Processes, for one).
func OnThread(fn func() error) error {
	done := make(chan error, 1)
	var run func()
	run = func() {
		runtime.LockOSThread() // not unlocked: the thread is not used again
		if unix.Gettid() != unix.Getpid() {
			done <- fn()
			return
		}
		other := make(chan struct{})
		go func() { // on another thread, for this one waits here
			defer close(other)
			run()
		}()
		<-other
		runtime.UnlockOSThread()
	}
	go run()
	return <-done
}

// Do runs fn on a thread inside of a namespace. Sockets that fn opens stay there
// for good, processes that it starts run there. fn must not hand the work to
// other goroutines: they are not inside.
func Do(namespace string, fn func() error) error {
	return OnThread(func() error {
		f, err := os.Open(nsPath(namespace))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("network namespace %s is gone, as after a restart of this machine; clusterplan apply makes it again: %w", namespace, err)
		}
		if err != nil {
			return explain("enter network namespace", err)
		}
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		f.Close()
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("enter network namespace: %s is none; it was unmounted, as by a restart of this machine", nsPath(namespace))
		}
		if err != nil {
			return explain("enter network namespace "+namespace, err)
		}
		return fn()
	})
}

// Dial connects to an address from inside of a namespace.
func Dial(ctx context.Context, namespace, network, address string) (conn net.Conn, err error) {
	err = Do(namespace, func() error {
		var d net.Dialer // a literal address: no other goroutine is asked
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// exists tells whether a named namespace is there.
func exists(name string) bool {
	var st unix.Statfs_t
	return unix.Statfs(nsPath(name), &st) == nil && st.Type == unix.NSFS_MAGIC
}

// create makes a named namespace, unless it is there.
func create(name string) error {
	if exists(name) {
		return nil
	}
	if err := os.MkdirAll(nsDir, 0o755); err != nil {
		return explain("make "+nsDir, err)
	}
	f, err := os.OpenFile(nsPath(name), os.O_RDONLY|os.O_CREATE, 0o444)
	if err != nil {
		return explain("make network namespace", err)
	}
	f.Close()
	err = OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", nsPath(name), "", unix.MS_BIND, "")
	})
	if err != nil {
		os.Remove(nsPath(name))
		return explain("make network namespace "+name, err)
	}
	return nil
}

// remove takes a named namespace away, and every process that runs in it.
func remove(name string) error {
	if exists(name) {
		if _, err := Kill(name); err != nil {
			return err
		}
		if err := unix.Unmount(nsPath(name), unix.MNT_DETACH); err != nil {
			return explain("remove network namespace "+name, err)
		}
	}
	if err := os.Remove(nsPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explain("remove network namespace", err)
	}
	return nil
}

// all are the named namespaces that begin with prefix.
func all(prefix string) ([]string, error) {
	entries, err := os.ReadDir(nsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// sysctl sets net.* of the thread's own namespace; what this kernel doesn't have is passed over.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
