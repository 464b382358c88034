package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// PathChange is the change lease: PUT TakeChange, DELETE /{id} (admin): given
// back under Clusterplan-Change, else broken. Who holds it stands in Config and
// Status.
const PathChange = "/v1/change"

// FeatureChange: the agent knows the change lease.
const FeatureChange = "change"

// CodeLocked is the code of an Error: the change lease is another's.
const CodeLocked = "locked"

// ErrChanging is what errors.Is finds where somebody else changes the cluster.
var ErrChanging = errors.New("the cluster is being changed")

// Is makes errors.Is(err, ErrChanging) true.
func (e *Error) Is(target error) bool { return target == ErrChanging && e.Code == CodeLocked }

// ChangeTerm is how long a change lease lasts without a renewal. It is renewed
// three times in that.
const ChangeTerm = 30 * time.Second

// Change is who holds the change lease.
type Change struct {
	ID        string    `json:"id"`
	Author    string    `json:"author"`
	What      string    `json:"what"`
	Since     time.Time `json:"since"`
	Renewed   uint64    `json:"renewed"` // the revision of its newest renewal
	RenewedAt time.Time `json:"renewed_at"`
	TermMS    int64     `json:"term_ms"` // without a renewal for so long it may be taken over
}

func (h *Change) String() string {
	return fmt.Sprintf("%s by %s since %s (change lease %s)", h.What, h.Author, h.Since.Format(time.RFC3339), h.ID)
}

// TakeChange takes the lease, or renews it.
type TakeChange struct {
	ID     string `json:"id"`
	What   string `json:"what,omitempty"`
	TermMS int64  `json:"term_ms,omitempty"`
	Renew  bool   `json:"renew,omitempty"`
	From   string `json:"from,omitempty"` // the holder that this one follows: known to be dead
	Seen   uint64 `json:"seen,omitempty"` // a renewal that was the newest for a whole term
}

// TakeChange takes or renews the change lease; ErrChanging: it is another's.
func (c *Client) TakeChange(ctx context.Context, t TakeChange) (Done, error) {
	return c.write(ctx, request{method: http.MethodPut, path: PathChange, body: t})
}

// EndChange gives the change lease id back where Options.Change is that, and
// breaks it otherwise. *Error with Code not_found: nobody has it.
func (c *Client) EndChange(ctx context.Context, id, reason string) (Done, error) {
	return c.write(ctx, request{method: http.MethodDelete, path: PathChange + "/" + url.PathEscape(id), reason: reason})
}

// HoldOptions say who takes the change lease, and for what.
type HoldOptions struct {
	ID   string // unique
	What string
	From string        // the holder in whose place this is, known to be dead; "": nobody's
	Wait time.Duration // for a holder that is alive
	// Watching is told once that a holder is watched for a renewal. nil: nobody.
	Watching func(holder Change)
	// Client is asked for each call: who can be asked may change meanwhile.
	Client func() (*Client, error)
}

// Hold is the change lease, held and renewed until Close.
type Hold struct {
	o      HoldOptions
	cancel context.CancelFunc
	done   chan struct{}
	lost   chan struct{}

	mu  sync.Mutex
	why error
}

// HoldChange takes the change lease and keeps it renewed. Another holder's is
// waited for as long as Wait says: an error that is ErrChanging then. Whether that
// holder is alive only a renewal shows: it takes up to a third of its term to see
// one, and a term without any, by this host's own clock and while the cluster has
// its quorum all along, to take the lease over.
func HoldChange(ctx context.Context, o HoldOptions) (*Hold, error) {
	take := TakeChange{ID: o.ID, What: o.What, From: o.From, TermMS: ChangeTerm.Milliseconds()}
	deadline := time.Now().Add(o.Wait)
	var seen Change
	var since, last time.Time // last: of the look before
	alive, told := false, false
	for {
		c, err := o.Client()
		if err != nil {
			return nil, err
		}
		if _, err = c.TakeChange(ctx, take); err == nil {
			break
		}
		if !errors.Is(err, ErrChanging) {
			return nil, err
		}
		conf, cerr := c.Config(ctx, true)
		looked := last
		last = time.Now()
		switch h := conf.Change; {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case cerr != nil: // nobody could have renewed it, or it can't be seen
			seen, since = Change{}, time.Now()
		case h == nil:
			continue
		case h.ID != seen.ID || h.Renewed != seen.Renewed:
			alive = h.ID == seen.ID
			seen, since, take.Seen = *h, time.Now(), 0
		case time.Since(looked) > max(time.Duration(h.TermMS)*time.Millisecond/3, 2*retryMost):
			since = time.Now() // so long did an answer take: there may have been no quorum to renew it with
		case time.Since(since) >= time.Duration(h.TermMS)*time.Millisecond:
			take.Seen = h.Renewed
			continue
		}
		if alive && !time.Now().Before(deadline) {
			return nil, err
		}
		if !alive && !told && o.Watching != nil && seen.ID != "" {
			o.Watching(seen)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryMost):
		}
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &Hold{o: o, cancel: cancel, done: make(chan struct{}), lost: make(chan struct{})}
	go h.renew(run)
	return h, nil
}

// renew keeps the lease. That it can't be renewed for a while is no loss: only
// another's takeover is, or that somebody broke it.
func (h *Hold) renew(ctx context.Context) {
	defer close(h.done)
	t := time.NewTicker(ChangeTerm / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		c, err := h.o.Client()
		if err != nil {
			continue
		}
		if _, err := c.TakeChange(ctx, TakeChange{ID: h.o.ID, Renew: true}); errors.Is(err, ErrChanging) {
			h.mu.Lock()
			h.why = err
			h.mu.Unlock()
			close(h.lost)
			return
		}
	}
}

// Lost is closed once the lease is seen to be another's, or nobody's.
func (h *Hold) Lost() <-chan struct{} { return h.lost }

// Why says how the lease was lost; nil: it is not known to be.
func (h *Hold) Why() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why
}

// Close ends the renewals.
func (h *Hold) Close() {
	h.cancel()
	<-h.done
}
