package planner

import (
	"slices"

	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

// Comparison is two versions of a definition side by side: what differs in
// their objects, and what faults do to either. Nothing that runs counts in it.
// Its JSON is `diff --json`.
type Comparison struct {
	FormatVersion string         `json:"format_version"`
	From          ComparedAt     `json:"from"`
	To            ComparedAt     `json:"to"`
	Changes       []Change       `json:"changes"` // by address; what is in both and the same is left out, but for the cluster
	Summary       CompareSummary `json:"summary"`
	FailureMatrix FailureMatrix  `json:"failure_matrix"`
	Diagnostics   []Diagnostic   `json:"diagnostics"`
}

// ComparedAt is one of the two versions.
type ComparedAt struct {
	Revision      string         `json:"revision"` // as it was asked for
	Git           string         `json:"git"`      // commit
	Cluster       string         `json:"cluster"`
	FailoverTimes []FailoverTime `json:"failover_times"`
	Guarantees    []Guarantee    `json:"guarantees"`
}

// CompareSummary counts objects.
type CompareSummary struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Removed int `json:"removed"`
	Moved   int `json:"moved"`
}

// Compare puts two definitions side by side. What the second one's moved blocks
// name is one object, not two.
func Compare(from, to *lang.Definition, registry *providers.Registry) *Comparison {
	b := &builder{in: Input{Providers: registry}, shapes: map[string]shape{}, types: map[string]cty.Type{}}
	b.learn()
	before, after := b.objectsOf(from), b.objectsOf(to)
	c := &Comparison{FormatVersion: FormatVersion, Changes: []Change{}, Diagnostics: []Diagnostic{}}
	was := map[addr.Address]addr.Address{} // by what it is called in to
	for a := range before {
		if _, stays := after[a]; stays {
			continue
		}
		if end, by := to.Moves().Final(a); by != nil && after[end] != nil && before[end] == nil {
			was[end] = a
		}
	}
	moved := map[addr.Address]bool{}
	for a, o := range after {
		one := Change{Address: a, Type: o.Type, After: o.Value, Actions: ActionCreate, Attributes: []AttributeChange{}}
		prior := before[a]
		if prev, ok := was[a]; ok {
			prior, one.PreviousAddress, moved[prev] = before[prev], &prev, true
			c.Summary.Moved++
		}
		switch {
		case prior == nil:
			c.Summary.Added++
			one.Attributes = b.differ.diff(b.shapes[o.Type], cty.NilVal, o.Value, cty.NilVal)
		case prior.Type != o.Type: // a resource of another kind under the same name
			one.Actions, one.Before = ActionDeleteThenCreate, prior.Value
			c.Summary.Changed++
		default:
			one.Before = prior.Value
			one.Attributes = b.differ.diff(b.shapes[o.Type], prior.Value, o.Value, cty.NilVal)
			one.Actions = ActionUpdate
			if len(one.Attributes) == 0 {
				if one.Actions = ActionNoOp; one.PreviousAddress == nil && a.Type != addr.TypeCluster {
					continue
				}
			} else {
				c.Summary.Changed++
			}
		}
		for _, attr := range one.Attributes {
			one.Impact = stronger(one.Impact, attr.Impact)
		}
		c.Changes = append(c.Changes, one)
	}
	for a, o := range before {
		if after[a] == nil && !moved[a] {
			c.Changes = append(c.Changes, Change{Address: a, Type: o.Type, Before: o.Value, Actions: ActionDelete, Attributes: []AttributeChange{}})
			c.Summary.Removed++
		}
	}
	slices.SortFunc(c.Changes, func(x, y Change) int { return addr.Compare(x.Address, y.Address) })
	c.From, c.FailureMatrix.Before = comparedAt(from.Spec())
	c.To, c.FailureMatrix.After = comparedAt(to.Spec())
	c.FailureMatrix.Regressions = orEmpty(regressions(c.FailureMatrix.Before, c.FailureMatrix.After))
	return c
}

func (b *builder) objectsOf(def *lang.Definition) map[addr.Address]*lang.Object {
	out := make(map[addr.Address]*lang.Object, len(def.Objects))
	for i := range def.Objects {
		out[def.Objects[i].Addr] = &def.Objects[i]
	}
	return out
}

func comparedAt(def *spec.Definition) (ComparedAt, *Matrix) {
	board := (&scene{def: *def}).board()
	m, times := board.matrix(false), failoverTimes(*def)
	return ComparedAt{Cluster: def.Cluster.Name, FailoverTimes: orEmpty(times), Guarantees: orEmpty(board.guarantees(def.Guarantees, m, times))}, m
}
