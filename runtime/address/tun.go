package address

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// device is a TUN device that lives as long as a descriptor, which one thread
// of this process holds in a table of descriptors of its own. It does nothing
// else and waits for nothing but its end. So:
//
//   - no program that another thread starts gets the descriptor, not even
//     between fork and exec;
//   - when the process is killed, the thread ends at once, and with its table the
//     device: a table that threads share would live until the last of them is
//     gone, which may hang in a disk.
type device struct {
	name string
	quit chan struct{}
	done chan error // the close's outcome, once
}

// namePrefix begins the names of all devices; the kernel adds a number.
const namePrefix = "cplan"

const tunPath = "/dev/net/tun"

// openDevice makes a device. It is down and has no addresses yet.
func openDevice() (*device, error) {
	// Go's poller has descriptors that it may use from any thread. They have to
	// be there before a thread gets its own table.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	r.Close()
	w.Close()
	d := &device{quit: make(chan struct{}), done: make(chan error, 1)}
	opened := make(chan error)
	go d.hold(opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	return d, nil
}

// hold is the thread's life.
func (d *device) hold(opened chan<- error) {
	runtime.LockOSThread() // and never unlocked: the thread ends with this function
	if unix.Gettid() == unix.Getpid() {
		// The first thread can't end before the process, and is who /proc shows.
		other := make(chan error)
		go d.hold(other) // on another one, as this one is taken
		err := <-other
		runtime.UnlockOSThread()
		opened <- err
		return
	}
	fd, err := d.open()
	opened <- err
	if err != nil {
		return
	}
	<-d.quit
	d.done <- unix.Close(fd)
}

func (d *device) open() (int, error) {
	if err := ownTable(); err != nil {
		return 0, fmt.Errorf("make a TUN device: a table of descriptors of its own: %w", err)
	}
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return 0, fmt.Errorf("%s: %w; an added address lies on a TUN device: load the module (modprobe tun), or give the container the device", tunPath, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return 0, fmt.Errorf("%s: %w; to add an address the agent has to run as root, and in a container needs the device allowed", tunPath, err)
	case err != nil:
		return 0, fmt.Errorf("%s: %w", tunPath, err)
	}
	req, err := unix.NewIfreq(namePrefix + "%d")
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("make a TUN device: %w; to add an address the agent needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root, in a container with these allowed", err)
		}
		return 0, fmt.Errorf("make a TUN device: %w", err)
	}
	d.name = req.Name()
	return fd, nil
}

// close removes the device and its addresses.
func (d *device) close() error {
	close(d.quit)
	return <-d.done
}

// ownTable gives this thread a table of descriptors of its own, with nothing in
// it but the standard ones and those of Go's poller, which the runtime writes to
// from any thread. The others would be held open by the copy.
func ownTable() error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return err
	}
	dir := "/proc/thread-self/fd"
	names, err := fdsOf(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 {
			continue
		}
		to, err := os.Readlink(dir + "/" + name)
		if err != nil || strings.HasPrefix(to, "anon_inode:[event") { // eventpoll, eventfd
			continue
		}
		unix.Close(fd)
	}
	return nil
}

// fdsOf lists a directory by descriptors that Go's poller never hears of.
func fdsOf(dir string) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var names []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
