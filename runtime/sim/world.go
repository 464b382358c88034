// Package sim runs a whole cluster in one process from one seed: the members
// that the agents run (runtime/member, with the real database drivers and
// frames), over a simulated network, disks, clocks, kernels and monitors,
// through faults, and checks at every step what must never happen.
//
//	report := sim.Run(sim.Config{Seed: 7, Nodes: 3, Groups: 4, For: 60 * time.Second})
//
// The kernel of a host (processes, addresses, the dead man's timer) is kept
// apart from the monitor's own state, and true time apart from each host's
// clock, so that the invariants judge what happens and not what a node
// believes. The same Config gives the same Report, step by step; a violation
// prints as a story that its seed tells again (Report.Tell), and that Shrink
// makes shorter by leaving out faults that it doesn't need.
//
// Files: world.go (Run, true time), host.go (a machine and its agent),
// kernel.go (what it really runs, its monitor), disk.go, network.go, clock.go;
// faults.go, edges.go and rollback.go (what goes wrong), operator.go and forming.go (what
// people do), driven.go (a cluster that an apply drives), clients.go (what applications keep, and whether what they saw is
// linearizable), scenario.go and moves.go (crashes, and planned moves, with all
// else well); lab.go and lab_faults.go (a definition's cluster, to which someone
// does things one after the other: scenarios, and the test of the failure matrix);
// check.go and check_state.go (the invariants), story.go, shrink.go.
//
// bench/sim runs it for as long as is wanted, and its test holds the mutations
// that the invariants must find.
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
	Seed      uint64
	Nodes     int              // default 3; of Driven: none to begin with
	Witnesses int              // of the nodes: the last ones vote and own nothing
	Learners  int              // of the nodes: those before have no vote
	Groups    int              // default 3
	Model     spec.QuorumModel // default majority_node_set
	For       time.Duration    // simulated time under faults; default 60s
	Settle    time.Duration    // simulated time without faults at the end; default 20s
	NoFault   bool             // no faults at all: nothing may move
	Grow      bool             // it begins as a single node's cluster, the first node's, and becomes a majority's of all on the way
	Crashes   bool             // no faults but crashes of whole nodes, one at a time, all else being well: availability is judged
	Moves     bool             // with Crashes: planned moves in their place
	Most      int              // of Crashes or Moves: how many; 0: as many as there is time for

	Fence    bool // a fence covers every node, and is used whenever it could be faster than the wait
	Watchdog bool // every node has a watchdog, on which one group relies

	// Mix says how often each fault comes, by its name (FaultNames), in place
	// of the usual weights: faults that it doesn't name don't come.
	Mix map[string]int
	// Keep leaves out all faults but those with these numbers (from 1, in order
	// of time); nil: none is left out.
	Keep []int
}

// Vary is a configuration for a seed: one to seven nodes, with witnesses and
// learners, of every model.
func Vary(seed uint64) Config {
	cfg := Config{Seed: seed, Nodes: []int{3, 5, 3, 4, 7, 3, 2, 5, 6, 1}[seed%10], Groups: 3}
	switch {
	case cfg.Nodes == 1 && seed%20 < 10:
		cfg.Model = spec.SingleNode
	case cfg.Nodes >= 4 && seed%3 == 0:
		cfg.Learners = 1
	}
	if cfg.Nodes >= 3 && seed%4 == 1 {
		cfg.Witnesses = 1
	}
	cfg.Fence, cfg.Watchdog = seed%5 == 2, seed%5 == 3
	if seed%7 == 4 && cfg.Nodes > 1 && cfg.Nodes < 5 {
		cfg.Model, cfg.Witnesses, cfg.Learners = spec.SingleQuorum, 0, 0
	}
	return cfg
}

func (c Config) withDefaults() Config {
	if c.Nodes == 0 {
		c.Nodes = 3
	}
	if c.Groups == 0 {
		c.Groups = 3
	}
	if c.Model == "" {
		c.Model = spec.MajorityNodeSet
	}
	if c.For == 0 {
		c.For = time.Minute
	}
	if c.Settle == 0 {
		c.Settle = 20 * time.Second
		if c.Model == spec.SingleQuorum {
			c.Settle = 30 * time.Second // a device's leases are longer
		}
	}
	return c
}

// Report is what a run came to.
type Report struct {
	Config     Config
	Seed       uint64
	Steps      int
	Faults     int
	Kinds      map[string]int  // faults by name
	Edges      map[string]int  // crashes at each edge of an assignment's way
	Starts     int             // of groups
	Failovers  int             // starts elsewhere than before
	Takeovers  int             // decisions to take a group by time alone, or by a fence's proof
	Evicted    int             // nodes that died for good, were evicted, and replaced
	PutBack    int             // disks put back to an older state
	Older      int             // times that a node said that its disk was put back to an older state
	Frozen     int             // times that groups went on after their node's lease was over
	Wedged     int             // scripts that were on when their stops began to fail
	Resets     int             // of hosts by their watchdog
	Grown      int             // times that a single node's database became a majority's
	Acked      int             // updates acknowledged to clients
	Calls      int             // of clients that read and write keys: what they saw was judged
	LeastSlack time.Duration   // least time from a former owner's latest possible stop to the decision to take its group; huge if none
	Times      []time.Duration // of Crashes: how long each group took to start elsewhere; of Moves: how long it ran nowhere
	Numbers    int             // faults that were due, with those left out by Config.Keep
	Simulated  time.Duration
	Violations []string
	Story      []string // what happened, the last of it, for a person
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
	cfg    Config
	rng    *rand.Rand
	now    int64 // true time, ns
	seq    uint64
	queue  eventQueue
	hosts  []*host
	net    network
	taps   []tap // recorded frames, to be played again
	faults faults
	edge   *edge    // a crash that waits for its moment
	window struct { // the present 10 ms, and the steps in it
		until int64
		steps int
	}
	servers uint64          // new server ids given out
	calm    map[string]bool // groups that may not stop now
	check   checker
	ops     operator
	clients clients
	fences  fences
	device  device
	story   story
	rep     Report
	lab     *Lab // nil: the cluster is cfg's, and faults come at random
}

