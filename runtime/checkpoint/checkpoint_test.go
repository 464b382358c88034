package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// memory is a database of one resource's checkpoint.
type memory struct {
	m        Manifest
	chunks   map[string][]byte
	epoch    uint64 // of the keeper that asks
	node     string
	current  uint64
	puts     int
	sent     int // bytes
	problems []string
	fail     func(call string) error
}

var errFenced = errors.New("the epoch is over")

func (s *memory) check(call string) error {
	if s.epoch != s.current {
		return errFenced
	}
	if s.fail != nil {
		return s.fail(call)
	}
	return nil
}

func (s *memory) Load(context.Context) (Manifest, error) { return s.m, s.check("load") }

func (s *memory) Chunk(_ context.Context, hash string) ([]byte, error) {
	if err := s.check("chunk"); err != nil {
		return nil, err
	}
	data, ok := s.chunks[hash]
	if !ok {
		return nil, errors.New("no such chunk")
	}
	return data, nil
}

func (s *memory) PutChunk(_ context.Context, data []byte) error {
	if err := s.check("put chunk"); err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	s.chunks[hex.EncodeToString(sum[:])] = bytes.Clone(data)
	s.sent += len(data)
	return nil
}

func (s *memory) Put(_ context.Context, files []File) error {
	if err := s.check("put"); err != nil {
		return err
	}
	s.m = Manifest{Epoch: s.epoch, Node: s.node, Files: slices.Clone(files)}
	s.puts++
	return nil
}

func (s *memory) Problem(_ context.Context, text string) error {
	s.problems = append(s.problems, text)
	return s.check("problem")
}

// host is a node's directory, and a life of the resource there.
type host struct {
	t    *testing.T
	s    *memory
	name string
	dir  string
	k    *Keeper
}

func newHost(t *testing.T, s *memory, name string) *host {
	return &host{t: t, s: s, name: name, dir: t.TempDir()}
}

// begin is a start under the next epoch.
func (h *host) begin(paths ...string) error {
	h.s.current++
	h.s.epoch, h.s.node = h.s.current, h.name
	h.k = New(Config{Spec: spec.Checkpoint{Paths: paths}, Node: h.name, Dir: h.dir, Store: h.s, User: -1})
	return h.k.Restore(h.t.Context())
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		h.t.Fatal(err)
	}
}

// tree is what lies in the directory: path and mode and content.
func (h *host) tree() string {
	var out []string
	_ = filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			data, _ := os.ReadFile(path)
			info, _ := d.Info()
			out = append(out, fmt.Sprintf("%s %o %d:%.20s", strings.TrimPrefix(path, h.dir+"/"), info.Mode().Perm(), len(data), data))
		}
		return nil
	})
	return strings.Join(out, "\n")
}

