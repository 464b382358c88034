package confdb

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Fence is a device of the definition with how its last use ended.
type Fence struct {
	Spec spec.Fence `json:"spec"`
	Last *FenceUse  `json:"last,omitempty"`
}

// FenceUse is one use of one device.
type FenceUse struct {
	Fence string    `json:"fence,omitempty"` // id
	Node  string    `json:"node"`            // node id
	OK    bool      `json:"ok"`              // the device says that the node is off
	Error string    `json:"error,omitempty"` // why not; no secrets
	Time  time.Time `json:"time"`
}

// Fenced is a proof that a node was off: what it owned when the fencing was
// begun is over, for good, like what it released itself. It says nothing of
// what the node got later.
type Fenced struct {
	Groups map[string]uint64 `json:"groups,omitempty"` // group id -> newest epoch that is over
	By     string            `json:"by"`               // names of the devices, or who said so
	Person bool              `json:"person,omitempty"` // a person's word, not a device's
	Reason string            `json:"reason,omitempty"`
	Time   time.Time         `json:"time"`
}

// Covers tells whether an ownership is over by this proof.
func (f *Fenced) Covers(group string, epoch uint64) bool {
	return f != nil && epoch > 0 && f.Groups[group] >= epoch
}

// FenceOrder is a person's order to turn a node off, or the word that it is.
type FenceOrder struct {
	ConfirmedOff bool   `json:"confirmed_off,omitempty"`
	Intent       Intent `json:"intent"`
	Event        uint64 `json:"event"` // the order's own
}

// FenceRef names a fence by id.
type FenceRef struct {
	Fence string `json:"fence"`
}

// FenceNode is a person's: turn the node off, or, with ConfirmedOff, the word
// that it is off, which only counts for a node that is not up.
type FenceNode struct {
	Node         string `json:"node"`
	ConfirmedOff bool   `json:"confirmed_off,omitempty"`
}

// NodeFenced is how a fencing ended. Only the leader whose term it is proposes
// it: it has granted the node nothing since it began.
type NodeFenced struct {
	Node   string            `json:"node"`
	OK     bool              `json:"ok"` // verified off
	Groups map[string]uint64 `json:"groups,omitempty"`
	Uses   []FenceUse        `json:"uses,omitempty"`
	Order  uint64            `json:"order,omitempty"` // FenceOrder.Event that is done with this
	Person bool              `json:"person,omitempty"`
	By     string            `json:"by,omitempty"`
	Error  string            `json:"error,omitempty"` // of all levels, for the event
}

// Covering are the fences that cover a node, level by level.
func (s *State) Covering(node string) [][]*spec.Fence {
	n := s.Nodes[node]
	if n == nil || len(s.Fences) == 0 {
		return nil
	}
	all := make([]*spec.Fence, 0, len(s.Fences))
	for _, id := range sortedKeys(s.Fences) {
		all = append(all, &s.Fences[id].Spec)
	}
	return spec.FenceLevels(all, n.Spec.Name)
}

func (s *State) putFence(c Command) Result {
	next := *c.PutFence
	if next.ID == "" || next.Name == "" || next.Agent == "" {
		return refuse(CodeInvalid, "a fence needs an id, a name and an agent")
	}
	for _, id := range sortedKeys(s.Fences) {
		if o := s.Fences[id]; id != next.ID && o.Spec.Name == next.Name {
			return refuse(CodeInvalid, "a fence %s is there already (id %s); names are unique", next.Name, id)
		}
	}
	f := s.Fences[next.ID]
	switch {
	case f == nil:
		s.Fences[next.ID] = &Fence{Spec: next}
		s.configured()
		s.event(c, aboutFence(next, KindFenceAdded, c.because("fence "+next.Name+" was added")))
	case !same(f.Spec, next):
		f.Spec = next
		s.configured()
		s.event(c, aboutFence(next, KindFenceChanged, c.because("fence "+next.Name+" changed")))
	}
	return Result{}
}

func (s *State) deleteFence(c Command) Result {
	id := c.DeleteFence.Fence
	f := s.Fences[id]
	if f == nil {
		return refuse(CodeNotFound, "no fence has id %s", id)
	}
	delete(s.Fences, id)
	s.configured()
	s.event(c, aboutFence(f.Spec, KindFenceRemoved, c.because("fence "+f.Spec.Name+" was removed")))
	return Result{}
}

func aboutFence(f spec.Fence, kind, text string) Event {
	return Event{Object: f.Addr.String(), Kind: kind, Text: text}
}

func (s *State) fenceNode(c Command) Result {
	f := c.FenceNode
	n := s.Nodes[f.Node]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", f.Node)
	}
	name := n.Spec.Name
	_, up := slices.BinarySearch(s.View.Up, f.Node)
	text := "node " + name + " is to be fenced"
	switch {
	case f.ConfirmedOff && up:
		return refuse(CodeConflict, "node %s is up: it answers its leader, so it is not off", name)
	case f.ConfirmedOff:
		text = "node " + name + " is off, by a person's word"
	case len(s.Covering(f.Node)) == 0:
		return refuse(CodeInvalid, "no fence of the definition covers node %s; turn it off yourself, then say so with --confirmed-off", name)
	}
	s.event(c, s.aboutNode(f.Node, KindFenceOrdered, c.because(text)))
	n.FenceOrder = &FenceOrder{ConfirmedOff: f.ConfirmedOff, Intent: *c.intent(), Event: s.LastEvent()}
	return Result{}
}

// nodeFenced records how a fencing ended.
func (s *State) nodeFenced(c Command) Result {
	f := c.NodeFenced
	n := s.Nodes[f.Node]
	if n == nil {
		return refuse(CodeNotFound, "no node has id %s", f.Node)
	}
	for _, u := range f.Uses {
		if d := s.Fences[u.Fence]; d != nil {
			last := u
			last.Fence, last.Node, last.Time = "", f.Node, c.Time
			d.Last = &last
		}
	}
	author, reason := c.Author, ""
	if o := n.FenceOrder; o != nil && f.Order == o.Event {
		author, reason = o.Intent.Author, o.Intent.Reason
		n.FenceOrder = nil
	}
	if !f.OK {
		e := s.aboutNode(f.Node, KindFenceFailed, "node "+n.Spec.Name+" could not be fenced: "+f.Error)
		e.Author = author
		s.event(c, e)
		return Result{}
	}
	groups := maps.Clone(f.Groups)
	if n.Fenced != nil { // what was over stays so, while the group is there
		for id, epoch := range n.Fenced.Groups {
			if s.Groups[id] != nil && epoch > groups[id] {
				if groups == nil {
					groups = map[string]uint64{}
				}
				groups[id] = epoch
			}
		}
	}
	n.Fenced = &Fenced{Groups: groups, By: f.By, Person: f.Person, Reason: reason, Time: c.Time}
	var over []string
	for _, id := range sortedKeys(f.Groups) {
		if g := s.Groups[id]; g != nil && g.Owner.Node == f.Node && g.Owner.Epoch <= f.Groups[id] {
			over = append(over, g.Spec.Name)
		}
	}
	text := fmt.Sprintf("node %s is off, verified by %s", n.Spec.Name, f.By)
	if f.Person {
		text = fmt.Sprintf("node %s is off by the word of %s", n.Spec.Name, author)
		if reason != "" {
			text += ": " + reason
		}
	}
	if len(over) > 0 {
		text += "; its groups are free: " + strings.Join(over, ", ")
	}
	e := s.aboutNode(f.Node, KindNodeFenced, text)
	e.Author = author
	s.event(c, e)
	return Result{}
}
