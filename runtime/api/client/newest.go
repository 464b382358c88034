package client

import (
	"context"
	"errors"
	"time"
)

// hedge is how long the first endpoint is waited for before all others are asked
// as well: a node that hangs must not hold up those that don't, and one that
// answers is enough.
const hedge = 300 * time.Millisecond

// enough says of an answer whether it needs no better one, and else its rank
// among those that are not enough.
type enough func(body []byte) (ok bool, rank uint64)

// newest reads what every node has a copy of: the first answer that is enough, or
// the one of the highest rank when all have answered or had their time. It goes on
// as call does while time may mend it.
func (c *Client) newest(ctx context.Context, endpoints []string, r request, ok enough, out any) error {
	if len(endpoints) == 0 {
		return c.call(ctx, endpoints, r, out) // says so
	}
	deadline := time.Now().Add(c.opt.Patience)
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		body, last, tries := c.round(ctx, endpoints, r, ok)
		if body != nil {
			return decode(body, out)
		}
		if last == nil || !r.retry(last) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return c.outcome(ctx, last, tries)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// round asks the first endpoint, and all others once it has had its time or its
// answer is not enough. Without an answer it tells why: what a node said, the
// endpoints that said nothing.
func (c *Client) round(ctx context.Context, endpoints []string, r request, ok enough) (best []byte, last *Error, tries []Try) {
	ctx, cancel := context.WithCancel(ctx) // who is late is not waited for
	defer cancel()
	type answer struct {
		at   int
		body []byte
		err  error
	}
	answers := make(chan answer, len(endpoints))
	asked := 0
	ask := func(upTo int) {
		for ; asked < upTo; asked++ {
			go func(at int) {
				body, _, err := c.attempt(ctx, endpoints[at], r)
				answers <- answer{at, body, err}
			}(asked)
		}
	}
	first := time.NewTimer(hedge)
	defer first.Stop()
	ask(1)
	failed := make([]error, len(endpoints))
	bestAt, bestRank := 0, uint64(0)
	for came := 0; came < len(endpoints); {
		var a answer
		select {
		case <-first.C:
			ask(len(endpoints))
			continue
		case a = <-answers:
		}
		came++
		ask(len(endpoints))
		if a.err != nil {
			failed[a.at] = a.err
			var e *Error
			if errors.As(a.err, &e) && !another(e) {
				return nil, e, nil
			}
			continue
		}
		done, rank := ok(a.body)
		if done {
			return a.body, nil, nil
		}
		// Of equals the one that is asked first, whoever is faster.
		if best == nil || rank > bestRank || rank == bestRank && a.at < bestAt {
			best, bestAt, bestRank = a.body, a.at, rank
		}
	}
	for i, err := range failed {
		var e *Error
		switch {
		case err == nil:
		case errors.As(err, &e):
			if last == nil || r.tells(e) > r.tells(last) {
				last = e
			}
		default:
			tries = append(tries, Try{Endpoint: c.nameOf(endpoints[i]), Err: err})
		}
	}
	return best, last, tries
}
