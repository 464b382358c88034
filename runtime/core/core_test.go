package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/heartbeat"
)

// script is one machine, n1 with server id 1 and incarnation 11, and what its
// surroundings say to it. A script in testdata reads like a protocol's trace.
type script struct {
	t        *testing.T
	m        *Machine
	state    *confdb.State
	drv      confdb.Status
	now      spec.Instant
	seqs     map[uint64]uint64 // newest Seq of each peer
	acks     map[uint64]uint64 // newest own Seq to each peer
	proposed []confdb.Command
	began    spec.Instant // of the command fences
	fence    uint64       // id of the newest StartFence
}

func (s *script) step(ev Event) string { return s.tell(s.m.Step(s.now, ev)) }

func (s *script) tell(effects []Effect) string {
	var b strings.Builder
	for _, e := range effects {
		switch e := e.(type) {
		case Propose:
			if e.Command.QuorumLost != nil {
				continue // nothing rests on it; runtime/member's TestQuorumLost
			}
			s.proposed = append(s.proposed, e.Command)
			fmt.Fprintf(&b, "propose %s\n", command(e))
		case Send:
			fmt.Fprintf(&b, "send a frame to %d\n", e.Server)
		case Renew:
			fmt.Fprintf(&b, "lease until %s\n", time.Duration(e.End))
		case StartResource:
			fmt.Fprintf(&b, "start %s/%s under epoch %d%s\n", e.GroupName, e.Resource.Name, e.Epoch, where(e.Freezer))
		case StopResource:
			fmt.Fprintf(&b, "stop %s/%s under epoch %d%s\n", e.Group, e.Resource, e.Epoch, where(e.Freezer))
		case EndGroup:
			fmt.Fprintf(&b, "end %s under epoch %d%s\n", e.Group, e.Epoch, where(e.Freezer))
		case StartFreezer:
			fmt.Fprintf(&b, "start the freezer\n")
		case StartFence:
			s.fence = e.ID
			fmt.Fprintf(&b, "fence %s, levels %d\n", e.Node, len(e.Levels))
		case CancelFence:
			fmt.Fprintf(&b, "cancel the fence: %v\n", e.ID == s.fence)
		case Say:
			fmt.Fprintf(&b, "log %s: %s\n", e.Level, e.Text)
		case HandLead:
			fmt.Fprintf(&b, "hand leadership over\n")
		case Drained:
			fmt.Fprintf(&b, "drained\n")
		}
	}
	if b.Len() == 0 {
		return "ok\n"
	}
	return b.String()
}

func where(freezer bool) string {
	if freezer {
		return ", in the freezer"
	}
	return ""
}

