package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// protoRaft is the ALPN protocol of the stream of driver messages: each 4 bytes
// of length, 8 of the recipient's server id, 8 of the sender's (big endian),
// then the message. Nothing comes back on it; each side dials its own.
const protoRaft = "clusterplan-raft/1"

const (
	peerQueue   = 1024     // messages for one peer; what is more is lost, as the driver may expect
	maxMessage  = 64 << 20 // a snapshot
	peerIdle    = 2 * time.Minute
	peerWrite   = 5 * time.Second
	peerDial    = 2 * time.Second
	peerSilence = 3 * time.Second
	// The same where a node is to be reached over several links.
	peerDialLink    = 700 * time.Millisecond
	peerSilenceLink = time.Second
	redialFirst     = 50 * time.Millisecond
	redialMost      = time.Second
	messageStart    = 4 + 8 + 8
)

// peers are the outgoing streams, one for each endpoint that there are messages for.
type peers struct {
	n   *Node
	tls *tls.Config
	ctx context.Context
	wg  sync.WaitGroup

	mu   sync.Mutex // the loop sends; streams that end take themselves out
	open map[string]chan confdb.Message
	also map[string][]string // other addresses of the node at an endpoint, on other links
}

func newPeers(n *Node) *peers { return &peers{n: n, open: make(map[string]chan confdb.Message)} }

// run lives as long as its streams may.
func (p *peers) run(ctx context.Context) error {
	conf, err := pki.NodesClientConfig(p.n.files.ca, p.n.facts.ClusterID, p.n.files.cert, protoRaft)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ctx, p.tls = ctx, p.n.cert.present(conf)
	p.mu.Unlock()
	<-ctx.Done()
	p.wg.Wait()
	return nil
}

// send queues a message for the node at endpoint; it never blocks.
func (p *peers) send(endpoint string, m confdb.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil || p.ctx.Err() != nil {
		return
	}
	queue, ok := p.open[endpoint]
	if !ok {
		queue = make(chan confdb.Message, peerQueue)
		p.open[endpoint] = queue
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.stream(endpoint, queue)
		}()
	}
	select {
	case queue <- m:
	default: // the peer is gone or slow; the driver sends again what matters
	}
}

// stream carries one endpoint's messages until there are none for a while.
func (p *peers) stream(endpoint string, queue chan confdb.Message) {
	var conn net.Conn
	drop := func() {
		if conn != nil {
			conn.Close()
			conn = nil
		}
	}
	defer drop()
	var broken chan struct{} // closed when the peer hung up
	pause, next := redialFirst, time.Time{}
	idle := time.NewTimer(peerIdle)
	defer idle.Stop()
	buf := make([]byte, 0, 4096)
	for {
		var m confdb.Message
		select {
		case m = <-queue:
			idle.Reset(peerIdle)
		case <-broken:
			drop()
			broken = nil
			continue
		case <-idle.C:
			p.mu.Lock()
			if len(queue) == 0 {
				delete(p.open, endpoint)
				p.mu.Unlock()
				return
			}
			p.mu.Unlock()
			continue
		case <-p.ctx.Done():
			return
		}
		if conn == nil {
			if time.Now().Before(next) {
				continue // lost: the peer was not there a moment ago
			}
			c, err := p.dial(endpoint)
			if err != nil {
				next = time.Now().Add(pause)
				pause = min(2*pause, redialMost)
				p.n.log.Debug("no stream to a peer", "endpoint", endpoint, "err", err)
				continue
			}
			conn, pause, broken = c, redialFirst, make(chan struct{})
			go func(c net.Conn, gone chan struct{}) { // nothing comes back but the end
				_, _ = io.Copy(io.Discard, c)
				close(gone)
			}(conn, broken)
		}
		buf = buf[:0]
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(m.Data)))
		buf = binary.BigEndian.AppendUint64(buf, m.To)
		buf = binary.BigEndian.AppendUint64(buf, m.From)
		buf = append(buf, m.Data...)
		_ = conn.SetWriteDeadline(time.Now().Add(peerWrite))
		if _, err := conn.Write(buf); err != nil {
			drop()
			broken = nil
		}
		if cap(buf) > 1<<20 {
			buf = make([]byte, 0, 4096) // a snapshot went by; its memory need not stay
		}
	}
}

