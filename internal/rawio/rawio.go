// Package rawio makes system calls that return at once, without telling Go's
// scheduler of them.
//
// An ordinary call tells it that the thread may stay away, which wakes the
// runtime's own watcher thread for a fifth of a millisecond each time. To a
// process that wakes twenty times a second for a moment that is most of what
// it costs. So descriptors here are non-blocking and watched by Go's poller
// (net.Conn): when there is nothing to read or no room to write, the goroutine
// waits there as ever.
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
	send    send
}

// op is one direction's call; kept, so that a call costs no garbage.
type op struct {
	buf  []byte
	n    int
	err  syscall.Errno
	call func(fd uintptr) bool
}

type send struct {
	buf  []byte
	to   *Destination
	err  syscall.Errno
	call func(fd uintptr)
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

// Batch is the most datagrams that one call receives.
const Batch = 8

// maxErrors in a row are no refusals: a host has fewer peers.
const maxErrors = 10_000

// Datagrams receives datagrams from a descriptor, as many at a time as there are.
type Datagrams struct {
	raw  syscall.RawConn
	size int
	bufs []byte // Batch times size
	from [Batch]unix.RawSockaddrAny
	vecs [Batch]unix.Iovec
	msgs [Batch]message
}

// message is the kernel's struct mmsghdr on 64-bit Linux.
type message struct {
	head unix.Msghdr
	size uint32
	_    uint32
}

// NewDatagrams receives from c datagrams of up to size bytes; of longer ones the rest
// is cut off.
func NewDatagrams(c syscall.Conn, size int) (*Datagrams, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &Datagrams{raw: raw, size: size, bufs: make([]byte, Batch*size)}
	for i := range d.msgs {
		d.vecs[i].Base = &d.bufs[i*size]
		d.vecs[i].SetLen(size)
		h := &d.msgs[i].head
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&d.from[i])), &d.vecs[i]
		h.SetIovlen(1)
	}
	return d, nil
}

// Follow calls got with each datagram that comes, and with where it came from,
// until an error, which it returns. The packet is got's until it returns. That a
// peer's host refuses datagrams (ICMP) is an error of the socket for one call;
// that ends nothing. What closes the descriptor waits for got.
func (d *Datagrams) Follow(got func(packet []byte, from netip.AddrPort)) error {
	var last syscall.Errno
	row := 0 // of errors
	err := d.raw.Read(func(fd uintptr) bool {
		for {
			for i := range d.msgs {
				d.msgs[i].head.Namelen = unix.SizeofSockaddrAny
			}
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&d.msgs)), Batch, unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				row = 0
			case unix.EAGAIN:
				return false
			case unix.EINTR:
				continue
			default:
				if last, row = errno, row+1; row >= maxErrors {
					return true
				}
				continue
			}
			for i := range int(n) {
				got(d.bufs[i*d.size:][:d.msgs[i].size], address(&d.from[i]))
			}
			if n < Batch {
				// That was all. Whatever came since then stands with the poller, which
				// tells at once: no call is needed to see that there is no more.
				return false
			}
		}
	})
	if err != nil {
		return err
	}
	return last
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
	o := &c.send
	if o.call == nil {
		o.call = func(fd uintptr) {
			_, _, o.err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(pointer(o.buf)), uintptr(len(o.buf)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
				uintptr(unsafe.Pointer(&o.to.addr)), uintptr(o.to.size))
		}
	}
	o.buf, o.to = p, d
	err := c.raw.Control(o.call)
	o.buf, o.to = nil, nil
	if err != nil {
		return err
	}
	if o.err != 0 {
		return o.err
	}
	return nil
}
