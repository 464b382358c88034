package scenario

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/runtime/sim"
)

var (
	truthSeed  = flag.Uint64("truth-seed", 0, "this definition alone, with what is wrong")
	truthRows  = flag.Int("truth-rows", 60, "rows of failure matrices to try")
	truthFresh = flag.Bool("truth-fresh", false, "definitions that nobody has tried, instead of the same in every run")
)

// TestMatrixTruth takes rows of the failure matrices of random definitions into
// the simulation: what runs there are the agents' own cores, in virtual time.
// The nodes of a row are lost at once; when all is quiet again, owners, what
// stays down, and quorum have to be the row's, and no group may have been away
// for longer than the plan says.
func TestMatrixTruth(t *testing.T) {
	rows := *truthRows
	tr := &truth{t: t}
	if *truthSeed != 0 {
		tr.definition(*truthSeed, 1<<30)
		return
	}
	first := uint64(1)
	if *truthFresh {
		first = rand.Uint64() | 1<<40
		t.Logf("fresh definitions from seed %d on", first)
	}
	for seed := first; tr.rows < rows && tr.wrong < 5; seed++ {
		if tr.refused > 100+4*tr.defs {
			t.Fatalf("nearly all definitions are refused, the last one because of: %s", tr.last)
		}
		tr.definition(seed, 12)
	}
	t.Logf("%d rows of %d definitions: %d groups failed over, %d stayed down, %d without quorum; longest failover %v of at most %v; %d rows with an election, %d groups that a slow one kept away for longer than the plan says",
		tr.rows, tr.defs, tr.moved, tr.down, tr.noQuorum, tr.longest, tr.longestOf, tr.elections, tr.beyond)
	if tr.beyond > tr.moved/250 {
		t.Errorf("the plan leaves out slow elections, which are rare, and these are not")
	}
	if tr.moved < rows/4 || tr.down < rows/20 || tr.noQuorum < rows/10 {
		t.Errorf("too little happened")
	}
}

type truth struct {
	t                                        *testing.T
	rows, defs, moved, down, noQuorum, wrong int
	elections, beyond                        int
	refused                                  int
	last                                     string // why
	longest, longestOf                       time.Duration
}

// definition tries rows of one definition's matrix, most of them by chance.
func (tr *truth) definition(seed uint64, most int) {
	rng := rand.New(rand.NewPCG(seed, 0x7472757468))
	def := randomDefinition(rng)
	for _, p := range spec.Check(&def) {
		if !p.Warning {
			tr.refused++
			tr.last = p.Summary + ": " + p.Detail
			return // no definition that a person could apply
		}
	}
	tr.defs++
	matrix := planner.MatrixOf(def)
	bounds := map[addr.Address]time.Duration{}
	for _, f := range planner.FailoverTimesOf(def) {
		bounds[f.Group] = time.Duration(f.WorstMS) * time.Millisecond
	}
	order := rng.Perm(len(matrix.Rows))
	for _, i := range order[:min(most, len(order))] {
		tr.rows++
		if wrong := tr.row(def, seed, &matrix.Rows[i], bounds); len(wrong) > 0 {
			tr.wrong++
			tr.t.Errorf("seed %d (-truth-seed), row %s:\n  %s\n%s", seed, rowName(&matrix.Rows[i]), strings.Join(wrong, "\n  "), describe(&def))
		}
	}
}

