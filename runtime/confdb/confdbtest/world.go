// Package confdbtest tests databases: a world of servers in one process, in
// virtual time and from one seed (World), and suites that every driver and
// every store has to pass (Drivers, Stores).
//
// The world keeps the promises of confdb.Driver's owner (what waits for the
// disk waits, heartbeats don't), and breaks all else: messages are lost, cut
// off one way or both, late; servers are paused, and crash in the middle of a
// write, which then is on disk or isn't. At every step it checks that a term
// has one leader, that all servers apply the same entries in the same order,
// and that their states are equal.
package confdbtest

import (
	"container/heap"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Make opens a driver on what a store holds.
type Make func(server, seed uint64, stored confdb.Stored, now spec.Instant) (confdb.Driver, *confdb.State, uint64, error)

// Config is a world's shape; zero fields are defaults.
type Config struct {
	Make         Make
	Seed         uint64
	Servers      int           // default 3; their ids are 1, 2, 3, ...
	Interval     time.Duration // between Beats; default 50ms
	Disk         time.Duration // of a write, at most; default 5ms
	Delay        time.Duration // of a message, at most; default 2ms
	CompactEvery uint64        // entries; default 50
}

// World is a cluster of servers with nothing but their drivers and states.
type World struct {
	T       testing.TB
	Cfg     Config
	Rng     *rand.Rand
	Now     spec.Instant
	Servers []*Server                 // Servers[0] is server 1
	Device  *Device                   // the quorum device, where drivers want one
	Loss    float64                   // share of messages lost
	Drop    func(confdb.Message) bool // if set: these are lost
	cut     map[[2]uint64]bool

	queue   events
	counter uint64
	arrive  map[[2]uint64]spec.Instant // of the newest stream message: they stay in order
	leaders map[uint64]uint64          // term -> server
	log     map[uint64]string          // index -> term and command
	states  map[uint64][32]byte        // index -> digest of the state
	trace   [32]byte                   // of all that was applied, where and when: equal for equal seeds
}

// Server is one of them.
type Server struct {
	W       *World
	ID      uint64
	Stored  confdb.Stored
	Driver  confdb.Driver // nil: down
	State   *confdb.State
	Applied uint64
	Results map[string]confdb.Result // of commands applied in this life
	Paused  bool
	Broken  bool          // the disk takes writes and never answers
	Stood   time.Duration // how long its clock stood still, as a suspended guest's does

	// OnApply, if set, sees each command right after it is applied.
	OnApply func(confdb.Command, confdb.Result)

	life      uint64
	busy      bool
	wake      spec.Instant
	diskFree  spec.Instant
	held      []func() // what comes in while it is paused
	compacted uint64
	writing   []confdb.Persist // handed to the disk, not done
	file      map[int64][]byte // the quorum device as it has it open; nil: it doesn't
	opened    int              // which of Device.files
}

type event struct {
	at   spec.Instant
	seq  uint64
	call func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// NewWorld makes the servers; all are up and outside of any cluster.
func NewWorld(t testing.TB, cfg Config) *World {
	t.Helper()
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.Interval, 50*time.Millisecond)
	def(&cfg.Disk, 5*time.Millisecond)
	def(&cfg.Delay, 2*time.Millisecond)
	if cfg.Servers == 0 {
		cfg.Servers = 3
	}
	if cfg.CompactEvery == 0 {
		cfg.CompactEvery = 50
	}
	w := &World{
		T: t, Cfg: cfg, Rng: rand.New(rand.NewPCG(cfg.Seed, 1)), Now: spec.Instant(time.Hour),
		cut: map[[2]uint64]bool{}, arrive: map[[2]uint64]spec.Instant{},
		Device:  &Device{Blocks: map[int64][]byte{}},
		leaders: map[uint64]uint64{}, log: map[uint64]string{}, states: map[uint64][32]byte{},
	}
	for i := range cfg.Servers {
		s := &Server{W: w, ID: uint64(i + 1)}
		w.Servers = append(w.Servers, s)
		s.Start()
	}
	return w
}

// After calls f in d from now.
func (w *World) After(d time.Duration, f func()) {
	w.counter++
	heap.Push(&w.queue, event{w.Now.Add(d), w.counter, f})
}

// Run lets d pass.
func (w *World) Run(d time.Duration) { w.Until(d, func() bool { return false }) }

// Until lets time pass until done says so, or limit is over; it tells which.
func (w *World) Until(limit time.Duration, done func() bool) bool {
	end := w.Now.Add(limit)
	for !done() {
		if len(w.queue) == 0 || w.queue[0].at > end {
			w.Now = end
			return done()
		}
		e := heap.Pop(&w.queue).(event)
		w.Now = max(w.Now, e.at)
		e.call()
	}
	return true
}

// Must is Until that fails the test.
func (w *World) Must(what string, limit time.Duration, done func() bool) {
	w.T.Helper()
	if !w.Until(limit, done) {
		w.T.Fatalf("seed %d: after %v still not: %s\n%s", w.Cfg.Seed, limit, what, w.describe())
	}
}

func (w *World) describe() string {
	text := ""
	for _, s := range w.Servers {
		if s.Driver == nil {
			text += fmt.Sprintf("server %d is down\n", s.ID)
			continue
		}
		text += fmt.Sprintf("server %d paused=%v broken=%v busy=%v applied=%d %+v\n", s.ID, s.Paused, s.Broken, s.busy, s.Applied, s.Driver.Status())
	}
	return text
}

// Trace is a digest of what was applied, where and when.
func (w *World) Trace() [32]byte { return w.trace }

// Cut severs the way from one server to another, or mends it.
func (w *World) Cut(from, to uint64, on bool) { w.cut[[2]uint64{from, to}] = on }

// Isolate cuts a server off, both ways, or brings it back.
func (w *World) Isolate(id uint64, on bool) {
	for _, s := range w.Servers {
		w.Cut(id, s.ID, on)
		w.Cut(s.ID, id, on)
	}
}

// Leader is the ready leader of the newest term, nil if there is none.
func (w *World) Leader() *Server {
	var leader *Server
	var term uint64
	for _, s := range w.Servers {
		if s.Driver == nil {
			continue
		}
		if st := s.Driver.Status(); st.Role == confdb.Leader && st.Ready && st.Term > term {
			leader, term = s, st.Term
		}
	}
	return leader
}

// Form bootstraps server 1 and makes the others voters.
func (w *World) Form() {
	w.T.Helper()
	first := w.Servers[0]
	first.Do(func(d confdb.Driver) {
		if err := d.Bootstrap(); err != nil {
			w.T.Fatalf("bootstrap: %v", err)
		}
	})
	w.Must("the first server leads", 5*time.Second, func() bool { return w.Leader() == first })
	for _, s := range w.Servers[1:] {
		w.Must(fmt.Sprintf("server %d votes", s.ID), 20*time.Second, func() bool {
			l := w.Leader()
			if l == nil {
				return false
			}
			st := l.Driver.Status()
			for _, v := range st.Voters {
				if v == s.ID {
					return true
				}
			}
			l.Do(func(d confdb.Driver) {
				if d.CaughtUp()[s.ID] {
					_ = d.Promote(s.ID) // busy now and then
				} else {
					_ = d.AddLearner(s.ID)
				}
			})
			return false
		})
	}
	// The last change is known to all with the next heartbeat; until then the
	// new voter doesn't know that it is one.
	w.Must("all know the membership", 5*time.Second, func() bool {
		for _, s := range w.Servers {
			if len(s.Driver.Status().Voters) != len(w.Servers) {
				return false
			}
		}
		return true
	})
}

// Start brings a server up from its store.
func (s *Server) Start() {
	s.life++
	s.busy, s.Paused, s.Broken, s.held, s.wake, s.file = false, false, false, nil, 0, nil
	s.Results = map[string]confdb.Result{}
	stored := s.Stored
	var err error
	s.Driver, s.State, s.Applied, err = s.W.Cfg.Make(s.ID, s.W.Cfg.Seed, stored, s.now())
	if err != nil {
		s.W.T.Fatalf("seed %d: server %d doesn't start from its store: %v", s.W.Cfg.Seed, s.ID, err)
	}
	s.compacted = s.Applied
	s.beat(time.Duration(s.W.Rng.Int64N(int64(s.W.Cfg.Interval))))
	s.pump()
}

// Crash takes a server down; a write under way may be on disk or not.
func (s *Server) Crash() {
	if len(s.writing) > 0 && s.W.Rng.IntN(2) == 0 {
		s.Stored.Write(s.writing[0])
	}
	s.life++
	s.Driver, s.State, s.writing = nil, nil, nil
}

// now is the time by its own clock.
func (s *Server) now() spec.Instant { return s.W.Now.Add(-s.Stood) }

// Pause stops a server's process; what comes in waits in its sockets.
func (s *Server) Pause() { s.Paused = true }

// Resume lets it go on.
func (s *Server) Resume() {
	s.Paused = false
	held := s.held
	s.held = nil
	for _, f := range held {
		f()
	}
}

// Do is a call of the driver by its owner.
func (s *Server) Do(f func(confdb.Driver)) {
	if s.Driver == nil {
		return
	}
	f(s.Driver)
	s.pump()
}

// Propose proposes a command.
func (s *Server) Propose(c confdb.Command) error {
	data, err := confdb.EncodeCommand(c)
	if err != nil {
		s.W.T.Fatal(err)
	}
	if s.Driver == nil {
		return confdb.ErrNoLeader
	}
	err = s.Driver.Propose(data)
	s.pump()
	return err
}

// in runs f as something that happens to this life of the server.
func (s *Server) in(after time.Duration, f func()) {
	life := s.life
	var run func()
	run = func() {
		switch {
		case s.life != life || s.Driver == nil:
		case s.Paused:
			s.held = append(s.held, run)
		default:
			f()
		}
	}
	s.W.After(after, run)
}

func (s *Server) beat(after time.Duration) {
	s.in(after, func() {
		s.Driver.Beat(s.now())
		s.pump()
		s.beat(s.W.Cfg.Interval)
	})
}

// pump carries out what the driver wants, and sets its timer.
func (s *Server) pump() {
	s.send(s.Driver.Now())
	s.device()
	for !s.busy {
		r, ok := s.Driver.Ready()
		s.send(s.Driver.Now())
		if !ok {
			break
		}
		s.busy = true
		if r.Persist.Empty {
			s.finish(r)
			continue
		}
		s.write(r.Persist, func() {
			s.finish(r)
			s.pump()
		})
	}
	s.compact(false)
	s.send(s.Driver.Now())
	s.device()
	s.look()
	if at := s.Driver.Deadline(); at != 0 && at != s.wake {
		s.wake = at
		s.in(max(0, at.Sub(s.now())), func() {
			if s.wake == at {
				s.wake = 0
				s.Driver.Tick(s.now())
				s.pump()
			}
		})
	}
}

// write puts p on disk after the writes before it. A crash meanwhile leaves it
// there or not, by the seed.
func (s *Server) write(p confdb.Persist, then func()) {
	w := s.W
	w.checkPersist(s, p)
	s.writing = append(s.writing, p)
	if s.Broken {
		return
	}
	s.diskFree = max(s.diskFree, w.Now).Add(time.Duration(w.Rng.Int64N(int64(w.Cfg.Disk)) + 1))
	life := s.life
	w.After(s.diskFree.Sub(w.Now), func() {
		if s.life == life { // a paused process' disk goes on
			s.Stored.Write(p)
			s.writing = s.writing[1:]
		}
	})
	s.in(s.diskFree.Sub(w.Now), then)
}

func (s *Server) finish(r confdb.Ready) {
	s.send(r.Messages)
	if r.Snapshot != nil {
		state, err := confdb.Decode(r.Snapshot)
		if err != nil {
			s.W.T.Fatalf("seed %d: server %d: %v", s.W.Cfg.Seed, s.ID, err)
		}
		s.State, s.Applied, s.compacted = state, r.SnapshotIndex, r.SnapshotIndex
		s.W.checkState(s)
	}
	for _, e := range r.Committed {
		s.apply(e)
	}
	s.busy = false
	s.Driver.Advance(r)
	s.compact(s.Applied-s.compacted >= s.W.Cfg.CompactEvery)
}

// compact makes a snapshot if it is time, or if a member waits for one.
func (s *Server) compact(due bool) {
	if s.busy || s.Applied == 0 || !due && !s.Driver.Status().SnapshotWanted {
		return
	}
	data, err := confdb.Encode(s.State)
	if err != nil {
		s.W.T.Fatal(err)
	}
	p, err := s.Driver.Compact(s.Applied, data)
	if err != nil {
		s.W.T.Fatalf("seed %d: server %d: %v", s.W.Cfg.Seed, s.ID, err)
	}
	s.compacted = s.Applied
	if !p.Empty {
		s.write(p, func() {})
	}
}

func (s *Server) apply(e confdb.Entry) {
	w := s.W
	if e.Index != s.Applied+1 {
		w.T.Fatalf("seed %d: server %d applied %d after %d", w.Cfg.Seed, s.ID, e.Index, s.Applied)
	}
	s.Applied = e.Index
	text := fmt.Sprintf("%d %s", e.Term, e.Command)
	if was, ok := w.log[e.Index]; ok && was != text {
		w.T.Fatalf("seed %d: server %d applied another entry %d:\n%s\nelsewhere:\n%s", w.Cfg.Seed, s.ID, e.Index, text, was)
	}
	w.log[e.Index] = text
	w.trace = sha256.Sum256(fmt.Appendf(w.trace[:], "%d %d %d %s", s.ID, w.Now, e.Index, text))
	if e.Command == nil {
		return
	}
	c, err := confdb.DecodeCommand(e.Command)
	if err != nil {
		w.T.Fatalf("seed %d: server %d: %v", w.Cfg.Seed, s.ID, err)
	}
	r := s.State.Apply(c)
	if s.Applied%32 == 0 { // what differs once differs for good
		w.checkState(s)
	}
	s.Results[c.ID] = r
	if s.OnApply != nil {
		s.OnApply(c, r)
	}
}

func (w *World) checkState(s *Server) {
	data, err := confdb.Encode(s.State)
	if err != nil {
		w.T.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if was, ok := w.states[s.Applied]; ok && was != sum {
		w.T.Fatalf("seed %d: server %d's state at index %d differs from another's:\n%s", w.Cfg.Seed, s.ID, s.Applied, data)
	}
	w.states[s.Applied] = sum
}

func (w *World) checkPersist(s *Server, p confdb.Persist) {
	if p.Snapshot != nil && p.SnapshotIndex == 0 {
		w.T.Fatalf("seed %d: server %d persists a snapshot without an index", w.Cfg.Seed, s.ID)
	}
	for i, e := range p.Entries {
		if e.Index != p.Entries[0].Index+uint64(i) {
			w.T.Fatalf("seed %d: server %d persists entry %d where %d belongs", w.Cfg.Seed, s.ID, e.Index, p.Entries[0].Index+uint64(i))
		}
	}
}

// look checks that a term has one leader.
func (s *Server) look() {
	st := s.Driver.Status()
	if st.Role != confdb.Leader {
		return
	}
	if other, ok := s.W.leaders[st.Term]; ok && other != s.ID {
		s.W.T.Fatalf("seed %d: term %d has two leaders, %d and %d", s.W.Cfg.Seed, st.Term, other, s.ID)
	}
	s.W.leaders[st.Term] = s.ID
}

// send hands messages to the network: frames in any order, the others in theirs.
func (s *Server) send(messages []confdb.Message) {
	w := s.W
	for _, m := range messages {
		if m.From != s.ID {
			w.T.Fatalf("seed %d: server %d sends in the name of %d", w.Cfg.Seed, s.ID, m.From)
		}
		pair := [2]uint64{m.From, m.To}
		delay := time.Duration(w.Rng.Int64N(int64(w.Cfg.Delay)) + 1)
		if w.Rng.Float64() < w.Loss || w.Drop != nil && w.Drop(m) {
			continue
		}
		at := w.Now.Add(delay)
		if !m.InFrame {
			at = max(at, w.arrive[pair]+1)
			w.arrive[pair] = at
		}
		w.After(at.Sub(w.Now), func() {
			if m.To < 1 || m.To > uint64(len(w.Servers)) || w.cut[pair] {
				return
			}
			to := w.Servers[m.To-1]
			to.in(0, func() {
				to.Driver.Step(to.now(), m)
				to.pump()
			})
		})
	}
}
