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
	"net/netip"
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
	addr unix.RawSockaddrAny
	size uint32
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

// ReceiveFrom reads one datagram into p and says where it came from. A Conn is
// used either for datagrams or as a stream.
func (c *Conn) ReceiveFrom(p []byte) (int, netip.AddrPort, error) {
	o := &c.in
	if o.call == nil {
		o.call = func(fd uintptr) bool {
			o.size = unix.SizeofSockaddrAny
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(pointer(o.buf)), uintptr(len(o.buf)), 0,
				uintptr(unsafe.Pointer(&o.addr)), uintptr(unsafe.Pointer(&o.size)))
			return o.done(n, errno)
		}
	}
	for {
		o.buf = p
		n, err := o.result(c.raw.Read(o.call))
		o.buf = nil
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, netip.AddrPort{}, err
		}
		return n, address(&o.addr), nil
	}
}

// Destination is a datagram's address as one socket takes it.
type Destination struct {
	addr unix.RawSockaddrAny
	size uint32
}

// To is the destination at for a socket that is bound to local: an IPv6 socket
// takes IPv4 addresses in their mapped form.
func To(at, local netip.AddrPort) (d Destination) {
	port := [2]byte{byte(at.Port() >> 8), byte(at.Port())}
	if local.Addr().Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&d.addr))
		sa.Family, sa.Port, sa.Addr = unix.AF_INET, *(*uint16)(unsafe.Pointer(&port)), at.Addr().Unmap().As4()
		d.size = unix.SizeofSockaddrInet4
		return d
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&d.addr))
	sa.Family, sa.Port, sa.Addr = unix.AF_INET6, *(*uint16)(unsafe.Pointer(&port)), at.Addr().As16()
	d.size = unix.SizeofSockaddrInet6
	return d
}

func address(a *unix.RawSockaddrAny) netip.AddrPort {
	switch a.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		port := (*[2]byte)(unsafe.Pointer(&sa.Port))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(port[0])<<8|uint16(port[1]))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(a))
		port := (*[2]byte)(unsafe.Pointer(&sa.Port))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(port[0])<<8|uint16(port[1]))
	}
	return netip.AddrPort{}
}

// SendTo sends one datagram, now or never: where the socket has no room it is
// lost, as any datagram may be.
func (c *Conn) SendTo(p []byte, d *Destination) error {
	var errno syscall.Errno
	err := c.raw.Control(func(fd uintptr) {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(pointer(p)), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
			uintptr(unsafe.Pointer(&d.addr)), uintptr(d.size))
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
