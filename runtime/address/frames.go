package address

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames of ARP (RFC 826, 5227) and neighbour discovery (RFC 4861, 4862), with
// their Ethernet header.

const (
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	arpRequest = 1
	arpReply   = 2

	neighbourSolicitation  = 135
	neighbourAdvertisement = 136

	flagRouter    = 0x80
	flagSolicited = 0x40
	flagOverride  = 0x20
)

const (
	etherSize = 14
	arpSize   = etherSize + 28
	ipv6Size  = 40
	nsSize    = etherSize + ipv6Size + 24 // without options
	naSize    = etherSize + ipv6Size + 32
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arp is an ARP message for IPv4 on Ethernet.
type arp struct {
	op         uint16
	sender     net.HardwareAddr
	senderIP   netip.Addr
	target     net.HardwareAddr
	targetIP   netip.Addr
	toHardware net.HardwareAddr // the frame's destination
}

func (m arp) frame() []byte {
	b := make([]byte, arpSize)
	ether(b, m.toHardware, m.sender, etherARP)
	p := b[etherSize:]
	binary.BigEndian.PutUint16(p[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(p[2:], 0x0800)
	p[4], p[5] = 6, 4
	binary.BigEndian.PutUint16(p[6:], m.op)
	copy(p[8:14], m.sender)
	copy(p[14:18], m.senderIP.AsSlice())
	copy(p[18:24], m.target)
	copy(p[24:28], m.targetIP.AsSlice())
	return b
}

// readARP reads a frame; false: it is no such message.
func readARP(b []byte) (arp, bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b[12:]) != etherARP {
		return arp{}, false
	}
	p := b[etherSize:]
	if binary.BigEndian.Uint16(p[0:]) != 1 || binary.BigEndian.Uint16(p[2:]) != 0x0800 || p[4] != 6 || p[5] != 4 {
		return arp{}, false
	}
	return arp{
		op:         binary.BigEndian.Uint16(p[6:]),
		sender:     net.HardwareAddr(p[8:14]),
		senderIP:   netip.AddrFrom4([4]byte(p[14:18])),
		target:     net.HardwareAddr(p[18:24]),
		targetIP:   netip.AddrFrom4([4]byte(p[24:28])),
		toHardware: net.HardwareAddr(b[:6]),
	}, true
}

// discovery is a neighbour solicitation or advertisement.
type discovery struct {
	kind         byte // neighbourSolicitation or neighbourAdvertisement
	flags        byte // of an advertisement
	fromHardware net.HardwareAddr
	toHardware   net.HardwareAddr
	from, to     netip.Addr
	target       netip.Addr
	link         net.HardwareAddr // the link-layer option, or nil
}

func (m discovery) frame() []byte {
	size := nsSize
	if m.link != nil {
		size = naSize
	}
	b := make([]byte, size)
	ether(b, m.toHardware, m.fromHardware, etherIPv6)
	ip := b[etherSize:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(size-etherSize-ipv6Size))
	ip[6], ip[7] = 58, 255 // ICMPv6; 255 proves that no router passed it on
	copy(ip[8:24], m.from.AsSlice())
	copy(ip[24:40], m.to.AsSlice())
	p := ip[ipv6Size:]
	p[0], p[4] = m.kind, m.flags
	copy(p[8:24], m.target.AsSlice())
	if m.link != nil {
		p[24], p[25] = 1, 1 // source link-layer address, in units of 8 bytes
		if m.kind == neighbourAdvertisement {
			p[24] = 2 // target link-layer address
		}
		copy(p[26:32], m.link)
	}
	binary.BigEndian.PutUint16(p[2:], checksum(ip[8:40], p))
	return b
}

// readDiscovery reads a frame; false: it is no such message, or damaged.
func readDiscovery(b []byte) (discovery, bool) {
	if len(b) < nsSize || binary.BigEndian.Uint16(b[12:]) != etherIPv6 {
		return discovery{}, false
	}
	ip := b[etherSize:]
	size := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != 58 || ip[7] != 255 || size < 24 || len(ip) < ipv6Size+size {
		return discovery{}, false
	}
	p := ip[ipv6Size : ipv6Size+size]
	if p[0] != neighbourSolicitation && p[0] != neighbourAdvertisement || p[1] != 0 || checksum(ip[8:40], p) != 0 {
		return discovery{}, false
	}
	m := discovery{
		kind: p[0], flags: p[4],
		fromHardware: net.HardwareAddr(b[6:12]), toHardware: net.HardwareAddr(b[:6]),
		from: netip.AddrFrom16([16]byte(ip[8:24])), to: netip.AddrFrom16([16]byte(ip[24:40])),
		target: netip.AddrFrom16([16]byte(p[8:24])),
	}
	want := byte(1)
	if m.kind == neighbourAdvertisement {
		want = 2
	}
	for o := p[24:]; len(o) > 0; {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) {
			return discovery{}, false
		}
		if o[0] == want && o[1] == 1 {
			m.link = net.HardwareAddr(o[2:8])
		}
		o = o[int(o[1])*8:]
	}
	return m, true
}

func ether(b []byte, to, from net.HardwareAddr, kind uint16) {
	copy(b[0:6], to)
	copy(b[6:12], from)
	binary.BigEndian.PutUint16(b[12:], kind)
}

// checksum is ICMPv6's over the addresses and the message (RFC 4443, 2.3); 0 for
// a message with a right one in it.
func checksum(addresses, message []byte) uint16 {
	sum := uint32(58) + uint32(len(message))
	for _, b := range [][]byte{addresses, message} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
		if len(b)%2 == 1 {
			sum += uint32(b[len(b)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// solicitedNode is the multicast group of who has the address (RFC 4291, 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

var allNodes = netip.MustParseAddr("ff02::1")

// multicast is a group's Ethernet address (RFC 2464, 7).
func multicast(a netip.Addr) net.HardwareAddr {
	b := a.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
