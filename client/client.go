// Package client lets a program that runs as a resource of a clusterplan group
// talk to the cluster it runs in: who am I, who owns my group and under which
// epoch, which nodes are up, a small key-value store with compare-and-swap and
// watch, and checkpoints.
//
//	c, err := client.New(client.Config{}) // from the environment that the agent gives
//	self, err := c.Self(ctx)
//	starts := c.Group("").Fenced(c.Epoch()) // my group's keys, written as the owner that I am
//	entry, err := starts.Get(ctx, "starts")
//
// It needs nothing but the standard library. It asks the node's own agent, over
// the Unix socket in CLUSTERPLAN_SOCKET; the agent has writes agreed on by the
// cluster. Reads are linearizable unless Stale is asked for: each sees all that
// was committed before it began.
//
// Guard tells a program when its ownership ends. It is a courtesy: the cluster
// stops the program in time by itself. What protects data that others see as
// well is the epoch (Space.Fenced): a write of an owner who is no longer one is
// refused, however late it comes.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// Config says whom a Client asks. The zero Config takes all from the
// environment of a resource.
type Config struct {
	// Socket is the agent's Unix socket; default: $CLUSTERPLAN_SOCKET.
	Socket string
	// Group is the name of the caller's own group; default: $CLUSTERPLAN_GROUP.
	Group string
	// Resource is the name of the caller's resource; default: $CLUSTERPLAN_RESOURCE.
	Resource string
	// Epoch is the one that the caller was started under; default: $CLUSTERPLAN_EPOCH.
	Epoch uint64
	// URL and HTTP, where set, are asked instead of the socket: a node's
	// https://host:port, and a client with a certificate of the cluster.
	URL  string
	HTTP *http.Client
	// Patience is how long one call goes on while the cluster has no quorum or
	// leader, or a write's outcome is unknown; default 10 s. The call's context may
	// end it sooner.
	Patience time.Duration
}

// Errors that a caller may look for with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrChanged  = errors.New("changed by someone else")                     // a compare-and-swap whose condition doesn't hold
	ErrFenced   = errors.New("the epoch is over")                           // written as an owner that is none any more
	ErrLimit    = errors.New("too large, or the store is full")             //
	ErrNoQuorum = errors.New("the cluster has no quorum or no leader now")  // nothing was written
	ErrUnknown  = errors.New("the outcome is unknown")                      // a write that may have been done, or may be yet
	ErrGone     = errors.New("the changes since then are not kept anymore") // of a watch: list again
)

// Error is an agent's answer that is no success. errors.Is finds the kind.
type Error struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	Unknown bool   `json:"unknown"` // the write may have been done, or be yet
}

func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = fmt.Sprintf("the agent answered %d %s", e.Status, http.StatusText(e.Status))
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Is tells whether target is the kind of e.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case "not_found":
		return target == ErrNotFound
	case "precondition":
		return target == ErrChanged
	case "fenced":
		return target == ErrFenced
	case "limit":
		return target == ErrLimit
	case "no_quorum":
		if !e.Unknown {
			return target == ErrNoQuorum
		}
	case "unknown_outcome", "stale":
		return target == ErrUnknown
	case "compacted":
		return target == ErrGone
	}
	return e.Unknown && target == ErrUnknown
}

// Client asks one agent. It is safe for several goroutines.
type Client struct {
	conf Config
	http *http.Client
	base string
	seen atomic.Uint64 // the highest revision that was heard of
}

const (
	defaultPatience = 10 * time.Second
	attemptWithin   = 8 * time.Second // the agent itself waits up to 5 s for a commit
	retryFirst      = 50 * time.Millisecond
	retryMost       = 500 * time.Millisecond
	maxAnswer       = 64 << 20
	maxSocketPath   = 107 // what a Unix socket's address holds
)

// New makes a client; nothing is dialled before the first call. It fails where
// neither conf nor the environment names a socket.
func New(conf Config) (*Client, error) {
	if conf.Socket == "" {
		conf.Socket = os.Getenv("CLUSTERPLAN_SOCKET")
	}
	if conf.Group == "" {
		conf.Group = os.Getenv("CLUSTERPLAN_GROUP")
	}
	if conf.Resource == "" {
		conf.Resource = os.Getenv("CLUSTERPLAN_RESOURCE")
	}
	if text := os.Getenv("CLUSTERPLAN_EPOCH"); conf.Epoch == 0 && text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("CLUSTERPLAN_EPOCH is %q, no number", text)
		}
		conf.Epoch = n
	}
	if conf.Patience == 0 {
		conf.Patience = defaultPatience
	}
	c := &Client{conf: conf, http: conf.HTTP, base: conf.URL}
	if conf.URL != "" {
		if c.http == nil {
			return nil, errors.New("a URL needs an HTTP client that has a certificate of the cluster")
		}
		return c, nil
	}
	if conf.Socket == "" {
		return nil, errors.New("CLUSTERPLAN_SOCKET is not set: this program was not started as a clusterplan resource; name a node's run/api.sock")
	}
	c.base = "http://node"
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, conf.Socket) },
		IdleConnTimeout: 30 * time.Second,
	}}
	return c, nil
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Epoch is the epoch that the caller was started under, 0 if it is not known.
func (c *Client) Epoch() uint64 { return c.conf.Epoch }

