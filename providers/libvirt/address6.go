package libvirt

import (
	"net"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
)

// With IPv6 nobody gives an address: the hypervisor tells the prefix, and a guest
// makes its address of that and its MAC (SLAAC with EUI-64, which is what kernels
// and systemd-networkd do unless told otherwise). So it is known without a record.

// checkSubnet6 refuses what guests could make no addresses of.
func checkSubnet6(s string) error {
	if s == "" {
		return nil
	}
	at := cty.GetAttrPath("subnet6")
	pre, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !pre.Addr().Is6() || pre.Addr().Is4In6() || pre.Addr().IsLinkLocalUnicast() || pre.Addr().IsMulticast():
		return at.NewErrorf("%q is no IPv6 subnet; write for example fd88::/64", s)
	case pre != pre.Masked():
		return at.NewErrorf("%q has bits below its prefix; write %s", s, pre.Masked())
	case pre.Bits() != 64:
		return at.NewErrorf("%q: machines make their own addresses, for which the prefix is /64", s)
	}
	return nil
}

// subnets are a network's addresses, of either kind.
func (n *networkSpec) subnets() []string {
	var out []string
	for _, s := range []string{n.Subnet, n.Subnet6} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// prefix6Of is the hypervisor's IPv6 address on a network that guests make theirs
// of; invalid: there is none.
func prefix6Of(x xmlNetwork) netip.Prefix {
	for _, ip := range x.IPs {
		if pre, ok := ip.prefix(); ok && pre.Addr().Is6() && pre.Bits() == 64 && ip.DHCP == nil {
			return pre
		}
	}
	return netip.Prefix{}
}

// address6 is what a guest with the MAC makes of a prefix; "": nothing.
func address6(pre netip.Prefix, mac string) string {
	hw, err := net.ParseMAC(mac)
	if err != nil || len(hw) != 6 || !pre.IsValid() {
		return ""
	}
	a := pre.Masked().Addr().As16()
	copy(a[8:], []byte{hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
	return netip.AddrFrom16(a).String()
}

// both are the addresses that an interface has.
func (n nic) both() []string {
	if n.six == "" {
		return []string{n.address}
	}
	return []string{n.address, n.six}
}