func fresh() *memory { return &memory{chunks: map[string][]byte{}} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFilesGoWithTheResource(t *testing.T) {
	s := fresh()
	a, b := newHost(t, s, "a"), newHost(t, s, "b")
	must(t, a.begin("one", "d"))
	a.k.Look(t.Context())
	if s.puts != 1 || len(s.m.Files) != 0 {
		t.Fatalf("nothing is there, and %+v is kept", s.m)
	}
	big := strings.Repeat("0123456789abcdef", chunkSize/16*2) + "end" // two chunks that are equal, and a rest
	a.write("one", "1")
	a.write("d/x", big)
	a.write("d/deep/y", "")
	must(t, os.Chmod(filepath.Join(a.dir, "one"), 0o604))
	a.k.Look(t.Context())
	if want := 1 + chunkSize + 3; s.sent != want {
		t.Errorf("%d bytes were sent, want %d: equal chunks once", s.sent, want)
	}
	puts, sent := s.puts, s.sent
	a.k.Look(t.Context())
	if s.puts != puts || s.sent != sent {
		t.Error("what didn't change was kept again")
	}
	must(t, os.Remove(filepath.Join(a.dir, "d/deep/y")))
	a.write("d/z", "z")
	a.k.Look(t.Context())

	// Elsewhere: exactly that, and nothing else; a half restored file is no more.
	b.write("d/stale", "gone by then")
	b.write("d/"+tempPrefix+"0", "half")
	b.write("d/x", "old")
	b.write("besides", "not of the checkpoint")
	must(t, b.begin("one", "d"))
	want := strings.Replace(a.tree(), "d/x", "besides 640 21:not of the checkpoin\nd/x", 1)
	if got := b.tree(); got != want {
		t.Errorf("restored:\n%s\nwant:\n%s", got, want)
	}
	if s.m.Node != "b" || s.m.Epoch != 2 {
		t.Errorf("after the restore the database says %s under %d", s.m.Node, s.m.Epoch)
	}
	// The former owner's late look is refused.
	s.epoch = 1
	a.write("one", "late")
	a.k.Look(t.Context())
	if s.m.Node != "b" || len(s.problems) == 0 {
		t.Error("a former owner's checkpoint was taken")
	}
	// B again: its own files are newer than what is kept, and stay.
	b.write("one", "newer than the checkpoint")
	must(t, b.begin("one", "d"))
	if got := b.tree(); !strings.Contains(got, "one 604 25:") {
		t.Errorf("its own files were replaced:\n%s", got)
	}
	// But with an emptied disk it gets them back.
	must(t, os.RemoveAll(b.dir))
	must(t, os.Mkdir(b.dir, 0o700))
	must(t, b.begin("one", "d"))
	if got := b.tree(); !strings.Contains(got, "one 604 1:1") {
		t.Errorf("an emptied disk:\n%s", got)
	}
}

// A restore that ends anywhere is done again at the next start: until all of it
// is there, the database names the former node.
func TestRestoreIsDoneAgain(t *testing.T) {
	for step := 1; ; step++ {
		s := fresh()
		a, b := newHost(t, s, "a"), newHost(t, s, "b")
		must(t, a.begin("d"))
		for i := range 3 {
			a.write(fmt.Sprint("d/", i), fmt.Sprint("content ", i))
		}
		a.k.Look(t.Context())
		b.write("d/0", "old")
		n := 0
		s.fail = func(string) error {
			if n++; n == step {
				return errors.New("the node dies here")
			}
			return nil
		}
		err := b.begin("d")
		if n < step {
			if err != nil {
				t.Fatal(err)
			}
			if step < 5 {
				t.Errorf("only %d steps", step)
			}
			return
		}
		if err == nil || s.m.Node != "a" {
			t.Fatalf("step %d: %v, and the database says %s", step, err, s.m.Node)
		}
		s.fail = nil
		must(t, b.begin("d"))
		if a.tree() != b.tree() {
			t.Errorf("step %d:\n%s\nwant:\n%s", step, b.tree(), a.tree())
		}
	}
}

// The same on a node that had the files last and whose disk was emptied: the
// database names it before and after.
func TestRestoreAtHomeIsDoneAgain(t *testing.T) {
	for step := 1; ; step++ {
		s := fresh()
		a := newHost(t, s, "a")
		must(t, a.begin("d"))
		for i := range 3 {
			a.write(fmt.Sprint("d/", i), fmt.Sprint("content ", i))
		}
		a.k.Look(t.Context())
		want := a.tree()
		must(t, os.RemoveAll(filepath.Join(a.dir, "d")))
		n := 0
		s.fail = func(string) error {
			if n++; n == step {
				return errors.New("the node dies here")
			}
			return nil
		}
		err := a.begin("d")
		s.fail = nil
		if err == nil && step < 5 {
			t.Errorf("only %d steps", step)
		}
		if err != nil {
			must(t, a.begin("d"))
		}
		if got := a.tree(); got != want {
			t.Errorf("step %d:\n%s\nwant:\n%s", step, got, want)
		}
		// Once it is done, its own files stay.
		a.write("d/0", "newer")
		must(t, a.begin("d"))
		if got := a.tree(); !strings.Contains(got, "5:newer") {
			t.Errorf("step %d: its own files were replaced:\n%s", step, got)
		}
		if err == nil {
			return
		}
	}
}

// Two resources of a group keep files in one directory, and are restored at once.
func TestTwoResourcesInOneDirectory(t *testing.T) {
	dir := t.TempDir()
	s1, s2 := fresh(), fresh()
	a1, a2 := newHost(t, s1, "a"), newHost(t, s2, "a")
	must(t, a1.begin("one"))
	must(t, a2.begin("two"))
	a1.write("one", "1")
	a2.write("two", "2")
	a1.k.Look(t.Context())
	a2.k.Look(t.Context())
	b1, b2 := newHost(t, s1, "b"), newHost(t, s2, "b")
	b1.dir, b2.dir = dir, dir
	s1.fail = func(call string) error {
		if call == "chunk" { // one's file lies there half written
			s1.fail = nil
			return b2.begin("two")
		}
		return nil
	}
	must(t, b1.begin("one"))
	if want := "one 640 1:1\ntwo 640 1:2"; b1.tree() != want {
		t.Errorf("restored:\n%s\nwant:\n%s", b1.tree(), want)
	}
}

// What lies on the other node is past a checkpoint's limits, or could not be kept:
// it is removed, and doesn't keep the resource from its start there.
func TestRestoreOverTooMuch(t *testing.T) {
	s := fresh()
	a, b := newHost(t, s, "a"), newHost(t, s, "b")
	must(t, a.begin("d"))
	a.write("d/x", "x")
	a.k.Look(t.Context())
	b.write("d/large", "")
	must(t, os.Truncate(filepath.Join(b.dir, "d/large"), maxBytes+1))
	b.write("d/\xff", "no UTF-8")
	for i := range maxFiles {
		b.write(fmt.Sprint("d/many/", i), "")
	}
	must(t, b.begin("d"))
	if got := b.tree(); got != a.tree() {
		t.Errorf("restored:\n%.200s\nwant:\n%s", got, a.tree())
	}
}

// A name that JSON can't carry would come back as another one.
func TestNamesAreKeptOrRefused(t *testing.T) {
	s := fresh()
	a := newHost(t, s, "a")
	must(t, a.begin("d"))
	a.write("d/x", "x")
	a.k.Look(t.Context())
	puts := s.puts
	a.write("d/\xff", "y")
	a.k.Look(t.Context())
	if s.puts != puts || len(s.problems) != 1 || !strings.Contains(s.problems[0], `\xff" is no UTF-8`) {
		t.Errorf("%d puts after %d, problems %q", s.puts, puts, s.problems)
	}
}

// Files that are never at rest are told, once.
func TestNeverAtRest(t *testing.T) {
	s := fresh()
	a := newHost(t, s, "a")
	must(t, a.begin("log"))
	n := 0
	s.fail = func(call string) error {
		if call == "put chunk" { // it is written while it is read
			n++
			a.write("log", strings.Repeat("line\n", n+1))
		}
		return nil
	}
	a.write("log", "line\n")
	for range movingMost - 1 {
		a.k.Look(t.Context())
	}
	if s.puts != 0 || len(s.problems) != 0 {
		t.Fatalf("%d puts, problems %q", s.puts, s.problems)
	}
	for range 5 {
		a.k.Look(t.Context())
	}
	if len(s.problems) != 1 || !strings.Contains(s.problems[0], "change while they are read") {
		t.Errorf("problems %q", s.problems)
	}
}

func TestLinksAreRefused(t *testing.T) {
	s := fresh()
	a, b := newHost(t, s, "a"), newHost(t, s, "b")
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, a.begin("d/file", "d"))
	must(t, os.Mkdir(filepath.Join(a.dir, "d"), 0o700))
	must(t, os.Symlink(secret, filepath.Join(a.dir, "d/file")))
	a.k.Look(t.Context())
	a.k.Look(t.Context())
	if s.puts != 0 || s.sent != 0 || len(s.problems) != 1 {
		t.Errorf("a link was kept (%d puts), or not told once: %q", s.puts, s.problems)
	}
	must(t, os.Remove(filepath.Join(a.dir, "d/file")))
	a.write("d/file", "mine")
	a.k.Look(t.Context())
	// On b, the directory leads elsewhere.
	elsewhere := t.TempDir()
	must(t, os.Symlink(elsewhere, filepath.Join(b.dir, "d")))
	if err := b.begin("d/file"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a restore through a link: %v", err)
	}
	if left, _ := os.ReadDir(elsewhere); len(left) != 0 {
		t.Errorf("it wrote %v", left)
	}
}

