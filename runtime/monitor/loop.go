package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// monitor is the monitor's loop and its state. Only the loop's goroutine
// touches it, and it never blocks: not on the disk, the agent, or a resource.
// What may take time happens in the instances' goroutines.
type monitor struct {
	conf    Configure
	host    *host
	record  *record
	deadman *deadman
	timer   *boottime.Timer // for the loop's next moment
	out     *speaker
	lock    *os.File // the node's; kept open, for it goes when it is closed

	orders  <-chan Order    // closed when the agent is gone
	ready   <-chan error    // the lock is taken and all is cleaned up
	quit    <-chan struct{} // this process was asked to end
	reports chan report

	isReady    bool
	alone      bool         // the agent is gone or of no use: no orders are taken, and the monitor ends
	leaveAt    spec.Instant // alone: when it stops everything, if its lease doesn't end before
	board      *board
	memory     *os.File      // the board\'s, for separate monitors
	remote     *remoteLedger // a separate monitor\'s way to the record
	lease      spec.Instant  // its end, as it was seen last
	groups     map[string]*group
	watchdog   *watchdog // nil: there is none, or it isn't armed
	noWatchdog string    // why the one of conf isn't
	early      []Order   // Ends that came before all was cleaned up

	fences   atomic.Pointer[Fences] // as the agent said last
	refenced chan struct{}          // it said something else; capacity 1
}

// alonePatience bounds how long the monitor serves without an agent, however
// long its lease is: a new agent's monitor waits for the lock.
const alonePatience = 30 * time.Second

// loop runs until the agent is gone and nothing runs any more, or until the
// monitor can't do its work.
func (m *monitor) loop() error {
	failed := m.out.failed
	for {
		m.look()
		m.lapse()
		m.feedWatchdog()
		if err := m.arm(); err != nil {
			return err
		}
		if m.alone && m.idle() {
			return nil
		}
		select {
		case o, ok := <-m.orders:
			if !ok {
				m.orders = nil
				m.leave(alonePatience)
				continue
			}
			m.order(o)
		case <-m.quit:
			m.quit = nil
			m.leave(0)
		case <-failed:
			failed = nil
			m.leave(alonePatience) // it doesn't read: it hangs or is gone
		case err := <-m.ready:
			m.ready = nil
			if err != nil {
				return err
			}
			m.begin()
		case r := <-m.reports:
			if r.hung != "" {
				return deadlocked(r)
			}
			m.report(r)
		case err := <-m.armed().broken():
			return err // and the next monitor tells what it can do
		case <-m.timer.C:
			m.timer.Fired()
		}
	}
}

// look sees to what end the agent has renewed the lease.
func (m *monitor) look() {
	if !m.alone {
		m.lease = m.board.read()
	}
}

// leave makes the monitor stop everything within that time, in order, and end.
func (m *monitor) leave(within time.Duration) {
	m.look()
	at := boottime.Now().Add(within)
	if !m.alone {
		m.thaw()
	}
	if !m.alone || at < m.leaveAt {
		m.alone, m.leaveAt = true, at
	}
}

// idle tells whether nothing runs.
func (m *monitor) idle() bool {
	for _, g := range m.groups {
		if len(g.live) > 0 {
			return false
		}
	}
	return true
}

// begin is after the clean-up.
func (m *monitor) begin() {
	m.isReady = true
	up := &ReadyWord{PID: os.Getpid(), Token: m.record.token, Cgroup: m.host.cgroups.dir, NoWatchdog: m.noWatchdog}
	if m.watchdog != nil {
		up.Watchdog = spec.Duration(m.watchdog.timeout)
	}
	m.out.say(Word{Ready: up})
	for _, o := range m.early {
		m.order(o)
	}
	m.early = nil
}

// order carries out an order.
func (m *monitor) order(o Order) {
	m.look()
	switch {
	case o.Renew != nil: // seen already
		m.tellApart()
	case o.Recorded != nil && m.remote != nil:
		m.remote.answers <- *o.Recorded
	case o.Fences != nil:
		m.fences.Store(o.Fences)
		select {
		case m.refenced <- struct{}{}:
		default:
		}
	case o.Start != nil:
		m.start(*o.Start)
	case !m.isReady && (o.Stop != nil || o.End != nil):
		m.early = append(m.early, o)
	case o.Stop != nil:
		m.stop(*o.Stop)
	case o.End != nil:
		m.end(*o.End)
	default:
		m.out.log("warn", "an order that this version doesn't know was left out", nil)
	}
}

func (m *monitor) group(id string) *group {
	g := m.groups[id]
	if g == nil {
		g = &group{id: id, epoch: m.record.epoch(id), live: map[string]*instance{}}
		m.groups[id] = g
	}
	return g
}

