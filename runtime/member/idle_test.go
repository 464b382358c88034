package member

import (
	"slices"
	"testing"
	"time"
)

// idle is a settled cluster of three, stepped by hand: a leader's round and its
// answers, with nothing of the world's between them.
type idle struct {
	tb      testing.TB
	members []*host // the leader, then the others
	ends    []string
	in      []FrameIn // by member, what comes to it next
	frames  int       // that left
	renewed int
}

func newIdle(tb testing.TB) *idle {
	w := newWorld(&testing.T{}, 3)
	w.put(groupSpec("web", "n1"))
	w.put(groupSpec("db", "n2"))
	w.until("both groups run", 10*time.Second, func() bool { return w.online("web") && w.online("db") })
	w.run(5 * time.Second)
	i := &idle{tb: tb, members: []*host{w.leader()}, in: make([]FrameIn, 3)}
	for _, h := range w.hosts {
		if h != w.leader() {
			i.members = append(i.members, h)
		}
	}
	for _, h := range i.members {
		i.ends = append(i.ends, h.endpoint())
	}
	return i
}

// step steps a member, and copies its frames to whom they are for. Anything but
// frames and renewals is work that an idle node has no reason for.
func (i *idle) step(at int, in Input) {
	h := i.members[at]
	for _, o := range h.m.Step(h.clock(), in) {
		switch o := o.(type) {
		case *SendFrame:
			to := &i.in[slices.Index(i.ends, o.To)]
			driver := append(to.Frame.Driver[:0], o.Frame.Driver...)
			to.From, to.Frame = i.ends[at], o.Frame
			to.Frame.Driver = driver
			i.frames++
		case Renew:
			i.renewed++
		default:
			i.tb.Fatalf("%s, idle, does %T", h.name, o)
		}
	}
}

// round is 50 ms of the cluster.
func (i *idle) round() {
	leader := i.members[0]
	leader.w.now += int64(max(leader.trueSpan(leader.m.NextDeadline()), 0))
	i.step(0, Tick{})
	for at := 1; at < 3; at++ {
		i.step(at, &i.in[at])
		i.step(0, &i.in[0])
	}
}

// A round happens twenty times a second on every node, for ever: each member does
// one thing an occasion, and nearly without garbage. What is left is Raft's own
// (its status is made of pointers), renewals, and now and then a sheet for beats.
func TestIdleRound(t *testing.T) {
	i := newIdle(t)
	for range 100 {
		i.round()
	}
	i.frames, i.renewed = 0, 0
	const rounds = 200
	n := testing.AllocsPerRun(rounds-1, i.round) // which runs it once more
	if i.frames != 4*rounds || i.renewed < 2*rounds || i.renewed > 4*rounds {
		t.Errorf("in %d rounds %d frames (want four a round) and %d renewals (want two to four)", rounds, i.frames, i.renewed)
	}
	if n > 12 {
		t.Errorf("a round of three members allocates %.0f times, want 11 or so", n)
	}
}

func BenchmarkIdleMembers(b *testing.B) {
	i := newIdle(b)
	b.ReportAllocs()
	for b.Loop() {
		i.round()
	}
}
