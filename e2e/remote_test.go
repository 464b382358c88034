package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile/httpstore/httpstoretest"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

// An apply whose state lies on a server is killed before what it has done was told
// there: once its agents run, and again once its cluster has formed. The next one
// finds all of it by what was intended, and makes nothing twice.
func TestKilledFarAway(t *testing.T) {
	l := newLab(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards these two
	var posts, dies int
	victim := make(chan *os.Process, 1)
	srv := httpstoretest.Serve(t, func(r *http.Request, _ int) int {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != "POST" {
			return 0
		}
		if posts++; posts != dies {
			return 0
		}
		_ = (<-victim).Kill()
		return http.StatusServiceUnavailable
	})
	key := filepath.Join(t.TempDir(), "key")
	for file, text := range map[string]string{
		key: id.String() + "\n",
		filepath.Join(l.dir, "state.cluster.hcl"): "clusterplan {\n  encryption {\n    recipients = [\"" + id.Recipient().String() + "\"]\n  }\n\n  backend \"http\" {\n    address      = \"" +
			srv.URL + "\"\n    lock_address = \"" + srv.URL + "\"\n  }\n}\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.env = append(l.env, seal.EnvIdentityFile+"="+key)
	l.must(0, "init")
	begin := func(at int) {
		mu.Lock()
		defer mu.Unlock()
		posts, dies = 0, at
	}
	written := func() int {
		mu.Lock()
		defer mu.Unlock()
		return posts
	}
	for _, at := range []int{2, 3} {
		begin(at)
		cmd, out, stderr := l.command(t.Context(), "apply", "--auto-approve")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		victim <- cmd.Process
		err := cmd.Wait()
		n := written()
		if err == nil || n != at {
			t.Fatalf("it was not killed at write %d of %d: %v\n%s%s", at, n, err, out, stderr)
		}
		if len(l.processes()) == 0 {
			t.Fatalf("nothing was done by write %d", at)
		}
		l.must(0, "force-unlock", "--force", srv.Holder("/"))
	}
	begin(0)
	l.apply()
	if n := written(); n > 12 {
		t.Errorf("it has written %d times", n)
	}
	l.up(3, 3)
	l.served("n1", "n2", "n3")
	l.settled()
	l.must(0, "destroy", "--auto-approve")
	if left := l.processes(); len(left) > 0 {
		t.Errorf("destroy leaves processes: %v", left)
	}
}
