package localstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/seal"
)

const secret = "THE-CLUSTERS-KEY"

// someone has an age identity; to writes for it, from only reads.
func someone(t *testing.T) (to, from *seal.Keys) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	do(t, err)
	file := filepath.Join(t.TempDir(), "key")
	do(t, os.WriteFile(file, []byte(id.String()+"\n"), 0o600))
	to, err = seal.New(seal.Config{Recipients: []string{id.Recipient().String()}, IdentityFile: file})
	do(t, err)
	from, err = seal.New(seal.Config{IdentityFile: file})
	do(t, err)
	return to, from
}

func keyed(t *testing.T, path string, o Options) *Store {
	t.Helper()
	o.Program = "0.1.0"
	s, err := Open(path, o)
	do(t, err)
	return s
}

// inPlain are the files in dir that tell the secret.
func inPlain(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	do(t, err)
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		do(t, err)
		if bytes.Contains(data, []byte(secret)) {
			names = append(names, e.Name())
		}
	}
	return names
}

// A state in plain, with the journal of an apply that was cut off, is encrypted.
// Wherever a crash ends that, or what comes after it, everything is there and can
// be read; and once it is encrypted nothing tells the secret any more.
func TestEncryptedAnywhere(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "live")
	path := filepath.Join(home, "state.json")
	hidden := func(name string) statefile.Entry {
		e := made(name)
		e.Result.Object.Tainted = secret
		return e
	}
	l := lock(t, open(t, path))
	do(t, run(l, "r1", hidden("n1")), run(l, "r2", hidden("n2")), l.Append(begin("cut"), hidden("n3")), l.Release())
	if got := inPlain(t, home); len(got) != 3 {
		t.Fatal("in plain before:", got)
	}
	keys, _ := someone(t)
	s := keyed(t, path, Options{Keys: keys})
	durable, maybe, sealed, n := "n1 n2 n3", "n1 n2 n3", false, 0
	s.step = func(what string) {
		n++
		at := filepath.Join(dir, fmt.Sprintf("%03d %s", n, what))
		do(t, os.CopyFS(at, os.DirFS(home)))
		got := names(t, keyed(t, filepath.Join(at, "state.json"), Options{Keys: keys}))
		if got != durable && got != maybe {
			t.Fatalf("%s: holds %q, want %q", what, got, durable)
		}
		if sealed {
			if got := inPlain(t, at); len(got) > 0 {
				t.Fatalf("%s: in plain: %v", what, got)
			}
		}
		do(t, os.RemoveAll(at))
	}
	l = lock(t, s)
	done, err := l.Reseal(false)
	do(t, err)
	if !done || len(inPlain(t, home)) > 0 {
		t.Fatalf("%v; in plain: %v", done, inPlain(t, home))
	}
	sealed = true
	for _, name := range []string{"n4", "n5"} {
		maybe = durable + " " + name
		do(t, l.Append(begin(name)), l.Append(hidden(name)))
		durable = maybe
		_, err := l.Keep(context.Background())
		do(t, err)
		snap, err := l.Read(context.Background())
		do(t, err, l.Finish(snap.State))
	}
	if done, err := l.Reseal(false); done || err != nil {
		t.Error("encrypted again:", err)
	}
	do(t, l.Release())
	if n < 25 {
		t.Errorf("only %d places were tried", n)
	}
	for _, name := range []string{path, path + ".backup", path + ".2.backup"} {
		if data, err := os.ReadFile(name); err != nil || !statefile.Sealed(data) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is encrypted is not written by who does not encrypt, and not in plain unless
// that is asked for; a journal that another key has is left alone.
func TestNeverBackToPlain(t *testing.T) {
	path := DefaultPath(t.TempDir())
	keys, reader := someone(t)
	l := lock(t, keyed(t, path, Options{Keys: keys}))
	do(t, run(l, "r1", made("n1")), l.Append(begin("cut"), made("n2")), l.Release())
	before := files(t, filepath.Dir(path))
	other, _ := someone(t)
	for name, s := range map[string]*Store{
		"no keys": open(t, path), "an identity alone": keyed(t, path, Options{Keys: reader}), "another's": keyed(t, path, Options{Keys: other}),
	} {
		if _, err := s.Read(context.Background()); !errors.Is(err, statefile.ErrSealed) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.take(context.Background(), statefile.LockRequest{Who: "b", What: "apply"}); !errors.Is(err, statefile.ErrSealed) {
			t.Errorf("%s: locked: %v", name, err)
		}
	}
	s := keyed(t, path, Options{Keys: reader, ReadSealed: true})
	if got := names(t, s); got != "n1 n2" {
		t.Error(got)
	}
	l = lock(t, s)
	_, err := l.Reseal(true)
	for _, err := range []error{err, l.Append(begin("x")), l.Finish(statefile.State{}), l.Replace(statefile.State{Lineage: "x"})} {
		if !errors.Is(err, statefile.ErrSealed) {
			t.Error("written:", err)
		}
	}
	do(t, l.Release())
	if after := files(t, filepath.Dir(path)); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// A person asks for it: not while an apply is open, whose journal is encrypted.
	l = lock(t, keyed(t, path, Options{Keys: reader, Decrypt: true}))
	if _, err := l.Reseal(true); err == nil {
		t.Error("the journal stays encrypted")
	}
	do(t, l.Release())
	l = lock(t, keyed(t, path, Options{Keys: keys}))
	snap, err := l.Read(context.Background())
	do(t, err, l.Finish(snap.State), l.Release())
	l = lock(t, keyed(t, path, Options{Keys: reader, Decrypt: true}))
	done, err := l.Reseal(true)
	do(t, err, l.Release())
	if got := names(t, open(t, path)); !done || got != "n1 n2" {
		t.Error(done, got)
	}
}

// Other recipients read also what an apply that was cut off had written, and go on
// from it; who is no longer among them reads neither that nor what comes after it.
func TestOtherRecipients(t *testing.T) {
	path := DefaultPath(t.TempDir())
	old, both, next := pair(t)
	l := lock(t, keyed(t, path, Options{Keys: old}))
	do(t, run(l, "r1", made("n1")), l.Append(begin("cut"), made("n2")), l.Release())
	l = lock(t, keyed(t, path, Options{Keys: both}))
	_, err := l.Reseal(true)
	do(t, err, l.Append(begin("cut again"), made("n3")), l.Release())
	if got := names(t, keyed(t, path, Options{Keys: next})); got != "n1 n2 n3" {
		t.Error(got)
	}
	for _, file := range []string{path, path + ".backup", path + ".journal"} {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		do(t, err)
		if statefile.Sealed(data) {
			_, err = old.Open(data)
		} else {
			_, err = statefile.DecodeJournal(data, old)
		}
		if !errors.Is(err, statefile.ErrSealed) {
			t.Errorf("%s: who was taken out reads it: %v", file, err)
		}
	}
}

// pair are two people: old writes for the first, next for the second; both can read
// what the first could, and writes for the second.
func pair(t *testing.T) (old, both, next *seal.Keys) {
	t.Helper()
	one, err := age.GenerateX25519Identity()
	do(t, err)
	two, err := age.GenerateX25519Identity()
	do(t, err)
	keys := func(to *age.X25519Identity, from ...*age.X25519Identity) *seal.Keys {
		var text strings.Builder
		for _, id := range from {
			fmt.Fprintln(&text, id)
		}
		file := filepath.Join(t.TempDir(), "key")
		do(t, os.WriteFile(file, []byte(text.String()), 0o600))
		k, err := seal.New(seal.Config{Recipients: []string{to.Recipient().String()}, IdentityFile: file})
		do(t, err)
		return k
	}
	return keys(one, one), keys(two, one, two), keys(two, two)
}

// A crash in the middle of a journal's first records may leave its key alone. Nothing
// was written with that, so it keeps nobody from having the state in plain.
func TestKeyWithoutRecords(t *testing.T) {
	path := DefaultPath(t.TempDir())
	keys, reader := someone(t)
	l := lock(t, keyed(t, path, Options{Keys: keys}))
	do(t, run(l, "r1", made("n1")), l.Append(begin("cut"), made("n2")), l.Release())
	data, err := os.ReadFile(path + ".journal")
	do(t, err)
	key, rest, _ := bytes.Cut(data, []byte("\n"))
	do(t, os.WriteFile(path+".journal", append(append(key, '\n'), rest[:40]...), 0o600))
	l = lock(t, keyed(t, path, Options{Keys: reader, Decrypt: true}))
	_, err = l.Reseal(true)
	do(t, err, l.Release())
	if got := names(t, open(t, path)); got != "n1" {
		t.Error(got)
	}
}

// files are the names and contents in dir, but for the lock.
func files(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	do(t, err)
	var b strings.Builder
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		do(t, err)
		fmt.Fprintf(&b, "%s %x\n", e.Name(), data)
	}
	return b.String()
}

// An encrypted state of an older format has sensitive values as they are. Its copies
// have digests of them, and are encrypted as it was.
func TestOlderFormatEncrypted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	plain, err := os.ReadFile("testdata/formats/1.1-broken/applied/state.json")
	do(t, err)
	to, _ := someone(t)
	sealed, err := to.Seal(plain)
	do(t, err, os.WriteFile(path, sealed, 0o600))
	want, err := statefile.Redact(plain)
	do(t, err)
	if bytes.Equal(want, plain) {
		t.Fatal("there is no secret in it")
	}
	s := keyed(t, path, Options{Keys: to})
	l := lock(t, s)
	do(t, l.Append(begin("r")), l.Append(made("zz")))
	snap, err := l.Read(context.Background())
	do(t, err, l.Finish(snap.State), l.Release())
	kept, err := filepath.Glob(path + ".*.format-1.1.backup")
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	for _, name := range append(kept, s.backup()) {
		data, err := os.ReadFile(name)
		do(t, err)
		if got, err := statefile.Open(to, data); err != nil || !statefile.Sealed(data) || !bytes.Equal(got, want) {
			t.Errorf("%s: encrypted %v, %v:\n%s", name, statefile.Sealed(data), err, got)
		}
	}
}
