package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// Order is what an operator wants.
type Order struct {
	Verb   string // move | online | offline | pause | drain | resume | evict | fence
	Name   string // of a group or node, or its address
	To     string // of a move: node, or ""
	Reason string
	// ConfirmedOff, of a move: the owner that is off, by the caller's word.
	// Confirmed, of a fence: likewise.
	ConfirmedOff string
	Confirmed    bool
}

func (o Order) String() string {
	if o.To != "" {
		return fmt.Sprintf("%s %s to %s", o.Verb, o.Name, o.To)
	}
	return o.Verb + " " + o.Name
}

// Give commits an order.
func (s *Session) Give(ctx context.Context, o Order) (client.Done, error) {
	c, err := s.Client()
	if err != nil {
		return client.Done{}, err
	}
	defer c.Close()
	order := client.Order{Reason: o.Reason}
	var call func(context.Context, string, client.Order) (client.Done, error)
	kind := addr.TypeGroup
	switch o.Verb {
	case "move":
		call = c.Move
		if o.ConfirmedOff != "" {
			if order.ConfirmedOff, err = s.name(addr.TypeNode, o.ConfirmedOff); err != nil {
				return client.Done{}, err
			}
		}
		if o.To != "" {
			if order.Node, err = s.name(addr.TypeNode, o.To); err != nil {
				return client.Done{}, err
			}
		}
	case "online":
		call = c.Online
	case "offline":
		call = c.Offline
	case "pause":
		call, kind = c.Pause, addr.TypeNode
	case "drain":
		call, kind = c.Drain, addr.TypeNode
	case "resume":
		call, kind = c.Resume, addr.TypeNode
	case "evict": // several steps, which no apply may come in between
		call, kind = s.evict, addr.TypeNode
	default:
		return client.Done{}, fmt.Errorf("there is no order %q", o.Verb)
	}
	name, err := s.name(kind, o.Name)
	if err != nil {
		return client.Done{}, err
	}
	done, err := call(ctx, name, order)
	if err != nil {
		return done, interrupted(ctx, fmt.Errorf("%s: %w", o, pki.Explain(s.inNames(err))))
	}
	return done, nil
}

// inNames has an answer that something is not there call it by the name that the
// caller gave: it was asked for by the id that the state keeps.
func (s *Session) inNames(err error) error {
	var e *client.Error
	if !errors.As(err, &e) || e.Code != "not_found" {
		return err
	}
	for _, o := range s.Snap.State.Objects {
		if id := strconv.Quote(o.ID); !o.Addr.IsResource() && strings.Contains(e.Message, id) {
			e.Message = strings.ReplaceAll(e.Message, id, strconv.Quote(nameOf(&o)))
			e.Hint = "The definition has it: clusterplan apply brings it back."
		}
	}
	return err
}

// name turns an address (group.web) or a name (web) into what the cluster
// knows: the id where the state has the object, else the name as it is, which
// the cluster checks.
func (s *Session) name(kind, text string) (string, error) {
	names := []string{}
	for _, o := range s.Snap.State.Objects {
		if o.Addr.Type != kind || o.Addr.IsResource() {
			continue
		}
		if o.Addr.String() == text || nameOf(&o) == text || o.ID == text {
			return o.ID, nil
		}
		names = append(names, nameOf(&o))
	}
	if strings.HasPrefix(text, kind+".") || strings.HasPrefix(text, "module.") {
		slices.Sort(names)
		return "", &view.Hint{Err: fmt.Errorf("the state knows no %s", text), Hint: fmt.Sprintf("It has: %s", strings.Join(names, ", "))}
	}
	return text, nil
}

// nameOf is an object's name, as it is in the cluster.
func nameOf(o *statefile.Object) string {
	var attrs struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(o.Attributes, &attrs) == nil && attrs.Name != "" && !o.Addr.IsResource() {
		return attrs.Name
	}
	return o.Addr.DefaultName()
}

// Names are the names of the groups or nodes in the state, for completion.
func (s *Session) Names(kind string) []string {
	var names []string
	for _, o := range s.Snap.State.Objects {
		if o.Addr.Type == kind && !o.Addr.IsResource() {
			names = append(names, nameOf(&o))
		}
	}
	return names
}

// Defined are the addresses of what the definition has, as far as it can be worked
// out, for completion.
func (s *Session) Defined() []addr.Address {
	var out []addr.Address
	if def, _ := s.Config.Evaluate(nil); def != nil {
		for i := range def.Objects {
			out = append(out, def.Objects[i].Addr)
		}
	}
	return out
}

// DefinedNames are Names of the definition.
func (s *Session) DefinedNames(kind string) []string {
	var out []string
	if def, _ := s.Config.Evaluate(nil); def != nil {
		for i := range def.Spec().Nodes {
			if n := &def.Spec().Nodes[i]; kind == addr.TypeNode {
				out = append(out, n.Name)
			}
		}
		for i := range def.Spec().Groups {
			if g := &def.Spec().Groups[i]; kind == addr.TypeGroup {
				out = append(out, g.Name)
			}
		}
	}
	return out
}

