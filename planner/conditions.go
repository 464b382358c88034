package planner

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
)

// Kinds of what has conditions.
const (
	CheckBlock  = "check"
	CheckOutput = "output"
	CheckObject = "object"
)

// Check is what became of the conditions of a check block, an object or an
// output, after Terraform's checks.
type Check struct {
	Address  string         `json:"address"` // check.NAME, output.NAME, or the object's
	Kind     string         `json:"kind"`
	Status   string         `json:"status"` // pass | fail | error | unknown: of several the first in the order error, fail, unknown
	Problems []CheckProblem `json:"problems"`
}

// CheckProblem is a condition that fails, or can't be worked out.
type CheckProblem struct {
	Message   string           `json:"message"`
	Condition string           `json:"condition"` // assert | precondition | postcondition
	Range     *DiagnosticRange `json:"range,omitempty"`
}

// severity orders what becomes of conditions.
var severity = []string{lang.Pass, lang.Unknown, lang.Fail, lang.Error}

// CheckOf sums conditions up.
func CheckOf(address, kind string, list []lang.Condition) Check {
	out := Check{Address: address, Kind: kind, Status: lang.Pass, Problems: []CheckProblem{}}
	for i := range list {
		c := &list[i]
		if slices.Index(severity, c.Status) > slices.Index(severity, out.Status) {
			out.Status = c.Status
		}
		if c.Diag != nil {
			p := CheckProblem{Message: c.Message, Condition: c.Kind}
			p.Range = Diagnostics(hcl.Diagnostics{c.Diag})[0].Range
			out.Problems = append(out.Problems, p)
		}
	}
	return out
}

// ChecksAfter looks at the check blocks once the plan is carried out. What
// fails is a warning, never more.
func (p *Plan) ChecksAfter(def *lang.Definition, v lang.View) ([]Check, hcl.Diagnostics) {
	var left map[addr.Address]bool
	if p.work != nil {
		left = p.work.Left
	}
	return checks(def, v, left)
}

// checks looks at the check blocks. Of those that name what a plan of a part
// leaves as it is, which is not as the definition says, nobody can tell.
func checks(def *lang.Definition, v lang.View, left map[addr.Address]bool) ([]Check, hcl.Diagnostics) {
	out, diags := []Check{}, hcl.Diagnostics(nil)
	for _, c := range def.Checks(v) {
		for i := range c.Conditions {
			if slices.ContainsFunc(c.Conditions[i].Refers, func(a addr.Address) bool { return left[a] }) {
				c.Conditions[i].Status, c.Conditions[i].Diag = lang.Unknown, nil
			}
		}
		out = append(out, CheckOf(addr.JoinModules(c.Module, CheckBlock+"."+c.Name), CheckBlock, c.Conditions))
		diags = append(diags, warnings(c.Conditions)...)
	}
	return out, diags
}

func warnings(list []lang.Condition) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for i := range list {
		if d := list[i].Diag; d != nil {
			warning := *d
			warning.Severity = hcl.DiagWarning
			diags = append(diags, &warning)
		}
	}
	return diags
}

// Runtime tells what only the running cluster knows of nodes and groups. nil:
// nobody knows it now, for without a quorum it may be long past.
func Runtime(live *providers.Live) lang.Live {
	if live == nil || !live.Quorum {
		return nil
	}
	type key struct {
		at        addr.Address
		attribute string
	}
	values, names := make(map[key]string, len(live.Members)+2*len(live.Groups)), make(map[string]string, len(live.Members))
	for _, m := range live.Members {
		names[m.Spec.ID] = m.Spec.Name
		values[key{m.Spec.Addr, "state"}] = m.Node
	}
	for _, g := range live.Groups {
		values[key{g.Spec.Addr, "state"}], values[key{g.Spec.Addr, "owner"}] = g.State, names[g.Owner]
	}
	return func(a addr.Address, attribute string) (string, bool) {
		v, ok := values[key{a, attribute}]
		return v, ok
	}
}

