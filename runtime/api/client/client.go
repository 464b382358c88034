package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Options say whom a Client asks and as whom. Endpoints or Socket is needed.
type Options struct {
	// Endpoints are the nodes' host:port, asked in this order until one answers.
	Endpoints []string
	// TLS carries the caller's certificate and how nodes are verified.
	TLS *tls.Config
	// Socket is a node's local api.sock; it is asked before the endpoints.
	Socket string
	// Dial connects to an endpoint; nil: by this machine's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Author is who asks, for the event log, where the certificate names a program.
	Author string
	// Change is the change lease that writes are done under (HoldChange); "": none.
	Change string
	// Patience is how long one call goes on while nodes answer but the cluster
	// has no quorum or leader, or the outcome of a write is unknown. Default 10 s;
	// the call's context may end it sooner.
	Patience time.Duration
}

const (
	defaultPatience = 10 * time.Second
	dialTimeout     = 2 * time.Second
	readTimeout     = 4 * time.Second // one attempt
	writeTimeout    = 8 * time.Second // one attempt: the node itself waits up to 5 s for the commit
	retryFirst      = 50 * time.Millisecond
	retryMost       = 500 * time.Millisecond
	maxAnswer       = 64 << 20
)

// ErrUnreachable is what errors.Is finds when no agent answered at all.
var ErrUnreachable = errors.New("no agent answers")

// Unreachable tells which endpoints were tried and what came of each.
type Unreachable struct {
	Tries []Try
}

// Try is one endpoint that did not answer.
type Try struct {
	Endpoint string
	Err      error
	sent     bool // the request left, so it may have been done
}

func (u *Unreachable) Error() string {
	var b strings.Builder
	b.WriteString("no agent answers at ")
	for i, t := range u.Tries {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%s)", t.Endpoint, short(t.Err))
	}
	b.WriteString("; see that the agents run (clusterplan apply starts them) and that the addresses are right")
	return b.String()
}

// Is makes errors.Is(err, ErrUnreachable) true.
func (u *Unreachable) Is(target error) bool { return target == ErrUnreachable }

func (u *Unreachable) Unwrap() []error {
	errs := make([]error, 0, len(u.Tries))
	for _, t := range u.Tries {
		errs = append(errs, t.Err)
	}
	return errs
}

// short leaves the operation and address out of a network error: they are told already.
func short(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	text := err.Error()
	if _, after, ok := strings.Cut(text, "connect: "); ok {
		return after
	}
	return text
}

// Error says what and why; the hint says what to do.
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

// Client asks a cluster's nodes. It is safe for several goroutines; Close lets
// its idle connections go.
type Client struct {
	opt    Options
	http   *http.Client
	socket *http.Client
}

// New makes a client; nothing is dialled before the first call.
func New(opt Options) *Client {
	if opt.Patience == 0 {
		opt.Patience = defaultPatience
	}
	c := &Client{opt: opt}
	dial := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	if opt.Dial != nil {
		dial = opt.Dial
	}
	if opt.TLS != nil {
		conf := opt.TLS.Clone()
		// Not h2: its transport hides what TLS says of a refused certificate.
		conf.NextProtos = []string{"http/1.1"}
		c.http = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				return dial(ctx, network, address)
			},
			TLSClientConfig:     conf,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
		}}
	}
	if opt.Socket != "" {
		c.socket = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return DialSocket(ctx, opt.Socket)
			},
			IdleConnTimeout: 30 * time.Second,
		}}
	}
	return c
}

// With is a client that asks other endpoints, under another change lease, over
// the same connections, which Close of either lets go.
func (c *Client) With(endpoints []string, change string) *Client {
	other := *c
	other.opt.Endpoints, other.opt.Change = endpoints, change
	return &other
}

// Close lets idle connections go.
func (c *Client) Close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	if c.socket != nil {
		c.socket.CloseIdleConnections()
	}
}

// socketEndpoint stands for Options.Socket among endpoints.
const socketEndpoint = "unix"

// endpoints in the order in which they are asked.
func (c *Client) endpoints() []string {
	var list []string
	if c.socket != nil {
		list = append(list, socketEndpoint)
	}
	if c.http != nil {
		list = append(list, c.opt.Endpoints...)
	}
	return list
}

// request is one call, whoever answers it.
type request struct {
	method  string
	path    string
	body    any
	ifMatch uint64
	reason  string
	command string // set for writes
	accept  string
}

