package httpstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

func keysOf(t testing.TB, id *age.X25519Identity) *seal.Keys {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: file})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func at(name string) addr.Address { return addr.Address{Type: addr.TypeNode, Name: name} }

func object(name string) *statefile.Object {
	return &statefile.Object{Addr: at(name), Type: addr.TypeNode, Provider: "local", ID: "id-" + name, Attributes: []byte(`{"hidden":"very-secret"}`)}
}

func begin(run string) statefile.Entry {
	return statefile.Entry{Begin: &statefile.Begin{Run: run, Who: "ann@host"}}
}

func intent(name string) statefile.Entry {
	return statefile.Entry{Intent: &statefile.Intent{Addr: at(name), Action: "create", Object: object(name)}}
}

func made(name string) statefile.Entry {
	return statefile.Entry{Result: &statefile.Result{Addr: at(name), Object: object(name)}}
}

func take(t testing.TB, s *Store) *Lock {
	t.Helper()
	l, err := s.take(context.Background(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func do(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
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

// TestRun is a run from the first write to the last, and one that is killed in
// between: the next knows what it did, and what it had begun. The server sees none of it.
func TestRun(t *testing.T) {
	srv := serve(t)
	s := srv.open(t, keys(t))
	if got := known(t, s); got != "" {
		t.Fatal(got)
	}
	l := take(t, s)
	do(t, l.Append(begin("r1")), l.Append(intent("a"), intent("b")), l.Append(made("a")))
	if got := known(t, s); got != "a b?" {
		t.Fatal(got)
	}
	// l's process dies here. Its lock stays, and is not taken over.
	var locked *statefile.LockedError
	if _, err := s.Lock(t.Context(), statefile.LockRequest{}); !errors.As(err, &locked) || locked.Holder.ID != l.Info().ID || locked.Holder.Who != "ann@host" {
		t.Fatal(err)
	}
	if _, err := s.ForceUnlock(context.Background(), "other"); !errors.Is(err, statefile.ErrNoLock) || !strings.Contains(err.Error(), l.Info().ID) {
		t.Fatal(err)
	}
	if h, err := s.ForceUnlock(context.Background(), l.Info().ID); err != nil || h.Who != "ann@host" {
		t.Fatal(h, err)
	}
	if _, err := s.ForceUnlock(context.Background(), l.Info().ID); !errors.Is(err, statefile.ErrNoLock) {
		t.Fatal(err)
	}
	if srv.lock != nil {
		t.Fatal("a look at who holds the lock has left one")
	}
	l2 := take(t, s)
	if l2.Info().Generation != l.Info().Generation+1 {
		t.Error(l2.Info())
	}
	do(t, l2.Append(begin("r2"), made("b")))
	// The first wakes up: it can't write, and is told why.
	if err := l.Append(made("x")); !errors.Is(err, statefile.ErrLockLost) || l.Why() == nil {
		t.Fatal(err)
	}
	select {
	case <-l.Lost():
	default:
		t.Error("not told")
	}
	do(t, l.Release())
	snap, err := l2.Read(context.Background())
	do(t, err, l2.Finish(snap.State), l2.Release())
	if srv.lock != nil {
		t.Error("still locked")
	}
	snap, err = s.Read(context.Background())
	do(t, err)
	if got := known(t, s); got != "a b" || snap.Unfinished != 0 || snap.State.Serial != 1 {
		t.Fatal(got, snap)
	}
	if bytes.Contains(srv.state, []byte("very-secret")) || !bytes.Contains(srv.state, []byte(`"serial":`)) || !bytes.Contains(srv.state, []byte(`"lineage":"`+snap.State.Lineage+`"`)) {
		t.Errorf("%.300s", srv.state)
	}
}

// TestFaults has each request of a run fail in each way, once and for good. What
// Append or Finish said is durable is there afterwards; where the fault passes the
// run comes to its end, and nothing stays locked where the server can be reached.
func TestFaults(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	do(t, err)
	k := keysOf(t, id)
	for _, method := range []string{"LOCK", "GET", "POST", "UNLOCK"} {
		for _, f := range []fault{refuse, lost, cut, half, delayed, confused} {
			for n := 1; n <= 3; n++ {
				for _, times := range []int{1, 1000} {
					t.Run(fmt.Sprintf("%s/%d/%d/%d", method, f, n, times), func(t *testing.T) {
						srv := serve(t)
						s := srv.open(t, k)
						srv.set(nth(method, n, times, f))
						sure, failed := runAll(s)
						srv.set(nil)
						if times == 1 && failed != nil {
							t.Fatalf("a fault that passed ended the run: %v", failed)
						}
						for _, late := range srv.late { // whatever was on its way
							late()
						}
						// A lock that is only taken once its holder has gone stays: its
						// id, which the next one is told, breaks it.
						if srv.lock != nil && failed == nil && !(method == "LOCK" && f == delayed) {
							t.Error("still locked")
						}
						have := " " + known(t, s) + " "
						for _, name := range sure {
							if !strings.Contains(have, " "+name) {
								t.Errorf("%s was durable, and is not in %q (%v)", name, have, failed)
							}
						}
						if failed == nil && have != " a b c " {
							t.Error(have)
						}
						if srv.lock != nil { // the error says how to go on
							if failed != nil && !strings.Contains(failed.Error(), "force-unlock "+idOf(srv.lock)) {
								t.Errorf("the error does not say how to unlock: %v", failed)
							}
							_, err := s.ForceUnlock(context.Background(), idOf(srv.lock))
							do(t, err)
						}
						do(t, take(t, s).Release())
					})
				}
			}
		}
	}
}

// TestLockInDoubt: where the answer to a lock was lost, and the next try is refused or
// told nothing, the lock is given back, or the error names it.
func TestLockInDoubt(t *testing.T) {
	k := keys(t)
	for _, c := range []struct {
		next, unlock fault
		stays        bool
	}{{denied, sound, false}, {denied, denied, true}, {mute, sound, true}} {
		srv := serve(t)
		s := srv.open(t, k)
		srv.set(func(method string, n int) fault {
			switch {
			case method == "LOCK" && n == 1:
				return lost
			case method == "LOCK":
				return c.next
			}
			return c.unlock
		})
		_, err := s.Lock(t.Context(), statefile.LockRequest{Who: "ann@host", What: "apply"})
		srv.set(nil)
		if err == nil || (srv.lock != nil) != c.stays {
			t.Fatalf("%v: %s, %v", c, srv.lock, err)
		}
		if c.stays {
			if !strings.Contains(err.Error(), "force-unlock "+idOf(srv.lock)) {
				t.Errorf("%v: the error does not say how to unlock: %v", c, err)
			}
			_, err := s.ForceUnlock(t.Context(), idOf(srv.lock))
			do(t, err)
		}
		do(t, take(t, s).Release())
	}
}

// TestLate: a write whose answer was lost comes about after later ones. It is seen
// with the next, or before the lock is given back, and what was durable is there.
func TestLate(t *testing.T) {
	k := keys(t)
	for when := 1; when <= 3; when++ {
		t.Run(fmt.Sprint(when), func(t *testing.T) {
			srv := serve(t)
			s := srv.open(t, k)
			l := take(t, s)
			do(t, l.Append(begin("r")))
			srv.set(nth("POST", 1, 1, delayed))
			for i, name := range []string{"a", "b", "c"} {
				do(t, l.Append(made(name)))
				if i+1 == when {
					srv.mu.Lock()
					for _, late := range srv.late {
						late()
					}
					srv.late = nil
					srv.mu.Unlock()
				}
			}
			do(t, l.Release())
			if got := known(t, s); got != "a b c" {
				t.Error(got)
			}
		})
	}
}

// TestDamaged: what the server has and clusterplan did not write, or not so, is
// refused and left alone, and nothing stays locked.
func TestDamaged(t *testing.T) {
	k := keys(t)
	srv := serve(t)
	s := srv.open(t, k)
	l := take(t, s)
	do(t, l.Append(begin("r"), made("a")), l.Release())
	whole := srv.state
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"cut":       {whole[:len(whole)/2], statefile.ErrDamaged},
		"foreign":   {[]byte(`{"version": 4, "serial": 7, "lineage": "x"}`), statefile.ErrDamaged},
		"a page":    {[]byte("<html>log in</html>"), statefile.ErrDamaged},
		"changed":   {bytes.Replace(whole, []byte(`"serial":1`), []byte(`"serial":9`), 1), statefile.ErrDamaged},
		"newer":     {bytes.Replace(whole, []byte(`"clusterplan_envelope":1`), []byte(`"clusterplan_envelope":2`), 1), statefile.ErrNewer},
		"no record": {nil, statefile.ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			s := s
			if srv.state = c.data; name == "no record" { // somebody else's keys
				srv.state, s = whole, srv.open(t, keys(t))
			}
			before := srv.state
			if _, err := s.Read(context.Background()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), s.Path()) {
				t.Error(err)
			}
			if _, err := s.Lock(t.Context(), statefile.LockRequest{}); !errors.Is(err, c.want) {
				t.Error(err)
			}
			if srv.lock != nil || !bytes.Equal(srv.state, before) {
				t.Error("something was changed")
			}
		})
	}
	// An older one that was put back outside is one that the next run goes on from.
	srv.state = whole
	if got := known(t, s); got != "a" {
		t.Error(got)
	}
}

// TestRefused: a server that says no is told of as what it says, at once, and a
// redirection is not followed: a write would become a read on the way.
func TestRefused(t *testing.T) {
	srv := serve(t)
	s := srv.open(t, keys(t))
	s.set.Password = "wrong"
	if _, err := s.Lock(t.Context(), statefile.LockRequest{}); err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "CLUSTERPLAN_HTTP_PASSWORD") {
		t.Error(err)
	}
	if _, err := s.Read(context.Background()); err == nil || !strings.Contains(err.Error(), "CLUSTERPLAN_HTTP_PASSWORD") {
		t.Error(err)
	}
	s.set.Password = password
	for _, code := range []int{301, 302, 303, 307, 308} {
		away := httptest.NewServer(http.RedirectHandler(srv.URL+"/lock", code))
		s.set.Address = away.URL
		if err := func() error { _, err := s.Read(context.Background()); return err }(); err == nil || !strings.Contains(err.Error(), "not followed") {
			t.Error(code, err)
		}
		away.Close()
	}
}

