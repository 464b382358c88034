package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// few is how many runs of n there are: fewer under the race detector, and in
// short tests.
func few(n int) int {
	if raced || testing.Short() {
		return max(n/8, 2)
	}
	return n
}

func fail(t *testing.T, r Report) {
	t.Helper()
	t.Fatal(r.Tell())
}

// Through crashes, pauses, partitions, loss, lag, slow disks and clocks at
// their bounds: never two owners, and everything runs again afterwards.
func TestFaults(t *testing.T) {
	seeds := few(60)
	var faults, starts, failovers, acked, calls int
	slack := time.Hour
	for seed := range seeds {
		cfg := Vary(uint64(seed))
		cfg.For = 40 * time.Second
		r := Run(cfg)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		faults, starts, failovers, acked, calls = faults+r.Faults, starts+r.Starts, failovers+r.Failovers, acked+r.Acked, calls+r.Calls
		slack = min(slack, r.LeastSlack)
	}
	t.Logf("%d seeds: %d faults, %d starts, %d changes of owner, %d updates acknowledged, %d calls judged, least slack %v", seeds, faults, starts, failovers, acked, calls, slack)
	if faults < 10*seeds || failovers < seeds || acked < seeds || calls < 40*seeds {
		t.Errorf("the runs were too tame to prove anything: %d faults, %d changes of owner, %d updates", faults, failovers, acked)
	}
}

// Every kind of fault came, and processes died at each edge between an
// assignment's proposal and its start: else the runs above prove less than they say.
func TestAllFaultsCome(t *testing.T) {
	kinds, edges := map[string]int{}, map[string]int{}
	for seed := range 60 {
		cfg := Config{Seed: uint64(5000 + seed), Nodes: 3 + seed%2, For: 40 * time.Second, Fence: seed%3 == 1}
		if seed%3 == 2 {
			cfg.Model = spec.SingleQuorum // the device's faults too
		}
		r := Run(cfg)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		for name, n := range r.Kinds {
			kinds[name] += n
		}
		for name, n := range r.Edges {
			edges[name] += n
		}
		if len(edges) == len(edgeNames) && len(kinds) == len(FaultNames()) && seed > 5 {
			t.Logf("%d seeds: faults %v, crashes at edges %v", seed+1, kinds, edges)
			return
		}
	}
	t.Errorf("some never came: faults %v of %v, edges %v of %v", kinds, FaultNames(), edges, edgeNames)
}

// A broken invariant is told as a story: the seed, what happened, to whom, with
// faults, leases and epochs, and the command that tells it again. Here a host
// starts a group that another runs.
func TestStory(t *testing.T) {
	w := newWorld(Config{Seed: 3, Fence: true})
	if !w.waitFormed() {
		t.Fatal("not formed")
	}
	w.ops.start()
	w.startFaults()
	for w.now < int64(time.Minute) {
		w.runUntil(w.now + int64(100*time.Millisecond))
		id := groupID(1)
		if owner := w.check.last[id]; w.rep.Faults > 5 && owner != nil && owner.serves(id) && len(w.rep.Violations) == 0 {
			w.hosts[(owner.index+1)%3].startProcess(id, "a", thing{epoch: w.check.newest[id], kind: "generic_application"})
			break
		}
	}
	r := w.finish()
	story := r.Tell()
	for _, want := range []string{"seed 3, 3 nodes: two owners: ", "VIOLATION", "fault ", "lease until ", "starts group01 (epoch ", "is committed, owner node0", "again: go run ./bench/sim --seed 3 --nodes 3 --groups 3 --for 1m0s --fence --story"} {
		if !strings.Contains(story, want) {
			t.Errorf("the story has no %q:\n%s", want, story)
		}
	}
	if n := len(r.Story); n > storyLength {
		t.Errorf("a story of %d lines is too long", n)
	}
	cfg := r.Config
	cfg.Keep, cfg.Mix = []int{2, 5}, map[string]int{"crash": 3, "lag": 1}
	if got := cfg.Command(); !strings.Contains(got, "--mix crash=3,lag=1 --keep 2,5") {
		t.Errorf("the command is %s", got)
	}
	if mix, err := ParseMix("crash=3,lag"); err != nil || mix["crash"] != 3 || mix["lag"] != 1 {
		t.Errorf("%v, %v", mix, err)
	}
	if _, err := ParseMix("crush=3"); err == nil {
		t.Error("a fault that there isn't is taken")
	}
}

