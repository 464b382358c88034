package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/placement"
	"github.com/clusterplan/clusterplan/runtime/quorum"
	"github.com/clusterplan/clusterplan/statefile"
)

// Simulation is what would happen if something failed: `simulate --json`. Lists
// are in address order.
type Simulation struct {
	FormatVersion string               `json:"format_version"`
	Cluster       string               `json:"cluster"`
	Live          bool                 `json:"live"`     // it starts from where the running cluster is; else from the definition alone
	Revision      uint64               `json:"revision"` // of the cluster's database; 0 where it is not live
	Fail          []string             `json:"fail"`     // as node.n1, zone.east, device
	Down          []addr.Address       `json:"down"`     // nodes that are down already
	Lost          []addr.Address       `json:"lost"`     // nodes that are down then, those among them
	Device        bool                 `json:"device"`   // the quorum device is lost
	Quorum        SimulatedQuorum      `json:"quorum"`
	Groups        []SimulatedGroup     `json:"groups"`
	Guarantees    []SimulatedGuarantee `json:"guarantees"`
	Diagnostics   []Diagnostic         `json:"diagnostics"`
}

// SimulatedQuorum is the votes that are left.
type SimulatedQuorum struct {
	Model  spec.QuorumModel `json:"model"`
	Have   bool             `json:"have"`
	Votes  int              `json:"votes"`
	Up     int              `json:"up"`
	Needed int              `json:"needed"`
}

// SimulatedGroup is where a group is before and after.
type SimulatedGroup struct {
	Group  addr.Address   `json:"group"`
	From   *addr.Address  `json:"from"` // null: nobody
	To     *addr.Address  `json:"to"`   // null: nobody
	State  string         `json:"state"`
	Reason string         `json:"reason"` // placement's; no_quorum; Frozen
	MaxMS  int64          `json:"max_ms"` // how long it is down at most; -1: until somebody or something comes back
	Terms  *FailoverTerms `json:"terms,omitempty"`
}

// SimulatedGuarantee is what becomes of a guarantee.
type SimulatedGuarantee struct {
	Name    string       `json:"name"`
	Address addr.Address `json:"address"`
	Covered bool         `json:"covered"` // it is about a fault of this size
	Holds   bool         `json:"holds"`   // its groups are online after it, in time
	Broken  []string     `json:"broken,omitempty"`
}

// Broken tells whether a guarantee does not hold in a fault that it covers.
func (s *Simulation) Broken() bool {
	return slices.ContainsFunc(s.Guarantees, func(g SimulatedGuarantee) bool { return g.Covered && !g.Holds })
}

// Simulate works out what becomes of the definition's groups when all of fail is
// lost at once: nodes by address or name, zones as zone.NAME, the quorum device as
// device. With live, groups are where they are now, and what is down or paused is;
// state, in which the moved blocks have been followed (Rename), says which of the
// definition's objects are the cluster's.
func Simulate(def *lang.Definition, state *statefile.State, live *providers.Live, fail []string) (*Simulation, error) {
	if live != nil {
		live = called(live, state)
	}
	b := &builder{in: Input{Definition: def, World: World{Live: live}}, after: *def.Spec()}
	s := b.sceneOf(b.after, live == nil)
	if live != nil {
		s.count(live)
	}
	out, err := s.simulate(fail)
	if err != nil {
		return nil, err
	}
	if live != nil {
		out.Live, out.Revision = true, live.Revision
	}
	return out, nil
}

// CheckFaults is the error of what Simulate is to have fail, where one is none.
func CheckFaults(def *lang.Definition, fail []string) error {
	s, f := &scene{def: *def.Spec()}, &fault{nodes: map[string]bool{}}
	for _, word := range fail {
		if err := s.read(f, word); err != nil {
			return err
		}
	}
	return nil
}

// called has the cluster's nodes and groups go by the state's addresses.
func called(live *providers.Live, state *statefile.State) *providers.Live {
	at := make(map[string]addr.Address, len(state.Objects))
	for i := range state.Objects {
		at[state.Objects[i].ID] = state.Objects[i].Addr
	}
	next := *live
	next.Members, next.Groups = slices.Clone(live.Members), slices.Clone(live.Groups)
	for i := range next.Members {
		if a, ok := at[next.Members[i].Spec.ID]; ok {
			next.Members[i].Spec.Addr = a
		}
	}
	for i := range next.Groups {
		if a, ok := at[next.Groups[i].Spec.ID]; ok {
			next.Groups[i].Spec.Addr = a
		}
	}
	return &next
}

