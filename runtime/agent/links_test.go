package agent

import (
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// A step closes a link's socket while who reads it has a frame and waits for its turn:
// neither waits for the other.
func TestLinkClosesWhileItsReaderWaits(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	n := &Node{log: slog.New(slog.DiscardHandler), incar: 7}
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
	n.links.many.Store(true) // who is heard is noted
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
	n.turns.Lock() // a step is under way
	var reader sync.WaitGroup
	reader.Go(func() { _ = n.udp.read(t.Context(), s) })
	if _, err := from.Write(packet); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		n.udp.mu.Lock()
		has := s.heard[2] != 0
		n.udp.mu.Unlock()
		if has {
			break // and waits, or will at once
		}
		if time.Now().After(end) {
			t.Fatal("the reader did not hear the frame")
		}
	}
	closed := make(chan struct{})
	go func() {
		n.closeLink("back")
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		t.Error("the step waits for the reader, who waits for its turn")
	}
	n.stopped = true // there is no member here
	n.turns.Unlock()
	<-closed
	reader.Wait() // its socket is closed
}
