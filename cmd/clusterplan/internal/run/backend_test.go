package run

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// stateServer keeps states as Terraform's HTTP backend wants it, one a path.
func stateServer(t *testing.T) (url string, down func(bool)) {
	var mu sync.Mutex
	dead := false
	state, lock := map[string][]byte{}, map[string][]byte{}
	id := func(text []byte) string {
		var i struct{ ID string }
		json.Unmarshal(text, &i)
		return i.ID
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, _ := io.ReadAll(r.Body)
		p := r.URL.Path
		user, password, _ := r.BasicAuth()
		switch {
		case dead:
			w.WriteHeader(http.StatusServiceUnavailable)
		case user != "ann" || password != "secret":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == "GET" && state[p] == nil:
			w.WriteHeader(http.StatusNotFound)
		case r.Method == "GET":
			w.Write(state[p])
		case r.Method == "LOCK" && lock[p] != nil, r.Method == "UNLOCK" && id(lock[p]) != id(body), r.Method == "POST" && id(lock[p]) != r.URL.Query().Get("ID"):
			w.WriteHeader(http.StatusLocked)
			w.Write(lock[p])
		case r.Method == "POST":
			state[p] = body
		case r.Method == "LOCK":
			lock[p] = body
		case r.Method == "UNLOCK":
			delete(lock, p)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func(is bool) { mu.Lock(); defer mu.Unlock(); dead = is }
}

// The state goes from a file to a server, on to another address, and back. A
// definition that says another backend is refused until init was told what to do, and
// nothing takes the place of a state of another cluster.
func TestBackendChanges(t *testing.T) {
	url, down := stateServer(t)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(seal.EnvIdentityFile, file)
	t.Setenv(seal.EnvPassphrase, "")
	t.Setenv("CLUSTERPLAN_HTTP_PASSWORD", "secret")
	t.Setenv("CLUSTERPLAN_HTTP_RETRY_WAIT_MIN", "0")
	t.Setenv("CLUSTERPLAN_HTTP_RETRY_MAX", "1")
	dir := t.TempDir()
	define := func(backend string) {
		text := fmt.Sprintf("clusterplan {\n  encryption {\n    recipients = [%q]\n  }\n%s\n}\ncluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"n1\" {\n  provider = local\n}\n", key.Recipient(), backend)
		if err := os.WriteFile(filepath.Join(dir, "main.cluster.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	served := func(path string) string {
		return fmt.Sprintf("  backend \"http\" {\n    address = \"%s/%s\"\n    lock_address = \"%s/%s\"\n    username = \"ann\"\n  }", url, path, url, path)
	}
	open := func(o Options) *Session {
		t.Helper()
		o.Version = "0.1.0"
		s, err := Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	init := func(o Options) (string, error) {
		t.Helper()
		o.Init = true
		said, err := open(o).Init(t.Context())
		return strings.Join(said, " "), err
	}
	names := func() string {
		t.Helper()
		snap, err := open(Options{}).Store.Read()
		if err != nil {
			return err.Error()
		}
		var out []string
		for _, o := range snap.State.Objects {
			out = append(out, o.Addr.Name)
		}
		return strings.Join(out, " ")
	}
	write := func(name string) {
		t.Helper()
		lock, err := open(Options{}).Store.Lock(context.Background(), statefile.LockRequest{Who: "ann", What: "apply"})
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		snap, err := lock.Read()
		if err != nil {
			t.Fatal(err)
		}
		st := snap.State
		st.Objects = append(st.Objects, statefile.Object{Addr: addr.Node(name, addr.NoKey), Type: "node", Provider: "local", ID: "00000000000000a1", Attributes: json.RawMessage("{}")})
		if err := lock.Finish(st); err != nil {
			t.Fatal(err)
		}
	}
	ok := func(said string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(said, err)
		}
	}
	refused := func(want string, said string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s, %v: want %q", said, err, want)
		}
	}

	define("")
	ok(init(Options{}))
	write("a")
	define(served("one"))
	if got := names(); !strings.Contains(got, "not set up") {
		t.Fatal(got)
	}
	if _, err := open(Options{}).Store.Lock(t.Context(), statefile.LockRequest{}); err == nil {
		t.Fatal("a backend that is not set up was locked")
	}
	said, err := init(Options{})
	refused("the backend has changed", said, err)
	down(true)
	if said, err = init(Options{Migrate: true}); err == nil {
		t.Fatal(said)
	}
	down(false)
	if got := names(); !strings.Contains(got, "not set up") {
		t.Fatal(got)
	}
	ok(init(Options{Migrate: true}))
	if got := names(); got != "a" {
		t.Fatal(got)
	}
	write("b")
	define(served("two"))
	if got := names(); !strings.Contains(got, "the backend has changed") {
		t.Fatal(got)
	}
	ok(init(Options{Migrate: true}))
	if got := names(); got != "a b" {
		t.Fatal(got)
	}
	define("")
	if got := names(); !strings.Contains(got, "the backend has changed") {
		t.Fatal(got) // and not the file's, which is older
	}
	ok(init(Options{Migrate: true}))
	if got := names(); got != "a b" {
		t.Fatal(got)
	}
	write("c")
	define(served("one")) // where an older one lies
	ok(init(Options{Migrate: true}))
	if got := names(); got != "a b c" {
		t.Fatal(got)
	}
	// What another cluster has stays.
	define(served("three"))
	ok(init(Options{Reconfigure: true}))
	if got := names(); got != "" {
		t.Fatal(got)
	}
	write("other")
	define(served("one"))
	said, err = init(Options{Migrate: true})
	refused("another cluster", said, err)
	ok(init(Options{Reconfigure: true}))
	if got := names(); got != "a b c" {
		t.Fatal(got)
	}
	// A server that does not answer at the end of an apply: what that did is in a file.
	s := open(Options{})
	if err := s.ReadState(); err != nil {
		t.Fatal(err)
	}
	down(true)
	res := &apply.Result{State: s.Snap.State}
	err = s.rescue(res, fmt.Errorf("write the journal: 503"))
	if data, rerr := os.ReadFile(filepath.Join(dir, rescueName)); rerr != nil || !statefile.Sealed(data) || err == nil || !strings.Contains(err.Error(), rescueName) {
		t.Fatal(err, rerr)
	}
}
