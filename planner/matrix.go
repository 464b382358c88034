package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/placement"
	"github.com/clusterplan/clusterplan/runtime/quorum"
)

// pairLimit is the number of nodes above which the matrix leaves pairs out unless
// it is asked for them (Input.Pairs).
const pairLimit = 64

// Frozen is the reason of a group that goes on where it is without a quorum,
// which nobody takes over (no_quorum = "freeze").
const Frozen = "frozen"

// scene is a cluster at rest or in motion: what placement and quorum are
// asked about.
type scene struct {
	def    spec.Definition
	up     map[string]bool   // by node name; nil: all
	paused map[string]bool   // by node name
	drain  map[string]bool   // paused, and its groups leave
	owner  map[string]string // group name -> node name; absent: nobody
	home   map[string]string // group name -> the node that a failure or a drain took it from; absent: it is there
	want   map[string]string // group name -> an operator's online or offline
}

func (s *scene) isUp(name string) bool { return s.up == nil || s.up[name] }

// placementInput is the scene for placement.
func (s *scene) placementInput() placement.Input {
	in := placement.Input{Nodes: make([]placement.Node, 0, len(s.def.Nodes)), Groups: make([]placement.Group, 0, len(s.def.Groups))}
	for _, n := range s.def.Nodes {
		in.Nodes = append(in.Nodes, placement.Node{
			Spec: n, Up: s.isUp(n.Name), Paused: s.paused[n.Name] || s.drain[n.Name], Drained: s.drain[n.Name],
		})
	}
	for _, g := range s.def.Groups {
		in.Groups = append(in.Groups, placement.Group{Spec: g, Owner: s.owner[g.Name], Home: s.home[g.Name], Want: s.want[g.Name]})
	}
	return in
}

// MatrixOf is the failure matrix of a definition that nothing runs of yet.
func MatrixOf(def spec.Definition) *Matrix { return (&scene{def: def}).board().matrix(false) }

// board is a scene that has come to rest, ready to be asked what faults do to it.
type board struct {
	scene   *scene
	asked   *placement.Board
	rest    []placement.Outcome // where every group rests while nothing more fails, in the definition's order
	owner   map[string]string   // the same, of those that have a node
	votes   []quorum.Node
	nodeAt  map[string]*addr.Address
	groupAt map[string]*addr.Address
}

// board lets the scene come to rest: where groups are then is where each fault
// finds them.
func (s *scene) board() *board {
	asked := placement.Compile(s.placementInput())
	b := &board{
		scene: s, asked: asked, rest: asked.Settle(), votes: make([]quorum.Node, len(s.def.Nodes)),
		owner:  make(map[string]string, len(s.def.Groups)),
		nodeAt: make(map[string]*addr.Address, len(s.def.Nodes)), groupAt: make(map[string]*addr.Address, len(s.def.Groups)),
	}
	for i := range s.def.Nodes {
		b.nodeAt[s.def.Nodes[i].Name] = &s.def.Nodes[i].Addr
		b.votes[i] = quorum.Node{Spec: s.def.Nodes[i]}
	}
	for i := range s.def.Groups {
		b.groupAt[s.def.Groups[i].Name] = &s.def.Groups[i].Addr
	}
	for i, o := range b.rest {
		if o.To != "" {
			b.owner[o.Group] = o.To
		}
		asked.Group(i).Owner = o.To
	}
	return b
}

// have tells whether there is a quorum when these nodes, or the device, are lost.
func (b *board) have(lost []string, device bool) bool {
	for i, n := range b.scene.def.Nodes {
		b.votes[i].Up = b.scene.isUp(n.Name) && !slices.Contains(lost, n.Name)
	}
	return quorum.Have(b.scene.def.Cluster.Quorum.Model, b.votes, !device)
}

