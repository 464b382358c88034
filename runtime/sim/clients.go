package sim

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// clients are applications that keep values in the database, as by runtime/api:
// they put, compare and swap by revision, and read behind a barrier, each by a
// node of its choice, sending a write again under its id by another node when
// there is no answer. What they saw has to be linearizable, key by key: judged
// at the end by porcupine, from calls and returns in true time alone.
type clients struct {
	w       *world
	rng     *rand.Rand
	calls   []*call
	serial  int
	waiting map[string]*call         // by command id: to learn what became of it, answered or not
	became  map[string]confdb.Result // by command id
}

const (
	clientCount = 3
	clientKeys  = 2
	callAgain   = 1200 * time.Millisecond // a call is sent again by another node
	callEnds    = 3500 * time.Millisecond // and its outcome is unknown
)

// call is one operation of a client.
type call struct {
	client int
	key    string
	kind   string // get | put | swap
	value  string // to write; unique
	from   uint64 // of a swap: the revision that it replaces; 0: there is no such key
	on     string // the node that answered, or was asked first

	called, returned int64  // true time; returned 0: no answer
	code             string // of the answer
	seen             entry  // what was read, or stands there by the call's own write
}

// entry is what a key is: nothing, or a value and the revision that wrote it.
type entry struct {
	value    string
	revision uint64
}

func (c *call) String() string {
	what := fmt.Sprintf("client %d, by %s: ", c.client, c.on)
	switch c.kind {
	case "get":
		what += fmt.Sprintf("reads %s", c.key)
	case "put":
		what += fmt.Sprintf("puts %s = %s", c.key, c.value)
	default:
		what += fmt.Sprintf("swaps %s = %s for revision %d", c.key, c.value, c.from)
	}
	switch {
	case c.returned == 0:
		return what + ", no answer"
	case c.code != "":
		return what + ": " + c.code
	case c.kind == "get" && c.seen.revision == 0:
		return what + ": nothing"
	}
	return what + fmt.Sprintf(": %s at revision %d", c.seen.value, c.seen.revision)
}

func (c *clients) init(w *world) {
	*c = clients{w: w, rng: rand.New(rand.NewPCG(w.cfg.Seed, 0x6b657973)), waiting: map[string]*call{}, became: map[string]confdb.Result{}}
}

// start has them work until the faults end.
func (c *clients) start() {
	until := c.w.now + int64(c.w.cfg.For)
	for i := range clientCount {
		known := map[string]uint64{}
		var next func()
		next = func() {
			if c.w.now < until {
				c.call(i, known, func() { c.w.after(between(c.rng, 100*time.Millisecond, 1800*time.Millisecond), next) })
			}
		}
		c.w.after(between(c.rng, 0, time.Second), next)
	}
}

// call makes one call, and goes on once it is answered or given up.
func (c *clients) call(client int, known map[string]uint64, then func()) {
	w := c.w
	key := fmt.Sprint("r", c.rng.IntN(clientKeys))
	o := &call{client: client, key: key, kind: []string{"get", "get", "put", "swap"}[c.rng.IntN(4)], from: known[key], called: w.now}
	c.serial++
	o.value = fmt.Sprintf("v%d", c.serial)
	command := confdb.Command{ID: "call " + o.value, Nothing: true}
	if o.kind != "get" {
		command.Nothing, command.KV = false, &confdb.KVWrite{Key: key, Value: []byte(o.value), Seen: o.from}
		if o.kind == "swap" {
			command.KV.If = &o.from
		}
		c.waiting[command.ID] = o
	}
	asked, ended := w.check.ackedMax, false
	end := func() {
		if !ended {
			ended = true
			then()
		}
	}
	send := func() {
		h := w.hosts[c.rng.IntN(len(w.hosts))]
		if ended || h.agent == nil {
			return
		}
		if o.on == "" {
			c.calls, o.on = append(c.calls, o), h.name
		}
		w.ops.send(h, command, asked, func(r confdb.Result) {
			switch {
			case ended || r.Code == member.CodeUnknown:
				return
			case r.Code == member.CodeNoLeader: // by this node; another one may have taken it
				return
			}
			o.on, o.returned, o.code = h.name, w.now, r.Code
			switch e, _ := h.agent.m.State().KV.Lookup(confdb.ClusterSpace, key); {
			case o.kind == "get":
				o.seen = entry{string(e.Value), e.Revision}
			case r.Code == "":
				o.seen = entry{o.value, r.Revision}
			}
			if r.Code == "" {
				known[key] = o.seen.revision
			} else {
				delete(known, key)
			}
			end()
		})
	}
	send()
	w.after(callAgain, send)
	w.after(callEnds, end)
}