func command(p Propose) string {
	c := p.Command
	switch {
	case c.Assign != nil:
		s := fmt.Sprintf("assign %s from epoch %d to %q (%s)", c.Assign.Group, c.Assign.From, c.Assign.Node, c.Assign.Why)
		if c.Assign.LeftFailed != "" {
			s += " left failed"
		}
		return fmt.Sprintf("%s in term %d", s, p.Term)
	case c.Handover != nil:
		return fmt.Sprintf("handover %s epoch %d to %q (%s) in term %d", c.Handover.Group, c.Handover.From, c.Handover.To, c.Handover.Why, p.Term)
	case c.SetView != nil:
		return fmt.Sprintf("view %v in term %d", c.SetView.Up, p.Term)
	case c.Report != nil:
		r := c.Report
		s := fmt.Sprintf("report %s epoch %d %s", r.Group, r.Epoch, r.State)
		for _, x := range r.Resources {
			s += " " + x.Name + "=" + x.State
		}
		if r.GiveUp {
			s += " give up"
		}
		return s
	case c.NodeFenced != nil:
		f := c.NodeFenced
		if !f.OK {
			return fmt.Sprintf("fence of %s failed (%s) in term %d", f.Node, f.Error, p.Term)
		}
		return fmt.Sprintf("%s is fenced by %s, over: %v in term %d", f.Node, f.By, f.Groups, p.Term)
	case c.Event != nil:
		return "event " + c.Event.Kind + ": " + c.Event.Text
	}
	return "something else"
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	num := func(key string, def uint64) uint64 {
		if d.HasArg(key) {
			d.ScanArgs(t, key, &def)
		}
		return def
	}
	str := func(key, def string) string {
		if d.HasArg(key) {
			d.ScanArgs(t, key, &def)
		}
		return def
	}
	span := func(key string, def time.Duration) time.Duration {
		if d.HasArg(key) {
			var v string
			d.ScanArgs(t, key, &v)
			def, _ = time.ParseDuration(v)
		}
		return def
	}
	switch d.Cmd {
	case "state": // nodes=3, then a group a line: name owner epoch [resources...]
		s.state = confdb.NewState()
		s.state.Cluster = spec.Cluster{ID: "c", Name: "c"}
		s.state.Revision = num("rev", 10)
		for i := range num("nodes", 3) {
			name := fmt.Sprint("n", i+1)
			s.state.Nodes[name] = &confdb.Node{ServerID: i + 1, Joined: true, Spec: spec.Node{ID: name, Name: name, Addr: addr.Node(name, addr.NoKey), Votes: 1, Role: spec.RoleMember}}
			s.state.View.Up = append(s.state.View.Up, name)
		}
		for line := range strings.Lines(d.Input) {
			f := strings.Fields(line)
			g := &confdb.Group{Want: spec.WantOnline, State: spec.StateOnline, Owner: confdb.Ownership{Node: strings.Trim(f[1], "-"), Lease: spec.Duration(600 * time.Millisecond), StopWithin: spec.Duration(100 * time.Millisecond), Kill: spec.Duration(50 * time.Millisecond)}}
			fmt.Sscan(f[2], &g.Owner.Epoch)
			g.Spec = spec.Group{ID: f[0], Name: f[0], Addr: addr.Group(f[0], addr.NoKey), Priority: 2000, PersistentState: spec.WantOnline}
			for _, r := range f[3:] { // name, name<dependency or name<|any,any; or freeze
				if r == "freeze" {
					g.Spec.NoQuorum = spec.NoQuorumFreeze
					continue
				}
				name, deps, _ := strings.Cut(r, "<")
				res := spec.Resource{Name: name, PendingTimeout: spec.Duration(3 * time.Minute), Restart: spec.Restart{Action: spec.RestartRestart, Threshold: 1, Period: spec.Duration(15 * time.Minute), Delay: spec.Duration(time.Second), AffectGroup: true}}
				if any, ok := strings.CutPrefix(deps, "|"); ok {
					res.DependsOnAny = strings.Split(any, ",")
				} else if deps != "" {
					res.DependsOn = strings.Split(deps, ",")
				}
				g.Spec.Resources = append(g.Spec.Resources, res)
			}
			s.state.Groups[f[0]] = g
		}
		if s.m == nil {
			s.m = New(Config{Node: "n1", Name: "n1", Server: 1, Incarnation: 11, Wall: time.Unix(0, 0), Freezer: d.HasArg("freezer")}, s.now, s.state)
			return "ok\n"
		}
		return s.step(StateChanged{s.state})
	case "alive": // n3 goes on answering, every 50 ms; what is told beside leases
		var b strings.Builder
		quiet := func(out string) {
			for line := range strings.Lines(out) {
				if line != "ok\n" && !strings.HasPrefix(line, "lease until") {
					fmt.Fprintf(&b, "%s: %s", s.now.Sub(s.began), line)
				}
			}
		}
		for end := s.now.Add(span("for", time.Second)); s.now < end; {
			s.now = min(s.now.Add(50*time.Millisecond), end)
			quiet(s.step(Tick{}))
			f := s.m.Frame(s.now, 3)
			s.seqs[3]++
			quiet(s.step(Heard{&heartbeat.Frame{From: 3, To: 1, Incarnation: 33, Seq: s.seqs[3], NodeID: "n3", Term: s.drv.Term, Leader: 1, AckIncarnation: 11,
				AckSeq: f.Seq, Ready: true, Revision: s.state.Revision, UpSince: time.Hour, Held: 1 << 60, OldTermAge: span("old", time.Hour)}}))
		}
		if b.Len() == 0 {
			return "ok\n"
		}
		return b.String()
	case "fences": // a fence for every node; exclusive: all that runs dies with its lease
		if s.began = s.now; d.HasArg("exclusive") {
			for _, g := range s.state.Groups {
				for i := range g.Spec.Resources {
					g.Spec.Resources[i].Type = "generic_application"
				}
			}
		}
		f := spec.Fence{ID: "f", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_x", Level: 1, When: str("when", "needed")}
		s.state.Fences["f"] = &confdb.Fence{Spec: f}
		return s.step(StateChanged{s.state})
	case "watchdogs": // every node has one; what runs may outlive its lease
		t := spec.Duration(span("timeout", 5*time.Second))
		for _, n := range s.state.Nodes {
			n.Spec.Watchdog, n.Spec.WatchdogTimeout = "/dev/watchdog", t
		}
		for _, g := range s.state.Groups {
			g.Owner.Watchdog = t
		}
		s.began, s.state.ConfigRevision = s.now, s.state.ConfigRevision+1
		return s.step(StateChanged{s.state})
	case "proof": // of a fencing by another leader
		r := s.state.Apply(confdb.Command{ID: fmt.Sprint("op", s.state.Revision), NodeFenced: &confdb.NodeFenced{
			Node: str("node", ""), OK: true, By: "power", Groups: map[string]uint64{str("group", ""): num("epoch", 0)}}})
		if r.Code != "" {
			return r.Detail + "\n"
		}
		return s.step(StateChanged{s.state})
	case "fenced": // how the newest StartFence ended
		return s.step(FenceDone{ID: s.fence - num("older", 0), OK: d.HasArg("ok"), Cancelled: d.HasArg("cancelled"), Err: str("err", ""), By: "power"})
	case "after":
		for _, a := range d.CmdArgs {
			v, err := time.ParseDuration(a.Key)
			if err != nil {
				t.Fatal(err)
			}
			s.now = s.now.Add(v)
		}
		return s.step(Tick{})
	case "agreement":
		s.drv = confdb.Status{Self: 1, Term: num("term", 5), Leader: num("leader", 1), Voters: []uint64{1, 2, 3}, Needed: 2, Ready: d.HasArg("ready")}
		if l := num("learner", 0); l != 0 {
			s.drv.Learners = []uint64{l}
		}
		if s.drv.Leader == 1 {
			s.drv.Role = confdb.Leader
		}
		return s.step(Agreement{s.drv})
	case "monitor":
		if str("is", "up") == "down" {
			return s.step(MonitorDown{Freezer: d.HasArg("freezer")})
		}
		return s.step(MonitorUp{Freezer: d.HasArg("freezer"), Watchdog: spec.Duration(span("watchdog", 0)), NoWatchdog: str("no-watchdog", "")})
	case "frame":
		to := num("to", 2)
		f := s.m.Frame(s.now, to)
		s.acks[to] = f.Seq
		out := fmt.Sprintf("frame %d: term %d, leader %d, answers %d/%d, old term %s ago", f.Seq, f.Term, f.Leader, f.AckIncarnation, f.AckSeq, f.OldTermAge)
		if f.Grant > 0 {
			out += fmt.Sprintf(", grants %s for %d/%d", f.Grant, f.GrantIncarnation, f.GrantSeq)
		}
		for _, r := range f.Releases {
			out += fmt.Sprintf(", releases %s epoch %d of %d", r.Group, r.Epoch, r.Incarnation)
		}
		return out + "\n"
	case "heard": // an answer to the newest frame, unless told otherwise
		from := num("from", 2)
		s.seqs[from]++
		f := heartbeat.Frame{
			From: from, To: 1, Incarnation: num("inc", 11*from), Seq: num("seq", s.seqs[from]), NodeID: fmt.Sprint("n", from),
			Term: num("term", s.drv.Term), Leader: num("leader", s.drv.Leader), AckIncarnation: num("ackinc", 11), AckSeq: num("ack", s.acks[from]),
			Ready: !d.HasArg("unready"), Revision: num("rev", s.state.Revision), UpSince: span("up", time.Hour), Held: num("held", 1<<60), OldTermAge: span("old", time.Hour),
			Grant: span("grant", 0), GrantIncarnation: num("grantinc", 11), GrantSeq: num("grantseq", s.acks[from]),
		}
		if g := str("release", ""); g != "" {
			f.Releases = []heartbeat.Release{{Group: g, Epoch: num("epoch", 1), Incarnation: num("relinc", f.Incarnation)}}
		}
		return s.step(Heard{&f})
	case "commit": // the oldest proposal, or lost
		if len(s.proposed) == 0 {
			return "nothing is proposed\n"
		}
		c := s.proposed[0]
		s.proposed = s.proposed[1:]
		if d.HasArg("lost") {
			return s.step(Proposed{ID: c.ID, Result: confdb.Result{Code: CodeLost}})
		}
		r := s.state.Apply(c)
		out := ""
		if r.Code != "" {
			out = fmt.Sprintf("refused: %s\n", r.Detail)
		}
		out += s.step(StateChanged{s.state})
		return out + s.step(Proposed{ID: c.ID, Result: r})
	case "apply":
		c := confdb.Command{ID: fmt.Sprint("op", s.state.Revision)}
		group := str("group", "web")
		switch str("do", "") {
		case "offline":
			c.SetWant = &confdb.SetWant{Group: group, Want: spec.WantOffline}
		case "online":
			c.SetWant = &confdb.SetWant{Group: group, Want: spec.WantOnline}
		case "stop", "freeze": // no_quorum
			next := s.state.Groups[group].Spec
			next.NoQuorum = str("do", "")
			c.PutGroup = &next
		case "move":
			c.MoveGroup = &confdb.MoveGroup{Group: group, To: str("to", "")}
		case "fence":
			c.Author, c.FenceNode = "ann", &confdb.FenceNode{Node: str("node", "n2")}
		case "confirmed-off":
			c.Author, c.FenceNode = "ann", &confdb.FenceNode{Node: str("node", "n2"), ConfirmedOff: true}
		case "assign":
			c.Assign = &confdb.Assign{Group: group, From: s.state.Groups[group].Owner.Epoch, Node: str("to", ""), Timings: s.state.Groups[group].Owner}
		}
		r := s.state.Apply(c)
		if r.Code != "" {
			return r.Detail + "\n"
		}
		return s.step(StateChanged{s.state})
	case "resource":
		return s.step(ResourceChanged{Group: str("group", "web"), Epoch: num("epoch", 1), Resource: str("name", ""), State: str("is", ""), Reason: str("reason", "")})
	case "down":
		return s.step(GroupDown{Group: str("group", "web"), Epoch: num("epoch", 1)})
	case "shutdown":
		return s.step(Shutdown{})
	case "deadline":
		d := s.m.NextDeadline()
		if d == 0 {
			return "none\n"
		}
		return fmt.Sprintf("in %s\n", d.Sub(s.now))
	}
	t.Fatalf("%s: what is %q?", d.Pos, d.Cmd)
	return ""
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t, now: spec.Instant(time.Hour), seqs: map[uint64]uint64{}, acks: map[uint64]uint64{}}
		datadriven.RunTest(t, path, s.run)
	})
}
