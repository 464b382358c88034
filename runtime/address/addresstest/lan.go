// Package addresstest is a network for tests: hosts, each a network namespace
// without a name, on one bridge. Nothing of it is left when the test ends, or
// when its process is killed.
package addresstest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Patience bounds every wait: far more than anything takes on a busy machine.
const Patience = 30 * time.Second

// LAN is a bridge with hosts.
type LAN struct {
	t      testing.TB
	bridge *Host
	hosts  int
}

// Host is a namespace with one interface, eth0, in 10.99.0.0/24 and
// fd99::/64: the first one has .1 and ::1.
type Host struct {
	t      testing.TB
	ns     netns.NsHandle
	number int
}

// New makes a LAN without hosts, or skips the test where that can't be.
func New(t testing.TB) *LAN {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("added addresses need /dev/net/tun: ", err)
	}
	n := &LAN{t: t, bridge: newHost(t)}
	n.bridge.Must(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: new(bool)}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		return netlink.LinkSetUp(br)
	})
	return n
}

func newHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{t: t}
	err := onThread(func() (err error) {
		h.ns, err = netns.New()
		if err != nil {
			return err
		}
		// A new link's own link-local address is probed for seconds, before which
		// nothing answers over IPv6; hosts that run have it.
		for _, of := range []string{"all", "default"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+of+"/accept_dad", []byte("0"), 0); err != nil {
				return fmt.Errorf("IPv6 in a namespace: %w", err)
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if errors.Is(err, unix.EPERM) {
		t.Skip("network namespaces are not allowed here: ", err)
	}
	if err != nil {
		t.Fatal("make a network namespace: ", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	return h
}

// Host adds a host.
func (n *LAN) Host() *Host {
	n.t.Helper()
	n.hosts++
	h := newHost(n.t)
	h.number = n.hosts
	n.bridge.Must(func() error {
		port := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("port%d", h.number)},
			PeerName:  "eth0", PeerNamespace: netlink.NsFd(h.ns),
		}
		if err := netlink.LinkAdd(port); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		br, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, br); err != nil {
			return err
		}
		return netlink.LinkSetUp(port)
	})
	h.Must(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, p := range []netip.Prefix{netip.PrefixFrom(h.IPv4(), 24), netip.PrefixFrom(h.IPv6(), 64)} {
			a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
			if p.Addr().Is6() {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(eth0, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(eth0)
	})
	h.eventually("eth0 has carrier", func() bool {
		l, err := netlink.LinkByName("eth0")
		return err == nil && l.Attrs().RawFlags&unix.IFF_RUNNING != 0
	})
	return h
}

// IPv4 is the host's own address.
func (h *Host) IPv4() netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 0, byte(h.number)}) }

// IPv6 is the host's own address.
func (h *Host) IPv6() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 15: byte(h.number)})
}

// MAC is the hardware address of eth0.
func (h *Host) MAC() net.HardwareAddr {
	h.t.Helper()
	var mac net.HardwareAddr
	h.Must(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	return mac
}

// Port sets the bridge's end of the host's cable up or down.
func (n *LAN) Port(h *Host, up bool) {
	n.t.Helper()
	n.bridge.Must(func() error {
		l, err := netlink.LinkByName(fmt.Sprintf("port%d", h.number))
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// Do runs f in the host's network: f may start processes and open sockets,
// which stay there, but no goroutines.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return err
		}
		return f()
	})
}

// Must is Do, and the test's end on an error.
func (h *Host) Must(f func() error) {
	h.t.Helper()
	if err := h.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func (h *Host) eventually(what string, is func() bool) {
	h.t.Helper()
	h.Must(func() error {
		for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if is() {
				return nil
			}
		}
		return fmt.Errorf("not so after %s: %s", Patience, what)
	})
}

// Has tells whether the host has an address, on any interface.
func (h *Host) Has(a netip.Addr) bool {
	h.t.Helper()
	found := false
	h.Must(func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, x := range addrs {
			if ip, ok := netip.AddrFromSlice(x.IP); ok && ip.Unmap() == a {
				found = true
			}
		}
		return err
	})
	return found
}

// Devices lists the names of the host's interfaces that begin so.
func (h *Host) Devices(prefix string) []string {
	h.t.Helper()
	var out []string
	h.Must(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if bytes.HasPrefix([]byte(l.Attrs().Name), []byte(prefix)) {
				out = append(out, l.Attrs().Name)
			}
		}
		return err
	})
	return out
}

