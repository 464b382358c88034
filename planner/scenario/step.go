package scenario

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// actions are those that are attributes of a step.
var actions = []string{ActLose, ActKill, ActHang, ActCut, ActIsolate, ActHeal, ActStart, ActPause, ActDrain, ActResume, ActOffline, ActOnline}

func (r *reader) step(b *hclsyntax.Block) Step {
	s := Step{Range: b.DefRange()}
	var did *hcl.Range // where its action stands
	once := func(at hcl.Range) {
		if did != nil {
			r.fail(at, "Two actions in a step", "A step does one thing, and this one does another at %s already. Write two steps; with wait = \"0s\" in the first one they happen at the same moment.", did)
		}
		did = &at
	}
	for _, a := range r.attributes(b.Body, "A step", append([]string{"wait", "move"}, actions...)) {
		switch a.Name {
		case "wait":
			s.Wait = r.span(a)
		case "move":
			r.fail(a.NameRange, "move is a block", "Write move { group = group.NAME, to = node.NAME } on lines of their own, without =.")
		default:
			once(a.NameRange)
			s.Action = r.action(a)
		}
	}
	for _, n := range b.Body.Blocks {
		switch n.Type {
		case "expect":
			s.Expect = append(s.Expect, r.expect(n))
		case "move":
			once(n.TypeRange)
			s.Action = r.move(n)
		default:
			if slices.Contains(actions, n.Type) {
				r.fail(n.TypeRange, n.Type+" is an attribute", "Write %s = [...].", n.Type)
				continue
			}
			r.unknownBlock(n, "A step", []string{"expect", "move"})
		}
	}
	switch {
	case len(b.Labels) > 1:
		r.fail(b.DefRange(), "A step has one name", "Write step \"what happens\" { ... }, or step { ... }.")
	case len(b.Labels) == 1 && b.Labels[0] != "":
		s.Name = b.Labels[0]
	default:
		s.Name = s.Action.Text()
	}
	if len(b.Body.Attributes)+len(b.Body.Blocks) == 0 {
		r.fail(b.DefRange(), "Empty step", "The step does nothing. It takes one of %s, move; or wait; or expect.", strings.Join(actions, ", "))
	}
	for i := range s.Expect {
		if e := &s.Expect[i]; e.Refused != nil && !s.Action.order() {
			r.fail(e.At["refused"], "Nothing to refuse", "Only an operator's order can be refused: move, pause, drain, resume, offline, online.")
		}
	}
	return s
}

// order tells whether it is an operator's command.
func (a *Action) order() bool {
	switch a.Kind {
	case ActMove, ActPause, ActDrain, ActResume, ActOffline, ActOnline:
		return true
	}
	return false
}

// Text is what the action does, in words.
func (a *Action) Text() string {
	switch {
	case a.Kind == ActNothing:
		return "wait"
	case a.All:
		return "heal all"
	case a.Kind == ActMove && a.To == "":
		return "move " + strings.Join(a.Words, ", ") + " elsewhere"
	case a.Kind == ActMove, a.Kind == ActCut:
		return a.Kind + " " + strings.Join(a.Words, map[string]string{ActMove: " to ", ActCut: " from "}[a.Kind])
	}
	return a.Kind + " " + strings.Join(a.Words, ", ")
}

func (r *reader) action(a *hclsyntax.Attribute) Action {
	out := Action{Kind: a.Name, Range: a.SrcRange}
	switch a.Name {
	case ActOffline, ActOnline:
		for _, g := range r.groupsOf(a.Expr) {
			out.Words, out.Groups = append(out.Words, g.String()), append(out.Groups, r.groups[g])
		}
		return out
	case ActHeal:
		if lit, ok := a.Expr.(*hclsyntax.LiteralValueExpr); ok {
			if yes := r.truth(a); yes != nil && !*yes {
				r.fail(lit.Range(), "Nothing to heal", "Write heal = true for everything, or name nodes.")
			}
			out.All = true
			return out
		}
	case ActCut:
		sides := elements(a.Expr)
		if len(sides) != 2 {
			r.fail(a.Expr.Range(), "A cut has two sides", "Write cut = [node.NAME, node.NAME]; a side may be a zone, as zone.NAME. To cut a node off from all others, use isolate.")
			return out
		}
		one, two := r.targets(sides[0], false), r.targets(sides[1], false)
		out.Nodes, out.Others, out.Words = one.nodes, two.nodes, append(one.words, two.words...)
		for _, n := range one.nodes {
			if slices.Contains(two.nodes, n) {
				r.fail(a.Expr.Range(), "A cut within a node", "%s is on both sides of the cut.", n)
				break
			}
		}
		return out
	}
	var t targets
	for _, e := range elements(a.Expr) {
		t.add(r.targets(e, a.Name == ActLose))
	}
	if len(t.words) == 0 && !r.diags.HasErrors() {
		r.fail(a.Expr.Range(), "Nothing named", "Name what it is done to, as [node.NAME] or [zone.NAME].")
	}
	out.Nodes, out.Words, out.Device = t.nodes, t.words, t.device
	return out
}