// TestSettings: what a definition or the environment may not say.
func TestSettings(t *testing.T) {
	none := func(string) string { return "" }
	for want, given := range map[string]map[string]string{
		"no address":                    {},
		"no lock_address":               {"address": "https://h/s"},
		"is no URL":                     {"address": "h/s", "lock_address": "https://h/s"},
		"has a user":                    {"address": "https://ann:secret@h/s", "lock_address": "https://h/s"},
		"CLUSTERPLAN_HTTP_PASSWORD":     {"address": "https://h/s", "lock_address": "https://h/s", "password": "secret"},
		"client_ca_certificate_pem":     {"address": "https://h/s", "lock_address": "https://h/s", "skip_cert_verification": "true"},
		"retry_max":                     {"address": "https://h/s", "lock_address": "https://h/s", "retry_max": "-1"},
		"more than retry_wait_max":      {"address": "https://h/s", "lock_address": "https://h/s", "retry_wait_min": "60"},
		"CLUSTERPLAN_HTTP_LOCK_ADDRESS": {"address": "https://h/s"},
	} {
		if _, err := Parse(given, none); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", given, err)
		}
	}
	if _, err := Open(Settings{}, Options{}); err == nil || !strings.Contains(err.Error(), "encryption") {
		t.Error(err)
	}
}

