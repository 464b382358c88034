package diskdb

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// The claim protocol alone, against an adversary: operations that take from
// nothing to for ever and land at any moment in between, sector by sector;
// pauses between any two steps; restarts; clocks that run 1 % fast or slow.

type claimWorld struct {
	rng     *rand.Rand
	now     int64 // true time, ns
	queue   claimQueue
	serial  uint64
	device  []byte
	servers []*claimServer
	found   string
	retimes bool // D_io is changed now and then, not everywhere at once
	grants  int
	owners  int
}

// authority is one stretch of a server's authority, in true time.
type authority struct {
	server      int
	epoch       uint64
	from, until int64
}

type claimServer struct {
	w        *claimWorld
	i        int
	ppm      int64
	offset   int64
	a        *arbiter
	life     int
	paused   int64 // until then, true time
	ops      uint64
	granted  []authority
	last     spec.Instant
	wins     []win
	wonEpoch uint64
}

type win struct {
	epoch uint64
	old   int64 // true time
}

type claimEvent struct {
	at  int64
	seq uint64
	do  func()
}
type claimQueue []claimEvent

func (q claimQueue) Len() int { return len(q) }
func (q claimQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q claimQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *claimQueue) Push(x any)   { *q = append(*q, x.(claimEvent)) }
func (q *claimQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (w *claimWorld) at(t int64, do func()) {
	w.serial++
	heap.Push(&w.queue, claimEvent{max(t, w.now), w.serial, do})
}

func (s *claimServer) clock(t int64) spec.Instant {
	return spec.Instant(s.offset + t + t/1_000_000*s.ppm)
}

// when is the true time at which the clock reads t, to a microsecond.
func (s *claimServer) when(t spec.Instant) int64 {
	return int64(float64(int64(t)-s.offset) / (1 + float64(s.ppm)/1e6))
}

// in calls f in this life of the server, not while it is paused.
func (s *claimServer) in(t int64, f func()) {
	life := s.life
	var run func()
	run = func() {
		if s.life != life {
			return
		}
		if s.paused > s.w.now {
			s.w.at(s.paused+s.w.rng.Int64N(1000), run)
			return
		}
		// A pause may come before any step.
		switch s.w.rng.IntN(300) {
		case 0:
			s.paused = s.w.now + s.w.rng.Int64N(int64(4*time.Second))
			s.w.at(s.paused, run)
			return
		case 1:
			s.start()
			return
		}
		if s.w.retimes && s.w.rng.IntN(60) == 0 {
			s.a.told, s.a.want = true, []time.Duration{50, 200, 1000}[s.w.rng.IntN(3)]*time.Millisecond
		}
		f()
		s.settle()
	}
	s.w.at(t, run)
}

func (s *claimServer) settle() {
	now := s.clock(s.w.now)
	s.a.run(now)
	s.look()
	if d := s.a.deadline(); d != 0 {
		at := s.when(d) + 2000
		if spec.Instant(at) != s.last {
			s.last = spec.Instant(at)
			s.in(max(at, s.w.now+1000), func() {})
		}
	}
}

func (s *claimServer) newest() uint64 { return s.ops }

// took is how long an operation takes.
func (w *claimWorld) took() int64 {
	d := int64(spec.DefaultDeviceIO)
	switch n := w.rng.IntN(40); {
	case n == 0:
		return w.rng.Int64N(40 * d)
	case n < 4:
		return w.rng.Int64N(3 * d)
	default:
		return w.rng.Int64N(d/10) + 1000
	}
}

func (s *claimServer) readTable() uint64 {
	s.ops++
	w := s.w
	b := make([]byte, headLen)
	copy(b[:Block], w.device[:Block])
	begin := w.now
	if w.rng.IntN(20) == 0 { // paused between the decision and the call
		begin += w.rng.Int64N(int64(time.Second))
	}
	took := w.took()
	for at := tableAt; at < tableAt+len(w.servers)*2*Block; at += Block {
		w.at(begin+w.rng.Int64N(took), func() { copy(b[at:at+Block], w.device[at:at+Block]) })
	}
	failed := ""
	if w.rng.IntN(100) == 0 {
		failed = "input/output error"
	}
	op := s.ops
	s.in(begin+took, func() { s.a.looked(s.clock(w.now), op, b, failed) })
	return op
}

func (s *claimServer) writeRecord(r record) uint64 {
	s.ops++
	w := s.w
	begin := w.now
	if w.rng.IntN(20) == 0 {
		begin += w.rng.Int64N(int64(time.Second))
	}
	took, data, at := w.took(), r.encode(), r.offset()
	lands := w.rng.IntN(100) != 0
	w.at(begin+w.rng.Int64N(took), func() {
		switch {
		case lands:
			copy(w.device[at:], data)
		case w.rng.IntN(2) == 0: // torn
			copy(w.device[at:at+64], data[:64])
		}
	})
	failed := ""
	if !lands || w.rng.IntN(200) == 0 {
		failed = "input/output error"
	}
	s.in(begin+took, func() { s.a.wrote(s.clock(w.now), failed) })
	return s.ops
}

// start is a new life; operations of the last one may still be under way.
func (s *claimServer) start() {
	s.endAuthority()
	s.life++
	s.wonEpoch = 0
	s.a = &arbiter{io: s, rng: s.w.rng, now: s.clock(s.w.now), slot: s.i, id: uint64(s.i + 1), cluster: "c", want: spec.DefaultDeviceIO.D()}
	s.a.challenge = true
	// What its last life had in flight is over before (the kernel holds the lock as long).
	s.in(s.w.now+int64(10*time.Second), func() {})
}

func (s *claimServer) endAuthority() {
	if n := len(s.granted); n > 0 {
		s.granted[n-1].until = min(s.granted[n-1].until, s.w.now)
	}
}

// look takes down authority and claims as they come, and checks them.
func (s *claimServer) look() {
	w, a := s.w, s.a
	if a.phase == owning && a.own.epoch != s.wonEpoch {
		s.wonEpoch = a.own.epoch
		old := int64(0)
		if a.oldLeases != 0 {
			old = s.when(a.oldLeases)
		}
		s.wins = append(s.wins, win{a.own.epoch, old})
		w.owners++
	}
	if a.phase != owning || a.authority == 0 {
		s.endAuthority()
		return
	}
	from, until := s.when(a.authority), s.when(a.until)
	if n := len(s.granted); n > 0 && s.granted[n-1].epoch == a.own.epoch {
		s.granted[n-1].until = until
		if s.granted[n-1].from == from {
			return
		}
	}
	w.grants++
	s.granted = append(s.granted, authority{s.i, a.own.epoch, from, until})
	if n := len(s.granted); n > 1 && s.granted[n-2].epoch == a.own.epoch {
		s.granted[n-2].until = min(s.granted[n-2].until, from)
	}
	for _, o := range w.servers {
		if o == s {
			continue
		}
		if n := len(o.granted); n > 0 {
			g := o.granted[n-1]
			const micro = 3000 // of the clocks' arithmetic
			if max(g.from, from)+micro < min(g.until, until) {
				w.violate("servers %d (epoch %d) and %d (epoch %d) have authority at once: %v..%v and %v..%v", o.i, g.epoch, s.i, a.own.epoch,
					time.Duration(g.from), time.Duration(g.until), time.Duration(from), time.Duration(until))
			}
		}
	}
}

func (w *claimWorld) violate(format string, args ...any) {
	if w.found == "" {
		w.found = fmt.Sprintf(format, args...)
	}
}

// check compares what each owner was told of older leases with what they were.
func (w *claimWorld) check() {
	for _, s := range w.servers {
		for _, won := range s.wins {
			for _, o := range w.servers {
				for _, g := range o.granted {
					if g.epoch < won.epoch && g.from > won.old+3000 {
						w.violate("server %d won epoch %d and holds that nobody had authority after %v; server %d had it in epoch %d from %v",
							s.i, won.epoch, time.Duration(won.old), o.i, g.epoch, time.Duration(g.from))
					}
				}
			}
		}
	}
}

func runClaims(seed uint64, retimes bool, span time.Duration) *claimWorld {
	w := &claimWorld{retimes: retimes, rng: rand.New(rand.NewPCG(seed, 9)), device: make([]byte, headLen), now: int64(time.Hour)}
	copy(w.device, header{device: 5, founder: 1, area: areaLeast, cluster: "c"}.encode())
	for i := range 2 + int(seed%3) {
		w.servers = append(w.servers, &claimServer{w: w, i: i, ppm: int64(w.rng.IntN(3)-1) * 10_000, offset: w.rng.Int64N(int64(time.Hour))})
	}
	for _, s := range w.servers {
		s.start()
	}
	end := w.now + int64(span)
	for len(w.queue) > 0 && w.queue[0].at < end && w.found == "" {
		e := heap.Pop(&w.queue).(claimEvent)
		w.now = e.at
		e.do()
	}
	w.check()
	return w
}

// claimSeeds is more where a broken rule is looked for (bench/sim's mutations).
var claimSeeds = flag.Uint64("claims", 16, "seeds of TestClaims")

// At most one server has authority at any moment of true time, and a new owner
// knows until when older ones may have had it.
func TestClaims(t *testing.T) {
	seeds := *claimSeeds
	grants, owners := 0, 0
	for seed := range seeds {
		w := runClaims(seed, false, 5*time.Minute)
		if w.found != "" {
			t.Fatalf("seed %d: %s", seed, w.found)
		}
		grants, owners = grants+w.grants, owners+w.owners
	}
	t.Logf("%d renewals, %d owners in %d seeds", grants, owners, seeds)
	if owners < int(seeds)*4 || grants < int(seeds)*100 {
		t.Errorf("%d renewals, %d owners: too tame to prove anything", grants, owners)
	}
}

// The same while D_io is changed, shorter and longer, on one server before the
// other. (By these seeds an owner kept its authority for as long as an older
// D_io said, after it had told the others of a shorter one.)
func TestClaimsWhileRetimed(t *testing.T) {
	for _, seed := range []uint64{2036, 2037, 2069, 2076, 2159} {
		if w := runClaims(seed, true, 5*time.Minute); w.found != "" {
			t.Errorf("seed %d: %s", seed, w.found)
		} else if w.owners < 4 {
			t.Errorf("seed %d: %d owners: too tame to prove anything", seed, w.owners)
		}
	}
}

// counter is an issuer that only counts.
type counter struct{ ops, reads, writes uint64 }

func (c *counter) newest() uint64 { return c.ops }

func (c *counter) readTable() uint64 {
	c.ops++
	c.reads++
	return c.ops
}

func (c *counter) writeRecord(record) uint64 {
	c.ops++
	c.writes++
	return c.ops
}

// After a write that failed nothing is written before a look that began afterwards
// went well: one that was under way may have found what is no more at the path.
func TestNothingIsWrittenInDoubt(t *testing.T) {
	device := make([]byte, headLen)
	copy(device, header{device: 5, founder: 1, area: areaLeast, cluster: "c"}.encode())
	c := &counter{}
	now := spec.Instant(time.Hour)
	a := &arbiter{io: c, rng: rand.New(rand.NewPCG(1, 1)), now: now, id: 1, cluster: "c", want: spec.DefaultDeviceIO.D()}
	wants := func(when string, writes uint64) {
		t.Helper()
		now = now.Add(10 * time.Second)
		if a.run(now); c.writes != writes {
			t.Fatalf("%s: %d writes, not %d", when, c.writes, writes)
		}
	}
	a.run(now)
	a.looked(now, c.ops, device, "")
	wants("it has looked", 1) // and looks again
	if c.reads != 2 {
		t.Fatalf("%d reads", c.reads)
	}
	a.wrote(now, "input/output error")
	wants("the write failed", 1)
	a.looked(now, c.ops, device, "")
	wants("a look that began before went well", 1)
	a.looked(now, c.ops, nil, "input/output error")
	wants("a look failed", 1)
	a.looked(now, c.ops, device, "")
	wants("a look went well", 2)
}