// count corrects who is up: nodes that have not joined yet are to be there, and
// without a quorum nobody knows of the others.
func (s *scene) count(live *providers.Live) {
	member := make(map[addr.Address]string, len(live.Members))
	for _, m := range live.Members {
		member[m.Spec.Addr] = m.Node
	}
	for i := range s.def.Nodes {
		n := &s.def.Nodes[i]
		if state, joined := member[n.Addr]; !joined || !live.Quorum && state == spec.NodeUnknown {
			s.up[n.Name] = true
		}
	}
}

// fault is what fails, read from its words.
type fault struct {
	nodes  map[string]bool
	device bool
	words  []string
	single int // nodes that were named one by one
	zones  int
}

// read finds what one word of --fail means.
func (s *scene) read(f *fault, word string) error {
	zones, members := s.def.Zones()
	at, parseErr := addr.Parse(word)
	zone, isZone := strings.CutPrefix(word, "zone.")
	for i := range s.def.Nodes {
		n := &s.def.Nodes[i]
		if n.Name == word || parseErr == nil && n.Addr == at {
			if f.add(n.Addr.String()) {
				f.nodes[n.Name] = true
				f.single++
			}
			return nil
		}
	}
	switch {
	case isZone && members[zone] != nil:
		if f.add(word) {
			f.zones++
			for _, n := range members[zone] {
				f.nodes[n] = true
			}
		}
		return nil
	case isZone && len(zones) == 0:
		return fmt.Errorf("--fail %s: no node is in a zone", word)
	case isZone && lang.Nearest(zone, zones) != "":
		return fmt.Errorf("--fail %s: there is no such zone; did you mean zone.%s?", word, lang.Nearest(zone, zones))
	case isZone:
		return fmt.Errorf("--fail %s: there is no such zone; there are %s", word, strings.Join(slices.Sorted(slices.Values(zones)), ", "))
	case word == "device" && s.def.Cluster.Quorum.Model == spec.SingleQuorum:
		f.add(word)
		f.device = true
		return nil
	case word == "device":
		return fmt.Errorf("--fail device: with quorum model %s there is no quorum device", s.def.Cluster.Quorum.Model)
	case parseErr == nil && at.Type != addr.TypeNode:
		return fmt.Errorf("--fail %s: a %s does not fail by itself; name nodes, zones (zone.NAME) or the quorum device (device)", word, at.Type)
	}
	names := make([]string, 0, len(s.def.Nodes))
	near := []string{"device"}
	for i := range s.def.Nodes {
		names = append(names, s.def.Nodes[i].Addr.String())
		near = append(near, s.def.Nodes[i].Name)
	}
	for _, z := range zones {
		near = append(near, "zone."+z)
	}
	if one := lang.Nearest(word, slices.Concat(names, near)); one != "" {
		return fmt.Errorf("--fail %s: there is no such node; did you mean %s?", word, one)
	}
	if len(names) > 10 {
		names = append(names[:10], fmt.Sprintf("and %d more", len(s.def.Nodes)-10))
	}
	return fmt.Errorf("--fail %s: there is no such node; there are %s", word, strings.Join(names, ", "))
}

// add notes a word once.
func (f *fault) add(word string) bool {
	if slices.Contains(f.words, word) {
		return false
	}
	f.words = append(f.words, word)
	return true
}

func (s *scene) simulate(fail []string) (*Simulation, error) {
	f := &fault{nodes: map[string]bool{}, words: []string{}}
	for _, word := range fail {
		if err := s.read(f, word); err != nil {
			return nil, err
		}
	}
	b := s.board()
	var lost []string
	out := &Simulation{
		FormatVersion: FormatVersion, Cluster: s.def.Cluster.Name, Fail: f.words, Device: f.device,
		Down: []addr.Address{}, Lost: []addr.Address{}, Groups: []SimulatedGroup{}, Guarantees: []SimulatedGuarantee{}, Diagnostics: []Diagnostic{},
	}
	for i := range s.def.Nodes {
		n := &s.def.Nodes[i]
		if !s.isUp(n.Name) {
			out.Down = append(out.Down, n.Addr)
		}
		if f.nodes[n.Name] {
			lost = append(lost, n.Name)
		}
		if f.nodes[n.Name] || !s.isUp(n.Name) {
			out.Lost = append(out.Lost, n.Addr)
		}
	}
	row := b.row(quorum.Fault{Nodes: lost, Device: f.device})
	votes, up := quorum.Votes(b.votes)
	model := s.def.Cluster.Quorum.Model
	out.Quorum = SimulatedQuorum{Model: model, Have: row.Quorum, Votes: votes, Up: up, Needed: quorum.Needed(model, votes)}
	out.Groups = b.groupsAfter(&row, f)
	out.Guarantees = b.promisesAfter(out, f)
	return out, nil
}