// runAll is a run of three objects. sure is what it was told is durable.
func runAll(s *Store) (sure []string, err error) {
	l, err := s.take(context.Background(), statefile.LockRequest{Who: "ann@host", What: "apply"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Release()) }()
	if err := l.Append(begin("r")); err != nil {
		return sure, err
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := l.Append(intent(name)); err != nil {
			return sure, err
		}
		sure = append(sure, name)
		if err := l.Append(made(name)); err != nil {
			return sure, err
		}
	}
	snap, err := l.Read(context.Background())
	if err != nil {
		return sure, err
	}
	return sure, l.Finish(snap.State)
}

// What a server says, and what an address has behind its ?, does not get into errors
// as it is: a token stays unseen, a terminal's cursor where it was.
func TestErrorsAreTame(t *testing.T) {
	srv := serve(t)
	s := srv.open(t, keys(t))
	s.set.Address += "?token=hush"
	s.set.LockAddress += "?token=hush"
	srv.lock = []byte(`{"ID": "1\u001b[2J", "Who": "` + strings.Repeat("x", 1<<16) + `", "Operation": "a\nb"}`)
	var all []string
	tell := func(err error) {
		t.Helper()
		if err == nil {
			t.Fatal("no error")
		}
		all = append(all, err.Error())
	}
	_, err := s.Lock(t.Context(), statefile.LockRequest{})
	tell(err)
	_, err = s.ForceUnlock(context.Background(), "2")
	tell(err)
	srv.state = []byte("<html>")
	_, err = s.Read(context.Background())
	tell(err)
	away := httptest.NewServer(http.RedirectHandler("https://ann:hush@h/x?signature=hush", http.StatusTemporaryRedirect))
	defer away.Close()
	s.set.Address = away.URL + "?token=hush"
	_, err = s.Read(context.Background())
	tell(err)
	srv.Close()
	s.set.Address = srv.URL + "?token=hush"
	_, err = s.Read(context.Background())
	tell(err)
	_, err = s.Lock(t.Context(), statefile.LockRequest{})
	tell(err)
	for _, text := range append(all, s.Path()) {
		if strings.Contains(text, "hush") || strings.ContainsAny(text, "\x1b") || len(text) > 1500 {
			t.Errorf("%.400q", text)
		}
	}
}

