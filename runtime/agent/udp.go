package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/clusterplan/clusterplan/internal/rawio"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

const (
	resolveAgain = 30 * time.Second // a peer's name that is no literal address
	resolveLimit = 3 * time.Second
	maxNames     = 256 // addresses that frames came from
)

// udp is the socket that frames come and go by. The loop seals and sends; the
// reader opens.
type udp struct {
	conn   *net.UDPConn
	raw    *rawio.Conn
	local  netip.AddrPort
	seal   *heartbeat.Sealer
	open   *heartbeat.Opener
	buf    []byte           // the loop's
	peers  map[string]*peer // the loop's: where an endpoint is
	n      *Node
	refuse limiter
}

type peer struct {
	to      rawio.Destination
	known   bool
	literal bool
	asked   time.Time
}

func (n *Node) openUDP(addr string) (*udp, error) {
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	u := &udp{conn: conn, n: n, buf: make([]byte, 0, heartbeat.MaxPacket), peers: make(map[string]*peer), refuse: limiter{every: 10 * time.Second}}
	u.local = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if u.raw, err = rawio.New(conn); err != nil {
		conn.Close()
		return nil, err
	}
	if u.seal, err = heartbeat.NewSealer(n.facts.ClusterID, n.files.key, n.facts.ServerID, n.incar); err == nil {
		u.open, err = heartbeat.NewOpener(n.facts.ClusterID, n.files.key, n.facts.ServerID)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the cluster's key: %w", err)
	}
	return u, nil
}

// send seals a frame and sends it, now. A frame that can't leave is lost, as any
// may be.
func (u *udp) send(to string, f *heartbeat.Frame) {
	p := u.where(to)
	if !p.known {
		return
	}
	sealed, err := u.seal.Seal(u.buf[:0], f)
	if err != nil {
		u.n.log.Error("a frame can't be sealed", "to", to, "err", err)
		return
	}
	if err := u.raw.SendTo(sealed, &p.to); err != nil && !errors.Is(err, net.ErrClosed) {
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
			p.to, p.known, p.literal = rawio.To(at, u.local), true, true
		}
		u.peers[endpoint] = p
	}
	if !p.literal && time.Since(p.asked) > resolveAgain {
		p.asked = time.Now()
		go u.resolve(endpoint)
	}
	return p
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
		p := u.peers[endpoint]
		p.to, p.known = rawio.To(at, u.local), true
	}})
}

// read opens what comes and hands it to the loop, until ctx ends.
func (u *udp) read(ctx context.Context, n *Node) error {
	stop := context.AfterFunc(ctx, func() { u.conn.Close() })
	defer stop()
	buf := make([]byte, heartbeat.MaxPacket+1)
	names := make(map[netip.AddrPort]string) // peers are few, and a string a frame is garbage
	for {
		size, at, err := u.raw.ReceiveFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read frames: %w", err)
		case err != nil:
			continue // a peer's refusal (ICMP) shows up here; silence tells the member
		}
		f, err := u.open.Open(buf[:size])
		if err != nil {
			if more, ok := u.refuse.may(); ok {
				n.log.Warn("a datagram was refused", "from", at, "err", err, "others", more)
			}
			continue
		}
		if f.AckIncarnation == n.incar { // an echo of ours: no recording
			u.open.Confirm(f.From, f.Incarnation)
		}
		from, ok := names[at]
		if !ok {
			if len(names) >= maxNames {
				clear(names)
			}
			from = at.String()
			names[at] = from
		}
		n.input(member.FrameIn{From: from, Frame: f})
	}
}