// Neighbour is the hardware address that the host remembers for an address;
// nil: none.
func (h *Host) Neighbour(a netip.Addr) net.HardwareAddr {
	h.t.Helper()
	var mac net.HardwareAddr
	h.Must(func() error {
		family := netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		all, err := netlink.NeighList(0, family)
		for _, x := range all {
			if ip, ok := netip.AddrFromSlice(x.IP); ok && ip.Unmap() == a && x.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0 {
				mac = x.HardwareAddr
			}
		}
		return err
	})
	return mac
}

// Event is an address that came or went on a host.
type Event struct {
	Host    *Host
	Address netip.Addr
	Added   bool
	At      time.Time
}

// Remove takes an address away, as a person might.
func (h *Host) Remove(a netip.Addr) {
	h.t.Helper()
	h.Must(func() error {
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, x := range addrs {
			if ip, ok := netip.AddrFromSlice(x.IP); ok && ip.Unmap() == a {
				return netlink.AddrDel(nil, &x)
			}
		}
		return errors.Join(err, fmt.Errorf("no address %s", a))
	})
}

// Device changes the interface with that name.
func (h *Host) Device(name string, change func(netlink.Link) error) {
	h.t.Helper()
	h.Must(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return change(l)
	})
}

// AskOnce has the host ask for the hardware address of an address once more, and
// not again by itself for an hour: only who tells it unasked answers it then.
func (h *Host) AskOnce(a netip.Addr) {
	h.t.Helper()
	h.Must(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			if err := os.WriteFile("/proc/sys/net/"+family+"/neigh/eth0/retrans_time_ms", []byte("3600000"), 0); err != nil {
				return err
			}
		}
		conn, err := net.Dial("udp", netip.AddrPortFrom(a, 9).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte{0})
		return err
	})
	h.eventually("asks for "+a.String(), func() bool { return h.asks(a) })
}

// asks tells whether the host waits for an address's hardware address.
func (h *Host) asks(a netip.Addr) (is bool) {
	h.Must(func() error {
		family := netlink.FAMILY_V4
		if a.Is6() {
			family = netlink.FAMILY_V6
		}
		all, err := netlink.NeighList(0, family)
		for _, x := range all {
			ip, ok := netip.AddrFromSlice(x.IP)
			is = is || ok && ip.Unmap() == a && x.State == netlink.NUD_INCOMPLETE
		}
		return err
	})
	return is
}

// Forget empties what the host remembers of its neighbours.
func (h *Host) Forget() {
	h.t.Helper()
	h.Must(func() error {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, x := range all {
			if x.State&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) == 0 {
				_ = netlink.NeighDel(&x) // one that is gone meanwhile is as well
			}
		}
		return err
	})
}

// Events tells what comes and goes on the hosts, in each one's order.
func Events(t testing.TB, hosts ...*Host) <-chan Event {
	t.Helper()
	out := make(chan Event, 1024)
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	for _, h := range hosts {
		in := make(chan netlink.AddrUpdate, 64)
		if err := netlink.AddrSubscribeAt(h.ns, in, done); err != nil {
			t.Fatal(err)
		}
		go func() {
			for u := range in {
				if ip, ok := netip.AddrFromSlice(u.LinkAddress.IP); ok {
					out <- Event{h, ip.Unmap(), u.NewAddr, time.Now()}
				}
			}
		}()
	}
	return out
}

// Ping asks an address for an echo until one comes, each time for so long at
// most; false: none came within Patience.
func (h *Host) Ping(a netip.Addr, each time.Duration) bool {
	h.t.Helper()
	var conn net.PacketConn
	h.Must(func() (err error) {
		if a.Is4() {
			conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		} else {
			conn, err = net.ListenPacket("ip6:ipv6-icmp", "::")
		}
		return err
	})
	defer conn.Close()
	buf := make([]byte, 512)
	for end, n := time.Now().Add(Patience), uint16(1); time.Now().Before(end); n++ {
		if _, err := conn.WriteTo(echo(a, n), &net.IPAddr{IP: a.AsSlice()}); err != nil {
			time.Sleep(each)
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(each))
		for {
			k, from, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			reply := a.Is4() && buf[0] == 0 || a.Is6() && buf[0] == 129
			if k >= 8 && reply && from.String() == a.String() && binary.BigEndian.Uint16(buf[4:]) == echoID {
				return true
			}
		}
	}
	return false
}

const echoID = 0xc1a5

func echo(a netip.Addr, n uint16) []byte {
	b := make([]byte, 8)
	b[0] = 8
	if a.Is6() {
		b[0] = 128 // the kernel fills the checksum in
	}
	binary.BigEndian.PutUint16(b[4:], echoID)
	binary.BigEndian.PutUint16(b[6:], n)
	sum := uint32(b[0])<<8 + uint32(echoID) + uint32(n)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}