// A small answer does not become a large one here, and one that is no state is read
// no further than it is of use.
func TestLargeAnswers(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 64<<20))
	z.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(b.Bytes())
			return
		}
		w.WriteHeader(http.StatusLocked)
		w.Write(make([]byte, 64<<20))
	}))
	defer srv.Close()
	s := serve(t).open(t, keys(t))
	s.set.Address, s.set.LockAddress = srv.URL, srv.URL
	for _, r := range []request{{method: "GET", url: srv.URL}, {method: "LOCK", url: srv.URL}} {
		if a, err := s.once(t.Context(), r); err != nil || len(a.body) > 1<<20 {
			t.Errorf("%s: %v", r.method, err)
		}
	}
}

// A server that takes a write under any lock: a run whose lock was broken neither
// begins nor ends over what another has written since.
func TestServerWithoutChecks(t *testing.T) {
	k := keys(t)
	for _, begun := range []bool{false, true} {
		srv := serve(t)
		srv.any = true
		s := srv.open(t, k)
		l := take(t, s)
		if begun {
			do(t, l.Append(begin("r1"), made("a")))
		}
		_, err := s.ForceUnlock(context.Background(), l.Info().ID)
		do(t, err)
		l2 := take(t, s)
		do(t, l2.Append(begin("r2"), made("b")))
		before := srv.state
		if begun {
			err = l.Finish(statefile.State{})
		} else {
			err = l.Append(begin("r1"))
		}
		if !errors.Is(err, statefile.ErrLockLost) || l.Why() == nil || !bytes.Equal(srv.state, before) {
			t.Errorf("%v: %v", begun, err)
		}
		do(t, l.Release(), l2.Release())
	}
}

// Somebody gives up while the server does not answer: the wait ends, and what it may
// have locked is given back.
func TestGivenUp(t *testing.T) {
	for what, ask := range map[string]func(context.Context, *Store) error{
		"GET":  func(ctx context.Context, s *Store) error { _, err := s.Read(ctx); return err },
		"LOCK": func(ctx context.Context, s *Store) error { _, err := s.ForceUnlock(ctx, "id"); return err },
	} {
		srv := serve(t)
		s := srv.open(t, keys(t))
		ctx, cancel := context.WithCancel(t.Context())
		srv.set(func(m string, n int) fault {
			if m != what {
				return sound
			}
			cancel()
			return hang
		})
		if err := ask(ctx, s); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, method := range []string{"LOCK", "GET"} {
		srv := serve(t)
		s := srv.open(t, keys(t))
		ctx, cancel := context.WithCancel(t.Context())
		srv.set(func(m string, n int) fault {
			if m != method {
				return sound
			}
			cancel()
			return hang
		})
		if _, err := s.Lock(ctx, statefile.LockRequest{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", method, err)
		}
		srv.set(nil)
		if srv.mu.Lock(); srv.lock != nil {
			t.Errorf("%s: it stays locked", method)
		}
		srv.mu.Unlock()
	}
}
