// Package httpstoretest is a server of Terraform's HTTP protocol for states, for
// tests of what lies in front of one. Faults of the protocol itself are httpstore's
// own tests' affair.
package httpstoretest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Server keeps a state and a lock for each path.
type Server struct {
	URL string

	mu          sync.Mutex
	state, lock map[string][]byte
}

// Serve starts one that ends with the test. before (nil: none) is told each request,
// one at a time; a status other than 0 is the answer in place of what is asked for.
func Serve(t testing.TB, before func(r *http.Request, size int) int) *Server {
	s := &Server{state: map[string][]byte{}, lock: map[string][]byte{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		if before != nil {
			if status := before(r, len(body)); status != 0 {
				w.WriteHeader(status)
				return
			}
		}
		s.serve(w, r, body)
	}))
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Holder is the id of who holds a path's lock, "" without one.
func (s *Server) Holder(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return id(s.lock[path])
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	p := r.URL.Path
	switch {
	case r.Method == "GET" && s.state[p] == nil:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == "GET":
		w.Write(s.state[p])
	case r.Method == "LOCK" && s.lock[p] != nil, r.Method == "UNLOCK" && id(s.lock[p]) != id(body), r.Method == "POST" && id(s.lock[p]) != r.URL.Query().Get("ID"):
		w.WriteHeader(http.StatusLocked)
		w.Write(s.lock[p])
	case r.Method == "POST":
		s.state[p] = body
	case r.Method == "LOCK":
		s.lock[p] = body
	case r.Method == "UNLOCK":
		delete(s.lock, p)
	}
}

func id(lock []byte) string {
	var i struct{ ID string }
	_ = json.Unmarshal(lock, &i)
	return i.ID
}
