package faultlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Kinds of probes.
const (
	ICMP = "icmp"
	HTTP = "http"
)

// Every is how often the client probes.
const Every = 10 * time.Millisecond

// answerIn bounds an HTTP probe: as long as a client's first SYN lives.
const answerIn = time.Second

// Answer is one answer to a probe.
type Answer struct {
	Kind  string
	Sent  time.Time
	Came  time.Time
	By    string // node: of ICMP by the answer's MAC, of HTTP by what it says
	Epoch uint64 // of HTTP; 0: it tells none
}

// Prober probes the group's address from the client's namespace every 10 ms, by
// ICMP echo and by HTTP over a connection of its own each.
type Prober struct {
	to    netip.Addr
	macs  map[string]string
	jobs  chan func() // done on a thread in the client's namespace
	stop  context.CancelFunc
	group sync.WaitGroup

	mu      sync.Mutex
	answers []Answer
	news    chan struct{} // closed and made anew at each answer
	sent    [1 << 16]time.Time
	epoch   uint64    // highest seen
	since   time.Time // when it was seen first
	back    []string
	err     error
}

// NewProber begins to probe; Close ends it.
func NewProber(c *Cluster, to netip.Addr) (*Prober, error) {
	p := &Prober{to: to, macs: map[string]string{}, jobs: make(chan func()), news: make(chan struct{})}
	for name, s := range c.Record.Seats {
		p.macs[s.MAC] = name
	}
	entered := make(chan error, 1)
	p.group.Go(func() {
		err := netlab.Do(c.Namespace(netlab.Client), func() error {
			entered <- nil
			for f := range p.jobs {
				f()
			}
			return nil
		})
		if err != nil {
			entered <- err
		}
	})
	if err := <-entered; err != nil {
		return nil, err
	}
	ping, err := p.socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err != nil {
		close(p.jobs)
		return nil, fmt.Errorf("open a ping socket: %w", err)
	}
	ear, err := p.socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_IP)))
	if err != nil {
		ping.Close()
		close(p.jobs)
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = func() {
		cancel()
		ping.Close()
		ear.Close()
	}
	p.group.Go(func() { p.send(ctx, ping) })
	p.group.Go(func() { p.listen(ctx, ear) })
	p.group.Go(func() { p.drain(ping) })
	p.group.Go(func() { p.ask(ctx) })
	return p, nil
}

// Close ends the probing.
func (p *Prober) Close() {
	p.stop()
	p.group.Wait()
}

// socket opens a socket in the client's namespace.
func (p *Prober) socket(family, kind, proto int) (f *os.File, err error) {
	done := make(chan struct{})
	p.jobs <- func() {
		defer close(done)
		var fd int
		if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto); err == nil {
			f = os.NewFile(uintptr(fd), "socket")
		}
	}
	<-done
	return f, err
}

func htons(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

func ptr(b []byte, at int) unsafe.Pointer { return unsafe.Pointer(&b[at]) }

// send sends an echo request every 10 ms.
func (p *Prober) send(ctx context.Context, ping *os.File) {
	raw, err := ping.SyscallConn()
	if err != nil {
		p.fail(err)
		return
	}
	tick := time.NewTicker(Every)
	defer tick.Stop()
	packet := make([]byte, 16)
	packet[0] = 8 // echo request; identifier and checksum are the kernel's
	to := &unix.SockaddrInet4{Addr: p.to.As4()}
	for seq := uint16(0); ; seq++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		binary.BigEndian.PutUint16(packet[6:], seq)
		p.mu.Lock()
		p.sent[seq] = time.Now()
		p.mu.Unlock()
		_ = raw.Control(func(fd uintptr) { _ = unix.Sendto(int(fd), packet, unix.MSG_DONTWAIT, to) }) // unreachable: no answer
	}
}

// drain empties the ping socket: answers are read with their MAC elsewhere.
func (p *Prober) drain(ping *os.File) {
	buf := make([]byte, 64)
	for {
		if _, err := ping.Read(buf); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// listen takes the answers with the MAC that they came from.
func (p *Prober) listen(ctx context.Context, ear *os.File) {
	raw, err := ear.SyscallConn()
	if err != nil {
		p.fail(err)
		return
	}
	buf := make([]byte, 256)
	for ctx.Err() == nil {
		var n int
		var from unix.Sockaddr
		var rerr error
		if err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return rerr != unix.EAGAIN
		}); err != nil {
			return // closed
		}
		came := time.Now()
		link, ok := from.(*unix.SockaddrLinklayer)
		if rerr != nil || !ok || link.Pkttype != unix.PACKET_HOST || n < 28 || buf[9] != unix.IPPROTO_ICMP {
			continue
		}
		head := int(buf[0]&15) * 4
		if n < head+8 || netip.AddrFrom4([4]byte(buf[12:16])) != p.to || buf[head] != 0 {
			continue
		}
		seq := binary.BigEndian.Uint16(buf[head+6:])
		mac := net.HardwareAddr(link.Addr[:6]).String()
		by := p.macs[mac]
		if by == "" {
			by = mac
		}
		p.mu.Lock()
		sent := p.sent[seq]
		p.mu.Unlock()
		p.add(Answer{Kind: ICMP, Sent: sent, Came: came, By: by})
	}
}

