package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/clusterplan/clusterplan/internal/rawio"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

const (
	resolveAgain = 30 * time.Second // a peer's name that is no literal address
	resolveLimit = 3 * time.Second
	maxNames     = 256 // addresses that frames came from
)

// udp is what frames come and go by: a socket at the node's address and, where
// the cluster has links, one at each of the node's addresses on them. Who has the
// turn seals and sends; readers open, one at a time.
type udp struct {
	n      *Node
	seal   *heartbeat.Sealer
	buf    []byte           // the loop's
	peers  map[string]*peer // the loop's: where an endpoint is
	main   *socket
	links  map[string]*socket // the loop's, by link
	ring   *confdb.Keyring    // the loop's: of the newest step; nil: only the first key
	refuse limiter

	mu   sync.Mutex // of what readers share
	open *heartbeat.Opener
	has  uint32 // generation of the newest key
	uses uint32 // of the one that frames are sealed with
}

// socket is one address of this node.
type socket struct {
	link  string // "": the node's own address, which may lie on a link
	conn  *net.UDPConn
	raw   *rawio.Conn
	local netip.AddrPort
	heard heardOn
}

type peer struct {
	to      rawio.Destination
	from    *socket
	known   bool
	literal bool
	asked   time.Time
}

func (n *Node) openUDP(addr string) (*udp, error) {
	u := &udp{n: n, buf: make([]byte, 0, heartbeat.MaxPacket), peers: make(map[string]*peer), links: make(map[string]*socket),
		refuse: limiter{every: 10 * time.Second}}
	var err error
	if u.main, err = listenUDP("", addr); err != nil {
		return nil, err
	}
	if u.seal, err = heartbeat.NewSealer(n.facts.ClusterID, n.files.key, n.facts.ServerID, n.incar); err == nil {
		u.open, err = heartbeat.NewOpener(n.facts.ClusterID, n.files.key, n.facts.ServerID)
	}
	if err != nil {
		u.close()
		return nil, fmt.Errorf("the cluster's key: %w", err)
	}
	u.setKeys(n.member.State().Keys)
	return u, nil
}

func listenUDP(link, addr string) (*socket, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	s := &socket{link: link, conn: conn, local: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	if s.raw, err = rawio.New(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (u *udp) close() {
	u.main.conn.Close()
	for _, s := range u.links {
		s.conn.Close()
	}
}

// send seals a frame once and sends it to each of the peer's addresses, now. A
// frame that can't leave is lost, as any may be.
func (u *udp) send(to string, also []string, f *heartbeat.Frame) {
	sealed, err := u.seal.Seal(u.buf[:0], f)
	if err != nil {
		u.n.log.Error("a frame can't be sealed", "to", to, "err", err)
		return
	}
	u.sendTo(to, sealed)
	for _, other := range also {
		u.sendTo(other, sealed)
	}
}

func (u *udp) sendTo(to string, sealed []byte) {
	p := u.where(to)
	if !p.known {
		return
	}
	if err := p.from.raw.SendTo(sealed, &p.to); err != nil && !errors.Is(err, net.ErrClosed) {
		u.n.log.Debug("a frame was not sent", "to", to, "err", err)
	}
}

// where is an endpoint's address. Names are looked up beside the loop; frames are
// lost until the answer is there.
func (u *udp) where(endpoint string) *peer {
	p, ok := u.peers[endpoint]
	if !ok {
		p = &peer{}
		if at, err := netip.ParseAddrPort(endpoint); err == nil {
			u.aim(p, at)
			p.literal = true
		}
		u.peers[endpoint] = p
	}
	if !p.literal && time.Since(p.asked) > resolveAgain {
		p.asked = time.Now()
		go u.resolve(endpoint)
	}
	return p
}

// aim has frames to p leave from the socket on the link that at lies in.
func (u *udp) aim(p *peer, at netip.AddrPort) {
	p.from = u.main
	if s := u.links[u.n.links.of(at.Addr())]; s != nil {
		p.from = s
	}
	p.to, p.known = rawio.To(at, p.from.local), true
}

func (u *udp) resolve(endpoint string) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveLimit)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		u.n.log.Warn("a node's address can't be resolved", "endpoint", endpoint, "err", err)
		return
	}
	at, err := netip.ParseAddrPort(net.JoinHostPort(ips[0].Unmap().String(), port))
	if err != nil {
		return
	}
	u.n.give(job{fn: func() {
		if p := u.peers[endpoint]; p != nil {
			u.aim(p, at)
		}
	}})
}

// read opens what comes to one socket and steps the member with it, in the goroutine
// that the poller has woken (as tick does), until the socket is closed. A step that
// closes this very socket must not wait for it (closeLink).
func (u *udp) read(ctx context.Context, s *socket) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	in, err := rawio.NewDatagrams(s.conn, heartbeat.MaxPacket+1)
	if err != nil {
		return fmt.Errorf("read frames: %w", err)
	}
	n := u.n
	names := make(map[netip.AddrPort]string) // peers are few, and a string a frame is garbage
	var f member.FrameIn                     // the member keeps nothing of one
	step := func() { n.step(&f) }
	err = in.Follow(func(packet []byte, at netip.AddrPort) {
		if !u.take(s, packet, at, &f.Frame) {
			return
		}
		from, ok := names[at]
		if !ok {
			if len(names) >= maxNames {
				clear(names)
			}
			from = at.String()
			names[at] = from
		}
		f.From = from
		n.turn(step)
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("read frames: %w", err)
}

// take opens a datagram into f; false: it is none for the loop.
func (u *udp) take(s *socket, packet []byte, at netip.AddrPort, f *heartbeat.Frame) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.open.OpenTo(f, packet)
	switch {
	case errors.Is(err, heartbeat.ErrReplay):
		// With several links each frame comes several times: only the first counts,
		// but each tells that its link works.
		if from, genuine := u.open.Genuine(packet); genuine && u.n.links.several() {
			s.heard.note(from)
			return false
		}
	case errors.Is(err, heartbeat.ErrKey):
		if g, ok := u.open.Generation(packet); ok && g > u.has {
			u.n.askKeys(at)
		}
	}
	if err != nil {
		if more, ok := u.refuse.may(); ok {
			u.n.log.Warn("a datagram was refused", "from", at, "err", err, "others", more)
		}
		return false
	}
	if u.n.links.several() {
		s.heard.note(f.From)
	}
	if f.AckIncarnation == u.n.incar { // an echo of ours: no recording
		u.open.Confirm(f.From, f.Incarnation)
	}
	if g := u.open.Newest(); g > u.uses {
		u.uses = g
		go u.n.give(job{fn: func() { u.use(g) }}) // who seals with it knows that all have it
	}
	return true
}