// What doesn't run at the end may have stood still for long: its story is told from
// when a host last did anything.
func TestStoryOfAStandstill(t *testing.T) {
	w := newWorld(Config{Seed: 3, NoFault: true})
	if !w.waitFormed() {
		t.Fatal("not formed")
	}
	for _, h := range w.hosts {
		h.killMonitors()
		h.killAgent()
	}
	w.tell("operator: waits")
	w.runUntil(w.now + int64(time.Minute))
	w.violate("", nil, "nothing runs at the end")
	if story := strings.Join(w.story.render(w), "\n"); strings.Count(story, "agent dies") != len(w.hosts) || !strings.Contains(story, "VIOLATION: nothing runs") {
		t.Errorf("the story is:\n%s", story)
	}
}

// An agent that is stopped starts no monitor: of two that died meanwhile, it would
// have the second one carry out what was meant for the first. This seed had it so.
func TestStoppedAgentStartsNoMonitor(t *testing.T) {
	if r := Run(Config{Seed: 745386049, Nodes: 1, Model: spec.SingleNode, For: time.Minute}); len(r.Violations) > 0 {
		fail(t, r)
	}
}

// What a node released before its agent ever had a lease stays released once it has
// one: it never starts that again under that epoch. This seed has it so.
func TestReleasedBeforeTheFirstLease(t *testing.T) {
	r := Run(Config{Seed: 910078, Nodes: 6, Groups: 3, For: 27 * time.Second, Watchdog: true, Keep: []int{1, 2, 6, 7, 8, 9, 10, 11, 12, 15, 17, 18, 19}})
	if len(r.Violations) > 0 {
		fail(t, r)
	}
}

// A group that goes home at the very end is not taken for one that doesn't run. This
// seed has it so.
func TestGoingHomeAtTheEnd(t *testing.T) {
	if r := Run(Config{Seed: 88224, Nodes: 7, Groups: 3, For: time.Minute, Learners: 1}); len(r.Violations) > 0 {
		fail(t, r)
	}
}

// A node that is taken out is deleted once, however long that takes: a second command
// deleted the new machine in its place. This seed has the device away meanwhile.
func TestDeletedOnce(t *testing.T) {
	if r := Run(Config{Seed: 31001373, Nodes: 4, Groups: 3, For: time.Minute, Model: spec.SingleQuorum, Watchdog: true}); len(r.Violations) > 0 {
		fail(t, r)
	}
}

// Faults that are left out leave the others as they are.
func TestKeep(t *testing.T) {
	all := Run(Config{Seed: 4, For: 20 * time.Second})
	some := Run(Config{Seed: 4, For: 20 * time.Second, Keep: []int{1, 3}})
	if some.Faults != some.Kinds["edge"]+2 || some.Numbers != all.Numbers {
		t.Errorf("%d faults of %d (%v), %d numbers of %d", some.Faults, all.Faults, some.Kinds, some.Numbers, all.Numbers)
	}
}

// Failover in a large cluster takes as long as in a small one.
func TestLargeCluster(t *testing.T) {
	nodes := 24
	if raced || testing.Short() {
		nodes = 16
	}
	median := func(n int) time.Duration {
		r := Failovers(Config{Seed: 1, Nodes: n, Groups: n, Learners: max(n-7, 0)}, 8)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		if len(r.Times) < 5 {
			t.Fatalf("%d nodes: %d failovers in %d crashes", n, len(r.Times), r.Faults)
		}
		slices.Sort(r.Times)
		return r.Times[len(r.Times)/2]
	}
	small, large := median(3), median(nodes)
	t.Logf("median failover: %v with 3 nodes, %v with %d", small, large, nodes)
	if large > small*13/10 {
		t.Errorf("with %d nodes a failover takes %v, with 3 %v", nodes, large, small)
	}
}

// A node crashes and all else is well: its groups run elsewhere within the plan's
// bound, whether it led or not, and no other group stops.
func TestCrashes(t *testing.T) {
	var crashes, failovers int
	for seed := range few(8) {
		r := Run(Config{Seed: uint64(seed), Nodes: 3 + seed%3, Groups: 5, Crashes: true, For: 40 * time.Second})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		crashes, failovers = crashes+r.Faults, failovers+r.Failovers
	}
	t.Logf("%d crashes, %d changes of owner", crashes, failovers)
	if crashes < 5*few(8) || failovers < 4*few(8) {
		t.Error("too tame to prove anything")
	}
}

