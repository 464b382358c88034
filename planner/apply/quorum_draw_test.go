package apply_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// drawn is a definition that was drawn, and can be edited and written out.
type drawn struct {
	model       spec.QuorumModel
	unavailable int
	lease       int // ms; 0: the profile's
	configured  string
	nodes       []drawnNode
	groups      []drawnGroup
	standing    bool // every node stands on a machine
	named       int  // names that were given to nodes and groups so far
}

type drawnNode struct {
	name, provider, address, zone string
	votes, capacity               int
	machine                       string // that it stands on, "": none
	image, memory                 int
	witness, spare                bool
}

type drawnGroup struct {
	name                       string
	preferred, possible        []string
	depends, apart, softly     string
	failback                   string
	demand, command, resources int
	priority                   int
}

func list(names []string) string {
	var out []string
	for _, n := range names {
		out = append(out, "node."+n)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// String is the definition in its language.
func (d *drawn) String() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format, a...) }
	p("cluster \"c\" {\n  max_unavailable = %d\n", d.unavailable)
	if d.configured != "" {
		p("  configuration = %q\n", d.configured)
	}
	p("  quorum {\n    model = %q\n", d.model)
	if d.model == spec.SingleQuorum {
		p("    device = \"/dev/sim\"\n")
	}
	p("  }\n")
	if d.lease > 0 {
		p("  heartbeat {\n    profile = \"custom\"\n    lease = \"%dms\"\n  }\n", d.lease)
	}
	p("}\n")
	if d.standing {
		p("network \"lab\" {\n  provider = hypervisor\n}\n")
	}
	for _, n := range d.nodes {
		if d.standing {
			p("machine %q {\n  provider = hypervisor\n  network = network.lab\n  image = \"%d\"\n  memory = \"%dMiB\"\n}\n", n.machine, n.image, 256+n.memory)
		}
		p("node %q {\n  provider = %s\n", n.name, n.provider)
		if d.standing {
			p("  address = machine.%s.address\n", n.machine)
		} else if n.address != "" {
			p("  address = %q\n", n.address)
		}
		if n.zone != "" {
			p("  zone = %q\n", n.zone)
		}
		if n.votes == 0 {
			p("  votes = 0\n")
		}
		if n.witness {
			p("  role = \"witness\"\n")
		}
		if n.spare {
			p("  spare = true\n")
		}
		if n.capacity > 0 {
			p("  capacity = { cpu = %d }\n", n.capacity)
		}
		p("}\n")
	}
	for _, g := range d.groups {
		p("group %q {\n", g.name)
		if len(g.preferred) > 0 {
			p("  preferred_owners = %s\n", list(g.preferred))
		}
		if len(g.possible) > 0 {
			p("  possible_owners = %s\n", list(g.possible))
		}
		for _, it := range [][2]string{{"depends_on", g.depends}, {"keep_apart", g.apart}, {"keep_apart_soft", g.softly}} {
			if word, other := it[0], it[1]; other != "" {
				p("  %s = [group.%s]\n", word, other)
			}
		}
		if g.demand > 0 {
			p("  demand = { cpu = %d }\n", g.demand)
		}
		if g.priority > 0 {
			p("  priority = %d\n", g.priority)
		}
		if g.failback != "" {
			p("  failback {\n    mode  = %q\n    delay = \"1s\"\n  }\n", g.failback)
		}
		for i := range g.resources {
			p("  resource \"generic_application\" \"r%d\" {\n    command = [\"%d\"]\n    stop_timeout = \"100ms\"\n", i, g.command)
			if i > 0 {
				p("    depends_on = [resource.r%d]\n", i-1)
			}
			p("  }\n")
		}
		p("}\n")
	}
	return b.String()
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// some are a few of the nodes' names, in any order.
func (d *drawn) some(r *rand.Rand, most int) []string {
	var names []string
	for _, n := range d.nodes {
		if !n.witness {
			names = append(names, n.name)
		}
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:min(r.IntN(most+1), len(names))]
}

func (d *drawn) newNode(r *rand.Rand) drawnNode {
	d.named++
	n := drawnNode{name: fmt.Sprint("n", d.named), provider: pick(r, "local", "far"), votes: 1}
	n.machine = "m" + n.name
	n.zone = pick(r, "", "east", "west")
	n.capacity = pick(r, 0, 0, 4, 8)
	n.spare = d.configured != "" && r.IntN(4) == 0
	switch r.IntN(8) {
	case 0:
		n.votes = 0
	case 1:
		n.witness = true
	}
	return n
}

