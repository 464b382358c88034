package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	bridge = "br0"  // in the switch's namespace
	inside = "eth0" // in each seat's
)

// Wire makes what a seat that was assigned needs, or mends it: the switch, the
// client, the seat's namespace, its link and addresses, and its way to seats of
// other networks. It changes nothing where all is there.
func (l *Lab) Wire(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.Record()
	if err != nil {
		return err
	}
	if _, ok := r.Seats[key]; !ok {
		return fmt.Errorf("%s has no seat in the network lab of %s", key, l.dir)
	}
	if !exists(r.Switch) {
		if err := makeSwitch(r.Switch); err != nil {
			return err
		}
	}
	if err := Do(r.Switch, func() error { return bridges(r) }); err != nil {
		return err
	}
	for _, k := range []string{Client, key} {
		if err := wirePatiently(r, k); err != nil {
			return fmt.Errorf("wire %s: %w", k, err)
		}
	}
	// Those that are there already have to know the way to a network that is new;
	// one whose link is gone gets that when it is wired itself.
	for k, s := range r.Seats {
		if k != key && k != Client && exists(s.Namespace) {
			var gone netlink.LinkNotFoundError
			if err := Do(s.Namespace, func() error { return routes(r, k) }); err != nil && !errors.As(err, &gone) {
				return fmt.Errorf("wire %s: %w", k, err)
			}
		}
	}
	return nil
}

// makeSwitch makes the switch.
func makeSwitch(name string) error {
	if err := create(name); err != nil {
		return err
	}
	return Do(name, func() error {
		if err := errors.Join(
			sysctl("ipv6/conf/all/disable_ipv6", "1"), sysctl("ipv6/conf/default/disable_ipv6", "1"),
			sysctl("bridge/bridge-nf-call-iptables", "0"), sysctl("bridge/bridge-nf-call-ip6tables", "0"), sysctl("bridge/bridge-nf-call-arptables", "0"),
		); err != nil {
			return explain("set up the switch", err)
		}
		return makeBridge(bridge)
	})
}

func makeBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snoop := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}); err != nil && !errors.Is(err, unix.EEXIST) {
		return explain("make a bridge", err)
	}
	return up(name)
}

// drop removes a link of the thread's namespace; that there is none is fine.
func drop(name string) error {
	link, err := netlink.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explain("remove link "+name, err)
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	return explain("bring up "+name, err)
}

// wirePatiently makes one seat, again where a link vanished under its hands:
// the kernel takes its time to clear away a namespace that was deleted, and the
// other ends of its links with it.
func wirePatiently(r Record, key string) error {
	var gone netlink.LinkNotFoundError
	for give := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := wire(r, key)
		if !errors.As(err, &gone) && !errors.Is(err, unix.ENODEV) || time.Now().After(give) {
			return err
		}
	}
}

// wire makes one seat.
func wire(r Record, key string) error {
	s := r.Seats[key]
	if err := create(s.Namespace); err != nil {
		return err
	}
	linked := map[string]bool{} // by device
	if err := Do(s.Namespace, func() error {
		for _, w := range s.wires() {
			_, err := netlink.LinkByName(w.device())
			linked[w.device()] = err == nil
		}
		// ping sockets for everyone; no waiting for duplicates of an address that
		// this lab gave, no routers.
		if err := errors.Join(sysctl("ipv4/ping_group_range", "0 2147483647"),
			sysctl("ipv6/conf/all/accept_dad", "0"), sysctl("ipv6/conf/default/accept_dad", "0"),
			sysctl("ipv6/conf/all/accept_ra", "0"), sysctl("ipv6/conf/default/accept_ra", "0")); err != nil {
			return explain("set up the namespace", err)
		}
		return up("lo")
	}); err != nil {
		return err
	}
	for _, w := range s.wires() {
		if err := Do(r.Switch, func() error { return plug(s.Namespace, w, linked[w.device()]) }); err != nil {
			return err
		}
	}
	return Do(s.Namespace, func() error {
		for _, w := range s.wires() {
			if err := addresses(w); err != nil {
				return err
			}
		}
		return routes(r, key)
	})
}

// plug makes one of a seat's links, from inside of the switch. linked: its other
// end is there, so that only a port is missing where there is none.
func plug(namespace string, s Wire, linked bool) error {
	port, err := netlink.LinkByName(s.Port)
	var notFound netlink.LinkNotFoundError
	switch {
	case errors.As(err, &notFound) || (err == nil && !linked):
		if err := drop(s.Port); err != nil { // half a link, to a namespace that is no more
			return err
		}
		if err := Do(namespace, func() error { return drop(s.device()) }); err != nil {
			return err // the other end's kernel may be slow to see that its switch is gone
		}
		mac, err := net.ParseMAC(s.MAC)
		if err != nil {
			return err
		}
		to, err := os.Open(nsPath(namespace))
		if err != nil {
			return err
		}
		defer to.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = s.Port
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerHardwareAddr, veth.PeerNamespace = s.device(), mac, netlink.NsFd(int(to.Fd()))
		if err := netlink.LinkAdd(veth); err != nil {
			return explain("make a veth link", err)
		}
		if port, err = netlink.LinkByName(s.Port); err != nil {
			return explain("find the veth link", err)
		}
	case err != nil:
		return explain("look at the switch's ports", err)
	}
	br, err := netlink.LinkByName(s.bridge())
	if err != nil {
		return explain("find the bridge", err)
	}
	if port.Attrs().MasterIndex != br.Attrs().Index {
		if err := netlink.LinkSetMaster(port, br); err != nil {
			return explain("put a link on the bridge", err)
		}
	}
	return up(s.Port)
}

