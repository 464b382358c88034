package agent

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// turnsNode is a node with a member over an empty database, a timer and frames; nothing
// runs yet.
func turnsNode(t *testing.T) *Node {
	t.Helper()
	key, now := make([]byte, 32), boottime.Now()
	drv, state, index, err := raftdb.New(raftdb.Config{ServerID: 1, Seed: 1, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{log: slog.New(slog.DiscardHandler), incar: 7, told: now, jobs: make(chan job, 256), ended: make(chan struct{}), halted: make(chan struct{}), writes: make(chan member.Persist, 256)}
	n.links.init()
	n.peers = newPeers(n)
	n.member = member.New(member.Config{
		ClusterID: "c", NodeID: "n1", NodeName: "n1", ServerID: 1, Incarnation: n.incar, Timings: spec.Timings{}.WithDefaults(), Wall: time.Now(),
		Driver: drv, State: state, StateIndex: index,
	}, now)
	if n.timer, err = boottime.NewTimer(); err != nil {
		t.Fatal(err)
	}
	n.udp = &udp{n: n, buf: make([]byte, 0, heartbeat.MaxPacket), peers: map[string]*peer{}, links: map[string]*socket{}, refuse: limiter{every: time.Second}}
	if n.udp.open, err = heartbeat.NewOpener("c", key, 1); err != nil {
		t.Fatal(err)
	}
	if n.udp.seal, err = heartbeat.NewSealer("c", key, 1, n.incar); err != nil {
		t.Fatal(err)
	}
	if n.udp.main, err = listenUDP("", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return n
}

// The first step, with what the store held, is over when ticks and frames are let in,
// which may have waited for long.
func TestTheFirstStepIsFirst(t *testing.T) {
	t.Parallel()
	n := turnsNode(t)
	before := boottime.Now().Add(-time.Hour)
	n.told = before // so that a step tells the time of day
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	spawned := 0
	n.spawn = func(fn func() error) {
		if spawned++; n.told == before {
			t.Error("ticks or frames were let in before the first step")
		}
		all.Go(func() { _ = fn() })
	}
	n.begin(ctx)
	if spawned != 2 {
		t.Errorf("%d of ticks and frames come in", spawned)
	}
	cancel()
	all.Wait()
}

// Frames that come to two sockets at once, and the timer, step the member one after the
// other, each with what it has read itself: the race detector would say.
func TestReadersTakeTurns(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	n := turnsNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all, senders sync.WaitGroup
	all.Go(func() { _ = n.timer.Follow(ctx, n.tick) })
	other, err := listenUDP("", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []*socket{n.udp.main, other} {
		server := uint64(2 + i)
		seal, err := heartbeat.NewSealer("c", key, server, 5)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() { _ = n.udp.read(ctx, s) })
		senders.Go(func() {
			to, err := net.Dial("udp", s.local.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer to.Close()
			for seq := range uint64(300) {
				// A heartbeat of a leader that this node is no member with.
				f := heartbeat.Frame{From: server, To: 1, Incarnation: 5, Seq: seq + 1, NodeID: "n", Term: 3, Leader: server, Asks: true, Driver: [][]byte{{0, 1, 3, 0}}}
				packet, err := seal.Seal(nil, &f)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = to.Write(packet)
				if seq%20 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	senders.Wait()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		n.turns.Lock()
		sent := n.member.Sent() // an answer to each
		n.turns.Unlock()
		if sent >= 300 { // some may be lost
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d answers", sent)
		}
	}
	cancel()
	all.Wait()
	if st := n.member.Status().Driver; st.Role != confdb.Outside {
		t.Errorf("%+v", st)
	}
}
