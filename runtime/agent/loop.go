package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clusterplan/clusterplan/internal/boottime"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/boltdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/device"
	"github.com/clusterplan/clusterplan/runtime/confdb/diskdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/raftdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/store"
	"github.com/clusterplan/clusterplan/runtime/member"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

// tellTime is how often the member is told the time of day (for failback
// windows and the log; it decides no lease).
const tellTime = 30 * time.Second

// job is one thing for the loop: an input for the member, or a function that
// needs the loop to itself. Both share one channel, so that their order holds.
type job struct {
	in member.Input
	fn func()
}

// Node is a running node, as its API sees it.
type Node struct {
	cfg        Config
	log        *slog.Logger
	files      *files
	facts      Facts
	sum        func() string
	store      *store.Store
	incar      uint64
	hadFreezer bool // an earlier agent of the node did
	seed       uint64
	cert       *certificate

	jobs   chan job
	halted chan struct{} // closed when the member has stopped
	ended  chan struct{} // closed when the loop has ended
	writes chan member.Persist
	timer  *boottime.Timer
	udp    *udp
	peers  *peers
	fences *fences
	apps   *apps
	links  links

	resetter *resetter    // nil: the node doesn't reset itself
	noReset  string       // why not, though it should
	leaseEnd atomic.Int64 // of the lease that the monitor was told last

	askedKeys atomic.Int64 // when askKeys did, in nanoseconds of the time of day

	// The loop's: of who has the turn, the loop itself, the timer's tick or a frame's reader.
	turns   sync.Mutex
	member  *member.Member
	quorum  spec.Quorum    // which database it has; no model: a majority's, or none yet
	device  *device.Device // nil without a quorum device
	joined  bool           // with one: this server is a member, or was
	monitor seat
	freezer seat
	start   func(*seat) // supervises one from now on
	spawn   func(func() error)
	waiting map[uint64]chan confdb.Result
	token   uint64
	told    spec.Instant // when the member was last told the time of day
	stopped bool
	broken  error // of the store

	alone   atomic.Bool            // the database is the one for a single node
	trouble atomic.Pointer[string] // why the database can't be written now; nil: it can

	mu      sync.Mutex
	changed chan struct{} // closed at the next update; nil: nobody waits
}

func newNode(cfg Config, f *files, st *store.Store) (*Node, error) {
	n := &Node{
		cfg: cfg, log: cfg.Log, files: f, store: st,
		sum:   sync.OnceValue(programSum),
		incar: random64(), seed: random64(),
		jobs:    make(chan job, 256),
		halted:  make(chan struct{}),
		ended:   make(chan struct{}),
		writes:  make(chan member.Persist, 256),
		waiting: make(map[uint64]chan confdb.Result),
		freezer: seat{freezer: true}, hadFreezer: monitor.HadFreezer(f.dir),
	}
	n.facts = Facts{
		ClusterID: f.conf.ClusterID, NodeID: f.conf.NodeID, Name: f.conf.Name, ServerID: st.ServerID(),
		Endpoint: f.conf.Address, Version: cfg.Version, PID: os.Getpid(),
		LogDir: filepath.Join(f.dir, logDir),
	}
	n.cert = newCertificate(f, cfg.Log)
	n.peers = newPeers(n)
	n.fences = newFences(n)
	n.apps = newApps(n)
	stored, err := st.Load()
	if err != nil {
		return nil, fmt.Errorf("read the node's database: %w", err)
	}
	quorum, err := readModel(f.dir)
	if err == nil && quorum.Model == spec.SingleNode {
		quorum, err = settleGrown(f.dir, st.ServerID(), stored)
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's database: %w", err)
	}
	if n.joined, err = readJoined(f.dir); err != nil {
		return nil, fmt.Errorf("read the node's database: %w", err)
	}
	n.member, err = n.newMember(quorum, stored)
	return n, err
}

// newMember makes the member over what the store holds.
func (n *Node) newMember(quorum spec.Quorum, stored confdb.Stored) (*member.Member, error) {
	now := boottime.Now()
	conf := member.Config{
		ClusterID: n.facts.ClusterID, NodeID: n.facts.NodeID, NodeName: n.facts.Name, Endpoint: n.facts.Endpoint,
		Version: n.facts.Version, ServerID: n.facts.ServerID, Incarnation: n.incar, Seed: n.seed, Timings: spec.Timings{}.WithDefaults(),
		Wall: time.Now(), Location: time.LoadLocation, Freezer: n.hadFreezer,
	}
	if n.member != nil { // frames of one incarnation are numbered in one row
		conf.Sent = n.member.Sent()
	}
	var err error
	n.alone.Store(quorum.Model == spec.SingleNode)
	switch quorum.Model {
	case spec.SingleNode:
		conf.Driver, conf.State, conf.StateIndex, err = boltdb.New(boltdb.Config{ServerID: n.facts.ServerID, Stored: stored})
		conf.Majority = func(now spec.Instant, term, index uint64, state []byte) (confdb.Driver, confdb.Persist, error) {
			return raftdb.Grow(raftdb.Config{ServerID: n.facts.ServerID, Seed: n.seed, Now: now}, term, index, state)
		}
	case spec.SingleQuorum:
		conf.Driver, conf.State, conf.StateIndex, err = diskdb.New(diskdb.Config{
			ServerID: n.facts.ServerID, ClusterID: n.facts.ClusterID, Device: quorum.Device, Member: n.joined, Seed: n.seed, Now: now,
		})
	default:
		conf.Driver, conf.State, conf.StateIndex, err = raftdb.New(raftdb.Config{ServerID: n.facts.ServerID, Seed: n.seed, Stored: stored, Now: now})
	}
	if err != nil {
		return nil, fmt.Errorf("start the node's database: %w", err)
	}
	if n.quorum = quorum; quorum.Device != "" {
		n.openDevice(quorum.Device)
	}
	return member.New(conf, now), nil
}