func newCommandID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// send makes one attempt at one endpoint. The caller closes the body.
func (c *Client) send(ctx context.Context, endpoint string, r request) (*http.Response, error) {
	hc, base := c.http, "https://"+endpoint
	if endpoint == socketEndpoint {
		hc, base = c.socket, "http://clusterplan"
	}
	if hc == nil {
		return nil, fmt.Errorf("no certificate to ask %s with", endpoint)
	}
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, base+r.path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	set := func(name, value string) {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	set("Accept", r.accept)
	set(HeaderCommand, r.command)
	set(HeaderAuthor, c.opt.Author)
	set(HeaderReason, r.reason)
	if r.method != http.MethodGet {
		set(HeaderChange, c.opt.Change)
	}
	if r.ifMatch != 0 {
		req.Header.Set(HeaderIfMatch, strconv.FormatUint(r.ifMatch, 10))
	}
	return hc.Do(req)
}

// attempt is send, read to the end. An answer from 400 on is an *Error; sent
// tells whether the request left.
func (c *Client) attempt(ctx context.Context, endpoint string, r request) (body []byte, sent bool, err error) {
	limit := readTimeout
	if r.command != "" || strings.Contains(r.path, "fresh=1") {
		limit = writeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var wrote atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }}
	res, err := c.send(httptrace.WithClientTrace(ctx, trace), endpoint, r)
	if err != nil {
		return nil, wrote.Load(), c.words(endpoint, err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		return nil, true, readError(res)
	}
	body, err = readAll(io.LimitReader(res.Body, maxAnswer), res.ContentLength)
	return body, true, err
}

// readAll is io.ReadAll of what is said to be that long (-1: nobody knows): an
// answer of megabytes is read into one piece of memory instead of one twenty times.
func readAll(r io.Reader, size int64) ([]byte, error) {
	b := bytes.NewBuffer(make([]byte, 0, bytes.MinRead+min(max(size, 0), maxAnswer)))
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// words turns what TLS says of a refused certificate into an *Error; other
// errors stay what they are.
func (c *Client) words(endpoint string, err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return err
	}
	return &Error{FormatVersion: FormatVersion, Status: http.StatusUnauthorized, Code: "unauthenticated",
		Message: fmt.Sprintf("the agent at %s refuses this certificate (%s)", c.nameOf(endpoint), op.Err),
		Hint:    "ask with a certificate of this cluster's own authority that has not expired; clusterplan apply renews what it keeps in .clusterplan"}
}

// nameOf is the endpoint for people.
func (c *Client) nameOf(endpoint string) string {
	if endpoint == socketEndpoint {
		return c.opt.Socket
	}
	return endpoint
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

// call asks the endpoints in turn until one gives an answer that counts. It
// follows leader hints, goes on while the cluster has no quorum or leader or
// the outcome is unknown (a write keeps its command id, so that it is done
// once), and gives up when patience or ctx ends.
func (c *Client) call(ctx context.Context, endpoints []string, r request, out any) error {
	if len(endpoints) == 0 {
		return &Error{Code: "bad_request", Message: "no endpoint to ask", Hint: "name the node's host:port and give a certificate, or give the node's api.sock"}
	}
	if r.command == "" && r.method != http.MethodGet {
		r.command = newCommandID()
	}
	deadline := time.Now().Add(c.opt.Patience)
	queue, asked := slices.Clone(endpoints), 0
	pause := retryFirst
	var tries []Try
	var last *Error
	for {
		if asked == len(queue) {
			again := last != nil && r.retry(last)
			for _, t := range tries { // perhaps done: only asking with the same command id can tell
				again = again || (r.method != http.MethodGet && t.sent)
			}
			if !again || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
				return c.outcome(ctx, last, tries)
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, retryMost)
			queue, asked, tries, last = slices.Clone(endpoints), 0, nil, nil
		}
		endpoint := queue[asked]
		asked++
		body, sent, err := c.attempt(ctx, endpoint, r)
		var e *Error
		switch {
		case err == nil:
			return decode(body, out)
		case errors.As(err, &e):
			if !another(e) {
				return e
			}
			if last == nil || r.tells(e) > r.tells(last) {
				last = e
			}
			if e.Leader != "" && c.http != nil && !slices.Contains(queue[asked:], e.Leader) && len(queue) < len(endpoints)+4 {
				queue = slices.Insert(queue, asked, e.Leader)
			}
		default:
			tries = append(tries, Try{Endpoint: c.nameOf(endpoint), Err: err, sent: sent})
		}
	}
}

// another tells whether another node, or the same one later, may answer otherwise.
func another(e *Error) bool {
	switch e.Code {
	case "not_leader", "no_quorum", "unknown_outcome", "busy", "waiting", "unread":
		return true
	}
	return e.Status == http.StatusServiceUnavailable || e.Status == http.StatusBadGateway
}

// retry tells whether time may mend it: a node that waits to be joined goes on waiting.
// What a member can't read, its reader decides how long to wait for.
func (r request) retry(e *Error) bool { return r.tells(e) > 1 }

// tells ranks what nodes refuse with. A node that waits to be joined knows least: one
// beside it that has not read its database is a member of a cluster.
func (r request) tells(e *Error) int {
	switch {
	case !another(e) || e.Code == "waiting":
		return 0
	case e.Code == "unread" && r.method == http.MethodGet:
		return 1
	}
	return 2
}

func (c *Client) outcome(ctx context.Context, last *Error, tries []Try) error {
	if last != nil {
		return last
	}
	if err := ctx.Err(); err != nil && len(tries) == 0 {
		return err
	}
	return &Unreachable{Tries: tries}
}

func decode(body []byte, out any) error {
	if out == nil {
		return nil
	}
	if c, ok := out.(*Config); ok && decodeConfig(body, c) {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}