// refuse answers a start that is not carried out.
func (m *monitor) refuse(s Start, format string, args ...any) {
	m.out.say(Word{Changed: &Changed{
		ResourceRef: ResourceRef{Group: s.Group, Epoch: s.Epoch, Resource: s.Resource.Name},
		State:       spec.StateFailed,
		Reason:      fmt.Sprintf(format, args...),
	}})
}

// start starts a resource, or puts that off until what is in its way is gone.
func (m *monitor) start(s Start) {
	if !m.isReady {
		m.refuse(s, "the monitor isn't ready: it still cleans up after an earlier one")
		return
	}
	if s.Group == "" || s.Resource.Name == "" {
		m.refuse(s, "a start without a group's id or a resource's name")
		return
	}
	g := m.group(s.Group)
	switch {
	case s.Epoch < g.epoch:
		m.refuse(s, "refused: epoch %d of group %s is older than %d, which this node has seen", s.Epoch, s.GroupName, g.epoch)
		return
	case !boottime.Now().Before(m.lease):
		m.refuse(s, "refused: this node holds no lease")
		return
	}
	g.epoch, g.name = s.Epoch, s.GroupName
	if g.ending || m.alone {
		g.wait(s)
		return
	}
	if s.Epoch > 0 && g.lives(s.Epoch-1) {
		// A newer ownership: all of the older one goes first.
		g.wait(s)
		m.stopAll(g)
		return
	}
	if in := g.live[s.Resource.Name]; in != nil {
		if !in.stopping && !in.failed && sameResource(in.spec, s.Resource) {
			m.changed(in)
			return
		}
		g.wait(s)
		m.ask(in)
		return
	}
	m.launch(g, s)
}

func sameResource(a, b spec.Resource) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// launch starts an instance.
func (m *monitor) launch(g *group, s Start) {
	g.stopWithin = s.StopWithin.D()
	if g.stopWithin <= 0 {
		g.stopWithin = defaultStopWithin
	}
	g.within = g.stopWithin + s.Kill.D()
	stop, ask := context.WithCancelCause(context.Background())
	kill, end := context.WithCancel(context.Background())
	in := &instance{
		ref:   ResourceRef{Group: s.Group, Epoch: s.Epoch, Resource: s.Resource.Name},
		spec:  s.Resource,
		group: g,
		state: spec.StateOnlinePending,
		stop:  ask,
		kill:  end,
	}
	g.live[s.Resource.Name] = in
	m.changed(in)
	env := resource.Env{
		Cluster: m.conf.Cluster,
		Node:    m.conf.Node,
		Group:   s.GroupName,
		Epoch:   s.Epoch,
		Dir:     m.conf.Dir,
		BinDir:  filepath.Dir(m.conf.Program),
		Socket:  m.conf.Socket,
	}
	if s.Socket != "" {
		env.Socket = s.Socket
	}
	// The kernel's timer is armed before anything runs (loop: arm follows each
	// order; the instance's goroutine needs it for the first one only).
	if err := m.deadman.set(m.deadline()); err != nil {
		m.out.log("error", err.Error(), nil)
	}
	m.tellGrace()
	if s.Resource.SeparateMonitor {
		in.look = make(chan struct{}, 1)
		go m.runApart(stop, kill, in, s)
		return
	}
	go m.run(stop, kill, in, env)
}

// changed says an instance's state.
func (m *monitor) changed(in *instance) {
	m.out.say(Word{Changed: &Changed{ResourceRef: in.ref, State: in.state, Reason: in.reason, Stopping: in.failed}})
}

// ask asks an instance to stop.
func (m *monitor) ask(in *instance) {
	if in.stopping {
		return
	}
	in.stopping = true
	in.stop(errStopped)
	if !in.failed {
		in.state, in.reason = spec.StateOfflinePending, ""
		m.changed(in)
	}
}

// stop stops one resource.
func (m *monitor) stop(ref ResourceRef) {
	g := m.group(ref.Group)
	g.dropWaiting(func(s Start) bool { return s.Resource.Name == ref.Resource && s.Epoch <= ref.Epoch })
	in := g.live[ref.Resource]
	if in == nil || in.ref.Epoch > ref.Epoch {
		m.out.say(Word{Changed: &Changed{ResourceRef: ref, State: spec.StateOffline}})
		return
	}
	if in.stopping {
		m.changed(in)
	}
	m.ask(in)
}

// end makes sure at once that nothing of a group is left; Down follows. What
// had time to stop had it before.
func (m *monitor) end(ref GroupRef) {
	g := m.group(ref.Group)
	g.dropWaiting(func(s Start) bool { return s.Epoch <= ref.Epoch })
	if !g.lives(ref.Epoch) {
		m.out.say(Word{Down: &ref})
		return
	}
	g.ends = append(g.ends, ref.Epoch)
	g.ending = true
	for _, in := range g.live {
		if in.stopping || in.failed {
			m.changed(in) // a sign of life of this process
		}
		m.ask(in)
		m.kill(in)
	}
}

