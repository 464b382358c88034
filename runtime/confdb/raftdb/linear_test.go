package raftdb_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

// The register is a group's ownership: an Assign is a compare-and-swap of its
// epoch, and a barrier (Nothing) followed by a look at the state is a read.
type ownership struct {
	epoch uint64
	node  string
}

type op struct {
	read bool
	from uint64 // of an Assign
	node string
}

type outcome struct {
	unknown bool
	code    string
	seen    ownership // of a read
}

var model = porcupine.Model{
	Init: func() any { return ownership{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(ownership), input.(op), output.(outcome)
		if in.read {
			return out.unknown || out.seen == s, s
		}
		next, code := s, confdb.CodeConflict
		if in.from == s.epoch {
			next, code = ownership{s.epoch + 1, in.node}, ""
		}
		return out.unknown || out.code == code, next
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}

// client sends one operation after the other to servers at random, and each
// again with the same id when it hears nothing.
type client struct {
	w       *confdbtest.World
	name    string
	history *[]porcupine.Operation
	known   uint64 // the epoch that it saw last
	n       int
	process int // in the history; a new one after an unknown outcome, which never ends
	clients *int
}

const opPatience = 3 * time.Second

func (c *client) next(end int64) {
	if int64(c.w.Now) >= end {
		return
	}
	c.n++
	in := op{read: c.w.Rng.IntN(3) == 0, from: c.known, node: fmt.Sprint("n", c.w.Rng.IntN(3)+1)}
	command := confdb.Command{ID: fmt.Sprint(c.name, "-", c.n), Nothing: true}
	if !in.read {
		command = confdb.Command{ID: command.ID, Assign: &confdb.Assign{Group: "g", From: in.from, Node: in.node}}
	}
	called := c.w.Now
	done := false
	finish := func(out outcome) {
		if done {
			return
		}
		done = true
		o := porcupine.Operation{ClientId: c.process, Input: in, Output: out, Call: int64(called), Return: int64(c.w.Now)}
		if out.unknown {
			o.Return = math.MaxInt64 // it may still happen, at any time
			*c.clients++
			c.process = *c.clients
		}
		*c.history = append(*c.history, o)
		c.w.After(time.Duration(c.w.Rng.Int64N(int64(60*time.Millisecond))), func() { c.next(end) })
	}
	var try func()
	try = func() {
		if done {
			return
		}
		if c.w.Now.Sub(called) > opPatience {
			finish(outcome{unknown: true})
			return
		}
		s := c.w.Servers[c.w.Rng.IntN(len(c.w.Servers))]
		if s.Driver != nil && !s.Paused {
			was := s.OnApply
			s.OnApply = func(applied confdb.Command, r confdb.Result) {
				if was != nil {
					was(applied, r)
				}
				if applied.ID != command.ID || done {
					return
				}
				out := outcome{code: r.Code}
				if g := s.State.Groups["g"]; g != nil {
					c.known = g.Owner.Epoch
					out.seen = ownership{g.Owner.Epoch, g.Owner.Node}
				}
				finish(out)
			}
			_ = s.Propose(command)
		}
		c.w.After(300*time.Millisecond, try)
	}
	try()
}

// Several clients, and everything that may happen to three servers: what they
// see is what one copy would have shown them, each retried command is carried
// out once, and in the end all servers have the same.
func TestLinearizable(t *testing.T) {
	operations, unknown, elections := 0, 0, 0
	for seed := range uint64(7) {
		w := world(t, confdbtest.Config{Seed: 1000 + seed, Servers: 3 + int(seed%2)*2, CompactEvery: 40, Disk: 15 * time.Millisecond})
		setup(w)
		var history []porcupine.Operation
		clients := 4
		end := int64(w.Now.Add(15 * time.Second))
		for i := range clients {
			c := &client{w: w, name: fmt.Sprint("client", i), history: &history, process: i, clients: &clients}
			c.next(end)
		}
		term := w.Leader().Driver.Status().Term
		for int64(w.Now) < end {
			w.Run(time.Duration(w.Rng.Int64N(int64(400 * time.Millisecond))))
			fault(w)
		}
		heal(w)
		w.Run(5 * time.Second)
		settle(w, 20*time.Second)
		elections += int(w.Leader().Driver.Status().Term - term)
		for _, o := range history {
			operations++
			if o.Output.(outcome).unknown {
				unknown++
			}
		}
		result, info := porcupine.CheckOperationsVerbose(model, history, 20*time.Second)
		if result == porcupine.Illegal {
			path := fmt.Sprintf("%s/linear-%d.html", t.ArtifactDir(), seed)
			_ = porcupine.VisualizePath(model, info, path)
			t.Fatalf("seed %d: %d operations are not linearizable; see %s", seed, len(history), path)
		}
		if result == porcupine.Unknown {
			t.Errorf("seed %d: the check of %d operations took too long", seed, len(history))
		}
	}
	t.Logf("%d operations, %d of unknown outcome, %d terms", operations, unknown, elections)
	if operations < 1000 || elections < 15 || unknown == 0 {
		t.Errorf("the test met too little: %d operations, %d of unknown outcome, %d terms", operations, unknown, elections)
	}
}

func setup(w *confdbtest.World) {
	w.T.Helper()
	commands := []confdb.Command{{ID: "group", PutGroup: &spec.Group{ID: "g", Name: "g", Addr: addr.Group("g", addr.NoKey)}}}
	for i := range 3 {
		id := fmt.Sprint("n", i+1)
		commands = append(commands, confdb.Command{ID: id, PutNode: &confdb.PutNode{
			Spec: spec.Node{ID: id, Name: id, Addr: addr.Node(id, addr.NoKey)}, ServerID: uint64(i + 1), Endpoint: id + ":1"}})
	}
	for _, c := range commands {
		if err := w.Leader().Propose(c); err != nil {
			w.T.Fatal(err)
		}
	}
	settle(w, 5*time.Second)
}

// fault lets something happen to one server or one way between two.
func fault(w *confdbtest.World) {
	s := w.Servers[w.Rng.IntN(len(w.Servers))]
	other := w.Servers[w.Rng.IntN(len(w.Servers))]
	switch w.Rng.IntN(9) {
	case 0:
		if s.Driver != nil {
			s.Crash()
		}
	case 1, 2:
		for _, s := range w.Servers {
			if s.Driver == nil {
				s.Start()
			}
		}
	case 3:
		w.Isolate(s.ID, true)
	case 4:
		w.Cut(s.ID, other.ID, true) // one way
	case 5:
		for _, s := range w.Servers {
			w.Isolate(s.ID, false)
		}
	case 6:
		if s.Driver != nil && !s.Paused {
			s.Pause()
		}
	case 7:
		for _, s := range w.Servers {
			if s.Driver != nil && s.Paused {
				s.Resume()
			}
		}
	case 8:
		w.Loss = []float64{0, 0, 0.1, 0.3}[w.Rng.IntN(4)]
	}
}

func heal(w *confdbtest.World) {
	w.Loss = 0
	for _, s := range w.Servers {
		w.Isolate(s.ID, false)
		switch {
		case s.Driver == nil:
			s.Start()
		case s.Paused:
			s.Resume()
		}
	}
}
