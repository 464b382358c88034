package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	for _, c := range []struct {
		data string
		perm os.FileMode
	}{{"first", 0o600}, {"second", 0o755}} {
		if err := Write(path, []byte(c.data), c.perm); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(path)
		if fi, _ := os.Stat(path); string(got) != c.data || fi.Mode().Perm() != c.perm {
			t.Errorf("%q with %v", got, fi.Mode())
		}
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// A reader sees one content or the other, however often it is replaced.
func TestReaderSeesWholes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<15)}
	if err := Write(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		var err error
		for i := range 100 {
			err = errors.Join(err, Write(path, contents[i%2], 0o600))
		}
		done <- err
	}()
	for {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	err := Write(filepath.Join(dir, "no", "f"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, "no", "f")) {
		t.Error(err)
	}
	// A directory in its place can't be replaced, and nothing is left behind.
	if err := os.MkdirAll(filepath.Join(dir, "d", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "d"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// Whatever fails on the way, the file is as it was, or, when only the directory
// could not be synced, the new one; and nothing is left beside it.
func TestFailsAtEachEffect(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	failed := map[string]bool{}
	for k := 1; ; k++ {
		if err := Write(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		n, at := 0, ""
		undo := Inject(func(op, path string) error {
			if n++; n == k {
				at = op
				if path == dir {
					at = "sync directory"
				}
				return syscall.EIO
			}
			return nil
		})
		err := Write(path, []byte("new"), 0o600)
		undo()
		got, _ := os.ReadFile(path)
		if at == "" {
			if err != nil || string(got) != "new" {
				t.Errorf("%q, %v", got, err)
			}
			break
		}
		failed[at] = true
		if whole := at == "sync directory"; !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), dir) || string(got) == "new" != whole {
			t.Errorf("fails at %s: %q, %v", at, got, err)
		}
		if names, _ := os.ReadDir(dir); len(names) != 1 {
			t.Errorf("fails at %s, left behind: %v", at, names)
		}
	}
	if len(failed) != 7 {
		t.Errorf("failed at %v", failed)
	}
}
