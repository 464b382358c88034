// Package rawio makes system calls that return at once, without telling Go's
// scheduler of them.
//
// An ordinary call tells it that the thread may stay away, which wakes the
// runtime's own watcher thread for a fifth of a millisecond each time. To a
// process that wakes twenty times a second for a moment that is most of what
// it costs. So descriptors here are non-blocking and watched by Go's poller
// (net.Conn, os.File of a timerfd): when there is nothing to read or no room to
// write, the goroutine waits there as ever.
package rawio

import (
	"errors"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn reads and writes a descriptor. One goroutine may read while another
// writes. It does not own the descriptor: whoever made it closes it.
type Conn struct {
	raw     syscall.RawConn
	in, out op
}

// op is one direction's call; kept, so that a call costs no garbage.
type op struct {
	buf  []byte
	n    int
	err  syscall.Errno
	call func(fd uintptr) bool
}

// New is a Conn over c.
func New(c syscall.Conn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{raw: raw}, nil
}

func pointer(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return unsafe.Pointer(&zero)
	}
	return unsafe.Pointer(&b[0])
}

var zero byte

// done keeps a call's outcome; false sends the goroutine to the poller.
func (o *op) done(n uintptr, errno syscall.Errno) bool {
	switch errno {
	case unix.EAGAIN:
		return false
	case unix.EINTR:
		n = 0
	}
	o.n, o.err = int(n), errno
	return true
}

func (o *op) result(err error) (int, error) {
	if err != nil {
		return 0, err
	}
	if o.err != 0 {
		return 0, o.err
	}
	return o.n, nil
}

// Read is io.Reader's.
func (c *Conn) Read(p []byte) (int, error) {
	o := &c.in
	if o.call == nil {
		o.call = func(fd uintptr) bool {
			n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(pointer(o.buf)), uintptr(len(o.buf)))
			return o.done(n, errno)
		}
	}
	for {
		o.buf = p
		n, err := o.result(c.raw.Read(o.call))
		o.buf = nil
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil && n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, err
		}
	}
}

// Write is io.Writer's: all of p, or an error.
func (c *Conn) Write(p []byte) (int, error) {
	o := &c.out
	if o.call == nil {
		o.call = func(fd uintptr) bool {
			n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(pointer(o.buf)), uintptr(len(o.buf)))
			return o.done(n, errno)
		}
	}
	written := 0
	for written < len(p) {
		o.buf = p[written:]
		n, err := o.result(c.raw.Write(o.call))
		o.buf = nil
		if err != nil && !errors.Is(err, unix.EINTR) {
			return written, err
		}
		written += n
	}
	return written, nil
}

// Follow reads into p each time that there is something, and calls got, until an
// error, which it returns; io.EOF at the end. It is for a descriptor that one
// call empties, as a timerfd is: that nothing is left needs no second call.
func (c *Conn) Follow(p []byte, got func()) error {
	var errno syscall.Errno
	var eof bool
	err := c.raw.Read(func(fd uintptr) bool {
		var n uintptr
		n, _, errno = unix.RawSyscall(unix.SYS_READ, fd, uintptr(pointer(p)), uintptr(len(p)))
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			return false
		case errno != 0:
			return true
		}
		if eof = n == 0; !eof {
			got()
		}
		// Whatever made it readable since then stands with the poller, which tells
		// at once.
		return eof
	})
	switch {
	case err != nil:
		return err
	case eof:
		return io.EOF
	}
	return errno
}
