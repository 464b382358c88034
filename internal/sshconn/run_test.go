package sshconn

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func isError(err, target error) bool { return errors.Is(err, target) }

func TestRunAndFiles(t *testing.T) {
	s := startSSHD(t)
	c := connect(t, s.config())
	ctx := context.Background()

	words := []string{"printf", "%s|", "", "a b", "it's", `back\slash\\`, "$HOME `id` \"x\"", "new\nline", "*", "ü", "-n", "!x"}
	out, err := c.Output(ctx, Command{Argv: words})
	must(t, err)
	if want := strings.Join(words[2:], "|") + "|"; string(out) != want {
		t.Errorf("quoted as %q, want %q", out, want)
	}
	r, err := c.Run(ctx, Command{Argv: []string{"sh", "-c", `cat; echo $X >&2; exit 3`}, Stdin: strings.NewReader("in"), Env: map[string]string{"X": "a  b"}})
	must(t, err)
	if r.Code != 3 || string(r.Stdout) != "in" || string(r.Stderr) != "a b\n" {
		t.Errorf("result %+v", r)
	}
	r, err = c.Run(ctx, Command{Argv: []string{"sh", "-c", `kill -9 $$`}})
	must(t, err)
	if r.Signal != "KILL" {
		t.Errorf("result %+v", r)
	}

	dir := t.TempDir()
	for _, size := range []int{0, 10, 384 << 10} {
		name, data := dir+"/sub/dir/file *'x", bytes.Repeat([]byte("x\x00y\n"), size/4+1)[:size]
		must(t, c.Put(ctx, name, bytes.NewReader(data), int64(size), PutOptions{Mode: 0o640, Parents: true}))
		if got, err := c.ReadFile(ctx, name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
		}
		if info, err := c.Stat(ctx, name); err != nil || info.Mode != 0o640 || info.Size != int64(size) {
			t.Errorf("stat %+v: %v", info, err)
		}
	}
	must(t, c.Symlink(ctx, "nowhere", dir+"/link"))
	must(t, c.Symlink(ctx, "sub", dir+"/link"))
	must(t, c.Symlink(ctx, "sub/dir", dir+"/link"))
	if to, err := c.ReadLink(ctx, dir+"/link"); err != nil || to != "sub/dir" {
		t.Errorf("link to %q: %v", to, err)
	}
	must(t, os.WriteFile(dir+"/.hidden\nname", nil, 0o600))
	names, err := c.List(ctx, dir)
	must(t, err)
	if strings.Join(names, ",") != ".hidden\nname,link,sub" {
		t.Errorf("names %q", names)
	}
	if names, err := c.List(ctx, dir+"/sub/dir"); err != nil || len(names) != 1 {
		t.Errorf("left behind: %q %v", names, err)
	}
	must(t, c.Remove(ctx, dir+"/sub"))
	must(t, c.Remove(ctx, dir+"/sub"))
	if _, err := c.ReadFile(ctx, dir+"/sub/dir/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read what is gone: %v", err)
	}
	if err := c.Put(ctx, dir, strings.NewReader("x"), 1, PutOptions{Mode: 0o600}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("put over a directory: %v", err)
	}
	if err := c.Put(ctx, dir+"/none/x", strings.NewReader("x"), 1, PutOptions{Mode: 0o600}); err == nil {
		t.Error("put into no directory")
	}
	wrong := strings.Repeat("0", 64)
	if err := c.Put(ctx, dir+"/wrong", strings.NewReader("x"), 1, PutOptions{Mode: 0o600, SHA256: wrong}); err == nil || !strings.Contains(err.Error(), "not what was sent") {
		t.Errorf("put with another digest: %v", err)
	}
	if names, _ := c.List(ctx, dir); len(names) != 2 {
		t.Errorf("left behind: %q", names)
	}
}

// A disk that tells at the sync that it is full or broken is told of; a sync that
// takes no files, and file systems that sync no directory, are lived with.
func TestDurable(t *testing.T) {
	for _, tt := range []struct{ name, sync, want string }{
		{"it works", "exit 0", ""},
		{"a full disk", `case $1 in */file) echo "sync: error syncing '$1': No space left on device" >&2; exit 1;; esac`, "No space left on device"},
		{"a directory that can't", `case $1 in */file) echo "sync: error syncing '$1': Invalid argument" >&2; exit 1;; esac`, ""},
		{"no files", `[ $# = 0 ] || { echo "usage: sync" >&2; exit 1; }`, ""},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(dir+"/sync", []byte("#!/bin/sh\n"+tt.sync+"\n"), 0o755))
		cmd := exec.Command("sh", "-c", Durable+`durable "$1" && echo done`, "sh", dir+"/file")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if text := string(out); tt.want == "" && (err != nil || text != "done\n") || tt.want != "" && (err == nil || !strings.Contains(text, tt.want)) {
			t.Errorf("%s: %q, %v", tt.name, text, err)
		}
	}
}
