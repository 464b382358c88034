package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/placement"
	"github.com/clusterplan/clusterplan/runtime/quorum"
)

// GuaranteeBroken is the summary of the error of a guarantee that would not hold.
const GuaranteeBroken = "Broken guarantee"

// Brief is the Extra of a diagnostic that repeats what a plan's text tells: its detail
// for who has just read that.
type Brief string

// tellBroken is how many of the faults that break a guarantee are told.
const tellBroken = 4

// guarantees checks the definition's guarantees in the cluster as it is once the
// plan is carried out. One that is broken is an error, unless it was allowed.
func (b *builder) guarantees(after *board) {
	def := b.in.Definition
	if b.in.Mode != ModeNormal || def == nil {
		return
	}
	b.plan.Guarantees = after.guarantees(b.after.Guarantees, b.plan.FailureMatrix.After, b.plan.FailoverTimes)
	for i := range b.plan.Guarantees {
		g := &b.plan.Guarantees[i]
		if g.Holds {
			continue
		}
		d := def.Diagnostic(spec.Problem{Addr: g.Address, Summary: GuaranteeBroken})
		head, todo := fmt.Sprintf("Guarantee %s does not hold once this plan is applied", g.Name), ""
		if b.in.AllowBrokenGuarantee {
			d.Severity, head = hcl.DiagWarning, head+", which was allowed"
		} else {
			todo = "\nChange the definition, or what it guarantees. To apply the plan all the same, use apply with --allow-broken-guarantee."
		}
		d.Detail, d.Extra = head+":\n  - "+strings.Join(g.Broken, "\n  - ")+todo, Brief(head+"."+todo)
		b.diags = append(b.diags, d)
	}
}

// BrokenGuarantees are the names of the guarantees that do not hold.
func (p *Plan) BrokenGuarantees() []string {
	var names []string
	for _, g := range p.Guarantees {
		if !g.Holds {
			names = append(names, g.Name)
		}
	}
	return names
}

// promise is a guarantee while it is checked.
type promise struct {
	*Guarantee
	spec   *spec.Guarantee
	groups map[addr.Address]bool
	faults int // that break it; a few of them are told
}

func (p *promise) breaks(format string, args ...any) {
	p.Holds = false
	p.Broken = append(p.Broken, fmt.Sprintf(format, args...))
}

// guarantees checks each guarantee: its groups are exclusive, run somewhere while
// nothing fails, still do after each of the faults that it is to survive, and
// fail over in time. Rows that the matrix has are not worked out again.
func (b *board) guarantees(list []spec.Guarantee, m *Matrix, times []FailoverTime) []Guarantee {
	out := make([]Guarantee, len(list))
	promises := make([]*promise, len(list))
	for i := range list {
		promises[i] = &promise{Guarantee: &out[i], spec: &list[i], groups: make(map[addr.Address]bool, len(list[i].Groups))}
		out[i] = Guarantee{Name: list[i].Name, Address: list[i].Addr, Groups: []addr.Address{}, Holds: true, MaxDowntimeMS: ms(list[i].MaxDowntime.D())}
	}
	b.atRest(promises, times)
	done := map[string]*MatrixRow{}
	for i := range m.Rows {
		if r := &m.Rows[i]; !r.Device && r.Zone == "" {
			done[key(r.Fail)] = r
		}
	}
	names, zones := b.scene.def.Zones()
	units := make([][]string, len(b.scene.def.Nodes))
	for i := range b.scene.def.Nodes {
		units[i] = []string{b.scene.def.Nodes[i].Name}
	}
	b.survive(promises, spec.SurviveNodes, units, func([]int) string { return "" }, done)
	units = make([][]string, len(names))
	for i, z := range names {
		units[i] = zones[z]
	}
	b.survive(promises, spec.SurviveZones, units, func(at []int) string {
		text := make([]string, len(at))
		for i, k := range at {
			text[i] = "zone " + names[k]
		}
		return strings.Join(text, " and ")
	}, done)
	for _, p := range promises {
		if p.faults > tellBroken {
			p.Broken = append(p.Broken, fmt.Sprintf("and %d more faults", p.faults-tellBroken))
		}
		slices.SortFunc(p.Groups, addr.Compare)
	}
	return out
}

