package member

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

var firstKey = bytes.Repeat([]byte{1}, 32)

// sealed has a world's frames go through real seals, as the agents' do: each
// host has a sealer, an opener and the ring that it was told last.
type sealed struct {
	w       *world
	seals   map[uint64]*heartbeat.Sealer // by incarnation
	opens   map[string]*heartbeat.Opener
	rings   map[string]*confdb.Keyring
	refused map[error]int
	tape    [][]byte // packets under the first key
	fetch   bool     // who is sent an unknown key gets the ring, as over TLS
}

func sealFrames(w *world) *sealed {
	s := &sealed{w: w, seals: map[uint64]*heartbeat.Sealer{}, opens: map[string]*heartbeat.Opener{}, rings: map[string]*confdb.Keyring{}, refused: map[error]int{}}
	w.onKeys = s.take
	w.onFrame = s.carry
	return s
}

func (s *sealed) take(h *host, ring *confdb.Keyring) {
	if old := s.rings[h.name]; old != nil && old.Since >= ring.Since {
		return
	}
	s.rings[h.name] = ring
}

func (s *sealed) keys(h *host) (list []heartbeat.Key, send uint32) {
	ring := s.rings[h.name]
	if ring == nil || ring.Oldest == 0 {
		list = append(list, heartbeat.Key{Bytes: firstKey})
	}
	if ring != nil {
		send = ring.Send
		if o := s.opens[h.name]; o != nil {
			send = max(send, o.Newest()) // who seals with it knows that all have it
		}
		for _, k := range ring.Keys {
			list = append(list, heartbeat.Key{Generation: k.Generation, Bytes: k.Key})
		}
	}
	return list, send
}

func (s *sealed) carry(from, to *host, f *heartbeat.Frame) bool {
	seal := s.seals[f.Incarnation]
	if seal == nil {
		var err error
		if seal, err = heartbeat.NewSealer("c", firstKey, from.server, f.Incarnation); err != nil {
			s.w.t.Fatal(err)
		}
		s.seals[f.Incarnation] = seal
	}
	list, send := s.keys(from)
	for _, k := range list {
		if k.Generation == send {
			if err := seal.Use(k); err != nil {
				s.w.t.Fatal(err)
			}
		}
	}
	packet, err := seal.Seal(nil, f)
	if err != nil {
		s.w.t.Fatal(err)
	}
	if send == 0 && len(s.tape) < 50 {
		s.tape = append(s.tape, packet)
	}
	open := s.opens[to.name]
	if open == nil {
		if open, err = heartbeat.NewOpener("c", firstKey, to.server); err != nil {
			s.w.t.Fatal(err)
		}
		s.opens[to.name] = open
	}
	list, _ = s.keys(to)
	if err := open.SetKeys(list); err != nil {
		s.w.t.Fatal(err)
	}
	got, err := open.Open(packet)
	if err != nil {
		s.refused[err]++
		if g, _ := open.Generation(packet); errors.Is(err, heartbeat.ErrKey) && s.fetch && g > s.rings[to.name].Newest() {
			s.w.after(10*time.Millisecond, func() { s.take(to, from.m.State().Keys) })
		}
		return false
	}
	*f = got
	return true
}

func (w *world) rotate() {
	w.t.Helper()
	w.must(w.leader(), confdb.Command{RotateKey: &confdb.RotateKey{Key: bytes.Repeat([]byte{byte(w.now)}, 32)}})
}

func (w *world) turned(generation uint32) func() bool {
	return func() bool {
		k := w.state().Keys
		return k.Newest() == generation && !k.Turning()
	}
}

