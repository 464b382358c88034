package agent

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// frameRig is a node's two sockets, which nobody reads yet, and another node's.
type frameRig struct {
	n       *Node
	sockets []*socket // the main one, and a link's
	from    *net.UDPConn
	seal    *heartbeat.Sealer
	seq     uint64
}

func newFrameRig(t *testing.T) *frameRig {
	t.Helper()
	key := make([]byte, 32)
	n := &Node{log: slog.New(slog.DiscardHandler), incar: 7, jobs: make(chan job), ended: make(chan struct{})}
	n.frames.New = func() any { return new(member.FrameIn) }
	r := &frameRig{n: n}
	for _, link := range []string{"", "back"} {
		s, err := listenUDP(link, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r.sockets = append(r.sockets, s)
	}
	n.udp = &udp{n: n, peers: map[string]*peer{}, main: r.sockets[0], links: map[string]*socket{"back": r.sockets[1]}}
	t.Cleanup(n.udp.close)
	var err error
	if n.udp.open, err = heartbeat.NewOpener("c", key, 1); err != nil {
		t.Fatal(err)
	}
	r.seal, err = heartbeat.NewSealer("c", key, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	r.from, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.from.Close() })
	return r
}

// say sends the other node's next frame to a socket.
func (r *frameRig) say(t *testing.T, s *socket) {
	t.Helper()
	r.seq++
	packet, err := r.seal.Seal(nil, &heartbeat.Frame{From: 2, To: 1, Incarnation: 5, Seq: r.seq, NodeID: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.from.WriteToUDPAddrPort(packet, s.local); err != nil {
		t.Fatal(err)
	}
}

// While the member is calm, frames wait in all sockets until the loop collects
// them, with the moments when they came; after that they come to the loop by
// themselves.
func TestFramesWait(t *testing.T) {
	t.Parallel()
	r := newFrameRig(t)
	n, sockets := r.n, r.sockets
	comes := func(want uint64) {
		t.Helper()
		select {
		case j := <-n.jobs:
			if f, ok := j.in.(*member.FrameIn); !ok || f.Frame.Seq != want || f.At != 0 {
				t.Fatalf("the loop had %+v, want frame %d", j.in, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("frame %d never came to the loop", want)
		}
	}
	for _, s := range sockets {
		go func() { _ = n.udp.read(t.Context(), s) }()
		r.say(t, s)
		comes(r.seq)
	}
	hold := func(on bool, want ...uint64) (spec.Instant, *member.FramesIn) {
		t.Helper()
		now, in := n.udp.hold(on)
		if n.udp.held.on != on {
			t.Fatalf("frames wait: %v, want %v", n.udp.held.on, on)
		}
		for i, f := range in.Frames {
			if i >= len(want) || f.Frame.Seq != want[i] || f.At > now || f.From != r.from.LocalAddr().String() {
				t.Errorf("frame %d of %s came at %d, read by %d, want %d", f.Frame.Seq, f.From, f.At, now, want)
			}
		}
		if len(in.Frames) != len(want) {
			t.Errorf("%d frames waited, want %d", len(in.Frames), want)
		}
		return now, in
	}
	spin := func() spec.Instant {
		begun := boottime.Now().Add(time.Millisecond)
		for boottime.Now() < begun {
		}
		return begun
	}
	told, toldLast := false, false // the kernel told when one came, and this process was not held up just then
	for round := 0; round < 3 || round < 1000 && !(told && toldLast); round++ {
		hold(true)
		before := boottime.Now()
		r.say(t, sockets[0])
		r.say(t, sockets[1])
		begun := spin()
		got := map[uint64]spec.Instant{}
		for end := time.Now().Add(30 * time.Second); len(got) < 2 && time.Now().Before(end); {
			now, in := n.udp.collect()
			for _, f := range in.Frames {
				if got[f.Frame.Seq] = f.At; f.At > now || f.From != r.from.LocalAddr().String() {
					t.Errorf("frame %d of %s came at %d, read by %d", f.Frame.Seq, f.From, f.At, now)
				}
			}
		}
		for _, want := range []uint64{r.seq - 1, r.seq} {
			if got[want] < before {
				t.Errorf("frame %d came at %d, before it was sent, at %d", want, got[want], before)
			}
			told = told || got[want] < begun
		}
		select {
		case j := <-n.jobs:
			t.Fatalf("a frame came to the loop though it was to wait: %+v", j.in)
		default:
		}
		before = boottime.Now()
		r.say(t, sockets[1])
		begun = spin()
		_, in := hold(false, r.seq)
		if len(in.Frames) == 1 {
			if at := in.Frames[0].At; at < before {
				t.Errorf("frame %d came at %d, before it was sent, at %d", r.seq, at, before)
			} else {
				toldLast = toldLast || at < begun
			}
		}
		r.say(t, sockets[0])
		comes(r.seq)
	}
	if !told || !toldLast {
		t.Error("frames never came before they were read")
	}
}

// What came before frames are to wait doesn't: an answer that nobody had read just
// then would be a round late.
func TestFramesThatCameBefore(t *testing.T) {
	t.Parallel()
	r := newFrameRig(t) // nobody reads
	r.say(t, r.sockets[0])
	r.say(t, r.sockets[1])
	sent := boottime.Now()
	now, in := r.n.udp.hold(true)
	for _, f := range in.Frames {
		if f.At < sent || f.At > now {
			t.Errorf("frame %d is taken for of %d, sent before %d and read by %d", f.Frame.Seq, f.At, sent, now)
		}
	}
	if len(in.Frames) != 2 {
		t.Errorf("as frames are to wait from now on, %d are read, want the 2 that are there", len(in.Frames))
	}
}

// A sender of rubbish doesn't keep the loop, and frames wait no more for a while.
func TestFlood(t *testing.T) {
	t.Parallel()
	r := newFrameRig(t)
	u := r.n.udp
	flood := func(datagrams int) {
		t.Helper()
		u.hold(true)
		for range datagrams {
			if _, err := r.from.WriteToUDPAddrPort([]byte("x"), u.main.local); err != nil {
				t.Fatal(err)
			}
		}
		u.collect()
	}
	flood(mostHeld / 2)
	if u.flooded() {
		t.Errorf("%d datagrams of a round are no flood", mostHeld/2)
	}
	flood(mostHeld)
	if !u.flooded() {
		t.Errorf("%d datagrams of a round are a flood", mostHeld)
	}
	u.held.flood = boottime.Now()
	if u.flooded() {
		t.Error("a flood is over after a while")
	}
}

// A socket that can't wake the loop again, as where the kernel has no room for
// that, is read by the loop until it can.
func TestFramesThatDontWake(t *testing.T) {
	t.Parallel()
	r := newFrameRig(t)
	u := r.n.udp
	poll, sock := pollOf(t, u.main.local)
	u.hold(true)
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, sock, &unix.EpollEvent{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.say(t, r.sockets[0])
		r.say(t, r.sockets[1])
		if _, in := u.hold(false); len(in.Frames) == 0 || in.Frames[0].Frame.Seq != r.seq-1 {
			t.Errorf("%d frames were read", len(in.Frames))
		}
		if !u.held.on {
			t.Fatal("nobody reads the frames of a socket that wakes nobody")
		}
	}
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_DEL, sock, nil); err != nil {
		t.Fatal(err)
	}
	if u.hold(false); u.held.on {
		t.Fatal("the socket wakes the loop again, which goes on to read it late")
	}
}

// pollOf are the descriptors of the epoll that watches the socket at an address, and of that.
func pollOf(t *testing.T, at netip.AddrPort) (poll, sock int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fds {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name()) // it may be gone
		for line := range strings.Lines(string(info)) {
			var fd int
			if _, err := fmt.Sscanf(line, "tfd: %d", &fd); err != nil {
				continue
			}
			if a, err := unix.Getsockname(fd); err == nil {
				if in, ok := a.(*unix.SockaddrInet4); ok && netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)) == at {
					poll, err := strconv.Atoi(e.Name())
					if err != nil {
						t.Fatal(err)
					}
					return poll, fd
				}
			}
		}
	}
	t.Fatal("no epoll watches ", at)
	return 0, 0
}