// atRest checks what needs no fault.
func (b *board) atRest(promises []*promise, times []FailoverTime) {
	def := &b.scene.def
	groups := make(map[string]int, len(def.Groups))
	for i := range def.Groups {
		groups[def.Groups[i].Name] = i
	}
	byGroup := make(map[addr.Address]*FailoverTime, len(times))
	for i := range times {
		byGroup[times[i].Group] = &times[i]
	}
	for _, p := range promises {
		for _, name := range p.spec.Groups {
			i, ok := groups[name]
			if !ok { // refused by validate
				continue
			}
			g := &def.Groups[i]
			p.Groups = append(p.Groups, g.Addr)
			if left := g.NotHeld(); len(left) > 0 && !def.Guarded(g) && def.Cluster.Quorum.Model != spec.SingleNode {
				p.breaks("%s is not exclusive: resource %s may go on after its node has lost its lease (%s)", g.Addr, left[0].Resource, left[0].Why)
			}
			p.inTime(g, byGroup[g.Addr])
			switch o := b.rest[i]; {
			case o.Why == placement.WhyOffline || o.Why == placement.WhyPriorityZero:
				// Nobody wants it online, so that nothing is lost with its node.
			case o.State != spec.StateOnline:
				p.breaks("%s is not online while nothing fails (%s)", g.Addr, strings.ReplaceAll(o.Why, "_", " "))
			default:
				p.groups[g.Addr] = true
			}
		}
	}
}

// inTime checks max_downtime of one group. t nil: it does not fail over by itself.
func (p *promise) inTime(g *spec.Group, t *FailoverTime) {
	if t == nil {
		p.WorstMS = -1
		if p.spec.MaxDowntime != 0 {
			p.breaks("%s does not fail over by itself, so that nothing bounds how long it is down", g.Addr)
		}
		return
	}
	if p.WorstMS >= 0 {
		p.WorstMS = max(p.WorstMS, t.WorstMS)
	}
	if p.spec.MaxDowntime != 0 && t.WorstMS > p.MaxDowntimeMS {
		p.breaks("%s may be down for %d ms, longer than %s: %s", g.Addr, t.WorstMS, p.spec.MaxDowntime, t.Terms.Sum())
	}
}

// survive lets every one, every two of units fail, as many as any guarantee asks
// for, and breaks those whose groups are not online after it.
func (b *board) survive(promises []*promise, kind string, units [][]string, name func([]int) string, done map[string]*MatrixRow) {
	var most int64
	for _, p := range promises {
		most = max(most, p.spec.Survives[kind])
	}
	for k := int64(1); k <= min(most, int64(len(units))); k++ {
		byGroup := map[addr.Address][]*promise{}
		for _, p := range promises {
			if p.spec.Survives[kind] < k {
				continue
			}
			for g := range p.groups {
				byGroup[g] = append(byGroup[g], p)
			}
		}
		if len(byGroup) == 0 {
			return
		}
		choose(len(units), int(k), func(at []int) {
			breakBy(b.lost(units, at, done), name(at), byGroup)
		})
	}
}

// lost is the row of these units' loss, worked out if it was not yet.
func (b *board) lost(units [][]string, at []int, done map[string]*MatrixRow) *MatrixRow {
	var nodes []string
	for _, i := range at {
		nodes = append(nodes, units[i]...)
	}
	slices.Sort(nodes)
	fail := make([]addr.Address, len(nodes))
	for i, n := range nodes {
		fail[i] = *b.nodeAt[n]
	}
	slices.SortFunc(fail, addr.Compare)
	if row := done[key(fail)]; row != nil {
		return row
	}
	row := b.row(quorum.Fault{Nodes: nodes})
	return &row
}

// breakBy notes whom a fault breaks; each guarantee once.
func breakBy(row *MatrixRow, name string, byGroup map[addr.Address][]*promise) {
	if name == "" {
		name = row.name()
	}
	hit := map[*promise]bool{}
	for _, g := range row.Groups {
		if g.State == spec.StateOnline {
			continue
		}
		for _, p := range byGroup[g.Group] {
			if hit[p] {
				continue
			}
			hit[p] = true
			if p.faults++; p.faults > tellBroken {
				p.Holds = false
				continue
			}
			if !row.Quorum {
				p.breaks("%s lost: the cluster has no quorum then, %s stays down", name, g.Group)
			} else {
				p.breaks("%s lost: %s stays down (%s)", name, g.Group, strings.ReplaceAll(g.Reason, "_", " "))
			}
		}
	}
}

// choose calls f with every choice of k of n, in order; f keeps none.
func choose(n, k int, f func([]int)) {
	at := make([]int, k)
	for i := range at {
		at[i] = i
	}
	for {
		f(at)
		i := k - 1
		for i >= 0 && at[i] == n-k+i {
			i--
		}
		if i < 0 {
			return
		}
		for at[i]++; i+1 < k; i++ {
			at[i+1] = at[i] + 1
		}
	}
}

// key is a set of nodes, in address order, as a key.
func key(fail []addr.Address) string {
	var b strings.Builder
	for _, a := range fail {
		b.WriteString(a.String())
		b.WriteByte('\n')
	}
	return b.String()
}
