package revision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Tree is a directory as of a commit. It is an fs.FS with ReadFile, ReadDir and
// Stat. Symbolic links are followed as on a disk, but never out of the repository.
type Tree struct {
	repo   *Repo
	root   *object.Tree
	commit plumbing.Hash
	dir    string // of the repository
}

// Tree is the directory dir (of the repository, with slashes) as of the commit
// with this whole hash. fs.ErrNotExist: the commit doesn't have it.
func (r *Repo) Tree(commit, dir string) (*Tree, error) {
	c, err := object.GetCommit(r.store, plumbing.NewHash(commit))
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", commit, r.explain(err))
	}
	root, err := r.tree(c.TreeHash)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", commit, err)
	}
	t := &Tree{repo: r, root: root, commit: c.Hash, dir: path.Clean(dir)}
	info, err := t.Stat(".")
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory there", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", short(c.Hash), err)
	}
	return t, nil
}

// At is another directory of the same commit.
func (t *Tree) At(dir string) *Tree {
	other := *t
	other.dir = path.Clean(dir)
	return &other
}

func (r *Repo) tree(hash plumbing.Hash) (*object.Tree, error) {
	if t := r.trees[hash]; t != nil {
		return t, nil
	}
	t, err := object.GetTree(r.store, hash)
	if err != nil {
		return nil, r.explain(err)
	}
	r.trees[hash] = t
	return t, nil
}

const mostLinks = 40

// find is what lies at name. A symbolic link at its end is followed too.
func (t *Tree) find(op, name string) (object.TreeEntry, error) {
	fail := func(err error) (object.TreeEntry, error) {
		return object.TreeEntry{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	if !fs.ValidPath(name) {
		return fail(fs.ErrInvalid)
	}
	links := 0
	at := []object.TreeEntry{{Mode: filemode.Dir, Hash: t.root.Hash}} // the way down
	rest := parts(path.Join(t.dir, name))
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if len(at) == 1 {
				return fail(errors.New("a symbolic link leads out of the repository"))
			}
			at = at[:len(at)-1]
			continue
		}
		here := at[len(at)-1]
		switch here.Mode {
		case filemode.Dir:
		case filemode.Submodule:
			return fail(fmt.Errorf("%s is a submodule: its files are those of another repository", here.Name))
		default:
			return fail(fs.ErrNotExist)
		}
		tree, err := t.repo.tree(here.Hash)
		if err != nil {
			return fail(err)
		}
		i := slices.IndexFunc(tree.Entries, func(e object.TreeEntry) bool { return e.Name == part })
		if i < 0 {
			return fail(fs.ErrNotExist)
		}
		e := tree.Entries[i]
		if e.Mode != filemode.Symlink {
			at = append(at, e)
			continue
		}
		if links++; links > mostLinks {
			return fail(errors.New("its symbolic links name one another"))
		}
		to, err := t.read(e)
		if err != nil {
			return fail(err)
		}
		if path.IsAbs(string(to)) {
			return fail(fmt.Errorf("%s is a symbolic link out of the repository, to %s", e.Name, to))
		}
		rest = append(parts(string(to)), rest...)
	}
	return at[len(at)-1], nil
}

func parts(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool { return p == "" || p == "." })
}

// lfs is how a file begins that git keeps elsewhere (Git LFS).
var lfs = []byte("version https://git-lfs.github.com/spec/")

func (t *Tree) read(e object.TreeEntry) ([]byte, error) {
	blob, err := object.GetBlob(t.repo.store, e.Hash)
	if err != nil {
		return nil, t.repo.explain(err)
	}
	in, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	if err == nil && bytes.HasPrefix(data, lfs) {
		err = errors.New("the commit has only its Git LFS pointer; a definition's files have to be in the repository itself")
	}
	return data, err
}

// ReadFile is fs.ReadFileFS.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	switch e.Mode {
	case filemode.Dir:
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	case filemode.Submodule:
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a submodule")}
	}
	data, err := t.read(e)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// ReadDir is fs.ReadDirFS.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	switch e.Mode {
	case filemode.Dir:
	case filemode.Submodule:
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is a submodule: its files are those of another repository")}
	default:
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is not a directory")}
	}
	tree, err := t.repo.tree(e.Hash)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, 0, len(tree.Entries))
	for _, e := range tree.Entries {
		out = append(out, fs.FileInfoToDirEntry(&info{tree: t, entry: e, name: e.Name}))
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Stat is fs.StatFS.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return &info{tree: t, entry: e, name: path.Base(name)}, nil
}

// Open is fs.FS.
func (t *Tree) Open(name string) (fs.File, error) {
	i, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if i.IsDir() {
		entries, err := t.ReadDir(name)
		return &file{info: i, entries: entries}, err
	}
	data, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &file{info: i, Reader: bytes.NewReader(data)}, nil
}

type info struct {
	tree  *Tree
	entry object.TreeEntry
	name  string
}

func (i *info) Name() string       { return i.name }
func (i *info) ModTime() time.Time { return time.Time{} } // git keeps none
func (i *info) IsDir() bool        { return i.Mode().IsDir() }
func (i *info) Sys() any           { return nil }

func (i *info) Size() int64 {
	if i.IsDir() {
		return 0
	}
	n, _ := i.tree.repo.store.EncodedObjectSize(i.entry.Hash)
	return n
}

func (i *info) Mode() fs.FileMode {
	switch i.entry.Mode {
	case filemode.Dir, filemode.Submodule:
		return fs.ModeDir | 0o755
	case filemode.Symlink:
		return fs.ModeSymlink | 0o777
	case filemode.Executable:
		return 0o755
	}
	return 0o644
}

// file is a file or directory that is open.
type file struct {
	*bytes.Reader // nil: a directory
	info          fs.FileInfo
	entries       []fs.DirEntry
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

func (f *file) Read(b []byte) (int, error) {
	if f.Reader == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: errors.New("is a directory")}
	}
	return f.Reader.Read(b)
}

// ReadDir is fs.ReadDirFile.
func (f *file) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := f.entries
		f.entries = nil
		return out, nil
	}
	if len(f.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.entries))
	out := f.entries[:n]
	f.entries = f.entries[n:]
	return out, nil
}
