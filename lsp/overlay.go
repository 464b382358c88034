package lsp

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// homed is a directory of home that no link leads out of home from.
type homed struct{ home, dir string }

func (h homed) Open(name string) (fs.File, error) {
	return os.OpenInRoot(h.home, filepath.Join(h.dir, filepath.FromSlash(name)))
}

// Stat tells of a file without opening it: to open a pipe takes until somebody writes to it.
func (h homed) Stat(name string) (fs.FileInfo, error) {
	root, err := os.OpenRoot(h.home)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Stat(filepath.Join(h.dir, filepath.FromSlash(name)))
}

// overlay is a directory on disk under an editor's unsaved buffers.
type overlay struct {
	fs.FS
	buffers map[string][]byte // by name within the directory, with /
}

// newOverlay lays those of the buffers (by absolute path) that are in or below
// dir over it.
func newOverlay(base fs.FS, dir string, buffers map[string]*document) *overlay {
	o := &overlay{base, map[string][]byte{}}
	for name, d := range buffers {
		if rel, err := filepath.Rel(dir, name); err == nil && filepath.IsLocal(rel) {
			o.buffers[filepath.ToSlash(rel)] = d.text
		}
	}
	return o
}

func (o *overlay) Open(name string) (fs.File, error) {
	if text, ok := o.buffers[name]; ok {
		return &bufferFile{bytes.NewReader(text), buffer{path.Base(name), int64(len(text))}}, nil
	}
	return o.FS.Open(name)
}

// Stat is of a buffer, or the file.
func (o *overlay) Stat(name string) (fs.FileInfo, error) {
	if text, ok := o.buffers[name]; ok {
		return buffer{path.Base(name), int64(len(text))}, nil
	}
	return fs.Stat(o.FS, name)
}

// ReadFile is a buffer's text, or the file's.
func (o *overlay) ReadFile(name string) ([]byte, error) {
	if text, ok := o.buffers[name]; ok {
		return bytes.Clone(text), nil
	}
	return fs.ReadFile(o.FS, name)
}

// ReadDir has the buffers that are in the directory beside its files: a new one
// is not on disk yet.
func (o *overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	found := false
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	for file, text := range o.buffers {
		if base := path.Base(file); path.Dir(file) == name && !strings.HasPrefix(base, ".") {
			found = true
			if !there[base] {
				entries = append(entries, buffer{base, int64(len(text))})
			}
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	if found {
		err = nil
	}
	return entries, err
}

// buffer describes an unsaved text as a file.
type buffer struct {
	name string
	size int64
}

func (b buffer) Name() string               { return b.name }
func (b buffer) Size() int64                { return b.size }
func (b buffer) Mode() fs.FileMode          { return 0o644 }
func (b buffer) Type() fs.FileMode          { return 0 }
func (b buffer) ModTime() time.Time         { return time.Time{} }
func (b buffer) IsDir() bool                { return false }
func (b buffer) Sys() any                   { return nil }
func (b buffer) Info() (fs.FileInfo, error) { return b, nil }

type bufferFile struct {
	*bytes.Reader
	about buffer
}

func (f *bufferFile) Stat() (fs.FileInfo, error) { return f.about, nil }
func (f *bufferFile) Close() error               { return nil }