// Rotations under traffic: no frame is refused, no lease lapses, no group
// stops, also when the leader dies in between; recordings under the old key are
// refused afterwards.
func TestKeyRotation(t *testing.T) {
	w := newWorld(t, 3)
	s := sealFrames(w)
	for _, h := range w.hosts {
		w.put(groupSpec("on-"+h.name, h.name))
	}
	w.run(time.Second)
	w.rotate()
	if r := w.submit(w.leader(), confdb.Command{RotateKey: &confdb.RotateKey{Key: firstKey}}); r.Code != confdb.CodeConflict {
		t.Errorf("a second rotation meanwhile: %+v", r)
	}
	w.until("the first rotation is done", 2*time.Second, w.turned(1))
	w.run(time.Second)
	for h, k := range s.rings {
		if k.Oldest != 1 || k.Send != 1 || len(k.Keys) != 1 {
			t.Errorf("%s has %+v", h, k)
		}
	}
	if len(s.refused) > 0 || len(w.lapses()) > 0 {
		t.Errorf("refused %v, %q", s.refused, w.lapses())
	}
	for _, packet := range s.tape {
		if _, err := s.opens["n2"].Open(packet); !errors.Is(err, heartbeat.ErrKey) {
			t.Fatalf("a recording under the first key: %v", err)
		}
	}
	// The leader dies right after it handed the key out: the next one goes on.
	for i := range 3 {
		w.rotate()
		w.run(time.Duration(i) * 4 * time.Millisecond)
		lost := w.leader()
		lost.kill()
		w.until("the next leader has finished", 5*time.Second, w.turned(uint32(2+i)))
		s.fetch = true
		lost.start()
		w.until("all are up", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	}
}

// A node that was away for rotations gets the keys over TLS, and is back; one
// that can't get them stays out, with whatever it was left.
func TestAwayForARotation(t *testing.T) {
	w := newWorld(t, 3)
	s := sealFrames(w)
	w.run(time.Second)
	away := w.hosts[0]
	if away == w.leader() {
		away = w.hosts[1]
	}
	w.isolate(away, true)
	w.until("it is down", 2*time.Second, func() bool { return len(w.state().View.Up) == 2 })
	for g := range 2 {
		w.rotate()
		w.until("the rotation is done without it", 3*time.Second, w.turned(uint32(g+1)))
	}
	w.isolate(away, false)
	w.run(3 * time.Second)
	if len(w.state().View.Up) != 2 || s.refused[heartbeat.ErrKey] == 0 {
		t.Errorf("up with an old key: %v, refused %v", w.state().View.Up, s.refused)
	}
	s.fetch = true
	w.until("it is back", 5*time.Second, func() bool { return len(w.state().View.Up) == 3 })
	if k := s.rings[away.name]; k.Newest() != 2 || k.Oldest != 2 {
		t.Errorf("it has %+v", k)
	}
}

// Three leaves without a word in an hour keep a node out, never more than a
// quarter of the nodes; resume ends it, and so do two hours.
func TestQuarantine(t *testing.T) {
	w := newWorld(t, 5)
	flap := func(h *host, times int) {
		for range times {
			w.isolate(h, true)
			w.until("it is down", 2*time.Second, func() bool { return len(w.state().View.Up) < 5 })
			w.isolate(h, false)
			w.until("it is up", 5*time.Second, func() bool { return len(w.state().View.Up) == 5 })
		}
	}
	node := func(h *host) *confdb.Node { return w.state().Nodes[h.id] }
	bad, worse := w.hosts[3], w.hosts[4]
	for _, h := range []*host{bad, worse} {
		if h == w.leader() {
			t.Skip("the leader is one of the last nodes") // newWorld's first node leads
		}
	}
	flap(bad, 2)
	for _, h := range w.hosts { // an hour later these two are forgotten
		h.input(Clock{Wall: node(bad).Leaves[1].Add(time.Hour)})
	}
	flap(bad, 2)
	if node(bad).Quarantine != nil {
		t.Error("quarantined after two leaves within an hour")
	}
	flap(bad, 1)
	if node(bad).Quarantine == nil {
		t.Fatalf("not quarantined after three leaves\n%s", w.describe())
	}
	flap(worse, 3)
	if node(worse).Quarantine != nil {
		t.Error("two of five nodes are quarantined")
	}
	g := groupSpec("web", bad.name)
	if got := w.put(g); got == bad {
		t.Error("a group came to a quarantined node")
	}
	w.must(w.leader(), confdb.Command{ResumeNode: &confdb.NodeRef{Node: bad.id}})
	if n := node(bad); n.Quarantine != nil || len(n.Leaves) != 0 {
		t.Errorf("resumed, it has %+v, %v", n.Quarantine, n.Leaves)
	}
	flap(bad, 3)
	if node(bad).Quarantine == nil {
		t.Fatal("not quarantined again")
	}
	clock := func(after time.Duration) { // the time of day goes on; nobody waits for it
		at := node(bad).Quarantine.Since.Add(after)
		for _, h := range w.hosts {
			h.input(Clock{Wall: at})
		}
		w.run(time.Second)
	}
	clock(119 * time.Minute)
	if node(bad).Quarantine == nil {
		t.Error("out after less than two hours")
	}
	clock(120*time.Minute - 500*time.Millisecond)
	if node(bad).Quarantine != nil {
		t.Errorf("still quarantined after two hours\n%s", w.describe())
	}
	// Who takes its leave is not counted, whether it follows or leads; also right
	// after it came, when it has not heard yet that it counts as up.
	before := len(node(worse).Leaves)
	leave := func(h *host) {
		h.input(Shutdown{})
		w.until("it has stopped", 5*time.Second, func() bool { return h.stopped })
		h.kill()
		w.until("it is down", 2*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 4 })
		h.start()
		w.until("it is up again", 5*time.Second, func() bool { return len(w.state().View.Up) == 5 })
	}
	for range 3 {
		leave(worse)
	}
	if n := node(worse); n.Quarantine != nil || len(n.Leaves) != before {
		t.Errorf("after leaves with a word: %+v %v", n.Quarantine, n.Leaves)
	}
	for range 3 {
		h := w.leader()
		before := len(node(h).Leaves)
		leave(h)
		if n := node(h); len(n.Leaves) != before {
			t.Errorf("%s led and took its leave: %v", h.name, n.Leaves)
		}
	}
}

