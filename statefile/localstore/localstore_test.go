package localstore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
)

// The test binary is also the program that holds a lock until it is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("LOCALSTORE_TEST_HOLD"); path != "" {
		s, err := Open(path, Options{})
		if err != nil {
			panic(err)
		}
		l, err := s.take(context.Background(), statefile.LockRequest{Who: "holder@host", What: "apply"})
		if err != nil {
			panic(err)
		}
		if err := l.Append(begin("held"), made("n1")); err != nil {
			panic(err)
		}
		fmt.Println("locked")
		io.Copy(io.Discard, os.Stdin)
		if err := l.Append(made("n2")); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func begin(run string) statefile.Entry { return statefile.Entry{Begin: &statefile.Begin{Run: run}} }

func made(name string) statefile.Entry {
	a := addr.Node(name, addr.NoKey)
	return statefile.Entry{Result: &statefile.Result{Addr: a, Object: &statefile.Object{Addr: a, Type: "node", ID: name, Attributes: json.RawMessage("{}")}}}
}

func gone(name string) statefile.Entry {
	return statefile.Entry{Result: &statefile.Result{Addr: addr.Node(name, addr.NoKey), Gone: true}}
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{Program: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lock(t *testing.T, s *Store) *Lock {
	t.Helper()
	l, err := s.take(context.Background(), statefile.LockRequest{Who: "anna@host", What: "apply"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Release() })
	return l
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// names are the objects in the state on disk, and its serial.
func names(t *testing.T, s *Store) string {
	t.Helper()
	snap, err := s.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return describe(snap)
}

func describe(snap *statefile.Snapshot) string {
	var b strings.Builder
	for _, o := range snap.State.Objects {
		b.WriteString(o.Addr.Name + " ")
	}
	return strings.TrimSpace(b.String())
}

// run is one run of an apply: it makes and removes nodes and finishes.
func run(l *Lock, name string, entries ...statefile.Entry) error {
	if err := l.Append(begin(name)); err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.Append(e); err != nil {
			return err
		}
	}
	snap, err := l.Read(context.Background())
	if err != nil {
		return err
	}
	return l.Finish(snap.State)
}

func TestRuns(t *testing.T) {
	path := DefaultPath(t.TempDir())
	s := open(t, path)
	if snap, err := s.Read(context.Background()); err != nil || snap.State.Lineage != "" || len(snap.State.Objects) != 0 {
		t.Fatalf("%+v, %v", snap, err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err == nil {
		t.Fatal("a look has made the directory")
	}
	l := lock(t, s)
	do(t, run(l, "r1", made("n1"), made("n2")), run(l, "r2", gone("n1")), l.Release(), l.Release())
	snap, err := s.Read(context.Background())
	do(t, err)
	if describe(snap) != "n2" || snap.State.Serial != 2 || snap.State.Lineage == "" || snap.State.Program != "0.1.0" || snap.Unfinished != 0 {
		t.Errorf("%+v", snap)
	}
	for _, name := range []string{path, path + ".backup"} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if all, _ := os.ReadDir(filepath.Dir(path)); len(all) != 2 {
		t.Errorf("left behind: %v", all)
	}
	if backup := names(t, open(t, path+".backup")); backup != "n1 n2" {
		t.Errorf("the backup holds %s", backup)
	}
	if err := l.Append(begin("r3")); err == nil {
		t.Error("wrote after Release")
	}
}

// Before and after every effect the disk is copied, as a crash would leave it,
// and opened: it must say what was durable by then, and a new run go on from it.
func TestCrashAnywhere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "live", "state.json")
	s := open(t, path)
	copies, n := filepath.Join(dir, "copies"), 0
	durable := "" // what a reader may see at the least
	var maybe string
	s.step = func(what string) {
		n++
		at := filepath.Join(copies, fmt.Sprintf("%03d %s", n, what))
		do(t, os.MkdirAll(copies, 0o700), os.CopyFS(at, os.DirFS(filepath.Dir(path))))
		// Torn too: the journal's last bytes have not reached the disk.
		if data, err := os.ReadFile(filepath.Join(at, "state.json.journal")); err == nil && what == "appended" {
			torn := at + " torn"
			do(t, os.CopyFS(torn, os.DirFS(at)), os.WriteFile(filepath.Join(torn, "state.json.journal"), data[:len(data)-3], 0o600))
			reopen(t, torn, durable)
		}
		want := durable
		if what == "appended" {
			want = maybe
		}
		reopen(t, at, want)
	}
	l := lock(t, s)
	alive := map[string]bool{}
	for i, steps := range [][]statefile.Entry{{made("n1"), made("n2")}, {gone("n1"), made("n3")}, {made("n1")}} {
		maybe = durable
		do(t, l.Append(begin(fmt.Sprint("r", i))))
		for _, e := range steps {
			alive[e.Result.Addr.Name] = !e.Result.Gone
			maybe = ""
			for _, name := range []string{"n1", "n2", "n3"} {
				if alive[name] {
					maybe = strings.TrimSpace(maybe + " " + name)
				}
			}
			do(t, l.Append(e))
			durable = maybe
		}
		snap, err := l.Read(context.Background())
		do(t, err, l.Finish(snap.State))
	}
	do(t, l.Release())
	if n < 30 {
		t.Errorf("only %d places were tried", n)
	}
}

func reopen(t *testing.T, dir, want string) {
	t.Helper()
	s := open(t, filepath.Join(dir, "state.json"))
	if got := names(t, s); got != want {
		t.Fatalf("%s: holds %q, want %q", filepath.Base(dir), got, want)
	}
	before, _ := s.Read(context.Background())
	// The holder died there; its pid is ours, and alive, so say it is another's.
	if h, _ := s.Holder(); h != nil {
		h.Started++
		data, _ := json.Marshal(h)
		do(t, os.WriteFile(s.lock(), data, 0o600))
	}
	l := lock(t, s)
	do(t, run(l, "after", made("n9")), l.Release())
	if got := names(t, s); got != strings.TrimSpace(want+" n9") {
		t.Fatalf("%s: after another run it holds %q", filepath.Base(dir), got)
	}
	after, _ := s.Read(context.Background())
	if after.State.Serial != before.State.Serial+1 || before.State.Lineage != "" && after.State.Lineage != before.State.Lineage {
		t.Fatalf("%s: serial %d after %d, lineage %s after %s", filepath.Base(dir), after.State.Serial, before.State.Serial, after.State.Lineage, before.State.Lineage)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".tmp-*"))
	if _, err := os.Stat(s.journal()); err == nil || len(left) > 0 {
		t.Fatalf("%s: left behind: %v, journal %v", filepath.Base(dir), left, err)
	}
}

// hold starts a process that locks the state and has begun a run.
func hold(t *testing.T, path string) (cmd *exec.Cmd, stdin io.Closer, stdout *bufio.Reader) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCALSTORE_TEST_HOLD="+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	do(t, err)
	out, err := cmd.StdoutPipe()
	do(t, err, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "locked\n" {
		t.Fatal(line, err)
	}
	return cmd, in, r
}

func TestLockedByALiveProcess(t *testing.T) {
	s := open(t, DefaultPath(t.TempDir()))
	cmd, _, _ := hold(t, s.Path())
	// Suspended is alive, too.
	do(t, cmd.Process.Signal(syscall.SIGSTOP))
	_, err := s.take(context.Background(), statefile.LockRequest{Who: "b", What: "plan"})
	var locked *statefile.LockedError
	if !errors.Is(err, statefile.ErrLocked) || !errors.As(err, &locked) || locked.Holder.PID != cmd.Process.Pid || locked.Holder.Who != "holder@host" {
		t.Fatal(err)
	}
	for _, word := range []string{"holder@host", "apply", fmt.Sprint("process ", cmd.Process.Pid), locked.Holder.ID, s.Path()} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
	if got := names(t, s); got != "n1" {
		t.Errorf("a reader sees %q", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.take(ctx, statefile.LockRequest{Timeout: time.Hour}); !errors.Is(err, context.Canceled) || !errors.Is(err, statefile.ErrLocked) {
		t.Error(err)
	}
	// One that waits gets it once the holder is gone.
	got := make(chan error)
	go func() {
		l, err := s.take(context.Background(), statefile.LockRequest{Who: "c", What: "apply", Timeout: 30 * time.Second})
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	do(t, cmd.Process.Kill(), <-got)
}

func TestTakeoverOfADeadProcess(t *testing.T) {
	s := open(t, DefaultPath(t.TempDir()))
	cmd, _, _ := hold(t, s.Path())
	do(t, cmd.Process.Kill()) // not yet waited for: a zombie is dead, too
	var l *Lock
	for end := time.Now().Add(20 * time.Second); l == nil; {
		var err error
		if l, err = s.take(context.Background(), statefile.LockRequest{Who: "b"}); err != nil && (!errors.Is(err, statefile.ErrLocked) || time.Now().After(end)) {
			t.Fatal(err)
		}
	}
	if from := l.TookOver(); from == nil || from.Who != "holder@host" || l.Info().Generation != from.Generation+1 {
		t.Errorf("took over %+v, now %+v", from, l.Info())
	}
	snap, err := l.Read(context.Background())
	if err != nil || describe(snap) != "n1" || snap.Unfinished != 2 {
		t.Errorf("%+v, %v", snap, err)
	}
	do(t, run(l, "r2", made("n2")))
	if got := names(t, s); got != "n1 n2" {
		t.Errorf("holds %q", got)
	}
}

// A run whose lock was broken while it was suspended can't write when it goes on.
func TestBrokenLockStopsItsHolder(t *testing.T) {
	s := open(t, DefaultPath(t.TempDir()))
	cmd, stdin, stdout := hold(t, s.Path())
	do(t, cmd.Process.Signal(syscall.SIGSTOP))
	h, err := s.Holder()
	do(t, err)
	if _, err := s.ForceUnlock(context.Background(), "0000000000000000"); !errors.Is(err, statefile.ErrNoLock) || !strings.Contains(err.Error(), h.ID) {
		t.Error(err)
	}
	if broken, err := s.ForceUnlock(context.Background(), h.ID); err != nil || broken.PID != cmd.Process.Pid {
		t.Fatal(broken, err)
	}
	if _, err := s.ForceUnlock(context.Background(), h.ID); !errors.Is(err, statefile.ErrNoLock) {
		t.Error(err)
	}
	l := lock(t, s)
	if l.Info().Generation <= h.Generation {
		t.Errorf("generation %d after %d", l.Info().Generation, h.Generation)
	}
	do(t, l.Append(begin("r2"), made("n3")))
	do(t, stdin.Close(), cmd.Process.Signal(syscall.SIGCONT))
	if line, err := stdout.ReadString('\n'); !strings.Contains(line, statefile.ErrLockLost.Error()+" by anna@host") {
		t.Errorf("the old holder says %q, %v", line, err)
	}
	if got := names(t, s); got != "n1 n3" {
		t.Errorf("holds %q", got)
	}
}

func TestHeartbeatSeesALostLock(t *testing.T) {
	s, err := Open(DefaultPath(t.TempDir()), Options{Heartbeat: time.Millisecond})
	do(t, err)
	l := lock(t, s)
	_, err = s.ForceUnlock(context.Background(), l.Info().ID)
	do(t, err)
	select {
	case <-l.Lost():
	case <-time.After(20 * time.Second):
		t.Error("not seen")
	}
}

func TestManyAppendAtOnce(t *testing.T) {
	s := open(t, DefaultPath(t.TempDir()))
	l := lock(t, s)
	if err := l.Append(made("early")); err == nil {
		t.Error("a run without begin")
	}
	do(t, l.Append(begin("r")))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := l.Append(made(fmt.Sprintf("n%02d", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	snap, err := s.Read(context.Background())
	if err != nil || len(snap.State.Objects) != 20 || snap.Unfinished != 21 {
		t.Errorf("%+v, %v", snap, err)
	}
}

func TestBadFiles(t *testing.T) {
	edit := func(name string, f func(string) string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path + name)
			do(t, err, os.WriteFile(path+name, []byte(f(string(data))), 0o600))
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, string)
		is    error
		words []string
	}{
		{"damaged", edit("", func(s string) string { return s[:len(s)/2] }), statefile.ErrDamaged, []string{"in line", "state.json.backup: serial 1, 2 objects, written 20", "to go back to it: cp "}},
		{"damaged with its backup", func(t *testing.T, path string) {
			do(t, os.WriteFile(path, []byte("{}"), 0o600), os.WriteFile(path+".backup", []byte("{"), 0o600))
		}, statefile.ErrDamaged, []string{"The backup can't be used as it is (state.json.backup: damaged in line 1", "If you have kept a copy"}},
		{"damaged without a backup", func(t *testing.T, path string) {
			do(t, os.WriteFile(path, []byte("{}"), 0o600), os.Remove(path+".backup"))
		}, statefile.ErrDamaged, []string{"There is no backup beside it", "If you have kept a copy, put it there"}},
		{"newer", edit("", func(s string) string { return strings.Replace(s, `"1.3"`, `"9.0"`, 1) }), statefile.ErrNewer, []string{"9.0"}},
		{"missing", func(t *testing.T, path string) { do(t, os.Remove(path)) }, statefile.ErrDamaged, []string{"it is missing, though there was one", "serial 1, 2 objects", "cp ", "To begin anew, take down what it knew"}},
		{"another lineage", func(t *testing.T, path string) {
			other := open(t, DefaultPath(t.TempDir()))
			l := lock(t, other)
			do(t, run(l, "r1"), run(l, "r2"))
			data, err := os.ReadFile(other.Path())
			do(t, err, os.WriteFile(path, data, 0o600))
		}, statefile.ErrLineage, []string{"copied here from elsewhere"}},
		{"the backup put back below a journal", func(t *testing.T, path string) { do(t, os.Rename(path+".backup", path)) }, statefile.ErrDamaged, []string{"serial 1", "rests on serial 2"}},
		{"damaged journal", edit(".journal", func(s string) string { return strings.Replace(s, "n9", "n8", 1) }), statefile.ErrDamaged, []string{"in record 2, byte ", "state.json: serial 2, 1 objects"}},
		{"a journal without begin", edit(".journal", func(string) string {
			e := made("x")
			data, _ := new(statefile.Chain).Append(nil, &e, nil)
			return string(data)
		}), statefile.ErrDamaged, []string{"record 1"}},
		{"not a file", func(t *testing.T, path string) { do(t, os.Remove(path), os.Mkdir(path, 0o700)) }, nil, []string{"is not a file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := DefaultPath(t.TempDir())
			l := lock(t, open(t, path))
			do(t, run(l, "r1", made("n1"), made("n2")), run(l, "r2", gone("n1")), l.Append(begin("r3"), made("n9"), made("n10")), l.Release())
			c.spoil(t, path)
			before := all(t, path)
			s, err := Open(path, Options{})
			if err == nil {
				_, err = s.Read(context.Background())
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatal(err)
			}
			for _, w := range append(c.words, filepath.Base(path)) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			if s != nil {
				if _, lerr := s.take(context.Background(), statefile.LockRequest{}); fmt.Sprint(lerr) != fmt.Sprint(err) {
					t.Errorf("Lock says %v", lerr)
				}
			}
			if after := all(t, path); after != before {
				t.Errorf("files were touched:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

func all(t *testing.T, path string) string {
	var b strings.Builder
	entries, err := os.ReadDir(filepath.Dir(path))
	do(t, err)
	for _, e := range entries {
		data, _ := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		fmt.Fprintf(&b, "%s %d %x\n", e.Name(), len(data), data)
	}
	return b.String()
}

// A file that is larger than any that is written is damaged, and is not read.
func TestFilesOfNoSize(t *testing.T) {
	for _, name := range []string{"", ".journal"} {
		path := DefaultPath(t.TempDir())
		l := lock(t, open(t, path))
		do(t, run(l, "r1", made("n1")), l.Append(begin("r2"), made("n2")), l.Release())
		do(t, os.Truncate(path+name, statefile.Limit+1)) // a hole: it takes no room
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := open(t, path).Read(t.Context())
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%q: %d bytes of memory", name, took)
		}
		if !errors.Is(err, statefile.ErrDamaged) || !strings.Contains(err.Error(), path+name) || !strings.Contains(err.Error(), "it has 1073741825 bytes") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A state behind a symbolic link stays there, with all that belongs to it. One
// that can't be reached is not taken for none.
func TestSymbolicLink(t *testing.T) {
	there, here := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	link := filepath.Join(here, "state.json")
	do(t, os.MkdirAll(there, 0o700), os.Symlink(filepath.Join(there, "s.json"), link))
	if _, err := Open(link, Options{}); err == nil || !strings.Contains(err.Error(), "symbolic link to "+filepath.Join(there, "s.json")) {
		t.Errorf("a link to nowhere: %v", err)
	}
	for i, path := range []string{filepath.Join(there, "s.json"), link, link} {
		l := lock(t, open(t, path))
		do(t, run(l, fmt.Sprint("r", i), made(fmt.Sprint("n", i+1))), l.Release())
	}
	if to, err := os.Readlink(link); err != nil || to != filepath.Join(there, "s.json") {
		t.Errorf("the link: %q, %v", to, err)
	}
	if got := names(t, open(t, filepath.Join(there, "s.json"))); got != "n1 n2 n3" {
		t.Errorf("behind the link: %s", got)
	}
	if left, _ := os.ReadDir(here); len(left) != 1 {
		t.Errorf("beside the link: %v", left)
	}
}

func TestNoPermission(t *testing.T) {
	s := open(t, DefaultPath(t.TempDir()))
	err := s.fileError("read", &os.PathError{Op: "open", Path: s.Path(), Err: syscall.EACCES})
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), s.Path()) || !strings.Contains(err.Error(), "run as the user that owns "+filepath.Dir(s.Path())) {
		t.Error(err)
	}
	if os.Geteuid() == 0 {
		return // root may read everything
	}
	do(t, os.MkdirAll(filepath.Dir(s.Path()), 0o700), os.WriteFile(s.Path(), nil, 0))
	if _, err := s.Read(context.Background()); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "run as") {
		t.Error(err)
	}
}

func TestUnlockNothing(t *testing.T) {
	if _, err := open(t, DefaultPath(t.TempDir())).ForceUnlock(context.Background(), "x"); !errors.Is(err, statefile.ErrNoLock) {
		t.Error(err)
	}
	for _, o := range []Options{{Heartbeat: -1}, {Lease: time.Second, Heartbeat: time.Second}} {
		if _, err := Open("x", o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// The way back that a damaged state names can be typed as it stands there, wherever
// the state lies.
func TestWayBackCanBeTyped(t *testing.T) {
	path := DefaultPath(filepath.Join(t.TempDir(), "it's my $HOME"))
	l := lock(t, open(t, path))
	do(t, run(l, "r1", made("n1")), run(l, "r2", made("n2")), l.Release())
	do(t, os.WriteFile(path, []byte("{"), 0o600))
	read := func() error {
		_, err := open(t, path).Read(context.Background())
		return err
	}
	err := read()
	if err == nil {
		t.Fatal("a damaged state is read")
	}
	_, way, _ := strings.Cut(err.Error(), "to go back to it: ")
	if out, err := exec.Command("sh", "-c", way).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", way, err, out)
	}
	do(t, read())
}
