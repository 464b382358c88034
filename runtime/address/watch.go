package address

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// carrierPatience is how long a link may be without carrier before its
// addresses count as lost: a cable or a switch that comes back at once should
// not move a group.
const carrierPatience = 500 * time.Millisecond

// subscribe opens the kernel's stream of changes of links and addresses.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// follow looks after each change, until the stream is closed. What changed is
// not read from it: events may be lost (ENOBUFS), the state can't.
func (h *Holder) follow(events *os.File) {
	buf := make([]byte, 8192)
	for {
		_ = events.SetReadDeadline(time.Time{})
		_, err := events.Read(buf)
		// One look for all that comes at once, as where containers come and go.
		_ = events.SetReadDeadline(time.Now().Add(eventsTogether))
		for err == nil || errors.Is(err, unix.ENOBUFS) {
			_, err = events.Read(buf)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		h.look()
	}
}

// eventsTogether is for how long events count as one.
const eventsTogether = 3 * time.Millisecond

// look compares what should be there with what is.
func (h *Holder) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.held) == 0 || h.tun == nil {
		return
	}
	addrs, err := addresses(h.tun)
	if err != nil {
		return // no news
	}
	there := map[netip.Addr]bool{}
	for _, x := range addrs {
		if p, ok := prefixOf(x); ok {
			there[p.Addr()] = true
		}
	}
	links := map[int]error{}
	device := h.usable()
	for e := range h.held {
		if device != nil {
			e.lose(fmt.Errorf("%s can't be reached: %w", e.addr, device))
			continue
		}
		if !there[e.addr] {
			e.lose(fmt.Errorf("%s is not on device %s any more: somebody took it away", e.addr, h.tun.Attrs().Name))
			continue
		}
		state, known := links[e.link.index]
		if !known {
			state = carrier(e.link)
			links[e.link.index] = state
		}
		h.carrier(e, state)
	}
}

var errGone = errors.New("is gone")

// carrier is nil for a link that can carry packets.
func carrier(l link) error {
	now, err := netlink.LinkByIndex(l.index)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return fmt.Errorf("interface %s %w", l.name, errGone)
	}
	if err == nil && !linkOf(now).up {
		return fmt.Errorf("interface %s is down or has no carrier", l.name)
	}
	return nil
}

// carrier takes the state of an address's link.
func (h *Holder) carrier(e *Held, state error) {
	switch {
	case state == nil:
		if !e.noCarrier.IsZero() {
			e.noCarrier = time.Time{}
			if e.speak != nil {
				e.speak.restart()
			}
		}
	case errors.Is(state, errGone):
		e.lose(state)
	case e.noCarrier.IsZero():
		e.noCarrier = time.Now()
		time.AfterFunc(carrierPatience+time.Millisecond, h.look)
	case time.Since(e.noCarrier) >= carrierPatience:
		e.lose(fmt.Errorf("%w for %s", state, carrierPatience))
	}
}

// lose keeps the first reason.
func (e *Held) lose(err error) {
	if e.err == nil {
		e.err = err
		close(e.lost)
	}
}

// namespace is the number of this process's network namespace; 0: not known.
func namespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/net", &st) != nil {
		return 0
	}
	return st.Ino
}

// leftPatience is how long the kernel may take to remove the device of a
// process that is dead.
const leftPatience = time.Second

// CleanUp makes sure that the devices of dead processes are gone, with all that
// was on them. The kernel removes them by itself; one that is still there after
// a moment is removed here, and told by its result.
func CleanUp(left []Left) (removed []string, err error) {
	var errs []error
	here := namespace()
	for _, d := range left {
		if d.Namespace != here {
			continue // it is not this process's to see
		}
		began := time.Now()
		for {
			l, err := netlink.LinkByIndex(d.Index)
			if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
				break
			}
			if err == nil && (l.Attrs().Name != d.Device || !isOurs(l)) {
				break // the number was used again
			}
			if err == nil && time.Since(began) > leftPatience {
				if err = netlink.LinkDel(l); err == nil {
					removed = append(removed, d.Device)
				}
			}
			if err != nil && time.Since(began) > 2*leftPatience {
				errs = append(errs, fmt.Errorf("device %s of an earlier monitor is still there: %w", d.Device, err))
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return removed, errors.Join(errs...)
}