// groupsAfter lists every group: those of the row, and those that go on or stay down.
func (b *board) groupsAfter(row *MatrixRow, f *fault) []SimulatedGroup {
	out := make([]SimulatedGroup, 0, len(b.rest))
	moved := make(map[addr.Address]*MatrixGroup, len(row.Groups))
	for i := range row.Groups {
		moved[row.Groups[i].Group] = &row.Groups[i]
	}
	times := failoverTimes(b.scene.def)
	byGroup := make(map[addr.Address]*FailoverTime, len(times))
	for i := range times {
		byGroup[times[i].Group] = &times[i]
	}
	for i, rest := range b.rest {
		g := &b.scene.def.Groups[i]
		one := SimulatedGroup{Group: g.Addr, From: b.nodeAt[rest.To], To: b.nodeAt[rest.To], State: rest.State, Reason: placement.WhyStays}
		if rest.To == "" {
			one.Reason, one.MaxMS = rest.Why, -1
		}
		if m := moved[g.Addr]; m != nil {
			one.To, one.State, one.Reason = m.To, m.State, m.Reason
			t := byGroup[g.Addr]
			switch {
			case m.State != spec.StateOnline:
				one.MaxMS = -1
			case m.Reason == Frozen:
			case m.From == nil: // it was down before, too
				one.Reason = placement.WhyFirstStart
			case t != nil && f.nodes[rest.To]:
				one.Reason, one.MaxMS, one.Terms = placement.WhyFailover, t.WorstMS, &t.Terms
			default: // it makes room
				one.Reason, one.MaxMS = placement.WhyShed, moveBound(g, b.scene.def.Cluster.Heartbeat)
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(x, y SimulatedGroup) int { return addr.Compare(x.Group, y.Group) })
	return out
}

// promisesAfter says what becomes of each guarantee. It covers a fault of as many
// nodes, those among them that were down before, or of as many zones; not both.
func (b *board) promisesAfter(sim *Simulation, f *fault) []SimulatedGuarantee {
	out := []SimulatedGuarantee{}
	after := make(map[addr.Address]*SimulatedGroup, len(sim.Groups))
	for i := range sim.Groups {
		after[sim.Groups[i].Group] = &sim.Groups[i]
	}
	byName := make(map[string]int, len(b.rest))
	for i := range b.scene.def.Groups {
		byName[b.scene.def.Groups[i].Name] = i
	}
	for i := range b.scene.def.Guarantees {
		g := &b.scene.def.Guarantees[i]
		one := SimulatedGuarantee{Name: g.Name, Address: g.Addr}
		asNodes := int64(len(sim.Lost)) <= g.Survives[spec.SurviveNodes]
		asZones := f.zones > 0 && f.single == 0 && len(sim.Lost) == len(f.nodes) && int64(f.zones) <= g.Survives[spec.SurviveZones]
		one.Covered = !f.device && (asNodes || asZones)
		for _, name := range g.Groups {
			at, ok := byName[name]
			if !ok {
				continue
			}
			t := after[b.scene.def.Groups[at].Addr]
			why := strings.ReplaceAll(t.Reason, "_", " ")
			switch rest := b.rest[at]; {
			case rest.Why == placement.WhyOffline || rest.Why == placement.WhyPriorityZero: // nobody wants it
			case t.State != spec.StateOnline:
				one.Broken = append(one.Broken, fmt.Sprintf("%s stays down (%s)", t.Group, why))
			case g.MaxDowntime != 0 && t.MaxMS > ms(g.MaxDowntime.D()):
				text := fmt.Sprintf("%s may be down for %d ms, longer than %s", t.Group, t.MaxMS, g.MaxDowntime)
				if t.Terms != nil {
					text += ": " + t.Terms.Sum()
				}
				one.Broken = append(one.Broken, text)
			}
		}
		one.Holds = len(one.Broken) == 0
		out = append(out, one)
	}
	return out
}
