package confdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Claim says who is to hold the cluster's change lease while this provider writes.
type Claim struct {
	ID       string // unique: that of the state's lock
	What     string // apply, destroy
	From     string // an ID whose process is known to be dead: its lease is this one's at once
	Wait     time.Duration
	Watching func(client.Change) // told once when another holder is watched for signs of life
	Lost     func(error)         // told once when the lease was lost
}

// Claim has every write hold the change lease. It does nothing yet.
func (p *Provider) Claim(c Claim) {
	p.holding.Lock()
	defer p.holding.Unlock()
	p.claim = &c
}

// Hold takes the change lease now, where there is a cluster that can grant it:
// else the first write takes it. client.ErrChanging: another holds it.
func (p *Provider) Hold(ctx context.Context) error {
	api, err := p.api()
	if errors.Is(err, providers.ErrUnreachable) {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(p.hear(ctx, api, true), func(a answer) bool { return a.err == nil && a.self.Quorum }) {
		return ctx.Err()
	}
	if err := p.hold(ctx); err != nil && !errors.Is(err, providers.ErrNoQuorum) && !errors.Is(err, providers.ErrUnreachable) {
		return err
	}
	return ctx.Err()
}

// hold takes the change lease, unless there is no claim, or it is held already.
func (p *Provider) hold(ctx context.Context) error {
	p.holding.Lock()
	defer p.holding.Unlock()
	switch {
	case p.claim == nil:
		return nil
	case p.held != nil:
		return p.held.Why()
	}
	p.mu.Lock()
	able, asked := p.able, p.rank != nil
	p.mu.Unlock()
	if !asked {
		api, err := p.api()
		if err != nil {
			return err
		}
		p.ask(ctx, api)
		p.mu.Lock()
		able = p.able
		p.mu.Unlock()
	}
	if !able { // an older agent would stop at a command that it does not know
		return nil
	}
	c := p.claim
	h, err := client.HoldChange(ctx, client.HoldOptions{ID: c.ID, What: c.What, From: c.From, Wait: c.Wait, Watching: c.Watching, Client: p.api})
	if code(err) == "waiting" {
		return nil // no node holds a cluster yet: the first write makes it
	}
	if err != nil {
		return wrap(err)
	}
	p.mu.Lock()
	p.under = c.ID
	p.asked = nil // whoever writes from now on does so under the lease
	p.mu.Unlock()
	p.held = h
	if c.Lost != nil {
		p.watching.Go(func() {
			select {
			case <-h.Lost():
				c.Lost(fmt.Errorf("the cluster's change lease: %w", h.Why()))
			case <-p.closed:
			}
		})
	}
	return nil
}

// GiveBack ends the claim; ended: the cluster is gone, and its lease with it. The
// error is for people: without it others wait for the lease's term.
func (p *Provider) GiveBack(ctx context.Context, ended bool) error {
	p.holding.Lock()
	defer p.holding.Unlock()
	h := p.held
	if p.claim = nil; h == nil {
		return nil
	}
	h.Close()
	var err error
	if c, cerr := p.api(); !ended && h.Why() == nil && cerr == nil {
		if _, err = c.EndChange(ctx, p.under, ""); code(err) == "not_found" || errors.Is(err, client.ErrChanging) {
			err = nil
		}
	}
	p.held = nil
	p.mu.Lock()
	p.under, p.asked = "", nil
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("the cluster's change lease could not be given back: another apply waits up to %v for it: %w", client.ChangeTerm, err)
	}
	return nil
}
