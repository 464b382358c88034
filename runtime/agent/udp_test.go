package agent

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// While the member is calm, frames wait in all sockets until the loop collects
// them, with the moments when they came; after that they come to the loop by
// themselves, also the ones that waited.
func TestFramesWait(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	n := &Node{log: slog.New(slog.DiscardHandler), incar: 7, jobs: make(chan job), ended: make(chan struct{})}
	n.frames.New = func() any { return new(member.FrameIn) }
	sockets := []*socket{}
	for _, link := range []string{"", "back"} {
		s, err := listenUDP(link, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	n.udp = &udp{n: n, peers: map[string]*peer{}, main: sockets[0], links: map[string]*socket{"back": sockets[1]}}
	t.Cleanup(n.udp.close)
	var err error
	if n.udp.open, err = heartbeat.NewOpener("c", key, 1); err != nil {
		t.Fatal(err)
	}
	seal, err := heartbeat.NewSealer("c", key, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	from, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	seq := uint64(0)
	say := func(s *socket) {
		t.Helper()
		seq++
		packet, err := seal.Seal(nil, &heartbeat.Frame{From: 2, To: 1, Incarnation: 5, Seq: seq, NodeID: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := from.WriteToUDPAddrPort(packet, s.local); err != nil {
			t.Fatal(err)
		}
	}
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
		say(s)
		comes(seq)
	}
	told := false // the kernel told when one came, and this process was not held up just then
	for round := 0; round < 3 || round < 1000 && !told; round++ {
		n.udp.hold(true)
		before := boottime.Now()
		say(sockets[0])
		say(sockets[1])
		begun := boottime.Now().Add(time.Millisecond)
		for boottime.Now() < begun {
		}
		got := map[uint64]spec.Instant{}
		for end := time.Now().Add(30 * time.Second); len(got) < 2 && time.Now().Before(end); {
			now, in := n.udp.collect()
			for _, f := range in.Frames {
				if got[f.Frame.Seq] = f.At; f.At > now || f.From != from.LocalAddr().String() {
					t.Errorf("frame %d of %s came at %d, read by %d", f.Frame.Seq, f.From, f.At, now)
				}
			}
		}
		for _, want := range []uint64{seq - 1, seq} {
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
		say(sockets[1])
		n.udp.hold(false)
		comes(seq)
		say(sockets[0])
		comes(seq)
	}
	if !told {
		t.Error("frames never came before they were read")
	}
}
