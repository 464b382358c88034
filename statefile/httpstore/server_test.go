package httpstore

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile/seal"
)

// server is a server of Terraform's protocol, with Basic authentication, that fails
// as it is told.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	state []byte
	lock  []byte   // nil: not locked
	asked []string // methods
	any   bool     // writes are taken whose lock is another
	// fault is asked at each request what to do with it: nil, as it should be.
	fault func(method string, n int) fault
	late  []func() // writes that come about when run
}

// fault is what happens to one request.
type fault int

const (
	sound    fault = iota
	refuse         // 500, and nothing is done
	lost           // done, and the connection is cut instead of an answer
	cut            // not done, and the connection is cut
	half           // the answer's body is cut in the middle
	delayed        // cut, and done much later
	confused       // done, and 500
	hang           // no answer at all; not done
	denied         // 403, and nothing is done
	mute           // done, and the answer's body is left out
)

const user, password = "ann", "secret"

func serve(t *testing.T) *server {
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(s.handle))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method)
	if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var f fault
	if s.fault != nil {
		n := 0
		for _, m := range s.asked {
			if m == r.Method {
				n++
			}
		}
		f = s.fault(r.Method, n)
	}
	id := r.URL.Query().Get("ID")
	switch f {
	case refuse:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case denied:
		w.WriteHeader(http.StatusForbidden)
		return
	case mute:
		rec := httptest.NewRecorder()
		s.do(rec, r.Method, id, body)
		w.WriteHeader(rec.Code)
		return
	case cut:
		panic(http.ErrAbortHandler)
	case delayed:
		s.late = append(s.late, func() { s.do(httptest.NewRecorder(), r.Method, id, body) })
		panic(http.ErrAbortHandler)
	case lost:
		s.do(httptest.NewRecorder(), r.Method, id, body)
		panic(http.ErrAbortHandler)
	case confused:
		s.do(httptest.NewRecorder(), r.Method, id, body)
		w.WriteHeader(http.StatusBadGateway)
		return
	case hang:
		s.mu.Unlock()
		<-r.Context().Done()
		s.mu.Lock()
		return
	case half:
		rec := httptest.NewRecorder()
		s.do(rec, r.Method, id, body)
		w.Header().Set("Content-Length", "100000")
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		panic(http.ErrAbortHandler)
	}
	s.do(w, r.Method, id, body)
}

func idOf(lock []byte) string {
	var i struct{ ID string }
	json.Unmarshal(lock, &i)
	return i.ID
}

func (s *server) do(w http.ResponseWriter, method, id string, body []byte) {
	switch method {
	case "GET":
		if s.state == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(s.state)
	case "POST":
		if !s.any && (s.lock == nil || idOf(s.lock) != id) {
			w.WriteHeader(http.StatusConflict)
			w.Write(s.lock)
			return
		}
		s.state = body
	case "LOCK":
		if s.lock != nil {
			w.WriteHeader(http.StatusLocked)
			w.Write(s.lock)
			return
		}
		s.lock = body
	case "UNLOCK":
		if s.lock == nil || idOf(s.lock) != idOf(body) {
			w.WriteHeader(http.StatusConflict)
			w.Write(s.lock)
			return
		}
		s.lock = nil
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// set has requests fail from here on, counted by method from 1.
func (s *server) set(f func(method string, n int) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.fault = nil, f
}

// nth has the n-th request of a method fail, and, with for, those after it too.
func nth(method string, n, times int, f fault) func(string, int) fault {
	return func(m string, i int) fault {
		if m == method && i >= n && i < n+times {
			return f
		}
		return sound
	}
}

func keys(t testing.TB) *seal.Keys {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return keysOf(t, id)
}

func (s *server) open(t testing.TB, k *seal.Keys) *Store {
	set, err := Parse(map[string]string{"address": s.URL + "/state", "lock_address": s.URL + "/lock", "username": user}, func(name string) string {
		if name == "CLUSTERPLAN_HTTP_PASSWORD" {
			return password
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := set.client()
	if err != nil {
		t.Fatal(err)
	}
	client.Timeout = 5 * time.Second
	t.Cleanup(client.CloseIdleConnections)
	st, err := Open(set, Options{Program: "0.1.0", Keys: k, Dir: t.TempDir(), Client: client,
		pause: func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }})
	if err != nil {
		t.Fatal(err)
	}
	return st
}
