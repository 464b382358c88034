package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// thing is something real: a node's directory or member, an agent, a group or a
// resource in the database, a program.
type thing struct {
	kind string
	addr string // of the object that it belongs to
	id   string // "": it has none of its own, as a process
}

const (
	kindNode     = "node directory"
	kindMember   = "member"
	kindGroup    = "group"
	kindResource = "resource"
	kindAgent    = "agent"
	kindProgram  = "program"
)

// look is what was there at one moment, and what the state knew just before.
type look struct {
	things []thing
	ids    map[string]string // by id, of state and journal: addresses
	addrs  map[string]bool
}

type verdict struct{ orphans, duplicates, lost []string }

// orphans are things that nobody knows: by their ids, or as part of an object
// that is known. A group's resources are known with it until it is done.
func orphans(l *look) (out []string) {
	for _, t := range l.things {
		owner, _, _ := strings.Cut(t.addr, ".resource.")
		switch {
		case t.id == "" || t.kind == kindResource:
			if !l.addrs[owner] {
				out = append(out, fmt.Sprintf("%s %s: the state knows no %s", t.kind, t.addr, owner))
			}
		case l.ids[t.id] == "":
			out = append(out, fmt.Sprintf("%s %s: nobody knows its id %s", t.kind, t.addr, t.id))
		}
	}
	return out
}

// duplicates are things that are there twice.
func duplicates(l *look) (out []string) {
	count := map[thing]int{}
	for _, t := range l.things {
		t.id = ""
		count[t]++
	}
	for t, n := range count {
		if n > 1 {
			out = append(out, fmt.Sprintf("%s %s is there %d times", t.kind, t.addr, n))
		}
	}
	slices.Sort(out)
	return out
}

// judge compares what was seen after the kills with what is there when an apply
// has come to its end, and that with what is wanted.
func judge(before []*look, after *look, want shape) verdict {
	v := verdict{orphans: orphans(after), duplicates: duplicates(after)}
	type place struct{ kind, addr string }
	now := map[place]string{}
	for _, t := range after.things {
		now[place{t.kind, t.addr}] = t.id
		if t.kind == kindResource && after.ids[t.id] == "" { // by now it has to be known itself
			v.orphans = append(v.orphans, fmt.Sprintf("%s %s: nobody knows its id %s", t.kind, t.addr, t.id))
		}
	}
	again := map[string]bool{}
	for _, b := range before {
		for _, t := range b.things {
			if id, there := now[place{t.kind, t.addr}]; there && t.id != id {
				again[fmt.Sprintf("%s %s was made as %s, and again as %s", t.kind, t.addr, t.id, id)] = true
			}
		}
	}
	v.duplicates = append(v.duplicates, slices.Sorted(maps.Keys(again))...)
	for _, t := range want.things() {
		id, there := now[place{t.kind, t.addr}]
		switch {
		case !there:
			v.lost = append(v.lost, fmt.Sprintf("there is no %s %s", t.kind, t.addr))
		case id != "" && after.ids[id] != t.addr:
			v.lost = append(v.lost, fmt.Sprintf("the state knows %s %s as %q", t.kind, t.addr, after.ids[id]))
		}
	}
	for _, a := range want.addresses() {
		if !after.addrs[a] {
			v.lost = append(v.lost, "the state has no "+a)
		}
	}
	return v
}

// shape is a definition's.
type shape struct {
	nodes  int
	groups []int // how many resources each has
	sleep  string
}

// shapeOf is a cluster, nodes, and groups of one resource; the last has two
// where the number asks for it.
func shapeOf(objects, nodes int, sleep string) shape {
	s := shape{nodes: nodes, sleep: sleep}
	left := objects - 1 - nodes
	for ; left >= 2; left -= 2 {
		s.groups = append(s.groups, 1)
	}
	s.groups[len(s.groups)-1] += left
	return s
}

func (s shape) objects() int { return len(s.addresses()) }

func (s shape) addresses() []string {
	out := []string{"cluster"}
	for _, t := range s.things() {
		if t.kind == kindNode || t.kind == kindGroup || t.kind == kindResource {
			out = append(out, t.addr)
		}
	}
	return out
}

// things are what is there when all is done.
func (s shape) things() (out []thing) {
	for n := range s.nodes {
		a := nodeAddr(n)
		out = append(out, thing{kind: kindNode, addr: a}, thing{kind: kindMember, addr: a}, thing{kind: kindAgent, addr: a})
	}
	for g, resources := range s.groups {
		out = append(out, thing{kind: kindGroup, addr: groupAddr(g)})
		for r := range resources {
			a := resourceAddr(g, r)
			out = append(out, thing{kind: kindResource, addr: a}, thing{kind: kindProgram, addr: a})
		}
	}
	return out
}

func nodeAddr(n int) string        { return fmt.Sprintf("node.n%d", n+1) }
func groupAddr(g int) string       { return fmt.Sprintf("group.g%d", g) }
func resourceAddr(g, r int) string { return fmt.Sprintf("%s.resource.app%d", groupAddr(g), r) }

// definition is the shape as a person writes it. A program is known by its
// argument: the token, then its group's and its own number.
func (s shape) definition(token string) string {
	var b strings.Builder
	model := "majority_node_set"
	if s.nodes == 1 {
		model = "single_node"
	}
	fmt.Fprintf(&b, "cluster \"crash\" {\n  quorum { model = %q }\n}\n", model)
	for n := range s.nodes {
		fmt.Fprintf(&b, "node \"n%d\" { provider = local }\n", n+1)
	}
	for g, resources := range s.groups {
		fmt.Fprintf(&b, "group \"g%d\" {\n", g)
		for r := range resources {
			fmt.Fprintf(&b, "  resource \"generic_application\" \"app%d\" {\n    command = [%q, %q]\n  }\n", r, s.sleep, argument(token, g, r))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func argument(token string, g, r int) string { return fmt.Sprintf("%s%05d%d", token, g, r) }
