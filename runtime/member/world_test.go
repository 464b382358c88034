package member

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/boltdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// world is a few members over real Raft drivers in virtual time: the network
// takes 1 ms, a disk 5 ms, a start 20 ms, a stop 10 ms. runtime/sim has the
// faults; these tests have the protocol's cases, one by one.
type world struct {
	t     *testing.T
	now   int64 // true time, ns
	seq   uint64
	queue events
	hosts []*host
	cut   map[[2]int]bool // from, to
	dumb  bool            // no messages go, only frames
	incs  uint64
	open  func(h *host) (confdb.Driver, *confdb.State, uint64, error)

	running  map[string]string // group -> host that runs it, in truth
	overlaps []string
	replies  map[uint64]confdb.Result
	token    uint64
	// onFrame sees, and may change or drop (false), every frame on its way.
	onFrame func(from, to *host, f *heartbeat.Frame) bool
	onKeys  func(h *host, ring *confdb.Keyring)
}

type event struct {
	at  int64
	seq uint64
	do  func()
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

// host is a machine with its agent and monitor.
type host struct {
	w        *world
	i        int
	id       string
	name     string
	server   uint64
	ppm      int64
	stored   confdb.Stored
	wrote    [2]int  // bytes of entries and of snapshots
	m        *Member // nil: the agent is dead
	life     int     // of the agent
	armed    spec.Instant
	mon      bool
	monLife  int
	stopped  bool
	frozen   bool // all of the host's processes, but not its kernel
	waiting  []func()
	lease    spec.Instant
	procs    map[string]map[string]uint64 // group -> resource -> epoch
	fails    map[string]int               // resource -> starts that fail
	hangs    map[string]bool              // resources whose start comes to no end
	starts   []string                     // group/resource@epoch
	logs     []string
	landing  bool // a write under way is done although its agent dies
	wedged   bool // ip's stop fails
	ends     int  // EndGroup orders
	mute     bool // the monitor never stops ip, and answers no EndGroup
	hung     bool // the disk takes nothing
	renewals int
}

const (
	netDelay  = time.Millisecond
	diskDelay = 5 * time.Millisecond
	startTime = 20 * time.Millisecond
	stopTime  = 10 * time.Millisecond
)

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + int64(d), w.seq, do})
}