func (tr *truth) row(def spec.Definition, seed uint64, row *planner.MatrixRow, bounds map[addr.Address]time.Duration) (wrong []string) {
	lab, err := sim.NewLab(def, sim.LabConfig{Seed: seed})
	if err != nil {
		return []string{err.Error()}
	}
	before, term := lab.Groups(), lab.Term()
	if row.Device {
		lab.LoseDevice()
	}
	lab.Lose(names(row.Fail)...)
	if !lab.Rest() && lab.Err() == nil {
		wrong = append(wrong, "it does not come to rest")
	}
	if err := lab.Err(); err != nil {
		return append(wrong, err.Error())
	}
	if lab.Quorum() != row.Quorum {
		wrong = append(wrong, fmt.Sprintf("quorum: %v by the matrix, %v in the simulation", row.Quorum, lab.Quorum()))
	}
	if !row.Quorum {
		tr.noQuorum++
	}
	said := map[addr.Address]*planner.MatrixGroup{}
	for i := range row.Groups {
		said[row.Groups[i].Group] = &row.Groups[i]
	}
	var election time.Duration
	if lab.Term() > term {
		election = planner.SlowElection
		tr.elections++
	}
	for i, now := range lab.Groups() {
		g := &def.Groups[i]
		owner, from := before[i].Owner, before[i].Owner
		if m := said[g.Addr]; m != nil {
			owner = nameOf(m.To)
			if m.State != spec.StateOnline {
				owner = ""
				tr.down++
			}
			from = nameOf(m.From)
		}
		if from != before[i].Owner {
			wrong = append(wrong, fmt.Sprintf("%s is on %q before it, by the matrix on %q", g.Name, before[i].Owner, from))
		}
		if now.Owner != owner {
			wrong = append(wrong, fmt.Sprintf("%s: on %q by the matrix, on %q in the simulation (before: %q, state %s)", g.Name, owner, now.Owner, before[i].Owner, now.State))
			continue
		}
		if owner == "" || before[i].Owner == "" {
			continue
		}
		if owner == before[i].Owner {
			if now.Down > election {
				wrong = append(wrong, fmt.Sprintf("%s goes on by the matrix, and was away for %v", g.Name, now.Down))
			} else if now.Down > 0 {
				tr.beyond++
			}
			continue
		}
		tr.moved++
		bound, ok := bounds[g.Addr]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s moved, and the plan has no worst time of it", g.Name))
		} else if now.Down > bound+election {
			wrong = append(wrong, fmt.Sprintf("%s was away for %v, by the plan %v at most", g.Name, now.Down, bound))
		} else if now.Down > bound {
			tr.beyond++
		} else if now.Down > tr.longest {
			tr.longest, tr.longestOf = now.Down, bound
		}
	}
	return wrong
}

func nameOf(a *addr.Address) string {
	if a == nil {
		return ""
	}
	return a.Name
}

func names(list []addr.Address) []string {
	var out []string
	for _, a := range list {
		out = append(out, a.Name)
	}
	return out
}

func rowName(r *planner.MatrixRow) string {
	name := strings.Join(names(r.Fail), " and ")
	if r.Zone != "" {
		name += " (zone " + r.Zone + ")"
	}
	if r.Device {
		name += " the quorum device"
	}
	return name
}

func describe(def *spec.Definition) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", def.Cluster.Quorum.Model)
	for _, n := range def.Nodes {
		fmt.Fprintf(&b, "  %s zone %s, capacity %v, spare %v, votes %d, %s\n", n.Name, n.Zone, n.Capacity, n.Spare, n.Votes, n.Role)
	}
	for _, g := range def.Groups {
		fmt.Fprintf(&b, "  %s preferred %v possible %v, priority %d, demand %v, needs %v, apart %v %v, %s, no_quorum %s\n", g.Name, g.PreferredOwners, g.PossibleOwners,
			g.Priority, g.Demand, g.DependsOn, g.KeepApart, g.KeepApartSoft, g.Failover.Mode, g.NoQuorum)
	}
	return b.String()
}

