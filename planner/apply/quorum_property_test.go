package apply_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/refresh"
	"github.com/clusterplan/clusterplan/runtime/quorum"
	"github.com/clusterplan/clusterplan/statefile"
)

var (
	quorumSeed   = flag.Uint64("quorum.seed", 0, "TestNeverWithoutQuorum: this seed alone, with its story")
	quorumTrials = flag.Int("quorum.trials", 30, "TestNeverWithoutQuorum: how many seeds, the same in every run")
	quorumFresh  = flag.Int("quorum.fresh", 0, "TestNeverWithoutQuorum: this many seeds that nobody has tried instead")
)

// trial is one draw: a cluster, what is wrong with it, and what is changed.
type trial struct {
	t     testing.TB
	seed  uint64
	r     *rand.Rand
	arena *arena
	def   *drawn
	was   string // the definition before
	words []string
	state statefile.State
	log   journal
	ids   int
	wrong []string
	plan_ *planner.Plan
	// standing: the nodes stand on machines, and of these more is changed.
	standing bool
	dead     bool // what is wrong is one host that is dead, and what is changed is its node
}

// verdict is what a trial came to.
type verdict struct {
	kind  string // applied, refused, nothing, partly
	steps int
	trips int
	// Nodes that were made anew, join before leave; and those whose hosts were dead.
	anew, dead int
	machines   int // that were made anew
}

func (tr *trial) fail(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	tr.arena.sim.Tell("VIOLATION: " + text)
	if len(tr.wrong) < 5 {
		tr.wrong = append(tr.wrong, text)
	}
}

// load reads a definition; nil: it does not hold together.
func (tr *trial) load(src string) *lang.Definition { return tr.loadWith(src, knownOf(tr.state)) }

func (tr *trial) loadWith(src string, known lang.Known) *lang.Definition {
	files := fstest.MapFS{"main.cluster.hcl": &fstest.MapFile{Data: []byte(src)}}
	blocks := map[string]spec.Schema{}
	for name, s := range tr.arena.registry().Schemas() {
		blocks[name] = s.Config
	}
	conf, diags := lang.Load(lang.Options{FS: fs.FS(files), Providers: blocks, Machinery: tr.arena.registry().Machinery()})
	if diags.HasErrors() {
		return nil
	}
	def, diags := conf.Evaluate(known)
	if diags.HasErrors() {
		return nil
	}
	return def
}

func (tr *trial) plan(def *lang.Definition) *planner.Plan {
	world, err := refresh.Run(context.Background(), refresh.Config{State: tr.state, Providers: tr.arena.registry(), Definition: def})
	if err != nil {
		tr.t.Fatalf("refresh: %v", err)
	}
	p, _ := planner.Build(planner.Input{Definition: def, State: tr.state, World: world, Providers: tr.arena.registry()})
	return p
}

// rounds plans once more with what the plan changes of what is known.
func (tr *trial) rounds(def *lang.Definition) (*planner.Plan, *lang.Definition) {
	p, known := tr.plan(def), knownOf(tr.state)
	for range 4 {
		later := p.Known(def, known)
		if later == nil || !tr.standing {
			break
		}
		next := tr.loadWith(tr.def.String(), later)
		if next == nil {
			break
		}
		known, def = later, next
		p = tr.plan(def)
	}
	return p, def
}

func (tr *trial) apply(p *planner.Plan, def *lang.Definition) *apply.Result {
	tr.log = journal{}
	width := 10
	if tr.def.unavailable == 1 {
		width = 1 // the same again from the same seed, to the last id
	}
	res, err := apply.Run(context.Background(), apply.Config{
		Plan: p, Definition: def, State: tr.state, Providers: tr.arena.registry(), Journal: &tr.log,
		Begin: statefile.Begin{Run: "r", Lineage: "L"}, Poll: 50 * time.Millisecond, QuorumWait: 8 * time.Second, Parallelism: width,
		NewID: func() string {
			tr.ids++
			return fmt.Sprintf("%016x", tr.ids)
		},
		NewIdentity: func(name string) (*pki.Identity, error) {
			return &pki.Identity{ID: "cluster", Name: name, Key: make([]byte, 32)}, nil
		},
	})
	if err != nil {
		tr.fail("apply: %v", err)
	}
	tr.state = res.State
	tr.state.Serial++
	return res
}