// row works out one fault: whether there is quorum, and what becomes of the
// groups that do not go on where they are.
func (b *board) row(fault quorum.Fault) MatrixRow {
	row := MatrixRow{Fail: make([]addr.Address, 0, len(fault.Nodes)), Zone: fault.Zone, Device: fault.Device, Groups: []MatrixGroup{}}
	for _, name := range fault.Nodes {
		row.Fail = append(row.Fail, *b.nodeAt[name])
	}
	slices.SortFunc(row.Fail, addr.Compare)
	if row.Quorum = b.have(fault.Nodes, fault.Device); !row.Quorum {
		row.Groups = make([]MatrixGroup, 0, len(b.owner))
		for i := range b.scene.def.Groups {
			g := &b.scene.def.Groups[i]
			from, ok := b.owner[g.Name]
			if !ok {
				continue
			}
			one := MatrixGroup{Group: g.Addr, From: b.nodeAt[from], State: spec.StateOffline, Reason: "no_quorum"}
			if g.NoQuorum == spec.NoQuorumFreeze && !slices.Contains(fault.Nodes, from) {
				one.To, one.State, one.Reason = one.From, spec.StateOnline, Frozen
			}
			row.Groups = append(row.Groups, one)
		}
		return row
	}
	settled := b.asked.Settle(fault.Nodes...)
	stays := func(o *placement.Outcome) bool {
		return o.From == o.To && (o.State == spec.StateOnline || o.From == "")
	}
	affected := 0 // counted first: there are many rows
	for i := range settled {
		if !stays(&settled[i]) {
			affected++
		}
	}
	row.Groups = make([]MatrixGroup, 0, affected)
	for i := range settled {
		o := &settled[i]
		if stays(o) {
			continue
		}
		one := MatrixGroup{Group: *b.groupAt[o.Group], From: b.nodeAt[o.From], To: b.nodeAt[o.To], State: o.State}
		if o.State != spec.StateOnline {
			one.Reason = o.Why
		}
		row.Groups = append(row.Groups, one)
	}
	slices.SortFunc(row.Groups, func(x, y MatrixGroup) int { return addr.Compare(x.Group, y.Group) })
	return row
}

// matrix works out every fault; pairs of more than pairLimit nodes only where they
// are asked for.
func (b *board) matrix(pairs bool) *Matrix {
	def := &b.scene.def
	m := &Matrix{Rows: []MatrixRow{}, Pairs: pairs || len(def.Nodes) <= pairLimit, alone: map[string]addr.Address{}}
	for _, fault := range quorum.Faults(def.Cluster.Quorum.Model, def.Nodes, m.Pairs) {
		m.Rows = append(m.Rows, b.row(fault))
	}
	members := map[string]int{}
	for i := range def.Nodes {
		members[def.Nodes[i].Zone]++
	}
	for i := range def.Nodes {
		if n := &def.Nodes[i]; n.Zone != "" && members[n.Zone] == 1 {
			m.alone[n.Zone] = n.Addr
		}
	}
	return m
}

// name is what a row is about, for people: `node.n1 and node.n2`, `zone east`.
func (r *MatrixRow) name() string {
	switch {
	case r.Device:
		return "quorum device"
	case r.Zone != "":
		return "zone " + r.Zone
	}
	names := make([]string, len(r.Fail))
	for i, a := range r.Fail {
		names[i] = a.String()
	}
	return strings.Join(names, " and ")
}

// regressions names what a fault does after the apply that it did not do before.
func regressions(before, after *Matrix) []string {
	out := []string{}
	if before == nil || after == nil {
		return out
	}
	rows := make(map[string]*MatrixRow, len(before.Rows))
	for i := range before.Rows {
		rows[before.Rows[i].name()] = &before.Rows[i]
	}
	for zone, node := range before.alone {
		rows["zone "+zone] = rows[node.String()]
	}
	for i := range after.Rows {
		r := &after.Rows[i]
		name := r.name()
		old, ok := rows[name]
		if !ok {
			continue
		}
		if old.Quorum && !r.Quorum {
			out = append(out, fmt.Sprintf("%s lost: the cluster has no quorum then; before, it had", name))
			continue
		}
		if !old.Quorum {
			continue
		}
		down := make(map[addr.Address]bool, len(old.Groups))
		for _, g := range old.Groups {
			down[g.Group] = g.State != spec.StateOnline
		}
		for _, g := range r.Groups {
			if g.State != spec.StateOnline && !down[g.Group] {
				out = append(out, fmt.Sprintf("%s lost: %s stays down (%s); before, it did not", name, g.Group, strings.ReplaceAll(g.Reason, "_", " ")))
			}
		}
	}
	return out
}
