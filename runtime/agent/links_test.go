package agent

import (
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// The loop closes a link's socket while who reads it waits for the loop to take a
// frame, as after a moment in which many have come: neither waits for the other.
func TestLinkClosesWhileItsReaderWaits(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	reads := make(chan struct{}, 1)
	n := &Node{log: slog.New(slog.DiscardHandler), incar: 7, jobs: make(chan job), ended: make(chan struct{})}
	n.frames.New = func() any {
		reads <- struct{}{}
		return new(member.FrameIn)
	}
	s, err := listenUDP("back", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.udp = &udp{n: n, peers: map[string]*peer{}, links: map[string]*socket{"back": s}}
	n.links.init()
	n.links.tcp["back"], n.links.opened["back"] = tcp, spec.Instant(1)
	if n.udp.open, err = heartbeat.NewOpener("c", key, 1); err != nil {
		t.Fatal(err)
	}
	seal, err := heartbeat.NewSealer("c", key, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	packet, err := seal.Seal(nil, &heartbeat.Frame{From: 2, To: 1, Incarnation: 5, Seq: 1, NodeID: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	from, err := net.Dial("udp", s.local.String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	var reader sync.WaitGroup
	reader.Go(func() { _ = n.udp.read(t.Context(), s) })
	if _, err := from.Write(packet); err != nil {
		t.Fatal(err)
	}
	<-reads // it has the frame, which nobody takes
	closed := make(chan struct{})
	go func() {
		n.closeLink("back")
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the loop waits for the reader, who waits for the loop")
	}
	j := <-n.jobs // the loop goes on
	if f, ok := j.in.(*member.FrameIn); !ok || f.Frame.From != 2 {
		t.Errorf("the reader had %+v", j.in)
	}
	reader.Wait()
	<-closed
}
