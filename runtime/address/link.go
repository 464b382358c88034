package address

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is the interface on which an address is to answer.
type link struct {
	index int
	name  string
	mac   net.HardwareAddr // nil: it has no neighbours that ask (point to point, WireGuard)
	up    bool             // and has carrier
}

func (l link) ifi() *net.Interface {
	return &net.Interface{Index: l.index, Name: l.name, HardwareAddr: l.mac}
}

func linkOf(l netlink.Link) link {
	a := l.Attrs()
	const running = unix.IFF_UP | unix.IFF_RUNNING
	out := link{index: a.Index, name: a.Name, up: a.RawFlags&running == running}
	if len(a.HardwareAddr) == 6 && a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) == 0 {
		out.mac = a.HardwareAddr
	}
	return out
}

// findLink finds the interface that has an address in the subnet of a: of the
// prefix length bits, or, where that is -1, of the interface's own. The longest
// prefix wins, then the first interface. A name picks the interface by itself.
func findLink(a netip.Addr, bits int, name string) (link, error) {
	if name != "" {
		l, err := netlink.LinkByName(name)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			return link{}, fmt.Errorf("this node has no interface %s", name)
		}
		if err != nil {
			return link{}, fmt.Errorf("look at interface %s: %w", name, err)
		}
		return linkOf(l), nil
	}
	links, err := list(netlink.LinkList)
	if err != nil {
		return link{}, fmt.Errorf("list this node's interfaces: %w", err)
	}
	addrs, err := addresses(nil)
	if err != nil {
		return link{}, err
	}
	var best link
	longest := -1
	var have []string
	for _, l := range links {
		at := l.Attrs()
		if at.RawFlags&unix.IFF_LOOPBACK != 0 || isOurs(l) {
			continue
		}
		for _, x := range addrs {
			p, ok := prefixOf(x)
			if !ok || x.LinkIndex != at.Index || p.Addr().Is4() != a.Is4() || p.Addr().IsLinkLocalUnicast() {
				continue
			}
			have = append(have, at.Name+" "+p.String())
			in := p.Masked().Contains(a)
			if bits >= 0 {
				in = netip.PrefixFrom(a, bits).Masked().Contains(p.Addr())
			}
			// A single host's own address is no subnet.
			if in && p.Bits() < a.BitLen() && p.Bits() > longest {
				longest, best = p.Bits(), linkOf(l)
			}
		}
	}
	if longest >= 0 {
		return best, nil
	}
	of := a.String()
	if bits >= 0 {
		of = netip.PrefixFrom(a, bits).Masked().String()
	}
	if len(have) == 0 {
		have = []string{"none but loopback"}
	}
	return link{}, fmt.Errorf("no interface of this node has an address in the subnet of %s; it has %s. Correct the address or its prefix length, or name the interface with interface = \"...\"", of, strings.Join(have, ", "))
}

// addresses lists the addresses of one device, or of all.
func addresses(of netlink.Link) ([]netlink.Addr, error) {
	addrs, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(of, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list this node's addresses: %w", err)
	}
	return addrs, nil
}

// list repeats a dump that a change in between has spoiled.
func list[T any](dump func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		out, err := dump()
		if err == nil || try == 20 || !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return out, err
		}
	}
}

func prefixOf(a netlink.Addr) (netip.Prefix, bool) {
	if a.IPNet == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), ones), ok
}

// isOurs tells whether a device is one of this package's, of any process.
func isOurs(l netlink.Link) bool {
	return l.Type() == "tuntap" && strings.HasPrefix(l.Attrs().Name, namePrefix)
}

// setting reads a number of /proc/sys/net; -1: it isn't there.
func setting(path string) int {
	b, err := os.ReadFile("/proc/sys/net/" + path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return -1
	}
	return n
}

// quietARP tells whether the kernel answers no ARP on the link for an address
// of another device: the greater of the two settings counts.
func (l link) quietARP() bool {
	return max(setting("ipv4/conf/all/arp_ignore"), setting("ipv4/conf/"+l.name+"/arp_ignore")) > 0
}

// routes tells whether the node is an IPv6 router on the link, which it has to
// say in each advertisement.
func (l link) routes() bool { return setting("ipv6/conf/"+l.name+"/forwarding") > 0 }