// Events calls fn for every event that is kept, and with follow for those to
// come until ctx ends.
func (s *Session) Events(ctx context.Context, last uint, follow bool, fn func(client.Event) error) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	if !follow {
		list, err := c.Events(ctx, 0)
		if err != nil {
			return interrupted(ctx, fmt.Errorf("read events: %w", pki.Explain(err)))
		}
		if last > 0 && uint(len(list)) > last {
			list = list[uint(len(list))-last:]
		}
		for _, e := range list {
			if err := fn(e); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	since := uint64(0)
	if last > 0 {
		list, err := c.Events(ctx, 0)
		if err != nil {
			return interrupted(ctx, fmt.Errorf("read events: %w", pki.Explain(err)))
		}
		if uint(len(list)) > last {
			since = list[uint(len(list))-last-1].ID
		}
	}
	err = c.Follow(ctx, since, func(e client.Event) {
		if err := fn(e); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("follow events: %w", pki.Explain(err))
}

// Logs writes a resource's log from the node that owns its group, or had it
// last. With follow it goes with the group to its next owner.
func (s *Session) Logs(ctx context.Context, text string, bytes int64, follow bool, to func(from LogSource) io.WriteCloser) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	group, resource, err := s.logOf(text)
	if err != nil {
		return err
	}
	for {
		endpoint, id, node, err := s.owner(ctx, c, group, follow)
		if err == nil {
			w := to(LogSource{Resource: s.resource(group, resource), Node: node})
			err = errors.Join(c.Logs(ctx, endpoint, id, resource, bytes, follow, w), w.Close())
		}
		switch {
		case ctx.Err() != nil:
			return ErrInterrupted
		case !follow && err != nil:
			return fmt.Errorf("logs of %s: %w", text, pki.Explain(err))
		case !follow:
			return nil
		}
		var refused *client.Error
		if errors.As(err, &refused) && (refused.Status == 403 || refused.Status == 400) {
			return fmt.Errorf("logs of %s: %w", text, err)
		}
		// The owner died or the group has moved: where it is next is known soon.
		bytes = 64 << 10
		t := time.NewTimer(300 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return ErrInterrupted
		case <-t.C:
		}
	}
}

// LogSource is whose log it is.
type LogSource struct {
	Resource addr.Address
	Node     string // by its name
}

// resource is the address of a group's resource of that name.
func (s *Session) resource(group addr.Address, name string) addr.Address {
	for i := range s.Snap.State.Objects {
		if o := &s.Snap.State.Objects[i]; o.Addr.IsResource() && o.Addr.Owner() == group && nameOf(o) == name {
			return o.Addr
		}
	}
	return group // logOf has seen it
}

// logOf finds the group and the resource in `web`, `web.server`, or an address.
func (s *Session) logOf(text string) (group addr.Address, resource string, err error) {
	groupText, want := text, ""
	if a, err := addr.Parse(text); err == nil {
		groupText = a.Owner().String()
		if a.IsResource() {
			want = a.DefaultName()
		}
	} else if g, r, ok := strings.Cut(text, "."); ok {
		groupText, want = g, r
	}
	var programs, all []string
	for _, o := range s.Snap.State.Objects {
		switch {
		case o.Addr.Type != addr.TypeGroup:
			continue
		case !o.Addr.IsResource():
			if o.Addr.String() == groupText || nameOf(&o) == groupText {
				group = o.Addr
			}
			continue
		case o.Addr.Owner() != group: // a group stands before its resources
			continue
		}
		name := nameOf(&o)
		all = append(all, name)
		program := o.Type == "generic_application"
		if program {
			programs = append(programs, name)
		}
		switch {
		case name == want && program:
			return group, name, nil
		case name == want:
			return group, "", fmt.Errorf("%s.%s is an %s: it runs no program, so that it has no log", groupText, name, o.Type)
		}
	}
	switch {
	case group.Type == "":
		return group, "", &view.Hint{Err: fmt.Errorf("the state knows no group %s", groupText), Hint: "It has: " + strings.Join(s.Names(addr.TypeGroup), ", ")}
	case want != "":
		return group, "", &view.Hint{Err: fmt.Errorf("the group %s has no resource %s", groupText, want), Hint: "It has: " + strings.Join(all, ", ")}
	case len(programs) == 1:
		return group, programs[0], nil
	case len(programs) == 0:
		return group, "", fmt.Errorf("the group %s has no program that prints anything", groupText)
	}
	return group, "", &view.Hint{Err: fmt.Errorf("the group %s has several programs", groupText),
		Hint: fmt.Sprintf("Name one of them, as %s.%s; there are: %s", groupText, programs[0], strings.Join(programs, ", "))}
}

// owner is where the group lives now. Without follow, a group that nobody owns
// is where it was last: what it printed when it failed is there.
func (s *Session) owner(ctx context.Context, c *client.Client, group addr.Address, follow bool) (endpoint, id, node string, err error) {
	o := s.Snap.State.Find(group)
	if o == nil {
		return "", "", "", fmt.Errorf("the state knows no %s", group)
	}
	conf, err := c.Config(ctx, false)
	if err != nil {
		return "", "", "", err
	}
	for _, g := range conf.Groups {
		if g.Spec.ID != o.ID {
			continue
		}
		owner := g.Owner
		if owner == "" && !follow {
			list, err := c.Events(ctx, 0)
			if err != nil {
				return "", "", "", err
			}
			owner = lastOwner(list, group, conf.Members)
		}
		for _, m := range conf.Members {
			if owner != "" && m.Spec.Name == owner {
				return m.Endpoint, o.ID, owner, nil
			}
		}
		return "", "", "", fmt.Errorf("nobody owns %s now (it is %s)", group, g.State)
	}
	return "", "", "", fmt.Errorf("the cluster has no %s", group)
}

// lastOwner is the node of the group's last event on a node that is still a
// member, or "".
func lastOwner(events []client.Event, group addr.Address, members []client.ConfigMember) string {
	for _, e := range slices.Backward(events) {
		is := func(m client.ConfigMember) bool { return m.Spec.Name == e.Node }
		if e.Object == group.String() && e.Node != "" && slices.ContainsFunc(members, is) {
			return e.Node
		}
	}
	return ""
}
