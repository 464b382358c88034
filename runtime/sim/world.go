// Package sim runs a whole cluster in one process from one seed: the members
// that the agents run (runtime/member, with the real Raft driver and frames),
// over a simulated network, disks, clocks, kernels and monitors, through
// faults, and checks at every step what must never happen.
//
//	report := sim.Run(sim.Config{Seed: 7, Nodes: 3, Groups: 4, For: 60 * time.Second})
//
// The kernel of a host (processes, the dead man's timer) is kept apart from the
// monitor's own state, and true time apart from each host's clock, so that the
// invariants judge what happens and not what a node believes. The same Config
// gives the same Report, step by step; a violation prints as a story (Report.Story)
// that its seed tells again.
//
// Start reading at Run, then host.go (what a host is), faults.go, check.go.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Config of a run. The zero value of a field means the default.
type Config struct {
	Seed    uint64
	Nodes   int           // default 3
	Groups  int           // default 3
	For     time.Duration // simulated time under faults; default 60s
	Settle  time.Duration // simulated time without faults at the end; default 20s
	NoFault bool          // no faults at all: nothing may move
	Crashes bool          // no faults but crashes of whole nodes, one at a time, all else being well: availability is judged
	Fence   bool          // a fence covers every node, and is used whenever it could be faster than the wait
	// Mutate breaks a rule on purpose, for the test that the invariants find it.
	Mutate Mutation
}

// Mutation is a rule broken at the edge between a member and its host.
type Mutation string

const (
	LongLease    Mutation = "lease longer than it was granted"
	EarlyRelease Mutation = "release before all is down"
	NoDeadMan    Mutation = "no dead man's timer in the kernel"
)

func (c Config) withDefaults() Config {
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Groups == 0 {
		c.Groups = 3
	}
	if c.For == 0 {
		c.For = time.Minute
	}
	if c.Settle == 0 {
		c.Settle = 20 * time.Second
	}
	return c
}

// Report is what a run came to.
type Report struct {
	Seed       uint64
	Steps      int
	Faults     int
	Starts     int // of groups
	Failovers  int
	Acked      int           // updates acknowledged to clients
	LeastSlack time.Duration // least time between a former owner's latest possible stop and a start elsewhere; huge if none
	Violations []string
	Story      []string // the last things that happened, for a person
}

// event is something to happen at a true time; seq makes the order total.
type event struct {
	at  int64
	seq uint64
	do  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// world is the true state of everything.
type world struct {
	cfg     Config
	rng     *rand.Rand
	now     int64 // true time, ns
	seq     uint64
	queue   eventQueue
	hosts   []*host
	net     network
	taps    []tap           // recorded frames, to be played again
	edge    bool            // processes die at the edges between their own steps, now and then
	servers uint64          // new server ids given out
	calm    map[string]bool // groups that may not stop now
	check   checker
	ops     operator
	fences  fences
	rep     Report
}

const storyLines = 400

// tell adds a line to the story.
func (w *world) tell(format string, args ...any) {
	line := fmt.Sprintf("%12.6f  ", float64(w.now)/1e9) + fmt.Sprintf(format, args...)
	if len(w.rep.Story) >= 2*storyLines {
		w.rep.Story = append(w.rep.Story[:0], w.rep.Story[storyLines:]...)
	}
	w.rep.Story = append(w.rep.Story, line)
}

// violate records a broken invariant.
func (w *world) violate(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.tell("VIOLATION: %s", text)
	if len(w.rep.Violations) < 10 {
		w.rep.Violations = append(w.rep.Violations, text)
	}
}

// at lets do happen at true time t.
func (w *world) at(t int64, do func()) {
	w.seq++
	heap.Push(&w.queue, event{at: max(t, w.now), seq: w.seq, do: do})
}

// after lets do happen d of true time later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now+int64(d), do) }

// between is a random span in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.rng.Int64N(int64(max(hi-lo, 1))))
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// runUntil lets everything happen up to true time t, or until a violation.
func (w *world) runUntil(t int64) {
	for len(w.queue) > 0 && w.queue[0].at <= t && len(w.rep.Violations) == 0 {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		w.rep.Steps++
	}
	if len(w.rep.Violations) == 0 {
		w.now = t
	}
}

// clock is a host's boot clock: it started at offset and runs at a rate of
// (1e6+ppm)/1e6 of true time.
type clock struct {
	offset int64
	ppm    int64
}

func (c clock) read(trueTime int64) spec.Instant {
	return spec.Instant(c.offset + trueTime + trueTime/1_000_000*c.ppm + trueTime%1_000_000*c.ppm/1_000_000)
}

// when is the first true time at which the clock reads t or later.
func (c clock) when(t spec.Instant) int64 {
	guess := int64(float64(int64(t)-c.offset) / (1 + float64(c.ppm)/1e6))
	for c.read(guess) >= t && guess > 0 {
		guess -= 500
	}
	for c.read(guess) < t {
		guess += 100
	}
	return guess
}

// Run runs a cluster from a seed.
func Run(cfg Config) Report {
	cfg = cfg.withDefaults()
	w := &world{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x636c7573746572))}
	w.rep.Seed = cfg.Seed
	w.rep.LeastSlack = time.Duration(1<<63 - 1)
	w.net.init(cfg.Nodes)
	w.check.init(w)
	w.build()
	if !w.waitFormed() {
		w.violate("the cluster did not form within 60 s without any fault")
		return w.rep
	}
	w.ops.start(w)
	switch {
	case cfg.Crashes:
		w.startCrashes()
	case !cfg.NoFault:
		w.startFaults()
	}
	w.runUntil(w.now + int64(cfg.For))
	w.heal()
	w.runUntil(w.now + int64(cfg.Settle))
	if len(w.rep.Violations) == 0 {
		w.check.settled(w)
	}
	return w.rep
}