// run draws and judges. It is called in a bubble.
func (tr *trial) run() verdict {
	var def *lang.Definition
	for def == nil {
		tr.def = draw(tr.r)
		tr.def.standing = tr.standing
		tr.arena = newArena(tr.t, tr.seed, tr.def.model)
		tr.arena.under = func(text string) { tr.fail("%s", text) }
		def = tr.load(tr.def.String())
	}
	tr.was = tr.def.String()
	tr.state = statefile.State{Lineage: "L", Objects: []statefile.Object{}}
	p := tr.plan(def)
	if p.Errored {
		tr.fail("first plan: %v", p.Diagnostics)
		return verdict{}
	}
	if res := tr.apply(p, def); len(res.Failed) > 0 {
		tr.fail("first apply: %v", res.Failed)
		return verdict{}
	}
	time.Sleep(3 * time.Second)
	if !tr.dead {
		tr.break_()
		tr.change()
	} else if !tr.loseOne() {
		return verdict{kind: "alone"}
	}
	if def = tr.load(tr.def.String()); def == nil {
		tr.fail("the edited definition does not load")
		return verdict{}
	}
	p, def = tr.rounds(def)
	tr.plan_ = p
	out := verdict{kind: "applied", steps: len(p.Steps)}
	gone := 0 // hosts that can't be reached and that the plan does not replace
	for _, u := range p.Unreachable {
		if u.Address.Type == addr.TypeNode && !madeAnew(p, u.Address) {
			gone++
		}
	}
	if p.Errored {
		out.kind = "refused"
		if stuck(p) {
			out.kind = "stuck"
		} else if p.Quorum == nil || !p.Quorum.Lost {
			tr.fail("the plan is refused, and not for its quorum: %v", p.Diagnostics)
		} else if order := tr.anyOrder(p); order != nil {
			tr.fail("the plan is refused (%v), and this order would do: %s", p.Diagnostics, strings.Join(order, "; "))
		}
		return out
	}
	if !p.Applyable {
		out.kind = "nothing"
		return out
	}
	w := tr.watch(p)
	res := tr.apply(p, def)
	time.Sleep(4 * time.Second)
	tr.arena.do(w.end)
	out.trips = w.trips
	if len(res.Failed)+len(res.Skipped) > 0 {
		out.kind = "partly"
		if gone == 0 && !tr.noQuorum() {
			tr.fail("apply: failed %v, skipped %v", res.Failed, res.Skipped)
		}
		return out
	}
	for i := range p.Changes {
		if a := p.Changes[i].Address; madeAnew(p, a) {
			out.anew++
			if slices.ContainsFunc(p.Unreachable, func(u planner.Unreachable) bool { return u.Address == a }) {
				out.dead++
			}
		}
	}
	for i := range p.Changes {
		if a := p.Changes[i].Address; a.Type == addr.TypeMachine && p.Changes[i].Action() == "replace" {
			out.machines++
		}
	}
	for _, v := range tr.arena.machinery.Violations() {
		tr.fail("machinery: %s", v)
	}
	if def = tr.load(tr.def.String()); def == nil {
		tr.fail("the definition does not load any more")
		return out
	}
	if again, _ := tr.rounds(def); again.Applyable && len(again.Unreachable) == 0 {
		tr.fail("a second plan still has something to do: %s", actions(again))
	}
	return out
}

// madeAnew tells whether a plan has a node join in the place of another one.
func madeAnew(p *planner.Plan, a addr.Address) bool {
	return slices.ContainsFunc(p.Changes, func(c planner.Change) bool {
		return c.Address == a && a.Type == addr.TypeNode && slices.Equal(c.Actions, planner.ActionCreateThenDelete)
	})
}

// stuck tells whether a plan is refused, for a node is to leave that a group can't.
func stuck(p *planner.Plan) bool {
	return slices.ContainsFunc(p.Diagnostics, func(d planner.Diagnostic) bool { return strings.HasSuffix(d.Summary, "can't leave the cluster") })
}

// noQuorum tells whether the cluster can't commit now.
func (tr *trial) noQuorum() (lost bool) {
	tr.arena.do(func() { lost = tr.arena.sim.Leader() == "" })
	return lost
}

