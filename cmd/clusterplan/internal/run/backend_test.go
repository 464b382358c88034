package run

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/httpstore/httpstoretest"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// stateServer lets in who has the password.
func stateServer(t *testing.T) (url string, down func(bool)) {
	var dead atomic.Bool
	return httpstoretest.Serve(t, func(r *http.Request, _ int) int {
		user, password, _ := r.BasicAuth()
		switch {
		case dead.Load():
			return http.StatusServiceUnavailable
		case user != "ann" || password != "secret":
			return http.StatusUnauthorized
		}
		return 0
	}).URL, dead.Store
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
		snap, err := open(Options{}).Store.Read(t.Context())
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
		lock, err := open(Options{}).Store.Lock(t.Context(), statefile.LockRequest{Who: "ann", What: "apply"})
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		snap, err := lock.Read(t.Context())
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
	if err := s.ReadState(t.Context()); err != nil {
		t.Fatal(err)
	}
	down(true)
	res := &apply.Result{State: s.Snap.State}
	err = s.rescue(res, fmt.Errorf("write the journal: 503"))
	if data, rerr := os.ReadFile(filepath.Join(dir, ".clusterplan", rescueName)); rerr != nil || !statefile.Sealed(data) || err == nil || !strings.Contains(err.Error(), rescueName) {
		t.Fatal(err, rerr)
	}
}

// backendLab is a directory whose definition names one backend after another.
type backendLab struct {
	t        *testing.T
	dir, url string
	key      *age.X25519Identity
}

