package agent

import (
	"context"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
	"github.com/clusterplan/clusterplan/runtime/monitor"
)

const (
	respawnFirst = 50 * time.Millisecond
	respawnMost  = 5 * time.Second
	respawnCalm  = 10 * time.Second // a monitor that ran this long was no part of a series
	lastStop     = 3 * time.Second  // for a monitor to end once the agent ends
)

// A node has one monitor, and, once a group that freezes may come to it, a
// second one for those: the freezer (runtime/monitor).

// seat is where one of them runs.
type seat struct {
	freezer bool
	process *monitor.Process // the loop's: nil: none takes orders now
	up      bool             // the loop's: it is ready
	ready   member.MonitorUp // the loop's: what it said then
	on      bool             // the loop's: it is supervised
	pid     pid
	waits   atomic.Pointer[string] // why it is not ready yet, as it says; nil: it is, or has said nothing
	watched atomic.Int32           // monitors that the resetter watches
	poke    chan struct{}          // its supervisor's, to who watches the present one: something may have been started; capacity 1
}

func (s *seat) name() string {
	if s.freezer {
		return "freezer"
	}
	return "monitor"
}

// seat is the one that an order is for.
func (n *Node) seat(freezer bool) *seat {
	if freezer {
		return &n.freezer
	}
	return &n.monitor
}

// order gives a monitor an order, if there is one: what a dead one does not
// get, MonitorDown makes up for.
func (n *Node) order(s *seat, o monitor.Order) {
	if s.process == nil {
		return
	}
	if o.Renew == nil {
		n.log.Debug("order to the "+s.name(), "start", o.Start, "stop", o.Stop, "end", o.End)
	}
	if err := s.process.Send(o); err != nil {
		n.log.Warn("the "+s.name()+" did not take an order", "err", err)
	}
}

