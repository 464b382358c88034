package planner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/clusterplan/clusterplan/lang"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
)

// choose finds what a plan with targets or excludes leaves as it is. A group
// and its resources are one: whichever is named, all of it is meant. A module is
// all that it holds.
//
// Targets take what they need along: what they refer to and depend on, with its
// changes, and the nodes that they are to run on, as far as these are not there
// yet. Excludes take along what needs them and can't be without them.
func (b *builder) choose() {
	if !b.partly() {
		return
	}
	missing := false
	named := func(list []addr.Address) map[addr.Address]bool {
		out := map[addr.Address]bool{}
		for _, a := range list {
			found := false
			for _, it := range b.items {
				if Names(a, it.addr()) {
					out[it.addr().Owner()], found = true, true
				}
			}
			if !found {
				b.diags, missing = append(b.diags, b.unknown(a)), true
			}
		}
		return out
	}
	c := &chooser{builder: b, set: map[addr.Address]bool{}}
	switch {
	case b.rereads: // nothing is done, so nothing is needed
		c.set = named(slices.Concat(b.in.Targets, b.in.Excludes))
	case len(b.in.Targets) > 0:
		c.take(named(b.in.Targets))
	default:
		c.leave(named(b.in.Excludes))
	}
	for _, it := range b.items { // whose place a node takes goes with it, or stays with it
		if next := it.addr().Current(); next != it.addr() && b.at.At(next) != nil {
			c.set[it.addr()] = c.set[next]
		}
	}
	left := 0
	for _, it := range b.items {
		it.left = c.set[it.addr().Owner()] != (len(b.in.Targets) > 0)
		if it.left {
			left++
			if was, moves := b.former[it.addr()]; moves && !it.addr().IsResource() {
				b.diags = append(b.diags, problem(hcl.DiagError, it.addr().String()+" has moved, and is left out",
					fmt.Sprintf("A moved block says that it was called %s. Take it into the plan as well, or plan without --target and --exclude first.", was)))
			}
			if slices.Contains(b.in.Replace, it.addr()) {
				b.diags = append(b.diags, problem(hcl.DiagError, it.addr().String()+" is to be replaced, and is left out",
					"It is named by --replace, and --target or --exclude leave it as it is. Name it in one of them only."))
			}
		}
	}
	b.plan.Targets, b.plan.Excludes = b.in.Targets, b.in.Excludes
	if left > 0 {
		b.plan.Complete = false
	}
	if !missing {
		b.warnPartly(left)
	}
}

// Names tells whether an address that --target or --exclude give means the object
// at another: itself, an instance of its block, or a part of its module.
func Names(a, at addr.Address) bool {
	at = at.Current()
	return at == a || a.IsModule() && a.Covers(at) || a.WithoutKey() == a && at.WithoutKey() == a
}

// partly tells whether the plan is of a part.
func (b *builder) partly() bool { return len(b.in.Targets)+len(b.in.Excludes) > 0 }

func (b *builder) warnPartly(left int) {
	names := func(list []addr.Address) string {
		out := make([]string, len(list))
		for i, a := range list {
			out[i] = a.String()
		}
		return strings.Join(out, ", ")
	}
	detail, more, flag := "It is for "+names(b.in.Targets), " and what that needs", "--target"
	if len(b.in.Targets) == 0 {
		detail, more, flag = "It is for all but "+names(b.in.Excludes), " and what can't be without that", "--exclude"
	}
	if b.rereads {
		more = ""
	}
	objects := fmt.Sprintf("%d objects are", left)
	if left == 1 {
		objects = "1 object is"
	}
	b.diags = append(b.diags, problem(hcl.DiagWarning, "The plan is not for the whole definition",
		fmt.Sprintf("%s%s. %s left as found, and so are the outputs. This is for mending and for trying; plan without %s for the rest.", detail, more, objects, flag)))
}

// unknown is the error for an address that nothing has.
func (b *builder) unknown(a addr.Address) *hcl.Diagnostic {
	known := make([]string, len(b.items))
	for i, it := range b.items {
		known[i] = it.addr().String()
	}
	return NoSuchObject(a, known)
}

// NoSuchObject is the error for an address that is given and that neither the
// definition nor the state has; known are those that they have.
func NoSuchObject(a addr.Address, known []string) *hcl.Diagnostic {
	detail := "Neither the definition nor the state has it."
	if near := lang.Nearest(a.String(), known); near != "" {
		detail += " Did you mean " + near + "?"
	} else if like := alike(a, known); like != "" {
		detail += " There are " + like + "."
	}
	return problem(hcl.DiagError, "There is no "+a.String(), detail+" clusterplan graph shows what the definition has, clusterplan state list what the state has.")
}

