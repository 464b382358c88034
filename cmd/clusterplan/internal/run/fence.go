package run

import (
	"context"
	"errors"
	"fmt"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Fence has a node turned off, or says that it is, and waits for the event that
// tells how that ended; one that failed is an error.
func (s *Session) Fence(ctx context.Context, o Order) (client.Event, error) {
	var none client.Event
	c, err := s.Client()
	if err != nil {
		return none, err
	}
	defer c.Close()
	name, err := s.name(addr.TypeNode, o.Name)
	if err != nil {
		return none, err
	}
	conf, err := c.Config(ctx, false)
	if err != nil {
		return none, interrupted(ctx, fmt.Errorf("%s: %w", o, pki.Explain(err)))
	}
	object := ""
	for _, m := range conf.Members {
		if m.Spec.ID == name || m.Spec.Name == name {
			object = m.Spec.Addr.String()
		}
	}
	list, err := c.Events(ctx, 0)
	if err != nil {
		return none, interrupted(ctx, fmt.Errorf("%s: %w", o, pki.Explain(err)))
	}
	since := uint64(0)
	if len(list) > 0 {
		since = list[len(list)-1].ID
	}
	order := client.Order{Reason: o.Reason}
	if o.Confirmed {
		order.ConfirmedOff = client.ConfirmedNode
	}
	if _, err := c.Fence(ctx, name, order); err != nil {
		return none, interrupted(ctx, fmt.Errorf("%s: %w", o, pki.Explain(err)))
	}
	follow, stop := context.WithCancel(ctx)
	defer stop()
	var end *client.Event
	ordered := false
	err = c.Follow(follow, since, func(e client.Event) {
		if e.Object != object || end != nil {
			return
		}
		switch e.Kind {
		case "fence_ordered":
			ordered = true
		case "node_fenced", "fence_failed":
			if ordered {
				end = &e
				stop()
			}
		}
	})
	switch {
	case end == nil && ctx.Err() != nil:
		return none, ErrInterrupted
	case end == nil:
		return none, fmt.Errorf("%s: it is ordered, but what came of it was not seen: %w", o, pki.Explain(err))
	case end.Kind == "fence_failed":
		return none, errors.New(end.Text)
	}
	return *end, nil
}
