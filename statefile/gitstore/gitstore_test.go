package gitstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/clusterplan/clusterplan/internal/gittest"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/remote"
)

func do(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func take(t testing.TB, s *Store) *Lock {
	t.Helper()
	l, err := s.take(context.Background(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	do(t, err)
	return l
}

// known is what the state says: objects, then what is pending with a question mark.
func known(t testing.TB, s *Store) string {
	t.Helper()
	snap, err := s.Read(context.Background())
	do(t, err)
	var b strings.Builder
	for _, o := range snap.State.Objects {
		b.WriteString(o.Addr.Name + " ")
	}
	for _, p := range snap.Pending {
		b.WriteString(p.Addr.Name + "? ")
	}
	return strings.TrimSpace(b.String())
}

// TestRun is a run from the first push to the last, and one that is killed in
// between: the next knows what it did, and what it had begun. A clone reads what the
// other wrote; git's own program finds the repository whole, with nothing in plain.
func TestRun(t *testing.T) {
	srv, k := serve(t), keys(t)
	s, other := srv.open(t, k), srv.open(t, k)
	if got := known(t, s); got != "" {
		t.Fatal(got)
	}
	l := take(t, s)
	do(t, l.Append(begin("r1")), l.Append(intent("a"), intent("b")), l.Append(made("a")))
	if got := known(t, other); got != "a b?" {
		t.Fatal(got)
	}
	// l's process dies here. Its lock stays, and is not taken over.
	var locked *statefile.LockedError
	if _, err := other.Lock(t.Context(), statefile.LockRequest{}); !errors.As(err, &locked) || locked.Holder != l.Info() || !strings.Contains(err.Error(), "ann@host") {
		t.Fatal(err)
	}
	if _, err := other.ForceUnlock(t.Context(), "other"); !errors.Is(err, statefile.ErrNoLock) || !strings.Contains(err.Error(), l.Info().ID) {
		t.Fatal(err)
	}
	if h, err := other.ForceUnlock(t.Context(), l.Info().ID); err != nil || h.Who != "ann@host" {
		t.Fatal(h, err)
	}
	if _, err := other.ForceUnlock(t.Context(), l.Info().ID); !errors.Is(err, statefile.ErrNoLock) {
		t.Fatal(err)
	}
	l2 := take(t, other)
	if l2.Info().Generation != l.Info().Generation+1 {
		t.Error(l2.Info())
	}
	// The first wakes up: it can't write, and is told why.
	if err := l.Append(made("x")); !errors.Is(err, statefile.ErrLockLost) || !strings.Contains(err.Error(), l2.Info().ID) || l.Why() == nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
	default:
		t.Error("not told")
	}
	do(t, l.Release(), l2.Append(begin("r2"), made("b")))
	snap, err := l2.Read(t.Context())
	do(t, err, l2.Finish(snap.State))
	if backup, err := l2.Keep(t.Context()); err != nil || backup == "" {
		t.Error(err)
	}
	_, err = l2.Reseal(true)
	do(t, err, l2.Release(), l2.Release())
	snap, err = s.Read(t.Context())
	do(t, err)
	if got := known(t, s); got != "a b" || snap.Unfinished != 0 || snap.State.Serial != 1 {
		t.Fatal(got, snap)
	}
	gittest.Git(t, srv.dir, "fsck", "--strict")
	if got := gittest.Git(t, srv.dir, "ls-tree", "-r", "--name-only", ref); got != "clusterplan.json\nstate" {
		t.Error(got)
	}
	for _, commit := range strings.Fields(gittest.Git(t, srv.dir, "rev-list", ref)) {
		for _, name := range strings.Fields(gittest.Git(t, srv.dir, "ls-tree", "-r", "--name-only", commit)) {
			if text := gittest.Git(t, srv.dir, "show", commit+":"+name); strings.Contains(text, "very-secret") || strings.Contains(text, password) {
				t.Errorf("%s of %s is in plain", name, commit)
			}
		}
	}
	if got := gittest.Git(t, srv.dir, "rev-list", "--merges", ref); got != "" {
		t.Error(got)
	}
	// One commit was put back outside: the next run goes on from it.
	gittest.Git(t, srv.dir, "update-ref", ref, ref+"~8")
	if l, err := s.Lock(t.Context(), statefile.LockRequest{}); err == nil {
		do(t, l.Release())
	} else if !errors.Is(err, statefile.ErrLocked) {
		t.Error(err)
	}
}

// TestTwoAtOnce: of many that lock at once one does, and each other is told who. All
// wait, and do in turn what they wanted: nothing of it is lost.
func TestTwoAtOnce(t *testing.T) {
	srv, k := serve(t), keys(t)
	var wg sync.WaitGroup
	var holders atomic.Int32
	for _, name := range []string{"a", "b", "c"} {
		s := srv.open(t, k)
		s.opts.pause = func(ctx context.Context, _ time.Duration) error { time.Sleep(20 * time.Millisecond); return ctx.Err() }
		wg.Go(func() {
			var told *statefile.LockedError
			for {
				l, err := s.take(t.Context(), statefile.LockRequest{Who: name, What: "apply"})
				if errors.As(err, &told) {
					if told.Holder.Who == "" || told.Holder.Who == name {
						t.Errorf("%s is told of %+v", name, told.Holder)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				err = errors.Join(l.Append(begin(name)), l.Append(made(name)))
				snap, failed := l.Read(t.Context())
				if err = errors.Join(err, failed); err == nil {
					err = l.Finish(snap.State)
				}
				holders.Add(-1)
				if err = errors.Join(err, l.Release()); err != nil {
					t.Error(err)
				}
				return
			}
		})
	}
	wg.Wait()
	if got := known(t, srv.open(t, k)); got != "a b c" {
		t.Error(got)
	}
}

// runAll is a run of an object. sure is what it was told is durable.
func runAll(s *Store) (sure []string, err error) {
	l, err := s.take(context.Background(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	if err := l.Append(begin("r"), intent("a")); err != nil {
		return sure, err
	}
	sure = append(sure, "a")
	if err := l.Append(made("a")); err != nil {
		return sure, err
	}
	snap, err := l.Read(context.Background())
	if err != nil {
		return sure, err
	}
	return sure, l.Finish(snap.State)
}

// TestFaults has every second request of a kind fail in each way, and each for good
// from the n-th on. What
// Append or Finish said is durable is there afterwards; where the fault passes the
// run comes to its end; what stays locked the error tells how to unlock.
func TestFaults(t *testing.T) {
	k := keys(t)
	for _, c := range []struct {
		kind   string
		faults []fault
		most   int
	}{
		{greetRead, []fault{refuse, cut, half}, 2}, {doRead, []fault{refuse, cut, half}, 1}, {greetWrite, []fault{cut, half}, 2},
		{doWrite, []fault{refuse, half, confused}, 1}, {doWrite, []fault{cut, lost, delayed}, 5},
	} {
		for _, f := range c.faults {
			for n := range c.most + 1 {
				t.Run(fmt.Sprintf("%s/%d/%d", c.kind, f, n), func(t *testing.T) {
					t.Parallel()
					srv := serve(t)
					s := srv.open(t, k)
					if c.kind == doRead { // there is something to read
						l := take(t, srv.open(t, k))
						do(t, l.Release())
					}
					srv.set(func(kind string, i int) fault {
						if kind == c.kind && (n == 0 && i%2 == 1 || n > 0 && i >= n) {
							return f
						}
						return sound
					})
					sure, failed := runAll(s)
					srv.set(nil)
					if n == 0 && failed != nil {
						t.Fatalf("a fault that passed ended the run: %v", failed)
					}
					if failed != nil && !strings.Contains(failed.Error(), srv.URL) {
						t.Errorf("the error does not say where: %v", failed)
					}
					for _, late := range srv.late { // whatever was on its way
						late()
					}
					after := srv.open(t, k)
					now, err := after.get(t.Context())
					do(t, err)
					have := " " + known(t, after) + " "
					for _, name := range sure {
						if !strings.Contains(have, " "+name) {
							t.Errorf("%s was durable, and is not in %q (%v)", name, have, failed)
						}
					}
					if failed == nil && (have != " a " || now.lock != nil) {
						t.Error(have, now.lock)
					}
					if now.lock != nil {
						if failed == nil || !strings.Contains(failed.Error(), "force-unlock "+now.lock.ID) {
							t.Errorf("the error does not say how to unlock: %v", failed)
						}
						_, err := after.ForceUnlock(t.Context(), now.lock.ID)
						do(t, err)
					}
					do(t, take(t, after).Release())
				})
			}
		}
	}
}

// TestGivenUp: a server that does not answer is waited for no longer than somebody
// wants to, nor than the store's patience; what may be locked is given back.
func TestGivenUp(t *testing.T) {
	k := keys(t)
	for _, kind := range []string{greetRead, doRead, greetWrite, doWrite} {
		srv := serve(t)
		s := srv.open(t, k)
		if kind == doRead {
			do(t, take(t, srv.open(t, k)).Release())
		}
		ctx, cancel := context.WithCancel(t.Context())
		srv.set(func(k string, n int) fault {
			if k != kind || n > 1 {
				return sound
			}
			cancel()
			return hang
		})
		if _, err := s.Lock(ctx, statefile.LockRequest{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", kind, err)
		}
		if now, err := srv.open(t, k).get(t.Context()); err != nil || now.lock != nil {
			t.Errorf("%s: it stays locked, or: %v", kind, err)
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	do(t, err)
	defer silent.Close()
	gittest.Home(t, "", "")
	for _, url := range []string{"http://" + silent.Addr().String() + "/x.git", "ssh://git@" + silent.Addr().String() + "/x.git"} {
		set := Settings{Repository: url, Ref: ref}
		if strings.HasPrefix(url, "ssh") {
			_, set.KeyFile = writeKey(t)
		}
		s := openAt(t, set, k)
		s.opts.patience = 50 * time.Millisecond
		if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer within 50ms") {
			t.Error(err)
		}
	}
}

// TestDamaged: what the ref has and clusterplan did not push, or not so, is refused
// and left alone; so are wrong passwords, told by what to do about them.
func TestDamaged(t *testing.T) {
	srv, k := serve(t), keys(t)
	s := srv.open(t, k)
	l := take(t, s)
	do(t, l.Append(begin("r"), made("a")), l.Release())
	whole := gittest.Git(t, srv.dir, "rev-parse", ref)
	work := filepath.Join(t.TempDir(), "work")
	push := func(change func()) string {
		gittest.Git(t, srv.dir, "update-ref", ref, whole)
		os.RemoveAll(work)
		gittest.Git(t, srv.dir, "worktree", "prune")
		gittest.Git(t, srv.dir, "worktree", "add", "-q", "--detach", work, whole)
		change()
		gittest.Git(t, work, "add", "-A")
		gittest.Git(t, work, "-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x")
		gittest.Git(t, work, "update-ref", ref, "HEAD")
		return gittest.Git(t, work, "rev-parse", "HEAD")
	}
	write := func(name, text string) { do(t, os.WriteFile(filepath.Join(work, name), []byte(text), 0o600)) }
	for name, c := range map[string]struct {
		change func()
		want   error
	}{
		"foreign":   {func() { do(t, os.Remove(work+"/clusterplan.json")) }, statefile.ErrDamaged},
		"newer":     {func() { write("clusterplan.json", `{"clusterplan_state": 2}`) }, statefile.ErrNewer},
		"lineage":   {func() { write("clusterplan.json", `{"clusterplan_state": 1, "lineage": "x"}`) }, statefile.ErrLineage},
		"plain":     {func() { write("state", `{}`) }, statefile.ErrDamaged},
		"journal":   {func() { write("journal/000001", "x") }, statefile.ErrDamaged},
		"a piece":   {func() { do(t, os.Rename(work+"/journal/000001", work+"/journal/000002")) }, statefile.ErrDamaged},
		"bad lock":  {func() { write("lock", `[]`) }, statefile.ErrDamaged},
		"no change": {func() {}, statefile.ErrSealed},
	} {
		commit := push(c.change)
		s := srv.open(t, k)
		if name == "no change" { // somebody else's keys
			s = srv.open(t, keys(t))
		}
		if _, err := s.Read(t.Context()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), s.Path()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.Lock(t.Context(), statefile.LockRequest{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if now := gittest.Git(t, srv.dir, "rev-parse", ref); now != commit {
			t.Errorf("%s: something was changed", name)
		}
	}
	s = srv.open(t, k)
	s.set.Password = "hush"
	if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "CLUSTERPLAN_GIT_PASSWORD") || strings.Contains(err.Error(), "hush") {
		t.Error(err)
	}
	// A server that takes no push there says so, and nothing stays locked.
	hook := "#!/bin/sh\nexit 1\n"
	gittest.Git(t, srv.dir, "update-ref", ref, whole)
	do(t, os.WriteFile(filepath.Join(srv.dir, "hooks/pre-receive"), []byte(hook), 0o700))
	if _, err := srv.open(t, k).Lock(t.Context(), statefile.LockRequest{}); err == nil || !strings.Contains(err.Error(), "hook declined") {
		t.Error(err)
	}
}

// A server that lost an object: what the commit names is not there, which is not as
// if it did not name it. It would be nobody's lock, or a journal without its end.
func TestLostObjects(t *testing.T) {
	image := &remote.Image{Lineage: "a", State: []byte("state"), Journal: []byte("one")}
	first, err := new(tip).next(image, nil, "ann", "first")
	do(t, err)
	grown := *image
	grown.Journal = []byte("one, two")
	c, err := first.to.next(&grown, &statefile.LockInfo{ID: "l"}, "ann", "second")
	do(t, err)
	all := memory.NewStorage()
	for _, pack := range [][]byte{first.pack, c.pack} {
		do(t, packfile.UpdateObjectStorage(all, bytes.NewReader(pack)))
	}
	whole, err := readTip(all, c.to.commit)
	do(t, err)
	if whole.lock == nil || string(whole.image.Journal) != "one, two" || string(whole.image.State) != "state" {
		t.Fatalf("%+v", whole)
	}
	tree, err := object.GetCommit(all, c.to.commit)
	do(t, err)
	root, err := tree.Tree()
	do(t, err)
	needed := map[plumbing.Hash]bool{root.Hash: true}
	entries := object.NewTreeWalker(root, true, nil)
	defer entries.Close()
	for {
		_, e, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		do(t, err)
		needed[e.Hash] = true
	}
	if len(needed) != 7 {
		t.Fatal(needed)
	}
	for gone := range needed {
		some := memory.NewStorage()
		for h, o := range all.Objects {
			if h != gone {
				_, err := some.SetEncodedObject(o)
				do(t, err)
			}
		}
		if got, err := readTip(some, c.to.commit); !errors.Is(err, statefile.ErrDamaged) {
			t.Errorf("without %s: %v, %+v", gone, err, got)
		}
	}
}

// TestSSH is a run over OpenSSH's server, with cut connections at each step, and what
// an unknown host, a wrong key and no repository are told.
func TestSSH(t *testing.T) {
	sshd := gittest.ServeSSH(t)
	dir, k := gittest.Bare(t, "shop"), keys(t)
	front := &relay{to: sshd.Address()}
	url := front.listen(t, "ssh://root@%s"+dir)
	hosts := sshd.Known + strings.Replace(sshd.Known, sshd.Address()[len("127.0.0.1:"):], front.port, 1)
	gittest.Home(t, hosts, sshd.Key)
	open := func(url, key string) *Store {
		set, err := Parse(map[string]string{"repository": url, "ref": ref, "ssh_key": key}, func(string) string { return "" }, nil)
		do(t, err)
		return openAt(t, set, k)
	}
	s := open(url, "")
	if sure, err := runAll(s); err != nil || len(sure) == 0 || known(t, s) != "a" {
		t.Fatal(sure, err)
	}
	// One connection of three breaks, after so many bytes of the server's: in the
	// greeting, in git's, in what follows.
	for first := range int32(3) {
		front.seen.Store(0)
		front.cuts(func(n int32) int64 {
			if n%3 != first {
				return 1 << 40
			}
			return []int64{40, 2200, 3300}[n/3%3]
		})
		if _, err := runAll(open(url, "")); err != nil {
			t.Errorf("%d: %v", first, err)
		}
	}
	front.cuts(nil)
	if now, err := s.get(t.Context()); err != nil || now.lock != nil || known(t, s) != "a" {
		t.Error(err, now)
	}
	gittest.Git(t, dir, "fsck", "--strict")

	tell := func(s *Store, want string) {
		t.Helper()
		if _, err := s.Read(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Error(err)
		}
	}
	tell(open(sshd.URL(dir+"x"), sshd.Key), "there is no repository")
	_, stranger := writeKey(t)
	tell(open(url, stranger), "refuses access")
	gittest.Home(t, "", sshd.Key)
	tell(open(url, ""), "known_hosts")
	gittest.Home(t, strings.ReplaceAll(hosts, hosts[strings.LastIndex(strings.TrimSpace(hosts), " ")+1:], otherKey(t)), sshd.Key)
	tell(open(url, ""), "known_hosts")
}

// relay passes connections on, and cuts them.
type relay struct {
	to, port string
	seen     atomic.Int32
	cut      atomic.Pointer[func(n int32) int64] // bytes of the server's that the n-th passes; nil: all
}

func (r *relay) cuts(f func(n int32) int64) {
	if f == nil {
		r.cut.Store(nil)
		return
	}
	r.cut.Store(&f)
}

func (r *relay) listen(t *testing.T, url string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	do(t, err)
	t.Cleanup(func() { l.Close() })
	_, r.port, _ = net.SplitHostPort(l.Addr().String())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, most := r.seen.Add(1), int64(1<<40)
			if cut := r.cut.Load(); cut != nil {
				most = (*cut)(n)
			}
			up, err := net.Dial("tcp", r.to)
			if err != nil {
				c.Close()
				continue
			}
			go func() { io.Copy(up, c); up.Close() }()
			go func() { io.CopyN(c, up, most); c.Close(); up.Close() }()
		}
	}()
	return fmt.Sprintf(url, l.Addr())
}

// TestSettings: what a definition or the environment may not say; a password in a URL
// is used, and told to nobody.
func TestSettings(t *testing.T) {
	none := func(string) string { return "" }
	own := func(name string) (string, error) {
		if name != "origin" {
			return "", fmt.Errorf("no remote %q", name)
		}
		return "https://ci:hush@example.com/shop.git/", nil
	}
	for want, given := range map[string]map[string]string{
		"no ref":                     {},
		"CLUSTERPLAN_GIT_REF":        {},
		`no remote "up"`:             {"ref": "shop", "remote": "up"},
		"is no name of a ref":        {"ref": "a..b"},
		"backend \"local\"'s":        {"ref": "shop", "repository": "/srv/x.git"},
		"not over file":              {"ref": "shop", "repository": "file:///srv/x.git"},
		"CLUSTERPLAN_GIT_PASSWORD":   {"ref": "shop", "password": "hush"},
		"a password in the URL":      {"ref": "shop", "repository": "https://ann:hush@h/x.git"},
		"over ssh a key is used":     {"ref": "shop", "repository": "ssh://ann@h/x.git", "remote": "x"},
		"names no repository":        {"ref": "shop", "repository": "https://h"},
		"is no URL of a host":        {"ref": "shop", "repository": "x"},
		"refs/clusterplan/state/a b": {"ref": "a b", "repository": "https://h/x.git"},
	} {
		env := none
		if want == "over ssh a key is used" {
			delete(given, "repository")
			env = func(name string) string {
				if name == "CLUSTERPLAN_GIT_REPOSITORY" {
					return "ssh://ann:hush@h/x.git"
				}
				return ""
			}
		}
		if _, err := Parse(given, env, own); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v: %v", given, err)
		}
	}
	set, err := Parse(map[string]string{"ref": "shop"}, none, own)
	if do(t, err); set.Password != "hush" || set.Username != "ci" || set.Address() != "https://example.com/shop.git refs/clusterplan/state/shop" {
		t.Errorf("%+v", set)
	}
	if _, err := Open(set, Options{}); err == nil || !strings.Contains(err.Error(), "encryption") {
		t.Error(err)
	}
}
