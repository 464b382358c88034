package rawio

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch is the most datagrams that one call receives.
const Batch = 8

// room is what a socket keeps of what waits, by what the kernel counts of each
// datagram: some drivers take a page or two for the smallest, so that the
// kernel's own 208 KiB are 25 to 50.
const room = 1 << 20

// maxErrors in a row are no refusals: a host has fewer peers.
const maxErrors = 10_000

// Datagrams is a UDP socket. What comes wakes who follows it, or, while it is held,
// nobody: it waits in the socket until it is collected, with the kernel's word on when it came.
//
// Go's poller can't leave a descriptor alone for a while. So it watches an epoll
// of the socket's own, which is readable when the socket is, and which the socket is
// taken out of while it is held.
type Datagrams struct {
	file    *os.File        // the socket; Go's poller doesn't know it
	sock    syscall.RawConn // of file
	watch   *os.File        // the epoll, which Go's poller watches
	polled  syscall.RawConn // of watch
	held    bool            // the holder's
	stamped error           // nil: the kernel stamps what comes
	send    send

	reading sync.Mutex // of all below
	size    int
	bufs    []byte // Batch times size
	from    [Batch]unix.RawSockaddrAny
	vecs    [Batch]unix.Iovec
	ctls    [Batch]control
	msgs    [Batch]message
	n       int
	err     syscall.Errno
	recv    func(fd uintptr)
}

type send struct {
	buf  []byte
	to   *Destination
	err  syscall.Errno
	call func(fd uintptr)
}

// message is the kernel's struct mmsghdr on 64-bit Linux.
type message struct {
	head unix.Msghdr
	size uint32
	_    uint32
}

// control is the room for one stamp: what the kernel tells beside a datagram.
type control struct {
	head unix.Cmsghdr
	when unix.Timespec
}

// A Got is called with each datagram, with where it came from, and with when the
// kernel got it (nanoseconds of the time of day; 0: it didn't say). The packet is
// its own until it returns.
type Got func(packet []byte, from netip.AddrPort, stamp int64)

