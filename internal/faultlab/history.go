package faultlab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clusterplan/clusterplan/client"
)

// History is what clients of the cluster's key-value store have asked and been
// answered, on every node at once, while things go wrong.
type History struct {
	cluster *Cluster
	prefix  string // of this history's keys
	began   time.Time
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu      sync.Mutex
	ops     []porcupine.Operation
	unknown int
	refused int
}

// What an operation asked and was answered. Values are unique, so that a
// compare-and-swap by revision is one by value.
type (
	asked struct {
		key, kind string // get | put | cas
		old, new  string // cas: old "" means that there is no such key
	}
	answered struct {
		value   string // of get; "": there is none
		ok      bool   // of cas
		unknown bool   // of put and cas: it may have been done
	}
)

const (
	historyKeys  = 3
	historyPause = 20 * time.Millisecond // between two operations of a client, at most
	opWithin     = time.Second
)

// NewHistory begins clients, one a node, on keys of their own that nobody has
// used. Stop ends them.
func NewHistory(c *Cluster, prefix string, seed uint64) (*History, error) {
	ctx, cancel := context.WithCancel(context.Background())
	h := &History{cluster: c, prefix: prefix, began: time.Now(), cancel: cancel}
	for i, node := range c.Names() {
		api, err := client.New(client.Config{Socket: filepath.Join(c.Dir, ".clusterplan", "nodes", node, "run", "api.sock"), Patience: opWithin})
		if err != nil {
			cancel()
			h.group.Wait()
			return nil, fmt.Errorf("a client of %s: %w", node, err)
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		h.group.Go(func() { h.run(ctx, i, api.Cluster(), r) })
	}
	return h, nil
}

// run does one thing after the other.
func (h *History) run(ctx context.Context, id int, kv *client.Space, r *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		wait(ctx, time.Duration(r.Int64N(int64(historyPause))))
		if ctx.Err() != nil {
			return
		}
		in := asked{key: fmt.Sprintf("%s/%d", h.prefix, r.IntN(historyKeys)), kind: "get", new: fmt.Sprintf("%d-%d", id, n)}
		var seen client.Entry
		switch r.IntN(4) {
		case 0:
			in.kind = "put"
		case 1, 2:
			var ok bool
			if seen, ok = h.get(id, kv, in.key); !ok {
				continue
			}
			in.kind, in.old = "cas", string(seen.Value)
		}
		if in.kind == "get" {
			h.get(id, kv, in.key)
			continue
		}
		// Not with ctx: what was begun ends, so that its outcome is known.
		opCtx, cancel := context.WithTimeout(context.Background(), opWithin+time.Second)
		call := time.Since(h.began)
		var err error
		if in.kind == "put" {
			_, err = kv.Put(opCtx, in.key, []byte(in.new))
		} else {
			_, err = kv.CAS(opCtx, in.key, []byte(in.new), seen.Revision)
		}
		cancel()
		h.note(id, in, call, err)
	}
}

// get reads a key, and notes what it was told.
func (h *History) get(id int, kv *client.Space, key string) (client.Entry, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), opWithin+time.Second)
	defer cancel()
	call := time.Since(h.began)
	e, err := kv.Get(ctx, key)
	back := time.Since(h.began)
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, client.ErrNotFound) {
		e, err = client.Entry{}, nil
	}
	if err != nil { // nothing was learned
		h.refused++
		return e, false
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: asked{key: key, kind: "get"}, Call: int64(call), Output: answered{value: string(e.Value)}, Return: int64(back)})
	return e, true
}

// note writes down what became of a write.
func (h *History) note(id int, in asked, call time.Duration, err error) {
	back := int64(time.Since(h.began))
	h.mu.Lock()
	defer h.mu.Unlock()
	out := answered{ok: err == nil}
	switch {
	case err == nil, errors.Is(err, client.ErrChanged):
	case errors.Is(err, client.ErrNoQuorum):
		h.refused++ // for sure not done
		return
	default: // whatever it was: nobody knows whether it is done, or will be
		h.unknown++
		out.unknown, back = true, int64(1)<<62
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: id, Input: in, Call: int64(call), Output: out, Return: back})
}

// Outcome is what a history came to.
type Outcome struct {
	Operations int // with an outcome that is known, or may be
	Unknown    int // of these: writes that may have been done
	Refused    int // not done, or not answered
}

// Stop ends the clients and tells whether there is an order of all operations,
// each between its call and its answer, that explains every answer.
func (h *History) Stop() (Outcome, error) {
	h.cancel()
	h.group.Wait()
	out := Outcome{Operations: len(h.ops), Unknown: h.unknown, Refused: h.refused}
	// A client of the model has one operation at a time; one whose outcome is
	// never known goes on for ever, so each such has a client of its own.
	next := h.cluster.Nodes
	for i := range h.ops {
		if h.ops[i].Output.(answered).unknown {
			h.ops[i].ClientId = next
			next++
		}
	}
	switch result, _ := porcupine.CheckOperationsVerbose(model, h.ops, checkWithin); result {
	case porcupine.Illegal:
		return out, fmt.Errorf("the database is not linearizable: no order explains the %d operations on keys %s/*", len(h.ops), h.prefix)
	case porcupine.Unknown:
		return out, fmt.Errorf("%d operations on keys %s/* could not be checked within %s", len(h.ops), h.prefix, checkWithin)
	}
	return out, nil
}

const checkWithin = 30 * time.Second

// model is a register a key; "" means that there is none.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		at := map[string]int{}
		var out [][]porcupine.Operation
		for _, op := range history {
			key := op.Input.(asked).key
			if _, ok := at[key]; !ok {
				at[key] = len(out)
				out = append(out, nil)
			}
			out[at[key]] = append(out[at[key]], op)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(string), input.(asked), output.(answered)
		switch {
		case in.kind == "get":
			return value == out.value, value
		case in.kind == "put":
			return true, in.new
		case out.unknown && value != in.old:
			return true, value
		case out.unknown || out.ok:
			return value == in.old, in.new
		}
		return value != in.old, value
	},
}
