package apply_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/internal/gittest"
	"github.com/clusterplan/clusterplan/planner/apply"
	"github.com/clusterplan/clusterplan/planner/plannertest"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/gitstore"
	"github.com/clusterplan/clusterplan/statefile/httpstore"
	"github.com/clusterplan/clusterplan/statefile/httpstore/httpstoretest"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// stateServer counts what is asked of it.
func stateServer(t *testing.T) (url string, asked map[string]int) {
	asked = map[string]int{}
	return httpstoretest.Serve(t, func(r *http.Request, size int) int {
		asked[r.Method]++
		asked[r.Method+" bytes"] += size
		return 0
	}).URL, asked
}

func ageKeys(t *testing.T) *seal.Keys {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: file})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// webStore is a store at a server, and how often that was asked for what.
func webStore(t *testing.T, keys *seal.Keys) (statefile.Store, func() string) {
	url, asked := stateServer(t)
	set, err := httpstore.Parse(map[string]string{"address": url, "lock_address": url}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	s, err := httpstore.Open(set, httpstore.Options{Program: "0.1.0", Keys: keys, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() string {
		return fmt.Sprintf("LOCK %d, GET %d, POST %d, UNLOCK %d", asked["LOCK"], asked["GET"], asked["POST"], asked["UNLOCK"])
	}
}

// gitStore is one in a repository, and how many commits that has.
func gitStore(t *testing.T, keys *seal.Keys) (statefile.Store, func() string) {
	origin := gittest.Bare(t, "shop")
	srv := httptest.NewServer(gittest.HTTP(t, origin))
	t.Cleanup(srv.Close)
	set, err := gitstore.Parse(map[string]string{"repository": srv.URL + "/shop.git", "ref": "shop"}, func(string) string { return "" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := gitstore.Open(set, gitstore.Options{Program: "0.1.0", Keys: keys, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s, func() string {
		return gittest.Git(t, origin, "rev-list", "--count", "refs/clusterplan/state/shop") + " commits"
	}
}

// takes has an apply's lock, and what a store knows for the lab's next run.
func (l *lab) takes(store statefile.Store) statefile.Lock {
	l.t.Helper()
	lock, err := store.Lock(l.t.Context(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	if err != nil {
		l.t.Fatal(err)
	}
	snap, err := lock.Read(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.state, l.journal = snap.State, journal{}
	for i := range snap.Pending {
		l.journal.entries = append(l.journal.entries, statefile.Entry{Intent: &snap.Pending[i].Intent})
	}
	return lock
}

// An apply of many objects asks a server, and pushes to a repository, no more often
// than one of a few. Killed in the middle, the next one goes on from what is there.
func TestApplyFarAway(t *testing.T) {
	keys := ageKeys(t)
	define := func(groups int) string {
		var b strings.Builder
		b.WriteString(threeNodes)
		for i := range groups {
			fmt.Fprintf(&b, "group \"g%d\" {\n  resource \"generic_application\" \"app\" { command = [\"true\"] }\n}\n", i)
		}
		return b.String()
	}
	// run is an apply as the command line does it; dies: at that call.
	run := func(l *lab, store statefile.Store, src string, dies int) {
		t.Helper()
		lock := l.takes(store)
		def := l.load(src)
		calls := 0
		l.world.FailAfter = func(plannertest.Call) error {
			if calls++; dies > 0 && calls >= dies {
				l.journal.dead.Store(true)
				return errKilled
			}
			return nil
		}
		l.ahead = true
		l.conf = func(c *apply.Config) {
			c.Linger = time.Hour
			c.Journal = journalFunc(func(entries ...statefile.Entry) error {
				if l.journal.dead.Load() {
					return errKilled
				}
				return lock.Append(entries...)
			})
		}
		res, _, err := l.apply(def, "")
		if l.journal.dead.Load() {
			_, err := store.ForceUnlock(t.Context(), lock.Info().ID)
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		if err != nil || !res.Whole || len(res.Failed) > 0 {
			t.Fatalf("%v: %+v", err, res)
		}
		if err := lock.Finish(res.State); err != nil {
			t.Fatal(err)
		}
		if err := lock.Release(); err != nil {
			t.Fatal(err)
		}
		snap, err := store.Read(t.Context())
		if err != nil || len(snap.Pending) > 0 || snap.Unfinished > 0 {
			t.Fatal(err, snap)
		}
		if l.state, l.journal = snap.State, (journal{}); len(l.world.Groups) != strings.Count(src, "group ") {
			t.Errorf("%d groups", len(l.world.Groups))
		}
		l.settled(def)
	}
	web := func(t *testing.T) (statefile.Store, func() string) { return webStore(t, keys) }
	git := func(t *testing.T) (statefile.Store, func() string) { return gitStore(t, keys) }
	for _, c := range []struct {
		name, first, later string
		dies               []int
		open               func(*testing.T) (statefile.Store, func() string)
	}{
		// Intents, what each of five steps waits for, and the end: 7 writes. Groups alone
		// are intents and the end. Reads: under the lock twice, before the first write
		// and the last, and one of this test's.
		{"http", "LOCK 1, GET 5, POST 7, UNLOCK 1", "LOCK 2, GET 10, POST 9, UNLOCK 2", []int{3, 9, 20}, web},
		{"git", "9 commits", "13 commits", []int{9}, git}, // with those of the lock
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range []int{4, 50} {
				l := newLab(t)
				store, asked := c.open(t)
				run(l, store, define(n), 0)
				if got := asked(); got != c.first {
					t.Errorf("%d groups: %s, want %s", n, got, c.first)
				}
				run(l, store, strings.ReplaceAll(define(n), `"true"`, `"false"`), 0)
				if got := asked(); got != c.later {
					t.Errorf("%d groups, changed: %s, want %s", n, got, c.later)
				}
			}
			for _, dies := range c.dies {
				l := newLab(t)
				store, _ := c.open(t)
				run(l, store, define(25), dies)
				run(l, store, define(25), 0)
			}
		})
	}
}