// NewDatagrams takes the socket of c over, and closes c. It receives datagrams of
// up to size bytes; of longer ones the rest is cut off.
func NewDatagrams(c *net.UDPConn, size int) (*Datagrams, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &Datagrams{size: size, bufs: make([]byte, Batch*size)}
	for i := range d.msgs {
		d.vecs[i].Base = &d.bufs[i*size]
		d.vecs[i].SetLen(size)
		h := &d.msgs[i].head
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&d.from[i])), &d.vecs[i]
		h.Control = (*byte)(unsafe.Pointer(&d.ctls[i]))
		h.SetIovlen(1)
	}
	d.recv = func(fd uintptr) {
		for i := range d.msgs {
			d.msgs[i].head.Namelen = unix.SizeofSockaddrAny
			d.msgs[i].head.SetControllen(int(unsafe.Sizeof(control{})))
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&d.msgs)), Batch, unix.MSG_DONTWAIT, 0, 0)
		d.n, d.err = int(n), errno
	}
	d.send.call = func(fd uintptr) {
		o := &d.send
		_, _, o.err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(pointer(o.buf)), uintptr(len(o.buf)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
			uintptr(unsafe.Pointer(&o.to.addr)), uintptr(o.to.size))
	}
	if err := raw.Control(func(fd uintptr) {
		// From the start: a host's first user has the kernel begin with it some time later. What
		// comes before that is stamped when it is read.
		d.stamped = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil { // not root
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, room) // as much as the host allows
		}
	}); err != nil {
		return nil, err
	}
	fd, poll := -1, -1
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		err = cerr
	}
	if err == nil {
		// os.File leaves a blocking descriptor to itself. No call here blocks: each says so.
		err = unix.SetNonblock(fd, false)
	}
	if err == nil {
		poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	}
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err == nil {
		err = unix.SetNonblock(poll, true)
	}
	if err != nil {
		for _, fd := range [...]int{fd, poll} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		return nil, fmt.Errorf("take a UDP socket over: %w", err)
	}
	d.file, d.watch = os.NewFile(uintptr(fd), "udp"), os.NewFile(uintptr(poll), "epoll")
	d.sock, err = d.file.SyscallConn()
	if err == nil {
		d.polled, err = d.watch.SyscallConn()
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close ends Follow; twice is fine. It waits for a Got that runs.
func (d *Datagrams) Close() {
	d.watch.Close()
	d.file.Close()
}

// Follow calls got with each datagram that comes, until an error, which it
// returns. That a peer's host refuses datagrams (ICMP) is an error of the socket
// for one call; that ends nothing.
func (d *Datagrams) Follow(got Got) error {
	var end error
	err := d.polled.Read(func(uintptr) bool {
		d.reading.Lock()
		defer d.reading.Unlock()
		end = d.read(math.MaxInt, got)
		// Whatever came since then stands with the poller, which tells at once: no
		// call is needed to see that there is no more.
		return end != nil
	})
	if end == nil && err != nil {
		end = net.ErrClosed
	}
	return end
}

// Hold has what comes wait in the socket, or wake who follows again, at once if
// something is there. One goroutine calls it and Collect.
func (d *Datagrams) Hold(hold bool) error {
	if hold == d.held {
		return nil
	}
	// Not EPOLL_CTL_MOD: that wakes nobody for a socket that was readable before,
	// since nobody takes events out of this epoll.
	op := unix.EPOLL_CTL_ADD
	if hold {
		op = unix.EPOLL_CTL_DEL
	}
	var err error
	closed := d.polled.Control(func(poll uintptr) {
		cerr := d.sock.Control(func(fd uintptr) {
			if hold {
				err = d.stamped
			}
			if err == nil {
				err = unix.EpollCtl(int(poll), op, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN})
			}
		})
		if cerr != nil {
			err = net.ErrClosed
		}
	})
	switch {
	case closed != nil:
		return net.ErrClosed
	case err != nil:
		return fmt.Errorf("hold a UDP socket's datagrams: %w", err)
	}
	d.held = hold
	return nil
}

// Collect calls got with each datagram that waits, and waits for none. Where who
// follows is just reading, it leaves them to that one. False: there were more than
// most, and may be more: they can come as fast as they are read.
func (d *Datagrams) Collect(most int, got Got) bool {
	if !d.reading.TryLock() {
		return true
	}
	defer d.reading.Unlock()
	return d.read(most, got) != errMore // an error that lasts ends who follows
}

var errMore = errors.New("there may be more")

// read empties the socket, of about so many datagrams at most. An error is errMore, one that
// lasts, or of a closed socket.
func (d *Datagrams) read(most int, got Got) error {
	for row, n := 0, 0; n < most; n += d.n {
		d.n = 0
		if d.sock.Control(d.recv) != nil {
			return net.ErrClosed
		}
		switch d.err {
		case 0:
			row = 0
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
			continue
		default:
			if row++; row >= maxErrors {
				return d.err
			}
			continue
		}
		for i := range d.n {
			got(d.bufs[i*d.size:][:d.msgs[i].size], address(&d.from[i]), d.stamp(i))
		}
		if d.n < Batch {
			return nil
		}
	}
	return errMore
}

// stamp is when the kernel got a datagram.
func (d *Datagrams) stamp(i int) int64 {
	c := &d.ctls[i]
	if d.msgs[i].head.Controllen < uint64(unsafe.Sizeof(*c)) || c.head.Level != unix.SOL_SOCKET || c.head.Type != unix.SCM_TIMESTAMPNS {
		return 0
	}
	return c.when.Nano()
}

// SendTo sends one datagram, now or never: where the socket has no room it is
// lost, as any datagram may be. One goroutine calls it.
func (d *Datagrams) SendTo(p []byte, to *Destination) error {
	o := &d.send
	o.buf, o.to = p, to
	err := d.sock.Control(o.call)
	o.buf, o.to = nil, nil
	if err != nil {
		return net.ErrClosed
	}
	if o.err != 0 {
		return o.err
	}
	return nil
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
