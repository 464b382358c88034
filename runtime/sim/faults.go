package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// faults is what goes wrong from startFaults to heal. Each fault has a number
// and draws what it does from a source of its own, so that leaving some out
// (Config.Keep) leaves the others as they are.
type faults struct {
	on     bool
	edges  float64 // how often an assignment's way ends in a crash
	number int
	gen    int // grows at heal: what a fault would end later is over then

	// Until this true time nothing takes a node away: an older disk was put in,
	// and what others know of it is what protects from it (rollback.go).
	quiet int64
}

// fault is one kind. It gets its own source of chance and a host.
type fault struct {
	name   string
	weight int
	do     func(w *world, rng *rand.Rand, h *host)
}

var kinds = []fault{
	{"crash", 4, func(w *world, rng *rand.Rand, h *host) { // agent and monitor: the whole node
		h.killMonitors()
		h.killAgent()
		w.restartLater(h, between(rng, 50*time.Millisecond, 4*time.Second))
	}},
	{"kill-agent", 4, func(w *world, rng *rand.Rand, h *host) {
		h.killAgent()
		w.restartLater(h, between(rng, 20*time.Millisecond, 3*time.Second))
	}},
	{"kill-monitor", 3, func(_ *world, rng *rand.Rand, h *host) {
		h.killSeat([]seat{nodeSeat, nodeSeat, freezerSeat}[rng.IntN(3)])
	}},
	{"shutdown", 2, func(w *world, rng *rand.Rand, h *host) { // SIGTERM; now and then not waited for
		if h.agent == nil {
			return
		}
		h.tell("agent is asked to end")
		a := h.agent
		a.ending = true
		a.input(member.Shutdown{})
		if rng.IntN(3) == 0 {
			w.after(between(rng, time.Millisecond, 150*time.Millisecond), func() {
				if h.agent == a && !w.quiet() {
					h.killAgent()
					h.startAgent()
				}
			})
		}
	}},
	{"restarts", 2, func(w *world, rng *rand.Rand, h *host) { // a storm of them
		for n, at := 2+rng.IntN(5), time.Duration(0); n > 0; n-- {
			w.after(at, func() {
				if !w.quiet() {
					h.killAgent()
				}
			})
			at += between(rng, time.Millisecond, 150*time.Millisecond)
			w.after(at, h.startAgent)
			at += between(rng, time.Millisecond, 300*time.Millisecond)
		}
	}},
	{"pause-agent", 5, func(_ *world, rng *rand.Rand, h *host) { // SIGSTOP; long ones outlast the lease
		h.pauseAgent(between(rng, 50*time.Millisecond, 3*time.Second))
	}},
	{"pause-monitor", 3, func(_ *world, rng *rand.Rand, h *host) {
		h.pauseMonitor(between(rng, 50*time.Millisecond, 2*time.Second))
	}},
	{"pause", 3, func(_ *world, rng *rand.Rand, h *host) { // all processes
		d := between(rng, 50*time.Millisecond, 3*time.Second)
		h.pauseAgent(d)
		h.pauseMonitor(d)
	}},
	{"suspend", 2, func(_ *world, rng *rand.Rand, h *host) { // the machine
		h.suspend(between(rng, 50*time.Millisecond, 4*time.Second))
	}},
	{"cut", 5, func(w *world, rng *rand.Rand, h *host) { w.partition(rng, h, rng.IntN(3)) }},
	{"bridge", 2, func(w *world, rng *rand.Rand, h *host) { w.partition(rng, h, cutBridge) }},
	{"ring", 2, func(w *world, rng *rand.Rand, h *host) { w.partition(rng, h, cutRing) }},
	{"oneway", 4, func(w *world, rng *rand.Rand, h *host) {
		other := w.hosts[rng.IntN(len(w.hosts))]
		cuts := [][2]int{{h.index, other.index}}
		if rng.IntN(3) == 0 { // deaf to all, or not heard by any
			in := rng.IntN(2) == 0
			cuts = nil
			for _, o := range w.hosts {
				if o == h {
					continue
				} else if in {
					cuts = append(cuts, [2]int{o.index, h.index})
				} else {
					cuts = append(cuts, [2]int{h.index, o.index})
				}
			}
			w.tell("net: %s is %s all others", h.name, map[bool]string{true: "deaf to", false: "not heard by"}[in])
		} else {
			w.tell("net: %s no longer reaches %s", h.name, other.name)
		}
		w.cutFor(cuts, between(rng, 100*time.Millisecond, 4*time.Second))
	}},
	{"flap", 1, func(w *world, rng *rand.Rand, h *host) { // a link that comes and goes
		for n, at := 3+rng.IntN(6), time.Duration(0); n > 0; n-- {
			w.after(at, func() { w.partition(rng, h, cutAlone) })
			at += between(rng, 200*time.Millisecond, time.Second)
		}
	}},
	{"loss", 2, func(w *world, rng *rand.Rand, _ *host) {
		loss := rng.Float64() * 0.3
		w.tell("net: loss %.0f %%", loss*100)
		w.net.loss = loss
		w.ends(between(rng, 200*time.Millisecond, 4*time.Second), func() { w.net.loss = 0 })
	}},
	{"lag", 3, func(w *world, rng *rand.Rand, _ *host) { // delays, reorders
		w.net.lag = between(rng, 0, 150*time.Millisecond)
		w.tell("net: lag up to %v", w.net.lag)
		w.ends(between(rng, 200*time.Millisecond, 3*time.Second), func() { w.net.lag = 0 })
	}},
	{"double", 1, func(w *world, rng *rand.Rand, _ *host) {
		w.net.double = rng.Float64() * 0.4
		w.tell("net: %.0f %% come twice", w.net.double*100)
		w.ends(between(rng, 200*time.Millisecond, 3*time.Second), func() { w.net.double = 0 })
	}},
	{"replay", 3, func(w *world, rng *rand.Rand, h *host) { w.replay(rng, h) }},
	{"recording", 2, func(w *world, rng *rand.Rand, h *host) { w.recording(rng, h) }},
	{"clock", 3, func(_ *world, rng *rand.Rand, h *host) {
		h.setRate([]int64{-rho, rho, -rho, rho, rng.Int64N(2*rho+1) - rho}[rng.IntN(5)])
	}},
	{"slow-disk", 3, func(w *world, rng *rand.Rand, h *host) {
		h.disk.slow = between(rng, 0, 300*time.Millisecond)
		if rng.IntN(4) == 0 {
			h.disk.slow = between(rng, time.Second, 4*time.Second) // it hangs
		}
		h.tell("disk slower by %v", h.disk.slow)
		w.ends(between(rng, 200*time.Millisecond, 3*time.Second), func() { h.disk.slow = 0 })
	}},
	{"failing-disk", 1, func(w *world, rng *rand.Rand, h *host) {
		h.tell("disk fails")
		h.disk.failing = true
		w.ends(between(rng, 50*time.Millisecond, 2*time.Second), func() { h.disk.failing = false })
	}},
	{"lost-disk", 2, func(w *world, rng *rand.Rand, h *host) {
		if w.whole() {
			h.loseDisk(rng)
		}
	}},
	{"older-disk", 2, func(w *world, rng *rand.Rand, h *host) { w.putBack(rng, h) }},
	{"crash-in-term", 2, func(w *world, _ *rand.Rand, h *host) { // before the sync of a term's write
		h.disk.deadly = true
		w.ends(5*time.Second, func() { h.disk.deadly = false })
	}},
	{"failing-start", 2, func(w *world, rng *rand.Rand, h *host) {
		id := groupID(rng.IntN(w.cfg.Groups))
		if h.failing == nil {
			h.failing = map[string]int64{}
		}
		d := between(rng, 500*time.Millisecond, 5*time.Second)
		h.tell("starts of %s fail for %v", id, d)
		h.failing[id] = w.now + int64(d)
	}},
}

