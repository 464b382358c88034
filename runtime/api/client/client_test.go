package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// node is an HTTPS server with a node's certificate and a script of answers.
type node struct {
	*httptest.Server
	mu       sync.Mutex
	commands []string
	calls    int
}

func (n *node) endpoint() string { return strings.TrimPrefix(n.URL, "https://") }

type world struct {
	t  *testing.T
	id *pki.Identity
}

func newWorld(t *testing.T) *world {
	t.Helper()
	id, err := pki.NewIdentity("test")
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, id: id}
}

func (w *world) node(handle func(n *node, call int, rw http.ResponseWriter, r *http.Request)) *node {
	w.t.Helper()
	cert, err := w.id.NodeCert("0123456789abcdef", "n1", time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		w.t.Fatal(err)
	}
	conf, err := pki.ServerConfig(w.id.CACert, w.id.ID, pair, "h2", "http/1.1")
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.calls++
		call := n.calls
		n.commands = append(n.commands, r.Header.Get(client.HeaderCommand))
		n.mu.Unlock()
		handle(n, call, rw, r)
	}))
	n.EnableHTTP2 = true
	n.TLS = conf
	n.Config.ErrorLog = nil
	n.StartTLS()
	// httptest adds a certificate of its own; only ours may be shown.
	n.TLS.Certificates = []tls.Certificate{pair}
	w.t.Cleanup(n.Close)
	return n
}

func (w *world) tls(id *pki.Identity, life time.Duration) *tls.Config {
	w.t.Helper()
	cert, err := id.ClientCert("tester", client.RoleAdmin, life)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := cert.TLS()
	if err != nil {
		w.t.Fatal(err)
	}
	conf, err := pki.ClientConfig(w.id.CACert, w.id.ID, pair, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return conf
}

func (w *world) client(opt client.Options) *client.Client {
	w.t.Helper()
	if opt.TLS == nil {
		opt.TLS = w.tls(w.id, time.Hour)
	}
	c := client.New(opt)
	w.t.Cleanup(c.Close)
	return c
}

func answer(rw http.ResponseWriter, v any) { _ = json.NewEncoder(rw).Encode(v) }

func refuse(rw http.ResponseWriter, e client.Error) {
	rw.WriteHeader(e.Status)
	answer(rw, e)
}

// closed is an endpoint that refuses connections.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestWriteGoesOnUntilItIsDoneOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leader := w.node(func(_ *node, call int, rw http.ResponseWriter, r *http.Request) {
		switch call {
		case 1: // the connection breaks after the request was read: done or not?
			panic(http.ErrAbortHandler)
		case 2:
			refuse(rw, client.Error{Status: 503, Code: "unknown_outcome", Message: "unknown"})
		default:
			var g spec.Group
			if err := json.NewDecoder(r.Body).Decode(&g); err != nil || g.Name != "web" || r.Header.Get(client.HeaderIfMatch) != "7" ||
				r.Header.Get(client.HeaderAuthor) != "ann" || r.Method != http.MethodPut || r.URL.Path != "/v1/groups/g1" {
				refuse(rw, client.Error{Status: 400, Code: "bad_request", Message: fmt.Sprint("wrong request: ", r.URL, g, err)})
				return
			}
			answer(rw, client.Done{Revision: 12, ConfigRevision: 8})
		}
	})
	other := w.node(func(_ *node, _ int, rw http.ResponseWriter, r *http.Request) {
		refuse(rw, client.Error{Status: 421, Code: "not_leader", Message: "not here", Leader: leader.endpoint()})
	})
	c := w.client(client.Options{Endpoints: []string{closed(t), other.endpoint()}, Author: "ann"})
	done, err := c.PutGroup(t.Context(), spec.Group{ID: "g1", Name: "web", Addr: addr.Group("web", addr.Key{})}, 7)
	if err != nil || done.Revision != 12 || done.ConfigRevision != 8 {
		t.Fatalf("got %+v, %v", done, err)
	}
	for _, id := range append(leader.commands, other.commands...) {
		if id == "" || id != leader.commands[0] {
			t.Fatalf("command ids differ: %q and %q", leader.commands, other.commands)
		}
	}
}

func TestErrorsAreTypedAndNotAskedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node(func(_ *node, _ int, rw http.ResponseWriter, r *http.Request) {
		refuse(rw, client.Error{Status: 403, Code: "forbidden", Message: "reader may not", Hint: "ask an operator"})
	})
	c := w.client(client.Options{Endpoints: []string{n.endpoint(), n.endpoint()}})
	_, err := c.Move(t.Context(), "web", client.Order{Node: "n2"})
	var e *client.Error
	if !errors.As(err, &e) || e.Code != "forbidden" || e.Status != 403 || err.Error() != "reader may not; ask an operator" {
		t.Fatalf("got %v", err)
	}
	if n.calls != 1 {
		t.Fatalf("asked %d times", n.calls)
	}
}

func TestNoQuorumEndsWithPatience(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node(func(_ *node, _ int, rw http.ResponseWriter, _ *http.Request) {
		refuse(rw, client.Error{Status: 503, Code: "no_quorum", Message: "no quorum"})
	})
	c := w.client(client.Options{Endpoints: []string{n.endpoint()}, Patience: 300 * time.Millisecond})
	_, err := c.Config(t.Context(), true)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != "no_quorum" {
		t.Fatalf("got %v", err)
	}
	if n.calls < 2 {
		t.Fatalf("asked %d times", n.calls)
	}
}

func TestReadsPreferQuorumThenTheNewest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	give := func(quorum bool, revision uint64) *node {
		return w.node(func(_ *node, _ int, rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == client.PathStatus {
				answer(rw, client.Status{Revision: revision, Quorum: client.StatusQuorum{Have: quorum}})
				return
			}
			answer(rw, client.Config{Revision: revision, Quorum: quorum})
		})
	}
	waiting := w.node(func(_ *node, _ int, rw http.ResponseWriter, _ *http.Request) {
		refuse(rw, client.Error{Status: 503, Code: "waiting", Message: "waiting"})
	})
	old, newer, quorum := give(false, 3), give(false, 9), give(true, 5)
	for _, tc := range []struct {
		name  string
		nodes []string
		want  uint64
	}{
		{"quorum before a newer copy", []string{old.endpoint(), newer.endpoint(), quorum.endpoint()}, 5},
		{"the newest without quorum", []string{closed(t), old.endpoint(), newer.endpoint(), waiting.endpoint()}, 9},
	} {
		c := w.client(client.Options{Endpoints: tc.nodes})
		s, err := c.Status(t.Context())
		if err != nil || s.Revision != tc.want {
			t.Errorf("%s: status %+v, %v", tc.name, s, err)
		}
		conf, err := c.Config(t.Context(), false)
		if err != nil || conf.Revision != tc.want {
			t.Errorf("%s: config %+v, %v", tc.name, conf, err)
		}
	}
	c := w.client(client.Options{Endpoints: []string{waiting.endpoint()}})
	var e *client.Error
	if _, err := c.Status(t.Context()); !errors.As(err, &e) || e.Code != "waiting" || waiting.calls > 3 {
		t.Errorf("a waiting node: %v after %d calls", err, waiting.calls)
	}
}

// A member that has not read its database is told before nodes that wait to be joined,
// whoever is asked first, and at once; a write waits until it has.
func TestUnreadBesideWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	says := func(code string) *node {
		return w.node(func(_ *node, call int, rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && code == "unread" && call > 2 {
				answer(rw, client.Done{})
				return
			}
			refuse(rw, client.Error{Status: 503, Code: code, Message: code})
		})
	}
	for _, codes := range [][]string{{"waiting", "unread"}, {"unread", "waiting"}, {"waiting", "unread", "waiting"}} {
		var endpoints []string
		for _, c := range codes {
			endpoints = append(endpoints, says(c).endpoint())
		}
		c := w.client(client.Options{Endpoints: endpoints, Patience: time.Hour})
		_, status := c.Status(t.Context())
		_, fresh := c.Config(t.Context(), true)
		for _, err := range []error{status, fresh} {
			var e *client.Error
			if !errors.As(err, &e) || e.Code != "unread" {
				t.Errorf("%q: %v", codes, err)
			}
		}
		if _, err := c.PutCluster(t.Context(), spec.Cluster{}, 0); err != nil {
			t.Errorf("%q: a write: %v", codes, err)
		}
	}
}

func TestNobodyThereSaysWhereAndWhatToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := closed(t), closed(t)
	c := w.client(client.Options{Endpoints: []string{a, b}})
	_, err := c.Status(t.Context())
	if !errors.Is(err, client.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{a, b, "connection refused", "clusterplan apply"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
}

func TestRefusedCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node(func(_ *node, _ int, rw http.ResponseWriter, _ *http.Request) { answer(rw, client.Self{Name: "n1"}) })
	other, err := pki.NewIdentity("other")
	if err != nil {
		t.Fatal(err)
	}
	none := w.tls(w.id, time.Hour)
	none.Certificates = nil
	for _, tc := range []struct {
		name string
		tls  *tls.Config
		want string
	}{
		{"none", none, "certificate required"},
		{"foreign", w.tls(other, time.Hour), "certificate required"}, // not even shown: the node names its authority
		{"expired", w.tls(w.id, -time.Minute), "expired certificate"},
	} {
		c := w.client(client.Options{Endpoints: []string{n.endpoint()}, TLS: tc.tls})
		_, err := c.Self(t.Context(), n.endpoint())
		var e *client.Error
		if !errors.As(err, &e) || e.Code != "unauthenticated" || e.Status != 401 || !strings.Contains(e.Message, tc.want) ||
			!strings.Contains(e.Message, n.endpoint()) || e.Hint == "" {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestFollowGoesOnWithAnotherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stream := func(from, to uint64) func(*node, int, http.ResponseWriter, *http.Request) {
		return func(_ *node, _ int, rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") != "text/event-stream" {
				refuse(rw, client.Error{Status: 400, Message: "no stream asked for"})
				return
			}
			fmt.Fprint(rw, ": a comment\n\n")
			for id := from; id <= to; id++ { // ids that were seen come again: told once
				data, _ := json.Marshal(client.Event{ID: id, Text: "e"})
				fmt.Fprintf(rw, "id: %d\ndata: %s\n\n", id, data)
			}
		}
	}
	first, second := w.node(stream(1, 3)), w.node(stream(2, 5))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The first node ends its stream each time; the second is asked when the first is gone.
	c := w.client(client.Options{Endpoints: []string{first.endpoint(), second.endpoint()}})
	var ids []uint64
	err := c.Follow(ctx, 0, func(e client.Event) {
		ids = append(ids, e.ID)
		if e.ID == 3 {
			go first.Close()
		}
		if e.ID == 5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(ids) != "[1 2 3 4 5]" {
		t.Fatalf("got %v, %v", ids, err)
	}
}

// A node that is cut off answers its own callers, and knows nothing new: events
// come from a node with quorum, and without any from the one that knows most.
func TestEventsPreferQuorum(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var healed atomic.Bool
	give := func(quorum func() bool, last uint64) *node {
		return w.node(func(_ *node, _ int, rw http.ResponseWriter, r *http.Request) {
			if r.FormValue("quorum") == "1" && !quorum() {
				refuse(rw, client.Error{Status: 503, Code: "no_quorum", Message: "no quorum"})
				return
			}
			since, _ := strconv.ParseUint(r.FormValue("since"), 10, 64)
			list := []client.Event{}
			for id := since + 1; id <= last; id++ {
				list = append(list, client.Event{ID: id})
			}
			if r.Header.Get("Accept") != "text/event-stream" {
				answer(rw, list)
				return
			}
			for _, e := range list {
				data, _ := json.Marshal(e)
				fmt.Fprintf(rw, "data: %s\n\n", data)
			}
		})
	}
	never, always := func() bool { return false }, func() bool { return true }
	alone, older, quorum := give(never, 4), give(never, 3), give(always, 6)
	for _, tc := range []struct {
		nodes []string
		want  int
	}{
		{[]string{alone.endpoint(), quorum.endpoint()}, 6},
		{[]string{closed(t), older.endpoint(), alone.endpoint()}, 4},
	} {
		c := w.client(client.Options{Endpoints: tc.nodes})
		if list, err := c.Events(t.Context(), 0); err != nil || len(list) != tc.want {
			t.Errorf("%d events, %v; want %d", len(list), err, tc.want)
		}
	}
	// Follow tells what is known without quorum, and the rest when there is one again.
	back := give(healed.Load, 6)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ids []uint64
	c := w.client(client.Options{Endpoints: []string{alone.endpoint(), older.endpoint(), back.endpoint()}})
	err := c.Follow(ctx, 0, func(e client.Event) {
		ids = append(ids, e.ID)
		if e.ID == 6 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(ids) != "[1 2 3 4 5 6]" {
		t.Errorf("without quorum: %v, %v", ids, err)
	}
	// Nor does it give up where members have not read their database: they answer.
	var since time.Time
	unread := w.node(func(_ *node, call int, rw http.ResponseWriter, _ *http.Request) {
		if call == 1 {
			since = time.Now()
		} else if time.Since(since) > 3*time.Second {
			cancel()
		}
		refuse(rw, client.Error{Status: 503, Code: "unread", Message: "unread"})
	})
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	c = w.client(client.Options{Endpoints: []string{unread.endpoint()}, Patience: 2 * time.Second})
	if err := c.Follow(ctx, 0, func(client.Event) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("unread: %v", err)
	}
	healed.Store(true)
	ids = nil
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	c = w.client(client.Options{Endpoints: []string{alone.endpoint(), back.endpoint()}})
	err = c.Follow(ctx, 4, func(e client.Event) {
		if ids = append(ids, e.ID); e.ID == 6 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || fmt.Sprint(ids) != "[5 6]" {
		t.Errorf("with quorum: %v, %v", ids, err)
	}
}

func TestSocketWithALongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "api.sock")
	short, done, err := client.ShortSocketPath(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", short)
	done()
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, client.PathLogs) {
			_, _ = io.WriteString(rw, "a line\n")
			return
		}
		answer(rw, client.Self{Name: "n7"})
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	c := client.New(client.Options{Socket: path})
	defer c.Close()
	self, err := c.Self(t.Context(), "")
	if err != nil || self.Name != "n7" {
		t.Fatalf("got %+v, %v", self, err)
	}
	var out bytes.Buffer
	if err := c.Logs(t.Context(), "", "g1", "server", 0, false, &out); err != nil || out.String() != "a line\n" {
		t.Fatalf("got %q, %v", out.String(), err)
	}
}

// A node that hangs holds nobody up: the others are asked beside it, and the first
// answer with a quorum is taken while it is still silent.
func TestHungNodeIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	answer := func(quorum bool, revision uint64) *node {
		return w.node(func(_ *node, _ int, rw http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(rw).Encode(client.Config{Quorum: quorum, Revision: revision})
		})
	}
	behind, good := answer(false, 9), answer(true, 7)
	ended := make(chan error, 1)
	c := w.client(client.Options{Endpoints: []string{"hangs:1", behind.endpoint(), good.endpoint()},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "hangs:1" {
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	conf, err := c.Config(t.Context(), false)
	if err != nil || !conf.Quorum || conf.Revision != 7 {
		t.Fatalf("%+v: %v", conf, err)
	}
	select {
	case err := <-ended:
		t.Errorf("it was waited for the node that hangs: %v", err)
	default:
	}
	c2 := w.client(client.Options{Endpoints: []string{"hangs:1"}, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return nil, errors.New("no route")
	}})
	if _, err := c2.Config(t.Context(), false); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "no route") {
		t.Errorf("nobody answers: %v", err)
	}
	c3 := w.client(client.Options{Endpoints: []string{behind.endpoint(), answer(false, 11).endpoint()}})
	if conf, err := c3.Config(t.Context(), false); err != nil || conf.Revision != 11 {
		t.Errorf("of two without a quorum: %+v: %v", conf, err)
	}
}