func (r *reader) move(b *hclsyntax.Block) Action {
	out := Action{Kind: ActMove, Range: b.DefRange()}
	for _, n := range b.Body.Blocks {
		r.unknownBlock(n, "A move", nil)
	}
	for _, a := range r.attributes(b.Body, "A move", []string{"group", "to"}) {
		switch a.Name {
		case "group":
			list := r.groupsOf(a.Expr)
			if len(list) > 1 {
				r.fail(a.Expr.Range(), "One group at a time", "A move moves one group. Write a step for each.")
			}
			for _, g := range list {
				out.Words, out.Groups = []string{g.String()}, []string{r.groups[g]}
			}
		case "to":
			t := r.targets(a.Expr, false)
			if len(t.nodes) != 1 {
				if !r.diags.HasErrors() {
					r.fail(a.Expr.Range(), "One node", "A group moves to one node. Write to = node.NAME, or leave it out for any other node.")
				}
				continue
			}
			out.To = t.nodes[0]
			out.Words = append(out.Words, t.words...)
		}
	}
	if b.Body.Attributes["group"] == nil {
		r.fail(b.DefRange(), "Which group?", "A move needs group = group.NAME.")
	}
	return out
}

var groupStates = []string{spec.StateOnline, spec.StateOffline, spec.StateFailed, spec.StatePending, spec.StatePartialOnline}

func (r *reader) expect(b *hclsyntax.Block) Expect {
	e := Expect{Range: b.DefRange(), At: map[string]hcl.Range{}}
	if len(b.Labels) > 0 {
		r.fail(b.DefRange(), "expect has no name", "Write expect { ... }. The step may have a name.")
	}
	for _, n := range b.Body.Blocks {
		r.unknownBlock(n, "An expect block", nil)
	}
	about := []string{"owner", "state", "not_on", "max_downtime"}
	for _, a := range r.attributes(b.Body, "An expect block", append([]string{"quorum", "refused", "group", "groups"}, about...)) {
		e.At[a.Name] = a.SrcRange
		switch a.Name {
		case "quorum":
			e.Quorum = r.truth(a)
		case "refused":
			e.Refused = r.truth(a)
		case "group", "groups":
			e.Groups = append(e.Groups, r.groupsOf(a.Expr)...)
		case "owner":
			if isNull(a.Expr) {
				e.Nobody = true
				continue
			}
			e.Owners = r.nodesOf(a.Expr)
		case "not_on":
			e.NotOn = r.nodesOf(a.Expr)
		case "max_downtime":
			e.MaxDowntime = r.span(a)
		case "state":
			text, ok := r.text(a)
			if ok && !slices.Contains(groupStates, text) {
				r.fail(a.Expr.Range(), "Unknown state", "A group is never %q.%s States are %s.", short(text), didYouMean(text, groupStates), strings.Join(groupStates, ", "))
			}
			e.State = text
		}
	}
	says := false
	for _, name := range about {
		at, ok := e.At[name]
		says = says || ok
		if ok && b.Body.Attributes["group"] == nil && b.Body.Attributes["groups"] == nil {
			r.fail(at, "Of which group?", "%s is about a group. Add group = group.NAME, or groups = [...].", name)
		}
	}
	if _, both := e.At["groups"]; both && e.At["group"] != (hcl.Range{}) {
		r.fail(e.At["groups"], "group and groups", "Use one of them.")
	}
	if len(e.Groups) > 0 && !says {
		r.fail(b.DefRange(), "Nothing is expected", "Say what has to be true of the group: %s.", strings.Join(about, ", "))
	}
	if len(e.At) == 0 {
		r.fail(b.DefRange(), "Nothing is expected", "An expect block has quorum, refused, or a group with %s.", strings.Join(about, ", "))
	}
	return e
}
