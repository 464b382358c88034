package apply_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/schema"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/statefile"
)

// lab is a world with a definition's state and journal beside it.
type lab struct {
	t       testing.TB
	world   *plannertest.World
	state   statefile.State // the snapshot
	journal journal
	ids     int
	events  []apply.Event
	stop    chan struct{}
	conf    func(*apply.Config)
	planned *planner.Plan // what the next apply does; nil: it plans itself
	ahead   bool          // as with a state that lies far away
	allow   bool          // plans are made with --allow-quorum-loss
}

// journal is a store's, in memory: what was appended is what survives.
type journal struct {
	entries []statefile.Entry
	appends int
	killAt  int         // the process dies at this append, 1 being the first; 0: never
	after   bool        // ... after it was written
	part    int         // ... so many of its entries, where it has more; 0: all
	whole   bool        // it had no more, so there is nothing to see
	dead    atomic.Bool // read where another goroutine's call kills
}

var errKilled = errors.New("killed")

func (j *journal) Append(entries ...statefile.Entry) error {
	if j.dead.Load() {
		return errKilled
	}
	j.appends++
	if j.appends == j.killAt {
		j.dead.Store(true)
		j.whole = j.part >= len(entries)
		if !j.after || j.whole {
			return errKilled
		}
		if j.part > 0 {
			entries = entries[:j.part]
		}
	}
	for _, e := range entries {
		back, err := j.written(e)
		if err != nil {
			return err
		}
		j.entries = append(j.entries, back)
	}
	if j.dead.Load() {
		return errKilled
	}
	return nil
}

// written is an entry as a disk would have it.
func (j *journal) written(e statefile.Entry) (back statefile.Entry, err error) {
	var chain statefile.Chain
	var data []byte
	if len(j.entries) > 0 { // it has the key of the digests
		if data, err = chain.Append(data, &j.entries[0], nil); err != nil {
			return e, err
		}
	}
	if data, err = chain.Append(data, &e, nil); err != nil {
		return e, err
	}
	read, err := statefile.DecodeJournal(data, nil)
	if err != nil {
		return e, err
	}
	return read.Entries[len(read.Entries)-1], nil
}

// onDisk is a state as it is read again.
func onDisk(t testing.TB, s statefile.State) statefile.State {
	t.Helper()
	text, err := statefile.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	back, err := statefile.Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return *back
}

func newLab(t testing.TB) *lab {
	l := &lab{t: t, world: plannertest.New(), state: statefile.State{Lineage: "L", Objects: []statefile.Object{}}, stop: make(chan struct{})}
	t.Cleanup(func() {
		for _, v := range l.world.Violations() {
			t.Errorf("violated: %s", v)
		}
	})
	return l
}

func (l *lab) load(src string) *lang.Definition {
	l.t.Helper()
	return l.loadWith(src, nil)
}

// known is what the state has of nodes.
func (l *lab) known() lang.Known {
	state, _ := l.current()
	return knownOf(state)
}

func knownOf(state statefile.State) lang.Known {
	return func(a addr.Address) (cty.Value, bool) {
		o := state.Find(a)
		if o != nil && addr.Machinery(a.Type) && len(o.Phases) == 0 {
			v, err := schema.FromJSON(o.Attributes, schema.Type(plannertest.New().Registry().Machinery()["hypervisor"][a.Type]))
			return v, err == nil
		}
		if o == nil || a.Type != addr.TypeNode {
			return cty.NilVal, false
		}
		v, err := schema.FromJSON(o.Attributes, schema.Type(spec.NodeSchema()))
		return v, err == nil
	}
}

// loadWith: known nil is what the state has of nodes.
func (l *lab) loadWith(src string, known lang.Known) *lang.Definition {
	l.t.Helper()
	files := fstest.MapFS{"main.cluster.hcl": &fstest.MapFile{Data: []byte(src)}}
	schemas := l.world.Registry().Schemas()
	blocks := map[string]spec.Schema{}
	for name, s := range schemas {
		blocks[name] = s.Config
	}
	conf, diags := lang.Load(lang.Options{FS: fs.FS(files), Providers: blocks, Machinery: l.world.Registry().Machinery()})
	if diags.HasErrors() {
		l.t.Fatalf("load: %v", diags)
	}
	if known == nil {
		state, pending := l.current()
		state, _, _, _ = planner.Rename(conf.Moves(), state, pending)
		known = knownOf(state)
	}
	def, diags := conf.Evaluate(known)
	if diags.HasErrors() {
		l.t.Fatalf("evaluate: %v", diags)
	}
	return def
}

// current is the state with the journal folded in, as a new run finds it.
func (l *lab) current() (statefile.State, []statefile.Pending) {
	return statefile.Fold(l.state, l.journal.entries)
}

// renamed is current with the addresses of the definition's moved blocks.
func (l *lab) renamed(def *lang.Definition) (statefile.State, []statefile.Pending, []statefile.Move) {
	l.t.Helper()
	state, pending := l.current()
	if def == nil {
		return state, pending, nil
	}
	state, pending, moves, diags := planner.Rename(def.Moves(), state, pending)
	if diags.HasErrors() {
		l.t.Fatalf("rename: %v", diags)
	}
	return state, pending, moves
}

