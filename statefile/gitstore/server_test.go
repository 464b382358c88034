package gitstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/clusterplan/clusterplan/internal/gittest"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// server is git's own HTTP server with Basic authentication, that fails as it is told.
type server struct {
	*httptest.Server
	dir string // of the repository

	mu    sync.Mutex
	asked []string // kinds of requests: greet or do, of upload-pack or receive-pack
	// fault is asked at each request what to do with it: nil, as it should be.
	fault func(kind string, n int) fault
	late  []func() // pushes that come about when run
}

// fault is what happens to one request.
type fault int

const (
	sound    fault = iota
	refuse         // 500, and nothing is done
	cut            // not done, and the connection is cut
	half           // the answer's body is cut in the middle
	lost           // done, and the connection is cut instead of an answer
	delayed        // cut, and done much later
	confused       // done, and 502
	hang           // no answer at all; not done
)

const (
	greetRead  = "GET git-upload-pack"
	doRead     = "POST git-upload-pack"
	greetWrite = "GET git-receive-pack"
	doWrite    = "POST git-receive-pack"
)

const user, password, ref = "ann", "secret", RefPrefix + "shop"

func serve(t *testing.T) *server {
	s := &server{dir: gittest.Bare(t, "shop")}
	backend := gittest.HTTP(t, s.dir)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handle(backend, w, r) }))
	t.Cleanup(s.Close)
	return s
}

func (s *server) handle(backend http.Handler, w http.ResponseWriter, r *http.Request) {
	if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	kind := r.Method + " " + r.URL.Query().Get("service")
	if r.Method == http.MethodPost {
		kind += filepath.Base(r.URL.Path)
	}
	s.asked = append(s.asked, kind)
	var f fault
	if s.fault != nil {
		n := 0
		for _, k := range s.asked {
			if k == kind {
				n++
			}
		}
		f = s.fault(kind, n)
	}
	s.mu.Unlock()
	switch f {
	case refuse:
		w.WriteHeader(http.StatusInternalServerError)
	case cut:
		panic(http.ErrAbortHandler)
	case hang:
		io.Copy(io.Discard, r.Body) // else the server does not see that the client has gone
		<-r.Context().Done()
	case sound:
		backend.ServeHTTP(w, r)
	case delayed:
		body, _ := io.ReadAll(r.Body)
		again := r.Clone(context.Background())
		again.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.late = append(s.late, func() {
			backend.ServeHTTP(httptest.NewRecorder(), again)
		})
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	default:
		rec := httptest.NewRecorder()
		backend.ServeHTTP(rec, r)
		switch f {
		case confused:
			w.WriteHeader(http.StatusBadGateway)
			return
		case half:
			for name, v := range rec.Header() {
				w.Header()[name] = v
			}
			w.Header().Set("Content-Length", "100000")
			w.WriteHeader(rec.Code)
			w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		}
		panic(http.ErrAbortHandler)
	}
}

// set has requests fail from here on, counted by kind from 1.
func (s *server) set(f func(kind string, n int) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.fault = nil, f
}

func keys(t testing.TB) *seal.Keys {
	id, err := age.GenerateX25519Identity()
	do(t, err)
	file := filepath.Join(t.TempDir(), "key")
	do(t, os.WriteFile(file, []byte(id.String()+"\n"), 0o600))
	k, err := seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: file})
	do(t, err)
	return k
}

func (s *server) open(t testing.TB, k *seal.Keys) *Store {
	set, err := Parse(map[string]string{"repository": s.URL + "/shop.git", "ref": "shop", "username": user}, func(name string) string {
		if name == "CLUSTERPLAN_GIT_PASSWORD" {
			return password
		}
		return ""
	}, nil)
	do(t, err)
	return openAt(t, set, k)
}

func openAt(t testing.TB, set Settings, k *seal.Keys) *Store {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	s, err := Open(set, Options{Program: "0.1.0", Keys: k, Dir: t.TempDir(), Client: &http.Client{Transport: transport},
		pause: func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }})
	do(t, err)
	return s
}

func at(name string) addr.Address { return addr.Address{Type: addr.TypeNode, Name: name} }

func thing(name string) *statefile.Object {
	return &statefile.Object{Addr: at(name), Type: addr.TypeNode, Provider: "local", ID: "id-" + name, Attributes: []byte(`{"hidden":"very-secret"}`)}
}

func begin(run string) statefile.Entry {
	return statefile.Entry{Begin: &statefile.Begin{Run: run, Who: "ann@host"}}
}

func intent(name string) statefile.Entry {
	return statefile.Entry{Intent: &statefile.Intent{Addr: at(name), Action: "create", Object: thing(name)}}
}

func made(name string) statefile.Entry {
	return statefile.Entry{Result: &statefile.Result{Addr: at(name), Object: thing(name)}}
}

// writeKey makes an SSH key that nobody knows.
func writeKey(t testing.TB) (public, file string) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	do(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	do(t, err)
	p, err := ssh.NewPublicKey(pub)
	do(t, err)
	file = filepath.Join(t.TempDir(), "id")
	do(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return strings.Fields(string(ssh.MarshalAuthorizedKey(p)))[1], file
}

func otherKey(t testing.TB) string {
	key, _ := writeKey(t)
	return key + "\n"
}