// supervise keeps a monitor process running, and hands its words to the loop.
// MonitorDown is in the loop before the next monitor is started, so that no
// order meant for one reaches another.
func (n *Node) supervise(ctx context.Context, s *seat) error {
	pause := respawnFirst
	for ctx.Err() == nil {
		began := time.Now()
		n.watchMonitor(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > respawnCalm {
			pause = respawnFirst
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, respawnMost)
	}
	return nil
}

// watchMonitor runs one monitor to its end.
func (n *Node) watchMonitor(ctx context.Context, s *seat) {
	var fences monitor.Fences
	if err := n.inLoop(ctx, func() { fences = n.fencesNow() }); err != nil {
		return
	}
	// Who starts a process keeps one of Go's processors until the kernel has
	// found the program, perhaps on a busy disk: frames have the other meanwhile.
	if !n.cfg.Embedded {
		runtime.GOMAXPROCS(processors + 1)
	}
	conf := monitor.Configure{
		Cluster: n.files.conf.Cluster, Node: n.facts.Name, Dir: n.files.dir,
		Program: n.cfg.Program, Socket: filepath.Join(n.files.dir, runDir, socketFile),
		Freezer: s.freezer, Fences: fences,
	}
	if !s.freezer { // what freezes waits for a fence
		conf.Watchdog, conf.WatchdogTimeout = n.files.conf.Watchdog, n.files.conf.WatchdogTimeout
	}
	p, err := monitor.StartProcess(context.WithoutCancel(ctx), monitor.Options{
		Configure: conf,
		Args:      n.cfg.MonitorArgs, Env: n.cfg.MonitorEnv,
	})
	if !n.cfg.Embedded {
		runtime.GOMAXPROCS(processors)
	}
	if err != nil {
		n.log.Error("the "+s.name()+" does not start; this node can run no group of it", "program", n.cfg.Program, "err", err)
		return
	}
	s.pid.set(p.PID())
	defer s.waits.Store(nil)
	if n.resetter != nil && !s.freezer {
		n.watchRemains(s, p)
	}
	if !n.give(job{fn: func() { s.process = p }}) {
		p.Kill()
	}
	look := time.NewTicker(fencesAgain)
	defer look.Stop()
	for open := true; open; {
		select {
		case w, ok := <-p.Words():
			if open = ok; ok {
				n.word(s, w)
			}
			if w.Ready != nil {
				look.Stop()
			}
		case <-look.C:
			n.give(job{fn: func() {
				if now := n.fencesNow(); s.process == p && !reflect.DeepEqual(now, fences) {
					fences = now
					n.order(s, monitor.Order{Fences: &now})
				}
			}})
		case <-ctx.Done():
			n.endMonitor(s, p)
			return
		}
	}
	<-p.Done()
	s.pid.set(0)
	n.give(job{fn: func() {
		s.process, s.up = nil, false
		n.step(member.MonitorDown{Freezer: s.freezer})
	}})
	n.log.Error("the "+s.name()+" ended; another is started", "err", p.Err())
}

// fencesAgain is how often it is looked whether a fence covers the node while a monitor
// is not ready, which may depend on it.
const fencesAgain = 500 * time.Millisecond

// fencesNow is what the loop knows of that.
func (n *Node) fencesNow() monitor.Fences {
	covers, known := n.member.FenceCovers()
	return fencesOf(covers, known, n.member.State())
}

// fencesOf is what a monitor is told. The state that an agent begins with may be old, or
// none: as long as no leader has told of a newer one, a fence may cover the node.
func fencesOf(covers, known bool, s *confdb.State) monitor.Fences {
	f := monitor.Fences{Covered: covers || !known}
	if covers && known {
		f.Alone = unfencedFor(s)
	}
	return f
}

// unfencedFor are the scripts, as group/resource, for which no node is fenced, though
// one could be: waiting alone frees their groups, as they are exclusive by their own word.
func unfencedFor(s *confdb.State) []string {
	var out []string
	for _, g := range s.Groups {
		if g.Owner.Open || g.Spec.OutlivesLease() {
			continue
		}
		for i := range g.Spec.Resources {
			if r := &g.Spec.Resources[i]; r.StopsByCommand() {
				out = append(out, g.Spec.Name+"/"+r.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// endMonitor has the monitor end when the agent does: it hangs up, which stops
// all that still runs; a monitor that does not end is killed.
func (n *Node) endMonitor(s *seat, p *monitor.Process) {
	p.Close()
	select {
	case <-p.Done():
	case <-time.After(lastStop):
		p.Kill()
		<-p.Done()
	}
	s.pid.set(0)
}

// word turns a word of the monitor into an input.
func (n *Node) word(s *seat, w monitor.Word) {
	if w.Log == nil {
		n.log.Debug("word of the "+s.name(), "ready", w.Ready, "changed", w.Changed, "gone", w.Gone, "down", w.Down)
	}
	if w.Waits != "" {
		s.waits.Store(&w.Waits)
	}
	switch {
	case w.Ready != nil:
		s.waits.Store(nil)
		ready := member.MonitorUp{Freezer: s.freezer, Watchdog: w.Ready.Watchdog, NoWatchdog: w.Ready.NoWatchdog}
		n.give(job{fn: func() {
			s.up, s.ready = true, ready
			n.step(ready)
		}})
	case w.Stuck != "":
		n.stuck(s, w.Stuck)
	case w.Changed != nil:
		select {
		case s.poke <- struct{}{}: // nil: nobody watches
		default:
		}
		n.input(member.ResourceChanged{Group: w.Changed.Group, Epoch: w.Changed.Epoch, Resource: w.Changed.Resource, State: w.Changed.State, Reason: w.Changed.Reason, Stopping: w.Changed.Stopping})
	case w.Gone != nil:
		n.input(member.ResourceChanged{Group: w.Gone.Group, Epoch: w.Gone.Epoch, Resource: w.Gone.Resource, State: spec.StateOffline})
	case w.Down != nil:
		n.apps.ends(w.Down.Group)
		n.input(member.GroupDown{Group: w.Down.Group, Epoch: w.Down.Epoch})
	case w.Log != nil:
		args := make([]any, 0, 2*len(w.Log.Args)+2)
		for k, v := range w.Log.Args {
			args = append(args, k, v)
		}
		n.log.Log(context.Background(), level(w.Log.Level), w.Log.Text, append(args, "from", s.name())...)
	}
}