// reach says where else the nodes at endpoints are, on other links.
func (p *peers) reach(also map[string][]string) {
	p.mu.Lock()
	p.also = also
	p.mu.Unlock()
}

// dial connects to the first of a node's addresses that answers.
func (p *peers) dial(endpoint string) (net.Conn, error) {
	p.mu.Lock()
	list := append([]string{endpoint}, p.also[endpoint]...)
	p.mu.Unlock()
	within, silence := peerDial, peerSilence
	if len(list) > 1 {
		within, silence = peerDialLink, peerSilenceLink // there is another way
	}
	var errs []error
	for _, at := range list {
		ctx, cancel := context.WithTimeout(p.ctx, within)
		d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second, Control: giveUp(silence)}, Config: p.tls}
		conn, err := d.DialContext(ctx, "tcp", at)
		if err == nil {
			var peer pki.Peer
			if peer, err = pki.PeerOfConn(conn.(*tls.Conn).ConnectionState()); err == nil {
				err = p.n.expired(ctx, peer)
			}
			if err != nil {
				conn.Close()
			}
		}
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, pki.Explain(err))
	}
	return nil, errors.Join(errs...)
}

// giveUp has the kernel end a connection whose data stays unanswered: its own
// retransmission would back off for many seconds after a partition has healed.
func giveUp(after time.Duration) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after/time.Millisecond))
		})
		return errors.Join(cerr, err)
	}
}

// receive reads a peer's stream to its end.
func (n *Node) receive(ctx context.Context, conn *tls.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	peer, err := pki.PeerOfConn(conn.ConnectionState())
	if err != nil {
		return err
	}
	if peer.Role != pki.RoleNode {
		return fmt.Errorf("%s has the role %s; only nodes may send database messages", peer.Name, peer.Role)
	}
	if err := n.expired(ctx, peer); err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 4096)
	for {
		m, err := readMessage(in)
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("stream from %s: %w", peer.Name, err)
		}
		if m.To != n.facts.ServerID {
			continue // meant for the server that this address had before
		}
		if !n.input(member.MessageIn{Message: m}) {
			return nil
		}
	}
}

// expired refuses an expired certificate of one that is no member: for members it
// is good (certwatch.go), at either end of a stream. Who is new has a new one.
func (n *Node) expired(ctx context.Context, peer pki.Peer) error {
	if !time.Now().After(peer.NotAfter) {
		return nil
	}
	stranger := false
	if err := n.Read(ctx, func(s *confdb.State, _ member.Status) { stranger = s.Cluster.ID != "" && s.Nodes[peer.ID] == nil }); err != nil {
		return err
	}
	if stranger {
		return fmt.Errorf("the certificate of %s has expired at %s, and it is no member (any more)", peer.Name, peer.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// readMessage reads one message of a stream. io.EOF means that the stream ended
// between two.
func readMessage(in io.Reader) (m confdb.Message, err error) {
	var head [messageStart]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return m, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxMessage {
		return m, fmt.Errorf("a message of %d bytes; the most is %d", size, maxMessage)
	}
	m.To, m.From = binary.BigEndian.Uint64(head[4:]), binary.BigEndian.Uint64(head[12:])
	if m.Data, err = readSized(in, int(size)); err != nil {
		return m, fmt.Errorf("cut off: %w", err)
	}
	return m, nil
}

// readSized reads size bytes; memory grows with what has come, not with what was
// announced.
func readSized(in io.Reader, size int) ([]byte, error) {
	const step = 1 << 20
	data := make([]byte, min(size, step))
	for have := 0; ; {
		if _, err := io.ReadFull(in, data[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if have = len(data); have == size {
			return data, nil
		}
		data = append(data, make([]byte, min(size-have, max(have, step)))...)
	}
}
