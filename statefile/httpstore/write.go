package httpstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/clusterplan/clusterplan/statefile/remote"
)

// put has the server keep i, which follows what it has. After an error nothing more
// is written under this lock: what the server has is known to the next one.
func (l *Lock) put(i *remote.Image) error {
	e := &envelope{Lineage: i.Lineage, State: i.State, Journal: i.Journal, Serial: 1, Write: remote.NewID()}
	if l.ours == nil {
		l.ours = map[string]bool{}
	}
	l.ours[e.Write] = true
	if l.on != nil {
		e.Serial = l.on.Serial + 1
	}
	body, err := e.encode()
	if err != nil {
		return err
	}
	if err := l.send(e, body); err != nil {
		l.broken = fmt.Errorf("write state %s: %w", l.s.Path(), err)
		return l.broken
	}
	l.on = e
	return nil
}

func (l *Lock) send(e *envelope, body []byte) error {
	s, ctx := l.s, context.Background() // what is done has to be told, whoever gave up meanwhile
	to, err := url.Parse(s.set.Address)
	if err != nil {
		return err
	}
	q := to.Query()
	q.Set("ID", l.info.ID)
	to.RawQuery = q.Encode()
	for try := 0; ; try++ {
		a, err := s.once(ctx, request{method: s.set.UpdateMethod, url: to.String(), body: body})
		switch {
		case err == nil && a.done() && !l.doubt:
			return nil
		case err == nil && a.busy() && !l.doubt:
			return l.lose(refusal(a))
		case err == nil && !a.done() && !a.busy() && !a.passing() && !l.doubt:
			return a.refused()
		case err == nil && !a.done():
			err = a.refused()
		}
		// It is there, or not, or what was sent earlier came about only now.
		l.doubt = true
		now, _, failed := s.get(ctx)
		switch {
		case failed == nil && now.same(e):
			return nil
		case failed == nil && a != nil && a.busy():
			return l.lose(refusal(a))
		case failed == nil && !l.known(now):
			return l.lose("somebody else wrote the state")
		case failed == nil && a != nil && !a.done() && !a.passing():
			return err
		}
		if err == nil {
			err = errors.New("the server said that it was written, and has what was there before")
		}
		if failed != nil {
			err = errors.Join(err, failed)
		}
		if try == s.set.RetryMax {
			return err
		}
		if stop := s.opts.pause(ctx, s.wait(try)); stop != nil {
			return errors.Join(stop, err)
		}
	}
}

// look sees before a run's first write, and before its last, that nobody has
// written meanwhile: a server that does not ask whose lock it is would have the
// state of whoever broke this one overwritten.
func (l *Lock) look() error {
	now, _, err := l.s.get(context.Background())
	if err != nil {
		return err
	}
	if now != nil && !l.known(now) { // one that has lost it gets it again
		l.broken = l.lose("somebody else wrote the state")
		return l.broken
	}
	return nil
}

// known tells whether the server has what this lock found or wrote there: also an
// older write of its own, whose answer was lost and which came about late.
func (l *Lock) known(now *envelope) bool {
	return now.same(l.on) || now != nil && l.ours[now.Write]
}

// confirm has the server keep what was written last, where an earlier write may
// have come about after it.
func (l *Lock) confirm() error {
	if !l.doubt || l.broken != nil || l.on == nil {
		return nil
	}
	body, err := l.on.encode()
	if err == nil {
		err = l.send(l.on, body)
	}
	if err != nil {
		return fmt.Errorf("write state %s: %w", l.s.Path(), err)
	}
	return nil
}

// refusal says who the server says holds the lock.
func refusal(a *answer) string {
	if h := holder(a); h.ID != "" {
		return fmt.Sprintf("the server has the lock %s of %s (%s)", h.ID, h.Who, h.What)
	}
	return "the server does not take a write under it any more"
}