// scriptKinds are the faults of scripts: they come only where a group has one.
var scriptKinds = []fault{
	{"failing-stop", 4, func(w *world, rng *rand.Rand, h *host) {
		if owner := w.check.last[groupID(0)]; owner != nil { // the group that has one
			h = owner
		}
		h.wedge(between(rng, 500*time.Millisecond, 20*time.Second))
		if rng.IntN(3) == 0 { // its successor is to stop it then
			w.after(between(rng, 0, time.Second), func() {
				if !w.quiet() {
					h.killSeat(nodeSeat)
				}
			})
		}
	}},
}

// FaultNames are the kinds of faults, for Config.Mix.
func FaultNames() []string {
	names := []string{"edge"}
	for _, k := range slices.Concat(kinds, deviceKinds, scriptKinds) {
		names = append(names, k.name)
	}
	return names
}

// ParseMix reads "crash=3,lag=1": each fault's weight; without one it is 1.
func ParseMix(text string) (map[string]int, error) {
	if text == "" {
		return nil, nil
	}
	mix := map[string]int{}
	for _, part := range strings.Split(text, ",") {
		name, weight, ok := strings.Cut(part, "=")
		n := 1
		if ok {
			var err error
			if n, err = strconv.Atoi(weight); err != nil || n < 0 {
				return nil, fmt.Errorf("%q is no weight of a fault; write as crash=3", part)
			}
		}
		if !slices.Contains(FaultNames(), name) {
			return nil, fmt.Errorf("no fault is named %q; there are %s", name, strings.Join(FaultNames(), ", "))
		}
		mix[name] = n
	}
	return mix, nil
}

