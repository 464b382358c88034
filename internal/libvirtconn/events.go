package libvirtconn

import (
	"context"
	"fmt"

	"github.com/digitalocean/go-libvirt"
)

// Event is something that has happened to a machine.
type Event struct {
	Name    string
	UUID    libvirt.UUID
	Kind    libvirt.DomainEventType
	Stopped bool // it does not run any more
}

// Watch tells of the life of all machines until stop is called, which closes
// events; so does a connection that is lost. Nothing is missed from when Watch
// has returned on: events wait until they are taken.
func (c *Conn) Watch(ctx context.Context) (events <-chan Event, stop func(), err error) {
	ln, err := c.connect(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for events: %w", err)
	}
	type answer struct {
		in  <-chan libvirt.DomainEventLifecycleMsg
		err error
	}
	done := make(chan answer, 1)
	go func() {
		// Never cancelled: see the package's comment.
		in, err := ln.l.LifecycleEvents(context.Background())
		done <- answer{in, err}
	}()
	var a answer
	select {
	case a = <-done:
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	if a.err != nil {
		ln.conn.Close()
		return nil, nil, fmt.Errorf("listen for events: %w", a.err)
	}
	out := make(chan Event)
	go func() {
		defer close(out)
		for m := range a.in {
			ev := Event{Name: m.Dom.Name, UUID: m.Dom.UUID, Kind: libvirt.DomainEventType(m.Event)}
			switch ev.Kind {
			case libvirt.DomainEventStopped, libvirt.DomainEventCrashed:
				ev.Stopped = true
			}
			select {
			case out <- ev:
			case <-ln.conn.over: // nobody listens any more: the rest is drained
			}
		}
	}()
	return out, func() { ln.conn.Close() }, nil
}
