package address

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/packet"
)

// speaker tells the link's neighbours where an address is, and answers for it
// where the kernel doesn't.
type speaker struct {
	link    link
	addr    netip.Addr
	answers bool // asks come here, not to the kernel
	conn    *packet.Conn
	leave   func() // of the solicited-node group; may be nil
	router  bool

	again chan struct{} // announce from the beginning
	quit  chan struct{}
	ends  sync.WaitGroup
}

// announceAfter is when the neighbours are told, counted from the start. A
// frame may be lost, a switch may just be learning, a neighbour may hold on to
// what it knew for a second (Linux's locktime).
var announceAfter = []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second}

// newSpeaker opens what it needs, so that nothing can fail once the address is
// there. It says nothing before run.
func newSpeaker(l link, a netip.Addr) (*speaker, error) {
	s := &speaker{link: l, addr: a, answers: a.Is6() || l.quietARP(), again: make(chan struct{}, 1), quit: make(chan struct{})}
	var err error
	if a.Is6() {
		s.router = l.routes()
		if s.leave, err = l.join(solicitedNode(a)); err != nil {
			return nil, err
		}
	}
	if s.conn, err = l.listen(a); err != nil {
		if s.leave != nil {
			s.leave()
		}
		return nil, err
	}
	return s, nil
}

// run announces at once, before it returns, and then on its own until close.
func (s *speaker) run() {
	s.announce()
	s.ends.Add(2)
	go func() { defer s.ends.Done(); s.repeat(s.announce) }()
	go func() { defer s.ends.Done(); s.answer() }()
}

// restart announces from the beginning: the link was away.
func (s *speaker) restart() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// close returns once it says nothing any more. Its socket is closed beside that:
// to close a packet socket takes the kernel some 10 ms (it waits until no
// processor may still look at it), for which the next owner would wait too.
func (s *speaker) close() {
	close(s.quit)
	_ = s.conn.SetDeadline(time.Unix(1, 0)) // wakes who reads, and who can't send
	s.ends.Wait()
	go func() {
		s.conn.Close()
		if s.leave != nil {
			s.leave()
		}
	}()
}

// repeat announces when it is due, until close.
func (s *speaker) repeat(announce func()) {
	began, next := time.Now(), 1
	timer := time.NewTimer(announceAfter[next])
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.again:
			began, next = time.Now(), 0
		case <-timer.C:
		}
		announce()
		next++
		if next < len(announceAfter) {
			timer.Reset(time.Until(began.Add(announceAfter[next])))
		}
	}
}

// announce sends each form once. A frame that can't be sent now is sent again.
func (s *speaker) announce() {
	for _, f := range s.frames() {
		_ = s.link.send(s.conn, f)
	}
}

// frames are the announcements: of ARP a request and a reply, as some hosts
// take only one of them; of IPv6 an unsolicited advertisement that overrides.
func (s *speaker) frames() [][]byte {
	mac := s.link.mac
	if s.addr.Is4() {
		m := arp{op: arpRequest, sender: mac, senderIP: s.addr, target: make(net.HardwareAddr, 6), targetIP: s.addr, toHardware: broadcast}
		request := m.frame()
		m.op, m.target = arpReply, broadcast
		return [][]byte{request, m.frame()}
	}
	return [][]byte{s.advertisement(allNodes, multicast(allNodes), flagOverride).frame()}
}

func (s *speaker) advertisement(to netip.Addr, hardware net.HardwareAddr, flags byte) discovery {
	if s.router {
		flags |= flagRouter
	}
	return discovery{kind: neighbourAdvertisement, flags: flags, fromHardware: s.link.mac, toHardware: hardware,
		from: s.addr, to: to, target: s.addr, link: s.link.mac}
}

// answer answers who asks for the address, until close.
func (s *speaker) answer() {
	if !s.answers {
		return
	}
	buf := make([]byte, 512)
	for {
		n, _, err := s.conn.ReadFrom(buf)
		select {
		case <-s.quit:
			return
		default:
		}
		if err != nil {
			// The link was down: there is nothing to read until it is up.
			select {
			case <-s.quit:
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if reply := s.reply(buf[:n]); reply != nil {
			_ = s.link.send(s.conn, reply) // who asks, asks again
		}
	}
}

// reply is the answer to a frame, or nil.
func (s *speaker) reply(frame []byte) []byte {
	if m, ok := readARP(frame); ok && s.addr.Is4() && m.op == arpRequest && m.targetIP == s.addr && m.senderIP != s.addr {
		return arp{op: arpReply, sender: s.link.mac, senderIP: s.addr, target: m.sender, targetIP: m.senderIP, toHardware: m.sender}.frame()
	}
	m, ok := readDiscovery(frame)
	if !ok || s.addr.Is4() || m.kind != neighbourSolicitation || m.target != s.addr || m.from == s.addr {
		return nil
	}
	if m.from.IsUnspecified() { // who probes whether it is taken
		return s.advertisement(allNodes, multicast(allNodes), flagOverride).frame()
	}
	hardware := m.fromHardware
	if m.link != nil {
		hardware = m.link
	}
	return s.advertisement(m.from, hardware, flagSolicited|flagOverride).frame()
}