// applied notes what a call came to, as a member's state has it.
func (c *clients) applied(d *confdb.Done) {
	if c.waiting[d.ID] != nil {
		c.became[d.ID] = d.Result
	}
}

// model is one key. All outcomes are known when it is asked: what no client was
// told stands in the members' states.
var model = porcupine.Model{
	Init: func() any { return entry{} },
	Step: func(state, input, _ any) (bool, any) {
		s, c := state.(entry), input.(*call)
		switch {
		case c.kind == "get":
			return c.seen == s, s
		case c.code == confdb.CodeMismatch:
			return c.kind == "swap" && c.from != s.revision, s
		case c.code != "":
			return true, s
		}
		return c.seen.revision > s.revision && (c.kind == "put" || c.from == s.revision), c.seen
	},
}

// history is what the calls of a key were, as far as they were made by then:
// what was not answered yet goes on for ever, and was done some time or never.
func (c *clients) history(key string, then int64) []porcupine.Operation {
	var out []porcupine.Operation
	for _, o := range c.calls {
		if o.key != key || o.called > then || o.kind == "get" && (o.returned == 0 || o.returned > then || o.code != "") {
			continue
		}
		done := *o
		op := porcupine.Operation{ClientId: len(out), Input: &done, Call: o.called, Return: o.returned}
		if o.returned == 0 || o.returned > then {
			r, was := c.became["call "+o.value]
			if !was {
				continue // never, by the order of updates that all members share
			}
			if done.code = r.Code; r.Code == "" {
				done.seen = entry{o.value, r.Revision}
			}
			op.Return = math.MaxInt64
		}
		out = append(out, op)
	}
	return out
}

// legal tells whether a history is some order of calls that each keep to their
// time. One that takes seconds to judge is held for legal: there are none so
// long.
func legal(history []porcupine.Operation) bool {
	return porcupine.CheckOperationsTimeout(model, history, 5*time.Second) != porcupine.Illegal
}

// judge checks what was seen. The story of a violation ends with the first
// answer that can't be.
func (c *clients) judge() {
	w := c.w
	w.rep.Calls = len(c.calls)
	for i := range clientKeys {
		key := fmt.Sprint("r", i)
		if legal(c.history(key, math.MaxInt64)) {
			continue
		}
		var answered []*call
		for _, o := range c.calls {
			if o.key == key && o.returned != 0 {
				answered = append(answered, o)
			}
		}
		slices.SortFunc(answered, func(x, y *call) int { return cmp.Compare(x.returned, y.returned) })
		for n, o := range answered {
			if legal(c.history(key, o.returned)) && n < len(answered)-1 {
				continue
			}
			w.now = o.returned
			w.story.lines = slices.DeleteFunc(w.story.lines, func(l line) bool { return l.at > w.now })
			for _, o := range answered[max(0, n-10) : n+1] {
				w.story.lines = append(w.story.lines, line{o.returned, lineEpoch, nil, "", fmt.Sprintf("%s, called %.6f", o, float64(o.called)/1e9)})
			}
			slices.SortStableFunc(w.story.lines, func(x, y line) int { return cmp.Compare(x.at, y.at) })
			w.violate("", nil, "what clients saw of key %s is not linearizable: %s", key, o)
			return
		}
	}
}