// A planned move waits for commits and not for frames: beside the monitor's proof
// (1 to 30 ms here) a group is away for a few milliseconds, and less than the time
// between two frames in all. Were anything on its way left to the next frame, half
// of them would take longer than half of that. (Of 12 moves, luck may have it too.)
func TestMoves(t *testing.T) {
	for _, nodes := range []int{3, 6} {
		r := Moves(Config{Seed: uint64(nodes), Nodes: nodes, Groups: 4}, 120)
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		if len(r.Times) < 120 {
			t.Fatalf("%d nodes: %d of 120 moves", nodes, len(r.Times))
		}
		slices.Sort(r.Times)
		t.Logf("%d nodes: %v", nodes, r.Times)
		frame := (&world{}).timings().Interval.D()
		if median, most := r.Times[60], r.Times[119]; median > frame/2 || most > frame {
			t.Errorf("%d nodes: away for %v in the median, %v at most", nodes, median, most)
		}
	}
}

// Without a fault nothing moves, whatever the clocks' rates.
func TestQuiet(t *testing.T) {
	for seed := range 4 {
		r := Run(Config{Seed: uint64(seed), NoFault: true, For: time.Minute, Nodes: 3 + seed})
		if len(r.Violations) > 0 {
			fail(t, r)
		}
		if r.Starts != 3 {
			t.Fatalf("seed %d: %d starts of 3 groups in a healthy cluster:\n%s", seed, r.Starts, strings.Join(r.Story, "\n"))
		}
	}
}

// A seed tells the same story twice.
func TestSameSeedSameStory(t *testing.T) {
	a := Run(Config{Seed: 5, For: 15 * time.Second})
	b := Run(Config{Seed: 5, For: 15 * time.Second})
	if a.Steps != b.Steps || !slices.Equal(a.Story, b.Story) {
		for i := range min(len(a.Story), len(b.Story)) {
			if a.Story[i] != b.Story[i] {
				t.Fatalf("stories part at line %d:\n%s\n%s", i, a.Story[i], b.Story[i])
			}
		}
		t.Fatalf("%d steps, then %d", a.Steps, b.Steps)
	}
}

// A node that sleeps while a new machine takes its place is off, and runs nothing more
// when it would have gone on.
func TestNewMachineForOneThatSleeps(t *testing.T) {
	r := Run(Config{Seed: 88200125, Nodes: 3, Groups: 3, For: time.Minute, Witnesses: 1,
		Keep: []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 23, 24, 25, 26, 28, 29, 30, 33, 34}})
	if len(r.Violations) > 0 {
		fail(t, r)
	}
}

// A group starts on its node beside a script that an earlier epoch left on there.
func TestStartBesideWhatWasLeftOn(t *testing.T) {
	w := newWorld(Config{Seed: 1, Nodes: 1})
	h := w.hosts[0]
	w.check.owners["g"] = map[uint64]ownership{1: {node: h.nodeID}, 2: {node: h.nodeID}}
	h.startProcess("g", "left", thing{epoch: 1, kind: kindMount})
	h.startProcess("g", "first", thing{epoch: 2, kind: kindAddress})
	h.startProcess("g", "second", thing{epoch: 2, kind: kindAddress})
	if w.check.ran["g"][2] != h || w.rep.Starts != 2 || len(w.rep.Violations) > 0 {
		t.Errorf("ran: %v, %d starts, violations: %v", w.check.ran["g"], w.rep.Starts, w.rep.Violations)
	}
}

// What a monitor hosts that dies while its host sleeps is gone when that goes on.
func TestKilledAsleep(t *testing.T) {
	w := newWorld(Config{Seed: 1, Nodes: 1})
	h := w.hosts[0]
	w.check.owners["g"] = map[uint64]ownership{1: {node: h.nodeID}}
	h.startProcess("g", "p", thing{epoch: 1, by: nodeSeat})
	h.suspended = true
	h.newMonitor(nodeSeat).kill()
	if h.kernel.runs("g") {
		t.Error("it runs still")
	}
}