// kill ends the patience with an instance that was asked to stop.
func (m *monitor) kill(in *instance) {
	if !in.killing {
		in.killing = true
		in.kill()
	}
}

// stopAll stops all of a group, dependents first.
func (m *monitor) stopAll(g *group) {
	g.ending = true
	for _, in := range g.stoppable() {
		m.ask(in)
	}
}

// report takes what an instance tells.
func (m *monitor) report(r report) {
	in, g := r.in, r.in.group
	if !r.gone {
		if r.state == spec.StateOfflinePending {
			if (in.stopping || in.failed) && r.reason != in.stuck {
				in.stuck = r.reason
				m.out.say(Word{Changed: &Changed{ResourceRef: in.ref, State: r.state, Reason: r.reason}})
			}
			return
		}
		if in.stopping {
			return // overtaken
		}
		in.state, in.reason = r.state, r.reason
		in.failed = r.state == spec.StateFailed
		m.changed(in)
		if g.ending {
			m.stopAll(g)
		}
		return
	}
	in.stop(errStopped)
	in.kill()
	delete(g.live, in.ref.Resource)
	again := !g.ending && slices.ContainsFunc(g.waiting, func(s Start) bool { return s.Resource.Name == in.ref.Resource })
	switch {
	case !again && (in.stopping || !in.failed):
		m.out.say(Word{Changed: &Changed{ResourceRef: in.ref, State: spec.StateOffline}})
	case in.failed:
		m.out.say(Word{Gone: &in.ref})
	}
	if g.ending && len(g.live) > 0 {
		m.stopAll(g)
		return
	}
	if g.ending {
		g.ending, g.unasked, g.killAt = false, false, 0
		for _, e := range g.ends {
			m.out.say(Word{Down: &GroupRef{Group: g.id, Epoch: e}})
		}
		g.ends = nil
	}
	waiting := g.waiting
	g.waiting = nil
	for _, s := range waiting {
		m.start(s)
	}
}

// lapse stops what has no lease any more, and kills what has not stopped in
// its time.
func (m *monitor) lapse() {
	now := boottime.Now()
	for _, g := range m.groups {
		if len(g.live) == 0 {
			continue
		}
		if m.alone && !g.unasked && !now.Before(m.leaveAt) {
			g.waiting, g.unasked = nil, true
			m.out.log("warn", "the monitor ends: stopping the group", map[string]any{"group": g.name, "epoch": g.epoch})
			m.stopAll(g)
		}
		if g.killAt == 0 && !m.lasts() && !now.Before(m.lease) {
			for _, s := range g.waiting {
				m.refuse(s, "refused: this node holds no lease")
			}
			g.waiting, g.unasked = nil, true
			g.killAt = later(m.lease, int64(g.stopWithin-g.killMargin()))
			m.out.log("warn", "the lease has ended: stopping the group", map[string]any{"group": g.name, "epoch": g.epoch})
			m.stopAll(g)
		}
		if g.killAt != 0 && !now.Before(g.killAt) {
			for _, in := range g.live {
				m.ask(in)
				m.kill(in)
			}
		}
	}
}

// deadline is when the kernel is to kill this process: at the lease's end and
// the least stop_within of what runs; 0: nothing runs, or it may go on.
func (m *monitor) deadline() spec.Instant {
	var at spec.Instant
	if m.lasts() {
		return 0
	}
	for _, g := range m.groups {
		if len(g.live) == 0 {
			continue
		}
		if t := later(m.lease, int64(g.stopWithin)); at == 0 || t < at {
			at = t
		}
	}
	return at
}

// arm sets the kernel's timer, and the loop's own for the next moment at which
// it has something to do.
func (m *monitor) arm() error {
	if err := m.deadman.set(m.deadline()); err != nil {
		return err
	}
	m.tellGrace()
	var next spec.Instant
	if m.lasts() {
		m.timer.Set(0)
		return nil
	}
	for _, g := range m.groups {
		if len(g.live) == 0 {
			continue
		}
		at := m.lease
		if !m.alone {
			at = lookAgain(boottime.Now(), at)
		}
		if m.alone && !g.unasked {
			at = min(at, m.leaveAt)
		}
		if g.killAt != 0 {
			at = g.killAt
			if g.allKilled() {
				continue
			}
		}
		if next == 0 || at < next {
			next = at
		}
	}
	if w := m.armed(); w != nil && (next == 0 || w.next < next) {
		next = w.next
	}
	m.timer.Set(next)
	return nil
}

func (g *group) allKilled() bool {
	for _, in := range g.live {
		if !in.killing {
			return false
		}
	}
	return true
}