// at lets do happen at true time t.
func (w *world) at(t int64, do func()) {
	w.seq++
	heap.Push(&w.queue, event{at: max(t, w.now), seq: w.seq, do: do})
}

// after lets do happen d of true time later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now+int64(d), do) }

// between is a random span in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration { return between(w.rng, lo, hi) }

func between(rng *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rng.Int64N(int64(max(hi-lo, 1))))
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// busySteps is how many steps a host may take within 10 ms. Frames, writes and
// timers make a hundred at most.
const busySteps = 5000

// busy is how many all hosts may take: those that start many groups at once take
// more of them.
func (w *world) busy() int {
	if w.lab != nil {
		return busySteps * len(w.hosts) * (1 + len(w.lab.groups)/50)
	}
	return busySteps * len(w.hosts)
}

// runUntil lets everything happen up to true time t, or until a violation.
func (w *world) runUntil(t int64) {
	for len(w.queue) > 0 && w.queue[0].at <= t && len(w.rep.Violations) == 0 {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
		w.rep.Steps++
		if w.now >= w.window.until {
			w.window.until, w.window.steps = w.now+int64(10*time.Millisecond), 0
		}
		if w.window.steps++; w.window.steps > w.busy() {
			w.violate("", nil, "a busy loop: %d steps within 10 ms", w.window.steps)
		}
	}
	if len(w.rep.Violations) == 0 {
		w.now = t
	}
}

// newWorld makes the hosts and starts their agents.
func newWorld(cfg Config) *world { return newWorldOf(cfg, nil) }

// newWorldOf is newWorld of a lab's definition, if there is one.
func newWorldOf(cfg Config, lab *Lab) *world {
	driven := cfg.Nodes < 0
	cfg = cfg.withDefaults()
	if driven {
		cfg.Nodes = 0
	}
	w := &world{cfg: cfg, lab: lab, rng: rand.New(rand.NewPCG(cfg.Seed, 0x636c7573746572))}
	w.rep.Config, w.rep.Seed = cfg, cfg.Seed
	w.device.blocks = map[int64][]byte{}
	w.rep.Kinds, w.rep.Edges = map[string]int{}, map[string]int{}
	w.rep.LeastSlack = time.Duration(1<<63 - 1)
	w.net.init(cfg.Nodes)
	w.check.init(w)
	w.ops.init(w)
	w.clients.init(w)
	for i := range cfg.Nodes {
		h := w.newHost(i)
		w.hosts = append(w.hosts, h)
		h.startAgent()
	}
	return w
}

func (w *world) newHost(i int) *host {
	rate := int64(w.rng.IntN(3)-1) * rho // the bounds, or true
	name, id := fmt.Sprintf("n%d", i+1), fmt.Sprintf("node%02d", i+1)
	if w.lab != nil {
		name, id = w.lab.def.Nodes[i].Name, w.lab.def.Nodes[i].ID
	}
	return &host{
		w: w, index: i, name: name, nodeID: id,
		endpoint: fmt.Sprintf("10.0.0.%d:7400", i+1), server: uint64(1000 + i),
		clock:      newClock(spec.Instant(w.rng.Int64N(int64(time.Hour))+1), rate),
		kernel:     kernel{running: map[string]map[string]thing{}},
		lastEpochs: map[string]uint64{}, released: map[string]uint64{},
	}
}

// Run runs a cluster from a seed.
func Run(cfg Config) Report {
	w := newWorld(cfg)
	if !w.waitFormed() {
		w.violate("", nil, "the cluster did not form within 60 s without any fault")
		return w.finish()
	}
	w.ops.start()
	if w.cfg.Grow {
		w.after(w.between(500*time.Millisecond, w.cfg.For/2), w.ops.grow)
	}
	if !w.cfg.NoFault && !w.cfg.Crashes && !w.cfg.Moves {
		w.clients.start()
	}
	switch {
	case w.cfg.Moves:
		w.startMoves()
	case w.cfg.Crashes:
		w.startCrashes()
	case !w.cfg.NoFault:
		w.startFaults()
	}
	w.runUntil(w.now + int64(w.cfg.For))
	if len(w.rep.Violations) == 0 {
		w.heal()
		w.runUntil(w.now + int64(w.cfg.Settle))
		for end := w.now + int64(2*time.Second); w.now < end && len(w.rep.Violations) == 0 && w.moving(); { // as one may be on its way home just now
			w.runUntil(w.now + int64(50*time.Millisecond))
		}
	}
	if len(w.rep.Violations) == 0 {
		w.check.settled()
	}
	if len(w.rep.Violations) == 0 {
		w.clients.judge()
	}
	return w.finish()
}

// moving tells whether a group is between two owners, in order.
func (w *world) moving() bool {
	l := w.leader()
	if l == nil {
		return false
	}
	for id, g := range l.agent.m.State().Groups {
		if owner := w.hostOf(g.Owner.Node); g.Handover != nil || owner != nil && g.State == spec.StatePending && !owner.kernel.runs(id) {
			return true
		}
	}
	return false
}

func (w *world) finish() Report {
	w.rep.Simulated, w.rep.Numbers = time.Duration(w.now), w.faults.number
	w.rep.Story = w.story.render(w)
	return w.rep
}