// break_ has some nodes die: their agents, or their hosts.
func (tr *trial) break_() {
	a := tr.arena
	nodes := ids(a.machines)
	a.do(func() {
		for range pick(tr.r, 0, 0, 1, 1, 2, 3) {
			id := nodes[tr.r.IntN(len(nodes))]
			all, up := a.votes()
			_, st := a.view()
			votes := slices.Contains(st.Driver.Voters, a.sim.Server(id)) && a.sim.Runs(id)
			host := tr.r.IntN(3) == 0
			if votes && tr.def.model == spec.MajorityNodeSet && up-1 < all/2+1 && (host || tr.r.IntN(3) > 0) {
				continue // mostly the others can go on
			}
			a.sim.Crash(id)
			a.machines[id].lost = host
			tr.words = append(tr.words, fmt.Sprintf("%s dies (its host: %v)", a.machines[id].addr, host))
		}
	})
	time.Sleep(5 * time.Second)
}

// change edits the definition, and maybe the program.
func (tr *trial) change() {
	for range 1 + tr.r.IntN(4) {
		for range 20 {
			next := tr.def.clone()
			word := ""
			if tr.standing && tr.r.IntN(3) == 0 {
				word = next.editMachine(tr.r)
			} else {
				word = next.edit(tr.r)
			}
			if tr.load(next.String()) != nil {
				tr.def = next
				tr.words = append(tr.words, word)
				break
			}
		}
	}
	if tr.r.IntN(5) < 2 {
		tr.arena.upgrade("2")
		tr.words = append(tr.words, "another program")
	}
}

// loseOne has a host die, with its node, that the others can do without, and the
// definition put that node elsewhere. False: there is none.
func (tr *trial) loseOne() bool {
	a := tr.arena
	for _, i := range tr.r.Perm(len(tr.def.nodes)) {
		n := &tr.def.nodes[i]
		found := false
		a.do(func() {
			all, up := a.votes()
			id := tr.state.Find(addr.Node(n.name, addr.NoKey)).ID
			if _, st := a.view(); slices.Contains(st.Driver.Voters, a.sim.Server(id)) && up-1 < quorum.Needed(tr.def.model, all) {
				return
			}
			found = true
			a.sim.Crash(id)
			a.machines[id].lost = true
		})
		if !found {
			continue
		}
		n.provider, n.address = "far", fmt.Sprintf("127.0.0.%d", 2+tr.r.IntN(200))
		tr.words = append(tr.words, n.name+"'s host dies, and it is to be elsewhere")
		time.Sleep(time.Duration(2+tr.r.IntN(4)) * time.Second) // before the others have noticed, no plan knows
		if next := tr.def.clone(); tr.r.IntN(2) == 0 {
			if word := next.edit(tr.r); tr.load(next.String()) != nil {
				tr.def, tr.words = next, append(tr.words, word)
			}
		}
		return true
	}
	return false
}

func (tr *trial) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d:\n", tr.seed)
	for _, w := range tr.wrong {
		fmt.Fprintf(&b, "  %s\n", w)
	}
	fmt.Fprintf(&b, "again: go test ./planner/apply -run %s -quorum.seed=%d -v\n", tr.t.Name(), tr.seed)
	fmt.Fprintf(&b, "what is done: %s\n", strings.Join(tr.words, "; "))
	if *quorumSeed == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "before:\n%s\nafter:\n%s\n", tr.was, tr.def)
	if p := tr.plan_; p != nil {
		for _, s := range p.Steps {
			fmt.Fprintf(&b, "step %d: %s %s, %d of %d up\n", s.N, s.Address, s.Phase, s.Up, s.Needed)
		}
		for _, v := range p.Availability {
			fmt.Fprintf(&b, "%s: %v -> %v, %d times, %d ms at most: %s\n", v.Group, v.From, v.To, v.Interruptions, v.MaxMS, v.Why)
		}
	}
	for _, id := range ids(tr.arena.machines) {
		st, up := tr.arena.sim.Status(id)
		fmt.Fprintf(&b, "%s (%s): runs %v, term %d, voters %v, learners %v, up %v\n", id, tr.arena.machines[id].addr, up, st.Driver.Term, st.Driver.Voters, st.Driver.Learners, st.UpNodes)
	}
	b.WriteString(strings.Join(tr.arena.sim.Story(), "\n"))
	return b.String()
}

var errSeed = errors.New("a seed failed")

// tryQuorum is one seed, in a bubble of its own.
func tryQuorum(t *testing.T, seed uint64, dead bool) (out verdict, err error) {
	t.Helper()
	return try(t, &trial{seed: seed, dead: dead})
}

