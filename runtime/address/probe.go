package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrInUse (wrapped) says that somebody else on the link has the address.
var ErrInUse = errors.New("is in use")

// probe asks twice within the window whether anyone on the link has the address,
// as RFC 5227 and RFC 4862 (5.4) say, but for their waits of seconds: a host that
// has an address answers within a fraction of a millisecond, and here the last
// owner's lease is over. An answer is an ErrInUse with its hardware address.
func (l link) probe(ctx context.Context, a netip.Addr, window time.Duration) error {
	conn, err := l.listen(a)
	if err != nil {
		return err
	}
	defer func() { go conn.Close() }() // beside the start: see speaker.close
	if a.Is6() {
		// Solicitations of others that probe for it at the same time.
		leave, err := l.join(solicitedNode(a))
		if err != nil {
			return err
		}
		defer leave()
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	began := time.Now()
	for i, until := range []time.Duration{window / 2, window} {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.send(conn, l.probeFrame(a)); err != nil {
			return fmt.Errorf("probe %d for %s on %s: %w", i+1, a, l.name, err)
		}
		if err := conn.SetReadDeadline(began.Add(until)); err != nil {
			return err
		}
		who, err := l.heard(conn, a)
		if err != nil {
			return fmt.Errorf("listen for answers on %s: %w", l.name, err)
		}
		if who != nil {
			return fmt.Errorf("%s %w: %s answered for it on %s. Nothing was changed; take the address away there, or use another one", a, ErrInUse, who, l.name)
		}
	}
	return context.Cause(ctx)
}

func (l link) probeFrame(a netip.Addr) []byte {
	if a.Is4() {
		return arp{op: arpRequest, sender: l.mac, senderIP: netip.IPv4Unspecified(), target: make(net.HardwareAddr, 6), targetIP: a, toHardware: broadcast}.frame()
	}
	to := solicitedNode(a)
	return discovery{kind: neighbourSolicitation, fromHardware: l.mac, toHardware: multicast(to), from: netip.IPv6Unspecified(), to: to, target: a}.frame()
}

// heard waits, to the read deadline, for a sign that somebody else has the
// address or is about to take it: its hardware address, or nil.
func (l link) heard(conn *packet.Conn, a netip.Addr) (net.HardwareAddr, error) {
	buf := make([]byte, 512)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		who := claimant(buf[:n], a)
		if who != nil && who.String() != l.mac.String() {
			return who, nil
		}
	}
}

// claimant is who claims the address in a frame, or nil.
func claimant(frame []byte, a netip.Addr) net.HardwareAddr {
	if m, ok := readARP(frame); ok && a.Is4() {
		probes := m.op == arpRequest && m.senderIP.IsUnspecified() && m.targetIP == a
		if m.senderIP == a || probes {
			return m.sender
		}
	}
	if m, ok := readDiscovery(frame); ok && a.Is6() && m.target == a {
		switch {
		case m.kind == neighbourAdvertisement && m.link != nil:
			return m.link
		case m.kind == neighbourAdvertisement, m.from.IsUnspecified():
			return m.fromHardware
		}
	}
	return nil
}

// listen is a socket for frames about an address: ARP, or neighbour discovery.
func (l link) listen(a netip.Addr) (*packet.Conn, error) {
	b := a.As16()
	host := uint32(b[12])<<24 | uint32(b[13])<<16 | uint32(b[14])<<8 | uint32(b[15])
	proto := etherARP
	// About any other address the process is not even woken.
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherSize + 14, Size: 4}, // sender
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: host, SkipTrue: 2},
		bpf.LoadAbsolute{Off: etherSize + 24, Size: 4}, // target
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: host, SkipTrue: 1},
		bpf.RetConstant{Val: 512},
		bpf.RetConstant{Val: 0},
	}
	if a.Is6() {
		proto = etherIPv6
		program = []bpf.Instruction{
			bpf.LoadAbsolute{Off: etherSize + 6, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 58, SkipTrue: 6},
			bpf.LoadAbsolute{Off: etherSize + ipv6Size, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: neighbourSolicitation, SkipTrue: 4},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: neighbourAdvertisement, SkipTrue: 3},
			bpf.LoadAbsolute{Off: etherSize + ipv6Size + 8 + 12, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: host, SkipTrue: 1},
			bpf.RetConstant{Val: 512},
			bpf.RetConstant{Val: 0},
		}
	}
	filter, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(l.ifi(), packet.Raw, proto, &packet.Config{Filter: filter})
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("packets on %s: %w; to add an address the agent needs CAP_NET_RAW: run it as root", l.name, unix.EPERM)
	}
	if err != nil {
		return nil, fmt.Errorf("packets on %s: %w", l.name, err)
	}
	return conn, nil
}

// join makes the link's hardware, and switches that look at MLD, pass on what is
// sent to an IPv6 group.
func (l link) join(group netip.Addr) (leave func(), err error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(l.index)})
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("join group %s on %s: %w; IPv6 has to be on there (net.ipv6.conf.%s.disable_ipv6 = 0)", group, l.name, err, l.name)
	}
	return func() { unix.Close(fd) }, nil
}

// send sends a frame to its destination.
func (l link) send(conn *packet.Conn, frame []byte) error {
	_, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])})
	return err
}
