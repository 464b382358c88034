package run

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/internal/gittest"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
)

// TestBackendGit: the state goes from a file into a ref of the definition's own
// repository, to a server, into another ref, and back into a file. A second clone
// finds it by itself, is told who has it locked, and the password of the remote's URL
// stands nowhere but there.
func TestBackendGit(t *testing.T) {
	l := newBackendLab(t)
	origin := gittest.Bare(t, "shop")
	backend := gittest.HTTP(t, origin)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ci" || password != "hush" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer srv.Close()
	at, err := url.Parse(srv.URL)
	l.want(err, "")
	at.User, at.Path = url.UserPassword("ci", "hush"), "/shop.git"
	gittest.Git(t, l.dir, "init", "-q")
	gittest.Git(t, l.dir, "remote", "add", "origin", at.String())
	inRef := func(name string) string { return fmt.Sprintf("  backend \"git\" {\n    ref = %q\n  }", name) }
	expect := func(want string) {
		t.Helper()
		if got := l.names(); !strings.Contains(got, want) || want == "a" && got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}

	l.define("")
	l.want(l.init(Options{}), "")
	l.write("a")
	l.define(inRef("shop"))
	expect("not set up")
	l.want(l.init(Options{}), "the backend has changed")
	l.want(l.init(Options{Migrate: true}), "")
	expect("a")
	l.define(l.served("one"))
	expect("the backend has changed")
	l.want(l.init(Options{Migrate: true}), "")
	expect("a")
	l.define(inRef("refs/heads/state"))
	l.want(l.init(Options{Migrate: true}), "")
	expect("a")
	gittest.Git(t, l.dir, "remote", "set-url", "origin", at.String()+"x") // the state lies where it lay
	expect("the backend has changed")
	gittest.Git(t, l.dir, "remote", "set-url", "origin", at.String())
	record, err := os.ReadFile(filepath.Join(l.dir, ".clusterplan", "backend.json"))
	if err != nil || strings.Contains(string(record), "hush") || !strings.Contains(string(record), "refs/heads/state") {
		t.Fatal(string(record), err)
	}

	// Another clone.
	other := *l
	other.dir = t.TempDir()
	gittest.Git(t, other.dir, "init", "-q")
	gittest.Git(t, other.dir, "remote", "add", "origin", at.String())
	other.define(inRef("refs/heads/state"))
	l.want(other.init(Options{}), "")
	if got := other.names(); got != "a" {
		t.Fatal(got)
	}
	lock, err := l.open(Options{}).Store.Lock(t.Context(), statefile.LockRequest{Who: "ann@here", What: "apply"})
	l.want(err, "")
	_, err = other.open(Options{}).lock(t.Context(), "apply", 0)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "ann@here") || strings.Contains(err.Error(), "hush") {
		t.Fatal(err)
	}
	l.want(lock.Release(), "")

	// One that was there and is gone is not taken for none, until somebody says so.
	l.want(l.open(Options{}).ReadState(t.Context()), "")
	state, _, err := l.open(Options{}).PullState(t.Context())
	l.want(err, "")
	was := gittest.Git(t, origin, "rev-parse", "refs/heads/state")
	gittest.Git(t, origin, "update-ref", "-d", "refs/heads/state")
	l.want(l.open(Options{}).ReadState(t.Context()), "the state is gone")
	l.want(l.init(Options{}), "the state is gone")
	l.define(inRef("refs/heads/new"))
	for _, migrate := range []bool{false, true} {
		l.want(l.init(Options{Migrate: migrate}), "the state is gone")
	}
	l.define(inRef("refs/heads/state"))
	_, err = l.open(Options{}).PushState(t.Context(), "backup", state, EditOptions{})
	l.want(err, "")
	l.want(l.open(Options{}).ReadState(t.Context()), "")
	other.define(inRef("refs/heads/other"))
	l.want(other.init(Options{Reconfigure: true}), "")
	other.write("b")
	gittest.Git(t, origin, "update-ref", "refs/heads/state", "refs/heads/other")
	l.want(l.open(Options{}).ReadState(t.Context()), "had a state of lineage")
	_, err = l.open(Options{}).RemoveState(t.Context(), []addr.Address{addr.Node("b", addr.NoKey)}, EditOptions{})
	l.want(err, "had a state of lineage")
	gittest.Git(t, origin, "update-ref", "-d", "refs/heads/state")
	l.want(l.init(Options{Reconfigure: true}), "")
	l.want(l.open(Options{}).ReadState(t.Context()), "")
	gittest.Git(t, origin, "update-ref", "refs/heads/state", was)

	l.define("")
	expect("the backend has changed")
	l.want(l.init(Options{Migrate: true}), "")
	expect("a")
	gittest.Git(t, origin, "update-ref", "-d", "refs/heads/other")
	if got := gittest.Git(t, origin, "for-each-ref", "--format=%(refname)"); got != "refs/clusterplan/state/shop\nrefs/heads/state" {
		t.Error(got)
	}
}
