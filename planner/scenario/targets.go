package scenario

import (
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// targets are nodes, by name, and the quorum device.
type targets struct {
	nodes  []string
	device bool
	words  []string
}

func (t *targets) add(more targets) {
	for _, n := range more.nodes {
		if !slices.Contains(t.nodes, n) {
			t.nodes = append(t.nodes, n)
		}
	}
	for _, w := range more.words {
		if !slices.Contains(t.words, w) {
			t.words = append(t.words, w)
		}
	}
	t.device = t.device || more.device
}

// elements are those of a list that is written out, or the expression itself.
func elements(e hclsyntax.Expression) []hclsyntax.Expression {
	if list, ok := e.(*hclsyntax.TupleConsExpr); ok {
		return list.Exprs
	}
	return []hclsyntax.Expression{e}
}

func isNull(e hclsyntax.Expression) bool {
	lit, ok := e.(*hclsyntax.LiteralValueExpr)
	return ok && lit.Val.IsNull()
}

// targets reads node.NAME, a list of nodes, zone.NAME, and device.
func (r *reader) targets(e hclsyntax.Expression, device bool) targets {
	if t, ok := e.(*hclsyntax.ScopeTraversalExpr); ok {
		switch t.Traversal.RootName() {
		case "zone":
			return r.zone(t.Traversal)
		case "device":
			return r.device(t.Traversal, device)
		}
	}
	v, ok := r.any(e)
	if !ok {
		return targets{}
	}
	named, ok := lang.NamedIn(v)
	if !ok {
		r.fail(e.Range(), "Not a node", "Name nodes by reference, as node.NAME or node.NAME[\"KEY\"], or a zone as zone.NAME.")
		return targets{}
	}
	var out targets
	for _, a := range named {
		name, ok := r.nodes[a]
		if !ok {
			r.fail(e.Range(), "Not a node", "%s is a %s, and this is done to nodes and zones.", a, a.Type)
			continue
		}
		out.add(targets{nodes: []string{name}, words: []string{a.String()}})
	}
	return out
}

func (r *reader) zone(t hcl.Traversal) targets {
	known := slices.Sorted(maps.Keys(r.zones))
	name := ""
	if len(t) == 2 {
		switch step := t[1].(type) {
		case hcl.TraverseAttr:
			name = step.Name
		case hcl.TraverseIndex:
			if k := step.Key; k.IsKnown() && !k.IsNull() && k.Type().FriendlyName() == "string" {
				name = k.AsString()
			}
		}
	}
	switch {
	case len(known) == 0:
		r.fail(t.SourceRange(), "Unknown zone", "No node of the definition is in a zone. Give nodes a zone, or name the nodes.")
	case name == "":
		r.fail(t.SourceRange(), "Incomplete reference", "Write zone.NAME, or zone[\"NAME\"]. There are %s.", strings.Join(known, ", "))
	case r.zones[name] == nil:
		r.fail(t.SourceRange(), "Unknown zone", "No node of the definition is in zone %q.%s There are %s.", short(name), didYouMean(name, known), strings.Join(known, ", "))
	default:
		return targets{nodes: r.zones[name], words: []string{"zone." + name}}
	}
	return targets{}
}

func (r *reader) device(t hcl.Traversal, may bool) targets {
	switch model := r.def.Spec().Cluster.Quorum.Model; {
	case !may:
		r.fail(t.SourceRange(), "Not a node", "The quorum device can be lost, with lose = [device], and nothing else.")
	case len(t) > 1:
		r.fail(t.SourceRange(), "Invalid reference", "There is one quorum device; write device.")
	case model != spec.SingleQuorum:
		r.fail(t.SourceRange(), "No quorum device", "With quorum model %s there is no quorum device.", model)
	default:
		return targets{device: true, words: []string{"device"}}
	}
	return targets{}
}

// nodesOf reads nodes and zones: their names.
func (r *reader) nodesOf(e hclsyntax.Expression) []string {
	var t targets
	before := len(r.diags)
	for _, one := range elements(e) {
		t.add(r.targets(one, false))
	}
	if len(t.nodes) == 0 && len(r.diags) == before {
		r.fail(e.Range(), "Nothing named", "Name nodes, as node.NAME or [node.NAME, node.NAME].")
	}
	return t.nodes
}

// groupsOf reads group.NAME, or a list of groups.
func (r *reader) groupsOf(e hclsyntax.Expression) []addr.Address {
	v, ok := r.any(e)
	if !ok {
		return nil
	}
	named, ok := lang.NamedIn(v)
	if !ok || len(named) == 0 {
		r.fail(e.Range(), "Not a group", "Name groups by reference, as group.NAME or [group.NAME, group.NAME[\"KEY\"]].")
		return nil
	}
	var out []addr.Address
	for _, a := range named {
		if _, ok := r.groups[a]; !ok {
			r.fail(e.Range(), "Not a group", "%s is a %s, and this is about groups.", a, a.Type)
			continue
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