// conditions looks at all conditions, with what is known now. Of objects and
// outputs one that fails is an error; of checks a warning. What the plan may
// change of the running cluster is unknown until it is applied.
func (b *builder) conditions() {
	def := b.in.Definition
	if def == nil || b.destroy || b.rereads || !def.HasConditions() {
		return
	}
	live := b.runtime()
	for _, it := range b.items {
		if it.want == nil || it.left {
			continue
		}
		list := def.Conditions(it.addr(), lang.Precondition, lang.View{Live: live})
		if after := def.Conditions(it.addr(), lang.Postcondition, lang.View{Live: live, Self: it.self()}); it.silent {
			list = append(list, unseen(after)...)
		} else {
			list = append(list, after...)
		}
		if len(list) == 0 {
			continue
		}
		c := CheckOf(it.addr().String(), CheckObject, list)
		b.plan.Checks = append(b.plan.Checks, c)
		for i := range list {
			if list[i].Diag != nil {
				b.diags = append(b.diags, list[i].Diag)
			}
		}
		if c.Status == lang.Unknown && !it.silent && b.plan.work != nil && !b.worksOn(it) {
			b.plan.work.Recheck = append(b.plan.work.Recheck, Recheck{it.addr(), it.self()})
		}
	}
	for _, o := range def.Outputs {
		list := def.OutputConditions(o.Name, lang.View{Live: live})
		if len(list) == 0 || b.partly() {
			continue // outputs stay as they are
		}
		b.plan.Checks = append(b.plan.Checks, CheckOf(CheckOutput+"."+o.Name, CheckOutput, list))
		for i := range list {
			if list[i].Diag != nil {
				b.diags = append(b.diags, list[i].Diag)
			}
		}
	}
	left := map[addr.Address]bool{}
	for _, it := range b.items {
		if it.left {
			left[it.addr()] = true
		}
	}
	if b.plan.work != nil {
		b.plan.work.Left = left
	}
	list, diags := checks(def, lang.View{Live: live}, left)
	b.plan.Checks, b.diags = append(b.plan.Checks, list...), append(b.diags, diags...)
	slices.SortStableFunc(b.plan.Checks, func(x, y Check) int { return strings.Compare(x.Address, y.Address) })
}

// unseen are conditions of an object that could not be seen: whether they fail
// nobody knows.
func unseen(list []lang.Condition) []lang.Condition {
	for i := range list {
		list[i].Status, list[i].Diag = lang.Unknown, nil
	}
	return list
}

// self is the object as it is to be, or as it is where nothing is done to it.
func (it *item) self() cty.Value {
	switch {
	case it.change.After != cty.NilVal:
		return it.change.After
	case it.prior != nil && it.prior.Value != cty.NilVal:
		return it.veil(likeMarks(it.prior.Value, it.want.config))
	}
	return cty.NilVal
}

// worksOn tells whether the apply has a unit for the object, which looks at its
// conditions.
func (b *builder) worksOn(it *item) bool {
	return slices.ContainsFunc(b.allOf(it.addr().Owner()), func(i *item) bool { return i.acts() })
}

// allOf are an object's items: a group's with its resources.
func (b *builder) allOf(owner addr.Address) []*item {
	var out []*item
	if it := b.at.At(owner); it != nil {
		out = append(out, it)
	}
	return append(out, b.parts[owner]...)
}

// runtime tells what the running cluster says, of what the plan leaves as it is.
func (b *builder) runtime() lang.Live {
	know := Runtime(b.in.World.Live)
	if know == nil {
		return nil
	}
	nodes := false
	for _, it := range b.items {
		nodes = nodes || it.acts() && (it.addr().Type == addr.TypeNode || it.addr().Type == addr.TypeCluster)
	}
	// A group changes with what it depends on.
	settled := map[addr.Address]bool{}
	var changes func(addr.Address) bool
	changes = func(a addr.Address) bool {
		if is, known := settled[a]; known {
			return is
		}
		settled[a] = false
		is := false
		for _, it := range b.allOf(a) {
			is = is || it.acts()
			if it.want == nil {
				continue
			}
			for _, dep := range it.want.hard() {
				is = is || dep.Type == addr.TypeGroup && dep.Owner() != a && changes(dep.Owner())
			}
		}
		settled[a] = is
		return is
	}
	return func(a addr.Address, attribute string) (string, bool) {
		it := b.at.At(a)
		switch {
		case it == nil:
			return "", false
		case a.Type == addr.TypeNode && (it.acts() || b.at.At(addr.Cluster()) != nil && b.at.At(addr.Cluster()).acts()):
			return "", false
		case a.Type == addr.TypeGroup && (nodes || changes(a)):
			return "", false
		}
		return know(a, attribute)
	}
}