// endWithin is what an agent has to end once its groups have stopped: to release them,
// hand leadership over, and write.
const endWithin = 10 * time.Second

// loop owns the member until it has stopped; ticks and frames take their turns beside
// it. ctx asks it to stop; life ends when another part of the agent has failed.
func (n *Node) loop(ctx, life context.Context) error {
	defer close(n.ended)
	defer func() {
		n.turns.Lock()
		defer n.turns.Unlock()
		n.stopped = true // no more turns
		if n.device != nil {
			n.device.Close()
		}
	}()
	asked := ctx.Done()
	var late <-chan time.Time
	within := n.cfg.StopWithin
	for {
		select {
		case j := <-n.jobs:
			n.turn(func() {
				if j.fn != nil {
					j.fn()
					return
				}
				n.step(j.in)
			})
		case <-asked:
			asked = nil
			n.turn(func() {
				within = max(within, n.member.StopBound()+endWithin)
				n.log.Info("the agent stops: groups go down or elsewhere, then it ends", "within", within)
				if err := n.cfg.systemd.extend(within + endWithin); err != nil {
					n.log.Error("systemd may kill this agent while its groups stop", "err", err)
				}
				n.step(member.Shutdown{})
			})
			late = time.After(within)
		case <-late:
			return fmt.Errorf("the groups of this node did not stop within %s; the kernel stops what they run at the lease's end", within)
		case <-life.Done():
			return nil
		case <-n.halted:
			if n.broken != nil { // the member stopped by itself
				return fmt.Errorf("%w; its groups were stopped: %w", errStore, n.broken)
			}
			return nil
		}
	}
}

// tick is the timer's, in the goroutine that the poller has woken: to wake the loop
// as well took a fifteenth of what an idle leader costs.
func (n *Node) tick() {
	n.turn(func() {
		n.timer.Fired()
		n.step(member.Tick{})
	})
}

// turn has fn step the member while nobody else does, and arms the timer for what
// comes next. Once the member has stopped, it does nothing.
func (n *Node) turn(fn func()) {
	n.turns.Lock()
	defer n.turns.Unlock()
	if n.stopped {
		return
	}
	fn()
	if !n.stopped {
		n.timer.Set(n.member.NextDeadline())
	}
}

// step is one step of the member, and the start of all that it wants done.
func (n *Node) step(in member.Input) {
	now := boottime.Now()
	if now.Sub(n.told) > tellTime {
		n.told = now
		n.scanLinks()
		n.carry(now, member.Clock{Wall: time.Now()})
	}
	n.carry(now, in)
	n.checkLinks(now)
}

func (n *Node) carry(now spec.Instant, in member.Input) {
	if m, ok := in.(member.MessageIn); ok {
		n.invited(m)
	}
	for _, out := range n.member.Step(now, in) {
		n.do(out)
	}
}

func (n *Node) do(out member.Output) {
	switch o := out.(type) {
	case *member.SendFrame:
		n.udp.send(o.To, o.Also, &o.Frame)
	case member.SetKeys:
		n.udp.setKeys(o.Ring)
	case member.SendMessage:
		n.peers.send(o.To, o.Message)
	case member.Persist:
		n.writes <- o // the member has few under way: this never blocks
	case member.Grown:
		n.quorum = spec.Quorum{}
		n.alone.Store(false)
	case member.DeviceIO:
		n.deviceIO(o.Op)
	case member.Renew:
		n.leaseEnd.Store(int64(o.End))
		n.order(&n.monitor, monitor.Order{Renew: &o.End})
		n.order(&n.freezer, monitor.Order{Renew: &o.End})
	case member.StartResource:
		resources, kill := []spec.Resource{o.Resource}, spec.Timings{}.WithDefaults().Kill
		if g := n.member.State().Groups[o.Group]; g != nil {
			resources, kill = g.Spec.Resources, g.Owner.Kill
		}
		path, users := n.apps.socket(o.Group, resources)
		n.apps.starts(o.Group, path, users)
		n.order(n.seat(o.Freezer), monitor.Order{Start: &monitor.Start{Group: o.Group, GroupName: o.GroupName, Epoch: o.Epoch, StopWithin: o.StopWithin, Kill: kill, Resource: o.Resource, Socket: path}})
	case member.StopResource:
		n.order(n.seat(o.Freezer), monitor.Order{Stop: &monitor.ResourceRef{Group: o.Group, Epoch: o.Epoch, Resource: o.Resource}})
	case member.EndGroup:
		n.order(n.seat(o.Freezer), monitor.Order{End: &monitor.GroupRef{Group: o.Group, Epoch: o.Epoch}})
	case member.StartFreezer:
		if !n.freezer.on {
			n.start(&n.freezer)
		}
	case member.StartFence:
		n.fences.start(o)
	case member.CancelFence:
		n.fences.stop(o.ID)
	case member.Reply:
		if ch, ok := n.waiting[o.Token]; ok {
			delete(n.waiting, o.Token)
			ch <- o.Result // capacity 1
		}
	case member.Applied:
		n.markJoined()
		n.followLinks()
		n.fences.look(o.Events)
		n.mu.Lock()
		if n.changed != nil {
			close(n.changed)
			n.changed = nil
		}
		n.mu.Unlock()
	case member.Log:
		n.log.Log(context.Background(), level(o.Level), o.Text, o.Args...)
	case member.Stopped:
		n.stopped = true
		close(n.halted)
	default:
		panic(fmt.Sprintf("agent: unknown output %T", out))
	}
}