// A leader that takes its leave while it has another node's loss committed has its
// own leave committed as well before it ends, so that the next leader doesn't count it.
func TestLeaderLeavesMeanwhile(t *testing.T) {
	for off := 230 * time.Millisecond; off < 280*time.Millisecond; off += 2 * time.Millisecond {
		w := newWorld(t, 5)
		w.run(time.Second)
		leader := w.leader()
		w.hosts[4].kill()
		w.run(off)
		leader.input(Shutdown{})
		w.until("it has stopped", 5*time.Second, func() bool { return leader.stopped })
		leader.kill()
		w.until("both are down", 5*time.Second, func() bool { return w.leader() != nil && len(w.state().View.Up) == 3 })
		if n := w.state().Nodes[leader.id]; len(n.Leaves) != 0 {
			t.Errorf("%v after another was lost, the leader took its leave: %v\n%s", off, n.Leaves, w.describe())
		}
	}
}

// A node that is heard but hears nothing, and one that hears but isn't heard,
// are out of the view, everywhere alike.
func TestOneWayLinksAreDown(t *testing.T) {
	for _, profile := range []string{spec.ProfileFast, spec.ProfileMSCS} {
		for _, deaf := range []bool{true, false} {
			w := newWorld(t, 3)
			w.profile(spec.Timings{Profile: profile})
			w.run(10 * time.Second)
			leader := w.leader()
			victim := w.hosts[1]
			if victim == leader {
				victim = w.hosts[2]
			}
			for _, h := range w.hosts {
				if h == victim {
					continue
				}
				if deaf {
					w.cut[[2]int{h.i, victim.i}] = true
				} else {
					w.cut[[2]int{victim.i, h.i}] = true
				}
			}
			w.until("it is out of the view", 8*time.Second, func() bool { return len(w.state().View.Up) == 2 })
			w.run(time.Second)
			epoch := w.state().View.Epoch
			for _, h := range w.hosts {
				if v := h.m.State().View; h != victim && (v.Epoch != epoch || len(v.Up) != 2) {
					t.Errorf("%s, deaf %v: %s sees %+v", profile, deaf, h.name, v)
				}
			}
		}
	}
}
