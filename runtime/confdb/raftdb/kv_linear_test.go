package raftdb_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/confdb/confdbtest"
)

// The register is a key: puts, compare-and-swaps by revision, deletes, and reads
// behind a barrier, as runtime/api makes them.
type register struct {
	value    string
	revision uint64 // 0: no such key
}

type kvOp struct {
	kind  string // get | put | cas | delete
	value string
	from  uint64
}

type kvOutcome struct {
	unknown bool
	code    string
	result  uint64 // revision of a write
	seen    register
}

var kvModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{register{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(register), input.(kvOp), output.(kvOutcome)
		if in.kind == "get" {
			if out.unknown || out.seen == s {
				return []any{s}
			}
			return nil
		}
		if in.kind == "cas" && in.from != s.revision {
			if out.unknown || out.code == confdb.CodeMismatch {
				return []any{s}
			}
			return nil
		}
		if !out.unknown && out.code != "" {
			return nil
		}
		next := register{in.value, out.result}
		if in.kind == "delete" {
			next = register{}
		}
		if out.unknown { // values are unique: a revision that nobody was told is found by its value
			next.revision = revisions[in.value]
		}
		return []any{next}
	},
	Equal:             func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}).ToModel()

// revisions are those that values were written at, whoever saw it.
var revisions map[string]uint64

// Keys under faults: no acknowledged write is lost, no old value comes back, a
// compare-and-swap wins once.
func TestKeysAreLinearizable(t *testing.T) {
	operations, unknown := 0, 0
	for seed := range uint64(4) {
		w := world(t, confdbtest.Config{Seed: 2000 + seed, Servers: 3, CompactEvery: 40, Disk: 15 * time.Millisecond})
		setup(w)
		revisions = map[string]uint64{}
		var history []porcupine.Operation
		clients := 4
		end := int64(w.Now.Add(12 * time.Second))
		for i := range clients {
			c := &kvClient{w: w, name: fmt.Sprint("c", i), history: &history, process: i, clients: &clients}
			c.next(end)
		}
		for int64(w.Now) < end {
			w.Run(time.Duration(w.Rng.Int64N(int64(400 * time.Millisecond))))
			fault(w)
		}
		heal(w)
		w.Run(5 * time.Second)
		settle(w, 20*time.Second)
		for _, o := range history {
			operations++
			if o.Output.(kvOutcome).unknown {
				unknown++
			}
		}
		switch result, info := porcupine.CheckOperationsVerbose(kvModel, history, 20*time.Second); result {
		case porcupine.Illegal:
			path := fmt.Sprintf("%s/keys-%d.html", t.ArtifactDir(), seed)
			_ = porcupine.VisualizePath(kvModel, info, path)
			t.Fatalf("seed %d: %d operations are not linearizable; see %s", seed, len(history), path)
		case porcupine.Unknown:
			t.Errorf("seed %d: the check of %d operations took too long", seed, len(history))
		}
	}
	t.Logf("%d operations, %d of unknown outcome", operations, unknown)
	if operations < 400 {
		t.Errorf("the test met too little: %d operations", operations)
	}
}

type kvClient struct {
	w       *confdbtest.World
	name    string
	history *[]porcupine.Operation
	known   uint64 // the revision that it saw last
	n       int
	process int
	clients *int
}

func (c *kvClient) next(end int64) {
	if int64(c.w.Now) >= end {
		return
	}
	c.n++
	id := fmt.Sprint(c.name, "-", c.n)
	in := kvOp{kind: []string{"get", "get", "put", "cas", "cas", "delete"}[c.w.Rng.IntN(6)], value: id, from: c.known}
	command := confdb.Command{ID: id, KV: &confdb.KVWrite{Key: "k", Value: []byte(id)}}
	switch in.kind {
	case "get":
		command = confdb.Command{ID: id, Nothing: true}
	case "cas":
		command.KV.If = &in.from
	case "delete":
		command.KV = &confdb.KVWrite{Key: "k", Delete: true}
	}
	called, done := c.w.Now, false
	finish := func(out kvOutcome) {
		if done {
			return
		}
		done = true
		o := porcupine.Operation{ClientId: c.process, Input: in, Output: out, Call: int64(called), Return: int64(c.w.Now)}
		if out.unknown {
			o.Return = math.MaxInt64
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
			finish(kvOutcome{unknown: true})
			return
		}
		s := c.w.Servers[c.w.Rng.IntN(len(c.w.Servers))]
		if s.Driver != nil && !s.Paused {
			was := s.OnApply
			s.OnApply = func(applied confdb.Command, r confdb.Result) {
				if was != nil {
					was(applied, r)
				}
				if applied.ID != command.ID {
					return
				}
				if command.KV != nil && r.Code == "" {
					revisions[id] = r.Revision
				}
				e, _ := s.State.KV.Lookup("", "k")
				if !done {
					c.known = e.Revision
				}
				finish(kvOutcome{code: r.Code, result: r.Revision, seen: register{string(e.Value), e.Revision}})
			}
			_ = s.Propose(command)
		}
		c.w.After(300*time.Millisecond, try)
	}
	try()
}