// ask sends an HTTP request every 10 ms.
func (p *Prober) ask(ctx context.Context) {
	var all sync.WaitGroup
	defer close(p.jobs)
	defer all.Wait()
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f, err := p.socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			p.fail(fmt.Errorf("open a socket: %w", err))
			return
		}
		sent := time.Now()
		all.Go(func() {
			defer f.Close()
			if a, ok := p.fetch(ctx, f, sent); ok {
				p.add(a)
			}
		})
	}
}

// fetch is one HTTP request over a socket that is not connected yet. The
// namespace is the socket's, so that any thread may go on with it.
func (p *Prober) fetch(ctx context.Context, f *os.File, sent time.Time) (a Answer, ok bool) {
	stop := context.AfterFunc(ctx, func() { f.SetDeadline(time.Now()) })
	defer stop()
	if err := f.SetDeadline(sent.Add(answerIn)); err != nil {
		return a, false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return a, false
	}
	var cerr error
	begun := false
	err = raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			cerr = unix.Connect(int(fd), &unix.SockaddrInet4{Port: 80, Addr: p.to.As4()})
			return cerr != unix.EINPROGRESS
		}
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		cerr = err
		if err == nil && n != 0 {
			cerr = unix.Errno(n)
		}
		return true
	})
	if err != nil || cerr != nil {
		return a, false
	}
	if _, err := io.WriteString(f, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return a, false
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	came := time.Now()
	head, body, found := strings.Cut(string(text), "\r\n\r\n")
	if err != nil || !found || !strings.Contains(head, " 200 ") {
		return a, false
	}
	a = Answer{Kind: HTTP, Sent: sent, Came: came, By: strings.TrimSpace(body)}
	for _, line := range strings.Split(head, "\r\n") {
		if value, ok := strings.CutPrefix(line, "Clusterplan-Epoch: "); ok {
			a.Epoch, _ = strconv.ParseUint(value, 10, 64)
		}
	}
	return a, true
}

func (p *Prober) add(a Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.Epoch > p.epoch {
		p.epoch, p.since = a.Epoch, a.Came
	}
	if a.Kind == HTTP && a.Epoch < p.epoch && a.Sent.After(p.since) {
		p.back = append(p.back, fmt.Sprintf("%s: %s answers under epoch %d to a request that was sent %s after epoch %d had answered",
			a.Came.Format("15:04:05.000000"), a.By, a.Epoch, a.Sent.Sub(p.since), p.epoch))
	}
	p.answers = append(p.answers, a)
	close(p.news)
	p.news = make(chan struct{})
}

func (p *Prober) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// Reset forgets the answers.
func (p *Prober) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = nil
}

// Answers are those since Reset, in the order in which they came.
func (p *Prober) Answers() []Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Answer(nil), p.answers...)
}

// First waits for an answer that is wanted, among those since Reset too.
func (p *Prober) First(ctx context.Context, wanted func(Answer) bool) (Answer, error) {
	at := 0
	for {
		p.mu.Lock()
		at = min(at, len(p.answers))
		fresh, news, err := p.answers[at:], p.news, p.err
		p.mu.Unlock()
		if err != nil {
			return Answer{}, err
		}
		for _, a := range fresh {
			if wanted(a) {
				return a, nil
			}
		}
		at += len(fresh)
		select {
		case <-news:
		case <-ctx.Done():
			return Answer{}, fmt.Errorf("no answer of the kind that was waited for: %w", ctx.Err())
		}
	}
}

// Silence is the longest time between two answers of a kind from when on.
func (p *Prober) Silence(kind string, from time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var longest time.Duration
	var last time.Time
	for _, a := range p.answers {
		if a.Kind != kind {
			continue
		}
		if !last.IsZero() && a.Came.After(from) {
			longest = max(longest, a.Came.Sub(last))
		}
		last = a.Came
	}
	return longest
}

// Backward is what answers say of an epoch older than one that was answered
// with before the request was sent: an owner that others have followed.
func (p *Prober) Backward() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.back...)
}