func (w *world) run(d time.Duration) {
	end := w.now + int64(d)
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// until runs until cond holds; it fails the test after limit of virtual time.
func (w *world) until(what string, limit time.Duration, cond func() bool) time.Duration {
	w.t.Helper()
	start := w.now
	for !cond() {
		if time.Duration(w.now-start) > limit {
			w.t.Fatalf("not within %s: %s\n%s", limit, what, w.describe())
		}
		w.run(time.Millisecond)
	}
	return time.Duration(w.now - start)
}

func (h *host) clock() spec.Instant {
	return spec.Instant(1e12*int64(h.i+1) + h.w.now + h.w.now/1e6*h.ppm)
}

// trueSpan is the true time until the host's clock reads t.
func (h *host) trueSpan(t spec.Instant) time.Duration {
	d := int64(t - h.clock())
	return time.Duration(float64(d)/(1+float64(h.ppm)/1e6)) + 2*time.Microsecond
}

// process does something in the host's processes: later while they are frozen.
func (h *host) process(do func()) {
	if h.frozen {
		h.waiting = append(h.waiting, do)
		return
	}
	do()
}

func (h *host) start() {
	h.life++
	h.w.incs++
	drv, state, index, err := h.w.open(h)
	if err != nil {
		h.w.t.Fatal(err)
	}
	h.m = New(Config{
		ClusterID: "c", NodeID: h.id, NodeName: h.name, Endpoint: h.endpoint(), ServerID: h.server, Incarnation: 1000*uint64(h.i+1) + h.w.incs,
		Driver: drv, State: state, StateIndex: index, Wall: time.Unix(1_700_000_000, 0).Add(time.Duration(h.w.now)), Location: time.LoadLocation,
		Majority: func(now spec.Instant, term, index uint64, state []byte) (confdb.Driver, confdb.Persist, error) {
			return raftdb.Grow(raftdb.Config{ServerID: h.server, Seed: 7, Now: now}, term, index, state)
		},
	}, h.clock())
	h.stopped, h.armed = false, 0
	h.arm()
	h.input(Tick{})
	h.startMonitor()
}

func (h *host) endpoint() string { return fmt.Sprintf("127.0.0.1:%d", 7001+h.i) }

func (h *host) startMonitor() {
	life := h.life
	h.w.after(30*time.Millisecond, func() {
		if h.life != life || h.mon || h.m == nil {
			return
		}
		if len(h.procs) > 0 { // an older monitor still holds the lock
			h.startMonitor()
			return
		}
		h.mon, h.lease = true, 0
		h.monLife++
		h.input(MonitorUp{})
	})
}

// input steps the member.
func (h *host) input(in Input) {
	life := h.life
	h.process(func() {
		if h.m == nil || h.life != life {
			return
		}
		for _, o := range h.m.Step(h.clock(), in) {
			h.output(o)
		}
		if f, ok := in.(*FrameIn); ok { // an agent's next frame is in the same memory
			for _, data := range f.Frame.Driver {
				for i := range data {
					data[i] ^= 0x5a
				}
			}
			clear(f.Frame.Driver)
			clear(f.Frame.Releases)
			*f = FrameIn{}
		}
		h.arm()
	})
}

func (h *host) arm() {
	d := h.m.NextDeadline()
	if d == 0 || d == h.armed {
		return
	}
	h.armed = d
	life := h.life
	h.w.after(max(h.trueSpan(d), 0), func() {
		if h.life == life && h.armed == d {
			h.armed = 0
			h.input(Tick{})
		}
	})
}

func (h *host) output(o Output) {
	w := h.w
	life := h.life
	switch o := o.(type) {
	case *SendFrame:
		if to := w.at(o.To); to != nil && !w.cut[[2]int{h.i, to.i}] {
			f := o.Frame
			f.Driver, f.Releases = slices.Clone(f.Driver), slices.Clone(f.Releases)
			if w.onFrame == nil || w.onFrame(h, to, &f) {
				in := &FrameIn{From: h.endpoint(), Frame: f}
				in.Frame.Driver, in.Frame.Releases = make([][]byte, len(f.Driver)), slices.Clone(f.Releases)
				for i, data := range f.Driver {
					in.Frame.Driver[i] = slices.Clone(data)
				}
				w.after(netDelay, func() { to.input(in) })
			}
		}
	case SendMessage:
		if to := w.at(o.To); to != nil && !w.dumb && !w.cut[[2]int{h.i, to.i}] {
			w.after(netDelay, func() { to.input(MessageIn{o.Message}) })
		}
	case Persist:
		w.after(diskDelay, func() {
			if h.life != life && h.landing {
				h.stored.Write(o.What)
			}
			if h.life == life && !h.hung {
				h.stored.Write(o.What)
				for _, e := range o.What.Entries {
					h.wrote[0] += len(e.Data)
				}
				h.wrote[1] += len(o.What.Snapshot)
				h.input(Persisted{o.N})
			}
		})
	case Renew:
		h.renewals++
		if h.mon && o.End > h.lease {
			h.lease = o.End
			h.deadMan(o.End)
		}
	case StartResource:
		h.starts = append(h.starts, fmt.Sprintf("%s/%s@%d", o.Group, o.Resource.Name, o.Epoch))
		mon := h.monLife
		h.begin(o.Group, o.Resource.Name, o.Epoch)
		w.after(startTime, func() {
			if h.monLife != mon || !h.mon || h.procs[o.Group][o.Resource.Name] != o.Epoch || h.hangs[o.Resource.Name] {
				return
			}
			state, reason := spec.StateOnline, ""
			if h.fails[o.Resource.Name] > 0 {
				h.fails[o.Resource.Name]--
				state, reason = spec.StateFailed, "exit 1"
				h.end(o.Group, o.Resource.Name)
			}
			h.input(ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource.Name, State: state, Reason: reason})
		})
	case StopResource:
		if h.wedged && o.Resource == "ip" {
			w.after(stopTime, func() {
				h.input(ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: "ip", State: spec.StateOfflinePending, Reason: "its stop command failed"})
			})
			return
		}
		if !h.mute || o.Resource == "app" {
			w.after(stopTime, func() {
				h.end(o.Group, o.Resource)
				h.input(ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource, State: spec.StateOffline})
			})
		}
	case EndGroup:
		h.ends++
		if h.wedged && h.procs[o.Group]["ip"] != 0 {
			w.after(stopTime, func() { // app is down by then
				h.input(ResourceChanged{Group: o.Group, Epoch: o.Epoch, Resource: "ip", State: spec.StateOfflinePending})
			})
			return
		}
		if !h.mute {
			w.after(stopTime, func() {
				if h.mon {
					h.endGroup(o.Group)
					h.input(GroupDown{Group: o.Group, Epoch: o.Epoch})
				}
			})
		}
	case Reply:
		w.replies[o.Token] = o.Result
	case SetKeys:
		if w.onKeys != nil {
			w.onKeys(h, o.Ring)
		}
	case Log:
		h.logs = append(h.logs, o.Level+": "+o.Text)
	case Stopped:
		h.stopped = true
	}
}