// addresses gives an interface its addresses, and takes away those that the lab
// gave it earlier (they are the ones marked permanent with the prefix of a
// network of a seat); those of groups are left alone.
func addresses(s Wire) error {
	link, err := netlink.LinkByName(s.device())
	if err != nil {
		return explain("find "+s.device(), err)
	}
	label := s.device() + label
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return explain("list addresses", err)
	}
	want := map[netip.Prefix]bool{}
	for _, p := range s.Addresses {
		want[p] = true
	}
	for _, a := range have {
		p, ok := prefixOf(a.IPNet)
		if ok && a.Label == label {
			if !want[p] {
				if err := netlink.AddrDel(link, &a); err != nil {
					return explain("remove an address", err)
				}
			}
		}
		if ok && want[p] {
			delete(want, p)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return explain("bring up "+s.device(), err)
	}
	for _, p := range s.Addresses {
		if !want[p] {
			continue
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is4() {
			a.Label = label
		} else {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
			return explain("add address "+p.String(), err)
		}
	}
	return nil
}

// label ends the label of the IPv4 addresses that the lab gave.
const label = ":lab"

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// routes leads to the other seats' networks: they are on the same wire.
func routes(r Record, key string) error {
	link, err := netlink.LinkByName(inside)
	if err != nil {
		return explain("find "+inside, err)
	}
	own := r.Seats[key].Addresses
	for _, s := range r.Seats {
		for _, p := range s.Addresses {
			p = p.Masked()
			if slices.ContainsFunc(own, func(o netip.Prefix) bool { return o.Masked() == p }) {
				continue
			}
			err := netlink.RouteReplace(&netlink.Route{
				LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK,
				Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
			})
			if err != nil {
				return explain("add a route to "+p.String(), err)
			}
		}
	}
	return nil
}

// Unwire takes a seat away with all that runs in it; with the last node's, the
// client and the switch. What is gone already is fine, also a lab that never was.
func (l *Lab) Unwire(key string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.there()
	if err != nil {
		return err
	}
	s, ok := r.Seats[key]
	if !ok {
		return nil
	}
	if err := unplug(r, s); err != nil {
		return err
	}
	others := len(r.Seats) - 1
	if _, ok := r.Seats[Client]; ok && key != Client {
		others--
	}
	if others <= 0 {
		for _, s := range r.Seats {
			if err := unplug(r, s); err != nil {
				return err
			}
		}
		if err := remove(r.Switch); err != nil {
			return err
		}
		clear(r.Seats)
	}
	delete(r.Seats, key)
	return l.write(r)
}

// unplug removes a seat's links and namespace. A link goes by name: a process
// that can't be killed would keep it alive with the namespace.
func unplug(r Record, s Seat) error {
	if exists(r.Switch) {
		for _, w := range s.wires() {
			if err := Do(r.Switch, func() error { return drop(w.Port) }); err != nil {
				return err
			}
		}
	}
	return remove(s.Namespace)
}

// Check says in a few words each what of a seat is not there; none: all is.
func (l *Lab) Check(key string) ([]string, error) {
	r, err := l.there()
	if err != nil {
		return nil, err
	}
	s, ok := r.Seats[key]
	if !ok || !exists(s.Namespace) {
		return []string{"namespace gone"}, nil
	}
	if !exists(r.Switch) {
		return []string{"switch gone"}, nil
	}
	var out []string
	for _, w := range s.wires() {
		words, err := check(r, s.Namespace, w)
		if err != nil {
			return nil, err
		}
		for _, x := range words {
			if w.Network != "" {
				x = LinkOf + w.Network + ": " + x
			}
			out = append(out, x)
		}
	}
	return out, nil
}

// check looks at one link of a seat.
func check(r Record, namespace string, w Wire) ([]string, error) {
	var out []string
	err := Do(namespace, func() error {
		link, err := netlink.LinkByName(w.device())
		var notFound netlink.LinkNotFoundError
		if errors.As(err, &notFound) {
			out = append(out, "link gone")
			return nil
		}
		if err != nil {
			return explain("look at "+w.device(), err)
		}
		if link.Attrs().Flags&net.FlagUp == 0 {
			out = append(out, "link down")
		}
		have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return explain("list addresses", err)
		}
		for _, p := range w.Addresses {
			if !slices.ContainsFunc(have, func(a netlink.Addr) bool { q, ok := prefixOf(a.IPNet); return ok && q == p }) {
				out = append(out, "address "+p.Addr().String()+" gone")
			}
		}
		return nil
	})
	if err != nil || len(out) > 0 {
		return out, err
	}
	return out, Do(r.Switch, func() error {
		port, err := netlink.LinkByName(w.Port)
		var notFound netlink.LinkNotFoundError
		switch {
		case errors.As(err, &notFound):
			out = append(out, "link gone")
			return nil
		case err != nil:
			return explain("look at the switch", err)
		case port.Attrs().MasterIndex == 0:
			out = append(out, "link not on the bridge")
		case port.Attrs().Flags&net.FlagUp == 0:
			out = append(out, "unplugged")
		}
		return nil
	})
}

func (l *Lab) port(key string, on bool, networks []string) error {
	r, err := l.Record()
	if err != nil {
		return err
	}
	s, ok := r.Seats[key]
	if !ok {
		return fmt.Errorf("the network lab has no %s", key)
	}
	return Do(r.Switch, func() error {
		for _, w := range s.wires() {
			if len(networks) > 0 && !slices.Contains(networks, r.nameOf(w)) {
				continue
			}
			if on {
				if err := up(w.Port); err != nil {
					return err
				}
				continue
			}
			link, err := netlink.LinkByName(w.Port)
			if err == nil {
				err = netlink.LinkSetDown(link)
			}
			if err != nil {
				return explain("unplug "+key, err)
			}
		}
		return nil
	})
}