// dial connects to a socket whose path may be longer than an address holds: then
// by its directory's descriptor.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// request is one call.
type request struct {
	method string
	path   string
	query  url.Values
	header http.Header
	body   []byte
}

func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	return c.http.Do(req)
}

// call asks until there is an answer that counts: while there is no quorum, the
// agent is not there or a write's outcome is unknown, for Config.Patience. A
// write keeps its id, so that it is done once.
func (c *Client) call(ctx context.Context, r request) (body []byte, header http.Header, err error) {
	write := r.method != http.MethodGet
	if r.header == nil {
		r.header = http.Header{}
	}
	end := time.Now().Add(c.conf.Patience)
	if write {
		// So that a second try is told from one that was forgotten.
		if err := c.number(ctx, r.header, c.seen.Load() == 0); err != nil {
			return nil, nil, err
		}
	}
	maybe, renumbered := false, false // maybe: a try may have been done
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		body, header, sent, err := c.attempt(ctx, r)
		if err == nil {
			return body, header, nil
		}
		var e *Error
		switch {
		case errors.As(err, &e) && e.Code == "stale" && !maybe && !renumbered:
			// Not a second try that came late, but a program that was silent for long:
			// nothing of this write was done.
			renumbered = true
			if err := c.number(ctx, r.header, true); err != nil {
				return nil, nil, err
			}
			continue
		case errors.As(err, &e) && !again(e):
			return nil, header, e
		case errors.As(err, &e):
			maybe = maybe || write && (e.Unknown || e.Code == "unknown_outcome")
		case write && sent:
			maybe = true
		}
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		if ctx.Err() != nil || time.Now().After(end) {
			switch {
			case !maybe || errors.Is(err, ErrUnknown):
			case errors.Is(err, ErrNoQuorum): // which says that nothing was written
				err = fmt.Errorf("%w: %v", ErrUnknown, err)
			default:
				err = fmt.Errorf("%w: %w", ErrUnknown, err)
			}
			return nil, nil, err
		}
	}
}

// number gives a write its id and a revision that was reached before it is sent:
// the newest that was heard of, or the agent's now.
func (c *Client) number(ctx context.Context, header http.Header, ask bool) error {
	if ask {
		if _, _, err := c.call(ctx, request{method: http.MethodGet, path: "/v1/self"}); err != nil {
			return err
		}
	}
	header.Set("Clusterplan-Command", newID())
	if seen := c.seen.Load(); seen > 0 {
		header.Set("Clusterplan-Seen", strconv.FormatUint(seen, 10))
	}
	return nil
}

// again tells whether time may mend it.
func again(e *Error) bool {
	switch e.Code {
	case "no_quorum", "unknown_outcome", "busy":
		return true
	}
	return false
}

func (c *Client) attempt(ctx context.Context, r request) (body []byte, header http.Header, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptWithin)
	defer cancel()
	res, err := c.send(ctx, r)
	if err != nil {
		var op *net.OpError
		return nil, nil, !errors.As(err, &op) || op.Op != "dial", fmt.Errorf("ask the agent: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return nil, res.Header, true, readError(res)
	}
	if body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
		return nil, nil, true, fmt.Errorf("read the agent's answer: %w", err)
	}
	c.heard(res.Header.Get("Clusterplan-Revision"))
	return body, res.Header, true, nil
}

func readError(res *http.Response) *Error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	e := &Error{}
	if json.Unmarshal(data, e) != nil || e.Message == "" {
		*e = Error{Message: fmt.Sprintf("the agent answered %s without saying why: %.200q", res.Status, data)}
	}
	e.Status = res.StatusCode
	return e
}

// heard remembers a revision that an answer carried.
func (c *Client) heard(text string) {
	n, err := strconv.ParseUint(text, 10, 64)
	for err == nil {
		was := c.seen.Load()
		if n <= was || c.seen.CompareAndSwap(was, n) {
			return
		}
	}
}

// get reads one JSON object.
func (c *Client) get(ctx context.Context, path string, out any) error {
	body, _, err := c.call(ctx, request{method: http.MethodGet, path: path})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}