// randomDefinition is of one to seven nodes and one to seven groups.
func randomDefinition(rng *rand.Rand) spec.Definition {
	chance := func(p float64) bool { return rng.Float64() < p }
	nodes := []int{3, 3, 4, 5, 5, 5, 6, 7, 2, 1}[rng.IntN(10)]
	def := spec.Definition{Cluster: spec.Cluster{Name: "c", MaxUnavailable: 1, Quorum: spec.Quorum{Model: spec.MajorityNodeSet}}}
	switch {
	case nodes == 1:
		def.Cluster.Quorum.Model = spec.SingleNode
	case chance(0.12):
		def.Cluster.Quorum = spec.Quorum{Model: spec.SingleQuorum, Device: "/dev/q"}
	}
	def.Cluster.Heartbeat = def.Cluster.Timings()
	zones, roomy := rng.IntN(4), chance(0.5)
	for i := range nodes {
		name := fmt.Sprintf("n%d", i+1)
		n := spec.Node{Name: name, Addr: addr.Node(name, addr.NoKey), Provider: "local", Votes: 1, Role: spec.RoleMember}
		if zones > 0 {
			n.Zone = fmt.Sprintf("z%d", rng.IntN(zones)+1)
		}
		if !roomy {
			n.Capacity = map[string]int64{"cpu": int64(1+rng.IntN(4)) * 1000}
		}
		switch {
		case nodes < 3 || def.Cluster.Quorum.Model != spec.MajorityNodeSet:
		case i == nodes-1 && chance(0.15):
			n.Role = spec.RoleWitness
		case i > 2 && chance(0.15):
			n.Votes = 0
		}
		n.Spare = i > 0 && n.Role == spec.RoleMember && chance(0.12)
		def.Nodes = append(def.Nodes, n)
	}
	members := slices.DeleteFunc(slices.Clone(def.Nodes), func(n spec.Node) bool { return n.Witness() })
	some := func(least int) []string {
		var out []string
		for _, i := range rng.Perm(len(members))[:min(len(members), least+rng.IntN(len(members)))] {
			out = append(out, members[i].Name)
		}
		return out
	}
	t := def.Cluster.Timings()
	for i := range 1 + rng.IntN(7) {
		name := fmt.Sprintf("g%d", i+1)
		at := addr.Group(name, addr.NoKey)
		g := spec.Group{
			Name: name, Addr: at, Priority: []int{2000, 2000, 3000, 1000, 0}[rng.IntN(5)], PersistentState: spec.WantOnline,
			StopWithin: t.StopWithin, NoQuorum: spec.NoQuorumStop, ManagedBy: spec.ManagedBy,
			Failover: spec.Failover{Mode: spec.FailoverAutomatic, Period: spec.Duration(6 * time.Hour)},
			Failback: spec.Failback{Mode: spec.FailbackPrevent},
		}
		if g.Priority == 0 && chance(0.7) {
			g.Priority = 1500
		}
		if chance(0.3) {
			g.StopWithin = spec.Duration(50+rng.IntN(400)) * spec.Duration(time.Millisecond)
		}
		if chance(0.6) {
			g.PreferredOwners = some(1)
		}
		if chance(0.25) {
			g.PossibleOwners = some(1)
			for _, p := range g.PreferredOwners {
				if !slices.Contains(g.PossibleOwners, p) {
					g.PossibleOwners = append(g.PossibleOwners, p)
				}
			}
		}
		if !roomy && chance(0.8) {
			g.Demand = map[string]int64{"cpu": int64(1+rng.IntN(3)) * 500}
		}
		switch rng.IntN(16) {
		case 0:
			g.Failover.Mode = spec.FailoverManual
		case 1:
			g.Failover.Mode = spec.FailoverNone
		case 2:
			g.PersistentState = spec.WantOffline
		}
		if i > 0 && chance(0.25) {
			g.DependsOn = []string{fmt.Sprintf("g%d", 1+rng.IntN(i))}
		}
		if i > 0 && chance(0.2) {
			g.KeepApart = []string{fmt.Sprintf("g%d", 1+rng.IntN(i))}
		}
		if i > 0 && chance(0.15) {
			if other := fmt.Sprintf("g%d", 1+rng.IntN(i)); !slices.Contains(g.KeepApart, other) {
				g.KeepApartSoft = []string{other}
			}
		}
		for j := range 1 + rng.IntN(2) {
			n := fmt.Sprintf("r%d", j+1)
			r := spec.Resource{
				Name: n, Addr: at.WithResource(n, addr.NoKey), Type: "generic_application", Attributes: map[string]any{"command": []any{"true"}},
				PendingTimeout: spec.Duration(3 * time.Minute),
				LooksAlive:     spec.Poll{Interval: spec.Duration(5 * time.Second), Timeout: spec.Duration(10 * time.Second)},
				IsAlive:        spec.Poll{Interval: spec.Duration(time.Minute), Timeout: spec.Duration(10 * time.Second)},
				Restart:        spec.Restart{Action: spec.RestartRestart, Threshold: 3, Period: spec.Duration(15 * time.Minute), AffectGroup: true},
			}
			if j > 0 && chance(0.5) {
				r.DependsOn = []string{"r1"}
			}
			g.Resources = append(g.Resources, r)
		}
		def.Groups = append(def.Groups, g)
	}
	return def
}