func try(t *testing.T, tr *trial) (out verdict, err error) {
	t.Helper()
	tr.t, tr.r = t, rand.New(rand.NewPCG(tr.seed, 0x71756f72756d))
	synctest.Test(t, func(t *testing.T) {
		tr.t = t
		out = tr.run()
		for _, v := range tr.arena.sim.Violations() {
			tr.wrong = append(tr.wrong, "the runtime's invariants: "+v)
		}
	})
	if len(tr.wrong) > 0 {
		return out, fmt.Errorf("%w: %s", errSeed, tr.report())
	}
	return out, nil
}

// Whatever is changed of whatever cluster, with whatever nodes down: the apply,
// step by step, on the runtime's own cores, never loses the quorum, keeps at each
// step as many votes up as the plan said, interrupts no group more often or for
// longer than the plan said; or the plan was refused, and then no order of its
// steps would have done.
func TestNeverWithoutQuorum(t *testing.T) {
	var all []uint64
	for s := range *quorumTrials {
		all = append(all, uint64(s+1))
	}
	// Found by fresh seeds: a node leaves, and a group then goes back by its failback policy.
	all = append(all, 330200028568, 706811549440)
	// A node that is down gives its vote up; a group that is made starts on a node
	// that leaves, and runs nowhere else.
	all = append(all, 356378127910, 392625710369)
	// Two leave, and the one of them that is down owns a group still.
	all = append(all, 817240861050)
	// Three are drained at once, the leader of a quorum device among them: commands are
	// asked for again, and had come about.
	all = append(all, 776744869893)
	// A group that fails back later than usual keeps another one's only owner from it,
	// and the node that it is on can't leave.
	all = append(all, 1031635185375)
	// No agent answers, and a node leaves that one of two groups that are kept apart may
	// be on, with no other place.
	all = append(all, 589208717754)
	// A group goes home to a node that starts, and so from where another one, that is
	// drained next, would send its own.
	all = append(all, 809781402311)
	// The head of a group's new list is not up yet: it fails back twice.
	all = append(all, 843392147646)
	// A vote is given up, and another one's host is dead, whose node owns a group and goes:
	// that one goes first.
	all = append(all, 1047551576472)
	// A group fails back while the second node after its own is out, neither at once nor last.
	all = append(all, 942089900368)
	// A group that is away gets another list of preferred owners, and goes to its head.
	all = append(all, 373757127351)
	// An edited group fails back only after the node that it is on has left as well.
	all = append(all, 413038965482)
	// A node gives its vote up and keeps its groups, one of which another can't be with.
	all = append(all, 129810898637)
	if *quorumFresh > 0 {
		all = nil
		for range *quorumFresh {
			all = append(all, rand.Uint64()>>24+1_000_000)
		}
	}
	if *quorumSeed != 0 {
		all = []uint64{*quorumSeed}
	}
	kinds := map[string]int{}
	steps, trips, anew := 0, 0, 0
	for _, s := range all {
		v, err := tryQuorum(t, s, false)
		if err != nil {
			t.Error(err)
		}
		kinds[v.kind]++
		steps, trips = steps+v.steps, trips+v.trips
		anew += v.anew
	}
	t.Logf("%d trials: %v, %d steps, %d interruptions, %d nodes made anew", len(all), kinds, steps, trips, anew)
	if len(all) >= 100 && (kinds["applied"] < len(all)/2 || kinds["refused"] < 3 || steps < 3*len(all) || trips < len(all)/4 || anew < len(all)/10) {
		t.Error("too tame to prove anything")
	}
}

// The host of a node is dead, whatever it owned, and the definition has the node
// elsewhere: one apply, with nothing done before it, brings it about, as the plan
// said, and no group has two owners.
func TestDeadHostMadeAnew(t *testing.T) {
	var all []uint64
	for s := range max(10, *quorumTrials/3) {
		all = append(all, uint64(s+1))
	}
	if *quorumFresh > 0 {
		all = nil
		for range *quorumFresh {
			all = append(all, rand.Uint64()>>24+1_000_000)
		}
	}
	if *quorumSeed != 0 {
		all = []uint64{*quorumSeed}
	}
	kinds, dead := map[string]int{}, 0
	for _, s := range all {
		v, err := tryQuorum(t, s, true)
		if err != nil {
			t.Error(err)
		}
		kinds[v.kind]++
		dead += v.dead
	}
	t.Logf("%d trials: %v, %d nodes of dead hosts made anew", len(all), kinds, dead)
	if len(all) >= 10 && (dead < len(all)/2 || kinds["partly"] > len(all)/10) {
		t.Error("too tame to prove anything")
	}
}