func newBackendLab(t *testing.T) *backendLab {
	l := &backendLab{t: t, dir: t.TempDir()}
	l.url, _ = stateServer(t)
	var err error
	if l.key, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(l.key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(seal.EnvIdentityFile, file)
	t.Setenv(seal.EnvPassphrase, "")
	t.Setenv("CLUSTERPLAN_HTTP_PASSWORD", "secret")
	return l
}

func (l *backendLab) define(backend string) {
	l.t.Helper()
	text := fmt.Sprintf("clusterplan {\n  encryption {\n    recipients = [%q]\n  }\n%s\n}\ncluster \"c\" {\n  quorum {\n    model = \"single_node\"\n  }\n}\nnode \"n1\" {\n  provider = local\n}\n", l.key.Recipient(), backend)
	if err := os.WriteFile(filepath.Join(l.dir, "main.cluster.hcl"), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *backendLab) served(path string) string {
	return fmt.Sprintf("  backend \"http\" {\n    address = \"%s/%s\"\n    lock_address = \"%s/%s\"\n    username = \"ann\"\n  }", l.url, path, l.url, path)
}

func fileAt(path string) string {
	return fmt.Sprintf("  backend \"local\" {\n    path = %q\n  }", path)
}

func (l *backendLab) open(o Options) *Session {
	l.t.Helper()
	o.Version = "0.1.0"
	s, err := Open(l.dir, o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.Close() })
	return s
}

func (l *backendLab) init(o Options) error {
	o.Init = true
	_, err := l.open(o).Init(l.t.Context())
	return err
}

func (l *backendLab) names() string {
	l.t.Helper()
	snap, err := l.open(Options{}).Store.Read(l.t.Context())
	if err != nil {
		return err.Error()
	}
	out := ""
	for _, o := range snap.State.Objects {
		out += o.Addr.Name
	}
	return out
}

func (l *backendLab) write(name string) {
	l.t.Helper()
	s := l.open(Options{})
	if err := s.prepare(); err != nil {
		l.t.Fatal(err)
	}
	lock, err := s.Store.Lock(l.t.Context(), statefile.LockRequest{Who: "ann", What: "apply"})
	if err != nil {
		l.t.Fatal(err)
	}
	defer lock.Release()
	snap, err := lock.Read(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	st := snap.State
	st.Objects = append(st.Objects, statefile.Object{Addr: addr.Node(name, addr.NoKey), Type: "node", Provider: "local", ID: "00000000000000a1", Attributes: json.RawMessage("{}")})
	if err := lock.Finish(st); err != nil {
		l.t.Fatal(err)
	}
}

func (l *backendLab) want(err error, text string) {
	l.t.Helper()
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		l.t.Fatalf("%v: want %q", err, text)
	}
}

// An init --migrate-state that is killed once the state is written, and before that
// is recorded, leaves a lock, which can be broken, and the next one ends it. So from
// a file to a server, and back.
func TestMigrationCutOff(t *testing.T) {
	l := newBackendLab(t)
	l.define("")
	l.want(l.init(Options{}), "")
	l.write("a")
	for _, backend := range []string{l.served("one"), ""} {
		l.define(backend)
		s := l.open(Options{Init: true, Migrate: true})
		before, err := s.recorded()
		l.want(err, "")
		if before == nil {
			before = &used{Type: "local", Path: filepath.Join(s.dataDir(), "state.json")}
		}
		from, err := s.storeBefore(before)
		l.want(err, "")
		_, err = s.migrate(l.t.Context(), from, s.Store, func() error { return fmt.Errorf("killed") })
		l.want(err, "killed")
		remote := s.Store
		if backend == "" {
			remote = from
		}
		lock, err := remote.Lock(l.t.Context(), statefile.LockRequest{Who: "ann", What: "init"}) // stays
		l.want(err, "")
		l.want(l.init(Options{Migrate: true}), "locked")
		_, err = l.open(Options{}).ForceUnlock(l.t.Context(), "another")
		l.want(err, lock.Info().ID)
		got, err := l.open(Options{}).ForceUnlock(l.t.Context(), lock.Info().ID)
		if l.want(err, ""); got.Lock == nil {
			t.Fatal("nothing was unlocked")
		}
		l.want(l.init(Options{Migrate: true}), "")
		if got := l.names(); got != "a" {
			t.Fatal(got)
		}
	}
}

// Of two states of one serial that differ none takes the other's place.
func TestMigrationOfTwoThatDiffer(t *testing.T) {
	l := newBackendLab(t)
	l.define("")
	l.want(l.init(Options{}), "")
	l.write("a")
	l.define(l.served("one"))
	l.want(l.init(Options{Migrate: true}), "")
	l.define("")
	l.want(l.init(Options{Reconfigure: true}), "")
	l.write("b")
	l.define(l.served("one"))
	l.want(l.init(Options{Migrate: true}), "differ")
	l.want(l.init(Options{Reconfigure: true}), "")
	if got := l.names(); got != "a" {
		t.Fatal(got)
	}
}

// Where there is nothing to bring, the backend stays as it was: the state may lie in
// a file that nobody has recorded, and all would be made a second time.
func TestMigrationOfNothing(t *testing.T) {
	l := newBackendLab(t)
	l.define(l.served("one"))
	l.want(l.init(Options{Migrate: true}), "there is no state at")
	if got := l.names(); !strings.Contains(got, "not set up") {
		t.Fatal(got)
	}
	l.want(l.init(Options{}), "")
}

// A state goes from one file to another as it does to a server.
func TestMigrationOfFiles(t *testing.T) {
	l := newBackendLab(t)
	l.define(fileAt("one/state.json"))
	l.write("a")
	l.define(fileAt("two/state.json"))
	l.want(l.open(Options{}).prepare(), "") // an apply is refused, also a second one
	if got := l.names(); !strings.Contains(got, "the backend has changed") {
		t.Fatal(got)
	}
	l.want(l.init(Options{}), "the backend has changed")
	l.want(l.init(Options{Migrate: true}), "")
	if got := l.names(); got != "a" {
		t.Fatal(got)
	}
	l.define("")
	l.want(l.init(Options{Migrate: true}), "")
	if got := l.names(); got != "a" {
		t.Fatal(got)
	}
}

// A server fails for good in the middle of an apply, and has lost the state: the file
// beside the definition tells of what was begun as well, also where nothing was ended.
// One that can be written again has it at once.
func TestRescueOfWhatWasBegun(t *testing.T) {
	l := newBackendLab(t)
	l.define(l.served("one"))
	l.want(l.init(Options{}), "")
	s := l.open(Options{})
	l.want(s.ReadState(l.t.Context()), "")
	o := statefile.Object{Addr: addr.Node("n2", addr.NoKey), Type: "node", Provider: "local", ID: "00000000000000a2", Attributes: json.RawMessage("{}")}
	res := &apply.Result{Pending: []statefile.Pending{{Intent: statefile.Intent{Addr: o.Addr, Action: "create", Object: &o}}}}
	l.want(s.rescue(res, fmt.Errorf("write the journal: 503")), rescueName)
	path := filepath.Join(l.dir, ".clusterplan", rescueName) // which git ignores
	data, err := os.ReadFile(path)
	l.want(err, "")
	_, err = s.PushState(l.t.Context(), path, data, EditOptions{})
	l.want(err, "")
	if got := l.names(); got != "n2" {
		t.Fatal(got)
	}
	snap, err := s.Store.Read(l.t.Context())
	l.want(err, "")
	if got := snap.State.Objects[0]; got.ID != o.ID || len(got.Phases) != 1 || got.Phases[0] != "begun" {
		t.Fatalf("%+v", got)
	}

	l.define(l.served("two"))
	l.want(l.init(Options{Reconfigure: true}), "")
	s = l.open(Options{})
	lock, err := s.Store.Lock(l.t.Context(), statefile.LockRequest{Who: "ann", What: "apply"})
	l.want(err, "")
	l.want(s.finish(lock, res), "")
	l.want(lock.Release(), "")
	if got := l.names(); got != "n2" {
		t.Fatal(got)
	}
}

// An apply that waited for the lock while the state was brought elsewhere does not go
// on with what was left behind.
func TestBroughtAwayMeanwhile(t *testing.T) {
	l := newBackendLab(t)
	l.define("")
	l.want(l.init(Options{}), "")
	l.write("a")
	waits := l.open(Options{})
	for _, backend := range []string{l.served("one"), ""} {
		l.define(backend)
		l.want(l.init(Options{Migrate: true}), "")
		_, err := waits.lockToWrite(l.t.Context(), "apply", 0)
		l.want(err, "meanwhile")
		waits = l.open(Options{})
		lock, err := waits.lockToWrite(l.t.Context(), "apply", 0)
		l.want(err, "")
		l.want(lock.Release(), "")
	}
}
