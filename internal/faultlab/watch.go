package faultlab

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Held is a change of who holds an address.
type Held struct {
	At      time.Time
	Node    string
	Address netip.Addr
	On      bool // it was added; else it was removed
}

// Watch follows the addresses of every node, by the kernel's own messages from
// each node's namespace. One thread, at high priority, reads all of them, so
// that they are in one order; of what it finds at once (it came since the thread
// last looked, well under a millisecond on a machine with a processor to spare)
// removals count first.
type Watch struct {
	mu      sync.Mutex
	holders map[netip.Addr]map[string]time.Time
	both    map[netip.Addr]time.Time // since when two nodes hold it
	overlap time.Duration            // longest since the last Reset
	told    []string                 // overlaps in words, since ever
	err     error

	only map[netip.Addr]bool
	stop int // a pipe's end
	done chan struct{}
}

// NewWatch watches these addresses on all of a cluster's nodes until Close.
func NewWatch(c *Cluster, addresses ...netip.Addr) (*Watch, error) {
	w := &Watch{holders: map[netip.Addr]map[string]time.Time{}, both: map[netip.Addr]time.Time{}, only: map[netip.Addr]bool{}, done: make(chan struct{})}
	for _, a := range addresses {
		w.only[a], w.holders[a] = true, map[string]time.Time{}
	}
	var nodes []string
	var fds []unix.PollFd
	closeAll := func() {
		for _, p := range fds {
			unix.Close(int(p.Fd))
		}
	}
	for _, name := range c.Names() {
		fd := -1
		err := netlab.Do(c.Namespace(name), func() (err error) {
			if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE); err != nil {
				return os.NewSyscallError("socket", err)
			}
			if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}); err != nil {
				return os.NewSyscallError("bind", err)
			}
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
			// What there is already is told as if it came now.
			dump := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofRtGenmsg)
			*(*uint32)(ptr(dump, 0)) = uint32(len(dump))
			*(*uint16)(ptr(dump, 4)) = unix.RTM_GETADDR
			*(*uint16)(ptr(dump, 6)) = unix.NLM_F_REQUEST | unix.NLM_F_DUMP
			return os.NewSyscallError("sendto", unix.Sendto(fd, dump, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
		})
		if err != nil {
			if fd >= 0 {
				unix.Close(fd)
			}
			closeAll()
			return nil, fmt.Errorf("watch the addresses of %s: %w", name, err)
		}
		nodes = append(nodes, name)
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		closeAll()
		return nil, os.NewSyscallError("pipe2", err)
	}
	w.stop = pipe[1]
	fds = append(fds, unix.PollFd{Fd: int32(pipe[0]), Events: unix.POLLIN})
	go func() {
		defer close(w.done)
		defer closeAll()
		// A thread of its own, for its priority goes with it.
		_ = netlab.OnThread(func() error {
			_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20) // as well as it may
			w.loop(nodes, fds)
			return nil
		})
	}()
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	unix.Close(w.stop)
	<-w.done
}

func (w *Watch) loop(nodes []string, fds []unix.PollFd) {
	buf := make([]byte, 1<<16)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			w.fail(os.NewSyscallError("poll", err))
			return
		}
		if fds[len(nodes)].Revents != 0 {
			return
		}
		at := time.Now()
		var came []Held
		for i, node := range nodes {
			for fds[i].Revents != 0 {
				n, _, err := unix.Recvfrom(int(fds[i].Fd), buf, 0)
				if err == unix.EAGAIN || err == unix.EINTR {
					break
				}
				if err != nil {
					w.fail(fmt.Errorf("watch the addresses of %s: %w", node, err))
					return
				}
				messages, err := syscall.ParseNetlinkMessage(buf[:n])
				if err != nil {
					w.fail(fmt.Errorf("watch the addresses of %s: %w", node, err))
					return
				}
				for i := range messages {
					if h, ok := read(&messages[i]); ok && w.only[h.Address] {
						h.At, h.Node = at, node
						came = append(came, h)
					}
				}
			}
		}
		w.take(came)
	}
}

// read is a message about an address.
func read(m *syscall.NetlinkMessage) (h Held, ok bool) {
	if m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR {
		return h, false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return h, false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !h.Address.IsValid() {
			h.Address, ok = netip.AddrFromSlice(a.Value)
		}
	}
	h.On = m.Header.Type == unix.RTM_NEWADDR
	return h, ok
}

func (w *Watch) take(came []Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, on := range []bool{false, true} {
		for _, h := range came {
			if h.On != on {
				continue
			}
			holders := w.holders[h.Address]
			_, had := holders[h.Node]
			if had == on {
				continue
			}
			if on {
				holders[h.Node] = h.At
			} else {
				delete(holders, h.Node)
			}
			since, both := w.both[h.Address]
			switch {
			case len(holders) > 1 && !both:
				w.both[h.Address] = h.At
				w.told = append(w.told, fmt.Sprintf("%s: %s was added on %s while %v hold it", h.At.Format("15:04:05.000000"), h.Address, h.Node, names(holders)))
			case len(holders) < 2 && both:
				delete(w.both, h.Address)
				w.overlap = max(w.overlap, h.At.Sub(since))
				w.told = append(w.told, fmt.Sprintf("%s: removed on %s after %s", h.At.Format("15:04:05.000000"), h.Node, h.At.Sub(since)))
			}
		}
	}
}

func names(m map[string]time.Time) []string {
	var out []string
	for name := range m {
		out = append(out, name)
	}
	return out
}

func (w *Watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// Reset forgets the longest overlap.
func (w *Watch) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.overlap = 0
}

// Overlap is the longest time since Reset in which two nodes held an address.
func (w *Watch) Overlap() (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.overlap
	for _, since := range w.both {
		out = max(out, time.Since(since))
	}
	return out, w.err
}

// Overlaps are all overlaps since ever, in words.
func (w *Watch) Overlaps() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.told...)
}

// Holders are the nodes that hold an address now.
func (w *Watch) Holders(a netip.Addr) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return names(w.holders[a])
}