func (d *drawn) newGroup(r *rand.Rand) drawnGroup {
	d.named++
	g := drawnGroup{name: fmt.Sprint("g", d.named), resources: 1 + r.IntN(2), preferred: d.some(r, 3)}
	if r.IntN(4) == 0 {
		g.possible = g.preferred
	}
	g.failback = pick(r, "", "", spec.FailbackImmediate, spec.FailbackPrevent)
	g.demand = pick(r, 0, 0, 1, 2)
	if len(d.groups) > 0 {
		other := d.groups[r.IntN(len(d.groups))].name
		switch r.IntN(5) {
		case 0:
			g.depends = other
		case 1:
			g.apart = other
		case 2:
			g.softly = other
		}
	}
	return g
}

func draw(r *rand.Rand) *drawn {
	d := &drawn{model: spec.MajorityNodeSet, unavailable: pick(r, 1, 1, 2, 3), configured: pick(r, "", "", "", "hot_spare")}
	if r.IntN(12) == 0 {
		d.model = spec.SingleQuorum
	}
	for range pick(r, 1, 2, 3, 3, 3, 4, 5, 5, 6, 7) {
		d.nodes = append(d.nodes, d.newNode(r))
	}
	d.nodes[0].votes, d.nodes[0].witness, d.nodes[0].spare = 1, false, false
	for range r.IntN(5) {
		d.groups = append(d.groups, d.newGroup(r))
	}
	return d
}

func (d *drawn) clone() *drawn {
	c := *d
	c.nodes, c.groups = slices.Clone(d.nodes), slices.Clone(d.groups)
	return &c
}

// forget takes a node's or a group's name out of all lists.
func (d *drawn) forget(name string) {
	for i := range d.groups {
		g := &d.groups[i]
		not := func(n string) bool { return n == name }
		was := len(g.possible)
		g.preferred, g.possible = slices.DeleteFunc(slices.Clone(g.preferred), not), slices.DeleteFunc(slices.Clone(g.possible), not)
		if was > 0 && len(g.possible) == 0 {
			g.preferred = nil
		}
		for _, other := range []*string{&g.depends, &g.apart, &g.softly} {
			if *other == name {
				*other = ""
			}
		}
	}
}

// edit changes one thing. The name of the edit is for people.
func (d *drawn) edit(r *rand.Rand) string {
	n := &d.nodes[r.IntN(len(d.nodes))]
	var g *drawnGroup
	if len(d.groups) > 0 {
		g = &d.groups[r.IntN(len(d.groups))]
	}
	switch what := r.IntN(16); {
	case what < 2 && d.standing:
		return d.editMachine(r)
	case what < 2:
		n.address = fmt.Sprintf("127.0.0.%d", 2+r.IntN(200))
		return n.name + " at another address"
	case what < 4:
		n.votes = 1 - n.votes
		return fmt.Sprint(n.name, " votes ", n.votes)
	case what == 4:
		if n.witness = !n.witness; n.witness {
			d.forget(n.name)
		}
		return fmt.Sprint(n.name, " witness ", n.witness)
	case what < 7 && len(d.nodes) < 8:
		d.nodes = append(d.nodes, d.newNode(r))
		return "another node"
	case what < 10 && len(d.nodes) > 1:
		name := n.name
		d.nodes = slices.DeleteFunc(d.nodes, func(o drawnNode) bool { return o.name == name })
		d.forget(name)
		return name + " goes"
	case what == 10:
		n.provider = map[string]string{"local": "far", "far": "local"}[n.provider]
		return n.name + " with another provider"
	case what == 11:
		n.zone, n.capacity = pick(r, "", "east", "west"), pick(r, 0, 2, 8)
		return n.name + " in another zone"
	case what == 12:
		d.lease = pick(r, 0, 800, 1200)
		return fmt.Sprint("lease ", d.lease)
	case what == 13 || g == nil:
		d.groups = append(d.groups, d.newGroup(r))
		return "another group"
	case what == 14:
		switch r.IntN(5) {
		case 0:
			g.command++
			return g.name + " with another command"
		case 1:
			g.preferred = d.some(r, 3)
			g.possible = nil
			return g.name + " with other preferred owners"
		case 2:
			g.preferred = d.some(r, 2)
			g.possible = g.preferred
			return g.name + " with other possible owners"
		case 3:
			g.failback = pick(r, "", spec.FailbackImmediate, spec.FailbackPrevent)
			return g.name + " with another failback"
		}
		g.demand = pick(r, 0, 1, 3)
		return g.name + " with another demand"
	default:
		name := g.name
		d.groups = slices.DeleteFunc(d.groups, func(o drawnGroup) bool { return o.name == name })
		d.forget(name)
		return name + " goes"
	}
}

// editMachine changes the machine of a node, or has it stand on another one.
func (d *drawn) editMachine(r *rand.Rand) string {
	n := &d.nodes[r.IntN(len(d.nodes))]
	switch r.IntN(5) {
	case 0:
		d.named++
		n.machine = fmt.Sprint("m", d.named)
		return n.name + " on another machine"
	case 1, 2:
		n.memory++
		return n.name + "'s machine with more memory"
	}
	n.image++
	return n.name + "'s machine with another image"
}
