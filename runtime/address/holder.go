package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Request says which address to hold, and where.
type Request struct {
	Address   netip.Addr
	Bits      int           // of the subnet; 0: the interface's own
	Interface string        // "": the one with an address in the same subnet
	Probe     time.Duration // how long to listen for another owner; 0: don't ask
	// Record keeps on disk what is about to be added, for who cleans up after
	// this process (CleanUp). It runs beside the probe. May be nil.
	Record func(Left) error
}

// Left names what a process may have left: all that it added lies on one device.
type Left struct {
	Device    string `json:"device"`
	Index     int    `json:"index"`
	Namespace uint64 `json:"namespace"` // of the network: numbers begin anew in each
}

// Holder holds a process's addresses. It makes its device with the first one
// and keeps it until Close.
type Holder struct {
	log func(level, text string, args map[string]any)

	mu     sync.Mutex
	device *device
	tun    netlink.Link
	watch  *os.File // netlink's events
	held   map[*Held]struct{}
}

// New makes a holder of nothing.
func New(log func(level, text string, args map[string]any)) *Holder {
	return &Holder{log: log, held: map[*Held]struct{}{}}
}

// Held is an address that is there.
type Held struct {
	holder *Holder
	addr   netip.Addr
	link   link
	speak  *speaker // nil: the link has no neighbours
	lost   chan struct{}

	// Of the holder's mutex:
	err       error     // why it is lost
	noCarrier time.Time // since when; zero: there is carrier
}

// Hold adds an address and tells the neighbours. When it fails, nothing is
// left; an ErrInUse is another owner on the link. ctx ends the probe.
func (h *Holder) Hold(ctx context.Context, r Request) (*Held, error) {
	a := r.Address.Unmap()
	if err := Check(a); err != nil {
		return nil, err
	}
	bits := r.Bits
	if bits <= 0 || bits >= a.BitLen() {
		bits = -1
	}
	tun, err := h.open()
	if err != nil {
		return nil, err
	}
	l, err := findLink(a, bits, r.Interface)
	if err != nil {
		return nil, err
	}
	if !l.up {
		return nil, fmt.Errorf("interface %s is down or has no carrier, so that %s could not be reached there", l.name, a)
	}
	if err := notHere(ctx, a); err != nil {
		return nil, err
	}
	recorded := make(chan error, 1)
	go func() {
		if r.Record == nil {
			recorded <- nil
			return
		}
		recorded <- r.Record(Left{Device: tun.Attrs().Name, Index: tun.Attrs().Index, Namespace: namespace()})
	}()
	if l.mac != nil && r.Probe > 0 {
		err = l.probe(ctx, a, r.Probe)
	}
	if err := errors.Join(err, <-recorded); err != nil {
		return nil, err
	}
	held := &Held{holder: h, addr: a, link: l, lost: make(chan struct{})}
	if l.mac != nil {
		if held.speak, err = newSpeaker(l, a); err != nil {
			return nil, err
		}
	}
	if err := held.add(tun); err != nil {
		if held.speak != nil {
			held.speak.close()
		}
		return nil, err
	}
	return held, nil
}

// Check tells what is wrong with an address that is to be added.
func Check(a netip.Addr) error {
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("%s is no address that a host can have", a)
	case a.IsLoopback():
		return fmt.Errorf("%s is a loopback address, which no other host can reach", a)
	case a.Is6() && a.IsLinkLocalUnicast():
		return fmt.Errorf("%s is a link-local address, which means something else on each link; use a global or a unique local (fd00::/8) one", a)
	}
	return nil
}

// open makes the device, once; again when somebody has removed it, and up when
// somebody has set it down.
func (h *Holder) open() (netlink.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.device != nil {
		state := h.usable()
		if state == nil {
			return h.tun, nil
		}
		if !errors.Is(state, errGone) {
			if err := netlink.LinkSetUp(h.tun); err != nil {
				return nil, fmt.Errorf("%w; set it up: %w", state, err)
			}
			return h.tun, nil
		}
		h.watch.Close()
		if err := h.device.close(); err != nil {
			return nil, fmt.Errorf("%w; close what is left of it: %w", state, err)
		}
		h.device, h.tun, h.watch = nil, nil, nil
	}
	d, err := openDevice()
	if err != nil {
		return nil, err
	}
	tun, err := netlink.LinkByName(d.name)
	if err == nil {
		// No address of its own, which neighbours would never see.
		_ = netlink.LinkSetIP6AddrGenMode(tun, 1)
		err = netlink.LinkSetUp(tun)
	}
	var events *os.File
	if err == nil {
		events, err = subscribe()
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("set up device %s: %w", d.name, err)
	}
	h.device, h.tun, h.watch = d, tun, events
	go h.follow(events)
	return tun, nil
}

