package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	app "github.com/clusterplan/clusterplan/client"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/runtime/agent"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// served serves h to callers of a role; an application's is the role's group.
func served(t *testing.T, h http.Handler, role, group string) *app.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if role == client.RoleApplication {
			r = r.WithContext(agent.WithLocalGroup(r.Context(), group, "uid 7"))
		} else {
			cert := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: "ann", OrganizationalUnit: []string{role}}}
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	c, err := app.New(app.Config{URL: srv.URL, HTTP: srv.Client(), Group: "web", Epoch: 1, Patience: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// owned is a formed cluster whose group web n1 owns under epoch 1, beside a
// second group, db.
func owned(t *testing.T) (*fake, http.Handler) {
	t.Helper()
	f, h := formed(t)
	db := testGroup()
	db.ID, db.Name, db.Addr, db.Resources = "g2", "db", addr.Group("db", addr.Key{}), nil
	if code, text := ask(t, h, client.RoleAdmin, "PUT", client.PathGroups+"/g2", db); code != 200 {
		t.Fatal(code, text)
	}
	assign(t, f, "id1")
	return f, h
}

func assign(t *testing.T, f *fake, node string) {
	t.Helper()
	f.mu.Lock()
	from := f.state.Groups["g1"].Owner.Epoch
	f.mu.Unlock()
	if r, _ := f.Submit(t.Context(), confdb.Command{ID: fmt.Sprint("assign-", from), Assign: &confdb.Assign{Group: "g1", From: from, Node: node}}); r.Code != "" {
		t.Fatal(r)
	}
}

func TestKeysByTheGoClient(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	ctx := t.Context()
	ops := served(t, h, client.RoleOperator, "")
	mine := served(t, h, client.RoleApplication, "g1")
	reader := served(t, h, client.RoleReader, "")
	web, all := mine.Group(""), ops.Cluster()

	if _, err := web.Get(ctx, "starts"); !errors.Is(err, app.ErrNotFound) {
		t.Errorf("a key that is not there: %v", err)
	}
	first, err := web.Create(ctx, "starts", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := web.Create(ctx, "starts", nil); !errors.Is(err, app.ErrChanged) {
		t.Errorf("created twice: %v", err)
	}
	second, err := web.CAS(ctx, "starts", []byte("2"), first)
	if err != nil || second <= first {
		t.Errorf("compare and swap: %d after %d, %v", second, first, err)
	}
	if _, err := web.CAS(ctx, "starts", []byte("3"), first); !errors.Is(err, app.ErrChanged) {
		t.Errorf("compare and swap with an old revision: %v", err)
	}
	if err := web.DeleteIf(ctx, "starts", first); !errors.Is(err, app.ErrChanged) {
		t.Errorf("delete with an old revision: %v", err)
	}
	if e, err := web.Get(ctx, "starts"); err != nil || string(e.Value) != "2" || e.Revision != second {
		t.Errorf("got %+v, %v", e, err)
	}
	e, err := web.Update(ctx, "starts", func(e app.Entry) ([]byte, error) { return append(e.Value, '0'), nil })
	if err != nil || string(e.Value) != "20" {
		t.Errorf("update: %+v, %v", e, err)
	}
	for _, odd := range []string{"a/b", "..", "./x", "ü & ?%#", strings.Repeat("k", confdb.MaxKey)} {
		want := []byte{0, 0xff, '\n'}
		if _, err := web.Put(ctx, odd, want); err != nil {
			t.Errorf("put %q: %v", odd, err)
		}
		if e, err := web.Stale().Get(ctx, odd); err != nil || !bytes.Equal(e.Value, want) {
			t.Errorf("get %q: %+v, %v", odd, e, err)
		}
		if err := web.Delete(ctx, odd); err != nil {
			t.Errorf("delete %q: %v", odd, err)
		}
	}
	for _, odd := range []string{"", "a\nb", strings.Repeat("k", confdb.MaxKey+1), "\xff"} {
		if _, err := web.Put(ctx, odd, nil); err == nil {
			t.Errorf("put %q was not refused", odd)
		}
	}
	if _, err := web.Put(ctx, "large", make([]byte, confdb.MaxValue)); err != nil {
		t.Errorf("the largest value: %v", err)
	}
	if _, err := web.Put(ctx, "large", make([]byte, confdb.MaxValue+1)); !errors.Is(err, app.ErrLimit) {
		t.Errorf("a larger value: %v", err)
	}

	// Epochs.
	if _, err := web.Fenced(1).Put(ctx, "owner", []byte("n1")); err != nil {
		t.Errorf("as the owner: %v", err)
	}
	assign(t, f, "id2")
	if _, err := web.Fenced(1).Put(ctx, "owner", []byte("n1")); !errors.Is(err, app.ErrFenced) {
		t.Errorf("as an owner that was: %v", err)
	}
	if _, err := all.Fenced(1).Put(ctx, "owner", nil); err == nil {
		t.Error("an epoch for the cluster's keys was taken")
	}

	// Who may.
	var refused *app.Error
	for name, err := range map[string]error{
		"another group's keys":        first2(mine.Group("db").Get(ctx, "x")),
		"another group's keys, write": first2(mine.Group("db").Put(ctx, "x", nil)),
		"the cluster's keys, write":   first2(mine.Cluster().Put(ctx, "x", nil)),
		"a reader that writes":        first2(reader.Group("web").Put(ctx, "x", nil)),
	} {
		if !errors.As(err, &refused) || refused.Status != 403 || refused.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := all.Put(ctx, "shared", []byte("s")); err != nil {
		t.Error(err)
	}
	if e, err := mine.Cluster().Get(ctx, "shared"); err != nil || string(e.Value) != "s" {
		t.Errorf("the cluster's keys, read by an application: %+v, %v", e, err)
	}

	// Lists, in pieces.
	for i := range 1005 {
		f.state.Apply(confdb.Command{ID: fmt.Sprint("list", i), KV: &confdb.KVWrite{Space: "g2", Key: fmt.Sprintf("l/%04d", i)}})
	}
	list, revision, err := ops.Group("db").List(ctx, "l/")
	if err != nil || len(list) != 1005 || revision == 0 || !slices.IsSortedFunc(list, func(a, b app.Entry) int { return strings.Compare(a.Key, b.Key) }) {
		t.Errorf("a long list: %d entries, %v", len(list), err)
	}
}

func first2[T any](_ T, err error) error { return err }

func TestReadsAreFreshUnlessStale(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	ops := served(t, h, client.RoleOperator, "")
	if _, err := ops.Cluster().Put(t.Context(), "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	f.submit = func(confdb.Command) (confdb.Result, error) { return confdb.Result{Code: "no_leader"}, nil }
	if e, err := ops.Cluster().Stale().Get(t.Context(), "k"); err != nil || string(e.Value) != "v" {
		t.Errorf("stale: %+v, %v", e, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := ops.Cluster().Get(ctx, "k"); !errors.Is(err, app.ErrNoQuorum) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("fresh, without quorum: %v", err)
	}
}

// Reads that come together share barriers, and no read is answered by one that
// was under way before it came.
func TestBarriersAreShared(t *testing.T) {
	t.Parallel()
	f, _ := owned(t)
	s := &server{b: f}
	var n int
	gate := make(chan struct{})
	started := make(chan struct{}, 100)
	f.submit = func(c confdb.Command) (confdb.Result, error) {
		n++
		f.mu.Unlock()
		started <- struct{}{}
		<-gate
		f.mu.Lock()
		return f.state.Apply(c), nil
	}
	var wg sync.WaitGroup
	read := func() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := s.wait(context.Background()); err != nil {
				t.Error(err)
			}
		}()
	}
	read()
	<-started
	for range 50 {
		read()
	}
	for i := 0; ; i++ { // until all 50 wait for the next round
		s.barrier.mu.Lock()
		next := s.barrier.next
		s.barrier.mu.Unlock()
		if next != nil {
			break
		}
		if i > 2000 {
			t.Fatal("nobody waits for the next round")
		}
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wg.Wait()
	if n < 2 || n > 51 {
		t.Errorf("%d barriers for 51 reads", n)
	}
}

// Without a quorum a write that was on its way may still be done once there is
// one: that is another error than one that says that nothing was written.
func TestNoQuorumOrUnknown(t *testing.T) {
	t.Parallel()
	stuck, refused := "stuck", "refused"
	for _, tc := range []struct {
		name    string
		answers []string // the last for all that follow
		unknown bool
	}{
		{"never sent", []string{refused}, false},
		{"sent, then the quorum was lost", []string{stuck}, true},
		{"sent once, then not", []string{stuck, refused}, true},
		{"the agent stopped in between", []string{"stopping", refused}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, h := owned(t)
			ops := served(t, h, client.RoleOperator, "")
			f.mu.Lock()
			f.status.Quorum = false
			n := 0
			f.submit = func(confdb.Command) (confdb.Result, error) {
				answer := tc.answers[min(n, len(tc.answers)-1)]
				n++
				switch answer {
				case stuck:
					return confdb.Result{}, context.DeadlineExceeded
				case refused:
					return confdb.Result{Code: "no_leader"}, nil
				}
				return confdb.Result{}, agent.ErrStopping
			}
			f.mu.Unlock()
			_, err := ops.Cluster().Put(t.Context(), "k", nil)
			if errors.Is(err, app.ErrUnknown) != tc.unknown || errors.Is(err, app.ErrNoQuorum) == tc.unknown {
				t.Errorf("%v: unknown %t, no quorum %t", err, errors.Is(err, app.ErrUnknown), errors.Is(err, app.ErrNoQuorum))
			}
		})
	}
}

// A program that was silent for thousands of updates writes as ever; only a second
// try that comes so late is refused.
func TestWritesAfterALongSilence(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	all := served(t, h, client.RoleOperator, "").Cluster()
	if _, err := all.Put(t.Context(), "k", []byte("1")); err != nil {
		t.Fatal(err)
	}
	n := 0
	pass := func() { // f.mu is held, or nobody else is there
		for range 5001 {
			n++
			f.state.Apply(confdb.Command{ID: fmt.Sprint("pass", n), Event: &confdb.Event{Kind: "note", Text: "x"}})
		}
	}
	pass()
	if _, err := all.Put(t.Context(), "k", []byte("2")); err != nil {
		t.Errorf("a first try: %v", err)
	}
	tries := 0
	f.mu.Lock()
	f.submit = func(c confdb.Command) (confdb.Result, error) {
		r := f.state.Apply(c)
		if tries++; tries == 1 {
			f.state.Apply(confdb.Command{ID: "other", KV: &confdb.KVWrite{Key: "k", Value: []byte("newer")}})
			pass()
			return confdb.Result{Code: "unknown", Detail: "it was not seen committed in time"}, nil
		}
		return r, nil
	}
	f.mu.Unlock()
	if _, err := all.Put(t.Context(), "k", []byte("3")); !errors.Is(err, app.ErrUnknown) {
		t.Errorf("a second try, late: %v", err)
	}
	if e, _ := f.state.KV.Lookup("", "k"); string(e.Value) != "newer" {
		t.Errorf("the late try brought %q back", e.Value)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	ops := served(t, h, client.RoleOperator, "")
	db := ops.Group("db")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	put := func(id, space, key, value string) uint64 {
		r, err := f.Submit(ctx, confdb.Command{ID: id, KV: &confdb.KVWrite{Space: space, Key: key, Value: []byte(value), Delete: value == ""}})
		if err != nil || r.Code != "" {
			t.Error(r, err)
		}
		return r.Revision
	}
	since := put("1", "g2", "a/1", "before")
	got := make(chan app.Entry, 100)
	ended := make(chan error, 1)
	go func() { ended <- db.Watch(ctx, "a/", since, func(e app.Entry) { got <- e }) }()
	put("2", "g2", "b/1", "other prefix")
	put("3", "g1", "a/1", "other space")
	put("4", "g2", "a/1", "one")
	put("5", "g2", "a/2", "two")
	last := put("6", "g2", "a/1", "")
	seen := map[string]app.Entry{}
	for len(seen) < 2 || !seen["a/1"].Deleted {
		select {
		case e := <-got:
			seen[e.Key] = e
		case <-time.After(20 * time.Second):
			t.Fatalf("seen only %+v", seen)
		}
	}
	if string(seen["a/2"].Value) != "two" || seen["a/1"].Revision != last || len(seen) != 2 {
		t.Errorf("seen %+v", seen)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	for i := range 1100 {
		put(fmt.Sprint("w", i), "g1", "x", "y")
	}
	ctx = t.Context()
	if err := db.Watch(ctx, "", since, func(app.Entry) {}); !errors.Is(err, app.ErrGone) {
		t.Errorf("from a revision that is forgotten: %v", err)
	}
}

// A checkpoint's files are restored by root, with the owner and mode that it
// says, and its chunks may be of files that only root reads: a resource's user
// may neither write one nor read its bytes.
func TestOnlyTheMonitorWritesCheckpoints(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	data := []byte("#!/bin/sh\n")
	hash := confdb.ChunkHash(data)
	f.mu.Lock()
	resource := f.state.Groups["g1"].Spec.Resources[0].Name
	f.mu.Unlock()
	files := fmt.Sprintf(`{"files":[{"path":"/srv/x","mode":2541,"uid":0,"size":%d,"chunks":[%q]}]}`, len(data), hash)
	at := client.PathCheckpoints + "/web/" + resource
	for _, who := range []struct {
		name  string
		mark  func(context.Context) context.Context
		codes [3]int // of the chunk, the checkpoint, and the chunk read back
	}{
		{"the resource's user", func(ctx context.Context) context.Context { return agent.WithLocalGroup(ctx, "g1", "uid 7") }, [3]int{403, 403, 403}},
		{"another group's monitor", func(ctx context.Context) context.Context {
			return agent.WithLocalMonitor(agent.WithLocalGroup(ctx, "g2", "root"))
		}, [3]int{403, 403, 403}},
		{"the monitor", func(ctx context.Context) context.Context {
			return agent.WithLocalMonitor(agent.WithLocalGroup(ctx, "g1", "root"))
		}, [3]int{200, 200, 200}},
		{"the resource's user, later", func(ctx context.Context) context.Context { return agent.WithLocalGroup(ctx, "g1", "uid 7") }, [3]int{403, 403, 403}},
	} {
		for i, r := range []*http.Request{
			httptest.NewRequest("POST", at+"/chunks", bytes.NewReader(data)),
			httptest.NewRequest("PUT", at, strings.NewReader(files)),
			httptest.NewRequest("GET", at+"/chunks/"+hash, nil),
		} {
			r.Header.Set(client.HeaderEpoch, "1")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r.WithContext(who.mark(r.Context())))
			if w.Code != who.codes[i] {
				t.Errorf("%s: %s %s: %d, want %d: %s", who.name, r.Method, r.URL, w.Code, who.codes[i], w.Body)
			}
		}
	}
}

// The programs of two groups may choose the same id for a write; each is done, once.
func TestCommandIDsAreAGroupsOwn(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	put := func(group, name, id, value string) int {
		r := httptest.NewRequest("PUT", client.PathKV+"/group/"+name+"/k", strings.NewReader(value))
		r.Header.Set(client.HeaderCommand, id)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(agent.WithLocalGroup(r.Context(), group, "uid 7")))
		return w.Code
	}
	if a, b, again := put("g1", "web", "write-1", "web's"), put("g2", "db", "write-1", "db's"), put("g1", "web", "write-1", "no"); a != 200 || b != 200 || again != 200 {
		t.Fatal(a, b, again)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for space, want := range map[string]string{"g1": "web's", "g2": "db's"} {
		if e, _ := f.state.KV.Lookup(space, "k"); string(e.Value) != want {
			t.Errorf("group %s has %q, want %q", space, e.Value, want)
		}
	}
	f.mu.Unlock()
	for _, id := range []string{strings.Repeat("x", 257), "a\x01b"} {
		if code := put("g1", "web", id, "x"); code != 400 {
			t.Errorf("id %q: %d", id, code)
		}
	}
	f.mu.Lock()
}

func TestOwnersAndGuards(t *testing.T) {
	t.Parallel()
	f, h := owned(t)
	f.status.LeaseEnd = 1 << 62
	c := served(t, h, client.RoleApplication, "g1")
	self, err := c.Self(t.Context())
	if err != nil || self.Node != "n1" || self.Group != "web" {
		t.Errorf("self: %+v, %v", self, err)
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 2 {
		t.Errorf("members: %+v, %v", members, err)
	}
	g, err := c.Guard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Check(t.Context()); err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	f.status.LeaseEnd = 1
	f.mu.Unlock()
	if err := g.Check(t.Context()); !errors.Is(err, app.ErrFenced) {
		t.Errorf("without a lease: %v", err)
	}
	select {
	case <-g.Lost():
		t.Fatal(g.Err())
	default:
	}
	assign(t, f, "id2")
	select {
	case <-g.Lost():
	case <-time.After(20 * time.Second):
		t.Fatal("the guard saw nothing")
	}
	if err := g.Err(); !errors.Is(err, app.ErrFenced) || !strings.Contains(err.Error(), "epoch 2") {
		t.Error(err)
	}
	_ = f.Read(t.Context(), func(*confdb.State, member.Status) {})
}