// FormatMix is what ParseMix reads.
func FormatMix(mix map[string]int) string {
	var parts []string
	for _, name := range sortedKeys(mix) {
		parts = append(parts, fmt.Sprintf("%s=%d", name, mix[name]))
	}
	return strings.Join(parts, ",")
}

// startFaults lets faults happen at random from now until heal.
func (w *world) startFaults() {
	f := &w.faults
	f.on, f.edges = true, 0.1
	if w.cfg.Mix != nil {
		f.edges = float64(w.cfg.Mix["edge"]) / 10
	}
	kinds := kinds[:len(kinds):len(kinds)]
	if w.cfg.Model == spec.SingleQuorum {
		kinds = append(kinds, deviceKinds...)
	}
	if w.cfg.Fence {
		kinds = append(kinds, scriptKinds...)
	}
	total := 0
	for _, k := range kinds {
		total += w.weight(k)
	}
	until := w.now + int64(w.cfg.For)
	var next func()
	next = func() {
		if w.now > until || !f.on {
			return
		}
		f.number++
		rng := rand.New(rand.NewPCG(w.cfg.Seed, uint64(f.number)))
		gap := between(rng, 20*time.Millisecond, 2500*time.Millisecond)
		h := w.hosts[rng.IntN(len(w.hosts))]
		if l := w.leader(); rng.IntN(3) == 0 && l != nil {
			h = l // leaders deserve more than their share
		}
		if total > 0 && (w.cfg.Keep == nil || slices.Contains(w.cfg.Keep, f.number)) {
			n := rng.IntN(total)
			for _, k := range kinds {
				if n -= w.weight(k); n < 0 {
					if w.quiet() && !slices.Contains(mild, k.name) {
						break
					}
					w.rep.Faults++
					w.rep.Kinds[k.name]++
					w.tell("fault %d: %s (%s)", f.number, k.name, h.name)
					k.do(w, rng, h)
					break
				}
			}
		}
		w.after(gap, next)
	}
	w.after(time.Second, next)
}

func (w *world) weight(k fault) int {
	if w.cfg.Mix != nil {
		return w.cfg.Mix[k.name]
	}
	return k.weight
}

// ends undoes a fault d later, unless all were healed meanwhile.
func (w *world) ends(d time.Duration, undo func()) {
	gen := w.faults.gen
	w.after(d, func() {
		if w.faults.gen == gen {
			undo()
		}
	})
}

// whole tells whether every host runs and votes as it should: then one may
// lose its disk.
func (w *world) whole() bool {
	if w.ops.demoted > 0 && w.now-w.ops.demoted < int64(time.Second) {
		return false // the leader may not know yet
	}
	l := w.leader()
	for _, h := range w.hosts {
		if l == nil || h.agent == nil || h.leaving || h.votes() != slices.Contains(l.agent.m.Status().Driver.Voters, h.server) {
			return false
		}
		if d := h.agent.m.Status().Driver; d.Older || d.Starting {
			return false // it takes no part, and may have to be emptied
		}
	}
	return len(w.hosts) > 2
}

// loseDisk empties a node's data directory: it comes back as a new server, which
// has to join again; the one that it was never votes any more. Its old monitor
// may live on until its lease ends.
func (h *host) loseDisk(rng *rand.Rand) {
	w := h.w
	if rng.IntN(2) == 0 {
		h.killMonitor()
	}
	h.killAgent()
	h.disk.stored = confdb.Stored{}
	clear(h.lastEpochs)
	h.newServer()
	h.disk.past = nil
	h.hadFreezer = false
	h.tell("loses its disk, and is server %d now", h.server)
	w.restartLater(h, between(rng, 10*time.Millisecond, 2*time.Second))
	w.after(between(rng, 50*time.Millisecond, 3*time.Second), func() { w.ops.promote(h) })
}

// newServer gives a new data directory its id.
func (h *host) newServer() {
	h.w.servers++
	h.server = 2000 + h.w.servers
}

// setRate changes the rate of a host's clock, which reads on from what it reads.
func (h *host) setRate(ppm int64) {
	h.clock.setRate(h.w.now, ppm)
	h.tell("clock at %+d ppm", ppm)
	if a := h.agent; a != nil {
		a.armed = 0
		a.schedule()
	}
	for _, mon := range h.monitors() {
		if mon.alive && mon.lease > h.now() {
			mon.arm()
		}
	}
}