func TestTooMuch(t *testing.T) {
	s := fresh()
	a := newHost(t, s, "a")
	must(t, a.begin("big"))
	a.write("big", "small")
	a.k.Look(t.Context())
	must(t, os.Truncate(filepath.Join(a.dir, "big"), maxBytes+1))
	a.k.Look(t.Context())
	if s.puts != 1 || len(s.problems) != 1 || !strings.Contains(s.problems[0], "16 MiB") {
		t.Errorf("%d puts, problems %q", s.puts, s.problems)
	}
}

func TestOutputOfACommand(t *testing.T) {
	s := fresh()
	said, restored := "one", ""
	keeper := func(node string) *Keeper {
		s.current++
		s.epoch, s.node = s.current, node
		return New(Config{
			Spec: spec.Checkpoint{Command: []string{"dump"}, Restore: []string{"load"}}, Node: node, Store: s, User: -1,
			Run: func(_ context.Context, command []string, in, out string) error {
				if command[0] == "dump" {
					return os.WriteFile(out, []byte(said), 0o600)
				}
				data, err := os.ReadFile(in)
				restored = string(data)
				return err
			},
		})
	}
	a := keeper("a")
	must(t, a.Restore(t.Context()))
	a.Look(t.Context())
	said = "two"
	a.Look(t.Context())
	a.Look(t.Context())
	if s.puts != 2 || restored != "" {
		t.Errorf("%d puts, restored %q", s.puts, restored)
	}
	must(t, keeper("a").Restore(t.Context()))
	if restored != "" {
		t.Error("the node that had it last restored it")
	}
	must(t, keeper("b").Restore(t.Context()))
	if restored != "two" {
		t.Errorf("restored %q", restored)
	}
}

// A command that never stops talking is ended at the limit; its output lies
// nowhere meanwhile but in a file without a name, and nothing of it is kept.
func TestOutputIsLimited(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := fresh()
	wrote, stop := 0, errors.New("killed")
	k := New(Config{
		Spec: spec.Checkpoint{Command: []string{"yes"}, Restore: []string{"load"}}, Node: "a", Store: s, User: -1,
		Run: func(ctx context.Context, _ []string, _, out string) error {
			f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			go func() { <-ctx.Done(); f.SetWriteDeadline(time.Now()) }()
			defer f.Close()
			for block := make([]byte, 1<<16); ; {
				n, err := f.Write(block)
				wrote += n
				if err != nil {
					return stop
				}
			}
		},
	})
	s.current++
	s.epoch, s.node = s.current, "a"
	must(t, k.Restore(t.Context()))
	k.Look(t.Context())
	if s.puts != 0 || len(s.problems) != 1 || !strings.Contains(s.problems[0], "more than 16 MiB") {
		t.Errorf("%d puts, problems %q", s.puts, s.problems)
	}
	if wrote < maxBytes || wrote > maxBytes+4<<20 {
		t.Errorf("it wrote %d bytes", wrote)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