// usable is nil for a device that is there and up.
func (h *Holder) usable() error {
	name := h.tun.Attrs().Name
	now, err := netlink.LinkByIndex(h.tun.Attrs().Index)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return fmt.Errorf("device %s %w: somebody removed it", name, errGone)
	}
	if err == nil && now.Attrs().RawFlags&unix.IFF_UP == 0 {
		return fmt.Errorf("device %s is down: somebody set it so", name)
	}
	return nil // or no news
}

// Close removes the device, with all addresses.
func (h *Holder) Close() error {
	h.mu.Lock()
	d, watch := h.device, h.watch
	h.device, h.tun, h.watch = nil, nil, nil
	h.mu.Unlock()
	if d == nil {
		return nil
	}
	watch.Close()
	return d.close()
}

// hereWait is how long an address may stay on the device of another process of
// this host, which is ending.
const hereWait = 2 * time.Second

// notHere makes sure that this host doesn't have the address: the probe asks
// others only.
func notHere(ctx context.Context, a netip.Addr) error {
	for began := time.Now(); ; {
		addrs, err := addresses(nil)
		if err != nil {
			return err
		}
		at := ""
		for _, x := range addrs {
			if p, ok := prefixOf(x); ok && p.Addr() == a {
				at = fmt.Sprintf("number %d", x.LinkIndex)
				l, err := netlink.LinkByIndex(x.LinkIndex)
				if err != nil {
					continue
				}
				if at = l.Attrs().Name; !isOurs(l) {
					return fmt.Errorf("%s %w: this host has it on interface %s already; take it away there (ip address del %s dev %s), and from the host's own network settings", a, ErrInUse, at, p, at)
				}
			}
		}
		switch {
		case at == "":
			return nil
		case time.Since(began) > hereWait:
			return fmt.Errorf("%s %w: another agent of this host has it on device %s", a, ErrInUse, at)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (e *Held) netlinkAddr() *netlink.Addr {
	bits := e.addr.BitLen()
	out := &netlink.Addr{IPNet: &net.IPNet{IP: e.addr.AsSlice(), Mask: net.CIDRMask(bits, bits)}}
	if e.addr.Is6() {
		out.Flags = unix.IFA_F_NODAD // done, and on the right link
	}
	return out
}

// add puts the address on the device, and says so.
func (e *Held) add(tun netlink.Link) error {
	h := e.holder
	h.mu.Lock()
	h.held[e] = struct{}{}
	err := netlink.AddrAdd(tun, e.netlinkAddr())
	if e.addr.Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
		// New devices have IPv6 off here: this one is ours.
		path := "/proc/sys/net/ipv6/conf/" + tun.Attrs().Name + "/disable_ipv6"
		if os.WriteFile(path, []byte("0"), 0) == nil {
			err = netlink.AddrAdd(tun, e.netlinkAddr())
		}
	}
	if err != nil {
		delete(h.held, e)
	}
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("add %s to device %s: %w", e.addr, tun.Attrs().Name, err)
	}
	if e.speak != nil {
		e.speak.run()
	}
	return nil
}

// Lost is closed when the address is gone though nobody released it, or can't
// be reached any more: Check then says why.
func (e *Held) Lost() <-chan struct{} { return e.lost }

// Check looks whether the address is there and its link has carrier.
func (e *Held) Check() error {
	e.holder.look()
	e.holder.mu.Lock()
	defer e.holder.mu.Unlock()
	return e.err
}

// Where names the link and its own hardware address, for people.
func (e *Held) Where() string {
	if e.link.mac == nil {
		return e.link.name
	}
	return e.link.name + " (" + e.link.mac.String() + ")"
}

// Release takes the address away and returns once it isn't there any more, as
// read back.
func (e *Held) Release() {
	h := e.holder
	h.mu.Lock()
	delete(h.held, e)
	tun := h.tun
	h.mu.Unlock()
	if e.speak != nil {
		e.speak.close() // says nothing more about it before it is taken away
	}
	if tun == nil {
		return // closed: gone with the device
	}
	told := time.Second
	began := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := netlink.AddrDel(tun, e.netlinkAddr())
		there, rerr := e.there(tun)
		if rerr == nil && !there {
			return
		}
		if since := time.Since(began); since > told {
			h.log("error", "an address can't be taken away yet", map[string]any{"address": e.addr.String(), "device": tun.Attrs().Name, "err": fmt.Sprint(errors.Join(err, rerr))})
			told *= 2
		}
		time.Sleep(wait)
	}
}

func (e *Held) there(tun netlink.Link) (bool, error) {
	addrs, err := addresses(tun)
	if err != nil {
		return false, err
	}
	for _, x := range addrs {
		if p, ok := prefixOf(x); ok && p.Addr() == e.addr {
			return true, nil
		}
	}
	return false, nil
}