// suspend stops the whole machine for a while: nothing runs, nothing is heard,
// no timer fires. Its boot clock goes on.
func (h *host) suspend(d time.Duration) {
	if h.suspended {
		return
	}
	h.tell("the host sleeps for %v", d)
	h.suspended, h.since = true, h.w.now
	if h.agent != nil {
		h.agent.paused = true
	}
	for _, m := range h.monitors() {
		m.paused = true
	}
	h.w.lab.lookAll()
	h.w.ends(d, h.wake)
}

// wake: the kernel's timers that came due fire before any process runs.
func (h *host) wake() {
	if !h.suspended {
		return
	}
	h.slept += h.clock.read(h.w.now).Sub(h.clock.read(h.since))
	h.suspended, h.waking = false, true
	h.tell("the host goes on")
	for _, m := range h.monitors() {
		if m.alive && m.killAt != 0 && m.killAt <= h.now() {
			h.killByTimer(m)
		}
	}
	if at := h.dog.at; at != 0 && at <= h.now() {
		h.reset()
	}
	h.waking = false
	h.w.check.woke(h)
	h.w.lab.lookAll()
	due := h.atResume
	h.atResume = nil
	for _, do := range due {
		do()
	}
	for _, m := range h.monitors() {
		m.resume()
	}
	if h.agent != nil {
		h.agent.resume()
	}
}

func (w *world) restartLater(h *host, d time.Duration) {
	w.after(d, h.startAgent)
}

const (
	cutAlone = iota
	cutHalves
	cutSplit
	cutBridge
	cutRing
)

// partition cuts h off from all others, or the hosts in two, or leaves a
// bridge, or a ring.
func (w *world) partition(rng *rand.Rand, h *host, kind int) {
	if w.quiet() {
		return // a link that flaps stays whole
	}
	var cuts [][2]int
	n := len(w.hosts)
	split := rng.Uint64() // a bit for each host: its side
	for _, a := range w.hosts {
		for _, b := range w.hosts {
			var cut bool
			switch kind {
			case cutAlone:
				cut = (a == h) != (b == h)
			case cutHalves:
				cut = (a.index < n/2) != (b.index < n/2)
			case cutSplit:
				cut = split>>(a.index%64)&1 != split>>(b.index%64)&1
			case cutBridge: // only h sees all
				cut = a != b && a != h && b != h
			case cutRing: // each sees its neighbours
				cut = a != b && (a.index+1)%n != b.index && (b.index+1)%n != a.index
			}
			if cut {
				cuts = append(cuts, [2]int{a.index, b.index})
			}
		}
	}
	w.tell("net: %s", [...]string{
		fmt.Sprintf("%s is alone", h.name), "two halves", fmt.Sprintf("two parts, %b", split&(1<<n-1)), fmt.Sprintf("only %s sees the others", h.name), "a ring: each sees its neighbours"}[kind])
	w.cutFor(cuts, between(rng, 100*time.Millisecond, 5*time.Second))
}

func (w *world) cutFor(cuts [][2]int, d time.Duration) {
	for _, c := range cuts {
		w.net.cut[c[0]][c[1]]++
	}
	w.ends(d, func() {
		for _, c := range cuts {
			w.net.cut[c[0]][c[1]]--
		}
		w.tell("net: a cut of %v ends", d)
	})
}

func (h *host) pauseAgent(d time.Duration) {
	a := h.agent
	if a == nil || a.paused {
		return
	}
	h.tell("agent paused for %v", d)
	a.paused = true
	h.w.after(d, func() {
		if h.agent == a && a.paused {
			h.tell("agent goes on")
			a.resume()
		}
	})
}

func (h *host) pauseMonitor(d time.Duration) {
	if h.agent == nil {
		return
	}
	for _, m := range h.agent.mons {
		if m != nil && !m.paused {
			h.tell("monitor paused for %v", d)
			m.paused = true
			h.w.after(d, m.resume)
		}
	}
}

func (m *monitor) resume() {
	if !m.paused || m.h.suspended {
		return
	}
	m.paused = false
	in := m.inbox
	m.inbox = nil
	for _, do := range in {
		m.run(do)
	}
}

// heal ends all faults: links whole, processes going, dead agents started.
func (w *world) heal() {
	w.tell("all faults end")
	w.faults.on = false
	w.faults.gen++
	w.net.heal()
	w.device.mend()
	w.edge = nil
	for _, h := range w.hosts {
		h.path.mend()
		h.disk.slow, h.disk.failing, h.disk.deadly = 0, false, false
		h.wake()
		if h.agent != nil && h.agent.paused {
			h.agent.resume()
		}
		for _, m := range h.monitors() {
			m.resume()
		}
		h.startAgent()
	}
	w.ops.settle()
}
