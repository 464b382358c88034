package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Whatever a caller of any role sends, the handlers don't panic, and an answer
// from 400 on is an error that says what: never an internal one.
func FuzzRequests(f *testing.F) {
	for i, seed := range []string{
		"GET /v1/self HTTP/1.1\n\n",
		"GET /v1/status HTTP/1.1\n\n",
		"GET /v1/config?fresh=1 HTTP/1.1\n\n",
		"GET /v1/events?since=3&quorum=1 HTTP/1.1\nAccept: text/event-stream\nLast-Event-ID: 2\n\n",
		"GET /v1/logs/web/vip?bytes=9&follow=1 HTTP/1.1\n\n",
		"GET /v1/logs/web/..%2f..%2fetc HTTP/1.1\n\n",
		"POST /v1/groups/web/move HTTP/1.1\nClusterplan-Command: x\nIf-Match: \"7\"\n\n{\"node\":\"n2\",\"reason\":\"r\",\"confirmed_off\":\"n1\"}",
		"POST /v1/groups/g1/offline HTTP/1.1\nClusterplan-Author: a\x01b\n\n{}",
		"POST /v1/nodes/n2/evict HTTP/1.1\n\n{\"reason\":\"r\"}",
		"POST /v1/nodes/n2/fence HTTP/1.1\n\n{\"confirmed_off\":\"yes\"}",
		"PUT /v1/cluster HTTP/1.1\n\n{\"id\":\"c0c0c0c0c0c0c0c0\",\"name\":\"test\",\"quorum\":{\"model\":\"majority_node_set\"}}",
		"PUT /v1/groups/g1 HTTP/1.1\nIf-Match: x\n\n{\"id\":\"g1\",\"name\":\"web\",\"resources\":[{\"name\":\"r\",\"type\":\"script\"}]}",
		"PUT /v1/fences/f1 HTTP/1.1\n\n{\"id\":\"f1\",\"name\":\"f\",\"agent\":\"fence_x\",\"nodes\":[\"n1\"],\"level\":1}",
		"POST /v1/bootstrap HTTP/1.1\n\n{\"cluster\":{},\"member\":{\"server_id\":\"1\"}}",
		"POST /v1/members HTTP/1.1\n\n{\"spec\":{\"id\":\"id3\",\"name\":\"n3\"},\"server_id\":\"3\",\"endpoint\":\"h:1\"}",
		"POST /v1/members/id2/promote HTTP/1.1\n\n",
		"DELETE /v1/members/id2 HTTP/1.1\n\n",
		"GET /v1/groups/web/owner HTTP/1.1\nAccept: text/event-stream\n\n",
		"GET /v1/kv/group/web/a%2Fb?stale=1 HTTP/1.1\n\n",
		"PUT /v1/kv/group/g1/k HTTP/1.1\nIf-None-Match: *\nClusterplan-Epoch: 1\nClusterplan-Seen: 2\n\nvalue",
		"GET /v1/kv/cluster?prefix=p&after=%ff&limit=-1&since=9 HTTP/1.1\nAccept: text/event-stream\n\n",
		"GET /v1/checkpoints/web/vip HTTP/1.1\n\n",
		"PUT /v1/checkpoints/web/vip HTTP/1.1\nClusterplan-Epoch: 1\n\n{\"files\":[{\"path\":\"/a\",\"size\":1,\"chunks\":[\"x\"]}]}",
		"POST /v1/keys/rotate HTTP/1.1\n\n",
		"BREW //v1/../v1/self HTTP/1.0\n\n",
	} {
		f.Add(uint8(i), []byte(seed))
	}
	roles := []string{client.RoleAdmin, client.RoleOperator, client.RoleReader, client.RoleApplication, "node", "nobody", ""}
	f.Fuzz(func(t *testing.T, role uint8, raw []byte) {
		head, body, _ := bytes.Cut(raw, []byte("\n\n"))
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\n\n"))))
		if err != nil {
			return // net/http answers these
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		ctx, gone := context.WithCancel(t.Context())
		gone() // a stream ends after its first look
		switch who := roles[int(role)%len(roles)]; who {
		case "":
		case client.RoleApplication:
			ctx = agent.WithLocalGroup(ctx, "g1", "uid 7")
			if role >= 128 {
				ctx = agent.WithLocalMonitor(ctx)
			}
		default:
			cert := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "ann", OrganizationalUnit: []string{who}}}
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		}
		_, h := owned(t)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(ctx))
		if w.Code < 400 {
			return
		}
		var e client.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Status != w.Code || e.Code == "" || e.Message == "" || e.FormatVersion == "" {
			t.Fatalf("%s %s: %d %q: no error that says what (%v)", r.Method, r.RequestURI, w.Code, w.Body, err)
		}
		if e.Code == "internal" || w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Fatalf("%s %s: %d %s", r.Method, r.RequestURI, w.Code, w.Body)
		}
	})
}

// pipes is a listener of one connection in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A body that does not come is not waited for for ever, and a stream is none.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := owned(t)
		l := make(pipes, 2)
		srv := &http.Server{Handler: h, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return agent.WithLocalGroup(ctx, "g1", "uid 7")
		}}
		go func() { _ = srv.Serve(l) }()
		call := func(text string) (*http.Response, time.Duration) {
			near, far := net.Pipe()
			l <- far
			began := time.Now()
			go func() { _, _ = io.WriteString(near, text) }()
			res, err := http.ReadResponse(bufio.NewReader(near), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { near.Close() })
			return res, time.Since(began)
		}
		res, took := call("PUT /v1/kv/group/web/k HTTP/1.1\r\nHost: node\r\nContent-Length: 9\r\n\r\nvalu")
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 400 || took != bodyWithin || !strings.Contains(string(body), "30s") {
			t.Errorf("after %v: %s %s", took, res.Status, body)
		}
		stream, _ := call("GET /v1/groups/web/owner HTTP/1.1\r\nHost: node\r\nAccept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}")
		first := make([]byte, 1)
		if _, err := io.ReadFull(stream.Body, first); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, stream.Body); close(ended) }()
		time.Sleep(10 * bodyWithin)
		synctest.Wait()
		select {
		case <-ended:
			t.Error("the stream ended by itself")
		default:
		}
		close(l)
		_ = srv.Close()
		<-ended
	})
}