func (h *host) begin(group, resource string, epoch uint64) {
	w := h.w
	if other := w.running[group]; other != "" && other != h.name {
		w.overlaps = append(w.overlaps, fmt.Sprintf("%v: %s starts %s while %s runs it", time.Duration(w.now), h.name, group, other))
	}
	w.running[group] = h.name
	if h.procs[group] == nil {
		h.procs[group] = map[string]uint64{}
	}
	h.procs[group][resource] = epoch
}

func (h *host) end(group, resource string) {
	delete(h.procs[group], resource)
	if len(h.procs[group]) == 0 {
		delete(h.procs, group)
		if h.w.running[group] == h.name {
			h.w.running[group] = ""
		}
	}
}

func (h *host) endGroup(group string) {
	for r := range h.procs[group] {
		h.end(group, r)
	}
}

func (w *world) at(endpoint string) *host {
	for _, h := range w.hosts {
		if h.endpoint() == endpoint {
			return h
		}
	}
	return nil
}

func (w *world) leader() *host {
	for _, h := range w.hosts {
		if h.m != nil && !h.frozen {
			if s := h.m.Status().Driver; s.Role == confdb.Leader && s.Ready && h.m.Status().Quorum {
				return h
			}
		}
	}
	return nil
}

// submit commits a command through a host and returns its result.
func (w *world) submit(h *host, c confdb.Command) confdb.Result {
	w.t.Helper()
	w.token++
	token := w.token
	h.input(Submit{Token: token, Command: c})
	w.until("a reply", 8*time.Second, func() bool { _, ok := w.replies[token]; return ok })
	return w.replies[token]
}

func (w *world) must(h *host, c confdb.Command) {
	w.t.Helper()
	if r := w.submit(h, c); r.Code != "" {
		w.t.Fatalf("refused: %+v", r)
	}
}

func (w *world) change(h *host, in Membership) confdb.Result {
	w.t.Helper()
	w.token++
	in.Token = w.token
	h.input(in)
	w.until("a reply", 8*time.Second, func() bool { _, ok := w.replies[in.Token]; return ok })
	return w.replies[in.Token]
}

func nodeSpec(i int) spec.Node {
	name := fmt.Sprint("n", i+1)
	return spec.Node{ID: "id-" + name, Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember}
}

// newWorld is a formed cluster of n nodes, all voters.
func newWorld(t *testing.T, n int, ppm ...int64) *world { return newWorldOf(t, n, openRaft, ppm...) }

func openRaft(h *host) (confdb.Driver, *confdb.State, uint64, error) {
	return raftdb.New(raftdb.Config{ServerID: h.server, Seed: 7, Now: h.clock(), Stored: h.stored})
}

func openBolt(h *host) (confdb.Driver, *confdb.State, uint64, error) {
	return boltdb.New(boltdb.Config{ServerID: h.server, Stored: h.stored})
}

func (w *world) addHost() *host {
	i := len(w.hosts)
	s := nodeSpec(i)
	h := &host{w: w, i: i, id: s.ID, name: s.Name, server: uint64(101 + i), procs: map[string]map[string]uint64{}, fails: map[string]int{}}
	w.hosts = append(w.hosts, h)
	return h
}

// join makes a host a voter, through whoever leads.
func (w *world) join(h *host) {
	w.t.Helper()
	w.must(w.leader(), confdb.Command{PutNode: &confdb.PutNode{Spec: nodeSpec(h.i), ServerID: h.server, Endpoint: h.endpoint(), Version: "1"}})
	if r := w.change(w.leader(), Membership{Op: "add_learner", Server: h.server, Endpoint: h.endpoint()}); r.Code != "" {
		w.t.Fatalf("add_learner: %+v", r)
	}
	w.until("the learner is promoted", 5*time.Second, func() bool {
		return w.change(w.leader(), Membership{Op: "promote", Server: h.server}).Code == ""
	})
}