func (l *lab) plan(def *lang.Definition, mode string) *planner.Plan {
	l.t.Helper()
	state, pending, moves := l.renamed(def)
	world, err := refresh.Run(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: def})
	if err != nil {
		l.t.Fatalf("refresh: %v", err)
	}
	var imports []planner.Import
	if def != nil && mode == "" {
		imports, err = refresh.Import(context.Background(), refresh.Config{State: state, Pending: pending, Providers: l.world.Registry(), Definition: def})
		if err != nil {
			l.t.Fatalf("import: %v", err)
		}
	}
	in := planner.Input{Definition: def, State: state, Pending: pending, Renames: moves, Imports: imports, World: world, Providers: l.world.Registry(), Mode: mode, AllowQuorumLoss: l.allow}
	text := func(p *planner.Plan) ([]byte, error) {
		shown := *p
		shown.Diagnostics = planner.Diagnostics(nil) // the command line's
		return json.Marshal(&shown)
	}
	p, _ := planner.Build(in)
	doc, err := text(p)
	if err == nil {
		err = jsonschematest.Check([]string{"plan"}, doc)
	}
	if err == nil { // what is only shown says the same
		foreseen := 0
		in.Only, in.Foreseen = true, func() { foreseen++ }
		only, _ := planner.Build(in)
		if foreseen == 0 {
			l.t.Error("nobody was told that what the changes do is worked out")
		}
		var short []byte
		if short, err = text(only); !bytes.Equal(short, doc) {
			l.t.Errorf("only shown, the plan says\n%s\nand to be applied\n%s", short, doc)
		}
		if w := only.Work(); w != nil && mode != planner.ModeRefreshOnly && slices.ContainsFunc(w.Kept, func(k planner.Kept) bool { return !addr.Machinery(k.Addr.Type) }) {
			l.t.Errorf("a plan that is only shown keeps %v", w.Kept)
		}
	}
	if err != nil {
		l.t.Error(err)
	}
	return p
}

// apply plans and applies; a killed run leaves its journal behind.
func (l *lab) apply(def *lang.Definition, mode string) (*apply.Result, *planner.Plan, error) {
	l.t.Helper()
	p := l.planned
	if l.planned = nil; p == nil {
		p = l.plan(def, mode)
	}
	if p.Errored {
		return nil, p, fmt.Errorf("plan: %v", p.Diagnostics)
	}
	state, pending, _ := l.renamed(def)
	l.events = nil
	cfg := apply.Config{
		Plan: p, Definition: def, State: state, Pending: pending, Providers: l.world.Registry(), Journal: &l.journal,
		Begin: statefile.Begin{Run: "r", Lineage: "L"}, Ahead: l.ahead, Stop: l.stop, Poll: time.Millisecond, QuorumWait: 50 * time.Millisecond,
		Events: func(e apply.Event) { l.events = append(l.events, e) },
		NewID: func() string {
			l.ids++
			return fmt.Sprintf("%016x", l.ids)
		},
		NewIdentity: func(name string) (*pki.Identity, error) {
			l.ids++
			return &pki.Identity{ID: fmt.Sprintf("%016x", l.ids), Name: name, Key: make([]byte, 32)}, nil
		},
	}
	if l.conf != nil {
		l.conf(&cfg)
	}
	res, err := apply.Run(context.Background(), cfg)
	// What has no end stays in the journal, as a store keeps it.
	if _, pending := l.current(); !l.journal.dead.Load() && (len(pending) == 0 || res.Whole) {
		l.state = onDisk(l.t, res.State)
		l.state.Serial++
		l.journal = journal{}
	}
	return res, p, err
}

func (l *lab) must(def *lang.Definition, mode string) *apply.Result {
	l.t.Helper()
	res, _, err := l.apply(def, mode)
	if err != nil {
		l.t.Fatalf("apply: %v", err)
	}
	if len(res.Failed) > 0 || len(res.Skipped) > 0 {
		l.t.Fatalf("apply: failed %+v, skipped %+v", res.Failed, res.Skipped)
	}
	return res
}

// settled: a second plan has nothing to do.
func (l *lab) settled(def *lang.Definition) {
	l.t.Helper()
	p := l.plan(def, "")
	for _, c := range p.Changes {
		if c.Action() != "no-op" {
			l.t.Errorf("still to do: %s %s %v %v %v", c.Address, c.Action(), c.Why, c.Phases, paths(c))
		}
	}
	if p.Applyable {
		l.t.Errorf("the second plan is applyable: outputs %v", p.OutputChanges)
	}
}

func paths(c planner.Change) []string {
	var out []string
	for _, a := range c.Attributes {
		out = append(out, fmt.Sprintf("%s(%s): %#v -> %#v", a.Path, a.Cause, a.Before, a.After))
	}
	return out
}

func (l *lab) calls() string {
	var out []string
	for _, c := range l.world.Calls {
		out = append(out, strings.TrimSpace(c.String()))
	}
	return strings.Join(out, "\n")
}

func actions(p *planner.Plan) string {
	var out []string
	for _, c := range p.Changes {
		if c.Action() != "no-op" {
			out = append(out, c.Address.String()+" "+c.Action()+" "+c.Reason)
		}
	}
	return strings.Join(out, "\n")
}

const threeNodes = `
cluster "c" {
  quorum { model = "majority_node_set" }
}
node "n1" { provider = local }
node "n2" { provider = local }
node "n3" { provider = local }
`

const twoGroups = `
group "web" {
  preferred_owners = [node.n1, node.n2]
  resource "ip_address" "vip" { address = "127.0.0.9" }
  resource "generic_application" "app" {
    command    = ["true"]
    depends_on = [resource.vip]
  }
}
group "worker" {
  depends_on = [group.web]
  resource "generic_application" "app" { command = ["true"] }
}
output "where" { value = "127.0.0.9" }
`