// alike are some of those that could have been meant: of the same type, or, of a
// resource, of the same group.
func alike(a addr.Address, known []string) string {
	const most = 8
	var out []string
	more := 0
	for _, text := range known {
		at, err := addr.Parse(text)
		if err != nil || at.Type != a.Type || at.IsResource() != a.IsResource() || a.IsResource() && at.Owner() != a.Owner() {
			continue
		}
		if len(out) == most {
			more++
			continue
		}
		out = append(out, text)
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// chooser closes a set of owners over what hangs together.
type chooser struct {
	*builder
	set map[addr.Address]bool
}

// there tells whether the state has an object whole.
func (c *chooser) there(a addr.Address) bool {
	o := c.state.At(a)
	return o != nil && len(o.Phases) == 0
}

// goes tells whether an object is to be taken away.
func (c *chooser) goes(a addr.Address) bool {
	it := c.at.At(a)
	return it != nil && it.want == nil
}

// take fills the set with the targets and what they need.
func (c *chooser) take(targets map[addr.Address]bool) {
	// dependents of what goes, by what they depend on: they go before it.
	before := map[addr.Address][]addr.Address{}
	for _, it := range c.items {
		if it.want == nil {
			for _, dep := range c.standsOn(it) {
				before[dep.Owner()] = append(before[dep.Owner()], it.addr().Owner())
			}
		}
	}
	var todo []addr.Address
	add := func(a addr.Address) {
		if a = a.Owner(); !c.set[a] && c.at.At(a) != nil {
			c.set[a] = true
			todo = append(todo, a)
		}
	}
	work := func() {
		for len(todo) > 0 {
			a := todo[0]
			todo = todo[1:]
			for _, it := range c.allOf(a) {
				if it.want == nil {
					continue
				}
				for _, dep := range it.want.hard() {
					add(dep)
				}
				for _, dep := range it.want.soft() {
					if dep.Type == addr.TypeNode && !c.there(dep) {
						add(dep)
					}
				}
			}
			if c.goes(a) {
				for _, dep := range before[a] {
					add(dep)
				}
			}
		}
	}
	for _, it := range c.items {
		if targets[it.addr().Owner()] {
			add(it.addr())
		}
	}
	work()
	if !c.set[addr.Cluster()] || c.there(addr.Cluster()) {
		return
	}
	// A cluster is made on nodes: where no target names one, on all.
	for _, it := range c.items {
		if it.addr().Type == addr.TypeNode && it.want != nil && c.set[it.addr()] {
			return
		}
	}
	for _, it := range c.items {
		if it.addr().Type == addr.TypeNode && it.want != nil {
			add(it.addr())
		}
	}
	work()
}

// leave fills the set with what is excluded and what can't be without it.
func (c *chooser) leave(excluded map[addr.Address]bool) {
	needed := map[addr.Address][]addr.Address{} // who refers to it
	for _, it := range c.items {
		if it.want == nil {
			continue
		}
		for _, dep := range it.want.hard() {
			if dep == addr.Cluster() && c.there(dep) {
				continue // it runs, and goes on as it is
			}
			if dep = dep.Owner(); dep != it.addr().Owner() {
				needed[dep] = append(needed[dep], it.addr().Owner())
			}
		}
	}
	var todo []addr.Address
	add := func(a addr.Address) {
		if a = a.Owner(); !c.set[a] && c.at.At(a) != nil {
			c.set[a] = true
			todo = append(todo, a)
		}
	}
	for _, it := range c.items {
		if excluded[it.addr().Owner()] {
			add(it.addr())
		}
	}
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		for _, who := range needed[a] {
			add(who)
		}
		for _, it := range c.allOf(a) {
			for _, dep := range c.standsOn(it) { // what stays keeps what it rests on
				if c.goes(dep.Owner()) {
					add(dep)
				}
			}
		}
	}
}

// leftAsFound puts what is left out into the cluster after the apply as it was
// before it.
func (b *builder) leftAsFound() {
	if !b.partly() && !b.rereads {
		return
	}
	left := func(a addr.Address) bool {
		it := b.at.At(a) // nil: somebody else's
		return it != nil && (b.rereads || it.left)
	}
	after := b.after // with its guarantees: they are to hold in what comes of it
	if left(addr.Cluster()) && b.before.Cluster.Name != "" {
		after.Cluster = b.before.Cluster
	}
	after.Nodes = merged(b.after.Nodes, b.before.Nodes, left, func(n *spec.Node) addr.Address { return n.Addr })
	after.Groups = merged(b.after.Groups, b.before.Groups, left, func(g *spec.Group) addr.Address { return g.Addr })
	fences := b.before.Fences
	if b.in.World.Live != nil { // which does not tell of fences
		fences = b.fromState().Fences
	}
	after.Fences = merged(b.after.Fences, fences, left, func(f *spec.Fence) addr.Address { return f.Addr })
	b.after = after
}

// merged are those of after that are not left, and those of before that are.
func merged[T any](after, before []T, left func(addr.Address) bool, at func(*T) addr.Address) []T {
	var out []T
	for i := range after {
		if !left(at(&after[i])) {
			out = append(out, after[i])
		}
	}
	for i := range before {
		if left(at(&before[i])) {
			out = append(out, before[i])
		}
	}
	slices.SortStableFunc(out, func(x, y T) int { return addr.Compare(at(&x), at(&y)) })
	return out
}