func newWorldOf(t *testing.T, n int, open func(h *host) (confdb.Driver, *confdb.State, uint64, error), ppm ...int64) *world {
	w := &world{t: t, open: open, cut: map[[2]int]bool{}, running: map[string]string{}, replies: map[uint64]confdb.Result{}}
	for i := range n {
		h := w.addHost()
		if i < len(ppm) {
			h.ppm = ppm[i]
		}
		h.start()
	}
	w.run(100 * time.Millisecond)
	first := w.hosts[0]
	if r := w.change(first, Membership{Op: "bootstrap", Server: first.server}); r.Code != "" {
		t.Fatalf("bootstrap: %+v", r)
	}
	model := spec.MajorityNodeSet
	if first.m.Status().Driver.Single {
		model = spec.SingleNode
	}
	w.must(first, confdb.Command{PutCluster: &spec.Cluster{ID: "c", Name: "c", Quorum: spec.Quorum{Model: model}}})
	for i, h := range w.hosts {
		if i > 0 {
			w.join(h)
			continue
		}
		w.must(first, confdb.Command{PutNode: &confdb.PutNode{Spec: nodeSpec(i), ServerID: h.server, Endpoint: h.endpoint(), Version: "1"}})
	}
	w.until("all nodes are up", 5*time.Second, func() bool { return len(w.state().View.Up) == n })
	t.Cleanup(func() {
		for _, o := range w.overlaps {
			t.Errorf("two owners: %s", o)
		}
	})
	return w
}

// state is the leader's, or else anyone's.
func (w *world) state() *confdb.State {
	if l := w.leader(); l != nil {
		return l.m.State()
	}
	for _, h := range w.hosts {
		if h.m != nil {
			return h.m.State()
		}
	}
	w.t.Fatal("no agent runs")
	return nil
}

func groupSpec(name string, preferred ...string) spec.Group {
	g := spec.Group{
		ID: "g-" + name, Name: name, Addr: addr.Group(name, addr.NoKey), PreferredOwners: preferred, Priority: 2000,
		PersistentState: spec.WantOnline, Failover: spec.Failover{Mode: spec.FailoverAutomatic}, Failback: spec.Failback{Mode: spec.FailbackPrevent},
	}
	for _, r := range []string{"ip", "app"} {
		res := spec.Resource{Name: r, Type: "generic_application", Attributes: map[string]any{}, PendingTimeout: spec.Duration(3 * time.Minute),
			Restart: spec.Restart{Action: spec.RestartRestart, Threshold: 3, Period: spec.Duration(15 * time.Minute), AffectGroup: true}}
		if r == "app" {
			res.DependsOn = []string{"ip"}
		}
		g.Resources = append(g.Resources, res)
	}
	return g
}

// put adds a group and waits until it is online; it returns its owner.
func (w *world) put(g spec.Group) *host {
	w.t.Helper()
	w.must(w.leader(), confdb.Command{PutGroup: &g})
	w.until(g.Name+" is online", 5*time.Second, func() bool { return w.online(g.Name) })
	return w.owner(g.Name)
}

func (w *world) group(name string) *confdb.Group { return w.state().Groups["g-"+name] }

func (w *world) online(name string) bool {
	g := w.group(name)
	return g != nil && g.State == spec.StateOnline && w.running["g-"+name] == w.state().NodeName(g.Owner.Node)
}

func (w *world) owner(name string) *host {
	for _, h := range w.hosts {
		if g := w.group(name); g != nil && g.Owner.Node == h.id {
			return h
		}
	}
	return nil
}

func (w *world) describe() string {
	var b strings.Builder
	for _, h := range w.hosts {
		if h.m == nil {
			fmt.Fprintf(&b, "%s: dead\n", h.name)
			continue
		}
		s := h.m.Status()
		fmt.Fprintf(&b, "%s: role %d term %d leader %d ready %v voters %v up %v lease %v quorum %v monitor %v\n", h.name, s.Driver.Role, s.Driver.Term,
			s.Driver.Leader, s.Driver.Ready, s.Driver.Voters, s.UpNodes, s.LeaseEnd.Sub(h.clock()), s.Quorum, s.MonitorUp)
		fmt.Fprintf(&b, "   runs %v starts %v\n", h.procs, h.starts)
		for _, l := range h.logs[max(0, len(h.logs)-5):] {
			fmt.Fprintf(&b, "   %s\n", l)
		}
	}
	st := w.state()
	ids := make([]string, 0)
	for id := range st.Groups {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		g := st.Groups[id]
		fmt.Fprintf(&b, "%s: owner %q epoch %d state %s want %s move %v handover %v gaveup %v left %q home %q\n", id, g.Owner.Node, g.Owner.Epoch, g.State, g.Want, g.Move, g.Handover, g.GaveUp, g.LeftFailed, g.HomeFrom)
	}
	for _, e := range st.Events[max(0, len(st.Events)-25):] {
		fmt.Fprintf(&b, "%3d <- %3d %-18s %-10s %s\n", e.ID, e.Cause, e.Kind, e.Node, e.Text)
	}
	return b.String()
}
