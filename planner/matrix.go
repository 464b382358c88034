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

// pairLimit is the number of nodes above which the matrix leaves pairs out.
const pairLimit = 64

// scene is a cluster at rest or in motion: what placement and quorum are
// asked about.
type scene struct {
	def    spec.Definition
	up     map[string]bool   // by node name; nil: all
	paused map[string]bool   // by node name
	drain  map[string]bool   // paused, and its groups leave
	owner  map[string]string // group name -> node name; absent: nobody
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
		in.Groups = append(in.Groups, placement.Group{Spec: g, Owner: s.owner[g.Name], Want: s.want[g.Name]})
	}
	return in
}

// matrix works out every fault: whether there is quorum, and what becomes of
// the groups that do not go on where they are.
func (s *scene) matrix() *Matrix {
	pairs := len(s.def.Nodes) <= pairLimit
	m := &Matrix{Rows: []MatrixRow{}, Pairs: pairs}
	nodeAt := make(map[string]*addr.Address, len(s.def.Nodes))
	votes := make([]quorum.Node, len(s.def.Nodes))
	for i := range s.def.Nodes {
		nodeAt[s.def.Nodes[i].Name] = &s.def.Nodes[i].Addr
		votes[i] = quorum.Node{Spec: s.def.Nodes[i]}
	}
	groupAt := make(map[string]addr.Address, len(s.def.Groups))
	for i := range s.def.Groups {
		groupAt[s.def.Groups[i].Name] = s.def.Groups[i].Addr
	}
	// Where groups rest while nothing more fails is where each fault finds them.
	rest := *s
	rest.owner = make(map[string]string, len(s.def.Groups))
	for _, o := range placement.Compile(s.placementInput()).Settle() {
		if o.To != "" {
			rest.owner[o.Group] = o.To
		}
	}
	board := placement.Compile(rest.placementInput())
	for _, fault := range quorum.Faults(s.def.Cluster.Quorum.Model, s.def.Nodes, pairs) {
		row := MatrixRow{Fail: []addr.Address{}, Device: fault.Device, Groups: []MatrixGroup{}}
		for _, name := range fault.Nodes {
			row.Fail = append(row.Fail, *nodeAt[name])
		}
		slices.SortFunc(row.Fail, addr.Compare)
		for i, n := range s.def.Nodes {
			votes[i].Up = s.isUp(n.Name) && !slices.Contains(fault.Nodes, n.Name)
		}
		row.Quorum = quorum.Have(s.def.Cluster.Quorum.Model, votes, !fault.Device)
		if !row.Quorum {
			for i := range s.def.Groups {
				g := &s.def.Groups[i]
				if from, ok := rest.owner[g.Name]; ok {
					row.Groups = append(row.Groups, MatrixGroup{Group: g.Addr, From: nodeAt[from], State: spec.StateOffline, Reason: "no_quorum"})
				}
			}
			m.Rows = append(m.Rows, row)
			continue
		}
		for _, o := range board.Settle(fault.Nodes...) {
			if o.From == o.To && (o.State == spec.StateOnline || o.From == "") {
				continue
			}
			one := MatrixGroup{Group: groupAt[o.Group], From: nodeAt[o.From], To: nodeAt[o.To], State: o.State}
			if o.State != spec.StateOnline {
				one.Reason = o.Why
			}
			row.Groups = append(row.Groups, one)
		}
		slices.SortFunc(row.Groups, func(a, b MatrixGroup) int { return addr.Compare(a.Group, b.Group) })
		m.Rows = append(m.Rows, row)
	}
	return m
}

// regressions names what a fault does after the apply that it did not do before.
func regressions(before, after *Matrix) []string {
	out := []string{}
	if before == nil || after == nil {
		return out
	}
	key := func(r MatrixRow) string {
		names := make([]string, len(r.Fail))
		for i, a := range r.Fail {
			names[i] = a.String()
		}
		return strings.Join(names, " and ")
	}
	rows := make(map[string]MatrixRow, len(before.Rows))
	for _, r := range before.Rows {
		rows[key(r)] = r
	}
	for _, r := range after.Rows {
		name := key(r)
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