func level(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// input hands in to the loop, in order with all else; false when the loop has ended.
func (n *Node) input(in member.Input) bool { return n.give(job{in: in}) }

func (n *Node) give(j job) bool {
	select {
	case n.jobs <- j:
		return true
	case <-n.ended:
		return false
	}
}

// inLoop runs fn in the loop and waits for it.
func (n *Node) inLoop(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	j := job{fn: func() { defer close(done); fn() }}
	select {
	case n.jobs <- j:
	case <-n.ended:
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-n.ended:
		return ErrStopping
	}
}

// ask steps the member with what input returns for a fresh token, and waits for
// the Reply.
func (n *Node) ask(ctx context.Context, input func(token uint64) member.Input) (confdb.Result, error) {
	ch := make(chan confdb.Result, 1)
	var token uint64
	if err := n.inLoop(ctx, func() {
		n.token++
		token = n.token
		n.waiting[token] = ch
		n.step(input(token))
	}); err != nil {
		return confdb.Result{}, err
	}
	select {
	case r := <-ch:
		return r, nil
	case <-n.ended:
		return confdb.Result{}, ErrStopping
	case <-ctx.Done():
		n.give(job{fn: func() { delete(n.waiting, token) }})
		return confdb.Result{}, ctx.Err()
	}
}

// Submit has a command committed and waits until it is applied here. When ctx
// ends before, its error is returned and the outcome is unknown: submitting the
// same id again finds out.
func (n *Node) Submit(ctx context.Context, c confdb.Command) (confdb.Result, error) {
	return n.ask(ctx, func(token uint64) member.Input { return member.Submit{Token: token, Command: c} })
}

// Membership has the leader (this node; else the result says not_leader) change
// the membership.
func (n *Node) Membership(ctx context.Context, m member.Membership) (confdb.Result, error) {
	return n.ask(ctx, func(token uint64) member.Input {
		m.Token = token
		return m
	})
}

// Bootstrap makes this node the first of a new cluster. Its database is made the
// model's; this is written down first. (It may be another's since a bootstrap
// that was refused.)
func (n *Node) Bootstrap(ctx context.Context, q spec.Quorum) (confdb.Result, error) {
	switch q.Model {
	case spec.SingleNode:
		q.Device = ""
	case spec.MajorityNodeSet:
		q = spec.Quorum{}
	}
	var failed error
	r, err := n.ask(ctx, func(token uint64) member.Input {
		if failed = n.become(q); failed != nil {
			n.do(member.Reply{Token: token})
			return member.Tick{}
		}
		return member.Membership{Token: token, Op: "bootstrap"} // in the same step: no other's model comes between
	})
	return r, cmp.Or(err, failed)
}

// Read calls fn in the loop, between two steps. fn is quick and keeps no pointer
// into the state; the status is a copy.
func (n *Node) Read(ctx context.Context, fn func(*confdb.State, member.Status)) error {
	return n.inLoop(ctx, func() {
		st := n.member.Status()
		st.Driver.Voters = slices.Clone(st.Driver.Voters)
		st.Driver.Learners = slices.Clone(st.Driver.Learners)
		st.UpNodes = slices.Clone(st.UpNodes)
		fn(n.member.State(), st)
	})
}

// Changed is closed at the next update of the state.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// Facts are what the node knows of itself.
func (n *Node) Facts() Facts {
	f := n.facts
	f.Program, f.MonitorPID, f.FreezerPID = n.sum(), n.monitor.pid.get(), n.freezer.pid.get()
	f.NoReset = n.noReset
	for _, s := range [...]*seat{&n.freezer, &n.monitor} {
		if why := s.waits.Load(); why != nil {
			f.NotReady = *why
		}
	}
	_, life := n.cert.current()
	f.CertNotAfter = life.until
	if t := n.trouble.Load(); t != nil {
		f.Trouble = *t
	}
	return f
}
